//! The operator: what reconciles `CacheTier` and `SessionPolicy`, and the agent that runs as
//! process 1 of every Redis and Sentinel container.

pub mod args;
pub mod install;
pub mod instance;
