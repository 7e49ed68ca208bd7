//! The Redis or Valkey of a `CacheTier`: none, one that exists, or one that the operator runs.
//!
//! Only the few fields of Kubernetes' pod types that matter here are repeated: embedding the
//! types whole would make the CRD file too large for a client-side apply.

use std::collections::BTreeMap;

use policy::{ByteSize, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The Redis or Valkey behind the sidecars. One shape for all topologies: shards, each with one
/// primary and its replicas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Redis {
    /// What stands behind the sidecars. None: nothing, each sidecar answers from its own memory.
    /// External: a Redis or Valkey that exists already. Standalone: one server. Replicated: one
    /// primary with replicas and automatic fail-over. Cluster: several shards, each with
    /// replicas.
    pub topology: Topology,
    /// The Redis that exists already; for topology External, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// TLS between sidecars and Redis. Default: none; a `rediss://` URL switches it on as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Which server the operator runs. Default: Valkey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Image of the server. Default: the one that the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 512),
        regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._/:@-]*[A-Za-z0-9])?$")
    )]
    pub image: Option<String>,
    /// Number of shards of a Cluster, 3 to 500. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 500))]
    pub shards: Option<u32>,
    /// Replicas beside each primary, 0 to 5. Default: 1 for Replicated and Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 5))]
    pub replicas_per_shard: Option<u32>,
    /// Memory of each server's container; the data may use three quarters of it. A size in
    /// bytes. Default: 1Gi; 256Mi in Development and Test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// What the server does when its memory is full, in Redis' own words. Sessions and locks
    /// need noeviction or a volatile policy. Default: allkeys-lru.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maxmemory_policy: Option<MaxmemoryPolicy>,
    /// What survives a restart of all servers. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// How sidecars prove who they are. Default: a generated password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Further settings of the server by their names in redis.conf, at most 64; those that have
    /// a field here are refused. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = crate::schema::texts::<64, 512>)]
    pub config: BTreeMap<String, String>,
    /// Regular copies of the data outside the cluster. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
    /// Where and how the server pods run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
}

/// What stands behind the sidecars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum Topology {
    /// Nothing: memory only.
    None,
    /// One server.
    Standalone,
    /// One primary with replicas and automatic fail-over.
    Replicated,
    /// Several shards.
    Cluster,
    /// A Redis that exists already.
    External,
}

/// Which server the operator runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum Engine {
    /// Valkey.
    #[default]
    Valkey,
    /// Redis.
    Redis,
}

/// What the server does when its memory is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(transform = crate::schema::plain_enum)]
pub enum MaxmemoryPolicy {
    /// Writes fail.
    Noeviction,
    /// The least recently used key goes.
    #[default]
    AllkeysLru,
    /// The least often used key goes.
    AllkeysLfu,
    /// Any key goes.
    AllkeysRandom,
    /// The least recently used key with a TTL goes.
    VolatileLru,
    /// The least often used key with a TTL goes.
    VolatileLfu,
    /// Any key with a TTL goes.
    VolatileRandom,
    /// The key with the shortest TTL goes.
    VolatileTtl,
}

/// A Redis that exists already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// Secret with the URL of the server, `redis://[user[:password]@]host[:port][/database]`, or
    /// `rediss://` for TLS. It may list several hosts, `redis://a:26379,b:26379`, for modes
    /// Sentinel and Cluster, and say the mode itself: `redis-sentinel://a,b/0#name`,
    /// `redis-cluster://a,b`. The key in the Secret is `url` unless named.
    pub url_secret_ref: SecretKey,
    /// How servers are found. Standalone: the one in the URL. Sentinel: the Sentinels in the URL
    /// name the primary. Cluster: the nodes in the URL describe the cluster. Default: what the
    /// URL says, else Standalone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ExternalMode>,
    /// Name of the primary in the Sentinels' `sentinel monitor`; for mode Sentinel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub sentinel_master_name: Option<String>,
    /// Secret with the password that the Sentinels themselves ask for; key `password` unless
    /// named. Default: they ask for none. For mode Sentinel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel_password_secret_ref: Option<SecretKey>,
    /// Whether replicas of a cluster answer reads of keys that have no local copy. Such a read may
    /// be as old as the replica is behind, and need not see the app's own last write. Replicas
    /// never fill the local tier. For a cluster only. Default: Never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_reads: Option<ReplicaReads>,
}

/// Whether replicas answer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum ReplicaReads {
    /// Primaries answer everything.
    Never,
    /// Replicas answer where there are some.
    Preferred,
}

