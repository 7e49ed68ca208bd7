//! The failure table: each row of `docs/failure-modes.md` has an id, and a test here whose name
//! begins with it produces the fault and looks at what the app, the metrics and the log say.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

#[path = "failures/away.rs"]
mod away;
#[path = "failures/refusing.rs"]
mod refusing;
#[path = "failures/several.rs"]
mod several;
#[path = "failures/table.rs"]
mod table;
#[path = "failures/values.rs"]
mod values;

use e2e::{RedisServer, Sidecar, SidecarOptions, Wire, wait};
use serde_json::json;

/// A rule for cached keys, and limits that suit tests.
fn before(server: &RedisServer) -> SidecarOptions {
    limited(SidecarOptions::before(server))
}

fn limited(options: SidecarOptions) -> SidecarOptions {
    options
        .rule("cached", "c:{id}", json!({}))
        .config(json!({"resilience": {"commandTimeout": "300ms", "maxRetries": 0}}))
}

fn until_works(app: &mut Wire) {
    wait::until_true("commands work", || app.run("SET probe v") == "OK");
}

fn log_says(sidecar: &Sidecar, words: &str) {
    wait::until_true(&format!("the log says {words:?}"), || {
        sidecar.log().contains(words)
    });
}

/// Runs a command until its reply begins like that.
fn until_says(app: &mut Wire, command: &str, begins: &str) {
    let mut last = String::new();
    wait::until_true(&format!("{command} says {begins:?}, not {last:?}"), || {
        last = app.run(command).to_string();
        last.starts_with(begins)
    });
}

fn count(sidecar: &Sidecar, metric: &str, labels: &str) -> f64 {
    sidecar.metric(metric, labels)
}

const NOT_EXECUTED: &str = "-ERR redis is unavailable, the command was not executed: ";
