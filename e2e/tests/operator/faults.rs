//! An API server that fails in every way it can: the operator comes to the same objects, does not
//! hammer, does not let one tier wait for another, and says what is in its way.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use e2e::{
    environment::available,
    kubernetes::{ApiServer, Call, Fault, FaultProxy, Verb, eventually_within, new_namespace},
};
use kube::{
    Client,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    ALL, replicated, standalone,
    world::{
        Operator, api, apply, comparable, condition, objects, quiet, tier, wait_for_content,
        wait_for_objects,
    },
};

const MINUTE: Duration = Duration::from_mins(1);

/// The objects of a Replicated tier that nothing disturbed.
async fn undisturbed(plane: &ApiServer, client: &Client) -> BTreeMap<String, String> {
    let namespace = new_namespace(client, "calm").await;
    let operator = Operator::start(plane.access(), &namespace, ALL).await;
    tier(client, &namespace, "t", json!({"topology": "Replicated"})).await;
    wait_for_objects(client, &namespace, "t", &replicated()).await;
    quiet(&operator).await;
    comparable(&objects(client, &namespace, "t").await, &namespace)
}

#[tokio::test]
async fn whatever_way_calls_fail_the_objects_are_the_same_in_the_end_and_nothing_is_written_twice()
{
    let name =
        "whatever_way_calls_fail_the_objects_are_the_same_in_the_end_and_nothing_is_written_twice";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let wanted = undisturbed(plane, &client).await;
    let cases = [
        (Verb::Any, Fault::Busy(1), 10, 15),
        (Verb::Any, Fault::Answer(429), 10, 15),
        (Verb::Any, Fault::Answer(500), 15, 30),
        (Verb::Any, Fault::Answer(503), 15, 30),
        (Verb::Write, Fault::Answer(409), 50, 30),
        (Verb::Write, Fault::Lost, 50, 30),
        (Verb::Any, Fault::Lost, 15, 30),
        (Verb::Watch, Fault::Answer(410), 60, 30),
        (Verb::Watch, Fault::Gone, 60, 30),
    ];
    let cases = cases.map(|case| disturbed(plane, &client, &wanted, case));
    futures_util::future::join_all(cases).await;
}

async fn disturbed(
    plane: &ApiServer,
    client: &Client,
    wanted: &BTreeMap<String, String>,
    (verb, fault, percent, times): (Verb, Fault, usize, usize),
) {
    let namespace = new_namespace(client, "disturbed").await;
    let proxy = FaultProxy::start(plane.access());
    proxy.fail(verb, "/", fault, percent, times);
    let operator = Operator::start(proxy.access(), &namespace, ALL).await;
    tier(client, &namespace, "t", json!({"topology": "Replicated"})).await;
    let met = || {
        proxy
            .calls()
            .iter()
            .filter(|call| call.fault.is_some())
            .count()
    };
    let mut passwords = None;
    // Changed again and again until all faults were met, so that none is left for a calm time.
    let what = format!("{verb:?} {fault:?}: the faults are met");
    let mut round = 0;
    while met() < times {
        let before = met();
        let touch = json!({"metadata": {"annotations": {"round": round.to_string()}}});
        api(client, "CacheTier", &namespace)
            .patch("t", &PatchParams::default(), &Patch::Merge(&touch))
            .await
            .unwrap();
        if verb == Verb::Watch {
            proxy.break_watches();
        }
        if verb == Verb::Write {
            edit_something(client, &namespace, round).await;
        }
        let reconciled = operator.reconciles();
        eventually_within(MINUTE, &what, || {
            let on = met() > before || operator.reconciles() > reconciled;
            std::future::ready(on.then_some(()))
        })
        .await;
        half_applied(client, &namespace).await;
        let now = objects(client, &namespace, "t").await;
        if let Some(secret) = now.get("Secret/t-auth") {
            let data = secret.data["data"].clone();
            assert_eq!(passwords.get_or_insert(data.clone()), &data, "{fault:?}");
        }
        round += 1;
    }
    wait_for_content(client, (&namespace, "t"), wanted).await;
    let subject = (namespace.as_str(), "CacheTier", "t");
    condition(client, subject, ("Stalled", "False", "NotStalled")).await;
    quiet(&operator).await;
}

