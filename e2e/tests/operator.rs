//! The operator on a real API server (no kubelet): what it makes, what it repairs, what it leaves
//! alone, and what it says when something is in the way.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test a panic is the report; clippy.toml covers only functions marked #[test]"
)]

#[path = "operator/claims.rs"]
mod claims;
#[path = "operator/deletion.rs"]
mod deletion;
#[path = "operator/eviction.rs"]
mod eviction;
#[path = "operator/faults.rs"]
mod faults;
#[path = "operator/fields.rs"]
mod fields;
#[path = "operator/killed.rs"]
mod killed;
#[path = "operator/policies.rs"]
mod policies;
#[path = "operator/scale.rs"]
mod scale;
#[path = "operator/settings.rs"]
mod server_settings;
#[path = "operator/sharing.rs"]
mod sharing;
#[path = "operator/stored.rs"]
mod stored;
#[path = "operator/values.rs"]
mod values;
#[path = "operator/world.rs"]
mod world;

use std::{path::Path, time::Duration};

use e2e::{
    environment::available,
    kubernetes::{ApiServer, eventually, eventually_within, new_namespace, service_account_token},
};
use kube::{
    Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use policy::names::MOUNTED;
use serde_json::{Value, json};

use self::world::{
    Operator, api, apply, comparable, condition, content, kubectl_apply, objects, quiet, settings,
    tier, wait_for_objects,
};

const ALL: usize = usize::MAX;

const STANDALONE: [&str; 10] = [
    "ConfigMap/t-redis",
    "ConfigMap/t-sidecar",
    "NetworkPolicy/t-redis",
    "Secret/t-auth",
    "Secret/t-binding",
    "Secret/t-sidecar",
    "Service/t",
    "Service/t-shard-0",
    "ServiceAccount/t-redis",
    "StatefulSet/t-shard-0",
];

fn standalone() -> Vec<&'static str> {
    STANDALONE.to_vec()
}

fn replicated() -> Vec<&'static str> {
    let mut wanted = standalone();
    wanted.retain(|name| *name != "Service/t");
    wanted.extend([
        "NetworkPolicy/t-sentinel",
        "PodDisruptionBudget/t-sentinel",
        "PodDisruptionBudget/t-shard-0",
        "Service/t-sentinel",
        "StatefulSet/t-sentinel",
    ]);
    wanted
}

#[tokio::test]
async fn each_topology_makes_its_objects_and_says_what_it_waits_for() {
    let name = "each_topology_makes_its_objects_and_says_what_it_waits_for";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    for (redis, wanted, ready, reason) in [
        (
            json!({"topology": "None"}),
            vec!["ConfigMap/t-sidecar"],
            "True",
            "MemoryOnly",
        ),
        (
            json!({"topology": "External", "external": {"urlSecretRef": {"name": "r"}}}),
            vec!["ConfigMap/t-sidecar", "Secret/t-sidecar"],
            "True",
            "",
        ),
        (json!({"topology": "Standalone"}), standalone(), "False", ""),
        (json!({"topology": "Replicated"}), replicated(), "False", ""),
    ] {
        let namespace = new_namespace(&client, "topology").await;
        let secret = json!({"stringData": {"url": "redis://u:p@redis.example/1"}});
        apply(&client, &namespace, "Secret", "r", secret).await;
        let _operator = Operator::start(plane.access(), &namespace, ALL).await;
        tier(&client, &namespace, "t", redis).await;
        let found = wait_for_objects(&client, &namespace, "t", &wanted).await;
        condition(
            &client,
            (&namespace, "CacheTier", "t"),
            ("Ready", ready, reason),
        )
        .await;
        for (name, object) in &found {
            let owners = object.metadata.owner_references.as_ref().unwrap();
            assert_eq!(owners[0].kind, "CacheTier", "{name}");
            assert_eq!(owners[0].controller, Some(true), "{name}");
        }
        let config = found["ConfigMap/t-sidecar"].data["data"]["sidecar.yaml"].as_str();
        let config = policy::SidecarConfig::from_yaml(config.unwrap()).unwrap();
        assert_eq!(
            (config.tier, config.generation),
            (format!("{namespace}/t"), 1)
        );
    }
}

