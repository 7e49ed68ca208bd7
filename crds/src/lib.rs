//! The custom resources `CacheTier` and `SessionPolicy`.
//!
//! Types and their schema, the rules that a schema cannot say, presets by environment, and the
//! way from manifests to the sidecar's configuration without a cluster, in reading order:
//! `manifest` → `structure` → `validate` (`not_yet`, `invariants`) → `resolve` (`preset`) →
//! `compile`. No Kubernetes client in here: the sidecar links this crate.
#![deny(missing_docs)]

pub mod cache_tier;
pub mod compile;
pub mod condition;
pub mod generated;
pub mod invariants;
pub mod manifest;
pub mod not_yet;
pub mod preset;
pub mod redis_url;
mod reference;
pub mod resolve;
pub mod schema;
pub mod session_policy;
pub mod structure;
pub mod validate;

pub use cache_tier::{CacheTier, CacheTierSpec};
pub use compile::{
    CompileError, Compiled, Credentials, External, Source, compile, named, secrets_named,
};
pub use manifest::{LoadError, Manifests, load_manifests, parse_manifests};
pub use redis_url::{Beside, RedisUrl};
pub use resolve::{ResolvedTier, SidecarResources, resolve, resolve_sessions, sidecar_resources};
pub use session_policy::{SessionPolicy, SessionPolicySpec};