/// Something for the operator to repair.
async fn edit_something(client: &Client, namespace: &str, round: usize) {
    let edit = json!({"data": {"sidecar.yaml": format!("edited {round}")}});
    let done = api(client, "ConfigMap", namespace)
        .patch("t-sidecar", &PatchParams::default(), &Patch::Merge(&edit))
        .await;
    // It may not have been made yet.
    if let Err(kube::Error::Api(status)) = done {
        assert_eq!(status.code, 404, "{status}");
    }
}

/// A configuration that names files is never there without them, nor a set without what it mounts.
async fn half_applied(client: &Client, namespace: &str) {
    // Later objects first: what they need was there before them.
    let later = objects(client, namespace, "t").await;
    let earlier = objects(client, namespace, "t").await;
    for (object, needs) in [
        ("ConfigMap/t-sidecar", "Secret/t-sidecar"),
        ("StatefulSet/t-shard-0", "ConfigMap/t-redis"),
        ("StatefulSet/t-shard-0", "Secret/t-auth"),
        ("StatefulSet/t-shard-0", "Service/t-shard-0"),
        ("StatefulSet/t-sentinel", "ServiceAccount/t-redis"),
    ] {
        if later.contains_key(object) {
            assert!(earlier.contains_key(needs), "{object} without {needs}");
        }
    }
}

/// The times between the calls that fit.
fn gaps(calls: &[Call], method: &str, path: &str) -> Vec<Duration> {
    let at: Vec<Instant> = calls
        .iter()
        .filter(|call| call.method == method && call.path.ends_with(path))
        .map(|call| call.at)
        .collect();
    at.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test]
async fn a_tier_whose_calls_fail_is_tried_ever_more_rarely_while_others_go_on() {
    let name = "a_tier_whose_calls_fail_is_tried_ever_more_rarely_while_others_go_on";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "backoff").await;
    let proxy = FaultProxy::start(plane.access());
    proxy.fail(
        Verb::Write,
        "statefulsets/bad-shard-0",
        Fault::Answer(500),
        100,
        ALL,
    );
    proxy.fail(
        Verb::Write,
        "statefulsets/full-shard-0",
        Fault::Busy(2),
        100,
        ALL,
    );
    proxy.fail(
        Verb::Read,
        "statefulsets/mute-shard-0",
        Fault::Silence,
        100,
        ALL,
    );
    let _operator = Operator::start(proxy.access(), &namespace, ALL).await;
    for bad in ["bad", "full", "mute"] {
        tier(&client, &namespace, bad, json!({"topology": "Standalone"})).await;
    }
    let subject = |tier| (namespace.as_str(), "CacheTier", tier);
    for (tier, reason) in [
        ("bad", "ApiServerBusy"),
        ("full", "ApiServerBusy"),
        ("mute", "ApiServerUnreachable"),
    ] {
        let message = condition(&client, subject(tier), ("Reconciling", "True", reason)).await;
        assert!(message.contains("StatefulSet"), "{message}");
    }
    let tries = |tier: &str| {
        gaps(
            &proxy.calls(),
            "PATCH",
            &format!("statefulsets/{tier}-shard-0"),
        )
    };
    // The first tries may follow events of the objects that could be made; then only the pause.
    for tier in ["bad", "full"] {
        eventually_within(MINUTE, "the pauses have grown", || {
            let last = tries(tier).last().copied().unwrap_or_default();
            std::future::ready((last >= Duration::from_secs(2)).then_some(()))
        })
        .await;
        assert!(tries(tier).len() <= 20, "{tier}: {:?}", tries(tier));
    }
    // Beside them a tier is made as if nothing were.
    tier(&client, &namespace, "t", json!({"topology": "Standalone"})).await;
    wait_for_objects(&client, &namespace, "t", &standalone()).await;
    proxy.heal();
    for bad in ["bad", "full", "mute"] {
        let wanted = standalone()
            .iter()
            .map(|name| name.replace("/t", &format!("/{bad}")))
            .collect::<Vec<_>>();
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        wait_for_objects(&client, &namespace, bad, &wanted).await;
    }
}

