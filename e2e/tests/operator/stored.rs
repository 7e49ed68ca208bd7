//! Resources that were stored by an older definition and do not fit the present one: said, left
//! alone, no hindrance to others, healed by applying them again, and free to go.

use std::time::Duration;

use e2e::{
    environment::available,
    kubernetes::{
        ControlPlane, apply_crds, apply_definitions, definitions, eventually_within, new_namespace,
    },
};
use kube::{
    Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    ALL,
    sharing::wait_for_copies,
    world::{self, Operator, api, apply, condition, objects, quiet, tier, wait_for_objects},
};

const MINUTE: Duration = Duration::from_mins(1);

/// The definitions as if anything had been allowed once.
async fn lax_definitions(client: &Client) {
    let lax = definitions().map(|definition| {
        let mut lax = serde_json::to_value(definition).unwrap();
        lax["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        serde_json::from_value(lax).unwrap()
    });
    apply_definitions(client, &lax).await;
}

/// When the tiers of the test first had a primary.
const FORMED: &str = "2026-01-02T03:04:05Z";

/// As an operator would have written it, which takes back what it does not write again.
async fn status(client: &Client, namespace: &str, name: &str, status: Value) {
    let resource = world::resource("CacheTier");
    let patch = Patch::Apply(json!({
        "apiVersion": resource.api_version,
        "kind": "CacheTier",
        "metadata": {"name": name},
        "status": status,
    }));
    let params = PatchParams::apply("pannier-operator");
    api(client, "CacheTier", namespace)
        .patch_status(name, &params, &patch)
        .await
        .unwrap();
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one story: what is stored, what is said of it, how it heals"
)]
async fn what_an_older_definition_has_stored_is_said_and_hinders_nobody() {
    let name = "what_an_older_definition_has_stored_is_said_and_hinders_nobody";
    // One of its own: the definitions change.
    let Some(plane) = available(name, ControlPlane::start()) else {
        return;
    };
    let client = plane.client().await;
    lax_definitions(&client).await;
    let namespace = new_namespace(&client, "stored").await;
    let other = new_namespace(&client, "copies").await;
    let none = json!({"topology": "None"});
    for (name, spec) in [
        ("extra", json!({"redis": none, "retired": {"field": 1}})),
        ("missing", json!({"environment": "Test"})),
        ("unknown", json!({"redis": {"topology": "Sharded"}})),
        ("status", json!({"redis": none})),
        ("t", json!({"redis": {"topology": "Sharded"}})),
    ] {
        apply(
            &client,
            &namespace,
            "CacheTier",
            name,
            json!({"spec": spec}),
        )
        .await;
    }
    for (name, spec) in [
        ("no-tier", json!({"cacheTierRef": {}})),
        ("bound", json!({"cacheTierRef": {"name": "missing"}})),
    ] {
        let spec = json!({"spec": spec});
        apply(&client, &namespace, "SessionPolicy", name, spec).await;
    }
    let unfit = json!({"conditions": "none", "sidecars": 3, "formedAt": FORMED});
    status(&client, &namespace, "status", unfit).await;
    a_held_one(&client, &namespace, &other).await;
    apply_crds(&client).await;
    let tiers = api(&client, "CacheTier", &namespace);
    eventually_within(MINUTE, "the present definition is in force", || async {
        let extra = tiers.get("extra").await.unwrap();
        extra.data["spec"]["retired"].is_null().then_some(())
    })
    .await;

    let operator = Operator::start(plane.access(), &namespace, ALL).await;
    let subject = |kind, name| (namespace.as_str(), kind, name);
    condition(
        &client,
        subject("CacheTier", "extra"),
        ("Ready", "True", "MemoryOnly"),
    )
    .await;
    for (name, part) in [
        ("missing", "spec.redis: "),
        ("unknown", "spec.redis.topology: "),
    ] {
        let wanted = ("Stalled", "True", "Unreadable");
        let message = condition(&client, subject("CacheTier", name), wanted).await;
        assert!(
            message.contains(part) && message.contains("apply it again"),
            "{message}"
        );
        assert!(
            objects(&client, &namespace, name).await.is_empty(),
            "{name}"
        );
    }
    // A status that does not fit is in nobody's way: it is written anew.
    let ready = ("Ready", "True", "MemoryOnly");
    condition(&client, subject("CacheTier", "status"), ready).await;
    let wanted = ("Stalled", "True", "Unreadable");
    condition(&client, subject("CacheTier", "t"), wanted).await;
    // What nobody could find out again stays.
    let held = tiers.get("t").await.unwrap();
    assert_eq!(held.data["status"]["sharedWith"], json!([other]));
    for name in ["t", "status"] {
        let tier = tiers.get(name).await.unwrap();
        assert_eq!(tier.data["status"]["formedAt"], FORMED, "{name}");
    }
    condition(&client, subject("SessionPolicy", "no-tier"), wanted).await;
    let wanted = ("Stalled", "True", "TierUnreadable");
    let message = condition(&client, subject("SessionPolicy", "bound"), wanted).await;
    assert!(message.contains("\"missing\""), "{message}");
    quiet(&operator).await;

    tier(&client, &namespace, "missing", none.clone()).await;
    condition(
        &client,
        subject("CacheTier", "missing"),
        ("Ready", "True", "MemoryOnly"),
    )
    .await;
    wait_for_objects(
        &client,
        &namespace,
        "missing",
        &["ConfigMap/missing-sidecar"],
    )
    .await;
    condition(
        &client,
        subject("SessionPolicy", "bound"),
        ("Ready", "True", "Bound"),
    )
    .await;

    // One that has copies elsewhere and cannot be read holds nothing up.
    tiers.delete("t", &DeleteParams::default()).await.unwrap();
    wait_for_copies(&client, &other, 0).await;
    eventually_within(MINUTE, "the tier is gone", || async {
        tiers.get_opt("t").await.unwrap().is_none().then_some(())
    })
    .await;
    quiet(&operator).await;
}

/// Gives the tier `t` what an operator would have given it: a copy in another namespace.
async fn a_held_one(client: &Client, namespace: &str, other: &str) {
    let tiers = api(client, "CacheTier", namespace);
    let held = json!({"metadata": {"finalizers": ["pannier.dev/copies"]}});
    let held = tiers
        .patch("t", &PatchParams::default(), &Patch::Merge(&held))
        .await
        .unwrap();
    let held_status = json!({"sharedWith": [other], "formedAt": FORMED});
    status(client, namespace, "t", held_status).await;
    let labels = json!({"pannier.dev/owner-uid": held.uid()});
    for kind in ["ConfigMap", "Secret"] {
        let copy = json!({"metadata": {"labels": labels}});
        apply(client, other, kind, "t-sidecar", copy).await;
    }
}
