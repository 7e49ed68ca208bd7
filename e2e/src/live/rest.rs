//! At rest nothing is written (I6): the resource versions of a tier and of its objects stand still.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams},
    core::GroupVersionKind,
};

use super::{SLOW, TIER, Tier};
use crate::environment::unusable;

/// Group, version, kind and plural of everything that the operator writes.
const KINDS: [(&str, &str, &str, &str); 8] = [
    ("pannier.dev", "v1alpha1", "CacheTier", "cachetiers"),
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("", "v1", "Secret", "secrets"),
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "Service", "services"),
    ("apps", "v1", "StatefulSet", "statefulsets"),
    (
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
    ),
    (
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
    ),
];

/// Waits until no object of the tier was written for so long.
pub async fn until_at_rest(tier: &Tier, still: Duration) {
    let deadline = Instant::now() + SLOW;
    let mut before = versions(tier).await;
    let mut since = Instant::now();
    let mut last = Vec::new();
    while since.elapsed() < still {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = versions(tier).await;
        if now != before {
            last = now
                .iter()
                .filter(|(name, version)| before.get(*name) != Some(version))
                .map(|(name, _)| name.clone())
                .collect();
            before = now;
            since = Instant::now();
        }
        if Instant::now() > deadline {
            unusable(&format!(
                "{} does not come to rest; written last: {last:?}",
                tier.namespace
            ));
        }
    }
}

/// Kind and name of every object that belongs to the tier, and of the tier itself.
pub(super) async fn objects(tier: &Tier) -> Vec<String> {
    versions(tier).await.into_keys().collect()
}

async fn versions(tier: &Tier) -> BTreeMap<String, Option<String>> {
    let mut found = BTreeMap::new();
    for (group, version, kind, plural) in KINDS {
        let kind_of = GroupVersionKind::gvk(group, version, kind);
        let resource = ApiResource::from_gvk_with_plural(&kind_of, plural);
        let api: Api<DynamicObject> =
            Api::namespaced_with(tier.client.clone(), &tier.namespace, &resource);
        let mut params = ListParams::default();
        if kind != "CacheTier" {
            params = params.labels(&format!("pannier.dev/tier={TIER}"));
        }
        let listed = api.list(&params).await;
        let listed = listed.unwrap_or_else(|error| unusable(&format!("no {plural}: {error}")));
        for object in listed {
            let name = format!("{kind}/{}", object.name_any());
            found.insert(name, object.resource_version());
        }
    }
    found
}