/// How the servers of an external Redis are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum ExternalMode {
    /// One server at a fixed address.
    Standalone,
    /// Redis Sentinels name the primary.
    Sentinel,
    /// A Redis Cluster describes itself.
    Cluster,
}

/// One key of a Secret in the namespace of the resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// Name of the Secret.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Key in the Secret. Default: the usual one of the field, see there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub key: Option<String>,
}

/// TLS between sidecars and Redis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Whether connections are encrypted.
    pub mode: TlsMode,
    /// Secret with the certificate authorities to trust, in PEM; key `ca.crt` unless named.
    /// Default: the authorities of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKey>,
    /// Name of a Secret with `tls.crt` and `tls.key`, for servers that ask for a client
    /// certificate. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub client_certificate_secret_name: Option<String>,
    /// Name to expect in the server's certificate. Default: the host of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9.:_-]+$"))]
    pub server_name: Option<String>,
}

/// Whether connections are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum TlsMode {
    /// They are.
    Enabled,
    /// They are not.
    Disabled,
}

/// What survives a restart of all servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Persistence {
    /// None: nothing. Rdb: snapshots. Aof: each write, flushed every second. RdbAndAof: both.
    pub mode: PersistenceMode,
    /// Size of each server's volume; it can grow, never shrink. A size in bytes; required unless
    /// the mode is None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<ByteSize>,
    /// Storage class of the volumes; it cannot change. Default: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub storage_class_name: Option<String>,
    /// What happens to the volumes when the tier is deleted. Default: Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_delete: Option<OnDelete>,
}

/// What is written to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum PersistenceMode {
    /// Nothing.
    None,
    /// Snapshots.
    Rdb,
    /// Each write.
    Aof,
    /// Snapshots and each write.
    RdbAndAof,
}

/// What happens to volumes when the tier is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum OnDelete {
    /// They stay.
    #[default]
    Retain,
    /// They are deleted.
    Delete,
}

/// How sidecars prove who they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Generated: the operator makes a password. Secret: it is in a Secret of yours. Disabled:
    /// none is asked for.
    pub mode: AuthMode,
    /// Secret with the password, key `password` unless named; for mode Secret, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKey>,
}

/// Where the password comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum AuthMode {
    /// The operator makes it.
    Generated,
    /// A Secret of yours.
    Secret,
    /// There is none.
    Disabled,
}

/// Regular copies of the data outside the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// Time from one backup to the next. A duration.
    pub interval: Span,
    /// Backups that are kept, 1 to 365. Default: 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 365))]
    pub keep: Option<u32>,
    /// Where backups go: an S3 URL, `s3://bucket/path`.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^s3://"))]
    pub destination: String,
    /// Name of the Secret with the credentials of the destination.
    #[schemars(length(min = 1, max = 253))]
    pub credentials_secret_name: String,
}

/// Where and how the server pods run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Further labels, at most 32. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = crate::schema::labels::<32>)]
    pub labels: BTreeMap<String, String>,
    /// Further annotations, at most 32. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = crate::schema::texts::<32, 1024>)]
    pub annotations: BTreeMap<String, String>,
    /// Labels of the nodes to run on, at most 32. Default: any node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = crate::schema::labels::<32>)]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes to accept, at most 16. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// Name of the priority class. Default: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub priority_class_name: Option<String>,
    /// Names of the Secrets with which the image is pulled, at most 8. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
        )
    )]
    pub image_pull_secrets: Vec<String>,
    /// CPU of the server container; its memory is redis.memory. Default: 100m reserved, or limits.cpu where that is given; no limit. Each Sentinel reserves 50m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// A taint of nodes to accept, as in a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key of the taint. Default: all keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 316),
        regex(
            pattern = r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
        )
    )]
    pub key: Option<String>,
    /// Equal compares the value, Exists does not. Default: Equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// Value of the taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 63),
        regex(pattern = r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$")
    )]
    pub value: Option<String>,
    /// Effect of the taint. Default: all effects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
}

/// How a toleration compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum TolerationOperator {
    /// The value counts.
    Equal,
    /// Only the key counts.
    Exists,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum TaintEffect {
    /// New pods stay away.
    NoSchedule,
    /// New pods stay away if they can.
    PreferNoSchedule,
    /// Running pods are removed.
    NoExecute,
}

/// CPU and memory of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler reserves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<ResourceAmounts>,
    /// What the container may not exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceAmounts>,
}

/// Amounts of CPU and memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceAmounts {
    /// Cores, `500m` or `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), regex(pattern = r"^[0-9]+(\.[0-9]+)?m?$"))]
    pub cpu: Option<String>,
    /// Memory, a size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
}
