//! Every field of a tier, changed in turn: the objects are then those of a tier that is new with
//! the new value. The schema says which fields there are, so none can be forgotten.

use std::collections::BTreeSet;

use e2e::{
    environment::available,
    kubernetes::{ApiServer, ControlPlane, apply_crds, eventually_within, new_namespace},
};
use kube::{Client, ResourceExt as _};
use operator::settings::Scope;
use serde_json::{Map, Value, json};

use crate::{
    ALL,
    world::{Operator, api, apply, comparable, objects, quiet, settings, wait_for_content},
};

/// Fields that cannot be changed here, and why.
const NOT_HERE: &[(&str, &str)] = &[
    ("compression", "not available yet, refused at admission"),
    ("events", "not available yet, refused at admission"),
    (
        "keyspace.previousVersions",
        "not available yet, refused at admission",
    ),
    ("monitoring", "not available yet, refused at admission"),
    ("origins", "not available yet, refused at admission"),
    ("reconcile", "not available yet, refused at admission"),
    ("redis.backup", "not available yet, refused at admission"),
    ("rules[].origin", "not available yet, refused at admission"),
    (
        "rules[].refreshAhead",
        "not available yet, refused at admission",
    ),
    (
        "rules[].stale.whileRevalidate",
        "not available yet, refused at admission",
    ),
    ("rules[].tags", "not available yet, refused at admission"),
    ("rules[].write", "Behind is not available yet"),
    ("warm", "not available yet, refused at admission"),
    (
        "sidecar.image",
        "for injected sidecars, no object of a tier",
    ),
    (
        "sidecar.resources",
        "for injected sidecars, no object of a tier",
    ),
    (
        "redis.shards",
        "only of topology Cluster, which is not available yet",
    ),
    (
        "redis.persistence.size",
        "volumes do not grow yet; Stalled says so",
    ),
    (
        "redis.persistence.storageClassName",
        "of volumes that exist; immutable",
    ),
    (
        "redis.pod.resources.limits.memory",
        "is redis.memory; Stalled says so",
    ),
    (
        "redis.pod.resources.requests.memory",
        "is redis.memory; Stalled says so",
    ),
    (
        "allowedNamespaces",
        "copies have tests of their own, in sharing.rs",
    ),
];

