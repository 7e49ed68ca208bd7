//! Says of a stored resource that it does not fit its type: it is older or newer than this operator,
//! or has a number that is too large for it. What is wrong is looked for by the same check as in the
//! local run, which names fields; the error of the decoder names none.
//! Its own status may be what does not fit, so nothing of it is taken over; where nothing else is
//! wrong it is removed, and the look that this brings about writes it anew.

use crds::{condition::Status, validate::Validator};
use kube::{
    Api,
    api::{ApiResource, DynamicObject},
    core::error_boundary::InvalidObject,
};

use crate::{
    api_error::ApiError,
    conditions::{self, Fact, now, type_},
    write_status::{Kind, remove_status, write_status},
};

/// The word for it.
pub const REASON: &str = "Unreadable";

/// So many fields are named.
const NAMED: usize = 5;

/// Writes it to the status.
pub async fn tell<K: Kind>(
    client: &kube::Client,
    invalid: &InvalidObject,
    validator: fn() -> Validator,
) -> Result<(), ApiError> {
    let InvalidObject { error, metadata } = invalid;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let kind = K::kind(&());
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let stored = api.get_opt(name).await.map_err(|source| ApiError {
        verb: "get",
        kind: kind.to_string(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source,
    })?;
    let Some(stored) = stored else { return Ok(()) };
    let mut stored = serde_json::to_value(stored).expect("an object of the API is JSON");
    let status = stored["status"].take();
    if !status.is_null() && serde_json::from_value::<K>(stored.clone()).is_ok() {
        tracing::warn!(%kind, namespace, name, "a status cannot be read; it is removed");
        return remove_status::<K>(client, namespace, name, metadata.uid.as_deref()).await;
    }
    let findings = validator().check(&stored, None);
    let findings = findings.iter().take(NAMED);
    let mut problems: Vec<String> = findings
        .map(|finding| format!("{}: {}", finding.path, finding.message))
        .collect();
    if problems.is_empty() {
        problems.push(error.clone());
    }
    let message = format!(
        "the stored resource does not fit this version of the operator: {}; apply it again in the form of the installed CustomResourceDefinition",
        problems.join("; ")
    );
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
