//! A webhook in the test's own process, reached by the API server at an address of 127.0.0.1. Each
//! test has a namespace, and a configuration that concerns this one only.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use e2e::kubernetes::{Access, ControlPlane, eventually_within, new_namespace};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    core::v1::{Namespace, Pod, Secret},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use operator::{
    context::Ctx,
    settings::{Scope, Settings, UnknownTier, Webhook},
    webhook::{self, Running, rotation::Timing},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// What tests wait for without a promise about time.
pub const SLOW: Duration = Duration::from_mins(2);

/// One replica of the operator, as far as the webhook is concerned.
pub struct Replica {
    pub ctx: Arc<Ctx>,
    pub running: Running,
    _stopped: mpsc::Receiver<String>,
}

/// A namespace with a webhook.
pub struct World {
    pub client: Client,
    pub namespace: String,
    pub replicas: Vec<Replica>,
}

/// Quick enough for a test, slow enough for a busy machine.
pub fn quick() -> Timing {
    Timing {
        look: Duration::from_millis(200),
        settle: Duration::from_secs(2),
        ..Timing::default()
    }
}

impl World {
    /// With one replica, which leads.
    pub async fn start(plane: &ControlPlane, unknown_tier: UnknownTier) -> Self {
        Self::start_with(plane, unknown_tier, 1, quick()).await
    }

    /// The first replica leads. The configuration leads labelled namespaces to the first one and
    /// labelled pods to the last one.
    pub async fn start_with(
        plane: &ControlPlane,
        unknown_tier: UnknownTier,
        replicas: usize,
        timing: Timing,
    ) -> Self {
        let client = plane.client().await;
        let namespace = new_namespace(&client, "inject").await;
        let mut world = Self {
            client,
            namespace,
            replicas: Vec::new(),
        };
        for number in 0..replicas {
            let replica = world.replica(number, unknown_tier, timing).await;
            world.replicas.push(replica);
        }
        world.configure(&world.urls()).await;
        for replica in &world.replicas {
            eventually_within(SLOW, "the replica is ready", || async {
                replica.ctx.readiness.missing().is_empty().then_some(())
            })
            .await;
        }
        world
            .tier("shop", json!({"redis": {"topology": "None"}}))
            .await;
        world
    }

    async fn replica(&self, number: usize, unknown_tier: UnknownTier, timing: Timing) -> Replica {
        let webhook = Webhook {
            listen: "127.0.0.1:0".parse().unwrap(),
            service: "hook".to_owned(),
            configuration: self.namespace.clone(),
            sidecar_image: "sidecar:test".to_owned(),
            unknown_tier,
        };
        let settings = Settings {
            // Where the Secret is.
            namespace: self.namespace.clone(),
            identity: format!("replica-{number}"),
            installation: "pannier-operator".to_owned(),
            scope: Scope::Namespaces(vec![self.namespace.clone()]),
            shared: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            agent_image: "operator:test".to_owned(),
            valkey_image: "valkey:test".to_owned(),
            redis_image: "redis:test".to_owned(),
            webhook: Some(webhook.clone()),
        };
        let (stop, stopped) = mpsc::channel(1);
        let ctx = Ctx::new(self.client.clone(), settings, stop);
        ctx.metrics.leader.set(i64::from(number == 0));
        let running = webhook::start(&ctx, &webhook, timing).await.unwrap();
        Replica {
            ctx,
            running,
            _stopped: stopped,
        }
    }

    fn urls(&self) -> [String; 2] {
        let url = |replica: &Replica| format!("https://{}/inject", replica.running.address);
        let ends = [self.replicas.first(), self.replicas.last()];
        ends.map(|replica| url(replica.unwrap()))
    }

