//! What a session policy is bound to, and what is in its way. Pure.

use crds::{
    CacheTier, SessionPolicy,
    cache_tier::{MaxmemoryPolicy, Topology},
};
use kube::ResourceExt as _;

use crate::conditions::{Fact, type_};

/// What a policy refers to, and what is there of it.
pub struct Found<'a> {
    /// The tier, if it is there, or why it cannot be read.
    pub tier: Option<Result<CacheTier, String>>,
    /// The other policies that name the same tier.
    pub others: Vec<&'a SessionPolicy>,
}

/// The conditions of a policy.
pub fn facts(policy: &SessionPolicy, found: &Found<'_>) -> Vec<Fact> {
    let name = &policy.spec.cache_tier_ref.name;
    let tier = match &found.tier {
        Some(Ok(tier)) => tier,
        None => {
            return unbound(
                "TierNotFound",
                &format!(
                    "spec.cacheTierRef.name: there is no CacheTier {name:?} in this namespace; create it, or delete this policy"
                ),
            );
        }
        Some(Err(why)) => {
            return unbound(
                "TierUnreadable",
                &format!(
                    "spec.cacheTierRef.name: CacheTier {name:?} does not fit this version of the operator: {why}; apply it again"
                ),
            );
        }
    };
    let winner = found
        .others
        .iter()
        .copied()
        .filter(|other| before(other, policy))
        .min_by(|a, b| age(a).cmp(&age(b)));
    let (ready, stalled, bound, conflict) = match winner {
        Some(winner) => {
            let message = format!(
                "SessionPolicy {:?} is older and names CacheTier {name:?} too; a tier has one policy: delete {:?} or this one, {:?}",
                winner.name_any(),
                winner.name_any(),
                policy.name_any()
            );
            (
                Fact::fails(type_::READY, "Conflict", message.clone()),
                Fact::holds(type_::STALLED, "Conflict", message.clone()),
                Fact::fails(type_::BOUND, "Conflict", message.clone()),
                Fact::holds(type_::CONFLICT, "OlderPolicy", message),
            )
        }
        None => (
            Fact::holds(
                type_::READY,
                "Bound",
                format!("bound to CacheTier {name:?}"),
            ),
            Fact::fails(type_::STALLED, "NotStalled", ""),
            Fact::holds(
                type_::BOUND,
                "Bound",
                format!("bound to CacheTier {name:?}"),
            ),
            others(policy, found),
        ),
    };
    vec![
        ready,
        Fact::fails(type_::RECONCILING, "Settled", ""),
        stalled,
        bound,
        conflict,
        evictable(tier),
    ]
}

fn unbound(reason: &'static str, message: &str) -> Vec<Fact> {
    vec![
        Fact::fails(type_::READY, reason, message),
        Fact::fails(type_::RECONCILING, reason, ""),
        Fact::holds(type_::STALLED, reason, message),
        Fact::fails(type_::BOUND, reason, message),
    ]
}

fn others(policy: &SessionPolicy, found: &Found<'_>) -> Fact {
    if found.others.is_empty() {
        return Fact::fails(type_::CONFLICT, "None", "");
    }
    let names: Vec<String> = found.others.iter().map(|other| other.name_any()).collect();
    Fact::holds(
        type_::CONFLICT,
        "YoungerPolicy",
        format!(
            "SessionPolicy {} names the same CacheTier and is not used; this one, {:?}, is older; delete one of them",
            names.join(", "),
            policy.name_any()
        ),
    )
}

fn age(policy: &SessionPolicy) -> (String, String) {
    let created = policy.metadata.creation_timestamp.as_ref();
    (
        created.map_or_else(String::new, |time| time.0.to_string()),
        policy.name_any(),
    )
}

fn before(a: &SessionPolicy, b: &SessionPolicy) -> bool {
    age(a) < age(b)
}

