//! What is generated is fresh, and the definitions are fit for an API server.

use std::{env, fs, path::Path};

use crds::{generated, schema};
use serde_json::Value;

#[test]
fn generated_files_are_fresh() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let update = env::var_os("UPDATE").is_some();
    for (path, content) in generated::files() {
        let file = repository.join(&path);
        if update {
            fs::write(&file, &content).unwrap();
        }
        let found = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            found == content,
            "{path} is not what the code says; run `cargo run -p pannier-crds --bin crdgen`"
        );
    }
}

#[test]
fn each_definition_stays_small_enough_for_a_client_side_apply() {
    for (path, content) in generated::files() {
        if path.starts_with("crds/") {
            assert!(
                content.len() <= 200 * 1024,
                "{path}: {} bytes",
                content.len()
            );
        }
    }
}

/// Calls `look` for every schema below and including `schema`.
fn each(schema: &Value, path: &str, look: &mut impl FnMut(&str, &Value)) {
    look(path, schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        each(field, &format!("{path}.{name}"), look);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            each(&schema[inner], &format!("{path}[]"), look);
        }
    }
}

#[test]
fn every_field_has_a_text_for_users() {
    for definition in schema::definitions() {
        each(&schema::open_api(&definition), "", &mut |path, schema| {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let text = field["description"].as_str().unwrap_or_default();
                assert!(
                    text.len() >= 8 && text.ends_with('.'),
                    "{path}.{name}: {text:?}"
                );
            }
        });
    }
}

#[test]
fn every_list_map_and_text_of_a_spec_is_bounded() {
    for definition in schema::definitions() {
        let spec = schema::open_api(&definition)["properties"]["spec"].clone();
        each(&spec, "spec", &mut |path, schema| {
            let has = |name: &str| !schema[name].is_null();
            let bounded = match schema["type"].as_str() {
                Some("string") => has("enum") || has("maxLength"),
                Some("array") => has("maxItems"),
                Some("integer") => has("minimum") && has("maximum"),
                _ => !has("additionalProperties") || has("maxProperties"),
            };
            assert!(bounded, "{path}: {schema}");
        });
    }
}

#[test]
fn every_rule_is_cel_and_says_what_to_do() {
    for definition in schema::definitions() {
        each(&schema::open_api(&definition), "", &mut |path, schema| {
            let compiled = kube_cel::compile_schema(schema);
            let errors = compiled.compilation_errors();
            assert!(errors.is_empty(), "{path}: {errors:?}");
            let rules = schema["x-kubernetes-validations"].as_array();
            for rule in rules.into_iter().flatten() {
                let message = rule["message"].as_str().unwrap_or_default();
                assert!(message.contains(';'), "{path}: no remedy: {message}");
            }
        });
    }
}

#[test]
fn conditions_are_a_list_with_one_entry_per_type() {
    for definition in schema::definitions() {
        let schema = schema::open_api(&definition);
        let conditions = &schema["properties"]["status"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map");
        assert_eq!(conditions["x-kubernetes-list-map-keys"][0], "type");
    }
}

#[test]
fn the_names_are_those_that_users_type() {
    let names = schema::definitions().map(|definition| {
        assert_eq!(definition.spec.group, "pannier.dev");
        assert_eq!(definition.spec.scope, "Namespaced");
        assert_eq!(definition.spec.versions[0].name, "v1alpha1");
        assert!(
            definition.spec.versions[0]
                .subresources
                .as_ref()
                .unwrap()
                .status
                .is_some()
        );
        assert!(
            definition.spec.versions[0]
                .additional_printer_columns
                .as_ref()
                .unwrap()
                .len()
                >= 4
        );
        assert_eq!(
            definition.spec.names.categories.as_ref().unwrap(),
            &["pannier"]
        );
        definition.spec.names.short_names.unwrap().concat()
    });
    assert_eq!(names, ["ct", "sesp"]);
}
