//! What the pods of a failed test say: the state of each agent and of each sidecar, from within its pod.

use std::io;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::ListParams};
use policy::names::AGENT_PORT;

use crate::{
    http,
    kubernetes::{Cluster, PodNetwork},
};

const SIDECAR_ADMIN_PORT: u16 = 9464;
const LINES: usize = 60;

pub async fn tell(cluster: &'static Cluster, namespace: &str) {
    let pods: Api<Pod> = Api::namespaced(cluster.client().await, namespace);
    let Ok(pods) = pods.list(&ListParams::default()).await else {
        return;
    };
    for pod in pods {
        for (container, port) in [
            ("redis", AGENT_PORT),
            ("sentinel", AGENT_PORT),
            ("sidecar", SIDECAR_ADMIN_PORT),
            (policy::names::SIDECAR, SIDECAR_ADMIN_PORT),
        ] {
            if let Some(network) = cluster.network_of(&pod, container) {
                let said = state(&network, port).unwrap_or_else(|error| error.to_string());
                eprintln!("--- state of {} ---\n{said}", pod.name_any());
                let log = cluster.logs(namespace, &pod.name_any(), container);
                eprintln!("--- log of {} ---\n{}", pod.name_any(), tail(&log));
            }
        }
    }
}

/// The last lines of a log.
pub(super) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

fn state(network: &PodNetwork, port: u16) -> io::Result<String> {
    Ok(http::get_over(network.dial(port)?, "/state")?.text())
}
