//! The sidecar, in the order in which a request travels.

pub mod args;
pub mod run;

pub mod listener;
pub mod client;
pub mod resp;
pub mod command;
pub mod engine;
pub mod tier;
pub mod store;
pub mod upstream;

pub mod clock;
pub mod admin;
pub mod config;
pub mod control;
pub mod http;
pub mod metrics;
pub mod state;
pub mod telemetry;
pub mod worker;
