//! First step: reads what a tier refers to. Needs the client, decides nothing.
//!
//! "It is not there" is an answer of the API server here; a call that fails is an error and never
//! reads as absence.

use std::collections::BTreeMap;

use crds::{CacheTier, manifest::Secret, secrets_named};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Namespace, Secret as ApiSecret},
};
use kube::{Api, Resource as _, ResourceExt as _, api::ListParams};
use policy::names;

use super::object_names::ObjectNames;
use crate::{api_error::ApiError, apply::Owner, context::Ctx};

/// What a tier refers to, and what is there of it.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The Secrets that it names and that are there.
    pub secrets: BTreeMap<String, Secret>,
    /// Whether each of the namespaces that it allows agrees.
    pub namespaces: Vec<(String, Consent)>,
    /// The sets of its servers and Sentinels, by name. Those of a former tier of the same name, on
    /// their way out, say nothing about this one.
    pub sets: BTreeMap<String, StatefulSet>,
    /// The Secret with the passwords, whoever it belongs to.
    pub auth: Option<ApiSecret>,
    /// The Secret of the sidecars, if it is the tier's.
    pub sidecar: Option<ApiSecret>,
    /// The Secret for clients without a sidecar, if it is the tier's.
    pub binding: Option<ApiSecret>,
}

/// What another namespace says to a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consent {
    /// It has the label.
    Given,
    /// It has not.
    Missing,
    /// There is no such namespace.
    Absent,
    /// It could not be read.
    Unknown(String),
}

// === impl Found ===

impl Found {
    /// The shards that exist, each with the pods that its set wants.
    pub fn shards(&self) -> Vec<(u32, u32)> {
        let shard = |set: &StatefulSet| {
            let number = set.labels().get(names::SHARD)?.parse().ok()?;
            let pods = set.spec.as_ref()?.replicas?;
            Some((number, u32::try_from(pods).ok()?))
        };
        self.sets.values().filter_map(shard).collect()
    }
}

/// Reads what the tier refers to.
pub async fn dereference(ctx: &Ctx, tier: &CacheTier) -> Result<Found, ApiError> {
    let namespace = tier.namespace().unwrap_or_default();
    let names = ObjectNames {
        tier: tier.name_any(),
        namespace: namespace.clone(),
        domain: ctx.settings.cluster_domain.clone(),
    };
    let mut found = Found::default();
    for name in secrets_named(&tier.spec) {
        if let Some(secret) = secret(ctx, &namespace, name).await? {
            found.secrets.insert(name.to_owned(), Secret::of(&secret));
        }
    }
    for other in &tier.spec.allowed_namespaces {
        if *other != namespace {
            let consent = consent(ctx, other, &namespace).await;
            found.namespaces.push((other.clone(), consent));
        }
    }
    if has_servers(tier) {
        found.sets = sets(ctx, tier, &namespace).await?;
        found.auth = secret(ctx, &namespace, &names.auth()).await?;
        let owner = tier.controller_owner_ref(&()).map(Owner::Reference);
        let ours = |secret: &ApiSecret| owner.as_ref().is_some_and(|owner| owner.owns(secret));
        let sidecar = secret(ctx, &namespace, &names.sidecar()).await?;
        found.sidecar = sidecar.filter(ours);
        let binding = secret(ctx, &namespace, &names.binding()).await?;
        found.binding = binding.filter(ours);
    }
    Ok(found)
}

/// Whether servers are run for it.
pub(super) fn has_servers(tier: &CacheTier) -> bool {
    use crds::cache_tier::Topology;
    !matches!(
        tier.spec.redis.topology,
        Topology::None | Topology::External
    )
}

async fn secret(ctx: &Ctx, namespace: &str, name: &str) -> Result<Option<ApiSecret>, ApiError> {
    let api: Api<ApiSecret> = Api::namespaced(ctx.client.clone(), namespace);
    api.get_opt(name).await.map_err(|source| ApiError {
        verb: "get",
        kind: "Secret".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source,
    })
}

async fn sets(
    ctx: &Ctx,
    tier: &CacheTier,
    namespace: &str,
) -> Result<BTreeMap<String, StatefulSet>, ApiError> {
    let api: Api<StatefulSet> = Api::namespaced(ctx.client.clone(), namespace);
    let selector = format!("{}={}", names::TIER, tier.name_any());
    let owner = tier.controller_owner_ref(&()).map(Owner::Reference);
    let listed = api.list(&ListParams::default().labels(&selector)).await;
    let listed = listed.map_err(|source| ApiError {
        verb: "list",
        kind: "StatefulSet".to_owned(),
        namespace: namespace.to_owned(),
        name: String::new(),
        source,
    })?;
    Ok(listed
        .items
        .into_iter()
        .filter(|set| owner.as_ref().is_some_and(|owner| owner.owns(set)))
        .map(|set| (set.name_any(), set))
        .collect())
}

/// A namespace that cannot be read is no reason to stop: the tier serves its own all the same.
async fn consent(ctx: &Ctx, other: &str, from: &str) -> Consent {
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    match api.get_opt(other).await {
        Ok(Some(namespace)) => {
            let label = format!("{}/{from}", names::ALLOW_TIERS_FROM);
            let going = namespace.metadata.deletion_timestamp.is_some();
            match namespace.labels().get(&label).map(String::as_str) {
                Some("allow") if !going => Consent::Given,
                _ => Consent::Missing,
            }
        }
        Ok(None) => Consent::Absent,
        Err(source) => Consent::Unknown(
            ApiError {
                verb: "get",
                kind: "Namespace".to_owned(),
                namespace: String::new(),
                name: other.to_owned(),
                source,
            }
            .to_string(),
        ),
    }
}
