//! What a cache rule means.
//!
//! The operator validates and compiles custom resources with this crate, the sidecar runs the
//! result: one meaning of a rule. No I/O and no Kubernetes in here.
#![deny(missing_docs)]

pub mod config;
pub mod matcher;
pub mod pattern;
pub mod units;

pub use config::SidecarConfig;
pub use matcher::{Matcher, RuleId};
pub use pattern::Pattern;
pub use units::{ByteSize, Span};
