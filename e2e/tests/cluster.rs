//! A real Redis Cluster behind the sidecar: the app sees one plain Redis (S0.16).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

#[path = "cluster/commands.rs"]
mod commands;
#[path = "cluster/moves.rs"]
mod moves;
#[path = "cluster/replicas.rs"]
mod replicas;
#[path = "cluster/shards.rs"]
mod shards;
#[path = "cluster/state.rs"]
mod state;

use e2e::{ClusterOptions, ClusterSet, Engine, Sidecar, SidecarOptions};
use serde_json::json;

/// In front of a cluster; keys that begin with `c:` are kept locally.
fn options(cluster: &ClusterSet) -> SidecarOptions {
    SidecarOptions::before_several(&cluster.ports(), &json!({"mode": "Cluster"})).rule(
        "cached",
        "c:*",
        json!({}),
    )
}

fn start() -> (ClusterSet, Sidecar) {
    let cluster = ClusterSet::start(&ClusterOptions::of(Engine::Redis7));
    let sidecar = Sidecar::start_coherent(&options(&cluster));
    (cluster, sidecar)
}

/// A key per node.
fn keys(cluster: &ClusterSet, prefix: &str) -> Vec<String> {
    (0..3).map(|node| cluster.key_on(node, prefix)).collect()
}