#[tokio::test]
async fn what_happened_while_no_watch_worked_is_made_up_for() {
    let name = "what_happened_while_no_watch_worked_is_made_up_for";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    for gone in [Fault::Answer(410), Fault::Gone] {
        let namespace = new_namespace(&client, "unseen").await;
        let proxy = FaultProxy::start(plane.access());
        let operator = Operator::start(proxy.access(), &namespace, ALL).await;
        let none = json!({"topology": "None"});
        for name in ["child", "edited", "anew", "deleted"] {
            tier(&client, &namespace, name, none.clone()).await;
            let subject = (namespace.as_str(), "CacheTier", name);
            condition(&client, subject, ("Ready", "True", "MemoryOnly")).await;
        }
        quiet(&operator).await;
        proxy.fail(Verb::Watch, "/", Fault::Answer(500), 100, ALL);
        proxy.break_watches();
        let tiers = api(&client, "CacheTier", &namespace);
        let configs = api(&client, "ConfigMap", &namespace);
        let before = configs.get("anew-sidecar").await.unwrap();
        configs
            .delete("child-sidecar", &DeleteParams::default())
            .await
            .unwrap();
        tier(
            &client,
            &namespace,
            "edited",
            json!({"topology": "Standalone"}),
        )
        .await;
        for name in ["anew", "deleted"] {
            tiers.delete(name, &DeleteParams::default()).await.unwrap();
        }
        tier(&client, &namespace, "anew", none.clone()).await;
        tier(&client, &namespace, "new", none).await;
        proxy.heal();
        // As after a long time: the API server no longer knows what came before.
        proxy.fail(Verb::Watch, &namespace, gone, 100, 12);
        proxy.break_watches();
        for wanted in ["child", "anew", "new"] {
            wait_for_objects(
                &client,
                &namespace,
                wanted,
                &[&format!("ConfigMap/{wanted}-sidecar")],
            )
            .await;
        }
        let edited: Vec<String> = standalone()
            .iter()
            .map(|name| name.replace("/t", "/edited"))
            .collect();
        let edited: Vec<&str> = edited.iter().map(String::as_str).collect();
        wait_for_objects(&client, &namespace, "edited", &edited).await;
        wait_for_objects(&client, &namespace, "deleted", &[]).await;
        eventually_within(MINUTE, "the new tier has its own", || async {
            let now = configs.get_opt("anew-sidecar").await.unwrap()?;
            (now.metadata.uid != before.metadata.uid).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn lists_of_the_past_delete_nothing_of_a_tier_that_was_made_anew() {
    let name = "lists_of_the_past_delete_nothing_of_a_tier_that_was_made_anew";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "past").await;
    let proxy = FaultProxy::start(plane.access());
    let kinds = [
        "/cachetiers",
        "/configmaps",
        "/secrets",
        "/statefulsets",
        "/services",
        "/pods",
    ];
    tier(&client, &namespace, "t", json!({"topology": "Replicated"})).await;
    let first = Operator::start(proxy.access(), &namespace, ALL).await;
    wait_for_objects(&client, &namespace, "t", &replicated()).await;
    quiet(&first).await;
    drop(first);
    // The next operator reads these lists, and they are kept.
    for kind in kinds {
        proxy.remember(kind);
    }
    let operator = Operator::start(proxy.access(), &namespace, ALL).await;
    eventually_within(MINUTE, "the lists are kept", || {
        std::future::ready(kinds.iter().all(|kind| proxy.remembers(kind)).then_some(()))
    })
    .await;
    let tiers = api(&client, "CacheTier", &namespace);
    tiers.delete("t", &DeleteParams::default()).await.unwrap();
    wait_for_objects(&client, &namespace, "t", &[]).await;
    tier(&client, &namespace, "t", json!({"topology": "Standalone"})).await;
    let anew = wait_for_objects(&client, &namespace, "t", &standalone()).await;
    quiet(&operator).await;
    drop(operator);

    let written = proxy.calls().len();
    for kind in kinds {
        proxy.replay(kind);
    }
    let late = Operator::start(proxy.access(), &namespace, ALL).await;
    // By what is past it may not come to an end; that it has begun is what matters.
    eventually_within(MINUTE, "it reconciles by what is past", || {
        let calls = &proxy.calls()[written..];
        let begun = |call: &Call| call.method == "GET" && call.path.ends_with("/cachetiers/t");
        std::future::ready(calls.iter().any(begun).then_some(()))
    })
    .await;
    proxy.heal();
    proxy.break_watches();
    quiet(&late).await;
    let deletes: Vec<String> = proxy.calls()[written..]
        .iter()
        .filter(|call| call.method == "DELETE")
        .map(|call| call.path.clone())
        .collect();
    assert_eq!(deletes, [""; 0]);
    for (name, now) in wait_for_objects(&client, &namespace, "t", &standalone()).await {
        assert_eq!(now.metadata.uid, anew[&name].metadata.uid, "{name}");
    }
}

#[tokio::test]
async fn events_that_are_lost_are_made_up_for_by_the_next_one() {
    let name = "events_that_are_lost_are_made_up_for_by_the_next_one";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "lost").await;
    let proxy = FaultProxy::start(plane.access());
    let operator = Operator::start(proxy.access(), &namespace, ALL).await;
    tier(&client, &namespace, "t", json!({"topology": "Replicated"})).await;
    wait_for_objects(&client, &namespace, "t", &replicated()).await;
    quiet(&operator).await;
    let wanted = comparable(&objects(&client, &namespace, "t").await, &namespace);
    for kind in ["/configmaps", "/services", "/statefulsets"] {
        proxy.mute(kind);
    }
    for (kind, name) in [("ConfigMap", "t-redis"), ("Service", "t-shard-0")] {
        let api = api(&client, kind, &namespace);
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let scale = json!({"spec": {"replicas": 0}});
    api(&client, "StatefulSet", &namespace)
        .patch("t-sentinel", &PatchParams::default(), &Patch::Merge(&scale))
        .await
        .unwrap();
    // One event of another kind: everything is read, whatever was told.
    let edit = json!({"automountServiceAccountToken": true});
    api(&client, "ServiceAccount", &namespace)
        .patch("t-redis", &PatchParams::default(), &Patch::Merge(&edit))
        .await
        .unwrap();
    wait_for_content(&client, (&namespace, "t"), &wanted).await;
}

#[tokio::test]
async fn a_call_or_a_watch_that_is_forbidden_is_a_condition_and_ends_when_it_is_allowed() {
    let name = "a_call_or_a_watch_that_is_forbidden_is_a_condition_and_ends_when_it_is_allowed";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "forbidden").await;
    let proxy = FaultProxy::start(plane.access());
    proxy.fail(
        Verb::Write,
        "/networkpolicies",
        Fault::Answer(403),
        100,
        ALL,
    );
    let operator = Operator::start(proxy.access(), &namespace, ALL).await;
    tier(&client, &namespace, "t", json!({"topology": "Standalone"})).await;
    let subject = (namespace.as_str(), "CacheTier", "t");
    let message = condition(&client, subject, ("Ready", "False", "Forbidden")).await;
    assert!(message.contains("patch NetworkPolicy"), "{message}");
    proxy.heal();
    wait_for_objects(&client, &namespace, "t", &standalone()).await;
    quiet(&operator).await;
    drop(operator);

    let proxy = FaultProxy::start(plane.access());
    proxy.fail(Verb::Watch, "/services", Fault::Answer(403), 100, ALL);
    let _operator = Operator::start(proxy.access(), &namespace, ALL).await;
    let message = condition(&client, subject, ("Watched", "False", "Forbidden")).await;
    assert!(message.contains("Service:"), "{message}");
    // All else is noticed at once.
    let config = api(&client, "ConfigMap", &namespace);
    config
        .delete("t-redis", &DeleteParams::default())
        .await
        .unwrap();
    wait_for_objects(&client, &namespace, "t", &standalone()).await;
    proxy.heal();
    // An event of that kind shows that they are told again.
    let spec = json!({"metadata": {"labels": {"a": "b"}}});
    eventually_within(2 * MINUTE, "the condition is gone", || async {
        let services = api(&client, "Service", &namespace);
        let patch = Patch::Merge(&spec);
        services
            .patch("t", &PatchParams::default(), &patch)
            .await
            .unwrap();
        let tier = api(&client, "CacheTier", &namespace)
            .get("t")
            .await
            .unwrap();
        let conditions = tier.data["status"]["conditions"].as_array()?.clone();
        (!conditions.iter().any(|one| one["type"] == "Watched")).then_some(())
    })
    .await;
    // For people who use them: a tier of another kind is not concerned.
    apply(
        &client,
        &namespace,
        "CacheTier",
        "other",
        json!({"spec": {"redis": {"topology": "None"}}}),
    )
    .await;
    let other = (namespace.as_str(), "CacheTier", "other");
    condition(&client, other, ("Ready", "True", "MemoryOnly")).await;
}
