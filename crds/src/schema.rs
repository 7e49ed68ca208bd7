//! The definitions of our kinds as the API server gets them: the derived schema, tidied, with
//! the rules of `invariants` and `not_yet` put at the objects they speak of.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use policy::names;
use schemars::Schema;
use serde_json::{Map, Value, json};

use crate::{
    CacheTier, SessionPolicy,
    invariants::{self, Invariant},
    not_yet::{self, NotYet},
};

/// Both definitions.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [cache_tier(), session_policy()]
}

/// The definition of `CacheTier`.
pub fn cache_tier() -> CustomResourceDefinition {
    finish(
        &CacheTier::crd(),
        Some(RESERVED_NAME),
        &invariants::cache_tier(),
        not_yet::CACHE_TIER,
    )
}

/// No tier can have this name: as a label of a pod it means that there is no sidecar.
pub const RESERVED_NAME: &str = names::DISABLED;

/// What the API server and the local run say to it.
pub fn reserved_name_message() -> String {
    format!(
        "metadata.name: {RESERVED_NAME:?} is reserved, because the label {}: {RESERVED_NAME} means that a pod gets no sidecar; choose another name",
        names::INJECT
    )
}

/// The definition of `SessionPolicy`.
pub fn session_policy() -> CustomResourceDefinition {
    finish(
        &SessionPolicy::crd(),
        None,
        &invariants::session_policy(),
        &[],
    )
}

/// The schema of the whole resource, `metadata` aside.
pub fn open_api(definition: &CustomResourceDefinition) -> Value {
    let schema = definition.spec.versions[0].schema.as_ref();
    serde_json::to_value(schema.and_then(|schema| schema.open_api_v3_schema.as_ref()))
        .expect("a schema is JSON")
}

/// An enum of plain words: the words only, so that the field's own text is shown instead of the
/// type's.
pub fn plain_enum(schema: &mut Schema) {
    let words = match (schema.get("oneOf"), schema.get("enum")) {
        (Some(Value::Array(variants)), _) => variants
            .iter()
            .flat_map(|variant| match variant.get("const") {
                Some(word) => vec![word.clone()],
                None => variant["enum"].as_array().cloned().unwrap_or_default(),
            })
            .collect(),
        (_, Some(Value::Array(words))) => words.clone(),
        _ => Vec::new(),
    };
    *schema = schemars::json_schema!({ "type": "string", "enum": words });
}

/// A map of at most `COUNT` texts of at most `LENGTH` characters.
pub fn texts<const COUNT: u32, const LENGTH: u32>(schema: &mut Schema) {
    schema.insert("maxProperties".to_owned(), COUNT.into());
    let text = json!({ "type": "string", "maxLength": LENGTH });
    schema.insert("additionalProperties".to_owned(), text);
}

/// A map of at most `COUNT` texts that can be values of labels.
pub fn labels<const COUNT: u32>(schema: &mut Schema) {
    texts::<COUNT, 63>(schema);
    let text = schema.get_mut("additionalProperties");
    text.expect("texts have a schema")["pattern"] =
        json!("^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$");
}

fn finish(
    derived: &CustomResourceDefinition,
    reserved: Option<&str>,
    invariants: &[Invariant],
    not_yet: &[NotYet],
) -> CustomResourceDefinition {
    let mut definition = serde_json::to_value(derived).expect("a definition is JSON");
    let root = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    tidy(root);
    // kube's own text here is about Rust; the text of the spec is what `kubectl explain` wants.
    root["description"] = root["properties"]["spec"]["description"].clone();
    if let Some(name) = reserved {
        let cel = format!("self.metadata.name != '{name}'");
        add_rule(root, &cel, &reserved_name_message(), "");
    }
    let spec = &mut root["properties"]["spec"];
    for entry in not_yet {
        let (at, field) = entry.place();
        add_rule(object_at(spec, at), &entry.cel(), &entry.message(), field);
    }
    for invariant in invariants {
        let object = object_at(spec, invariant.at);
        add_rule(object, &invariant.cel, &invariant.message, invariant.field);
    }
    serde_json::from_value(definition).expect("rules keep a definition a definition")
}

/// The schema of the object at a path such as `rules[]` or `redis.persistence`.
fn object_at<'a>(spec: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.')
        .filter(|step| !step.is_empty())
        .fold(spec, |at, step| match step.strip_suffix("[]") {
            Some(list) => &mut at["properties"][list]["items"],
            None => &mut at["properties"][step],
        })
}

fn add_rule(object: &mut Value, cel: &str, message: &str, field: &str) {
    let mut rule = json!({ "rule": cel, "message": message });
    if !field.is_empty() {
        rule["fieldPath"] = format!(".{field}").into();
    }
    let object = object.as_object_mut().expect("a schema is an object");
    let rules = object
        .entry("x-kubernetes-validations")
        .or_insert_with(|| json!([]));
    rules.as_array_mut().expect("rules are a list").push(rule);
}

/// `null` is an empty line in YAML, more likely a mistake than a wish for the default: refused.
/// Formats such as `uint8` are unknown to the API server, which warns about them on each apply.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("nullable");
            if let Some(Value::Array(words)) = fields.get_mut("enum") {
                words.retain(|word| !word.is_null());
            }
            drop_rust_format(fields);
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn drop_rust_format(fields: &mut Map<String, Value>) {
    if fields
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|format| format.starts_with("uint"))
    {
        fields.remove("format");
    }
}
