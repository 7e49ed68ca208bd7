//! Fourth step, pure: the JSON patch that brings a pod to its plan.
//!
//! Each part looks at the pod first and adds only what is missing, so a pod that comes again, after
//! other webhooks have changed it, keeps what they did. Paths are those of the pod as it came:
//! parts that shift an index come last.

mod container;
mod environment;
mod volumes;

use json_patch::{AddOperation, Patch, PatchOperation, ReplaceOperation, jsonptr::PointerBuf};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::ResourceExt as _;
use policy::names;
use serde::Serialize;

use super::decide::{Plan, There};

pub use self::{
    environment::{NotReplaced, SetBy},
    volumes::NAMES as VOLUMES,
};

/// What a pod is to become.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// The change; empty when the pod is as planned.
    pub patch: Patch,
    /// Containers whose `REDIS_URL` leads elsewhere.
    pub not_replaced: Vec<NotReplaced>,
}

/// Builds the patch.
pub fn build(pod: &Pod, plan: &Plan) -> Built {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let mut changes = Changes::default();
    label(pod, plan, &mut changes);
    let not_replaced = environment::set(spec, plan, &mut changes);
    volumes::add(spec, plan, &mut changes);
    sidecar(spec, plan, &mut changes);
    Built {
        patch: Patch(changes.0),
        not_replaced,
    }
}

fn label(pod: &Pod, plan: &Plan, changes: &mut Changes) {
    if pod.labels().get(names::INJECTED) == Some(&plan.tier.name) {
        return;
    }
    let tier = &plan.tier.name;
    if pod.metadata.labels.is_some() {
        changes.add(["metadata", "labels", names::INJECTED], tier);
    } else {
        let labels = serde_json::json!({ names::INJECTED: tier });
        changes.add(["metadata", "labels"], &labels);
    }
}

fn sidecar(spec: &PodSpec, plan: &Plan, changes: &mut Changes) {
    let at = plan.at.to_string();
    let path = ["spec", "initContainers", at.as_str()];
    match plan.there {
        There::Nothing if spec.init_containers.is_none() => {
            changes.add(["spec", "initContainers"], &[container::build(plan)]);
        }
        There::Nothing => changes.add(path, &container::build(plan)),
        There::Other => changes.replace(path, &container::build(plan)),
        There::Ours => {
            // Others may have added to the container, and that is theirs. But one that does not
            // restart is waited for by the rest of the pod, for ever.
            let init = spec.init_containers.as_deref().unwrap_or_default();
            let restart = init.get(plan.at).and_then(|one| one.restart_policy.clone());
            if restart.as_deref() != Some("Always") {
                let path = ["spec", "initContainers", at.as_str(), "restartPolicy"];
                changes.add(path, "Always");
            }
        }
    }
}

/// The containers that can use the sidecar, each with its path: those of the app, and the init
/// containers that start after it.
fn clients<'a>(spec: &'a PodSpec, plan: &Plan) -> Vec<([String; 3], &'a Container)> {
    let path = |list: &str, index: usize| ["spec".to_owned(), list.to_owned(), index.to_string()];
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init
        .skip(plan.at)
        .filter(|(_, one)| one.name != names::SIDECAR)
        .map(|(index, one)| (path("initContainers", index), one));
    let apps = spec.containers.iter().enumerate();
    init.chain(apps.map(|(index, one)| (path("containers", index), one)))
        .collect()
}

/// The operations, in order.
#[derive(Default)]
struct Changes(Vec<PatchOperation>);

// === impl Changes ===

impl Changes {
    fn add<P: AsRef<str>>(
        &mut self,
        path: impl IntoIterator<Item = P>,
        value: &(impl Serialize + ?Sized),
    ) {
        self.0.push(PatchOperation::Add(AddOperation {
            path: pointer(path),
            value: to_json(value),
        }));
    }

    fn replace<P: AsRef<str>>(
        &mut self,
        path: impl IntoIterator<Item = P>,
        value: &(impl Serialize + ?Sized),
    ) {
        self.0.push(PatchOperation::Replace(ReplaceOperation {
            path: pointer(path),
            value: to_json(value),
        }));
    }

    /// Appends to a list, or makes it.
    fn append(&mut self, list: &[impl AsRef<str>], exists: bool, items: &[impl Serialize]) {
        if items.is_empty() {
            return;
        }
        let list = list.iter().map(AsRef::as_ref);
        if exists {
            for item in items {
                self.add(list.clone().chain(["-"]), item);
            }
        } else {
            self.add(list, items);
        }
    }
}

fn pointer<P: AsRef<str>>(path: impl IntoIterator<Item = P>) -> PointerBuf {
    let parts: Vec<P> = path.into_iter().collect();
    PointerBuf::from_tokens(parts.iter().map(AsRef::as_ref))
}

fn to_json(value: &(impl Serialize + ?Sized)) -> serde_json::Value {
    serde_json::to_value(value).expect("an object of the API is JSON")
}
