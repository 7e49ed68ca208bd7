//! Failure behaviour as declared: offline queue, circuit breaker, stale values, reconnecting
//! (S0.14, S2.9, P6, P9).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

#[path = "resilience/circuit.rs"]
mod circuit;
#[path = "resilience/offline_queue.rs"]
mod offline_queue;
#[path = "resilience/reconnect.rs"]
mod reconnect;
#[path = "resilience/stale.rs"]
mod stale;
