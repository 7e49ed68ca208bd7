//! The sidecar's configuration file: what the operator renders and `--manifests` compiles to.
//!
//! Every value in it is resolved: presets, environment and scale have been applied before.
//! Secrets are never in it, only the paths of the files that hold them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Span};

/// The whole configuration of one sidecar.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SidecarConfig {
    /// The `CacheTier` this was compiled from, as `namespace/name`; shown in logs and `/state`.
    pub tier: String,
    /// Generation of the resources this was compiled from; shown in `/state`.
    pub generation: u64,
    /// `Disabled` passes every command through: no local copy, no TTL, no rule is applied.
    pub caching: Caching,
    /// Where keys live.
    pub keyspace: Keyspace,
    /// The Redis behind the sidecar; absent means memory only.
    pub upstream: Option<Upstream>,
    /// The local tier.
    pub local: Local,
    /// TTLs that hold for all rules.
    pub ttl: Ttl,
    /// Timeouts, retries and what happens without Redis.
    pub resilience: Resilience,
    /// Commands slower than this are logged; `0s` logs none.
    pub slow_log_threshold: Span,
    /// Rules by key pattern; the first match wins.
    pub rules: Vec<Rule>,
    /// The sidecar process itself.
    pub sidecar: Sidecar,
}

/// Whether rules are applied at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Caching {
    /// Rules are applied.
    #[default]
    Enabled,
    /// Every command passes through untouched.
    Disabled,
}

/// Where keys live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Keyspace {
    /// Put before every key on its way to Redis and taken off on its way back, for example
    /// `studytool:production:`. Empty: keys are left as they are.
    pub prefix: String,
    /// Logical database that a client is in before it says `SELECT`.
    pub database: u32,
}

/// The Redis behind the sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upstream {
    /// How the servers are found: `Standalone` is the one at `host`, with `Sentinel` and
    /// `Cluster` it is the first one to ask.
    #[serde(default)]
    pub mode: UpstreamMode,
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    #[serde(default = "Upstream::default_port")]
    pub port: u16,
    /// Further servers to ask, as `host:port`; with `Sentinel` other Sentinels, with `Cluster`
    /// other nodes.
    #[serde(default)]
    pub seeds: Vec<String>,
    /// Which primary the Sentinels watch for us; only with mode `Sentinel`, and needed there.
    #[serde(default)]
    pub sentinel: Option<Sentinel>,
    /// Whether replicas answer reads of keys without a local copy; only with mode `Cluster`.
    #[serde(default)]
    pub replica_reads: ReplicaReads,
    /// File that holds the ACL user name; absent means the `default` user.
    #[serde(default)]
    pub username_file: Option<String>,
    /// File that holds the password; absent means no authentication.
    #[serde(default)]
    pub password_file: Option<String>,
    /// Encrypt the connection.
    #[serde(default)]
    pub tls: Option<Tls>,
}

/// How the servers behind the sidecar are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum UpstreamMode {
    /// One server at a fixed address.
    #[default]
    Standalone,
    /// Redis Sentinels name the primary.
    Sentinel,
    /// A Redis Cluster describes itself.
    Cluster,
}

/// What Sentinels are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sentinel {
    /// The name of the primary in `sentinel monitor`.
    pub master_name: String,
    /// File that holds the ACL user name at the Sentinels; absent means the `default` user.
    pub username_file: Option<String>,
    /// File that holds the password of the Sentinels; absent means that they ask for none. The
    /// password of Redis itself is not sent to them.
    pub password_file: Option<String>,
}

/// Whether replicas answer reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReplicaReads {
    /// Primaries answer everything.
    #[default]
    Never,
    /// Reads of keys that have no local copy go to replicas, which may be behind.
    Preferred,
}

/// TLS towards Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tls {
    /// PEM file with the certificate authorities to trust; absent means those of the system.
    pub ca_file: Option<String>,
    /// PEM file with the client certificate chain, for servers that ask for one.
    pub cert_file: Option<String>,
    /// PEM file with the client's private key.
    pub key_file: Option<String>,
    /// Name to verify in the server's certificate; absent means the host.
    pub server_name: Option<String>,
}

