//! The harness of the end-to-end tests: real servers, the real sidecar, raw bytes.
//!
//! A test starts a [`RedisServer`], puts a [`Sidecar`] in front of it and talks to both through a
//! [`Wire`]. Everything listens on free ports of the loopback interface and dies with its value.
//! Nothing is installed in the system and no service is started.

pub mod app;
pub mod built;
pub mod clients;
pub mod cluster;
pub mod debian;
pub mod environment;
pub mod faketime;
pub mod history;
pub mod http;
pub mod kubernetes;
pub mod liar;
pub mod live;
pub mod packages;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod random;
pub mod scale;
pub mod sentinel;
pub mod server;
pub mod shard;
pub mod sidecar;
pub mod tls;
pub mod trial;
pub mod wait;
pub mod wire;

pub use cluster::{ClusterOptions, ClusterSet};
pub use liar::{Liar, Lie};
pub use packages::Engine;
pub use sentinel::{SentinelOptions, SentinelSet};
pub use server::{RedisServer, ServerOptions};
pub use shard::{Shard, ShardOptions};
pub use sidecar::{Sidecar, SidecarOptions};
pub use wait::until;
pub use wire::{Value, Wire};
