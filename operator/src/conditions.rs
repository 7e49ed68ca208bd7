//! The conditions of a resource: what was found now, merged with what stood there before.
//!
//! Pure. A condition keeps the time of its last change; the order is that of the findings, so an
//! unchanged state makes an unchanged status.

use crds::condition::{Condition, ConditionStatus};
use k8s_openapi::jiff::{Timestamp, Unit};

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it speaks of.
    pub type_: &'static str,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub message: String,
}

/// Types of conditions, in the order in which they are shown.
pub mod type_ {
    /// Everything that was asked for is there and works.
    pub const READY: &str = "Ready";
    /// Something is under way.
    pub const RECONCILING: &str = "Reconciling";
    /// Nothing will happen until somebody changes something.
    pub const STALLED: &str = "Stalled";
    /// The servers answer.
    pub const UPSTREAM_REACHABLE: &str = "UpstreamReachable";
    /// Roles and replication are as they should be.
    pub const TOPOLOGY_HEALTHY: &str = "TopologyHealthy";
    /// Every server runs the declared configuration.
    pub const CONFIG_APPLIED: &str = "ConfigApplied";
    /// Everybody uses the current passwords.
    pub const CREDENTIALS_ROTATED: &str = "CredentialsRotated";
    /// The volumes are as declared.
    pub const STORAGE_HEALTHY: &str = "StorageHealthy";
    /// Data was lost.
    pub const DATA_LOST: &str = "DataLost";
    /// Local copies are not kept coherent somewhere.
    pub const COHERENCE_DEGRADED: &str = "CoherenceDegraded";
    /// Each rule applies to some keys.
    pub const RULES_EFFECTIVE: &str = "RulesEffective";
    /// The copies in other namespaces are there.
    pub const SHARED: &str = "Shared";
    /// The operator is told of changes to the tier's objects.
    pub const WATCHED: &str = "Watched";
    /// The operator was told to leave everything as it is.
    pub const PAUSED: &str = "Paused";
    /// A session policy has its tier.
    pub const BOUND: &str = "Bound";
    /// Two session policies contradict each other.
    pub const CONFLICT: &str = "Conflict";
    /// The memory policy of the tier may remove sessions.
    pub const SESSIONS_EVICTABLE: &str = "SessionsEvictable";
}

/// The time that is written to a status: whole seconds, as all times of the API.
pub fn now() -> String {
    Timestamp::now()
        .round(Unit::Second)
        .unwrap_or_else(|_| Timestamp::now())
        .to_string()
}

// === impl Fact ===

impl Fact {
    /// It holds.
    pub fn holds(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(type_, ConditionStatus::True, reason, message)
    }

    /// It does not hold.
    pub fn fails(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(type_, ConditionStatus::False, reason, message)
    }

    /// Nobody knows.
    pub fn unknown(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(type_, ConditionStatus::Unknown, reason, message)
    }

    fn new(
        type_: &'static str,
        status: ConditionStatus,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            type_,
            status,
            reason,
            message: message.into(),
        }
    }
}

/// The conditions to write. `keep` names types of `before` that nothing was found about now and
/// that stand as they were.
pub fn merge(
    before: &[Condition],
    facts: Vec<Fact>,
    keep: &[&str],
    generation: Option<i64>,
    now: &str,
) -> Vec<Condition> {
    let mut merged: Vec<Condition> = facts
        .into_iter()
        .map(|fact| {
            let mut condition = Condition {
                type_: fact.type_.to_owned(),
                status: fact.status,
                observed_generation: generation,
                last_transition_time: now.to_owned(),
                reason: fact.reason.to_owned(),
                message: shortened(fact.message),
            };
            let old = before.iter().find(|old| old.type_ == fact.type_);
            if let Some(old) = old.filter(|old| !is_turn(old, &condition)) {
                condition
                    .last_transition_time
                    .clone_from(&old.last_transition_time);
            }
            condition
        })
        .collect();
    for type_ in keep {
        let known = merged.iter().any(|condition| condition.type_ == *type_);
        if let Some(old) = before.iter().find(|old| !known && old.type_ == *type_) {
            merged.push(old.clone());
        }
    }
    merged
}

/// Whether a condition turned. Each loss of data is one of its own: another sentence tells of
/// another, although the condition held before.
pub fn is_turn(old: &Condition, new: &Condition) -> bool {
    let another = new.type_ == type_::DATA_LOST && old.message != new.message;
    old.status != new.status || another
}

/// The schema allows 32768 characters; nobody reads as many.
fn shortened(message: String) -> String {
    const LONGEST: usize = 2000;
    if message.chars().count() <= LONGEST {
        return message;
    }
    message.chars().take(LONGEST).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let first = merge(
            &[],
            vec![Fact::fails(type_::READY, "Starting", "a")],
            &[],
            Some(1),
            "t1",
        );
        let second = merge(
            &first,
            vec![Fact::fails(type_::READY, "Waiting", "b")],
            &[],
            Some(2),
            "t2",
        );
        assert_eq!(second[0].last_transition_time, "t1");
        assert_eq!(second[0].reason, "Waiting");
        assert_eq!(second[0].observed_generation, Some(2));
        let third = merge(
            &second,
            vec![Fact::holds(type_::READY, "Ready", "c")],
            &[],
            Some(2),
            "t3",
        );
        assert_eq!(third[0].last_transition_time, "t3");
    }

    #[test]
    fn each_loss_of_data_has_its_own_time() {
        let merged = |before: &[Condition], why: &str, now: &str| {
            let fact = Fact::holds(type_::DATA_LOST, "DataLost", why);
            merge(before, vec![fact], &[], Some(1), now)
        };
        let first = merged(&[], "at 1", "t1");
        assert_eq!(merged(&first, "at 1", "t2"), first);
        let second = merged(&first, "at 2", "t2");
        assert_eq!(second[0].last_transition_time, "t2");
    }

    #[test]
    fn what_is_kept_stays_as_it_was_and_everything_else_goes() {
        let before = merge(
            &[],
            vec![
                Fact::holds(type_::DATA_LOST, "Empty", "a"),
                Fact::holds(type_::SHARED, "Copied", "b"),
            ],
            &[],
            Some(1),
            "t1",
        );
        let after = merge(
            &before,
            vec![Fact::holds(type_::READY, "Ready", "")],
            &[type_::DATA_LOST],
            Some(2),
            "t2",
        );
        let types: Vec<&str> = after.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(types, ["Ready", "DataLost"]);
        assert_eq!(after[1], before[0]);
    }
}
