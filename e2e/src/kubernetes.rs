//! A real Kubernetes for tests, on this machine, without a registry and without the internet.
//!
//! [`ControlPlane`] is etcd, the API server and the controllers: enough for reconcile logic, faults
//! and scale, up in about three seconds, no root needed. [`Cluster`] has nodes as well, which run
//! containers: everything that involves Redis. Everything that a run leaves behind is
//! removed by [`sweep`], which also runs after a test process was killed.

mod api_server;
mod authority;
pub mod binaries;
mod client;
mod cluster;
mod control_plane;
mod fault_proxy;
mod go;
pub mod image;
mod kubeconfig;
pub mod product;
pub mod programs;
mod registry;
mod run;
pub mod sweep;
mod target;
pub mod tools;

pub use self::{
    api_server::{ApiServer, LABEL, sweep as sweep_borrowed},
    binaries::Binaries,
    client::{
        apply_crds, apply_definitions, blocking, create_namespace, definitions, eventually,
        eventually_within, new_namespace, send_strictly, service_account_token, until_gone,
    },
    cluster::{Cluster, Forward, Node, PodNetwork, STORAGE_CLASS, is_ready},
    control_plane::{ControlPlane, ControlPlaneOptions},
    fault_proxy::{Call, Fault, FaultProxy, Verb},
    kubeconfig::Access,
    programs::NodePrograms,
    registry::Registry,
    target::{Target, named},
};

/// Why a test that needs Kubernetes cannot run on this machine.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// A program could not be had.
    #[error(transparent)]
    Fetch(#[from] crate::debian::FetchError),
    /// The machine does not allow what a cluster needs.
    #[error("a cluster cannot run here: {0}")]
    NotPermitted(String),
    /// The cluster that the user names cannot be used.
    #[error("{} cannot be used: {why}", .file.display())]
    Unusable {
        /// The kubeconfig file that leads to it.
        file: std::path::PathBuf,
        /// Why.
        why: String,
    },
    /// The test would do harm to a cluster that the harness has not started.
    #[error(
        "the cluster of {} is not the harness's own; unset PANNIER_E2E_KUBECONFIG to test on one that is",
        .0.display()
    )]
    NotOurs(std::path::PathBuf),
}
