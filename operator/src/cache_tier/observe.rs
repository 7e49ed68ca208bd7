//! Third step: what runs now. The pods from the API server, roles from the agent in each pod.
//!
//! Every answer is from this moment. A pod that does not answer is `Unknown`, with the reason, and
//! never reads as empty or as a replica.

pub mod agent;
#[cfg(test)]
pub(super) mod samples;
mod trouble;
pub mod volumes;

use std::collections::BTreeMap;

use futures_util::future::join_all;
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Pod};
use kube::{Api, ResourceExt as _, api::ListParams};
use policy::names;

use self::volumes::Volume;
use super::{object_names::Component, validate::ValidatedTier};
use crate::{
    api_error::ApiError,
    context::Ctx,
    instance::state::{Role, Server, State},
};

/// Seconds after the end of its grace period in which a node that works ends a pod.
const OVERDUE: i64 = 15;

/// The pods of a tier.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Servers, by shard and ordinal.
    pub servers: Vec<ObservedPod>,
    /// Sentinels, by ordinal.
    pub sentinels: Vec<ObservedPod>,
    /// The volumes of the servers, where they have some, or why they are not known.
    pub volumes: Option<Result<Vec<Volume>, String>>,
}

/// One pod.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own that Kubernetes tells"
)]
#[derive(Clone, Debug)]
pub struct ObservedPod {
    /// Its name.
    pub name: String,
    /// Its UID: what is done to a pod is done to this one only.
    pub uid: String,
    /// Its shard; 0 for a Sentinel.
    pub shard: u32,
    /// Its number in the set.
    pub ordinal: u32,
    /// Its address, once it has one.
    pub address: Option<String>,
    /// Hash of everything whose change needs a new pod, as it was made.
    pub workload: Option<String>,
    /// Versions of the files that it was last told to look at.
    pub mounted: Option<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is on its way out.
    pub going: bool,
    /// Whether its container has begun: one that has not holds no data in memory.
    pub begun: bool,
    /// Whether its container runs, as its node last said.
    pub running: bool,
    /// Its node, if that does not answer as far as the API server shows it of the pod.
    pub lost_node: Option<String>,
    /// Why it does not run, if Kubernetes cannot make it.
    pub trouble: Option<String>,
    /// What its agent says.
    pub view: View,
}

/// What an agent says.
#[derive(Clone, Debug)]
pub enum View {
    /// It answered just now.
    Known(Box<State>),
    /// It did not, and why.
    Unknown(String),
}

// === impl Observed ===

impl Observed {
    /// Servers and Sentinels that are not known to accept the passwords of that word.
    pub fn without(&self, generation: &str) -> impl Iterator<Item = &ObservedPod> {
        let word = |pod: &ObservedPod| pod.state()?.credential_generation.clone();
        let all = self.servers.iter().chain(&self.sentinels);
        all.filter(move |pod| word(pod).as_deref() != Some(generation))
    }
}

// === impl ObservedPod ===

impl ObservedPod {
    /// What its agent says, if it answered.
    pub fn state(&self) -> Option<&State> {
        match &self.view {
            View::Known(state) => Some(state),
            View::Unknown(_) => None,
        }
    }

    /// What its server says, if it answered.
    pub fn server(&self) -> Option<&Server> {
        self.state()?.server.as_ref()
    }

    /// Whether it is known to be a primary.
    pub fn is_primary(&self) -> bool {
        self.role() == Some(Role::Primary)
    }

    /// Whether it is known to be a replica.
    pub fn is_replica(&self) -> bool {
        self.role() == Some(Role::Replica)
    }

    /// Whether it is a replica that has what the primary has, or nearly so.
    pub fn is_in_sync(&self) -> bool {
        let follows = |server: &Server| server.link_up && server.synced && !server.loading;
        self.is_replica() && self.ready && self.server().is_some_and(follows)
    }

    /// Whether nothing of it runs, so that nothing in memory is lost with it: it never began, or its
    /// container ended and is not there again, as a node says that answers.
    pub fn is_down(&self) -> bool {
        let ended = !self.running && self.state().is_none() && self.lost_node.is_none();
        !self.ready && (!self.begun || ended)
    }

    fn role(&self) -> Option<Role> {
        self.server()?.role
    }

