//! Session policies on a real API server: bound or not, whose tier it is, and what is told when
//! the tier goes or may drop sessions.

use e2e::{
    environment::available,
    kubernetes::{ApiServer, new_namespace},
};
use kube::{Client, api::DeleteParams};
use serde_json::json;

use crate::{
    ALL,
    world::{Operator, api, apply, condition, quiet, tier},
};

async fn policy(client: &Client, namespace: &str, name: &str, tier: &str) {
    let spec = json!({"spec": {"cacheTierRef": {"name": tier}}});
    apply(client, namespace, "SessionPolicy", name, spec).await;
}

#[tokio::test]
async fn a_policy_is_bound_while_its_tier_is_there_and_says_what_is_missing() {
    let name = "a_policy_is_bound_while_its_tier_is_there_and_says_what_is_missing";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "bound").await;
    let operator = Operator::start(plane.access(), &namespace, ALL).await;
    policy(&client, &namespace, "p", "t").await;
    let subject = (namespace.as_str(), "SessionPolicy", "p");
    for _ in 0..2 {
        let message = condition(&client, subject, ("Stalled", "True", "TierNotFound")).await;
        assert!(
            message.contains("spec.cacheTierRef.name") && message.contains("\"t\""),
            "{message}"
        );
        condition(&client, subject, ("Bound", "False", "TierNotFound")).await;
        tier(&client, &namespace, "t", json!({"topology": "None"})).await;
        condition(&client, subject, ("Bound", "True", "Bound")).await;
        condition(&client, subject, ("Ready", "True", "Bound")).await;
        condition(&client, subject, ("Stalled", "False", "")).await;
        // A policy is no reason to keep a tier.
        let tiers = api(&client, "CacheTier", &namespace);
        tiers.delete("t", &DeleteParams::default()).await.unwrap();
    }
    condition(&client, subject, ("Stalled", "True", "TierNotFound")).await;
    quiet(&operator).await;
}

#[tokio::test]
async fn of_two_policies_of_one_tier_both_say_so_and_the_older_is_bound() {
    let name = "of_two_policies_of_one_tier_both_say_so_and_the_older_is_bound";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "conflict").await;
    let operator = Operator::start(plane.access(), &namespace, ALL).await;
    tier(&client, &namespace, "t", json!({"topology": "None"})).await;
    // Of the same second at most: then the name decides.
    policy(&client, &namespace, "a", "t").await;
    let (a, b) = (
        (namespace.as_str(), "SessionPolicy", "a"),
        (namespace.as_str(), "SessionPolicy", "b"),
    );
    condition(&client, a, ("Conflict", "False", "None")).await;
    policy(&client, &namespace, "b", "t").await;
    for (subject, reason) in [(a, "YoungerPolicy"), (b, "OlderPolicy")] {
        let message = condition(&client, subject, ("Conflict", "True", reason)).await;
        for name in ["b", "a"] {
            assert!(message.contains(name), "{message}");
        }
    }
    condition(&client, a, ("Bound", "True", "")).await;
    condition(&client, b, ("Bound", "False", "Conflict")).await;
    let policies = api(&client, "SessionPolicy", &namespace);
    policies
        .delete("a", &DeleteParams::default())
        .await
        .unwrap();
    condition(&client, b, ("Bound", "True", "")).await;
    condition(&client, b, ("Conflict", "False", "None")).await;
    quiet(&operator).await;
}

#[tokio::test]
async fn a_policy_tells_whether_its_tier_may_drop_sessions() {
    let name = "a_policy_tells_whether_its_tier_may_drop_sessions";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "evictable").await;
    let _operator = Operator::start(plane.access(), &namespace, ALL).await;
    policy(&client, &namespace, "p", "t").await;
    let subject = (namespace.as_str(), "SessionPolicy", "p");
    for (policy, status, reason) in [
        ("allkeys-lru", "True", "AllkeysPolicy"),
        ("volatile-ttl", "True", "VolatilePolicy"),
        ("noeviction", "False", "Noeviction"),
    ] {
        let redis = json!({"topology": "Standalone", "maxmemoryPolicy": policy});
        tier(&client, &namespace, "t", redis).await;
        let message = condition(&client, subject, ("SessionsEvictable", status, reason)).await;
        assert!(
            status == "False" || message.contains("noeviction"),
            "{message}"
        );
    }
}
