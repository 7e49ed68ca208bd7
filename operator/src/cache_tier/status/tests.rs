use crds::condition::{ConditionStatus, ReplicaStatus};
use serde_json::json;

use super::*;

fn tier() -> CacheTier {
    serde_json::from_value(json!({
        "apiVersion": "pannier.dev/v1alpha1", "kind": "CacheTier",
        "metadata": {"name": "t", "namespace": "shop", "generation": 2},
        "spec": {"redis": {"topology": "Standalone"}},
    }))
    .unwrap()
}

fn seen() -> CacheTierStatus {
    let facts = vec![
        Fact::holds(type_::READY, "Serving", ""),
        Fact::holds(type_::TOPOLOGY_HEALTHY, "Healthy", ""),
        Fact::holds(type_::UPSTREAM_REACHABLE, "PrimaryAnswers", ""),
        Fact::holds(type_::SHARED, "Shared", "copies are in blog, docs"),
    ];
    CacheTierStatus {
        observed_generation: Some(1),
        conditions: conditions::merge(&[], facts, &[], Some(1), "t1"),
        servers: Some("2/2".to_owned()),
        primary: Some("t-shard-0-0".to_owned()),
        formed_at: Some("t0".to_owned()),
        replicas: vec![ReplicaStatus::default()],
        shared_with: vec!["blog".to_owned(), "docs".to_owned()],
        ..CacheTierStatus::default()
    }
}

fn told(status: &CacheTierStatus) -> Vec<(&str, ConditionStatus, &str)> {
    let all = status.conditions.iter();
    all.map(|one| (one.type_.as_str(), one.status, one.reason.as_str()))
        .collect()
}

#[test]
fn what_ran_before_a_tier_was_refused_is_not_told_as_if_it_were_seen_now() {
    use ConditionStatus::{False, True, Unknown};
    let refused = Error::Refused(Refusals::one("MemoryInUse", "too little"));
    let status = of_failure(&tier(), &seen(), &refused, "t2");
    assert_eq!(
        told(&status),
        [
            ("Ready", False, "MemoryInUse"),
            ("Reconciling", False, "MemoryInUse"),
            ("Stalled", True, "MemoryInUse"),
            ("UpstreamReachable", Unknown, "NotLookedAt"),
            ("TopologyHealthy", Unknown, "NotLookedAt"),
            ("Shared", True, "Shared"),
        ]
    );
    assert_eq!((&status.servers, &status.primary), (&None, &None));
    assert!(status.replicas.is_empty());
    assert_eq!(status.formed_at, Some("t0".to_owned()));
    assert_eq!(status.shared_with, ["blog", "docs"]);
    // However often it is looked at, there is nothing new to write.
    assert_eq!(of_failure(&tier(), &status, &refused, "t3"), status);
}

#[test]
fn copies_that_were_swept_are_told_once() {
    let left = Sharing {
        wanted: vec!["blog".to_owned(), "new".to_owned()],
        problems: vec!["namespace docs does not agree".to_owned()],
        ..Sharing::default()
    };
    let status = of_swept(&tier(), &seen(), &left, "t2");
    assert_eq!(
        status.shared_with,
        ["blog"],
        "what was never made is not told"
    );
    let (type_, shared, reason) = told(&status)[3];
    assert_eq!(
        (type_, shared, reason),
        ("Shared", ConditionStatus::False, "NotShared")
    );
    assert_eq!(of_swept(&tier(), &status, &left, "t3"), status);
    // The last one that was allowed is no longer: nothing is shared.
    let nothing = of_swept(&tier(), &status, &Sharing::default(), "t4");
    assert!(nothing.shared_with.is_empty());
    assert_eq!(told(&nothing).len(), 3);
}
