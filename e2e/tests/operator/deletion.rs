//! What goes with a tier and what stays: without an operator, with the namespace, with volumes, and
//! when a tier of the same name is made anew at once.

use std::{collections::BTreeMap, time::Duration};

use e2e::{
    environment::available,
    kubernetes::{
        ApiServer, ControlPlane, Fault, FaultProxy, Verb, apply_crds, create_namespace,
        eventually_within, new_namespace,
    },
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams},
};
use operator::apply::{Applier, ApplyError, Owner};
use policy::names;
use serde_json::{Value, json};

use crate::{
    ALL, replicated,
    sharing::{agree, shared, wait_for_copies},
    standalone,
    world::{Operator, api, apply, condition, content, objects, quiet, tier, wait_for_objects},
};

const MINUTE: Duration = Duration::from_mins(1);
/// Until pods are gone: where nodes run them, kubelets have those of all other tests to end as well.
const PODS_END: Duration = Duration::from_mins(5);

async fn delete_tier(client: &Client, namespace: &str, name: &str) {
    let tiers = api(client, "CacheTier", namespace);
    tiers.delete(name, &DeleteParams::default()).await.unwrap();
}

async fn until_gone(client: &Client, kind: &str, namespace: &str, name: &str) {
    e2e::kubernetes::until_gone(PODS_END, &api(client, kind, namespace), name).await;
}

#[tokio::test]
async fn a_tier_without_copies_goes_with_everything_and_needs_no_operator_for_it() {
    let name = "a_tier_without_copies_goes_with_everything_and_needs_no_operator_for_it";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "goes").await;
    let secret = json!({"stringData": {"url": "redis://u:p@redis.example/1"}});
    apply(&client, &namespace, "Secret", "r", secret).await;
    let operator = Operator::start(plane.access(), &namespace, ALL).await;
    let external = json!({"topology": "External", "external": {"urlSecretRef": {"name": "r"}}});
    let tiers = [
        ("none", json!({"topology": "None"})),
        ("external", external),
        ("one", json!({"topology": "Standalone"})),
        ("many", json!({"topology": "Replicated"})),
    ];
    for (name, redis) in &tiers {
        tier(&client, &namespace, name, redis.clone()).await;
    }
    for (name, _) in &tiers {
        let subject = (namespace.as_str(), "CacheTier", *name);
        condition(&client, subject, ("Stalled", "False", "NotStalled")).await;
        let made = api(&client, "CacheTier", &namespace)
            .get(name)
            .await
            .unwrap();
        assert!(
            made.finalizers().is_empty(),
            "{name}: {:?}",
            made.finalizers()
        );
    }
    let pods = api(&client, "Pod", &namespace);
    eventually_within(MINUTE, "the pods are made", || async {
        let found = pods.list(&ListParams::default()).await.unwrap().items;
        (found.len() == 1 + 2 + 3).then_some(())
    })
    .await;
    quiet(&operator).await;
    drop(operator);
    for (name, _) in &tiers {
        delete_tier(&client, &namespace, name).await;
        // No finalizer: it is gone with the answer.
        let left = api(&client, "CacheTier", &namespace)
            .get_opt(name)
            .await
            .unwrap();
        assert!(left.is_none(), "{name}");
    }
    for (name, _) in &tiers {
        wait_for_objects(&client, &namespace, name, &[]).await;
    }
    eventually_within(PODS_END, "the pods are gone", || async {
        let found = pods.list(&ListParams::default()).await.unwrap().items;
        found.is_empty().then_some(())
    })
    .await;
    // What the tier only named is the user's.
    assert!(
        api(&client, "Secret", &namespace)
            .get_opt("r")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn the_redis_of_a_tier_that_is_gone_is_left_alone() {
    let name = "the_redis_of_a_tier_that_is_gone_is_left_alone";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "visits").await;
    let operator = Operator::start(plane.access(), &namespace, ALL).await;
    shared(&client, &namespace, &[]).await;
    let visited = async |count: usize| {
        let what = format!("{count} places are visited");
        eventually_within(MINUTE, &what, || {
            let visited = operator.ctx.visits.count();
            std::future::ready((visited == count).then_some(()))
        })
        .await;
    };
    visited(1).await;
    delete_tier(&client, &namespace, "t").await;
    visited(0).await;
}

