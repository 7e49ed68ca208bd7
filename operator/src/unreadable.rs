//! Says of a stored resource that it does not fit its type: it is older or newer than this operator.
//! Its own status may be what does not fit, so nothing of it is read.

use std::fmt::Debug;

use crds::condition::Status;
use kube::{
    Resource,
    core::{NamespaceResourceScope, error_boundary::InvalidObject},
};
use serde::de::DeserializeOwned;

use crate::{
    api_error::ApiError,
    conditions::{self, Fact, now, type_},
    write_status::write_status,
};

/// The word for it.
pub const REASON: &str = "Unreadable";

/// Writes it to the status.
pub async fn tell<K>(client: &kube::Client, invalid: &InvalidObject) -> Result<(), ApiError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let InvalidObject { error, metadata } = invalid;
    let message = format!(
        "the stored resource does not fit this version of the operator: {error}; apply it again in the form of the installed CustomResourceDefinition"
    );
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let kind = K::kind(&());
    tracing::warn!(%kind, namespace, name, message, "a resource cannot be read");
    let facts = vec![
        Fact::fails(type_::READY, REASON, message.clone()),
        Fact::fails(type_::RECONCILING, REASON, ""),
        Fact::holds(type_::STALLED, REASON, message),
    ];
    // Since when is not known; another time with each look would be a write with each.
    let since = metadata
        .creation_timestamp
        .as_ref()
        .map_or_else(now, |created| created.0.to_string());
    let generation = metadata.generation;
    let status = Status {
        observed_generation: generation,
        conditions: conditions::merge(&[], facts, &[], generation, &since),
    };
    write_status::<K>(client, namespace, name, metadata.uid.as_deref(), &status).await?;
    Ok(())
}
