//! The variables by which an app finds the sidecar. What an app sets itself is left alone, unless
//! the pod says otherwise: it may mean another Redis.

use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec};

use super::{Changes, clients};
use crate::injector::decide::Plan;

const REDIS_URL: &str = "REDIS_URL";
const HTTP_URL: &str = "PANNIER_HTTP_URL";

/// A container whose `REDIS_URL` does not lead to the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReplaced {
    /// The container.
    pub container: String,
    /// What may set the variable.
    pub by: SetBy,
}

/// What sets a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetBy {
    /// An entry of its own.
    Entry,
    /// Perhaps one that comes from a `ConfigMap` or Secret as a whole.
    EnvFrom,
}

/// Sets the variables; tells which containers keep their own.
pub(super) fn set(spec: &PodSpec, plan: &Plan, changes: &mut Changes) -> Vec<NotReplaced> {
    let urls = [
        // As a name, because clients know it and the sidecar listens on both of its addresses.
        (REDIS_URL, format!("redis://localhost:{}", plan.ports.redis)),
        (HTTP_URL, format!("http://127.0.0.1:{}", plan.ports.http)),
    ];
    let mut not_replaced = Vec::new();
    for (path, container) in clients(spec, plan) {
        let mut missing = Vec::new();
        for (name, url) in &urls {
            match entries(container, name).as_slice() {
                [] if unknown(container, name) && !plan.override_env => {
                    not_replaced.push(NotReplaced {
                        container: container.name.clone(),
                        by: SetBy::EnvFrom,
                    });
                }
                [] => missing.push(variable(name, url)),
                set => {
                    let others = || set.iter().filter(|(_, one)| !is(one, url));
                    if plan.override_env {
                        for (index, _) in others() {
                            let entry = ["env".to_owned(), index.to_string()];
                            let path = path.iter().chain(&entry);
                            changes.replace(path, &variable(name, url));
                        }
                    } else if *name == REDIS_URL && others().next().is_some() {
                        not_replaced.push(NotReplaced {
                            container: container.name.clone(),
                            by: SetBy::Entry,
                        });
                    }
                }
            }
        }
        prepend(&path, container, &missing, changes);
    }
    not_replaced
}

/// In front of all others, which may refer to them.
fn prepend(path: &[String; 3], container: &Container, missing: &[EnvVar], changes: &mut Changes) {
    if missing.is_empty() {
        return;
    }
    let list = path.iter().map(String::as_str).chain(["env"]);
    if container.env.is_none() {
        return changes.add(list, missing);
    }
    for variable in missing.iter().rev() {
        changes.add(list.clone().chain(["0"]), variable);
    }
}

fn entries<'a>(container: &'a Container, name: &str) -> Vec<(usize, &'a EnvVar)> {
    let all = container.env.iter().flatten().enumerate();
    all.filter(|(_, one)| one.name == name).collect()
}

/// Whether a variable may come from a `ConfigMap` or Secret as a whole, which cannot be seen here.
fn unknown(container: &Container, name: &str) -> bool {
    let sources = container.env_from.as_deref().unwrap_or_default();
    name == REDIS_URL
        && sources.iter().any(|source| {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            name.starts_with(prefix)
        })
}

fn is(variable: &EnvVar, url: &str) -> bool {
    variable.value.as_deref() == Some(url)
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    }
}
