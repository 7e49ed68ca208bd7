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
    api_error::Category,
    apply::{Applier, ApplyError, Owner},
    conditions::{Fact, type_},
    context::Ctx,
    settings::{Scope, Settings},
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
    sweep(ctx, &tier.uid, &tier.names.sidecar(), &mut sharing).await;
    let mut made = Vec::new();
    for namespace in std::mem::take(&mut sharing.wanted) {
        match copy(ctx, tier, shared, &namespace).await {
            Ok(()) => made.push(namespace),
            Err(error) => {
                let problem = in_words(&error, &ctx.settings, &namespace);
                sharing.problems.push(problem);
                sharing.kept.push(namespace);
            }
        }
    }
    sharing.wanted = made;
    sharing
}

/// Removes copies where the consent was taken back. Those that cannot be removed are kept, and told.
pub async fn sweep(ctx: &Ctx, uid: &str, name: &str, sharing: &mut Sharing) {
    for namespace in std::mem::take(&mut sharing.sweep) {
        if let Err(error) = remove(ctx, uid, name, &namespace).await {
            let problem = in_words(&error, &ctx.settings, &namespace);
            sharing.problems.push(problem);
            sharing.kept.push(namespace);
        }
    }
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

/// With the remedy, where a right is missing: the chart gives it by one of its values.
fn in_words(error: &ApplyError, settings: &Settings, namespace: &str) -> String {
    let missing =
        matches!(error, ApplyError::Api(error) if error.category() == Category::Forbidden);
    if !missing {
        return error.to_string();
    }
    let role = match settings.places_of_pods() {
        Scope::Cluster => "ClusterRole".to_owned(),
        Scope::Namespaces(names) if names.iter().any(|name| name == namespace) => {
            format!("Role in {namespace}")
        }
        Scope::Namespaces(_) => {
            return format!(
                "{error}; add {namespace} to shareNamespaces of the chart (helm upgrade): the operator then has a Role there"
            );
        }
    };
    format!(
        "{error}; the operator's {role} lacks this right: add it, or have the chart make its roles (rbac.create)"
    )
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;
    use crate::{api_error::ApiError, settings::samples};

    fn failed(code: u16) -> ApplyError {
        let status = Status::failure("the API server's sentence", "Reason").with_code(code);
        ApplyError::Api(ApiError {
            verb: "patch",
            kind: "Secret".to_owned(),
            namespace: "apps".to_owned(),
            name: "t-sidecar".to_owned(),
            source: kube::Error::Api(status.boxed()),
        })
    }

    #[test]
    fn a_missing_right_is_told_with_what_gives_it_and_no_other_failure_is() {
        let watch = "--watch-namespace=shop";
        let share = "--share-namespace=apps";
        for (flags, remedy) in [
            (vec![], "the operator's ClusterRole lacks this right"),
            (vec![watch], "add apps to shareNamespaces of the chart"),
            (
                vec![watch, share],
                "the operator's Role in apps lacks this right",
            ),
        ] {
            let settings = samples::of(&flags);
            let said = in_words(&failed(403), &settings, "apps");
            assert!(
                said.contains("sentence; ") && said.contains(remedy),
                "{said}"
            );
            let busy = failed(500);
            assert_eq!(in_words(&busy, &settings, "apps"), busy.to_string());
        }
    }
}
