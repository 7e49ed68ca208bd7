//! What happens when a tier is deleted: the copies in other namespaces go, then the finalizer. And
//! what still happens to copies of one that is refused.
//! Everything in its own namespace is collected by owner references. Nothing is validated here: a
//! tier that is wrong can be deleted all the same.

use crds::CacheTier;
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams},
};
use kube_runtime::controller::Action;
use policy::names;
use serde_json::json;

use super::{
    sharing::{self, FINALIZER, Sharing},
    status,
};
use crate::{
    api_error::{ApiError, Category},
    apply::ApplyError,
    context::Ctx,
    unreadable,
};

/// Longest time for which copies that cannot be removed hold up a deletion.
const PATIENCE: i64 = 120;

/// Removes the copies, then the finalizer. Of the tier only its metadata is needed.
pub async fn cleanup(ctx: &Ctx, tier: &ObjectMeta) -> Result<Action, ApplyError> {
    if !is_held(tier) {
        return Ok(Action::await_change());
    }
    let name = tier.name.clone().unwrap_or_default();
    let uid = tier.uid.clone().unwrap_or_default();
    for namespace in places(ctx, tier).await? {
        let removed = sharing::remove(ctx, &uid, &names::sidecar_objects(&name), &namespace).await;
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

/// Removes copies where the consent was taken back, of a tier that cannot be brought about.
pub async fn sweep(ctx: &Ctx, tier: &mut CacheTier, sharing: &Sharing) -> Result<(), ApiError> {
    if sharing.sweep.is_empty() {
        return Ok(());
    }
    let uid = tier.uid().unwrap_or_default();
    let name = names::sidecar_objects(&tier.name_any());
    let mut left = sharing.clone();
    sharing::sweep(ctx, &uid, &name, &mut left).await;
    status::write_swept(ctx, tier, &left).await
}

/// Where copies are or may be. Read without the types of this version: a tier that does not fit them
/// must be free to go too.
async fn places(ctx: &Ctx, tier: &ObjectMeta) -> Result<Vec<String>, ApiError> {
    let namespace = tier.namespace.as_deref().unwrap_or_default();
    let name = tier.name.as_deref().unwrap_or_default();
    let resource = ApiResource::erase::<CacheTier>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), namespace, &resource);
    let found = api.get_opt(name).await.map_err(|source| ApiError {
        verb: "get",
        kind: "CacheTier".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source,
    })?;
    let found = found.filter(|found| found.metadata.uid == tier.uid);
    let places = found.map(|found| unreadable::places(&found.data["status"]));
    Ok(places.unwrap_or_default())
}

fn is_held(tier: &ObjectMeta) -> bool {
    let mut finalizers = tier.finalizers.iter().flatten();
    finalizers.any(|held| held == FINALIZER)
}

fn overdue(tier: &ObjectMeta) -> bool {
    let since = tier.deletion_timestamp.as_ref();
    since.is_some_and(|since| {
        let now = k8s_openapi::jiff::Timestamp::now();
        now.duration_since(since.0).as_secs() > PATIENCE
    })
}

/// Adds the finalizer before the first copy is made.
pub async fn add_finalizer(ctx: &Ctx, tier: &ObjectMeta) -> Result<(), ApiError> {
    if is_held(tier) {
        return Ok(());
    }
    let mut finalizers = tier.finalizers.clone().unwrap_or_default();
    finalizers.push(FINALIZER.to_owned());
    patch(ctx, tier, &finalizers).await
}

/// Removes the finalizer when there is no copy any more.
pub async fn remove_finalizer(ctx: &Ctx, tier: &ObjectMeta) -> Result<(), ApiError> {
    if !is_held(tier) {
        return Ok(());
    }
    let mut finalizers = tier.finalizers.clone().unwrap_or_default();
    finalizers.retain(|held| held != FINALIZER);
    patch(ctx, tier, &finalizers).await
}

/// The whole list, as it was read: the resource version refuses what others changed meanwhile.
async fn patch(ctx: &Ctx, tier: &ObjectMeta, finalizers: &[String]) -> Result<(), ApiError> {
    let namespace = tier.namespace.clone().unwrap_or_default();
    let api: Api<CacheTier> = Api::namespaced(ctx.client.clone(), &namespace);
    let patch = json!({"metadata": {
        "uid": tier.uid,
        "resourceVersion": tier.resource_version,
        "finalizers": finalizers,
    }});
    let name = tier.name.clone().unwrap_or_default();
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
