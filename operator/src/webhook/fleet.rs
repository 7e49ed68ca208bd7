//! Tells running sidecars that their configuration has changed: an annotation on the pod makes the
//! kubelet look at its volumes at once, instead of within a minute and a half.
//!
//! It is written through the pod's status: that right cannot change what a pod runs. The files are
//! in the pod's own namespace, so nothing has to be known of the tier.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Pod, Secret},
};
use kube::{
    Api, Resource,
    api::{ObjectMeta, PartialObjectMeta, Patch, PatchParams},
};
use kube_runtime::{WatchStreamExt as _, watcher};
use policy::names;
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};

use crate::{context::Ctx, settings::Scope};

/// Pods that are told at a time.
const AT_A_TIME: usize = 16;
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a pod could not be told.
const RETRY: Duration = Duration::from_secs(1);

/// Namespace of the pods, name of the tier.
type Key = (String, String);

/// What a watch has seen.
#[derive(Debug)]
enum Seen {
    /// A file of a tier's sidecars: which, and its version; none when it is gone.
    File(Key, String, Option<String>),
    /// A pod with a sidecar; none when it is gone.
    Pod(Key, String, Option<Sidecar>),
    /// Objects of a kind are listed anew, in one namespace or in all: those that do not come again
    /// are gone.
    Anew(String, Option<String>),
}

/// A pod with a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sidecar {
    uid: String,
    /// The version that it was told of last.
    told: Option<String>,
}

/// A pod that has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Order {
    namespace: String,
    pod: String,
    uid: String,
    version: String,
}

/// What is known.
#[derive(Debug, Default)]
struct Fleet {
    files: BTreeMap<Key, BTreeMap<String, String>>,
    pods: BTreeMap<Key, BTreeMap<String, Sidecar>>,
}

// === impl Fleet ===

impl Fleet {
    /// Takes in what was seen; whose pods may have to be told.
    fn see(&mut self, seen: Seen) -> Option<Key> {
        match seen {
            Seen::File(key, file, Some(version)) => {
                let files = self.files.entry(key.clone()).or_default();
                files.insert(file, version);
                Some(key)
            }
            Seen::File(key, file, None) => {
                let files = self.files.get_mut(&key)?;
                files.remove(&file);
                if files.is_empty() {
                    self.files.remove(&key);
                }
                Some(key)
            }
            Seen::Pod(key, pod, Some(sidecar)) => {
                let pods = self.pods.entry(key.clone()).or_default();
                pods.insert(pod, sidecar);
                Some(key)
            }
            Seen::Pod(key, pod, None) => {
                let pods = self.pods.get_mut(&key)?;
                pods.remove(&pod);
                if pods.is_empty() {
                    self.pods.remove(&key);
                }
                None
            }
            Seen::Anew(kind, place) => {
                // Each namespace has a watch of its own; those of the others list nothing again.
                let stays =
                    |(namespace, _): &Key| place.as_ref().is_some_and(|one| one != namespace);
                if kind == "Pod" {
                    self.pods.retain(|key, _| stays(key));
                } else {
                    self.files.retain(|key, files| {
                        if !stays(key) {
                            files.remove(&kind);
                        }
                        !files.is_empty()
                    });
                }
                None
            }
        }
    }

    /// The pods that have not been told of the files as they are.
    fn behind(&self, key: &Key) -> Vec<Order> {
        let Some(files) = self.files.get(key) else {
            return Vec::new();
        };
        let versions: Vec<&str> = files.values().map(String::as_str).collect();
        let version = versions.join("-");
        let pods = self.pods.get(key).into_iter().flatten();
        pods.filter(|(_, sidecar)| sidecar.told.as_ref() != Some(&version))
            .map(|(pod, sidecar)| Order {
                namespace: key.0.clone(),
                pod: pod.clone(),
                uid: sidecar.uid.clone(),
                version: version.clone(),
            })
            .collect()
    }

    fn told(&mut self, key: &Key, order: &Order) {
        let pods = self.pods.get_mut(key);
        if let Some(pod) = pods.and_then(|pods| pods.get_mut(&order.pod))
            && pod.uid == order.uid
        {
            pod.told = Some(order.version.clone());
        }
    }
}

