//! An operator in the test's own process, on a real API server: its writes are counted, and it can
//! be cut off at any of them.

use std::{
    collections::BTreeMap,
    future::{Future, pending},
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use e2e::kubernetes::{Access, ApiServer, eventually_within};
use http::{Method, Request};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use operator::{
    context::Ctx,
    run,
    settings::{Scope, Settings},
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};
use tower::{Layer, Service};

/// Counts writes and lets none through from the `limit`-th on.
#[derive(Clone)]
pub struct Counter {
    writes: Arc<Mutex<Vec<String>>>,
    pub limit: usize,
}

impl Counter {
    pub fn new(limit: usize) -> Self {
        Self {
            writes: Arc::default(),
            limit,
        }
    }

    pub fn count(&self) -> usize {
        self.writes.lock().unwrap().len()
    }

    /// Method and path of the writes after the first so many.
    pub fn since(&self, count: usize) -> Vec<String> {
        self.writes.lock().unwrap()[count..].to_vec()
    }
}

#[derive(Clone)]
pub struct Counted<S> {
    inner: S,
    counter: Counter,
}

impl<S> Layer<S> for Counter {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted {
            inner,
            counter: self.clone(),
        }
    }
}

impl<S> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>>,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // Events are for people and not awaited by anything.
        if request.method() != Method::GET && !request.uri().path().contains("/events") {
            let mut writes = self.counter.writes.lock().unwrap();
            writes.push(format!("{} {}", request.method(), request.uri().path()));
            if writes.len() > self.counter.limit {
                return Box::pin(pending());
            }
        }
        Box::pin(self.inner.call(request))
    }
}

/// A running operator.
pub struct Operator {
    pub ctx: Arc<Ctx>,
    pub counter: Counter,
    pub stopped: mpsc::Receiver<String>,
    task: JoinHandle<()>,
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn settings(installation: &str, namespace: &str) -> Settings {
    Settings {
        namespace: namespace.to_owned(),
        identity: "test".to_owned(),
        installation: installation.to_owned(),
        scope: Scope::Namespaces(vec![namespace.to_owned()]),
        shared: Vec::new(),
        cluster_domain: "cluster.local".to_owned(),
        // On nodes that run containers nothing is waited for: it cannot be pulled, and that is known at once.
        agent_image: "localhost:1/operator:test".to_owned(),
        valkey_image: "valkey:test".to_owned(),
        redis_image: "redis:test".to_owned(),
        webhook: None,
    }
}

impl Operator {
    /// Reconciles one namespace, cut off at the write of that number.
    pub async fn start(access: &Access, namespace: &str, limit: usize) -> Self {
        Self::start_as(access, settings("pannier-operator", namespace), limit).await
    }

