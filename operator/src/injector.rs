//! The injector: a mutating admission webhook that puts the sidecar into labelled pods.
//!
//! decode → wish → look up → decide → build → answer → tell. A client is needed for the look-up
//! and for telling only; what is in between is pure. Every replica serves, not only the leader.
//!
//! Rights it needs, beside those of the reconcilers:
//!
//! | where | what | verbs |
//! |---|---|---|
//! | own namespace | Secret `<installation>-webhook` | get, update; create, unless the chart makes an empty one |
//! | cluster, by resourceName | its `MutatingWebhookConfiguration` | get, patch |
//! | watched namespaces | `cachetiers` | get, list, watch |
//! | cluster | `namespaces` | get, list, watch |
//! | namespaces with injected pods | `pods` | list, watch |
//! | | `pods/status` | patch |
//! | | `configmaps`, `secrets` | list, watch: names and labels only |
//! | | `configmaps` | get: metadata only |
//! | | `events` of `events.k8s.io` | create, patch |
//!
//! The webhook has `failurePolicy: Ignore`: whatever goes wrong here, a pod starts all the same.
//! So a patch that the API server would refuse is worse than none: what does not fit is skipped
//! with a reason.

pub mod build;
pub mod decide;
pub mod decode;
pub mod wish;

use std::fmt;

use k8s_openapi::api::core::v1::Pod;

pub use self::{
    build::build,
    decide::{Decision, Found, Plan, decide},
    wish::{Wish, wish},
};

/// One pod that the API server is about to create.
#[derive(Clone, Debug)]
pub struct Request {
    /// What the answer must carry.
    pub uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Nothing may be done beside answering.
    pub dry_run: bool,
    /// The pod, as mutated so far.
    pub pod: Pod,
}

/// Where a tier is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TierName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for TierName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