/// A change by hand of what each kind of object says.
fn edit(name: &str) -> Value {
    match name.split('/').next().unwrap() {
        // A key that nobody asked for would be somebody else's, and stay.
        "ConfigMap" if name.ends_with("-sidecar") => json!({"data": {"sidecar.yaml": "edited"}}),
        "ConfigMap" => json!({"data": {"server.yaml": "edited"}}),
        "Secret" if name.ends_with("-auth") => json!({"data": {"operator.current": null}}),
        "Secret" => json!({"data": {"password": "ZWRpdGVk"}}),
        // The same name with another number: applying ours beside it would be two of one name.
        "Service" if name.ends_with("-sentinel") => {
            json!({"spec": {"ports": [{"name": "sentinel", "port": 1}]}})
        }
        "Service" => json!({"spec": {"ports": [{"name": "redis", "port": 1}]}}),
        "PodDisruptionBudget" => json!({"spec": {"maxUnavailable": 2}}),
        "ServiceAccount" => json!({"automountServiceAccountToken": true}),
        "NetworkPolicy" => json!({"spec": {"ingress": []}}),
        "StatefulSet" => json!({"spec": {"replicas": 0}}),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn every_owned_object_that_is_edited_or_deleted_is_repaired() {
    let name = "every_owned_object_that_is_edited_or_deleted_is_repaired";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "repair").await;
    let _operator = Operator::start(plane.access(), &namespace, ALL).await;
    tier(&client, &namespace, "t", json!({"topology": "Replicated"})).await;
    let found = wait_for_objects(&client, &namespace, "t", &replicated()).await;
    for (name, before) in found {
        let (kind, object) = name.split_once('/').unwrap();
        let api = api(&client, kind, &namespace);
        // A generated password that was removed comes back as another one.
        let comparable = |object: &DynamicObject| match object.metadata.name.as_deref() {
            Some("t-auth") => {
                let keys = object.data["data"].as_object().unwrap();
                json!(keys.keys().collect::<Vec<_>>())
            }
            _ => content(object),
        };
        let wanted = comparable(&before);
        let patch = Patch::Merge(edit(&name));
        api.patch(object, &PatchParams::default(), &patch)
            .await
            .unwrap();
        eventually_within(
            Duration::from_secs(30),
            &format!("{name} is repaired"),
            || async {
                let now = api.get_opt(object).await.unwrap()?;
                (comparable(&now) == wanted).then_some(())
            },
        )
        .await;
        api.delete(object, &DeleteParams::default()).await.unwrap();
        eventually_within(
            Duration::from_secs(30),
            &format!("{name} is made anew"),
            || async {
                let now = api.get_opt(object).await.unwrap()?;
                (now.metadata.uid != before.metadata.uid).then_some(())
            },
        )
        .await;
    }
}

#[tokio::test]
async fn a_hundred_reconciles_of_a_settled_tier_write_nothing_and_keep_fields_of_others() {
    let name = "a_hundred_reconciles_of_a_settled_tier_write_nothing_and_keep_fields_of_others";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    for (redis, pods) in [
        (json!({"topology": "None"}), 0),
        (json!({"topology": "Replicated", "memory": "1000M"}), 5),
    ] {
        let namespace = new_namespace(&client, "settled").await;
        let operator = Operator::start(plane.access(), &namespace, ALL).await;
        tier(&client, &namespace, "t", redis).await;
        eventually("the status is written", || async {
            let tier = api(&client, "CacheTier", &namespace)
                .get("t")
                .await
                .unwrap();
            tier.data["status"]["observedGeneration"].as_i64()
        })
        .await;
        let mark = json!({"metadata": {"labels": {"team": "shop"}}});
        for object in objects(&client, &namespace, "t").await.keys() {
            let (kind, name) = object.split_once('/').unwrap();
            let params = PatchParams::apply("others");
            let mut theirs = mark.clone();
            let resource = world::resource(kind);
            theirs["apiVersion"] = resource.api_version.into();
            theirs["kind"] = kind.into();
            let api = api(&client, kind, &namespace);
            api.patch(name, &params, &Patch::Apply(&theirs))
                .await
                .unwrap();
        }
        // No node runs the pods, but they are told what is mounted as soon as they exist.
        eventually("the pods exist and are told", || async {
            let found = api(&client, "Pod", &namespace)
                .list(&ListParams::default())
                .await
                .unwrap();
            let told = |pod: &DynamicObject| pod.annotations().contains_key(MOUNTED);
            (found.items.len() == pods && found.items.iter().all(told)).then_some(())
        })
        .await;
        quiet(&operator).await;
        let before = operator.counter.count();
        for _ in 0..100 {
            reconcile_once(&client, &namespace, &operator).await;
        }
        assert_eq!(operator.counter.since(before), [""; 0]);
        for (name, object) in objects(&client, &namespace, "t").await {
            let labels = object.metadata.labels.unwrap();
            assert_eq!(
                labels.get("team").map(String::as_str),
                Some("shop"),
                "{name}"
            );
        }
    }
}

/// Has the tier reconciled once more, by an annotation that means nothing.
async fn reconcile_once(client: &Client, namespace: &str, operator: &Operator) {
    let reconciled = operator.reconciles();
    let touch = json!({"metadata": {"annotations": {"round": reconciled.to_string()}}});
    api(client, "CacheTier", namespace)
        .patch("t", &PatchParams::default(), &Patch::Merge(&touch))
        .await
        .unwrap();
    eventually("one more reconcile", || async {
        (operator.reconciles() > reconciled).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_tier_that_changed_equals_one_that_is_new() {
    let name = "a_tier_that_changed_equals_one_that_is_new";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let old = json!({
        "topology": "Replicated", "replicasPerShard": 1, "memory": "256Mi", "image": "a:1",
        "maxmemoryPolicy": "noeviction", "config": {"timeout": "5"}, "auth": {"mode": "Disabled"},
        "pod": {"labels": {"a": "b"}, "nodeSelector": {"disk": "ssd"}, "priorityClassName": "high",
            "tolerations": [{"key": "k", "operator": "Exists"}], "imagePullSecrets": ["s"],
            "resources": {"limits": {"cpu": "1"}}},
    });
    let new = json!({"topology": "Replicated", "replicasPerShard": 2, "memory": "512Mi"});
    let mut ends = Vec::new();
    for steps in [vec![old, new.clone()], vec![new]] {
        let namespace = new_namespace(&client, "change").await;
        let _operator = Operator::start(plane.access(), &namespace, ALL).await;
        for (generation, redis) in (1..).zip(steps) {
            tier(&client, &namespace, "t", redis).await;
            eventually("the generation was seen", || async {
                let tier = api(&client, "CacheTier", &namespace)
                    .get("t")
                    .await
                    .unwrap();
                (tier.data["status"]["observedGeneration"] == generation).then_some(())
            })
            .await;
        }
        let found = wait_for_objects(&client, &namespace, "t", &replicated()).await;
        ends.push(comparable(&found, &namespace));
    }
    assert_eq!(ends[0], ends[1]);
}

#[tokio::test]
async fn what_is_wrong_is_a_condition_and_heals_when_it_is_put_right() {
    let name = "what_is_wrong_is_a_condition_and_heals_when_it_is_put_right";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "wrong").await;
    let _operator = Operator::start(plane.access(), &namespace, ALL).await;
    let external = json!({"topology": "External", "external": {"urlSecretRef": {"name": "later"}}});
    tier(&client, &namespace, "t", external).await;
    let subject = (namespace.as_str(), "CacheTier", "t");
    let message = condition(&client, subject, ("Stalled", "True", "SecretNotFound")).await;
    assert!(message.contains("\"later\""), "{message}");
    let secret = json!({"stringData": {"url": "redis://redis.example"}});
    apply(&client, &namespace, "Secret", "later", secret).await;
    condition(&client, subject, ("Ready", "True", "")).await;

    let long = "a".repeat(41);
    tier(&client, &namespace, &long, json!({"topology": "None"})).await;
    let subject = (namespace.as_str(), "CacheTier", long.as_str());
    condition(&client, subject, ("Stalled", "True", "InvalidName")).await;

    tier(
        &client,
        &namespace,
        "cluster",
        json!({"topology": "Cluster"}),
    )
    .await;
    let subject = (namespace.as_str(), "CacheTier", "cluster");
    let message = condition(&client, subject, ("Stalled", "True", "NotAvailableYet")).await;
    assert!(message.contains("Replicated"), "{message}");

    let socket = json!({"spec": {"redis": {"topology": "None"}, "sidecar": {"unixSocket": "/tmp/redis.sock"}}});
    apply(&client, &namespace, "CacheTier", "socket", socket).await;
    let subject = (namespace.as_str(), "CacheTier", "socket");
    let message = condition(&client, subject, ("Stalled", "True", "NotPossible")).await;
    assert!(
        message.contains("spec.sidecar.unixSocket is \"/tmp/redis.sock\""),
        "{message}"
    );

    apply(
        &client,
        &namespace,
        "ConfigMap",
        "taken-sidecar",
        json!({"data": {"a": "b"}}),
    )
    .await;
    tier(&client, &namespace, "taken", json!({"topology": "None"})).await;
    let subject = (namespace.as_str(), "CacheTier", "taken");
    let message = condition(&client, subject, ("Stalled", "True", "NameTaken")).await;
    assert!(message.contains("taken-sidecar"), "{message}");
    let theirs = api(&client, "ConfigMap", &namespace)
        .get("taken-sidecar")
        .await
        .unwrap();
    assert_eq!(theirs.data["data"], json!({"a": "b"}), "never taken over");
}

#[tokio::test]
async fn the_rights_of_the_manifests_suffice_and_a_missing_one_is_a_condition() {
    let name = "the_rights_of_the_manifests_suffice_and_a_missing_one_is_a_condition";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let rbac = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/rbac");
    for file in ["namespace.yaml", "cluster.yaml"] {
        kubectl_apply(plane, &rbac.join(file));
    }
    for (role, ready) in [
        ("pannier-operator", true),
        ("pannier-operator-copies", false),
    ] {
        let namespace = new_namespace(&client, "rights").await;
        apply(&client, &namespace, "ServiceAccount", "op", json!({})).await;
        let account = format!("--serviceaccount={namespace}:op");
        let bind = |name: &str, role: &str| {
            let done = plane
                .kubectl()
                .args(["create", "rolebinding", name, "-n", &namespace])
                .args([format!("--clusterrole={role}"), account.clone()])
                .output()
                .unwrap();
            assert!(done.status.success(), "{done:?}");
        };
        bind("op", role);
        if !ready {
            // Enough to see tiers and to speak, not to make their objects.
            bind("view", "pannier-operator-half");
        }
        let token = service_account_token(&client, &namespace, "op").await;
        let access = plane.access().clone().with_token(token);
        let half = json!({"rules": [
            {"apiGroups": ["pannier.dev"], "resources": ["cachetiers", "sessionpolicies"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["pannier.dev"], "resources": ["cachetiers/status"], "verbs": ["patch"]},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]},
        ]});
        cluster_role(&client, "pannier-operator-half", half).await;
        let _operator = Operator::start(&access, &namespace, ALL).await;
        tier(&client, &namespace, "t", json!({"topology": "Standalone"})).await;
        let subject = (namespace.as_str(), "CacheTier", "t");
        if ready {
            wait_for_objects(&client, &namespace, "t", &standalone()).await;
            condition(&client, subject, ("Stalled", "False", "NotStalled")).await;
        } else {
            let message = condition(&client, subject, ("Ready", "False", "Forbidden")).await;
            assert!(message.contains("forbidden"), "{message}");
            assert!(message.contains("StatefulSet"), "{message}");
        }
    }
}

async fn cluster_role(client: &kube::Client, name: &str, rest: Value) {
    let gvk = kube::core::GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", "ClusterRole");
    let resource = kube::api::ApiResource::from_gvk_with_plural(&gvk, "clusterroles");
    let roles: kube::Api<DynamicObject> = kube::Api::all_with(client.clone(), &resource);
    let mut role = rest;
    role["apiVersion"] = resource.api_version.clone().into();
    role["kind"] = "ClusterRole".into();
    role["metadata"]["name"] = name.into();
    let params = PatchParams::apply("person").force();
    roles
        .patch(name, &params, &Patch::Apply(&role))
        .await
        .unwrap();
}

#[tokio::test]
async fn of_two_installations_with_one_namespace_the_second_says_so_and_stops() {
    let name = "of_two_installations_with_one_namespace_the_second_says_so_and_stops";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "two").await;
    let _first = Operator::start(plane.access(), &namespace, ALL).await;
    tier(&client, &namespace, "t", json!({"topology": "None"})).await;
    let subject = (namespace.as_str(), "CacheTier", "t");
    condition(&client, subject, ("Ready", "True", "")).await;
    // The Lease by which the first installation is known to live.
    claims::lease(&client, &namespace, "pannier-operator", "test", true).await;
    let mut second = Operator::start_as(plane.access(), settings("another", &namespace), ALL).await;
    let reason = tokio::time::timeout(Duration::from_secs(20), second.stopped.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(
        reason.contains(&format!("{namespace}/pannier-operator")),
        "{reason}"
    );
    assert_eq!(second.counter.count(), 0, "it has written nothing");
}
