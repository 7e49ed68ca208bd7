//! The table of accepted and refused resources (`cases/*.yaml`), judged three times without a
//! cluster: by a complete JSON-schema validator with a real CEL interpreter, as the API server
//! does it, and by the local run's own check. All must agree, and each refusal must come from
//! the rule that the case names and from no other.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic is the report; clippy.toml covers only functions marked #[test]"
)]

use std::collections::BTreeSet;

use crds::{invariants, not_yet, schema, structure::Finding, validate::Validator};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    spec: Value,
    #[serde(default)]
    old: Option<Value>,
    #[serde(default)]
    refused: Option<String>,
    #[serde(default)]
    by: By,
    #[serde(default)]
    at: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    /// Accepted.
    #[default]
    Nothing,
    Schema,
    Strict,
    Rule,
}

/// What the API server's two machines and our own say about one case.
struct Verdict {
    schema: Vec<String>,
    cel: BTreeSet<String>,
    own: Vec<Finding>,
}

struct Judge {
    kind: &'static str,
    schema: Value,
    form: jsonschema::Validator,
    own: Validator,
}

impl Judge {
    fn new(kind: &'static str, schema: Value, own: Validator) -> Self {
        let form = jsonschema::validator_for(&schema).unwrap();
        Self {
            kind,
            schema,
            form,
            own,
        }
    }

    fn resource(&self, spec: &Value) -> Value {
        json!({
            "apiVersion": "pannier.dev/v1alpha1",
            "kind": self.kind,
            "metadata": { "name": "case" },
            "spec": spec,
        })
    }

    fn judge(&self, case: &Case) -> Verdict {
        let resource = self.resource(&case.spec);
        let old = case.old.as_ref().map(|old| self.resource(old));
        let schema: Vec<String> = self
            .form
            .iter_errors(&resource)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        // The API server, too, runs rules only on what has the right form.
        let cel = if schema.is_empty() {
            kube_cel::Validator::new()
                .validate(&self.schema, &resource, old.as_ref())
                .err()
                .into_iter()
                .flat_map(kube_cel::ValidationErrors::into_vec)
                .map(|error| {
                    let broken = error.kind != kube_cel::ErrorKind::ValidationFailure;
                    assert!(!broken, "{}: {error} in {}", case.name, error.rule);
                    error.message
                })
                .collect()
        } else {
            BTreeSet::new()
        };
        Verdict {
            schema,
            cel,
            own: self.own.check(&resource, old.as_ref()),
        }
    }
}

fn judges() -> [(Judge, Vec<Case>); 2] {
    let tier = schema::open_api(&schema::cache_tier());
    let sessions = schema::open_api(&schema::session_policy());
    [
        (
            Judge::new("CacheTier", tier, Validator::cache_tier()),
            serde_yaml::from_str(include_str!("cases/cache_tier.yaml")).unwrap(),
        ),
        (
            Judge::new("SessionPolicy", sessions, Validator::session_policy()),
            serde_yaml::from_str(include_str!("cases/session_policy.yaml")).unwrap(),
        ),
    ]
}

#[test]
fn accepted_resources_pass_schema_cel_and_the_local_check() {
    for (judge, cases) in judges() {
        for case in cases.iter().filter(|case| case.refused.is_none()) {
            let verdict = judge.judge(case);
            assert_eq!(verdict.schema, [""; 0], "{}", case.name);
            assert_eq!(verdict.cel, BTreeSet::new(), "{}", case.name);
            assert_eq!(verdict.own, [], "{}", case.name);
        }
    }
}

#[test]
fn refused_resources_are_refused_by_the_rule_that_is_meant_and_by_no_other() {
    for (judge, cases) in judges() {
        for case in &cases {
            let Some(part) = &case.refused else { continue };
            let Verdict { schema, cel, own } = judge.judge(case);
            let name = &case.name;
            let [finding] = own.as_slice() else {
                panic!("{name}: one finding expected: {own:?}")
            };
            assert!(
                finding.message.contains(part),
                "{name}: {}",
                finding.message
            );
            assert_eq!(finding.path, case.at, "{name}");
            match case.by {
                By::Nothing => panic!("{name}: say by what it is refused"),
                By::Schema => {
                    let field = schema_path(&case.at);
                    let there = |error: &String| error.starts_with(&field);
                    assert!(!schema.is_empty(), "{name}");
                    assert!(schema.iter().all(there), "{name}: {schema:?}");
                }
                By::Strict => {
                    assert_eq!(schema, [""; 0], "{name}");
                    assert_eq!(cel, BTreeSet::new(), "{name}");
                }
                By::Rule => {
                    assert_eq!(schema, [""; 0], "{name}");
                    assert_eq!(cel, BTreeSet::from([finding.message.clone()]), "{name}");
                }
            }
        }
    }
}

/// The path as the JSON-schema validator writes it; it blames the block for a missing field.
fn schema_path(at: &str) -> String {
    let pointer = format!("/{}", at.replace(['.', '['], "/").replace(']', ""));
    match pointer.rsplit_once('/') {
        Some((block, _)) => block.to_owned(),
        None => pointer,
    }
}

#[test]
fn every_rule_and_every_refused_field_has_a_case() {
    let [tier, sessions] = judges();
    let mut tier_rules: BTreeSet<String> = invariants::cache_tier()
        .into_iter()
        .map(|invariant| invariant.message)
        .collect();
    tier_rules.extend(not_yet::CACHE_TIER.iter().map(not_yet::NotYet::message));
    let session_rules = invariants::session_policy()
        .into_iter()
        .map(|invariant| invariant.message)
        .collect();
    for ((judge, cases), rules) in [(tier, tier_rules), (sessions, session_rules)] {
        let seen: BTreeSet<String> = cases
            .iter()
            .flat_map(|case| judge.judge(case).cel)
            .collect();
        let unseen: Vec<&String> = rules.difference(&seen).collect();
        assert!(unseen.is_empty(), "{}: no case for {unseen:#?}", judge.kind);
    }
}

#[test]
fn the_table_has_at_least_forty_cases_and_no_name_twice() {
    let mut names = BTreeSet::new();
    for (judge, cases) in judges() {
        for case in cases {
            assert!(
                names.insert((judge.kind, case.name.clone())),
                "{}",
                case.name
            );
        }
    }
    assert!(names.len() >= 40, "{}", names.len());
}
