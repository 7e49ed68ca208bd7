//! `CacheTier`: what may be cached, for how long, and where it lives.
//!
//! The types are the user manual: every field says what it does, its unit, its default and its
//! effect. Fields with a preset are optional here; `resolve` fills them. What a schema cannot
//! say is in `invariants` and `not_yet`.

#![allow(
    clippy::doc_markdown,
    reason = "these texts are shown by kubectl explain, where backticks around words are noise"
)]
#![allow(
    clippy::duplicated_attributes,
    reason = "each printer column has a type of its own"
)]

mod local;
mod redis;
mod rule;
mod sidecar;
mod sources;

use kube::CustomResource;
use policy::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{local::*, redis::*, rule::*, sidecar::*, sources::*};
use crate::condition::CacheTierStatus;

/// A cache for the apps of a namespace: rules by key pattern, the Redis behind them, and the
/// memory in each pod. Apps use it at `redis://localhost:6379`.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "pannier.dev",
    version = "v1alpha1",
    kind = "CacheTier",
    namespaced,
    status = "CacheTierStatus",
    shortname = "ct",
    category = "pannier",
    derive = "PartialEq",
    printcolumn(
        name = "Environment",
        type_ = "string",
        json_path = ".spec.environment"
    ),
    printcolumn(
        name = "Topology",
        type_ = "string",
        json_path = ".spec.redis.topology"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Servers", type_ = "string", json_path = ".status.servers"),
    printcolumn(name = "Primary", type_ = "string", json_path = ".status.primary"),
    printcolumn(
        name = "Sidecars",
        type_ = "integer",
        json_path = ".status.sidecars.live"
    ),
    printcolumn(
        name = "Hit %",
        type_ = "integer",
        json_path = ".status.sidecars.hitRatioPercent"
    ),
    printcolumn(
        name = "Caching",
        type_ = "string",
        json_path = ".spec.caching",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct CacheTierSpec {
    /// Selects the preset for every field that is not given: TTLs, retries, memory, sessions.
    /// The table is in docs/reference/presets.md. Default: Production.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// Disabled passes every command through untouched: no rule, no TTL and no local copy, so
    /// that one set of rules serves every environment. Default: Enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caching: Option<Caching>,
    /// Where keys live in Redis. Default: keys are stored as the app writes them, in database 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyspace: Option<Keyspace>,
    /// The Redis or Valkey behind the sidecars.
    pub redis: Redis,
    /// The local tier: memory in each sidecar that answers hits without the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Local>,
    /// TTLs that hold for all rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Ttl>,
    /// Compression of large values on their way to Redis. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Timeouts, retries, and what apps see while Redis is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resilience: Option<Resilience>,
    /// Commands that take longer than this are logged, with their rule and without their key.
    /// A duration; 0s logs none. Default: 100ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_log_threshold: Option<Span>,
    /// Rules by key pattern, at most 256; the first match wins. A key that no rule matches is
    /// passed through untouched: no TTL, no local copy. Default: no rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub rules: Vec<Rule>,
    /// Sources from which the sidecar fetches a missing key itself, at most 32. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub origins: Vec<Origin>,
    /// Events that apps announce and what each of them invalidates, at most 64. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub events: Vec<Event>,
    /// Entries that are loaded in the background before an app asks, at most 32. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub warm: Vec<Warm>,
    /// Background comparison of cached entries with their origin. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconcile: Option<Reconcile>,
    /// The sidecar process in each pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<Sidecar>,
    /// Objects for Prometheus and its alerts. Default: none are created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<Monitoring>,
    /// Other namespaces whose pods may use this tier, at most 64 names; each of them must agree
    /// by a label of its own. Default: only the tier's own namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_namespaces: Vec<String>,
}

/// Which preset fills the fields that are not given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum Environment {
    /// Long TTLs, five retries.
    #[default]
    Production,
    /// Short TTLs; works on from memory while Redis is away.
    Development,
    /// Very short TTLs, no jitter, one retry.
    Test,
}

/// Whether rules are applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum Caching {
    /// Rules are applied.
    #[default]
    Enabled,
    /// Everything passes through.
    Disabled,
}

