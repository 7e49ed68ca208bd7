//! The sidecar, in the order in which a request travels.

pub mod args;
pub mod run;

pub mod client;
pub mod command;
pub mod engine;
pub mod listener;
pub mod resp;
pub mod store;
pub mod tier;
pub mod upstream;

pub mod admin;
pub mod clock;
pub mod config;
pub mod control;
pub mod discovery;
pub mod http;
pub mod measure;
pub mod metrics;
pub mod planted;
pub mod presence;
pub mod state;
pub mod telemetry;
pub mod worker;