async fn delete_namespace(client: &Client, name: &str) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let params = DeleteParams::default();
    namespaces.delete(name, &params).await.unwrap();
}

async fn until_namespace_gone(client: &Client, name: &str) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    e2e::kubernetes::until_gone(PODS_END, &namespaces, name).await;
}

/// A namespace with a tier that is shared, one with volumes, and a session policy.
async fn inhabited(client: &Client, own: &str, other: &str) {
    agree(client, other, own, true).await;
    shared(client, own, &[other]).await;
    let persistence = json!({"mode": "Rdb", "size": "1Gi"});
    let servers = json!({"topology": "Replicated", "persistence": persistence});
    tier(client, own, "servers", servers).await;
    let policy = json!({"spec": {"cacheTierRef": {"name": "servers"}}});
    apply(client, own, "SessionPolicy", "p", policy).await;
}

#[tokio::test]
async fn a_namespace_goes_with_its_tiers_and_their_copies_and_may_come_again() {
    let name = "a_namespace_goes_with_its_tiers_and_their_copies_and_may_come_again";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let own = new_namespace(&client, "whole").await;
    let other = new_namespace(&client, "guest").await;
    let operator = Operator::start(plane.access(), &own, ALL).await;
    for round in 0..2 {
        if round > 0 {
            create_namespace(&client, &own).await;
        }
        inhabited(&client, &own, &other).await;
        wait_for_copies(&client, &other, 2).await;
        // By it another installation knows whose the namespace is: also in the second life.
        let leases = api(&client, "Lease", &own);
        let claim = operator::claim::CLAIM;
        eventually_within(MINUTE, "the namespace is claimed", || async {
            leases.get_opt(claim).await.unwrap()
        })
        .await;
        let subject = (own.as_str(), "SessionPolicy", "p");
        condition(&client, subject, ("Ready", "True", "Bound")).await;
        delete_namespace(&client, &own).await;
        until_namespace_gone(&client, &own).await;
        wait_for_copies(&client, &other, 0).await;
    }
    quiet(&operator).await;
}

#[tokio::test]
async fn a_namespace_that_waits_for_an_operator_goes_as_soon_as_one_runs_even_without_rights() {
    let name =
        "a_namespace_that_waits_for_an_operator_goes_as_soon_as_one_runs_even_without_rights";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    for forbidden in [false, true] {
        let own = new_namespace(&client, "waits").await;
        let other = new_namespace(&client, "keeps").await;
        let first = Operator::start(plane.access(), &own, ALL).await;
        inhabited(&client, &own, &other).await;
        wait_for_copies(&client, &other, 2).await;
        quiet(&first).await;
        drop(first);
        delete_namespace(&client, &own).await;
        // Everything but the tier is gone, the Lease of the namespace too, and none can be made.
        until_gone(&client, "Lease", &own, operator::claim::CLAIM).await;
        until_gone(&client, "CacheTier", &own, "servers").await;
        let held = api(&client, "CacheTier", &own).get("t").await.unwrap();
        assert_eq!(held.finalizers(), ["pannier.dev/copies"]);
        let proxy = FaultProxy::start(plane.access());
        if forbidden {
            let path = format!("/namespaces/{other}/");
            proxy.fail(Verb::Any, &path, Fault::Answer(403), 100, ALL);
        }
        let _second = Operator::start(proxy.access(), &own, ALL).await;
        until_namespace_gone(&client, &own).await;
        wait_for_copies(&client, &other, if forbidden { 2 } else { 0 }).await;
    }
}

/// UIDs of the volume claims of a tier.
async fn claims(client: &Client, namespace: &str) -> Vec<(String, bool)> {
    let found = api(client, "PersistentVolumeClaim", namespace)
        .list(&ListParams::default().labels("pannier.dev/tier=t"))
        .await
        .unwrap();
    let going = |claim: &DynamicObject| claim.metadata.deletion_timestamp.is_some();
    let one = |claim| (going(&claim), claim);
    let all = found.items.into_iter().map(one);
    all.map(|(going, claim)| (claim.uid().unwrap(), going))
        .collect()
}

