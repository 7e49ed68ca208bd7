//! The tier under test: applied as a person would, watched as a person would.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
};
use policy::names::{REDIS_PORT, SENTINEL_PORT};
use serde_json::{Value as Json, json};

use super::Live;
use crate::{
    Wire,
    environment::unusable,
    kubernetes::{Cluster, eventually_within},
};

/// Its name.
pub const TIER: &str = "t";
/// Longest time for anything that is not measured.
pub const SLOW: Duration = Duration::from_mins(3);

/// A tier.
#[derive(Clone)]
pub struct Tier {
    /// Where it runs.
    pub cluster: &'static Cluster,
    /// The administrator.
    pub client: Client,
    /// Its namespace.
    pub namespace: String,
}

/// UID and restarts of each pod of a tier at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change(BTreeMap<String, (String, i32)>);

impl Live {
    /// Applies the tier; `redis` is its `spec.redis`.
    pub async fn apply(&self, redis: Json) -> Tier {
        let tier = Tier {
            cluster: self.cluster,
            client: self.client.clone(),
            namespace: self.namespace.clone(),
        };
        tier.apply(redis).await;
        tier
    }
}

impl Tier {
    /// The same with a client of the running runtime.
    pub(super) async fn here(&self) -> Self {
        Self {
            client: self.cluster.client().await,
            ..self.clone()
        }
    }