/// One change: on which kind of tier, from what, to what.
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn changes() -> Vec<(&'static str, Value, Value)> {
    let rule = |rule: Value| {
        let mut rule = rule;
        rule["name"] = "r".into();
        rule["match"] = rule
            .get("match")
            .cloned()
            .unwrap_or_else(|| "k:{id}".into());
        json!({"rules": [rule]})
    };
    let redis = |redis: Value| json!({"redis": redis});
    let pod = |pod: Value| json!({"redis": {"pod": pod}});
    let mut changes = vec![
        (
            "none",
            json!({"environment": "Test"}),
            json!({"environment": "Production"}),
        ),
        (
            "standalone",
            json!({"caching": "Enabled"}),
            json!({"caching": "Disabled"}),
        ),
        (
            "none",
            json!({"slowLogThreshold": "1s"}),
            json!({"slowLogThreshold": "2s"}),
        ),
        (
            "none",
            redis(json!({"topology": "None"})),
            redis(json!({"topology": "Standalone"})),
        ),
    ];
    for (field, from, to) in [
        ("prefix", json!("a"), json!("b:c")),
        ("schemaVersion", json!("v1"), json!("v2")),
        ("database", json!(0), json!(3)),
    ] {
        changes.push((
            "standalone",
            json!({"keyspace": {field: from}}),
            json!({"keyspace": {field: to}}),
        ));
    }
    for (field, from, to) in [
        ("coherence", json!("Tracking"), json!("TtlOnly")),
        ("maxStaleness", json!("1s"), json!("2s")),
        ("memory", json!("16Mi"), json!("32Mi")),
        ("mode", json!("Active"), json!("Shadow")),
        ("rampPercent", json!(10), json!(20)),
    ] {
        changes.push((
            "standalone",
            json!({"local": {field: from}}),
            json!({"local": {field: to}}),
        ));
    }
    for (field, from, to) in [
        ("default", json!("1h"), json!("2h")),
        ("max", json!("3h"), json!("4h")),
        ("jitterPercent", json!(1), json!(2)),
        ("scalePercent", json!(10), json!(20)),
    ] {
        changes.push((
            "none",
            json!({"ttl": {field: from}}),
            json!({"ttl": {field: to}}),
        ));
    }
    for (field, from, to) in [
        ("backoffBase", json!("10ms"), json!("20ms")),
        ("backoffMax", json!("6s"), json!("7s")),
        ("commandTimeout", json!("3s"), json!("4s")),
        ("connectTimeout", json!("3s"), json!("4s")),
        ("maxRetries", json!(1), json!(2)),
        ("whenUnavailable", json!("Error"), json!("Memory")),
        (
            "circuitBreaker",
            json!({"failures": 3, "openFor": "1s"}),
            json!({"failures": 4, "openFor": "2s"}),
        ),
        (
            "offlineQueue",
            json!({"maxCommands": 3, "maxWait": "1s"}),
            json!({"maxCommands": 4, "maxWait": "2s"}),
        ),
    ] {
        changes.push((
            "external",
            json!({"resilience": {field: from}}),
            json!({"resilience": {field: to}}),
        ));
    }
    for (from, to) in [
        (json!({"cache": "Both"}), json!({"cache": "Bypass"})),
        (json!({"localTtl": "1s"}), json!({"localTtl": "2s"})),
        (json!({"match": "a:{id}"}), json!({"match": "b:{id}"})),
        (
            json!({"maxValueSize": "1Ki"}),
            json!({"maxValueSize": "2Ki"}),
        ),
        (json!({"negativeTtl": "1s"}), json!({"negativeTtl": "2s"})),
        (
            json!({"onWriteError": "Error"}),
            json!({"onWriteError": "Log"}),
        ),
        (
            json!({"stale": {"ifError": "1s"}}),
            json!({"stale": {"ifError": "2s"}}),
        ),
        (json!({"ttl": "1s"}), json!({"ttl": "2s"})),
    ] {
        changes.push(("external", rule(from), rule(to)));
    }
    changes.push((
        "none",
        rule(json!({"ttl": "1s"})),
        json!({"rules": [{"name": "other", "match": "o:*"}]}),
    ));
    for (field, from, to) in [
        (
            "allowCommands",
            json!(["DEBUG", "SHUTDOWN"]),
            json!(["DEBUG"]),
        ),
        ("maxBulkSize", json!("1Mi"), json!("2Mi")),
        ("maxClients", json!(10), json!(20)),
        ("outputLimit", json!("1Mi"), json!("2Mi")),
        ("threads", json!(1), json!(2)),
        ("unixSocket", json!("/run/a/a.sock"), json!("/run/a/b.sock")),
        (
            "ports",
            json!({"redis": 7000, "http": 7001, "admin": 7002}),
            json!({"redis": 7003, "http": 7004, "admin": 7005}),
        ),
    ] {
        changes.push((
            "external",
            json!({"sidecar": {field: from}}),
            json!({"sidecar": {field: to}}),
        ));
    }
    for (from, to) in [
        (
            json!({"urlSecretRef": {"name": "one"}}),
            json!({"urlSecretRef": {"name": "two"}}),
        ),
        (
            json!({"urlSecretRef": {"name": "one", "key": "url"}}),
            json!({"urlSecretRef": {"name": "one", "key": "other"}}),
        ),
        (json!({"mode": "Standalone"}), json!({"mode": "Cluster"})),
        (
            json!({"mode": "Cluster", "replicaReads": "Never"}),
            json!({"mode": "Cluster", "replicaReads": "Preferred"}),
        ),
        (
            json!({"mode": "Sentinel", "sentinelMasterName": "a"}),
            json!({"mode": "Sentinel", "sentinelMasterName": "b"}),
        ),
        (
            json!({"mode": "Sentinel", "sentinelMasterName": "a", "sentinelPasswordSecretRef": {"name": "one", "key": "p"}}),
            json!({"mode": "Sentinel", "sentinelMasterName": "a", "sentinelPasswordSecretRef": {"name": "two", "key": "q"}}),
        ),
    ] {
        changes.push((
            "external",
            redis(json!({"external": from})),
            redis(json!({"external": to})),
        ));
    }
    for (from, to) in [
        (json!({"mode": "Disabled"}), json!({"mode": "Enabled"})),
        (
            json!({"mode": "Enabled", "serverName": "a.example"}),
            json!({"mode": "Enabled", "serverName": "b.example"}),
        ),
        (
            json!({"mode": "Enabled", "caSecretRef": {"name": "one", "key": "ca"}}),
            json!({"mode": "Enabled", "caSecretRef": {"name": "two", "key": "cb"}}),
        ),
        (
            json!({"mode": "Enabled", "clientCertificateSecretName": "one"}),
            json!({"mode": "Enabled", "clientCertificateSecretName": "two"}),
        ),
    ] {
        changes.push((
            "external",
            redis(json!({"tls": from})),
            redis(json!({"tls": to})),
        ));
    }
    for (from, to) in [
        (json!({"engine": "Valkey"}), json!({"engine": "Redis"})),
        (json!({"image": "a:1"}), json!({"image": "a:2"})),
        (
            json!({"maxmemoryPolicy": "noeviction"}),
            json!({"maxmemoryPolicy": "allkeys-lfu"}),
        ),
        (json!({"memory": "256Mi"}), json!({"memory": "512Mi"})),
        (
            json!({"replicasPerShard": 1}),
            json!({"replicasPerShard": 2}),
        ),
        (
            json!({"config": {"timeout": "5", "hz": "20"}}),
            json!({"config": {"timeout": "6"}}),
        ),
        (
            json!({"auth": {"mode": "Generated"}}),
            json!({"auth": {"mode": "Disabled"}}),
        ),
        (
            json!({"auth": {"mode": "Secret", "passwordSecretRef": {"name": "one", "key": "p"}}}),
            json!({"auth": {"mode": "Secret", "passwordSecretRef": {"name": "two", "key": "q"}}}),
        ),
        (
            json!({"persistence": {"mode": "Rdb", "size": "1Gi", "onDelete": "Retain"}}),
            json!({"persistence": {"mode": "Aof", "size": "1Gi", "onDelete": "Delete"}}),
        ),
    ] {
        changes.push(("replicated", redis(from), redis(to)));
    }
    for (from, to) in [
        (
            json!({"annotations": {"a": "1", "b": "1"}}),
            json!({"annotations": {"a": "2"}}),
        ),
        (
            json!({"labels": {"a": "1", "b": "1"}}),
            json!({"labels": {"a": "2"}}),
        ),
        (
            json!({"nodeSelector": {"a": "1", "b": "1"}}),
            json!({"nodeSelector": {"a": "2"}}),
        ),
        (
            json!({"imagePullSecrets": ["a", "b"]}),
            json!({"imagePullSecrets": ["b"]}),
        ),
        (
            json!({"priorityClassName": "low"}),
            json!({"priorityClassName": "high"}),
        ),
        (
            json!({"resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}}),
            json!({"resources": {"limits": {"cpu": "3"}, "requests": {"cpu": "500m"}}}),
        ),
        (
            json!({"tolerations": [{"key": "a", "operator": "Equal", "value": "x", "effect": "NoSchedule"}]}),
            json!({"tolerations": [{"key": "b", "operator": "Equal", "value": "y", "effect": "NoExecute"}]}),
        ),
    ] {
        changes.push(("standalone", pod(from), pod(to)));
    }
    changes
}

fn spec(on: &str, change: &Value) -> Value {
    let mut spec =
        json!({"environment": "Test", "redis": {"topology": on[..1].to_uppercase() + &on[1..]}});
    if on == "external" {
        spec["redis"]["external"] = json!({"urlSecretRef": {"name": "one"}});
    }
    merge(&mut spec, change);
    spec
}

pub fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

/// Paths of the values in a resource: `rules[].ttl`.
fn leaves(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                leaves(value, &format!("{path}.{name}"), into);
            }
        }
        Value::Array(items) => {
            for item in items {
                leaves(item, &format!("{path}[]"), into);
            }
        }
        _ => {
            into.insert(path.trim_start_matches('.').to_owned());
        }
    }
}