/// The local tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Local {
    /// Upper bound in bytes for all local entries, keys and bookkeeping included.
    pub memory: ByteSize,
    /// How local entries learn of changes in Redis.
    pub coherence: Coherence,
    /// A local value was current in Redis at some moment within this span before it was served.
    pub max_staleness: Span,
    /// Whether hits are served or only counted and compared with Redis.
    pub mode: LocalMode,
    /// Share of keys that are served locally in `Active` mode; the others are as in `Shadow`. A
    /// key is always in or always out, in every sidecar.
    pub ramp_percent: u8,
}

/// Whether the local tier serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LocalMode {
    /// Hits are served.
    #[default]
    Active,
    /// Every read goes to Redis; what would have been a hit is counted and compared.
    Shadow,
}

/// How local entries learn of changes in Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Coherence {
    /// `CLIENT TRACKING`: the server pushes an invalidation for each key that was read.
    #[default]
    Tracking,
    /// `CLIENT TRACKING … BCAST`: the server pushes an invalidation for each change of a key under
    /// the prefixes of the rules, whether it was read or not, and keeps no table of who read what.
    Broadcast,
    /// No invalidation: entries live until their local TTL ends, at most `maxStaleness`.
    TtlOnly,
}

/// TTLs that hold for all rules. They are final: scale and presets have been applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ttl {
    /// TTL for writes of matched keys that carry none and whose rule gives none; absent: no TTL.
    pub default: Option<Span>,
    /// No matched key is written with a longer TTL; absent: no cap.
    pub max: Option<Span>,
    /// TTLs given by rules are shortened by a random share of up to this many percent (0–50), so
    /// that entries written together do not expire together.
    pub jitter_percent: u8,
}

/// Timeouts, retries and what happens without Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resilience {
    /// What the app sees while Redis is away.
    pub when_unavailable: WhenUnavailable,
    /// Longest wait for a TCP, TLS and Redis handshake.
    pub connect_timeout: Span,
    /// Longest wait for a reply; blocking commands are exempt.
    pub command_timeout: Span,
    /// How often an idempotent command is sent again after its connection broke.
    pub max_retries: u8,
    /// First pause before a reconnect; doubled each time, with jitter.
    pub backoff_base: Span,
    /// Longest pause before a reconnect.
    pub backoff_max: Span,
    /// Commands wait while Redis is away; absent: they fail at once.
    pub offline_queue: Option<OfflineQueue>,
    /// Nothing is sent to a server that fails again and again; absent: it is tried on and on.
    pub circuit_breaker: Option<CircuitBreaker>,
}

/// Nothing is sent to a server that fails again and again, until a probe is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CircuitBreaker {
    /// Failures in a row that open the circuit: timeouts, broken and failed connections.
    pub failures: u32,
    /// How long nothing is sent before the sidecar probes; lengthened by up to a quarter at random.
    pub open_for: Span,
}

/// Commands wait while Redis is away and are sent when it is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OfflineQueue {
    /// Most commands that wait, of all apps together; the next one fails.
    pub max_commands: u32,
    /// Longest wait of a command.
    pub max_wait: Span,
}

/// What the app sees while Redis is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenUnavailable {
    /// Commands fail with a clear error.
    #[default]
    Error,
    /// A bounded store in memory answers; on reconnect Redis is the truth again.
    Memory,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rule {
    /// Name of the rule: metric label, log field and answer of `PANNIER.WHY`.
    pub name: String,
    /// Key pattern in segments, `analytics:ghosts:{guildId}:{since}`.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Which tiers hold matching keys.
    pub cache: CacheMode,
    /// TTL in Redis for writes that carry none; absent: `ttl.default`.
    pub ttl: Option<Span>,
    /// Longest life of a local entry; absent: as long as in Redis.
    pub local_ttl: Option<Span>,
    /// How long "there is no such key" is remembered locally; absent: not at all.
    pub negative_ttl: Option<Span>,
    /// Larger values are written to Redis but never kept locally.
    pub max_value_size: Option<ByteSize>,
    /// Whether the app sees an error when a write fails.
    pub on_write_error: OnWriteError,
    /// When a local entry may be served although it is not current; absent: never.
    pub stale: Option<Stale>,
}

/// When a local entry may be served although it is not current.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Stale {
    /// While Redis fails, for so long after it could last be served as current.
    pub if_error: Option<Span>,
}

