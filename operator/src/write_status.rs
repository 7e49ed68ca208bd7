//! Writes the status of a resource, whichever of our kinds it is.

use std::fmt::Debug;

use kube::{
    Api, Client, Resource,
    api::{PartialObjectMeta, Patch, PatchParams},
    core::NamespaceResourceScope,
};
use policy::names;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::api_error::ApiError;

/// One of our kinds.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
{
}

/// Writes it; the answer is whether the resource was still there. The UID is part of the write: a
/// resource that was made anew under the same name does not get the old one's status. The answer is
/// not read: what is stored may be what does not fit.
pub async fn write_status<K: Kind>(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
    status: &impl Serialize,
) -> Result<bool, ApiError> {
    let wanted = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name, "uid": uid},
        "status": status,
    });
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    patch::<K>(
        client,
        namespace,
        name,
        (&params, &Patch::Apply(wanted)),
        &[404],
    )
    .await
}

/// Lays a merge patch over it, of that very resource if it is still there. For what cannot be
/// written by [`write_status`], which leaves fields of others.
pub async fn lay_over_status<K: Kind>(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
    status: &Value,
) -> Result<(), ApiError> {
    let laid = Patch::Merge(json!({"metadata": {"uid": uid}, "status": status}));
    let params = PatchParams::default();
    patch::<K>(client, namespace, name, (&params, &laid), &[404, 409, 422]).await?;
    Ok(())
}

/// The answer is whether it was done; `unless` are the answers that say that there was nothing to do.
async fn patch<K: Kind>(
    client: &Client,
    namespace: &str,
    name: &str,
    (params, patch): (&PatchParams, &Patch<Value>),
    unless: &[u16],
) -> Result<bool, ApiError> {
    let api: Api<PartialObjectMeta<K>> = Api::namespaced(client.clone(), namespace);
    match api.patch_status(name, params, patch).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if unless.contains(&status.code) => Ok(false),
        Err(source) => Err(ApiError {
            verb: "patch",
            kind: format!("{}/status", K::kind(&())),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            source,
        }),
    }
}
