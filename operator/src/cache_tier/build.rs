//! Fifth step, pure: the objects of a tier.
//!
//! One file per kind of object. Owner, namespace and the hash of what was applied are added by
//! `apply`. `Resources` is taken apart without `..` there, so a new field cannot be forgotten.

mod binding;
mod disruption_budget;
mod instance;
mod network_policy;
mod pod_template;
pub(crate) mod quantity;
mod redis_conf;
mod service;
mod service_account;
mod sidecar;
mod stateful_set;
mod workload;

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Secret, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};

pub use self::{
    redis_conf::{LIVE_SETTINGS, is_settable, settings},
    workload::{Workload, workload},
};
use super::{passwords::Passwords, plan::Plan, validate::ValidatedTier};

/// Annotation of a shard's set: the topology that it was made for.
pub const TOPOLOGY: &str = "pannier.dev/topology";

/// Everything that a tier wants to exist, and the names of what must not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// The identity of the pods.
    pub service_accounts: Vec<ServiceAccount>,
    /// What sidecars read in the tier's namespace and in others.
    pub shared: Shared,
    /// For clients without a sidecar.
    pub bindings: Vec<Secret>,
    /// What the agents read.
    pub config_maps: Vec<ConfigMap>,
    /// Who may talk to whom.
    pub network_policies: Vec<NetworkPolicy>,
    /// Names in DNS.
    pub services: Vec<Service>,
    /// How many pods may be taken away.
    pub disruption_budgets: Vec<PodDisruptionBudget>,
    /// Sentinels, then servers.
    pub stateful_sets: Vec<StatefulSet>,
    /// What must not exist.
    pub absent: Absent,
}

/// What sidecars read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shared {
    /// The configuration.
    pub config_map: ConfigMap,
    /// How to log in, where Redis asks for it.
    pub secret: Option<Secret>,
}

/// Names of objects that must not exist, where the tier owned them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Absent {
    /// Secrets.
    pub secrets: Vec<String>,
    /// Services.
    pub services: Vec<String>,
    /// Disruption budgets.
    pub disruption_budgets: Vec<String>,
}

/// The objects of a tier. `passwords` are there where servers are run.
pub fn build(tier: &ValidatedTier, plan: &Plan, passwords: Option<&Passwords>) -> Resources {
    let shared = sidecar::build(tier, passwords);
    let mut absent = Absent::default();
    if shared.secret.is_none() {
        absent.secrets.push(tier.names.sidecar());
    }
    let mut resources = Resources {
        shared,
        absent,
        ..Resources::default()
    };
    if let (Some(servers), Some(passwords)) = (tier.servers(), passwords) {
        resources.service_accounts = vec![service_account::build(tier)];
        resources.bindings = vec![binding::build(tier, servers, passwords)];
        resources.config_maps = vec![instance::build(tier, servers, plan)];
        resources.network_policies = network_policy::build(tier, servers);
        resources.services = service::build(tier, servers);
        let budgets = disruption_budget::build(tier, servers, plan);
        resources.disruption_budgets = budgets.wanted;
        resources.absent.disruption_budgets = budgets.absent;
        resources.stateful_sets = stateful_set::build(tier, servers, plan);
    }
    resources
}
