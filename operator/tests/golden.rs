//! Golden files of the builders: a tier in, every object of it out. `UPDATE=1` writes them anew;
//! the review shows what changed in YAML.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test a panic is the report; clippy.toml covers only functions marked #[test]"
)]

#[path = "inject/cases.rs"]
mod inject;

use std::{env, fs, path::Path};

use crds::{CacheTier, manifest::Secret};
use k8s_openapi::api::core::v1::Secret as ApiSecret;
use operator::{
    cache_tier::{
        build::{Absent, Resources, Shared, build},
        dereference::Found,
        observe::Observed,
        passwords,
        plan::plan,
        validate::{ValidatedTier, validate},
    },
    settings::{Scope, Settings},
};
use serde::Deserialize as _;
use serde_json::{Value, json};

fn settings() -> Settings {
    Settings {
        namespace: "pannier-system".to_owned(),
        identity: "pannier-operator-0".to_owned(),
        installation: "pannier-operator".to_owned(),
        scope: Scope::Cluster,
        shared: Vec::new(),
        cluster_domain: "cluster.example".to_owned(),
        agent_image: "operator:test".to_owned(),
        valkey_image: "valkey:test".to_owned(),
        redis_image: "redis:test".to_owned(),
        webhook: None,
    }
}

fn read(text: &str) -> (CacheTier, Found) {
    let mut tier = None;
    let mut found = Found::default();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = serde_json::Value::deserialize(document).unwrap();
        if value["kind"] == "Secret" {
            let secret: ApiSecret = serde_json::from_value(value).unwrap();
            let secret = Secret::of(&secret);
            found.secrets.insert(secret.name.clone(), secret);
        } else {
            tier = Some(serde_json::from_value(value).unwrap());
        }
    }
    (tier.unwrap(), found)
}

fn objects(tier: &ValidatedTier, found: &Found) -> Vec<Value> {
    let passwords = tier.servers().map(|servers| {
        let generate = || "generated".to_owned();
        let seen = (found, &Observed::default());
        passwords::decide(servers, seen, None, &generate).passwords
    });
    let Resources {
        service_accounts,
        shared: Shared { config_map, secret },
        bindings,
        config_maps,
        network_policies,
        services,
        disruption_budgets,
        stateful_sets,
        absent:
            Absent {
                secrets: absent_secrets,
                services: absent_services,
                disruption_budgets: absent_budgets,
            },
    } = build(
        tier,
        &plan(tier, &Observed::default(), &[]),
        passwords.as_ref(),
    );
    let mut objects = Vec::new();
    let mut all = |more: Value| objects.extend(more.as_array().cloned().unwrap());
    all(json!(service_accounts));
    all(json!(secret.into_iter().collect::<Vec<_>>()));
    all(json!([config_map]));
    all(json!(bindings));
    all(json!(config_maps));
    all(json!(network_policies));
    all(json!(services));
    all(json!(disruption_budgets));
    all(json!(stateful_sets));
    all(json!([{"absent": {
        "secrets": absent_secrets,
        "services": absent_services,
        "disruptionBudgets": absent_budgets,
    }}]));
    objects
}

#[test]
fn builders_make_the_golden_objects() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = env::var_os("UPDATE").is_some();
    let mut cases = 0;
    for case in fs::read_dir(&folder).unwrap() {
        let case = case.unwrap().path();
        let text = fs::read_to_string(case.join("input.yaml")).unwrap();
        let (tier, found) = read(&text);
        let tier = validate(&tier, &found, &settings()).unwrap();
        let expected: Vec<String> = objects(&tier, &found)
            .iter()
            .map(|object| serde_yaml::to_string(object).unwrap())
            .collect();
        let expected = expected.join("---\n");
        let file = case.join("expected.yaml");
        if update {
            fs::write(&file, &expected).unwrap();
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            golden == expected,
            "{}: the objects differ; run `make generate` and review the difference",
            file.display()
        );
        cases += 1;
    }
    assert!(cases >= 5, "{cases}");
}
