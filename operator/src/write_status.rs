//! Writes the status of a resource, whichever of our kinds it is.

use std::fmt::Debug;

use kube::{
    Api, Client, Resource,
    api::{PartialObjectMeta, Patch, PatchParams},
    core::NamespaceResourceScope,
};
use policy::names;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::api_error::ApiError;

/// Writes it; the answer is whether the resource was still there. The UID is part of the write: a
/// resource that was made anew under the same name does not get the old one's status. The answer is
/// not read: what is stored may be what does not fit.
pub async fn write_status<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
    status: &impl Serialize,
) -> Result<bool, ApiError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let api: Api<PartialObjectMeta<K>> = Api::namespaced(client.clone(), namespace);
    let wanted = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name, "uid": uid},
        "status": status,
    });
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    match api
        .patch_status(name, &params, &Patch::Apply(&wanted))
        .await
    {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(gone)) if gone.code == 404 => Ok(false),
        Err(source) => Err(ApiError {
            verb: "patch",
            kind: format!("{}/status", K::kind(&())),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            source,
        }),
    }
}
