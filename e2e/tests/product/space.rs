//! A namespace of apps: Pod Security `restricted` is enforced, a tier lives in it, and its pods ask for
//! that tier's sidecar.

use std::time::Duration;

use e2e::{
    app::{PORT, Report},
    environment::unusable,
    http,
    kubernetes::{blocking, eventually_within, new_namespace, until_gone},
    live::{self, TIER, Tier, spec, tell},
};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Namespace, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use policy::names::{INJECT, REDIS_PORT, SIDECAR};
use serde_json::{Value as Json, json};

use super::world::{SLOW, World};

/// See the head of the file.
pub struct Space {
    pub world: &'static World,
    pub client: Client,
    pub name: String,
}

// === impl Space ===

impl Space {
    /// A new one.
    pub async fn new(world: &'static World, prefix: &str) -> Self {
        let client = world.cluster.client().await;
        let name = new_namespace(&client, prefix).await;
        let label =
            json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        Api::<Namespace>::all(client.clone())
            .patch(&name, &PatchParams::default(), &Patch::Merge(label))
            .await
            .unwrap();
        Self {
            world,
            client,
            name,
        }
    }

    /// A new one with such a tier in it, ready, whose pods get sidecars.
    pub async fn serving(world: &'static World, prefix: &str, redis: Json) -> (Self, Tier) {
        let space = Self::new(world, prefix).await;
        if redis.get("persistence").is_some() {
            let cluster = world.cluster;
            cluster
                .add_volumes(&space.client, &space.name, 2, "64Mi")
                .await;
        }
        let tier = space.tier(redis).await;
        space.until_injecting().await;
        (space, tier)
    }

    /// The same with one server, of which nothing is asked.
    pub async fn standalone(world: &'static World, prefix: &str) -> Self {
        Self::serving(world, prefix, spec::standalone()).await.0
    }

    /// The tier, without waiting for it. Its products may be read while Redis is away.
    pub async fn apply_tier(&self, redis: Json) -> Tier {
        let tier = Tier {
            cluster: self.world.cluster,
            client: self.client.clone(),
            namespace: self.name.clone(),
        };
        let rule = json!({
            "name": "products",
            "match": "product:{id}",
            "ttl": "20m",
            "stale": {"ifError": "20m"},
        });
        let object = json!({
            "apiVersion": "pannier.dev/v1alpha1",
            "kind": "CacheTier",
            "metadata": {"name": TIER},
            "spec": {"environment": "Production", "redis": redis, "rules": [rule]},
        });
        let params = PatchParams::apply("person").force();
        let patch = Patch::Apply(&object);
        tier.api().patch(TIER, &params, &patch).await.unwrap();
        tier
    }