/// Follows files and pods for as long as it is polled.
pub async fn follow(ctx: &Arc<Ctx>) {
    let (sender, seen) = mpsc::channel(1024);
    let watches: Vec<BoxFuture<'static, ()>> = match &ctx.settings.places_of_pods() {
        Scope::Cluster => watches(ctx, None, &sender).into(),
        Scope::Namespaces(names) => names
            .iter()
            .flat_map(|name| watches(ctx, Some(name), &sender))
            .collect(),
    };
    drop(sender);
    futures_util::future::join(futures_util::future::join_all(watches), tell(ctx, seen)).await;
}

async fn tell(ctx: &Ctx, mut seen: mpsc::Receiver<Seen>) {
    let mut fleet = Fleet::default();
    let mut due: BTreeSet<Key> = BTreeSet::new();
    loop {
        let next = if due.is_empty() {
            seen.recv().await
        } else {
            // What could not be told is tried again, news or not.
            match timeout(RETRY, seen.recv()).await {
                Ok(next) => next,
                Err(_) => Some(Seen::Pod(Key::default(), String::new(), None)),
            }
        };
        let Some(next) = next else { return };
        due.extend(fleet.see(next));
        while let Ok(more) = seen.try_recv() {
            due.extend(fleet.see(more));
        }
        let mut again = BTreeSet::new();
        for key in std::mem::take(&mut due) {
            let orders = stream::iter(fleet.behind(&key));
            let done: Vec<(Order, bool)> = orders
                .map(|order| async {
                    let done = write(ctx, &order).await;
                    (order, done)
                })
                .buffer_unordered(AT_A_TIME)
                .collect()
                .await;
            for (order, done) in done {
                if done {
                    fleet.told(&key, &order);
                } else {
                    again.insert(key.clone());
                }
            }
        }
        due = again;
    }
}

/// Writes the annotation. Whether there is nothing more to do.
async fn write(ctx: &Ctx, order: &Order) -> bool {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &order.namespace);
    // Another pod may have taken the name: then the API server refuses.
    let patch = Patch::Merge(json!({"metadata": {
        "uid": order.uid,
        "annotations": {names::CONFIG_GENERATION: order.version},
    }}));
    let params = PatchParams::default();
    let patched = timeout(PATIENCE, api.patch_status(&order.pod, &params, &patch)).await;
    let Order { namespace, pod, .. } = order;
    match patched {
        Ok(Ok(_)) => {
            ctx.metrics.writes.with_label_values(&["pod"]).inc();
            true
        }
        Ok(Err(kube::Error::Api(status))) if [404, 409, 422].contains(&status.code) => true,
        Ok(Err(error)) => {
            tracing::warn!(namespace, pod, %error, "failed to tell a pod that its configuration changed");
            false
        }
        Err(_) => {
            tracing::warn!(
                namespace,
                pod,
                "failed to tell a pod that its configuration changed: no answer in time"
            );
            false
        }
    }
}

// === watches ===

fn watches(
    ctx: &Ctx,
    namespace: Option<&str>,
    seen: &mpsc::Sender<Seen>,
) -> [BoxFuture<'static, ()>; 3] {
    let files = watcher::Config::default().labels(&format!(
        "{},app.kubernetes.io/component=sidecar-config",
        names::TIER
    ));
    let pods = watcher::Config::default()
        .labels(names::INJECTED)
        .fields("status.phase!=Succeeded,status.phase!=Failed");
    [
        watch::<ConfigMap>(ctx, namespace, files.clone(), seen, file),
        watch::<Secret>(ctx, namespace, files, seen, file),
        watch::<Pod>(ctx, namespace, pods, seen, pod),
    ]
}

/// Sends what a watch sees.
fn watch<K>(
    ctx: &Ctx,
    namespace: Option<&str>,
    config: watcher::Config,
    seen: &mpsc::Sender<Seen>,
    read: fn(&str, &ObjectMeta, bool) -> Option<Seen>,
) -> BoxFuture<'static, ()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let api: Api<PartialObjectMeta<K>> = match namespace {
        None => Api::all(ctx.client.clone()),
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
    };
    let place = namespace.map(ToOwned::to_owned);
    let seen = seen.clone();
    let events = watcher(api, config.any_semantic()).default_backoff();
    events
        .for_each(move |event| {
            let kind = K::kind(&());
            let read = |object: &PartialObjectMeta<K>, there| read(&kind, &object.metadata, there);
            let news = match event {
                Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                    read(&object, true)
                }
                Ok(watcher::Event::Delete(object)) => read(&object, false),
                Ok(watcher::Event::Init) => Some(Seen::Anew(kind.into_owned(), place.clone())),
                Ok(watcher::Event::InitDone) => None,
                Err(error) => {
                    tracing::warn!(%kind, %error, "failed to watch");
                    None
                }
            };
            let seen = seen.clone();
            async move {
                if let Some(news) = news {
                    // It is closed only when nobody follows any longer.
                    let _ = seen.send(news).await;
                }
            }
        })
        .boxed()
}

