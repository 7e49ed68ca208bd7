//! Says of a stored resource that it does not fit its type: it is older or newer than this operator,
//! or has a number that is too large for it. What is wrong is looked for by the same check as in the
//! local run, which names fields; the error of the decoder names none.
//! Its own status may be what does not fit, so only what nobody could find out again is taken over
//! of it; where nothing else is wrong the rest is removed, and the look that this brings about writes
//! it anew.

use crds::{condition::Status, validate::Validator};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api,
    api::{ApiResource, DynamicObject},
    core::error_boundary::InvalidObject,
};
use serde_json::{Map, Value, json};

use crate::{
    api_error::ApiError,
    conditions::{self, Fact, now, type_},
    write_status::{Kind, lay_over_status, write_status},
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
    let lasting = lasting(&status);
    if !status.is_null() && serde_json::from_value::<K>(stored.clone()).is_ok() {
        tracing::warn!(%kind, namespace, name, "a status cannot be read; it is removed");
        let uid = metadata.uid.as_deref();
        let bare = stripped(&status, &lasting);
        return lay_over_status::<K>(client, namespace, name, uid, &bare).await;
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
    let mut status = json!(Status {
        observed_generation: generation,
        conditions: conditions::merge(&[], facts, &[], generation, &since),
    });
    if let Some(fields) = status.as_object_mut() {
        fields.extend(lasting);
    }
    write_status::<K>(client, namespace, name, metadata.uid.as_deref(), &status).await?;
    Ok(())
}

/// The namespaces where a stored status says that copies are.
pub fn places(status: &Value) -> Vec<String> {
    let places = status["sharedWith"].as_array().into_iter().flatten();
    let mut places: Vec<String> = places
        .filter_map(|place| place.as_str().map(ToOwned::to_owned))
        .collect();
    places.sort();
    places.dedup();
    places
}

/// What of a stored status nobody could find out again, as far as it fits: without the places copies
/// would stay for ever, and without the time servers that lost all would look like new ones.
fn lasting(status: &Value) -> Map<String, Value> {
    let mut lasting = Map::new();
    let places = places(status);
    if !places.is_empty() {
        lasting.insert("sharedWith".to_owned(), places.into());
    }
    let formed = status["formedAt"].as_str();
    if let Some(formed) = formed.filter(|formed| formed.parse::<Timestamp>().is_ok()) {
        lasting.insert("formedAt".to_owned(), formed.into());
    }
    lasting
}

/// What leaves nothing of a status but what lasts, as a merge patch.
fn stripped(status: &Value, lasting: &Map<String, Value>) -> Value {
    let Some(fields) = status.as_object() else {
        return Value::Null;
    };
    let field = |name: &String| {
        let value = lasting.get(name).cloned();
        (name.clone(), value.unwrap_or_default())
    };
    fields.keys().map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_status_that_cannot_be_read_stays_what_nobody_could_find_out_again() {
        let status = json!({
            "conditions": "none", "sidecars": 3, "sharedWith": ["shop", 1, "blog", "shop"],
            "formedAt": "2026-01-02T03:04:05Z",
        });
        let kept = lasting(&status);
        assert_eq!(
            json!(kept),
            json!({"sharedWith": ["blog", "shop"], "formedAt": "2026-01-02T03:04:05Z"})
        );
        assert_eq!(
            stripped(&status, &kept),
            json!({
                "conditions": null, "sidecars": null, "sharedWith": ["blog", "shop"],
                "formedAt": "2026-01-02T03:04:05Z",
            })
        );
        for nothing in [
            json!(null),
            json!("x"),
            json!({"sharedWith": "shop", "formedAt": "x"}),
        ] {
            assert_eq!(lasting(&nothing), Map::new(), "{nothing}");
        }
        assert_eq!(stripped(&json!("x"), &Map::new()), Value::Null);
    }
}