/// Where keys live in Redis.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Keyspace {
    /// Put before every key on its way to Redis and taken off on its way back, so that apps
    /// write short keys: with `studytool:production` the app's `user:1` is stored as
    /// `studytool:production:user:1`. Segments of letters, digits, `_`, `.` and `-`, joined by
    /// `:`; the last `:` is added when it is missing. Rules match the key as the app writes it.
    /// While a prefix is set, FLUSHDB, FLUSHALL and SWAPDB are refused. Default: no prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)*:?$")
    )]
    pub prefix: Option<String>,
    /// Version of the data that the app stores, put after the prefix as a segment of its own:
    /// with `v2` the app's `user:1` is stored as `…:v2:user:1`. A new version starts with an empty
    /// cache; keys of the old one fall out by their TTL. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[A-Za-z0-9_.-]+$"))]
    pub schema_version: Option<String>,
    /// Earlier versions that are still read on a miss for a while, at most 4. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 4),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["version"])
    )]
    pub previous_versions: Vec<PreviousVersion>,
    /// Logical database that an app is in until it says SELECT, 0 to 1023. Redis Cluster has
    /// database 0 only. Default: the one in the URL of an external Redis, else 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1023))]
    pub database: Option<u32>,
}

/// An earlier schema version that is still read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviousVersion {
    /// The version, as it stood in schemaVersion.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[A-Za-z0-9_.-]+$"))]
    pub version: String,
    /// How long after the change its keys are still read; then they are removed. A duration.
    pub read_for: Span,
}

/// TTLs that hold for all rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ttl {
    /// TTL for writes of matched keys that carry none, where the rule gives none either. A
    /// duration. Default: 1h in Production, 5m in Development, 1m in Test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Span>,
    /// Longest TTL of a matched key, whoever asks for it: a longer one is shortened, also one
    /// that the app sends. A duration. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Span>,
    /// TTLs given by rules are shortened by a random share of up to this many percent, 0 to 50,
    /// so that entries written together do not expire together. Default: 10; 0 in Test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 50))]
    pub jitter_percent: Option<u8>,
    /// Every TTL written in this resource is multiplied by this many percent, 1 to 1000: 10 in a
    /// development tier keeps the production rules and divides their TTLs by ten. Presets are
    /// not scaled. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub scale_percent: Option<u16>,
}

/// Timeouts, retries, and what apps see while Redis is away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resilience {
    /// What apps see while Redis is away. Error: commands fail with a clear error. Memory: a
    /// bounded store in the sidecar answers, with a warning in the log; when Redis is back it is
    /// the truth again and what was only in memory is dropped and counted. Default: Error;
    /// Memory in Development.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_unavailable: Option<WhenUnavailable>,
    /// Longest wait for a connection to Redis to be ready for use. A duration. Default: 2s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Span>,
    /// Longest wait for a reply of Redis; blocking commands are exempt. A duration. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_timeout: Option<Span>,
    /// How often a command that may be repeated without harm is sent again after its connection
    /// broke, 0 to 10. Writes that could count twice are never repeated. Default: 5 in
    /// Production, 3 in Development, 1 in Test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub max_retries: Option<u8>,
    /// Pause before the first reconnect; doubled each time, with jitter. A duration.
    /// Default: 50ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_base: Option<Span>,
    /// Longest pause between two reconnects. A duration. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_max: Option<Span>,
    /// Stops sending to a Redis that fails again and again. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Keeps commands while Redis is away and sends them, in order, when it is back. Memory mode
    /// answers instead where whenUnavailable is Memory. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline_queue: Option<OfflineQueue>,
}

/// What apps see while Redis is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum WhenUnavailable {
    /// Commands fail with a clear error.
    #[default]
    Error,
    /// A bounded store in memory answers.
    Memory,
}

/// Stops sending to a Redis that fails again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Failures in a row that open the circuit, 1 to 1000: timeouts, broken connections, failed
    /// attempts to connect. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub failures: Option<u32>,
    /// How long nothing is sent; then one probe of the sidecar's own decides. Lengthened by up to
    /// a quarter at random. A duration above 0, up to 1h. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_for: Option<Span>,
}

/// Keeps commands while Redis is away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfflineQueue {
    /// Most commands that wait in one sidecar, of all apps together, 1 to 1000000; the next one
    /// fails. They take at most 64Mi. Default: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_commands: Option<u32>,
    /// Longest wait of a command; then it fails, and was not executed. A duration above 0, up to
    /// 1h. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<Span>,
}

/// Compression of large values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compression {
    /// How values are compressed. Default: Lz4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<CompressionAlgorithm>,
    /// Smaller values are stored as they are. A size in bytes. Default: 1Ki.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<policy::ByteSize>,
}

/// How values are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum CompressionAlgorithm {
    /// Fast, moderate ratio.
    #[default]
    Lz4,
    /// Slower, better ratio.
    Zstd,
}

/// Objects for Prometheus and its alerts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// Whether a PodMonitor for sidecars and servers is created. Default: Disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_monitor: Option<crate::session_policy::Switch>,
    /// Whether a PrometheusRule with the alerts is created. Default: Disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<crate::session_policy::Switch>,
}