/// Which tiers hold matching keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum CacheMode {
    /// Redis and the local tier.
    #[default]
    Both,
    /// Only this sidecar's memory; never sent to Redis.
    LocalOnly,
    /// Only Redis; TTLs are applied, nothing is kept locally.
    RemoteOnly,
    /// Passed through untouched: no TTL, no local copy, no per-rule metrics.
    Bypass,
    /// Refused with an error.
    Deny,
}

/// Whether the app sees an error when a write fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnWriteError {
    /// The app gets the error.
    #[default]
    Error,
    /// The loss is logged and counted, and the app gets the reply of a successful write.
    Log,
}

/// The sidecar process itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sidecar {
    /// Number of event loops, each on a thread of its own (1–64).
    pub threads: u8,
    /// Redis protocol, TCP port on `127.0.0.1` and `[::1]`.
    pub redis_port: u16,
    /// HTTP API, TCP port on `127.0.0.1`.
    pub http_port: u16,
    /// Probes and metrics, TCP port on all addresses.
    pub admin_port: u16,
    /// Path of a UNIX socket that speaks the Redis protocol as well.
    pub unix_socket: Option<String>,
    /// File that holds a password which apps must give with `AUTH`; absent: none is asked for.
    pub local_password_file: Option<String>,
    /// Most app connections at a time; one more gets `-ERR max number of clients reached`.
    pub max_clients: u32,
    /// Largest bulk string accepted from an app; a larger one is a protocol error.
    pub max_bulk_size: ByteSize,
    /// Unsent replies that a slow app may pile up before its connection is closed.
    pub output_limit: ByteSize,
    /// How often the sidecar announces itself in Redis, under `pannier:sidecar:…` behind the key
    /// prefix, to be known to the others of its tier; `0s`: not at all.
    pub heartbeat: Span,
    /// Redis commands that are refused unless named here: `SHUTDOWN`, `REPLICAOF`, `FAILOVER`, `DEBUG`.
    pub allow_commands: Vec<String>,
}

// === defaults ===

impl Upstream {
    /// One server at a fixed address, without login and TLS.
    pub fn at(host: impl Into<String>, port: u16) -> Self {
        Self {
            mode: UpstreamMode::Standalone,
            host: host.into(),
            port,
            seeds: Vec::new(),
            sentinel: None,
            replica_reads: ReplicaReads::Never,
            username_file: None,
            password_file: None,
            tls: None,
        }
    }

    /// Everybody who may be asked: the server at `host`, then the seeds.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, u16)> {
        let seeds = self.seeds.iter().filter_map(|seed| host_and_port(seed));
        std::iter::once((self.host.as_str(), self.port)).chain(seeds)
    }

    const fn default_port() -> u16 {
        6379
    }
}

/// `host:port` in its parts; IPv6 addresses stand in brackets.
pub fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then_some((host, port))
}

impl Default for Local {
    fn default() -> Self {
        Self {
            memory: ByteSize(64 << 20),
            coherence: Coherence::Tracking,
            max_staleness: Span::from_secs(1),
            mode: LocalMode::Active,
            ramp_percent: 100,
        }
    }
}

impl Default for Resilience {
    fn default() -> Self {
        Self {
            when_unavailable: WhenUnavailable::Error,
            connect_timeout: Span::from_secs(2),
            command_timeout: Span::from_secs(5),
            max_retries: 3,
            backoff_base: Span::from_millis(50),
            backoff_max: Span::from_secs(5),
            offline_queue: None,
            circuit_breaker: None,
        }
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            failures: 10,
            open_for: Span::from_secs(5),
        }
    }
}

impl Default for OfflineQueue {
    fn default() -> Self {
        Self {
            max_commands: 1000,
            max_wait: Span::from_secs(5),
        }
    }
}

impl Default for Sidecar {
    fn default() -> Self {
        Self {
            threads: 1,
            redis_port: 6379,
            http_port: 6380,
            admin_port: 9464,
            unix_socket: None,
            local_password_file: None,
            max_clients: 10_000,
            max_bulk_size: ByteSize(512 << 20),
            output_limit: ByteSize(64 << 20),
            heartbeat: Span::from_secs(5),
            allow_commands: Vec::new(),
        }
    }
}
