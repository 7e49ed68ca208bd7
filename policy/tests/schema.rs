//! The published JSON schema is the one that the types have now.

use std::{fs, path::Path};

use policy::SidecarConfig;

const PUBLISHED: &str = "../docs/reference/sidecar-config.schema.json";

/// `UPDATE=1 cargo test -p pannier-policy --test schema` writes it anew.
#[test]
fn the_published_schema_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PUBLISHED);
    let schema = serde_json::to_string_pretty(&SidecarConfig::schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &schema).unwrap();
    }
    let published = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        published == schema,
        "docs/reference/sidecar-config.schema.json is stale; run `UPDATE=1 cargo test -p pannier-policy --test schema`"
    );
}

#[test]
fn every_object_refuses_unknown_fields_and_every_field_is_described() {
    let schema = serde_json::to_value(SidecarConfig::schema()).unwrap();
    let mut objects = vec![&schema];
    objects.extend(schema["$defs"].as_object().unwrap().values());
    let objects = objects
        .into_iter()
        .filter(|object| object["type"] == "object");
    assert!(objects.clone().count() >= 9);
    for object in objects {
        assert_eq!(object["additionalProperties"], false, "{object}");
        for (name, field) in object["properties"].as_object().unwrap() {
            assert!(field["description"].is_string(), "{name}");
        }
    }
}