    /// Writes the configuration: the address for labelled namespaces, that for labelled pods.
    pub async fn configure(&self, urls: &[String; 2]) {
        let here = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": [self.namespace]});
        let inject = |operator: &str| json!({"key": "pannier.dev/inject", "operator": operator});
        let enabled =
            json!({"key": "pannier.dev/inject", "operator": "NotIn", "values": ["disabled"]});
        let entry = |name: &str, url: &str, namespace: Value, object: Value| {
            json!({
                "name": format!("{name}.inject.pannier.dev"),
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": url},
                "failurePolicy": "Ignore",
                "matchPolicy": "Equivalent",
                "reinvocationPolicy": "IfNeeded",
                "sideEffects": "NoneOnDryRun",
                "timeoutSeconds": 5,
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
                "namespaceSelector": {"matchExpressions": namespace},
                "objectSelector": {"matchExpressions": object},
            })
        };
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": self.namespace},
            "webhooks": [
                entry("namespaces", &urls[0], json!([here, inject("Exists"), enabled]), json!([inject("DoesNotExist")])),
                entry("pods", &urls[1], json!([here]), json!([inject("Exists"), enabled])),
            ],
        });
        self.configurations()
            .patch(
                &self.namespace,
                &PatchParams::apply("person").force(),
                &Patch::Apply(&configuration),
            )
            .await
            .unwrap();
    }

    pub fn configurations(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.client.clone())
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn tier(&self, name: &str, spec: Value) {
        self.apply(
            "cachetiers",
            "pannier.dev/v1alpha1",
            "CacheTier",
            name,
            json!({"spec": spec}),
        )
        .await;
    }

    pub async fn apply(&self, plural: &str, version: &str, kind: &str, name: &str, rest: Value) {
        let (group, short) = version.split_once('/').unwrap_or(("", version));
        let gvk = kube::core::GroupVersionKind::gvk(group, short, kind);
        let resource = kube::api::ApiResource::from_gvk_with_plural(&gvk, plural);
        let api: Api<kube::api::DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let mut object = rest;
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
        object["metadata"]["name"] = name.into();
        let params = PatchParams::apply("person").force();
        api.patch(name, &params, &Patch::Apply(&object))
            .await
            .unwrap();
    }

    pub async fn label_namespace(&self, labels: Value) {
        self.label(&self.namespace, labels).await;
    }

    /// The same for another namespace.
    pub async fn label(&self, namespace: &str, labels: Value) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        api.patch(namespace, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Creates a pod, for good or only in appearance.
    pub async fn create(&self, pod: &Value, dry_run: bool) -> kube::Result<Pod> {
        let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
        let params = PostParams {
            dry_run,
            ..PostParams::default()
        };
        self.pods().create(&params, &pod).await
    }

    /// Waits until the API server sends pods to the webhook: it takes a moment to learn of one.
    pub async fn serves(&self) {
        eventually_within(SLOW, "a pod is injected", || async {
            let pod = self.create(&labelled("probe"), true).await.unwrap();
            is_injected(&pod).then_some(())
        })
        .await;
    }

    /// The Secret with the certificate.
    pub async fn secret(&self) -> Secret {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        api.get("pannier-operator-webhook").await.unwrap()
    }

    /// Notes of the events about an object, by reason.
    pub async fn events(&self, kind: &str, name: &str) -> BTreeMap<String, Vec<String>> {
        let api: Api<k8s_openapi::api::events::v1::Event> =
            Api::namespaced(self.client.clone(), &self.namespace);
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for event in api.list(&kube::api::ListParams::default()).await.unwrap() {
            let about = event.regarding.unwrap_or_default();
            if (about.kind.as_deref(), about.name.as_deref()) == (Some(kind), Some(name)) {
                let notes = found.entry(event.reason.unwrap_or_default()).or_default();
                notes.push(event.note.unwrap_or_default());
            }
        }
        found
    }

    pub async fn event(&self, kind: &str, name: &str, reason: &str) -> String {
        let what = format!("event {reason} about {kind} {name}");
        eventually_within(SLOW, &what, || async {
            let found = self.events(kind, name).await;
            found.get(reason).and_then(|notes| notes.first()).cloned()
        })
        .await
    }

    /// Removes the configuration: the API server is shared.
    pub async fn end(self) {
        let params = DeleteParams::default();
        self.configurations()
            .delete(&self.namespace, &params)
            .await
            .unwrap();
    }
}

pub fn pod(name: &str, labels: &Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    })
}

pub fn labelled(name: &str) -> Value {
    pod(name, &json!({"pannier.dev/inject": "shop"}))
}

/// Whether a pod has exactly one sidecar, as it should be.
pub fn is_injected(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref().unwrap();
    let init = spec.init_containers.iter().flatten();
    let ours: Vec<_> = init.filter(|one| one.name == "pannier-sidecar").collect();
    assert!(ours.len() < 2, "{ours:?}");
    ours.first()
        .is_some_and(|one| one.restart_policy.as_deref() == Some("Always"))
}

pub fn env<'a>(pod: &'a Pod, container: &str, name: &str) -> Option<&'a str> {
    let spec = pod.spec.as_ref()?;
    let container = spec.containers.iter().find(|one| one.name == container)?;
    let variable = container
        .env
        .iter()
        .flatten()
        .find(|one| one.name == name)?;
    variable.value.as_deref()
}

/// Sends bytes to the webhook as the API server does; status and body of the answer.
pub async fn post(world: &World, path: &str, body: Vec<u8>) -> kube::Result<(u16, String)> {
    let secret = world.secret().await;
    let authority = secret.data.unwrap()["ca.crt"].0.clone();
    let file: PathBuf = std::env::temp_dir().join(format!("{}-ca.pem", world.namespace));
    std::fs::write(&file, authority).unwrap();
    let address = world.replicas[0].running.address;
    let access = Access {
        address: format!("https://{address}"),
        authority: file,
        token: "none".to_owned(),
    };
    let client = access.client().await;
    let request = http::Request::post(path)
        .body(kube::client::Body::from(body))
        .unwrap();
    let answer = client.send(request).await?;
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect_bytes().await?;
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}

/// The share of the slowest that is told: the 99th of a hundred.
pub fn p99(mut spans: Vec<Duration>) -> Duration {
    spans.sort_unstable();
    spans[spans.len() * 99 / 100]
}

/// Waits until a moment.
pub async fn until(moment: Instant) {
    tokio::time::sleep_until(moment.into()).await;
}