    /// The tier, ready.
    pub async fn tier(&self, redis: Json) -> Tier {
        let tier = self.apply_tier(redis).await;
        tier.until_ready().await;
        tier
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// A pod that asks for the tier's sidecar.
    pub fn pod(&self, name: &str, args: &[&str]) -> Json {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name, INJECT: TIER}},
            "spec": self.world.spec(args),
        })
    }

    /// Creates a pod; gives it as the API server has it.
    pub async fn create(&self, pod: &Json) -> Pod {
        let made = self.try_create(pod, false).await;
        made.unwrap_or_else(|error| unusable(&format!("{pod}: {error}")))
    }

    /// The same, or tried only.
    pub async fn try_create(&self, pod: &Json, dry_run: bool) -> kube::Result<Pod> {
        let params = PostParams {
            dry_run,
            field_manager: None,
        };
        let pod = serde_json::from_value(pod.clone()).unwrap();
        self.pods().create(&params, &pod).await
    }

    /// Whether a pod that asks for a sidecar would get one now.
    pub async fn injects(&self) -> bool {
        let pod = self.pod("would-be", &["idle", "0.0.0.0:8000"]);
        is_injected(&self.try_create(&pod, true).await.unwrap())
    }

    /// Waits until pods get sidecars.
    pub async fn until_injecting(&self) {
        eventually_within(SLOW, "pods get sidecars", || async {
            self.injects().await.then_some(())
        })
        .await;
    }

    /// An app on each node that nothing evicts, with traffic.
    pub async fn apps(&self) -> Vec<Pod> {
        let labels = json!({"app": "traffic", INJECT: TIER});
        self.world.apply(&json!({
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "traffic", "namespace": self.name},
            "spec": {
                "selector": {"matchLabels": {"app": "traffic"}},
                "template": {"metadata": {"labels": labels}, "spec": self.world.spec(&["run"])},
            },
        }));
        let nodes = self.world.cluster.nodes().len();
        let pods = eventually_within(SLOW, "there is an app on each node", || async {
            let pods = self.traffic().await;
            let ready = pods.iter().all(is_ready);
            (pods.len() == nodes && ready).then_some(pods)
        })
        .await;
        for pod in &pods {
            assert!(is_injected(pod), "{} has no sidecar", pod.name_any());
            self.until_served(pod).await;
        }
        pods
    }

    /// The pods of those apps as they are now.
    pub async fn traffic(&self) -> Vec<Pod> {
        let params = ListParams::default().labels("app=traffic");
        self.pods().list(&params).await.unwrap().items
    }

    /// Waits until a pod is ready.
    pub async fn ready(&self, name: &str) -> Pod {
        let pods = self.pods();
        eventually_within(SLOW, &format!("{name} is ready"), || async {
            let pod = pods.get_opt(name).await.unwrap()?;
            is_ready(&pod).then_some(pod)
        })
        .await
    }

    /// Waits until every container of a pod has ended.
    pub async fn ended(&self, name: &str) -> Pod {
        let pods = self.pods();
        eventually_within(SLOW, &format!("{name} has ended"), || async {
            let pod = pods.get_opt(name).await.unwrap()?;
            let phase = pod.status.as_ref()?.phase.as_deref()?;
            ["Succeeded", "Failed"].contains(&phase).then_some(pod)
        })
        .await
    }

    /// What an app in a running pod has seen.
    pub fn report(&self, pod: &Pod) -> Report {
        serde_json::from_value(self.ask(pod, "/")).unwrap()
    }

    /// Forgets what was counted in all of them.
    pub fn begin(&self, pods: &[Pod]) {
        for pod in pods {
            self.ask(pod, "/begin");
        }
    }

    /// Acknowledged writes of apps that are not there.
    pub fn lost(&self, pods: &[Pod]) -> u64 {
        let lost = |pod: &Pod| {
            let said = self.ask(pod, "/lost");
            said.as_u64()
                .unwrap_or_else(|| unusable(&format!("{}: {said}", pod.name_any())))
        };
        pods.iter().map(lost).sum()
    }

    fn ask(&self, pod: &Pod, path: &str) -> Json {
        let network = self.world.cluster.network_of(pod, "app");
        let network = network.unwrap_or_else(|| unusable(&format!("{} runs", pod.name_any())));
        let answer = http::get_over(network.dial(PORT).unwrap(), path).unwrap();
        answer.json()
    }

    /// Waits until an app has a thousand answers more.
    pub async fn until_served(&self, pod: &Pod) {
        let before = self.report(pod);
        eventually_within(SLOW, "the app is served", || async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = self.report(pod);
            let writes = now.writes.answered >= before.writes.answered + 50;
            (writes && now.reads.answered >= before.reads.answered + 50).then_some(())
        })
        .await;
    }

    /// The same of each of them.
    pub async fn until_all_served(&self, pods: &[Pod]) {
        for pod in pods {
            self.until_served(pod).await;
        }
    }

    /// One command by way of a pod's sidecar.
    pub fn command(&self, pod: &Pod, words: &[&str]) -> e2e::Value {
        let network = self.world.cluster.network_of(pod, SIDECAR);
        let network = network.unwrap_or_else(|| unusable(&format!("{} runs", pod.name_any())));
        let mut wire = e2e::Wire::of(network.dial(REDIS_PORT).unwrap());
        wire.patience(Duration::from_secs(15));
        wire.call(words)
    }

    /// Reads that a pod's sidecar has answered from its memory.
    pub fn hits(&self, pod: &Pod) -> i64 {
        let stats = self.command(pod, &["PANNIER.STATS"]);
        let pairs = stats.items().chunks(2);
        let mut hits = pairs.filter(|pair| pair[0] == "hits");
        hits.next().unwrap()[1].integer()
    }

    /// Notes of events about an object with that reason; waits for the first.
    pub async fn event(&self, object: &str, reason: &str) -> String {
        let what = format!("event {reason} of {object}");
        let fields = format!("involvedObject.name={object},reason={reason}");
        let arguments = [
            "-n",
            &self.name,
            "get",
            "events",
            "--field-selector",
            &fields,
        ];
        eventually_within(SLOW, &what, || async {
            let notes = "jsonpath={.items[*].message}";
            let said = self
                .world
                .kubectl(&[&arguments[..], &["-o", notes]].concat());
            (!said.is_empty()).then_some(said)
        })
        .await
    }

    /// Removes it with all that is in it.
    pub async fn end(self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let params = DeleteParams::default();
        namespaces.delete(&self.name, &params).await.unwrap();
        until_gone(SLOW, &namespaces, &self.name).await;
    }
}

impl Drop for Space {
    /// What a person would look at first.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {} ---", self.name);
            for kind in ["cachetiers", "pods", "events"] {
                let told = self
                    .world
                    .try_kubectl(&["-n", &self.name, "get", kind, "-o", "wide"]);
                eprint!("{}", String::from_utf8_lossy(&told.stdout));
            }
            blocking(tell(self.world.cluster, &self.name));
        }
    }
}

/// Whether a pod is ready, and stays.
pub fn is_ready(pod: &Pod) -> bool {
    live::is_ready(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Whether a pod has a sidecar.
pub fn is_injected(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref().unwrap();
    let init = spec.init_containers.iter().flatten();
    init.filter(|one| one.name == SIDECAR).count() == 1
}

/// The status of one of a pod's containers.
pub fn status<'a>(pod: &'a Pod, container: &str) -> &'a ContainerStatus {
    let status = pod.status.as_ref().unwrap();
    let mut all = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .flatten();
    all.find(|one| one.name == container).unwrap()
}

/// How a container ended: exit code, reason, when, and its last words.
pub struct Ended {
    pub code: i32,
    pub reason: String,
    pub at: i64,
    pub words: String,
}

/// The same for a state, if it has ended.
pub fn end_of(state: Option<&ContainerState>) -> Option<Ended> {
    let ended = state?.terminated.as_ref()?;
    Some(Ended {
        code: ended.exit_code,
        reason: ended.reason.clone().unwrap_or_default(),
        at: ended.finished_at.as_ref()?.0.as_second(),
        words: ended.message.clone().unwrap_or_default(),
    })
}

/// The report that an app has left behind.
pub fn last_words(pod: &Pod) -> Report {
    let ended = end_of(status(pod, "app").state.as_ref());
    let words = ended
        .unwrap_or_else(|| unusable("the app has not ended"))
        .words;
    serde_json::from_str(&words).unwrap_or_else(|error| unusable(&format!("{error}: {words:?}")))
}
