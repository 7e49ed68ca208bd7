//! The Kubernetes that other tests build on: what it must do, and that it leaves nothing behind.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic is the report; clippy.toml covers only functions marked #[test]"
)]

#[path = "kubernetes/admission.rs"]
mod admission;
#[path = "kubernetes/cluster.rs"]
mod cluster;
#[path = "kubernetes/control_plane.rs"]
mod control_plane;
