//! A pod with a real sidecar, as injection will make it: the tier's `ConfigMap` and Secret mounted
//! where the configuration says. Tests are the app: they enter the pod's network.

use std::{io, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use serde_json::json;

use super::{Live, SLOW, TIER};
use crate::{
    Wire,
    environment::unusable,
    kubernetes::{PodNetwork, eventually_within},
};

/// An app's end of the sidecar.
#[derive(Clone, Debug)]
pub struct App {
    network: PodNetwork,
    node: String,
}

impl Live {
    /// Starts an app with a sidecar on a node, and waits until the sidecar is ready.
    pub async fn app(&self, name: &str, node: &str) -> App {
        let secrets = policy::names::SIDECAR_SECRETS;
        let pod = json!({
            "metadata": {"name": name},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 1,
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532},
                "containers": [{
                    "name": "sidecar",
                    "image": self.images().sidecar,
                    "imagePullPolicy": "Never",
                    "args": ["--config", "/etc/pannier/config/sidecar.yaml"],
                    "readinessProbe": {
                        "periodSeconds": 1,
                        "httpGet": {"path": "/ready", "port": 9464},
                    },
                    "volumeMounts": [
                        {"name": "config", "mountPath": "/etc/pannier/config"},
                        {"name": "secrets", "mountPath": secrets},
                    ],
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]},
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                }],
                "volumes": [
                    {"name": "config", "configMap": {"name": format!("{TIER}-sidecar")}},
                    {"name": "secrets", "secret": {"secretName": format!("{TIER}-sidecar")}},
                ],
            },
        });
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let pod = serde_json::from_value(pod).expect("the form is right");
        pods.create(&PostParams::default(), &pod)
            .await
            .unwrap_or_else(|error| unusable(&format!("no app: {error}")));
        let running = eventually_within(SLOW, &format!("{name} is ready"), || async {
            let pod = pods.get_opt(name).await.ok()??;
            let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
            statuses.iter().all(|one| one.ready).then_some(pod)
        })
        .await;
        let network = self.cluster.network_of(&running, "sidecar");
        App {
            network: network.unwrap_or_else(|| unusable(&format!("{name} has no network"))),
            node: node.to_owned(),
        }
    }
}

impl App {
    /// Name of the node that it runs on.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// A connection to `redis://localhost:6379` as the app sees it.
    pub fn connect(&self, patience: Duration) -> io::Result<Wire> {
        let mut wire = Wire::of(self.network.dial(policy::names::REDIS_PORT)?);
        wire.patience(patience);
        Ok(wire)
    }
}
