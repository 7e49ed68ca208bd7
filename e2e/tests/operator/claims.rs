//! Whose a namespace is: a claim that nobody alive has made is taken over, and one that somebody has
//! written who may write in that namespace only does no harm elsewhere.

use e2e::{
    environment::available,
    kubernetes::{ApiServer, Fault, FaultProxy, Verb, eventually, new_namespace},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use kube::{Client, api::DeleteParams};
use operator::{
    claim::CLAIM,
    settings::{Scope, Settings},
};
use serde_json::json;
use tokio::sync::mpsc::error::TryRecvError;

use crate::{
    ALL,
    world::{Operator, api, apply, condition, settings, tier},
};

/// Writes a Lease; with `renewed`, as one that is held now.
pub async fn lease(client: &Client, namespace: &str, name: &str, holder: &str, renewed: bool) {
    let mut lease = json!({"spec": {"holderIdentity": holder}});
    if renewed {
        lease["spec"]["renewTime"] = json!(MicroTime(Timestamp::now()));
    }
    apply(client, namespace, "Lease", name, lease).await;
}

async fn holder(client: &Client, namespace: &str) -> Option<String> {
    let lease = api(client, "Lease", namespace).get_opt(CLAIM).await;
    let lease = lease.unwrap()?;
    let holder = lease.data["spec"]["holderIdentity"].as_str();
    holder.map(str::to_owned)
}

#[tokio::test]
async fn a_claim_that_no_living_installation_has_made_is_taken_over() {
    let name = "a_claim_that_no_living_installation_has_made_is_taken_over";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    for claimed_by in ["x", "", "../x", "nowhere/gone", "kube-system/.."] {
        let namespace = new_namespace(&client, "claimed").await;
        lease(&client, &namespace, CLAIM, claimed_by, true).await;
        let mut operator = Operator::start(plane.access(), &namespace, ALL).await;
        tier(&client, &namespace, "t", json!({"topology": "None"})).await;
        let subject = (namespace.as_str(), "CacheTier", "t");
        condition(&client, subject, ("Ready", "True", "")).await;
        let ours = format!("{namespace}/pannier-operator");
        assert_eq!(holder(&client, &namespace).await, Some(ours));
        assert_eq!(operator.stopped.try_recv(), Err(TryRecvError::Empty));
    }
}

#[tokio::test]
async fn a_claim_that_was_forged_in_one_namespace_stops_nothing_elsewhere_and_is_told_there() {
    let name = "a_claim_that_was_forged_in_one_namespace_stops_nothing_elsewhere_and_is_told_there";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let own = new_namespace(&client, "honest").await;
    let other = new_namespace(&client, "forged").await;
    let forged = format!("{other}/alive");
    lease(&client, &other, "alive", "somebody", true).await;
    lease(&client, &other, CLAIM, &forged, false).await;
    let settings = Settings {
        scope: Scope::Namespaces(vec![own.clone(), other.clone()]),
        ..settings("pannier-operator", &own)
    };
    let none = json!({"topology": "None"});
    tier(&client, &own, "t", none.clone()).await;
    let mut operator = Operator::start_as(plane.access(), settings, ALL).await;
    condition(&client, (&own, "CacheTier", "t"), ("Ready", "True", "")).await;

    tier(&client, &other, "t", none.clone()).await;
    let there = (other.as_str(), "CacheTier", "t");
    let wanted = ("Stalled", "True", "OtherInstallation");
    let message = condition(&client, there, wanted).await;
    assert!(
        message.contains(&forged) && message.contains("kubectl delete lease"),
        "{message}"
    );
    condition(&client, there, ("Ready", "False", "OtherInstallation")).await;
    // Tried again and again: that is told once, and nothing else is written there.
    let refused = || {
        let refused = ["CacheTier", "claim"];
        let reconciles = &operator.ctx.metrics.reconciles;
        reconciles.with_label_values(&refused).get()
    };
    eventually("it is tried again", || {
        std::future::ready((refused() >= 5).then_some(()))
    })
    .await;
    let written = operator.counter.since(0);
    let there_written: Vec<&String> = written
        .iter()
        .filter(|call| call.contains(&other))
        .collect();
    let [status] = there_written.as_slice() else {
        panic!("{there_written:?}")
    };
    assert!(status.ends_with("/cachetiers/t/status"), "{status}");
    assert_eq!(holder(&client, &other).await, Some(forged));
    // All others are served as before.
    tier(&client, &own, "another", none).await;
    let another = (own.as_str(), "CacheTier", "another");
    condition(&client, another, ("Ready", "True", "")).await;
    assert_eq!(operator.stopped.try_recv(), Err(TryRecvError::Empty));
    // As it stands in the message.
    let leases = api(&client, "Lease", &other);
    leases
        .delete(CLAIM, &DeleteParams::default())
        .await
        .unwrap();
    condition(&client, there, ("Ready", "True", "")).await;
}

#[tokio::test]
async fn a_claim_or_a_tier_that_may_not_be_had_is_a_condition_of_tier_and_policy() {
    let name = "a_claim_or_a_tier_that_may_not_be_had_is_a_condition_of_tier_and_policy";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "unclaimed").await;
    let proxy = FaultProxy::start(plane.access());
    proxy.fail(Verb::Write, "/leases", Fault::Answer(403), 100, ALL);
    let _operator = Operator::start(proxy.access(), &namespace, ALL).await;
    tier(&client, &namespace, "t", json!({"topology": "None"})).await;
    let spec = json!({"spec": {"cacheTierRef": {"name": "t"}}});
    apply(&client, &namespace, "SessionPolicy", "p", spec).await;
    let subjects = [
        (namespace.as_str(), "CacheTier", "t"),
        (namespace.as_str(), "SessionPolicy", "p"),
    ];
    for subject in subjects {
        let message = condition(&client, subject, ("Ready", "False", "Forbidden")).await;
        assert!(message.contains("create Lease"), "{message}");
        condition(&client, subject, ("Reconciling", "True", "Forbidden")).await;
    }
    proxy.heal();
    for subject in subjects {
        condition(&client, subject, ("Ready", "True", "")).await;
        condition(&client, subject, ("Reconciling", "False", "")).await;
    }
    // A policy whose tier cannot be read says so, and what was known of it stands.
    let path = "/cachetiers/t";
    proxy.fail(Verb::Read, path, Fault::Answer(403), 100, ALL);
    let touch = json!({"metadata": {"annotations": {"round": "1"}}, "spec": {"cacheTierRef": {"name": "t"}}});
    apply(&client, &namespace, "SessionPolicy", "p", touch).await;
    let [_, policy] = subjects;
    let message = condition(&client, policy, ("Ready", "False", "Forbidden")).await;
    assert!(message.contains("get CacheTier"), "{message}");
    condition(&client, policy, ("Bound", "True", "Bound")).await;
    proxy.heal();
    condition(&client, policy, ("Ready", "True", "")).await;
}
