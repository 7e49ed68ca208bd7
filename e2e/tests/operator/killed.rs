//! An operator that is killed at any of its writes: the next one comes to the end to which an
//! undisturbed one comes, when a tier is made, changed, and deleted.

use std::{collections::BTreeMap, time::Duration};

use e2e::{
    environment::available,
    kubernetes::{ApiServer, eventually_within, new_namespace},
};
use futures_util::{StreamExt as _, stream};
use kube::{
    Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    ALL,
    world::{Operator, api, apply, comparable, objects, quiet, wait_for_content},
};

/// Runs that go on side by side.
const ABREAST: usize = 4;

/// What happens to a tier.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Made,
    Changed,
    Deleted,
}

fn old() -> Value {
    json!({
        "topology": "Replicated", "replicasPerShard": 1, "memory": "256Mi", "image": "a:1",
        "maxmemoryPolicy": "noeviction", "config": {"timeout": "5"}, "auth": {"mode": "Disabled"},
        "pod": {"labels": {"a": "b"}, "nodeSelector": {"disk": "ssd"}},
    })
}

fn new() -> Value {
    json!({"topology": "Replicated", "replicasPerShard": 2, "memory": "512Mi"})
}

/// A tier that is shared with another namespace: each change concerns its copies too.
async fn tier(client: &Client, (own, other): (&str, &str), redis: &Value) {
    let spec =
        json!({"spec": {"environment": "Test", "redis": redis, "allowedNamespaces": [other]}});
    apply(client, own, "CacheTier", "t", spec).await;
}

/// Everything that belongs to the tier, in both namespaces.
async fn all(client: &Client, (own, other): (&str, &str)) -> BTreeMap<String, String> {
    let mut found = comparable(&objects(client, own, "t").await, own);
    for (name, object) in objects(client, other, "t").await {
        let uid = owner(&object).unwrap_or_default();
        let only = BTreeMap::from([(name, object)]);
        for (name, text) in comparable(&only, other) {
            let text = text.replace(own, "NS").replace(&uid, "UID");
            found.insert(format!("copy of {name}"), text);
        }
    }
    found
}

fn owner(object: &DynamicObject) -> Option<String> {
    object
        .metadata
        .labels
        .as_ref()?
        .get("pannier.dev/owner-uid")
        .cloned()
}

/// The state before the change.
async fn before(plane: &ApiServer, client: &Client, change: Change) -> (String, String) {
    let own = new_namespace(client, "killed").await;
    let other = new_namespace(client, "copies").await;
    let label = json!({"metadata": {"labels": {format!("tiers-from.pannier.dev/{own}"): "allow"}}});
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> =
        kube::Api::all(client.clone());
    let patch = Patch::Merge(&label);
    namespaces
        .patch(&other, &PatchParams::default(), &patch)
        .await
        .unwrap();
    if change != Change::Made {
        let operator = Operator::start(plane.access(), &own, ALL).await;
        tier(client, (&own, &other), &old()).await;
        seen(client, &own).await;
        quiet(&operator).await;
    }
    match change {
        Change::Made | Change::Changed => tier(client, (&own, &other), &new()).await,
        Change::Deleted => {
            let tiers = api(client, "CacheTier", &own);
            tiers.delete("t", &DeleteParams::default()).await.unwrap();
        }
    }
    (own, other)
}

/// Waits until the generation was reconciled, or the tier is gone.
async fn seen(client: &Client, own: &str) {
    eventually_within(Duration::from_mins(2), "the change is seen", || async {
        is_seen(client, own).await.then_some(())
    })
    .await;
}

async fn is_seen(client: &Client, own: &str) -> bool {
    let Some(tier) = api(client, "CacheTier", own).get_opt("t").await.unwrap() else {
        return true;
    };
    let seen = tier.data["status"]["observedGeneration"].as_i64();
    seen == tier.metadata.generation && tier.metadata.deletion_timestamp.is_none()
}

/// Kills at one write and lets another operator go on; whether there was such a write.
async fn kill_at(
    plane: &ApiServer,
    client: &Client,
    change: Change,
    limit: usize,
    wanted: &BTreeMap<String, String>,
) -> bool {
    let (own, other) = before(plane, client, change).await;
    let operator = Operator::start(plane.access(), &own, limit).await;
    let killed = eventually_within(Duration::from_mins(2), "it is cut off or done", || async {
        if operator.counter.count() > limit {
            return Some(true);
        }
        is_seen(client, &own).await.then_some(false)
    })
    .await;
    let auth = || async { api(client, "Secret", &own).get_opt("t-auth").await.unwrap() };
    drop(operator);
    let passwords = auth().await.map(|secret| secret.data["data"].clone());
    let next = Operator::start(plane.access(), &own, ALL).await;
    seen(client, &own).await;
    quiet(&next).await;
    let what = format!("{change:?}, killed at write {limit}");
    let found = all(client, (&own, &other)).await;
    if found != *wanted {
        wait_for_content(client, (&own, "t"), &own_part(wanted)).await;
        assert_eq!(all(client, (&own, &other)).await, *wanted, "{what}");
    }
    if let (Some(before), Some(now)) = (passwords, auth().await) {
        assert_eq!(
            now.data["data"], before,
            "{what}: passwords are never made anew"
        );
    }
    killed
}

fn own_part(wanted: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = wanted
        .iter()
        .filter(|(name, _)| !name.starts_with("copy of "));
    own.map(|(name, text)| (name.clone(), text.clone()))
        .collect()
}

async fn killed_at_any_write(test: &str, change: Change, least: usize) {
    let Some(plane) = available(test, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let places = before(plane, &client, change).await;
    let (own, other) = (places.0.as_str(), places.1.as_str());
    let operator = Operator::start(plane.access(), own, ALL).await;
    seen(&client, own).await;
    quiet(&operator).await;
    let wanted = all(&client, (own, other)).await;
    let writes = operator.counter.count();
    assert!(writes >= least, "{:?}", operator.counter.since(0));
    assert_eq!(wanted.is_empty(), change == Change::Deleted, "{wanted:?}");
    drop(operator);
    let runs = (0..writes).map(|limit| kill_at(plane, &client, change, limit, &wanted));
    let killed: Vec<bool> = stream::iter(runs).buffered(ABREAST).collect().await;
    assert!(
        killed.iter().filter(|killed| **killed).count() >= least,
        "{killed:?}"
    );
}

#[tokio::test]
async fn killed_at_any_write_of_a_new_tier_it_comes_to_the_same_end() {
    let name = "killed_at_any_write_of_a_new_tier_it_comes_to_the_same_end";
    killed_at_any_write(name, Change::Made, 20).await;
}

#[tokio::test]
async fn killed_at_any_write_of_a_change_it_comes_to_the_same_end() {
    let name = "killed_at_any_write_of_a_change_it_comes_to_the_same_end";
    killed_at_any_write(name, Change::Changed, 6).await;
}

#[tokio::test]
async fn killed_at_any_write_of_a_deletion_it_comes_to_the_same_end() {
    let name = "killed_at_any_write_of_a_deletion_it_comes_to_the_same_end";
    killed_at_any_write(name, Change::Deleted, 3).await;
}
