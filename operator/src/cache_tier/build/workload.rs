//! What of a tier a running pod cannot take over: its change needs a new pod.
//!
//! It stands as a hash in an annotation of each pod. What an operator of another version would
//! write differently is not in it (the agent's image, probes, labels of ours): an upgrade of the
//! operator restarts no server; its template is used when a pod is made anew for another reason.

use std::collections::BTreeMap;

use serde_json::json;

use super::redis_conf;
use crate::{
    cache_tier::{
        plan::Plan,
        validate::{Servers, ValidatedTier},
    },
    fingerprint,
};

/// The hashes of servers and Sentinels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Of server pods.
    pub server: String,
    /// Of Sentinel pods.
    pub sentinel: String,
}

/// The hashes of a tier's pods.
pub fn workload(tier: &ValidatedTier, servers: &Servers, plan: &Plan) -> Workload {
    let fixed: BTreeMap<String, String> = redis_conf::settings(tier, servers, plan)
        .into_iter()
        .filter(|(name, _)| !redis_conf::is_live(name))
        .collect();
    let place = json!({
        "labels": servers.pod.labels,
        "annotations": servers.pod.annotations,
        "nodeSelector": servers.pod.node_selector,
        "tolerations": servers.pod.tolerations,
        "priority": servers.pod.priority_class_name,
        "pullSecrets": servers.pod.image_pull_secrets,
    });
    Workload {
        server: fingerprint::of(&json!({
            "image": servers.image,
            "memory": servers.memory,
            "resources": servers.pod.resources,
            "settings": fixed,
            "place": place,
        })),
        sentinel: fingerprint::of(&json!({
            "image": servers.image,
            "place": place,
        })),
    }
}
