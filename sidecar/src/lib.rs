//! The sidecar, in the order in which a request travels.

pub mod resp;
