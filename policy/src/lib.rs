//! What a cache rule means.
//!
//! The operator validates and compiles custom resources with this crate, the sidecar runs the
//! result: one meaning of a rule. No I/O and no Kubernetes in here.
//!
//! [`SidecarConfig::from_yaml`] reads the configuration file, [`Policy::compile`] checks it and
//! compiles its rules, [`Policy::find`] gives the rule of a key.
#![deny(missing_docs)]

pub mod broadcast;
pub mod compile;
pub mod config;
pub mod glob;
pub mod key_part;
pub mod matcher;
pub mod names;
pub mod pattern;
pub mod read;
pub mod ttl;
pub mod units;

pub use compile::{CompiledRule, Policy, PolicyError, PolicyErrors, Report};
pub use config::SidecarConfig;
pub use matcher::{Matcher, RuleId};
pub use pattern::Pattern;
pub use read::ConfigError;
pub use units::{ByteSize, Span};