    fn of(pod: &Pod) -> Option<(Component, Self)> {
        let name = pod.name_any();
        let component = match pod.labels().get("app.kubernetes.io/component")?.as_str() {
            "redis" => Component::Redis,
            "sentinel" => Component::Sentinel,
            _ => return None,
        };
        let shard = pod.labels().get(names::SHARD);
        let status = pod.status.as_ref();
        let ready = status
            .and_then(|status| status.conditions.as_ref())
            .is_some_and(|all| {
                all.iter()
                    .any(|one| one.type_ == "Ready" && one.status == "True")
            });
        let containers = status.and_then(|status| status.container_statuses.as_ref());
        let begun = containers.into_iter().flatten().any(|container| {
            let state = container.state.as_ref();
            let ended = container.last_state.as_ref();
            state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
                || ended.is_some_and(|ended| ended.terminated.is_some())
        });
        let running = containers.into_iter().flatten().any(|container| {
            let state = container.state.as_ref();
            state.is_some_and(|state| state.running.is_some())
        });
        let annotation = |key: &str| pod.annotations().get(key).cloned();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let observed = Self {
            uid: pod.uid()?,
            shard: shard.and_then(|shard| shard.parse().ok()).unwrap_or(0),
            ordinal: name.rsplit_once('-')?.1.parse().ok()?,
            address: status.and_then(|status| status.pod_ip.clone()),
            workload: annotation(names::WORKLOAD),
            mounted: annotation(names::MOUNTED),
            ready,
            going: pod.metadata.deletion_timestamp.is_some(),
            begun,
            running,
            lost_node: node.filter(|_| is_overdue(pod) || is_given_up(pod)),
            trouble: trouble::trouble(pod),
            view: View::Unknown("it has no address yet".to_owned()),
            name,
        };
        Some((component, observed))
    }
}

/// Its containers were ready when its node last spoke, and others have said since that it is not.
fn is_given_up(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let mut ready = conditions.into_iter().flatten();
    let containers = containers.map_or(&[][..], Vec::as_slice);
    ready.any(|one| one.type_ == "Ready" && one.status == "False")
        && !containers.is_empty()
        && containers.iter().all(|one| one.ready)
}

/// The time of a deletion already has the grace period in it.
fn is_overdue(pod: &Pod) -> bool {
    let due = pod.metadata.deletion_timestamp.as_ref();
    due.is_some_and(|due| {
        let late = k8s_openapi::jiff::Timestamp::now().duration_since(due.0);
        late.as_secs() > OVERDUE
    })
}

/// Whether a pod is one of the tier's. One that belongs to another set is of a former tier of the
/// same name, or a stranger with our labels; one that belongs to nobody will be taken in by its set.
fn is_ours(pod: &Pod, sets: &BTreeMap<String, StatefulSet>) -> bool {
    let mut owners = pod.owner_references().iter();
    match owners.find(|owner| owner.controller == Some(true)) {
        Some(owner) => {
            let mut sets = sets.values();
            sets.any(|set| set.metadata.uid.as_ref() == Some(&owner.uid))
        }
        None => true,
    }
}

/// Looks at the pods of a tier and asks their agents. `sets` are those of the tier.
pub async fn observe(
    ctx: &Ctx,
    tier: &ValidatedTier,
    sets: &BTreeMap<String, StatefulSet>,
) -> Result<Observed, ApiError> {
    if tier.servers().is_none() {
        return Ok(Observed::default());
    }
    let namespace = &tier.names.namespace;
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let selector = format!("{}={}", names::TIER, tier.names.tier);
    let listed = api.list(&ListParams::default().labels(&selector)).await;
    let listed = listed.map_err(|source| ApiError {
        verb: "list",
        kind: "Pod".to_owned(),
        namespace: namespace.clone(),
        name: String::new(),
        source,
    })?;
    let ours = listed.items.iter().filter(|pod| is_ours(pod, sets));
    let pods = ours.filter_map(ObservedPod::of);
    let asked = pods.map(|(component, mut pod)| async move {
        if let Some(address) = &pod.address {
            pod.view = agent::ask(address, &pod.name, &tier.uid).await;
        }
        // Of two reasons for silence this is the cause.
        if let (View::Unknown(why), Some(trouble)) = (&mut pod.view, &pod.trouble) {
            why.clone_from(trouble);
        }
        (component, pod)
    });
    let volumes = volumes::volumes(ctx, tier).await;
    let mut observed = Observed {
        volumes: volumes.map(|found| found.map_err(|error| error.to_string())),
        ..Observed::default()
    };
    for (component, pod) in join_all(asked).await {
        match component {
            Component::Redis => observed.servers.push(pod),
            Component::Sentinel => observed.sentinels.push(pod),
            Component::SidecarConfig => {}
        }
    }
    observed.servers.sort_by_key(|pod| (pod.shard, pod.ordinal));
    observed.sentinels.sort_by_key(|pod| pod.ordinal);
    Ok(observed)
}