/// Paths of the fields in a schema; a map is one field.
fn fields(schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, schema) in properties {
            fields(schema, &format!("{path}.{name}"), into);
        }
    } else if schema["items"].is_object() {
        fields(&schema["items"], &format!("{path}[]"), into);
    } else {
        into.insert(path.trim_start_matches('.').to_owned());
    }
}

#[test]
fn every_field_of_the_schema_is_changed_or_has_a_reason() {
    let schema: Value =
        serde_yaml::from_str(include_str!("../../../crds/cachetiers.pannier.dev.yaml")).unwrap();
    let spec = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut all = BTreeSet::new();
    fields(spec, "", &mut all);
    assert!(all.len() > 80, "{}", all.len());
    let mut changed = BTreeSet::new();
    for (_, from, to) in changes() {
        assert_ne!(from, to);
        leaves(&from, "", &mut changed);
        leaves(&to, "", &mut changed);
    }
    let below = |field: &str, known: &str| {
        field
            .strip_prefix(known)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let missing: Vec<&String> = all
        .iter()
        .filter(|field| !NOT_HERE.iter().any(|(known, _)| below(field, known)))
        // Keys of a map are below it.
        .filter(|field| !changed.iter().any(|path| below(path, field)))
        .collect();
    assert!(
        missing.is_empty(),
        "neither changed nor excused: {missing:?}"
    );
}

/// What tiers of this table name.
pub async fn secrets(client: &Client, namespace: &str) {
    for name in ["one", "two"] {
        let all = json!({"stringData": {
            "url": format!("redis://u:{name}@redis-{name}.example"),
            "other": format!("redis://other-{name}.example"),
            "p": format!("p-{name}"), "q": format!("q-{name}"),
            "ca": format!("ca-{name}"), "cb": format!("cb-{name}"), "ca.crt": format!("ca-{name}"),
            "tls.crt": format!("crt-{name}"), "tls.key": format!("key-{name}"),
        }});
        apply(client, namespace, "Secret", name, all).await;
    }
}

/// Applies a spec and waits until the operator has seen it.
async fn settle(client: &Client, namespace: &str, spec: &Value) {
    apply(client, namespace, "CacheTier", "t", json!({"spec": spec})).await;
    let tiers = api(client, "CacheTier", namespace);
    let what = format!("{namespace}/t is seen: {spec}");
    eventually_within(std::time::Duration::from_mins(2), &what, || async {
        let tier = tiers.get("t").await.unwrap();
        let stalled = tier.data["status"]["conditions"]
            .as_array()?
            .iter()
            .find(|one| one["type"] == "Stalled")
            .cloned();
        assert!(
            stalled.as_ref().is_none_or(|one| one["status"] != "True"),
            "{spec}: {}",
            stalled.unwrap_or_default()
        );
        (tier.data["status"]["observedGeneration"].as_i64() == tier.metadata.generation)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_tier_whose_field_was_changed_equals_one_that_is_new_with_it() {
    let name = "a_tier_whose_field_was_changed_equals_one_that_is_new_with_it";
    // One of its own: the operator reconciles the whole cluster.
    let Some(plane) = available(name, ControlPlane::start()) else {
        return;
    };
    let client = plane.client().await;
    apply_crds(&client).await;
    let mut settings = settings("pannier-operator", "default");
    settings.scope = Scope::Cluster;
    let operator = Operator::start_as(plane.access(), settings, ALL).await;
    let mut pairs = Vec::new();
    for (on, from, to) in changes() {
        let changed = new_namespace(&client, "changed").await;
        let fresh = new_namespace(&client, "fresh").await;
        secrets(&client, &changed).await;
        secrets(&client, &fresh).await;
        settle(&client, &changed, &spec(on, &from)).await;
        settle(&client, &fresh, &spec(on, &to)).await;
        pairs.push((changed, fresh, spec(on, &to)));
    }
    quiet(&operator).await;
    for (changed, _, to) in &pairs {
        settle(&client, changed, to).await;
    }
    quiet(&operator).await;
    for (changed, fresh, _) in &pairs {
        let wanted = comparable(&objects(&client, fresh, "t").await, fresh);
        wait_for_content(&client, (changed, "t"), &wanted).await;
    }
}

/// A value that cannot be, and its revert: what runs stays, and all is as before.
#[tokio::test]
async fn a_bad_value_changes_nothing_and_its_revert_heals() {
    let name = "a_bad_value_changes_nothing_and_its_revert_heals";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let cases: [(&str, Value, &str); 7] = [
        (
            "standalone",
            json!({"redis": {"tls": {"mode": "Enabled"}}}),
            "spec.redis.tls",
        ),
        (
            "standalone",
            json!({"redis": {"memory": "1Mi"}}),
            "spec.redis.memory",
        ),
        (
            "standalone",
            json!({"redis": {"topology": "Replicated"}}),
            "spec.redis.topology",
        ),
        (
            "standalone",
            json!({"redis": {"persistence": {"mode": "Rdb", "size": "1Gi"}}}),
            "spec.redis.persistence",
        ),
        (
            "standalone",
            json!({"redis": {"pod": {"resources": {"limits": {"memory": "1Gi"}}}}}),
            "spec.redis.pod.resources",
        ),
        (
            "standalone",
            json!({"redis": {"auth": {"mode": "Secret", "passwordSecretRef": {"name": "none"}}}}),
            "spec.redis.auth.passwordSecretRef",
        ),
        (
            "external",
            json!({"redis": {"external": {"urlSecretRef": {"name": "none"}}}}),
            "urlSecretRef",
        ),
    ];
    let all = cases.iter().map(|(on, bad, field)| {
        let client = client.clone();
        async move {
            let namespace = new_namespace(&client, "bad").await;
            secrets(&client, &namespace).await;
            let operator = Operator::start(plane.access(), &namespace, ALL).await;
            let good = spec(on, &Map::new().into());
            settle(&client, &namespace, &good).await;
            quiet(&operator).await;
            let before = objects(&client, &namespace, "t").await;
            let what = json!({"spec": spec(on, bad)});
            apply(&client, &namespace, "CacheTier", "t", what).await;
            let subject = (namespace.as_str(), "CacheTier", "t");
            let message = crate::world::condition(&client, subject, ("Stalled", "True", "")).await;
            assert!(message.contains(field), "{message}");
            quiet(&operator).await;
            let after = objects(&client, &namespace, "t").await;
            for (name, object) in &before {
                assert_eq!(
                    object.resource_version(),
                    after[name].resource_version(),
                    "{bad}: {name}"
                );
            }
            settle_again(&client, &namespace, &good).await;
            quiet(&operator).await;
            let wanted = comparable(&before, &namespace);
            wait_for_content(&client, (&namespace, "t"), &wanted).await;
        }
    });
    futures_util::future::join_all(all).await;
}

async fn settle_again(client: &Client, namespace: &str, spec: &Value) {
    apply(client, namespace, "CacheTier", "t", json!({"spec": spec})).await;
    let subject = (namespace, "CacheTier", "t");
    crate::world::condition(client, subject, ("Stalled", "False", "")).await;
}