fn file(kind: &str, meta: &ObjectMeta, there: bool) -> Option<Seen> {
    let tier = meta.labels.as_ref()?.get(names::TIER)?.clone();
    let key = (meta.namespace.clone()?, tier);
    let version = meta.resource_version.clone().filter(|_| there);
    Some(Seen::File(key, kind.to_owned(), version))
}

fn pod(_: &str, meta: &ObjectMeta, there: bool) -> Option<Seen> {
    let tier = meta.labels.as_ref()?.get(names::INJECTED)?.clone();
    let key = (meta.namespace.clone()?, tier);
    let told = |annotations: &BTreeMap<_, _>| annotations.get(names::CONFIG_GENERATION).cloned();
    let going = meta.deletion_timestamp.is_some();
    let sidecar = Sidecar {
        uid: meta.uid.clone()?,
        told: meta.annotations.as_ref().and_then(told),
    };
    let sidecar = (there && !going).then_some(sidecar);
    Some(Seen::Pod(key, meta.name.clone()?, sidecar))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        ("app".to_owned(), "t".to_owned())
    }

    fn file(kind: &str, version: &str) -> Seen {
        Seen::File(key(), kind.to_owned(), Some(version.to_owned()))
    }

    fn pod(name: &str, told: Option<&str>) -> Seen {
        let sidecar = Sidecar {
            uid: format!("{name}-uid"),
            told: told.map(ToOwned::to_owned),
        };
        Seen::Pod(key(), name.to_owned(), Some(sidecar))
    }

    #[test]
    fn only_pods_that_are_behind_are_told_and_each_once() {
        let mut fleet = Fleet::default();
        let versions = |fleet: &Fleet| -> Vec<(String, String)> {
            let orders = fleet.behind(&key()).into_iter();
            orders.map(|order| (order.pod, order.version)).collect()
        };
        let one = |pod: &str, version: &str| (pod.to_owned(), version.to_owned());
        fleet.see(pod("a", None));
        assert_eq!(versions(&fleet), [], "there is nothing to look at yet");
        fleet.see(file("ConfigMap", "5"));
        assert_eq!(versions(&fleet), [one("a", "5")]);
        fleet.see(file("Secret", "7"));
        fleet.see(pod("b", Some("5-7")));
        assert_eq!(versions(&fleet), [one("a", "5-7")]);
        for order in fleet.behind(&key()) {
            fleet.told(&key(), &order);
        }
        assert_eq!(versions(&fleet), []);
        fleet.see(file("Secret", "8"));
        assert_eq!(versions(&fleet), [one("a", "5-8"), one("b", "5-8")]);
        fleet.see(Seen::Pod(key(), "a".to_owned(), None));
        assert_eq!(versions(&fleet), [one("b", "5-8")]);
        fleet.see(Seen::Anew("Pod".to_owned(), Some("other".to_owned())));
        assert_eq!(versions(&fleet), [one("b", "5-8")], "its watch goes on");
        fleet.see(Seen::Anew("Pod".to_owned(), None));
        assert_eq!(versions(&fleet), []);
        fleet.see(pod("c", None));
        fleet.see(Seen::Anew("Secret".to_owned(), Some("other".to_owned())));
        assert_eq!(versions(&fleet), [one("c", "5-8")]);
        fleet.see(Seen::Anew("Secret".to_owned(), Some("app".to_owned())));
        assert_eq!(versions(&fleet), [one("c", "5")]);
        fleet.see(Seen::File(key(), "ConfigMap".to_owned(), None));
        assert_eq!(versions(&fleet), []);
        assert!(fleet.files.is_empty());
    }
}
