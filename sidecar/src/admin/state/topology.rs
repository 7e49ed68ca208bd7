//! `/state`: which servers are behind the sidecar, where they have to be found.

use policy::config::UpstreamMode;
use serde_json::{Value, json};

use crate::{
    clock::Tick,
    state::{Active, Shared},
    upstream::topology::{Node, SLOTS, Topology, TopologyFacts},
};

/// Nodes that are listed; the others are counted.
const LISTED: usize = 64;

/// `null` where there is nothing to find: memory only, or one server at a fixed address.
pub(super) fn topology(shared: &Shared, active: &Active) -> Value {
    let mode = active
        .config
        .upstream
        .as_ref()
        .map(|upstream| upstream.mode);
    let mode = match mode {
        None | Some(UpstreamMode::Standalone) => return Value::Null,
        Some(UpstreamMode::Sentinel) => "Sentinel",
        Some(UpstreamMode::Cluster) => "Cluster",
    };
    let topology = shared.topology.current();
    let facts = shared.topology.facts();
    let age = facts
        .confirmed
        .map(|then| Tick::now().since(then).as_secs_f64());
    let nodes: Vec<Value> = topology.nodes.iter().take(LISTED).map(node).collect();
    let mut shown = json!({
        "mode": mode,
        "words": words(&topology, &facts),
        "version": topology.version,
        "nodes": nodes,
        "nodesInAll": topology.nodes.len(),
        "confirmedSecondsAgo": age,
        "failure": facts.failure,
        "changes": facts.changes,
        "refused": facts.refused,
    });
    if topology.is_cluster() {
        shown["slotsCovered"] = json!(topology.covered());
    }
    shown
}

fn node(node: &Node) -> Value {
    let replicas: Vec<String> = node.replicas.iter().map(ToString::to_string).collect();
    json!({"id": node.id, "primary": node.primary.to_string(), "replicas": replicas})
}

fn words(topology: &Topology, facts: &TopologyFacts) -> String {
    let known = match topology.nodes.as_slice() {
        [] => "no primary is known".to_owned(),
        nodes if topology.is_cluster() => {
            let primaries = if nodes.len() == 1 {
                "primary"
            } else {
                "primaries"
            };
            let count = nodes.len();
            match SLOTS - topology.covered() {
                0 => format!("{count} {primaries} own every slot"),
                open => format!("{count} {primaries}; nobody owns {open} slots"),
            }
        }
        [first, ..] => format!("the primary is {}", first.primary),
    };
    match &facts.failure {
        None => known,
        Some(why) => format!("{known}; the last look failed: {why}"),
    }
}
