//! Volumes: folders of the nodes as local volumes. Nothing provisions them, so a test says how many
//! it needs.

use k8s_openapi::api::{core::v1::PersistentVolume, storage::v1::StorageClass};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::Cluster;
use crate::environment::unusable;

/// The default storage class of a cluster.
pub const STORAGE_CLASS: &str = "local";

pub(super) async fn create_class(client: &Client) {
    let class: StorageClass = serde_json::from_value(json!({
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Retain",
    }))
    .expect("the form is right");
    Api::<StorageClass>::all(client.clone())
        .patch(
            STORAGE_CLASS,
            &PatchParams::apply("pannier-e2e"),
            &Patch::Apply(class),
        )
        .await
        .unwrap_or_else(|error| unusable(&format!("no storage class: {error}")));
}

impl Cluster {
    /// Adds `count` empty volumes of that size to each node.
    pub async fn add_volumes(&self, client: &Client, prefix: &str, count: usize, size: &str) {
        let api: Api<PersistentVolume> = Api::all(client.clone());
        for node in self.nodes() {
            for number in 0..count {
                let name = format!("{prefix}-{}-{number}", node.name());
                let volume: PersistentVolume = serde_json::from_value(json!({
                    "metadata": {"name": name},
                    "spec": {
                        "capacity": {"storage": size},
                        "accessModes": ["ReadWriteOnce"],
                        "storageClassName": STORAGE_CLASS,
                        "persistentVolumeReclaimPolicy": "Retain",
                        "local": {"path": node.volume(&name)},
                        "nodeAffinity": {"required": {"nodeSelectorTerms": [{
                            "matchExpressions": [{
                                "key": "kubernetes.io/hostname",
                                "operator": "In",
                                "values": [node.name()],
                            }],
                        }]}},
                    },
                }))
                .expect("the form is right");
                api.create(&PostParams::default(), &volume)
                    .await
                    .unwrap_or_else(|error| unusable(&format!("no volume {name}: {error}")));
            }
        }
    }
}
