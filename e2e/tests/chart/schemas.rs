//! Schemas of every kind that an API server serves, in the form in which kubeconform reads them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use kube::Client;
use serde_json::{Map, Value, json};

const PREFIX: &str = "#/definitions/";

/// Writes a file per kind into `folder`.
pub async fn write(client: &Client, folder: &Path) {
    let request = http::Request::get("/openapi/v2").body(Vec::new()).unwrap();
    let text = client.request_text(request).await.unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut all = document["definitions"].as_object().unwrap().clone();
    all.values_mut().for_each(strict);
    // Both are more than the texts that they are declared as.
    let name = |short: &str| format!("io.k8s.apimachinery.pkg.{short}");
    all[&name("util.intstr.IntOrString")] = json!({"type": ["string", "integer"]});
    all[&name("api.resource.Quantity")] = json!({"type": ["string", "number"]});
    for (definition, schema) in &all {
        for kind in schema["x-kubernetes-group-version-kind"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let field = |name: &str| kind[name].as_str().unwrap().to_lowercase();
            let group = field("group");
            let group = group.split('.').next().unwrap();
            let file = [&field("kind"), group, &field("version")];
            let file = file.into_iter().filter(|part| !part.is_empty());
            let file = file.collect::<Vec<_>>().join("-") + ".json";
            let schema = json!({
                "$ref": format!("{PREFIX}{definition}"),
                "definitions": reachable(&all, definition),
            });
            fs::write(folder.join(file), schema.to_string()).unwrap();
        }
    }
}

/// What is not declared is refused.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let open = fields.contains_key("additionalProperties")
                || fields.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
            if fields.get("properties").is_some_and(Value::is_object) && !open {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
            fields.values_mut().for_each(strict);
        }
        Value::Array(items) => items.iter_mut().for_each(strict),
        _ => {}
    }
}

fn reachable(all: &Map<String, Value>, from: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut next = vec![from.to_owned()];
    while let Some(name) = next.pop() {
        if !found.contains_key(&name) {
            let mut names = BTreeSet::new();
            references(&all[&name], &mut names);
            next.extend(names);
            found.insert(name.clone(), all[&name].clone());
        }
    }
    found
}

fn references(schema: &Value, into: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(name) = fields.get("$ref").and_then(Value::as_str) {
                into.insert(name.trim_start_matches(PREFIX).to_owned());
            }
            fields.values().for_each(|field| references(field, into));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, into)),
        _ => {}
    }
}