async fn until_claimed(client: &Client, namespace: &str) -> String {
    eventually_within(2 * MINUTE, "there is one volume claim", || async {
        match claims(client, namespace).await.as_slice() {
            [(uid, false)] => Some(uid.clone()),
            _ => None,
        }
    })
    .await
}

#[tokio::test]
async fn volumes_stay_or_go_with_their_tier_as_it_says_and_a_new_tier_has_those_that_stayed() {
    let name = "volumes_stay_or_go_with_their_tier_as_it_says_and_a_new_tier_has_those_that_stayed";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "volumes").await;
    let _operator = Operator::start(plane.access(), &namespace, ALL).await;
    let redis = |on_delete: Value| {
        let mut persistence = json!({"mode": "Rdb", "size": "1Gi"});
        if !on_delete.is_null() {
            persistence["onDelete"] = on_delete;
        }
        json!({"topology": "Standalone", "persistence": persistence})
    };
    // Not said: they stay.
    tier(&client, &namespace, "t", redis(Value::Null)).await;
    let first = until_claimed(&client, &namespace).await;
    delete_tier(&client, &namespace, "t").await;
    wait_for_objects(&client, &namespace, "t", &[]).await;
    until_gone(&client, "Pod", &namespace, "t-shard-0-0").await;
    assert_eq!(claims(&client, &namespace).await, [(first.clone(), false)]);
    tier(&client, &namespace, "t", redis(json!("Retain"))).await;
    wait_for_objects(&client, &namespace, "t", &standalone()).await;
    let pods = api(&client, "Pod", &namespace);
    eventually_within(MINUTE, "the server is made", || async {
        pods.get_opt("t-shard-0-0").await.unwrap()
    })
    .await;
    assert_eq!(
        until_claimed(&client, &namespace).await,
        first,
        "with the data"
    );

    // Changed while it runs: they go, and those of the next tier are other ones.
    tier(&client, &namespace, "t", redis(json!("Delete"))).await;
    let volumes = api(&client, "PersistentVolumeClaim", &namespace);
    eventually_within(MINUTE, "the claim belongs to the set", || async {
        let claim = volumes.get("data-t-shard-0-0").await.unwrap();
        (!claim.owner_references().is_empty()).then_some(())
    })
    .await;
    delete_tier(&client, &namespace, "t").await;
    tier(&client, &namespace, "t", redis(json!("Delete"))).await;
    // The former set may make one more of its own before it goes.
    let sets = api(&client, "StatefulSet", &namespace);
    eventually_within(
        2 * MINUTE,
        "the new set has a volume of its own",
        || async {
            let set = sets.get_opt("t-shard-0").await.unwrap()?;
            let claim = volumes.get_opt("data-t-shard-0-0").await.unwrap()?;
            let mut owners = claim.owner_references().iter();
            let owned = owners.any(|owner| Some(&owner.uid) == set.metadata.uid.as_ref());
            (owned && claim.uid().as_ref() != Some(&first)).then_some(())
        },
    )
    .await;
    wait_for_objects(&client, &namespace, "t", &standalone()).await;
}