    /// Tiers of its namespace.
    pub fn api(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("pannier.dev", "v1alpha1", "CacheTier");
        let resource = ApiResource::from_gvk_with_plural(&kind, "cachetiers");
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// Applies another spec.
    pub async fn apply(&self, redis: Json) {
        let object = json!({
            "apiVersion": "pannier.dev/v1alpha1",
            "kind": "CacheTier",
            "metadata": {"name": TIER},
            "spec": {"environment": "Production", "redis": redis},
        });
        let params = PatchParams::apply("person").force();
        self.api()
            .patch(TIER, &params, &Patch::Apply(&object))
            .await
            .unwrap_or_else(|error| unusable(&format!("the tier is not accepted: {error}")));
    }

    /// Sets an annotation of the tier.
    pub async fn annotate(&self, name: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {name: value}}});
        self.api()
            .patch(TIER, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap_or_else(|error| unusable(&format!("the annotation is refused: {error}")));
    }

    // === what it says ===

    /// A condition: status, reason and message; none, if it does not speak of the present spec.
    pub async fn condition(&self, name: &str) -> Option<(String, String, String)> {
        let object = self.api().get(TIER).await.ok()?;
        let status = &object.data["status"];
        if status["observedGeneration"].as_i64() != object.metadata.generation {
            return None;
        }
        let conditions = status["conditions"].as_array()?.iter();
        let found = conditions.into_iter().find(|one| one["type"] == name)?;
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Some((text("status"), text("reason"), text("message")))
    }

    /// Waits until a condition has that status and, if given, that reason; gives its message.
    pub async fn until(&self, name: &str, status: &str, reason: &str) -> String {
        let what = format!("{}: {name} {status} {reason}", self.namespace);
        let mut seen = None;
        let deadline = Instant::now() + SLOW;
        while Instant::now() < deadline {
            seen = self.condition(name).await;
            if let Some((is, why, message)) = &seen
                && is == status
                && (reason.is_empty() || why == reason)
            {
                return message.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let status = self
            .api()
            .get(TIER)
            .await
            .map(|tier| tier.data["status"].clone());
        unusable(&format!(
            "waited in vain: {what}; it is {seen:?}; {status:#?}"
        ))
    }

    /// Waits until all is as the tier says, and the tier says so (I4); gives the time that took.
    pub async fn until_ready(&self) -> Duration {
        let began = Instant::now();
        let whole = |pod: &Pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none();
        eventually_within(SLOW, "every pod is ready", || async {
            let pods = [self.servers().await, self.sentinels().await].concat();
            pods.iter().all(whole).then_some(())
        })
        .await;
        self.primary().await;
        self.until("Ready", "True", "Serving").await;
        self.until("Reconciling", "False", "").await;
        began.elapsed()
    }

    /// Waits until it has so many servers.
    pub async fn until_servers(&self, count: usize) {
        eventually_within(SLOW, &format!("there are {count} servers"), || async {
            (self.servers().await.len() == count).then_some(())
        })
        .await;
    }

    /// A field of its status.
    pub async fn status(&self) -> Json {
        let object = self.api().get(TIER).await;
        object.map_or(Json::Null, |object| object.data["status"].clone())
    }

    // === its pods ===

    /// Pods of its namespace.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn of(&self, component: &str) -> Vec<Pod> {
        let selector = format!("pannier.dev/tier={TIER},app.kubernetes.io/component={component}");
        let listed = self
            .pods()
            .list(&ListParams::default().labels(&selector))
            .await;
        listed.map(|list| list.items).unwrap_or_default()
    }

    /// Pods of its servers.
    pub async fn servers(&self) -> Vec<Pod> {
        self.of("redis").await
    }

    /// Pods of its Sentinels.
    pub async fn sentinels(&self) -> Vec<Pod> {
        self.of("sentinel").await
    }

    /// The pod whose server says that it is the primary; waits until exactly one does.
    pub async fn primary(&self) -> Pod {
        eventually_within(SLOW, "one server is the primary", || async {
            let password = self.password("default").await?;
            let mut primaries = Vec::new();
            for pod in self.servers().await {
                if self.role(&pod, &password).as_deref() == Some("master") {
                    primaries.push(pod);
                }
            }
            (primaries.len() == 1).then(|| primaries.remove(0))
        })
        .await
    }

    fn role(&self, pod: &Pod, password: &str) -> Option<String> {
        let mut wire = self.dial(pod, password)?;
        let role = wire.try_call(&["ROLE"]).ok()?;
        (!role.is_error()).then(|| role.items()[0].text())
    }

    /// A connection to a server, from within its pod, as the user of apps without a sidecar.
    fn dial(&self, pod: &Pod, password: &str) -> Option<Wire> {
        let network = self.cluster.network_of(pod, "redis")?;
        let mut wire = Wire::of(network.dial(REDIS_PORT).ok()?);
        wire.patience(Duration::from_secs(2));
        let login = wire.try_call(&["AUTH", "default", password]).ok()?;
        (login == "OK").then_some(wire)
    }

    /// One command on the primary, as apps without a sidecar would send it.
    pub async fn run(&self, words: &[&str]) -> crate::Value {
        let primary = self.primary().await;
        eventually_within(SLOW, &format!("{words:?} is answered"), || async {
            self.run_on(&primary, words).await
        })
        .await
    }

    /// The same on the server of any pod; none, if that refuses it or does not answer.
    pub async fn run_on(&self, pod: &Pod, words: &[&str]) -> Option<crate::Value> {
        let password = self.password("default").await?;
        let reply = self.dial(pod, &password)?.try_call(words).ok()?;
        (!reply.is_error()).then_some(reply)
    }

    /// One command on the server of a pod, as the operator's user.
    pub async fn ask(&self, pod: &Pod, words: &[&str]) -> Option<crate::Value> {
        self.ask_at(pod, ("redis", REDIS_PORT), words).await
    }

    /// The same in one of the pod's containers.
    async fn ask_at(
        &self,
        pod: &Pod,
        (container, port): (&str, u16),
        words: &[&str],
    ) -> Option<crate::Value> {
        let password = self.password("operator").await?;
        let network = self.cluster.network_of(pod, container)?;
        let mut wire = Wire::of(network.dial(port).ok()?);
        wire.patience(Duration::from_secs(2));
        wire.try_call(&["AUTH", "operator", &password]).ok()?;
        wire.try_call(words).ok()
    }

    /// Waits until every Sentinel sees every replica. After a switch they connect to them anew, by name;
    /// whoever cuts the node with the DNS before has done two things at once.
    pub async fn until_watched(&self) {
        eventually_within(SLOW, "every Sentinel sees every replica", || async {
            let replicas = self.servers().await.len() - 1;
            for pod in self.sentinels().await {
                let at = ("sentinel", SENTINEL_PORT);
                let words = ["SENTINEL", "REPLICAS", TIER];
                let seen = self.ask_at(&pod, at, &words).await?;
                let text = seen.to_string();
                let away = ["s_down", "disconnected"]
                    .iter()
                    .any(|flag| text.contains(flag));
                if seen.is_error() || seen.items().len() != replicas || away {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    /// The current password of one of its users.
    pub async fn password(&self, user: &str) -> Option<String> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = secrets.get_opt(&format!("{TIER}-auth")).await.ok()??;
        let bytes = secret.data?.remove(&format!("{user}.current"))?;
        String::from_utf8(bytes.0).ok()
    }

    /// Deletes a pod, with the grace period that it has or at once.
    pub async fn delete(&self, pod: &Pod, at_once: bool) {
        let params = if at_once {
            DeleteParams::default().grace_period(0)
        } else {
            DeleteParams::default()
        };
        self.pods()
            .delete(&pod.name_any(), &params)
            .await
            .unwrap_or_else(|error| unusable(&format!("{} stays: {error}", pod.name_any())));
    }

    /// Waits until a pod of that name is another one, and ready.
    pub async fn until_replaced(&self, pod: &Pod) {
        let name = pod.name_any();
        eventually_within(SLOW, &format!("{name} is made anew"), || async {
            let now = self.pods().get_opt(&name).await.ok()??;
            (now.uid() != pod.uid() && is_ready(&now)).then_some(())
        })
        .await;
    }

    /// Waits until another than this pod is the primary.
    pub async fn until_another(&self, before: &Pod) {
        let what = format!("another than {} is the primary", before.name_any());
        eventually_within(SLOW, &what, || async {
            let now = self.primary().await;
            (now.uid() != before.uid()).then_some(())
        })
        .await;
    }

    /// Its pods as they are now.
    pub async fn snapshot(&self) -> Change {
        let mut pods = BTreeMap::new();
        for pod in [self.servers().await, self.sentinels().await].concat() {
            let statuses = pod
                .status
                .as_ref()
                .and_then(|one| one.container_statuses.as_ref());
            let restarts = statuses.into_iter().flatten().map(|one| one.restart_count);
            let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
            pods.insert(name, (uid, restarts.sum()));
        }
        Change(pods)
    }
}

/// Whether a pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().filter_map(|one| one.conditions.as_ref());
    conditions
        .flatten()
        .any(|one| one.type_ == "Ready" && one.status == "True")
}

impl Change {
    /// Names of the pods that are others or were restarted since (I5), or are new or gone.
    pub fn since(&self, before: &Self) -> Vec<String> {
        let names = self.0.keys().chain(before.0.keys());
        let mut changed: Vec<String> = names
            .filter(|name| self.0.get(*name) != before.0.get(*name))
            .cloned()
            .collect();
        changed.sort();
        changed.dedup();
        changed
    }
}
