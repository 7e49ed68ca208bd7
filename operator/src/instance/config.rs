//! What the operator tells an agent about its instance: the file in the pod's `ConfigMap`.
//!
//! It says what does not depend on the pod; the pod's own name and address come from the
//! environment, passwords from files beside it, roles from Sentinel and from the peers.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};

/// One kind of instance: all pods of a `StatefulSet` read the same file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceConfig {
    /// `namespace/name` of the tier.
    pub tier: String,
    /// UID of the tier: a volume that an earlier tier of the same name left is recognised by it.
    #[serde(default)]
    pub uid: String,
    /// Whether the operator has seen this tier with a primary. Nobody knowing anything is a first
    /// start then no more, but a loss.
    #[serde(default)]
    pub formed: bool,
    /// What the container runs.
    pub kind: Kind,
    /// Port of the server or Sentinel.
    pub port: u16,
    /// The servers of the shard: FQDNs of their pods, in order of their ordinals.
    pub servers: Vec<String>,
    /// Port of those servers.
    pub server_port: u16,
    /// The Sentinels that watch the shard, FQDNs of their pods; empty for Standalone.
    #[serde(default)]
    pub sentinels: Vec<String>,
    /// Port of the Sentinels.
    pub sentinel_port: u16,
    /// By what name Sentinels know the primary.
    pub master_name: String,
    /// Sentinels that must agree; more than half.
    pub quorum: u32,
    /// Whether data survives a restart of the container: what is on the volume is trusted then.
    pub persistent: bool,
    /// Folder of the data and of all files that the agent writes.
    pub data: String,
    /// Folder with the password files `<user>.current` and `<user>.previous`.
    pub auth: String,
    /// Whether the user `default` needs no password (`auth.mode: Disabled`).
    #[serde(default)]
    pub open: bool,
    /// Lines of `redis.conf` in the server's own names; the agent adds role, addresses, users.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Port of the agent's HTTP server, the same in all pods of the tier.
    #[serde(default = "http_port")]
    pub http_port: u16,
    /// The pod's `terminationGracePeriodSeconds`: the agent ends before it.
    #[serde(default = "grace_period")]
    pub grace_period_seconds: u64,
    /// Silence after which a Sentinel takes a server for down.
    #[serde(default = "down_after")]
    pub down_after_milliseconds: u64,
    /// What Sentinels allow a failover.
    #[serde(default = "failover_timeout")]
    pub failover_timeout_milliseconds: u64,
}

const fn http_port() -> u16 {
    8090
}

const fn grace_period() -> u64 {
    60
}

const fn down_after() -> u64 {
    5000
}

const fn failover_timeout() -> u64 {
    20_000
}

/// What a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A Redis or Valkey server.
    Server,
    /// A Sentinel.
    Sentinel,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("{path}: {source}; it is the ConfigMap of the tier, mounted by the operator")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what the operator writes.
    #[error("{path}: {source}; is the operator of another version than this agent?")]
    Parse {
        /// The file.
        path: String,
        /// Why.
        source: serde_yaml::Error,
    },
}

impl InstanceConfig {
    /// Reads the file at `path`.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let shown = || path.display().to_string();
        let text = fs::read_to_string(path).map_err(|source| LoadError::Read {
            path: shown(),
            source,
        })?;
        serde_yaml::from_str(&text).map_err(|source| LoadError::Parse {
            path: shown(),
            source,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A server of a replicated tier with three servers and three Sentinels.
    pub fn server() -> InstanceConfig {
        let text = "
tier: shop/cart
kind: Server
port: 6379
servers: [s0, s1, s2]
serverPort: 6379
sentinels: [w0, w1, w2]
sentinelPort: 26379
masterName: cart-0
quorum: 2
persistent: false
data: /data
auth: /etc/pannier/auth
";
        serde_yaml::from_str(text).expect("the example is complete")
    }

    #[test]
    fn what_older_operators_did_not_write_has_defaults() {
        let config = server();
        assert_eq!(config.http_port, 8090);
        assert_eq!(config.grace_period_seconds, 60);
        assert!(!config.formed);
    }
}
