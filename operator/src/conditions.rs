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
            let old = before.iter().find(|old| old.type_ == fact.type_);
            let since = match old {
                Some(old) if old.status == fact.status => old.last_transition_time.clone(),
                _ => now.to_owned(),
            };
            Condition {
                type_: fact.type_.to_owned(),
                status: fact.status,
                observed_generation: generation,
                last_transition_time: since,
                reason: fact.reason.to_owned(),
                message: shortened(fact.message),
            }
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
