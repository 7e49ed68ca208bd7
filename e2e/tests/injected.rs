//! An injected pod on real nodes: the operator runs in the cluster, its webhook behind a Service.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic is the report; clippy.toml covers only functions marked #[test]"
)]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use e2e::{
    Engine,
    environment::available,
    http,
    kubernetes::{Cluster, eventually_within, new_namespace},
    shard, sidecar,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

const SLOW: Duration = Duration::from_mins(3);
const OPERATOR: &str = "localhost/operator-under-test:dev";
const SIDECAR: &str = "localhost/sidecar-under-test:dev";

async fn apply(client: &Client, namespace: &str, plural: &str, mut object: Value) {
    let version = object["apiVersion"].as_str().unwrap().to_owned();
    let (group, short) = version.split_once('/').unwrap_or(("", &version));
    let kind = object["kind"].as_str().unwrap().to_owned();
    let gvk = kube::core::GroupVersionKind::gvk(group, short, &kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
    let api: Api<DynamicObject> = if namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        object["metadata"]["namespace"] = namespace.into();
        Api::namespaced_with(client.clone(), namespace, &resource)
    };
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let params = PatchParams::apply("person").force();
    api.patch(&name, &params, &Patch::Apply(&object))
        .await
        .unwrap();
}

/// The operator with its webhook, for one namespace of apps.
async fn install(client: &Client, system: &str, apps: &str) {
    let subject = json!([{"kind": "ServiceAccount", "name": "default", "namespace": system}]);
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"});
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": system}, "subjects": subject, "roleRef": role,
    });
    apply(client, "", "clusterrolebindings", binding).await;
    let entry = json!({
        "name": "pods.inject.pannier.dev",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "hook", "namespace": system, "path": "/inject", "port": 443}},
        "failurePolicy": "Ignore", "sideEffects": "NoneOnDryRun", "timeoutSeconds": 5,
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": apps}},
    });
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": system}, "webhooks": [entry],
    });
    apply(client, "", "mutatingwebhookconfigurations", configuration).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
        "spec": {"selector": {"app": "operator"}, "ports": [{"port": 443, "targetPort": 8443}]},
    });
    apply(client, system, "services", service).await;
    let args = [
        "run".to_owned(),
        format!("--namespace={system}"),
        format!("--watch-namespace={apps}"),
        "--webhook-listen=0.0.0.0:8443".to_owned(),
        "--webhook-service=hook".to_owned(),
        format!("--webhook-configuration={system}"),
        format!("--sidecar-image={SIDECAR}"),
    ];
    let probe = json!({"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "operator", "labels": {"app": "operator"}},
        "spec": {"containers": [{
            "name": "operator", "image": OPERATOR, "imagePullPolicy": "Never",
            "args": args, "readinessProbe": probe,
        }]},
    });
    apply(client, system, "pods", pod).await;
}

async fn ready(client: &Client, namespace: &str, name: &str) -> Pod {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    eventually_within(SLOW, &format!("{namespace}/{name} is ready"), || async {
        let pod = pods.get_opt(name).await.unwrap()?;
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        let ready = |one: &k8s_openapi::api::core::v1::PodCondition| {
            one.type_ == "Ready" && one.status == "True"
        };
        conditions.iter().any(ready).then_some(pod)
    })
    .await
}

async fn tier(client: &Client, namespace: &str, rules: Value) {
    let tier = json!({
        "apiVersion": "pannier.dev/v1alpha1", "kind": "CacheTier", "metadata": {"name": "shop"},
        "spec": {"redis": {"topology": "None"}, "rules": rules},
    });
    apply(client, namespace, "cachetiers", tier).await;
}

#[tokio::test]
async fn an_injected_app_has_its_cache_from_the_start_and_a_change_reaches_it_in_seconds() {
    let test = "an_injected_app_has_its_cache_from_the_start_and_a_change_reaches_it_in_seconds";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _quiet = cluster.undisturbed().await;
    cluster.load_program(OPERATOR, shard::program());
    cluster.load_program(SIDECAR, sidecar::program());
    let image = cluster.load_engine(Engine::Redis7);
    let client = cluster.client().await;
    let system = new_namespace(&client, "system").await;
    let apps = new_namespace(&client, "apps").await;
    install(&client, &system, &apps).await;
    ready(&client, &system, "operator").await;

    // The pod is there before its tier's configuration: it waits, and is never without rules.
    let rule = |ttl: &str| json!([{"name": "a", "match": "a:{id}", "ttl": ttl}]);
    tier(&client, &apps, rule("1m")).await;
    let app = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "app", "labels": {"pannier.dev/inject": "shop"}},
        "spec": {"containers": [{
            "name": "app", "image": image, "imagePullPolicy": "Never",
            "command": ["redis-cli", "-h", "localhost", "-r", "-1", "-i", "1", "PING"],
        }]},
    });
    apply(&client, &apps, "pods", app).await;
    let app = ready(&client, &apps, "app").await;
    assert_eq!(app.labels()["pannier.dev/injected"], "shop");
    let log = eventually_within(SLOW, "the app has its answer", || async {
        let log = cluster.logs(&apps, "app", "app");
        log.contains("PONG").then_some(log)
    })
    .await;
    assert!(
        log.starts_with("PONG"),
        "the first command was refused: {log}"
    );

    let ip = app.status.as_ref().unwrap().pod_ip.clone().unwrap();
    let admin = cluster.forward(SocketAddr::new(ip.parse().unwrap(), 9464));
    let generation = || {
        let state = http::get(admin.address(), "/state").unwrap().json();
        state["generation"]
            .as_u64()
            .unwrap_or_else(|| panic!("no generation in {state:#}"))
    };
    assert_eq!(generation(), 1);
    let mut spans = Vec::new();
    for round in 2..=6 {
        let changed = Instant::now();
        tier(&client, &apps, rule(&format!("{round}m"))).await;
        eventually_within(SLOW, "the sidecar runs the new rules", || async {
            (generation() == round).then_some(())
        })
        .await;
        spans.push(changed.elapsed());
    }
    println!("from a changed tier to rules in force in a running sidecar: {spans:?}");
    let restarts = ready(&client, &apps, "app").await.status.unwrap();
    let sidecars = restarts.init_container_statuses.unwrap();
    assert_eq!(sidecars[0].restart_count, 0);
}
