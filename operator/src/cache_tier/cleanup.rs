//! What happens when a tier is deleted: the copies in other namespaces go, then the finalizer.
//! Everything in its own namespace is collected by owner references. Nothing is validated here: a
//! tier that is wrong can be deleted all the same.

use crds::CacheTier;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use kube_runtime::controller::Action;
use serde_json::json;

use super::sharing::{self, FINALIZER};
use crate::{
    api_error::{ApiError, Category},
    apply::ApplyError,
    context::Ctx,
};

/// Longest time for which copies that cannot be removed hold up a deletion.
const PATIENCE: i64 = 120;

/// Removes the copies, then the finalizer.
pub async fn cleanup(ctx: &Ctx, tier: &CacheTier) -> Result<Action, ApplyError> {
    let name = tier.name_any();
    if !tier.finalizers().iter().any(|held| held == FINALIZER) {
        return Ok(Action::await_change());
    }
    let uid = tier.uid().unwrap_or_default();
    let places = tier.status.clone().unwrap_or_default().shared_with;
    for namespace in places {
        let removed = sharing::remove(ctx, &uid, &format!("{name}-sidecar"), &namespace).await;
        let Err(error) = removed else { continue };
        let forbidden =
            matches!(&error, ApplyError::Api(error) if error.category() == Category::Forbidden);
        if !forbidden && !overdue(tier) {
            return Err(error);
        }
        // The namespace of the tier must be free to go; what is left is told.
        tracing::warn!(
            tier = name, namespace, %error,
            "a copy stays behind; delete ConfigMap and Secret of the same name by hand"
        );
    }
    remove_finalizer(ctx, tier).await?;
    Ok(Action::await_change())
}

fn overdue(tier: &CacheTier) -> bool {
    let since = tier.metadata.deletion_timestamp.as_ref();
    since.is_some_and(|since| {
        let now = k8s_openapi::jiff::Timestamp::now();
        now.duration_since(since.0).as_secs() > PATIENCE
    })
}

/// Adds the finalizer before the first copy is made.
pub async fn add_finalizer(ctx: &Ctx, tier: &CacheTier) -> Result<(), ApiError> {
    if tier.finalizers().iter().any(|held| held == FINALIZER) {
        return Ok(());
    }
    let mut finalizers = tier.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    patch(ctx, tier, &finalizers).await
}

/// Removes the finalizer when there is no copy any more.
pub async fn remove_finalizer(ctx: &Ctx, tier: &CacheTier) -> Result<(), ApiError> {
    if !tier.finalizers().iter().any(|held| held == FINALIZER) {
        return Ok(());
    }
    let mut finalizers = tier.finalizers().to_vec();
    finalizers.retain(|held| held != FINALIZER);
    patch(ctx, tier, &finalizers).await
}

/// The whole list, as it was read: the resource version refuses what others changed meanwhile.
async fn patch(ctx: &Ctx, tier: &CacheTier, finalizers: &[String]) -> Result<(), ApiError> {
    let namespace = tier.namespace().unwrap_or_default();
    let api: Api<CacheTier> = Api::namespaced(ctx.client.clone(), &namespace);
    let patch = json!({"metadata": {
        "uid": tier.uid(),
        "resourceVersion": tier.resource_version(),
        "finalizers": finalizers,
    }});
    let name = tier.name_any();
    match api
        .patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(ApiError {
            verb: "patch",
            kind: "CacheTier".to_owned(),
            namespace,
            name,
            source,
        }),
    }
}
