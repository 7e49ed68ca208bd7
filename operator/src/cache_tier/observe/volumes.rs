//! The volumes of a tier's servers, as their claims tell.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, ResourceExt as _, api::ListParams};
use policy::names;

use crate::{api_error::ApiError, cache_tier::validate::ValidatedTier, context::Ctx};

/// One claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Name of the claim.
    pub claim: String,
    /// What is wrong with it, if anything is.
    pub problem: Option<Problem>,
}

/// What is wrong with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is none yet.
    Pending,
    /// It is gone, and the data with it.
    Lost,
    /// It has grown, its file system follows when the pod starts anew.
    ResizePending,
}

/// The claims, where servers have some, or why they are not known: no reason to leave the servers
/// alone.
pub async fn volumes(ctx: &Ctx, tier: &ValidatedTier) -> Option<Result<Vec<Volume>, ApiError>> {
    if !tier.servers().is_some_and(|servers| servers.persistent()) {
        return None;
    }
    let namespace = &tier.names.namespace;
    let api: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), namespace);
    let selector = format!("{}={}", names::TIER, tier.names.tier);
    let listed = api.list(&ListParams::default().labels(&selector)).await;
    let claims = listed.map(|listed| listed.items.iter().map(volume).collect());
    Some(claims.map_err(|source| ApiError {
        verb: "list",
        kind: "PersistentVolumeClaim".to_owned(),
        namespace: namespace.clone(),
        name: String::new(),
        source,
    }))
}

fn volume(claim: &PersistentVolumeClaim) -> Volume {
    let status = claim.status.clone().unwrap_or_default();
    let resizing = status.conditions.iter().flatten().any(|condition| {
        condition.type_ == "FileSystemResizePending" && condition.status == "True"
    });
    Volume {
        claim: claim.name_any(),
        problem: match status.phase.as_deref() {
            Some("Lost") => Some(Problem::Lost),
            Some("Bound") if resizing => Some(Problem::ResizePending),
            Some("Bound") => None,
            _ => Some(Problem::Pending),
        },
    }
}