/// Whether a full server would remove sessions before their time.
fn evictable(tier: &CacheTier) -> Fact {
    let redis = &tier.spec.redis;
    let name = tier.name_any();
    match (redis.topology, redis.maxmemory_policy.unwrap_or_default()) {
        (Topology::None, _) => Fact::holds(
            type_::SESSIONS_EVICTABLE,
            "MemoryOnly",
            format!(
                "CacheTier {name:?} has no Redis: sessions are in the memory of one sidecar and end with it"
            ),
        ),
        (Topology::External, _) => Fact::unknown(
            type_::SESSIONS_EVICTABLE,
            "External",
            "what the external Redis removes when its memory is full is its own setting; it should be noeviction",
        ),
        (_, MaxmemoryPolicy::Noeviction) => {
            Fact::fails(type_::SESSIONS_EVICTABLE, "Noeviction", "")
        }
        (
            _,
            MaxmemoryPolicy::VolatileLru
            | MaxmemoryPolicy::VolatileLfu
            | MaxmemoryPolicy::VolatileRandom
            | MaxmemoryPolicy::VolatileTtl,
        ) => Fact::holds(
            type_::SESSIONS_EVICTABLE,
            "VolatilePolicy",
            format!(
                "sessions have a TTL, and CacheTier {name:?} removes keys with a TTL when its memory is full; set redis.maxmemoryPolicy to noeviction to keep them"
            ),
        ),
        _ => Fact::holds(
            type_::SESSIONS_EVICTABLE,
            "AllkeysPolicy",
            format!(
                "CacheTier {name:?} removes any key when its memory is full, sessions too; set redis.maxmemoryPolicy to noeviction to keep them"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use crds::condition::ConditionStatus;
    use serde_json::json;

    use super::*;

    fn policy(name: &str, created: &str) -> SessionPolicy {
        serde_json::from_value(json!({
            "apiVersion": "pannier.dev/v1alpha1", "kind": "SessionPolicy",
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"cacheTierRef": {"name": "t"}},
        }))
        .unwrap()
    }

    fn tier(redis: &serde_json::Value) -> CacheTier {
        serde_json::from_value(json!({
            "apiVersion": "pannier.dev/v1alpha1", "kind": "CacheTier",
            "metadata": {"name": "t"}, "spec": {"redis": redis},
        }))
        .unwrap()
    }

    fn find(facts: &[Fact], type_: &str) -> Fact {
        facts
            .iter()
            .find(|fact| fact.type_ == type_)
            .unwrap()
            .clone()
    }

    #[test]
    fn of_two_policies_the_older_one_counts_and_both_name_each_other() {
        let old = policy("old", "2026-01-01T00:00:00Z");
        let new = policy("new", "2026-01-02T00:00:00Z");
        let tier = tier(&json!({"topology": "None"}));
        let seen = |others| Found {
            tier: Some(Ok(tier.clone())),
            others,
        };
        let of_old = facts(&old, &seen(vec![&new]));
        assert_eq!(find(&of_old, type_::READY).status, ConditionStatus::True);
        assert!(find(&of_old, type_::CONFLICT).message.contains("new"));
        let of_new = facts(&new, &seen(vec![&old]));
        assert_eq!(find(&of_new, type_::READY).reason, "Conflict");
        let message = find(&of_new, type_::CONFLICT).message;
        assert!(message.contains("\"old\"") && message.contains("\"new\""));
    }

    #[test]
    fn a_policy_without_its_tier_is_stalled_and_one_with_it_tells_what_may_go() {
        let policy = policy("p", "2026-01-01T00:00:00Z");
        let none = Found {
            tier: None,
            others: Vec::new(),
        };
        let stalled = find(&facts(&policy, &none), type_::STALLED);
        assert_eq!(stalled.status, ConditionStatus::True);
        for (redis, status) in [
            (json!({"topology": "Standalone"}), ConditionStatus::True),
            (
                json!({"topology": "Standalone", "maxmemoryPolicy": "volatile-ttl"}),
                ConditionStatus::True,
            ),
            (
                json!({"topology": "Standalone", "maxmemoryPolicy": "noeviction"}),
                ConditionStatus::False,
            ),
            (json!({"topology": "External"}), ConditionStatus::Unknown),
        ] {
            let found = Found {
                tier: Some(Ok(tier(&redis))),
                others: Vec::new(),
            };
            let evictable = find(&facts(&policy, &found), type_::SESSIONS_EVICTABLE);
            assert_eq!(evictable.status, status, "{redis}");
        }
    }
}