    pub async fn start_as(access: &Access, settings: Settings, limit: usize) -> Self {
        let counter = Counter::new(limit);
        let kubeconfig = Kubeconfig::from_yaml(&access.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        let client = operator::client::builder(config)
            .unwrap()
            .with_layer(&counter)
            .build();
        let (stop, stopped) = mpsc::channel(1);
        let ctx = Ctx::new(client, settings, stop);
        let running = ctx.clone();
        let task = tokio::spawn(async move { run::controllers(&running).await });
        Self {
            ctx,
            counter,
            stopped,
            task,
        }
    }

    /// Reconciles that came to their end.
    pub fn reconciles(&self) -> u64 {
        let words = ["CacheTier", "ok"];
        self.ctx.metrics.reconciles.with_label_values(&words).get()
    }
}

// === tiers ===

pub fn resource(kind: &str) -> ApiResource {
    let (group, version, plural) = match kind {
        "CacheTier" => ("pannier.dev", "v1alpha1", "cachetiers"),
        "SessionPolicy" => ("pannier.dev", "v1alpha1", "sessionpolicies"),
        "StatefulSet" => ("apps", "v1", "statefulsets"),
        "NetworkPolicy" => ("networking.k8s.io", "v1", "networkpolicies"),
        "PodDisruptionBudget" => ("policy", "v1", "poddisruptionbudgets"),
        "ConfigMap" => ("", "v1", "configmaps"),
        "Pod" => ("", "v1", "pods"),
        "PersistentVolumeClaim" => ("", "v1", "persistentvolumeclaims"),
        "Lease" => ("coordination.k8s.io", "v1", "leases"),
        "Secret" => ("", "v1", "secrets"),
        "Service" => ("", "v1", "services"),
        "ServiceAccount" => ("", "v1", "serviceaccounts"),
        other => panic!("{other}"),
    };
    ApiResource::from_gvk_with_plural(
        &kube::core::GroupVersionKind::gvk(group, version, kind),
        plural,
    )
}

pub fn api(client: &Client, kind: &str, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource(kind))
}

/// Applies a resource as a person would.
pub async fn apply(client: &Client, namespace: &str, kind: &str, name: &str, rest: Value) {
    let resource = resource(kind);
    let mut object = rest;
    object["apiVersion"] = resource.api_version.clone().into();
    object["kind"] = kind.into();
    object["metadata"]["name"] = name.into();
    let params = PatchParams::apply("person").force();
    api(client, kind, namespace)
        .patch(name, &params, &Patch::Apply(&object))
        .await
        .unwrap();
}

pub async fn tier(client: &Client, namespace: &str, name: &str, redis: Value) {
    apply(
        client,
        namespace,
        "CacheTier",
        name,
        json!({"spec": {"environment": "Test", "redis": redis}}),
    )
    .await;
}

/// Waits for a condition of a resource; gives its message.
pub async fn condition(
    client: &Client,
    (namespace, kind, name): (&str, &str, &str),
    (type_, status, reason): (&str, &str, &str),
) -> String {
    let what = format!("{kind} {namespace}/{name}: {type_} {status} {reason}");
    let api = api(client, kind, namespace);
    eventually_within(Duration::from_mins(1), &what, || async {
        let object = api.get(name).await.unwrap();
        let conditions = object.data["status"]["conditions"].as_array()?.clone();
        let found = conditions
            .into_iter()
            .find(|condition| condition["type"] == type_)?;
        let fits = found["status"] == status && (reason.is_empty() || found["reason"] == reason);
        fits.then(|| found["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

pub const KINDS: [&str; 7] = [
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "NetworkPolicy",
    "Service",
    "PodDisruptionBudget",
    "StatefulSet",
];

/// `Kind/name` of everything that belongs to a tier, with its content.
pub async fn objects(
    client: &Client,
    namespace: &str,
    tier: &str,
) -> BTreeMap<String, DynamicObject> {
    let selector = ListParams::default().labels(&format!("pannier.dev/tier={tier}"));
    let mut found = BTreeMap::new();
    for kind in KINDS {
        for object in api(client, kind, namespace).list(&selector).await.unwrap() {
            let name = object.metadata.name.clone().unwrap();
            found.insert(format!("{kind}/{name}"), object);
        }
    }
    found
}

pub async fn wait_for_objects(
    client: &Client,
    namespace: &str,
    tier: &str,
    wanted: &[&str],
) -> BTreeMap<String, DynamicObject> {
    let what = format!("{namespace}/{tier} has {wanted:?}");
    eventually_within(Duration::from_mins(1), &what, || async {
        let found = objects(client, namespace, tier).await;
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        (names == wanted).then_some(found)
    })
    .await
}

/// What an object says, without what the API server and controllers add.
pub fn content(object: &DynamicObject) -> Value {
    let mut content = object.data.clone();
    let fields = content.as_object_mut().unwrap();
    fields.remove("status");
    content["annotations"] = json!(object.metadata.annotations);
    content["labels"] = json!(object.metadata.labels);
    content
}

/// What a tier's objects say, comparable between namespaces and between a tier that is new and one
/// that was changed: without what the API server chooses, passwords, UIDs and generations.
pub fn comparable(
    found: &BTreeMap<String, DynamicObject>,
    namespace: &str,
) -> BTreeMap<String, String> {
    let strip = |(name, object): (&String, &DynamicObject)| {
        let mut content = content(object);
        if name.starts_with("Secret/") {
            let keys: Vec<&String> = content["data"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, _)| key)
                // A password that was replaced is kept beside the new one until every server says
                // that it has that; there are no servers here.
                .filter(|key| !key.ends_with(".previous"))
                .collect();
            content = json!({"keys": keys});
        }
        for field in ["clusterIP", "clusterIPs"] {
            if content["spec"][field] != json!("None") && content["spec"].is_object() {
                content["spec"].as_object_mut().unwrap().remove(field);
            }
        }
        if let Some(annotations) = content["annotations"].as_object_mut() {
            // A hash over the object, its namespace too.
            annotations.remove("pannier.dev/applied");
        }
        let owner = object.metadata.owner_references.iter().flatten().next();
        let uid = owner.map_or("no owner", |owner| owner.uid.as_str());
        let text = content
            .to_string()
            .replace(namespace, "NS")
            .replace(uid, "UID");
        let generation = text.split("generation: ").nth(1).map(|rest| {
            rest.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
        });
        let text = match generation {
            Some(number) => text.replace(&format!("generation: {number}"), "generation: N"),
            None => text,
        };
        (name.clone(), text)
    };
    found.iter().map(strip).collect()
}

/// Waits until the tier has exactly the objects of `wanted`, saying the same.
pub async fn wait_for_content(
    client: &Client,
    (namespace, tier): (&str, &str),
    wanted: &BTreeMap<String, String>,
) {
    let deadline = std::time::Instant::now() + Duration::from_mins(2);
    loop {
        let found = comparable(&objects(client, namespace, tier).await, namespace);
        if found == *wanted {
            return;
        }
        if std::time::Instant::now() > deadline {
            assert_eq!(found, *wanted, "{namespace}/{tier}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until nothing was written for two seconds.
pub async fn quiet(operator: &Operator) {
    let mut last = (operator.counter.count(), std::time::Instant::now());
    eventually_within(
        Duration::from_mins(2),
        "nothing is written any longer",
        || {
            let count = operator.counter.count();
            if count != last.0 {
                last = (count, std::time::Instant::now());
            }
            std::future::ready((last.1.elapsed() > Duration::from_secs(2)).then_some(()))
        },
    )
    .await;
}

/// Applies the manifests of a file.
pub fn kubectl_apply(plane: &ApiServer, file: &Path) {
    let done = plane
        .kubectl()
        .args(["apply", "-f"])
        .arg(file)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
}
