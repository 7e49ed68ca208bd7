//! The sidecar process as a `CacheTier` describes it.

use policy::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Resources;

/// The sidecar process in each pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// Image of the injected container. Default: the one that the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 512),
        regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._/:@-]*[A-Za-z0-9])?$")
    )]
    pub image: Option<String>,
    /// CPU and memory of the injected container. Without a limit of memory it is made to fit
    /// local.memory: a quarter more and 48Mi. Default: 20m of CPU without a limit, and that memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Number of event loops, each on a thread of its own, 1 to 64. More than one helps only
    /// when a single core cannot carry the app's commands. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub threads: Option<u8>,
    /// TCP ports inside the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
    /// Absolute path of a UNIX socket that speaks the Redis protocol as well, at most 107
    /// characters. In a pod its folder is an empty volume in every container, so it must be one of
    /// its own, such as /run/pannier/redis.sock: not one in which others have something, such as
    /// /tmp, /run or /etc, nor anything in /etc/pannier, /proc, /sys, /dev or /var/run/secrets.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 107), regex(pattern = r"^/[^\s/]+(/[^\s/]+)+$"))]
    pub unix_socket: Option<String>,
    /// Most app connections at a time, 1 to 100000; one more gets
    /// `-ERR max number of clients reached`. Default: 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_clients: Option<u32>,
    /// Largest single value or argument accepted from an app; a larger one is a protocol error.
    /// A size in bytes. Default: 512Mi, as in Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bulk_size: Option<ByteSize>,
    /// Replies that a slow app may leave unread before its connection is closed. A size in
    /// bytes. Default: 64Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_limit: Option<ByteSize>,
    /// Administrative commands that apps may send to Redis; they are refused unless named here.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub allow_commands: Vec<AdminCommand>,
}

/// TCP ports inside the pod; each 1 to 65535, all different.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ports {
    /// Redis protocol, on 127.0.0.1 and ::1. Default: 6379.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub redis: Option<u16>,
    /// HTTP interface, on 127.0.0.1. Default: 6380.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub http: Option<u16>,
    /// Probes and metrics, on all addresses. Default: 9464.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub admin: Option<u16>,
}

/// Commands that are refused unless allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(transform = crate::schema::plain_enum)]
pub enum AdminCommand {
    /// Stops the server.
    Shutdown,
    /// Makes the server a replica.
    Replicaof,
    /// Starts a fail-over.
    Failover,
    /// Debugging commands.
    Debug,
}

impl AdminCommand {
    /// The command as Redis writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shutdown => "SHUTDOWN",
            Self::Replicaof => "REPLICAOF",
            Self::Failover => "FAILOVER",
            Self::Debug => "DEBUG",
        }
    }
}