/// Kubernetes removes what belonged to a tier some time after it: what a new tier of the same name
/// does meanwhile.
#[tokio::test]
async fn a_tier_made_anew_beside_what_is_left_of_the_old_one_takes_nothing_over() {
    let name = "a_tier_made_anew_beside_what_is_left_of_the_old_one_takes_nothing_over";
    // One of its own: its controllers are stopped for a while.
    let Some(plane) = available(name, ControlPlane::start()) else {
        return;
    };
    let client = plane.client().await;
    apply_crds(&client).await;
    let namespace = new_namespace(&client, "anew").await;
    let operator = Operator::start(plane.access(), &namespace, ALL).await;
    for (topology, wanted) in [("Standalone", standalone()), ("Replicated", replicated())] {
        let old = if topology == "Standalone" {
            "Replicated"
        } else {
            "Standalone"
        };
        tier(&client, &namespace, "t", json!({"topology": old})).await;
        let made = if topology == "Standalone" {
            replicated()
        } else {
            standalone()
        };
        wait_for_objects(&client, &namespace, "t", &made).await;
        let pods = api(&client, "Pod", &namespace);
        eventually_within(MINUTE, "the server is made", || async {
            pods.get_opt("t-shard-0-0").await.unwrap()
        })
        .await;
        quiet(&operator).await;
        let before = objects(&client, &namespace, "t").await;
        plane.pause_controllers();
        delete_tier(&client, &namespace, "t").await;
        tier(&client, &namespace, "t", json!({"topology": topology})).await;
        let subject = (namespace.as_str(), "CacheTier", "t");
        let message = condition(&client, subject, ("Reconciling", "True", "FormerTier")).await;
        assert!(
            message.contains("former tier") && message.contains("t-"),
            "{message}"
        );
        // Not a mistake of the user: the wish is not judged by what the former tier was.
        condition(&client, subject, ("Stalled", "False", "")).await;
        quiet(&operator).await;
        for (name, object) in objects(&client, &namespace, "t").await {
            let old = &before[&name];
            assert_eq!(object.resource_version(), old.resource_version(), "{name}");
        }
        plane.resume_controllers();
        let now = eventually_within(2 * MINUTE, "the new tier has its own", || async {
            let now = objects(&client, &namespace, "t").await;
            let mut names: Vec<&str> = now.keys().map(String::as_str).collect();
            names.sort_unstable();
            let mut wanted = wanted.clone();
            wanted.sort_unstable();
            let old = now.iter().any(|(name, object)| {
                before
                    .get(name)
                    .is_some_and(|old| old.uid() == object.uid())
            });
            (names == wanted && !old).then_some(now)
        })
        .await;
        let passwords = |of: &BTreeMap<String, DynamicObject>| {
            let data = content(&of["Secret/t-auth"])["data"].clone();
            data.as_object().unwrap().clone()
        };
        let old = passwords(&before);
        for (slot, password) in passwords(&now) {
            assert_ne!(Some(&password), old.get(&slot), "{slot}");
        }
        condition(&client, subject, ("Stalled", "False", "NotStalled")).await;
        quiet(&operator).await;
        delete_tier(&client, &namespace, "t").await;
        wait_for_objects(&client, &namespace, "t", &[]).await;
        until_gone(&client, "Pod", &namespace, "t-shard-0-0").await;
    }
}

#[tokio::test]
async fn only_the_object_that_was_read_is_deleted() {
    let name = "only_the_object_that_was_read_is_deleted";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "exactly").await;
    let applier = Applier {
        client: &client,
        namespace: &namespace,
        owner: Owner::Label("ours".to_owned()),
    };
    let make = async |owner: &str, data: &str| {
        let labels = json!({names::OWNER_UID: owner});
        let map = json!({"metadata": {"labels": labels}, "data": {"a": data}});
        apply(&client, &namespace, "ConfigMap", "m", map).await;
    };
    let read = async || applier.get::<ConfigMap>("m").await.unwrap();
    let is_conflict = |refused: Result<(), ApplyError>| match refused {
        Err(ApplyError::Api(error)) => error.category().name() == "conflict",
        _ => false,
    };
    make("ours", "1").await;
    let seen = read().await.unwrap();
    make("ours", "2").await;
    assert!(
        is_conflict(applier.delete(&seen).await),
        "it changed meanwhile"
    );
    let seen = read().await.unwrap();
    let maps = api(&client, "ConfigMap", &namespace);
    maps.delete("m", &DeleteParams::default()).await.unwrap();
    make("ours", "2").await;
    assert!(
        is_conflict(applier.delete(&seen).await),
        "it is another one"
    );
    assert!(applier.remove::<ConfigMap>("m").await.unwrap());
    assert_eq!(read().await, None);
    make("another", "1").await;
    assert!(!applier.remove::<ConfigMap>("m").await.unwrap());
    assert!(read().await.is_some());
}
