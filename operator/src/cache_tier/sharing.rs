//! Copies of what sidecars read in other namespaces, by consent of both sides.
//!
//! No owner reference can point into another namespace: copies carry the tier's UID as a label,
//! and the tier a finalizer. Where copies may be is written to the status before one is made, so
//! that none is forgotten. A namespace whose consent is not known keeps what it has.

use crds::CacheTier;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{ResourceExt as _, api::ObjectMeta};
use policy::names;

use super::{
    build::Shared,
    dereference::{Consent, Found},
    validate::ValidatedTier,
};
use crate::{
    apply::{Applier, ApplyError, Owner},
    conditions::{Fact, type_},
    context::Ctx,
    settings::Settings,
};

/// Finalizer of a tier that has copies in other namespaces.
pub const FINALIZER: &str = "pannier.dev/copies";

/// Which namespaces have, or should have, copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Where copies are wanted.
    pub wanted: Vec<String>,
    /// Where copies are to be removed.
    pub sweep: Vec<String>,
    /// Where what is there stays: consent is not known.
    pub kept: Vec<String>,
    /// What is in the way, in sentences.
    pub problems: Vec<String>,
}

// === impl Sharing ===

impl Sharing {
    /// From consent and from where copies have been.
    pub fn decide(tier: &CacheTier, found: &Found) -> Self {
        let own = tier.namespace().unwrap_or_default();
        let mut sharing = Self::default();
        for (namespace, consent) in &found.namespaces {
            match consent {
                Consent::Given => sharing.wanted.push(namespace.clone()),
                Consent::Missing => sharing.problems.push(format!(
                    "namespace {namespace} does not agree; kubectl label namespace {namespace} {}/{own}=allow",
                    names::ALLOW_TIERS_FROM
                )),
                Consent::Absent => sharing
                    .problems
                    .push(format!("there is no namespace {namespace}; create it or remove it from allowedNamespaces")),
                Consent::Unknown(why) => {
                    sharing.kept.push(namespace.clone());
                    sharing.problems.push(format!(
                        "whether namespace {namespace} agrees is not known: {why}"
                    ));
                }
            }
        }
        let status = tier.status.clone().unwrap_or_default();
        sharing.sweep = status
            .shared_with
            .into_iter()
            .filter(|namespace| {
                !sharing.wanted.contains(namespace) && !sharing.kept.contains(namespace)
            })
            .collect();
        sharing
    }

    /// Everywhere a copy is or may be.
    pub fn places(&self) -> Vec<String> {
        let mut places = [&self.wanted[..], &self.sweep, &self.kept].concat();
        places.sort();
        places.dedup();
        places
    }

    /// The condition; none where nothing is shared.
    pub fn fact(&self) -> Option<Fact> {
        if !self.problems.is_empty() {
            let message = self.problems.join("; ");
            return Some(Fact::fails(type_::SHARED, "NotShared", message));
        }
        if self.wanted.is_empty() {
            return None;
        }
        Some(Fact::holds(
            type_::SHARED,
            "Shared",
            format!("copies are in {}", self.wanted.join(", ")),
        ))
    }
}

/// Makes and removes copies. What fails is told and tried again; it does not stop the tier.
pub async fn apply(
    ctx: &Ctx,
    tier: &ValidatedTier,
    mut sharing: Sharing,
    shared: &Shared,
) -> Sharing {
    let mut kept = Vec::new();
    for namespace in std::mem::take(&mut sharing.sweep) {
        if let Err(error) = remove(ctx, &tier.uid, &tier.names.sidecar(), &namespace).await {
            sharing
                .problems
                .push(format!("{error}; {}", rights(ctx, &namespace)));
            kept.push(namespace);
        }
    }
    sharing.kept.extend(kept);
    let mut made = Vec::new();
    for namespace in std::mem::take(&mut sharing.wanted) {
        match copy(ctx, tier, shared, &namespace).await {
            Ok(()) => made.push(namespace),
            Err(error) => {
                sharing
                    .problems
                    .push(format!("{error}; {}", rights(ctx, &namespace)));
                sharing.kept.push(namespace);
            }
        }
    }
    sharing.wanted = made;
    sharing
}

/// Removes the copies in a namespace.
pub async fn remove(ctx: &Ctx, uid: &str, name: &str, namespace: &str) -> Result<(), ApplyError> {
    let applier = Applier {
        client: &ctx.client,
        namespace,
        owner: Owner::Label(uid.to_owned()),
    };
    applier.remove::<ConfigMap>(name).await?;
    applier.remove::<Secret>(name).await?;
    Ok(())
}

async fn copy(
    ctx: &Ctx,
    tier: &ValidatedTier,
    shared: &Shared,
    namespace: &str,
) -> Result<(), ApplyError> {
    let applier = Applier {
        client: &ctx.client,
        namespace,
        owner: Owner::Label(tier.uid.clone()),
    };
    let meta = |original: &ObjectMeta| {
        let mut meta = ObjectMeta {
            name: original.name.clone(),
            labels: original.labels.clone(),
            ..ObjectMeta::default()
        };
        meta.labels.get_or_insert_default().insert(
            names::OWNER_NAMESPACE.to_owned(),
            tier.names.namespace.clone(),
        );
        meta
    };
    if let Some(secret) = &shared.secret {
        let copy = Secret {
            metadata: meta(&secret.metadata),
            ..secret.clone()
        };
        applier.apply(copy).await?;
    } else {
        applier.remove::<Secret>(&tier.names.sidecar()).await?;
    }
    let copy = ConfigMap {
        metadata: meta(&shared.config_map.metadata),
        ..shared.config_map.clone()
    };
    applier.apply(copy).await?;
    Ok(())
}

fn rights(ctx: &Ctx, namespace: &str) -> String {
    let Settings {
        namespace: own,
        installation,
        ..
    } = &ctx.settings;
    format!(
        "if a right is missing: kubectl create rolebinding -n {namespace} {installation} --clusterrole=pannier-operator-copies --serviceaccount={own}:{installation}"
    )
}
