//! The whole verdict on one resource, without an API server: form, then what does not work yet,
//! then the invariants. The messages are the ones that the API server gives.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use crate::{
    invariants::{self, Invariant},
    not_yet::{self, NotYet},
    schema,
    structure::{self, Finding},
};

/// What is checked for one kind.
pub struct Validator {
    schema: Value,
    invariants: Vec<Invariant>,
    not_yet: &'static [NotYet],
    reserved: Option<&'static str>,
}

impl Validator {
    /// For `CacheTier`.
    pub fn cache_tier() -> Self {
        Self {
            reserved: Some(schema::RESERVED_NAME),
            ..Self::new(
                &schema::cache_tier(),
                invariants::cache_tier(),
                not_yet::CACHE_TIER,
            )
        }
    }

    /// For `SessionPolicy`.
    pub fn session_policy() -> Self {
        Self::new(&schema::session_policy(), invariants::session_policy(), &[])
    }

    fn new(
        definition: &CustomResourceDefinition,
        invariants: Vec<Invariant>,
        not_yet: &'static [NotYet],
    ) -> Self {
        let mut schema = schema::open_api(definition);
        structure::envelope(&mut schema);
        Self {
            schema,
            invariants,
            not_yet,
            reserved: None,
        }
    }

    /// All that is wrong with a resource; `old` is the one that it replaces.
    pub fn check(&self, resource: &Value, old: Option<&Value>) -> Vec<Finding> {
        let form = structure::check(&self.schema, resource);
        if self.reserved.is_some() && resource["metadata"]["name"].as_str() == self.reserved {
            return vec![Finding {
                path: "metadata.name".to_owned(),
                message: schema::reserved_name_message(),
            }];
        }
        if form.is_empty() {
            self.check_meaning(&resource["spec"], old.map(|old| &old["spec"]))
        } else {
            // The rules may rely on the form.
            form
        }
    }

    fn check_meaning(&self, spec: &Value, old: Option<&Value>) -> Vec<Finding> {
        let mut findings = refused(self.not_yet, spec);
        for invariant in &self.invariants {
            for (path, object) in objects_at(spec, invariant.at) {
                let before = old.and_then(|old| object_before(old, invariant.at));
                if !(invariant.holds)(object, before) {
                    findings.push(finding(&path, invariant.field, invariant.message.clone()));
                }
            }
        }
        findings
    }
}

/// What a spec uses of a table of things that do not work.
pub fn refused(table: &[NotYet], spec: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for entry in table {
        let (at, field) = entry.place();
        for (path, object) in objects_at(spec, at) {
            if entry.used_by(object) {
                findings.push(finding(&path, field, entry.message()));
            }
        }
    }
    findings
}

fn finding(path: &str, field: &str, message: String) -> Finding {
    let path = match field {
        "" => path.to_owned(),
        field => format!("{path}.{field}"),
    };
    Finding { path, message }
}

/// The objects at a path such as `rules[]`, each with its own path.
fn objects_at<'a>(spec: &'a Value, path: &str) -> Vec<(String, &'a Value)> {
    let mut found = vec![("spec".to_owned(), spec)];
    for step in path.split('.').filter(|step| !step.is_empty()) {
        let mut next = Vec::new();
        for (path, object) in found {
            let (name, is_list) = step.strip_suffix("[]").map_or((step, false), |n| (n, true));
            match object.get(name) {
                Some(Value::Array(items)) if is_list => {
                    let item = |(i, item)| (format!("{path}.{name}[{i}]"), item);
                    next.extend(items.iter().enumerate().map(item));
                }
                Some(child) => next.push((format!("{path}.{name}"), child)),
                None => {}
            }
        }
        found = next;
    }
    found
}

/// Rules about changes stand at plain paths only: entries of lists have no fixed place.
fn object_before<'a>(old: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .filter(|step| !step.is_empty())
        .try_fold(old, |at, step| at.get(step))
}
