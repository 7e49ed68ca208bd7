//! A tier that is shared with other namespaces: by consent of both sides, over nobody's objects,
//! and without a trace when the consent or the tier ends.

use std::path::Path;

use e2e::{
    environment::available,
    kubernetes::{ApiServer, eventually_within, new_namespace, service_account_token},
};
use kube::{
    Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    ALL,
    world::{Operator, api, apply, condition, kubectl_apply, quiet},
};

/// A tier of `own` that other namespaces may use.
pub async fn shared(client: &Client, own: &str, allowed: &[&str]) {
    let secret = json!({"stringData": {"url": "redis://u:p@redis.example/1"}});
    apply(client, own, "Secret", "r", secret).await;
    let spec = json!({"spec": {
        "redis": {"topology": "External", "external": {"urlSecretRef": {"name": "r"}}},
        "allowedNamespaces": allowed,
    }});
    apply(client, own, "CacheTier", "t", spec).await;
}

/// Sets or removes the label by which a namespace agrees.
pub async fn agree(client: &Client, other: &str, own: &str, agrees: bool) {
    let value = if agrees { json!("allow") } else { Value::Null };
    let label = format!("tiers-from.pannier.dev/{own}");
    let patch = json!({"metadata": {"labels": {label: value}}});
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> =
        kube::Api::all(client.clone());
    let patch = Patch::Merge(&patch);
    namespaces
        .patch(other, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// What the tier's sidecars would read in a namespace.
async fn copies(client: &Client, namespace: &str) -> Vec<DynamicObject> {
    let mut found = Vec::new();
    for kind in ["ConfigMap", "Secret"] {
        found.extend(
            api(client, kind, namespace)
                .get_opt("t-sidecar")
                .await
                .unwrap(),
        );
    }
    found
}

pub async fn wait_for_copies(client: &Client, namespace: &str, count: usize) -> Vec<DynamicObject> {
    let what = format!("{count} copies in {namespace}");
    eventually_within(std::time::Duration::from_mins(1), &what, || async {
        let found = copies(client, namespace).await;
        (found.len() == count).then_some(found)
    })
    .await
}

#[tokio::test]
async fn copies_are_where_both_sides_agree_and_end_with_the_consent_of_either() {
    let name = "copies_are_where_both_sides_agree_and_end_with_the_consent_of_either";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let own = new_namespace(&client, "own").await;
    let (one, two) = (
        new_namespace(&client, "one").await,
        new_namespace(&client, "two").await,
    );
    let operator = Operator::start(plane.access(), &own, ALL).await;
    shared(&client, &own, &[&one, &two, "nowhere"]).await;
    let subject = (own.as_str(), "CacheTier", "t");
    let message = condition(&client, subject, ("Shared", "False", "NotShared")).await;
    let command = format!("kubectl label namespace {one} tiers-from.pannier.dev/{own}=allow");
    assert!(
        message.contains(&command) && message.contains("nowhere"),
        "{message}"
    );
    // It serves its own namespace all the same.
    condition(&client, subject, ("Ready", "True", "")).await;
    assert!(copies(&client, &one).await.is_empty());

    agree(&client, &one, &own, true).await;
    agree(&client, &two, &own, true).await;
    for place in [&one, &two] {
        for copy in wait_for_copies(&client, place, 2).await {
            let original = api(&client, &copy.types.as_ref().unwrap().kind, &own);
            let original = original.get("t-sidecar").await.unwrap();
            assert_eq!(copy.data["data"], original.data["data"]);
            assert_eq!(
                copy.metadata.owner_references, None,
                "none can point into another namespace"
            );
        }
    }
    // What changes at the source changes everywhere.
    let secret = json!({"stringData": {"url": "redis://u:other@redis.example/1"}});
    apply(&client, &own, "Secret", "r", secret).await;
    eventually_within(
        std::time::Duration::from_mins(1),
        "the copy follows",
        || async {
            let copy = api(&client, "Secret", &one).get("t-sidecar").await.unwrap();
            (copy.data["data"]["password"] == "b3RoZXI=").then_some(())
        },
    )
    .await;

    // The other side takes its consent back.
    agree(&client, &one, &own, false).await;
    wait_for_copies(&client, &one, 0).await;
    assert_eq!(copies(&client, &two).await.len(), 2);
    // The tier's side takes it back.
    shared(&client, &own, &[&one]).await;
    wait_for_copies(&client, &two, 0).await;
    // The tier goes.
    agree(&client, &one, &own, true).await;
    wait_for_copies(&client, &one, 2).await;
    let tiers = api(&client, "CacheTier", &own);
    tiers.delete("t", &DeleteParams::default()).await.unwrap();
    wait_for_copies(&client, &one, 0).await;
    eventually_within(
        std::time::Duration::from_mins(1),
        "the tier is gone",
        || async { tiers.get_opt("t").await.unwrap().is_none().then_some(()) },
    )
    .await;
    quiet(&operator).await;
}

#[tokio::test]
async fn consent_that_is_taken_back_ends_copies_of_a_tier_that_is_refused_too() {
    let name = "consent_that_is_taken_back_ends_copies_of_a_tier_that_is_refused_too";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let own = new_namespace(&client, "refused").await;
    let (one, two) = (
        new_namespace(&client, "ends").await,
        new_namespace(&client, "stays").await,
    );
    for other in [&one, &two] {
        agree(&client, other, &own, true).await;
    }
    let operator = Operator::start(plane.access(), &own, ALL).await;
    shared(&client, &own, &[&one, &two]).await;
    for other in [&one, &two] {
        wait_for_copies(&client, other, 2).await;
    }
    let subject = (own.as_str(), "CacheTier", "t");
    condition(&client, subject, ("UpstreamReachable", "False", "")).await;
    let secrets = api(&client, "Secret", &own);
    secrets.delete("r", &DeleteParams::default()).await.unwrap();
    condition(&client, subject, ("Stalled", "True", "SecretNotFound")).await;
    agree(&client, &one, &own, false).await;
    wait_for_copies(&client, &one, 0).await;
    condition(&client, subject, ("Shared", "False", "NotShared")).await;
    condition(&client, subject, ("UpstreamReachable", "Unknown", "")).await;
    assert_eq!(copies(&client, &two).await.len(), 2);
    let tiers = api(&client, "CacheTier", &own);
    let tier = tiers.get("t").await.unwrap();
    assert_eq!(tier.data["status"]["sharedWith"], json!([two]));

    // However often it is looked at, nothing is written while nothing changes.
    quiet(&operator).await;
    let written = operator.counter.count();
    let looks = || {
        let refused = ["CacheTier", "refused-spec"];
        let reconciles = &operator.ctx.metrics.reconciles;
        reconciles.with_label_values(&refused).get()
    };
    for round in 0..10 {
        let before = looks();
        let touch = json!({"metadata": {"annotations": {"round": round.to_string()}}});
        tiers
            .patch("t", &PatchParams::default(), &Patch::Merge(&touch))
            .await
            .unwrap();
        eventually_within(std::time::Duration::from_mins(1), "one more look", || {
            std::future::ready((looks() > before).then_some(()))
        })
        .await;
    }
    assert_eq!(operator.counter.since(written), [""; 0]);
    let secret = json!({"stringData": {"url": "redis://u:p@redis.example/1"}});
    apply(&client, &own, "Secret", "r", secret).await;
    condition(&client, subject, ("Stalled", "False", "")).await;
    assert_eq!(copies(&client, &one).await.len(), 0);
}

#[tokio::test]
async fn an_object_of_a_stranger_is_neither_taken_over_nor_swept() {
    let name = "an_object_of_a_stranger_is_neither_taken_over_nor_swept";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let own = new_namespace(&client, "mine").await;
    let other = new_namespace(&client, "theirs").await;
    let theirs = json!({"data": {"a": "b"}, "metadata": {"labels": {"pannier.dev/tier": "t"}}});
    apply(&client, &other, "ConfigMap", "t-sidecar", theirs).await;
    let before = api(&client, "ConfigMap", &other)
        .get("t-sidecar")
        .await
        .unwrap();
    agree(&client, &other, &own, true).await;
    let _operator = Operator::start(plane.access(), &own, ALL).await;
    shared(&client, &own, &[&other]).await;
    let subject = (own.as_str(), "CacheTier", "t");
    let message = condition(&client, subject, ("Shared", "False", "NotShared")).await;
    let named = format!("ConfigMap {other}/t-sidecar exists and does not belong to this tier");
    assert!(message.contains(&named), "{message}");
    assert!(!message.contains("shareNamespaces"), "{message}");
    condition(&client, subject, ("Ready", "True", "")).await;
    let tiers = api(&client, "CacheTier", &own);
    tiers.delete("t", &DeleteParams::default()).await.unwrap();
    eventually_within(
        std::time::Duration::from_mins(1),
        "the tier is gone",
        || async { tiers.get_opt("t").await.unwrap().is_none().then_some(()) },
    )
    .await;
    let after = api(&client, "ConfigMap", &other)
        .get("t-sidecar")
        .await
        .unwrap();
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_missing_right_is_a_condition_with_the_value_of_the_chart_that_gives_it() {
    let name = "a_missing_right_is_a_condition_with_the_value_of_the_chart_that_gives_it";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let rbac = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/rbac");
    for file in ["namespace.yaml", "cluster.yaml"] {
        kubectl_apply(plane, &rbac.join(file));
    }
    let own = new_namespace(&client, "home").await;
    let other = new_namespace(&client, "away").await;
    agree(&client, &other, &own, true).await;
    apply(
        &client,
        &own,
        "ServiceAccount",
        "pannier-operator",
        json!({}),
    )
    .await;
    let kubectl = |line: &str| {
        let done = plane
            .kubectl()
            .args(line.split_whitespace())
            .output()
            .unwrap();
        assert!(done.status.success(), "{line}: {done:?}");
    };
    let account = format!("--serviceaccount={own}:pannier-operator");
    kubectl(&format!(
        "create rolebinding -n {own} op --clusterrole=pannier-operator {account}"
    ));
    kubectl(&format!(
        "create clusterrolebinding {own} --clusterrole=pannier-operator-namespaces {account}"
    ));
    let token = service_account_token(&client, &own, "pannier-operator").await;
    let access = plane.access().clone().with_token(token);
    let _operator = Operator::start(&access, &own, ALL).await;
    shared(&client, &own, &[&other]).await;
    let subject = (own.as_str(), "CacheTier", "t");
    let message = condition(&client, subject, ("Shared", "False", "NotShared")).await;
    let remedy = format!("add {other} to shareNamespaces of the chart");
    assert!(
        message.contains("forbidden") && message.contains(&remedy),
        "{message}"
    );
    condition(&client, subject, ("Ready", "True", "")).await;
    // What the chart makes of it.
    kubectl(&format!(
        "create rolebinding -n {other} op --clusterrole=pannier-operator-copies {account}"
    ));
    condition(&client, subject, ("Shared", "True", "Shared")).await;
    assert_eq!(copies(&client, &other).await.len(), 2);
}
