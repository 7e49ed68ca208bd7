//! The operator: what reconciles `CacheTier` and `SessionPolicy`, and the agent that runs as
//! process 1 of every Redis and Sentinel container.
//!
//! In the order of a start: `args` → `settings` → `run` (`leader`, `claim`, `admin`), then per
//! resource `cache_tier` and `session_policy`; beside them `webhook` serves the `injector`.

pub mod admin;
pub mod api_error;
pub mod apply;
pub mod args;
pub mod cache_tier;
pub mod claim;
pub mod client;
pub mod conditions;
pub mod context;
pub mod demo;
pub mod failure;
pub mod fingerprint;
pub mod injector;
pub mod install;
pub mod instance;
pub mod leader;
pub mod listen;
pub mod metrics;
pub mod mount;
pub mod random;
pub mod readiness;
pub mod reply;
pub mod report;
pub mod retry;
pub mod run;
pub mod session_policy;
pub mod settings;
pub mod socket;
pub mod telemetry;
pub mod unreadable;
pub mod user;
pub mod visits;
pub mod watch;
pub mod webhook;
pub mod write_status;
