//! The sidecar, in the order in which a request travels.

pub mod clock;
pub mod resp;
pub mod tier;
pub mod store;
