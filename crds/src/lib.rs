//! The custom resources `CacheTier` and `SessionPolicy`.
//!
//! Types and their schema, the rules that a schema cannot say, presets by environment, and the
//! compilation of manifests to the sidecar's configuration for a run without a cluster. No
//! Kubernetes client in here: the sidecar links this crate.
#![deny(missing_docs)]

pub mod cache_tier;
pub mod condition;
pub mod session_policy;

pub use cache_tier::{CacheTier, CacheTierSpec};
pub use session_policy::{SessionPolicy, SessionPolicySpec};
