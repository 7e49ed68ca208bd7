//! The sets of pods: one per shard, one of the Sentinels. `OnDelete`: when a pod is made anew is
//! the operator's decision. `Parallel`: roles are not in names, so no pod waits for another.

use std::collections::BTreeMap;

use crds::cache_tier::{OnDelete, Persistence};
use k8s_openapi::{
    api::{
        apps::v1::{
            StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
            StatefulSetUpdateStrategy,
        },
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::api::ObjectMeta;
use policy::names;

use super::{
    TOPOLOGY, instance,
    pod_template::{self, Kind, SENTINEL_GRACE, SERVER_GRACE},
    quantity,
    workload::workload,
};
use crate::cache_tier::{
    object_names::Component,
    plan::Plan,
    validate::{Servers, ValidatedTier},
};

/// Sentinels first: servers ask them before they start.
pub(super) fn build(tier: &ValidatedTier, servers: &Servers, plan: &Plan) -> Vec<StatefulSet> {
    let hashes = workload(tier, servers, plan);
    let mut sets = Vec::new();
    if servers.sentinels > 0 {
        let kind = Kind {
            component: Component::Sentinel,
            shard: None,
            file: instance::SENTINEL_FILE,
            port: names::SENTINEL_PORT,
            grace: SENTINEL_GRACE,
            workload: hashes.sentinel,
            claimed: false,
        };
        let name = tier.names.sentinel();
        sets.push(set(tier, servers, &kind, name, servers.sentinels));
    }
    for shard in &plan.shards {
        let kind = Kind {
            component: Component::Redis,
            shard: Some(shard.index),
            file: instance::SERVER_FILE,
            port: names::REDIS_PORT,
            grace: SERVER_GRACE,
            workload: hashes.server.clone(),
            claimed: servers.persistent(),
        };
        let name = tier.names.shard(shard.index);
        sets.push(set(tier, servers, &kind, name, shard.pods));
    }
    sets
}

fn set(
    tier: &ValidatedTier,
    servers: &Servers,
    kind: &Kind,
    name: String,
    pods: u32,
) -> StatefulSet {
    let mut metadata = tier.names.meta(name.clone(), kind.component, kind.shard);
    metadata.annotations = Some(BTreeMap::from([(
        TOPOLOGY.to_owned(),
        format!("{:?}", servers.topology),
    )]));
    let persistence = servers.persistence.as_ref().filter(|_| kind.claimed);
    StatefulSet {
        metadata,
        spec: Some(StatefulSetSpec {
            service_name: Some(name),
            replicas: i32::try_from(pods).ok(),
            selector: LabelSelector {
                match_labels: Some(tier.names.selector(kind.component, kind.shard)),
                ..LabelSelector::default()
            },
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                ..StatefulSetUpdateStrategy::default()
            }),
            template: pod_template::build(tier, servers, kind),
            volume_claim_templates: persistence.map(|persistence| vec![claim(tier, persistence)]),
            persistent_volume_claim_retention_policy: persistence.map(retention),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn claim(tier: &ValidatedTier, persistence: &Persistence) -> PersistentVolumeClaim {
    let size = persistence.size.unwrap_or_default();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some("data".to_owned()),
            labels: Some(tier.names.selector(Component::Redis, None)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: persistence.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(
                    "storage".to_owned(),
                    quantity::bytes(size),
                )])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

fn retention(persistence: &Persistence) -> StatefulSetPersistentVolumeClaimRetentionPolicy {
    let word = match persistence.on_delete.unwrap_or_default() {
        OnDelete::Retain => "Retain",
        OnDelete::Delete => "Delete",
    };
    StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_deleted: Some(word.to_owned()),
        when_scaled: Some(word.to_owned()),
    }
}
