//! The values that an environment stands for (S2.5, S2.6, S2.9, S2.12), and those that hold in
//! every environment. `resolve` applies them; `reference` prints them.

use policy::{
    ByteSize, Span,
    config::{self, Local, Resilience, Sidecar},
};

use crate::cache_tier::{Environment, WhenUnavailable};

/// What differs from one environment to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// `ttl.default`
    pub default_ttl: Span,
    /// `ttl.jitterPercent`
    pub jitter_percent: u8,
    /// `local.memory`
    pub local_memory: ByteSize,
    /// `resilience.maxRetries`
    pub max_retries: u8,
    /// `resilience.whenUnavailable`
    pub when_unavailable: WhenUnavailable,
    /// `redis.memory`
    pub redis_memory: ByteSize,
    /// `SessionPolicy` `idleTimeout`
    pub session_idle_timeout: Span,
    /// `SessionPolicy` `perUser.max`
    pub sessions_per_user: u32,
}

impl Environment {
    /// All environments, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Production, Self::Development, Self::Test];

    /// The values that this environment stands for.
    pub const fn preset(self) -> Preset {
        match self {
            Self::Production => Preset {
                default_ttl: Span::from_secs(3600),
                jitter_percent: 10,
                local_memory: ByteSize(64 << 20),
                max_retries: 5,
                when_unavailable: WhenUnavailable::Error,
                redis_memory: ByteSize(1 << 30),
                session_idle_timeout: Span::from_secs(2 * 3600),
                sessions_per_user: 5,
            },
            Self::Development => Preset {
                default_ttl: Span::from_secs(300),
                jitter_percent: 10,
                local_memory: ByteSize(64 << 20),
                max_retries: 3,
                when_unavailable: WhenUnavailable::Memory,
                redis_memory: ByteSize(256 << 20),
                session_idle_timeout: Span::from_secs(3600),
                sessions_per_user: 10,
            },
            // No jitter: a test that waits for an expiry should wait for a known time.
            Self::Test => Preset {
                default_ttl: Span::from_secs(60),
                jitter_percent: 0,
                local_memory: ByteSize(16 << 20),
                max_retries: 1,
                when_unavailable: WhenUnavailable::Error,
                redis_memory: ByteSize(256 << 20),
                session_idle_timeout: Span::from_secs(300),
                sessions_per_user: 2,
            },
        }
    }
}

/// Commands slower than this are logged in every environment (S2.11).
pub const SLOW_LOG_THRESHOLD: Span = Span::from_millis(100);
/// Members who lost their connection keep their place for this long.
pub const DISCONNECT_GRACE: Span = Span::from_secs(30);
/// Versions of a session's data (S0.5).
pub const HISTORY_LIMIT: u32 = 10;
/// Life of such a version (S0.5).
pub const HISTORY_TTL: Span = Span::from_secs(3600);
/// Life of an old token after rotation.
pub const ROTATION_GRACE: Span = Span::from_secs(30);
/// A connection that is not renewed for this long is offline (S1.2).
pub const PRESENCE_TTL: Span = Span::from_secs(300);
/// Shards of a Cluster.
pub const CLUSTER_SHARDS: u32 = 3;
/// Replicas beside each primary where there are replicas.
pub const REPLICAS_PER_SHARD: u32 = 1;

/// One line of the table in the documentation: field, then its value per environment.
pub type Row = (&'static str, [String; 3]);

/// The presets as the documentation shows them: those of a `CacheTier`, those of a
/// `SessionPolicy`.
pub fn table() -> (Vec<Row>, Vec<Row>) {
    fn by(field: &'static str, show: impl Fn(Preset) -> String) -> Row {
        (
            field,
            Environment::ALL.map(|environment| show(environment.preset())),
        )
    }
    fn same(field: &'static str, value: &dyn ToString) -> Row {
        (
            field,
            [value.to_string(), value.to_string(), value.to_string()],
        )
    }
    let local = Local::default();
    let resilience = Resilience::default();
    let sidecar = Sidecar::default();
    let tier = vec![
        same("caching", &"Enabled"),
        same("local.coherence", &format!("{:?}", local.coherence)),
        same("local.maxStaleness", &local.max_staleness),
        by("local.memory", |p| p.local_memory.to_string()),
        same("local.mode", &format!("{:?}", local.mode)),
        same("local.rampPercent", &local.ramp_percent),
        by("ttl.default", |p| p.default_ttl.to_string()),
        same("ttl.max", &"no limit"),
        by("ttl.jitterPercent", |p| p.jitter_percent.to_string()),
        same("ttl.scalePercent", &100),
        by("resilience.whenUnavailable", |p| {
            format!("{:?}", p.when_unavailable)
        }),
        same("resilience.connectTimeout", &resilience.connect_timeout),
        same("resilience.commandTimeout", &resilience.command_timeout),
        by("resilience.maxRetries", |p| p.max_retries.to_string()),
        same("resilience.backoffBase", &resilience.backoff_base),
        same("resilience.backoffMax", &resilience.backoff_max),
        same("slowLogThreshold", &SLOW_LOG_THRESHOLD),
        same("sidecar.threads", &sidecar.threads),
        same("sidecar.maxClients", &sidecar.max_clients),
        same("sidecar.maxBulkSize", &sidecar.max_bulk_size),
        same("sidecar.outputLimit", &sidecar.output_limit),
        by("redis.memory", |p| p.redis_memory.to_string()),
        same("redis.shards (Cluster)", &CLUSTER_SHARDS),
        same(
            "redis.replicasPerShard (Replicated, Cluster)",
            &REPLICAS_PER_SHARD,
        ),
    ];
    let sessions = vec![
        by("idleTimeout", |p| p.session_idle_timeout.to_string()),
        same("absoluteTimeout", &"no limit"),
        same("rolling", &"Enabled"),
        by("perUser.max", |p| p.sessions_per_user.to_string()),
        same("perUser.onExceed", &"EvictOldest"),
        same("members.disconnectGrace", &DISCONNECT_GRACE),
        same("history.limit", &HISTORY_LIMIT),
        same("history.ttl", &HISTORY_TTL),
        same("rotation.grace", &ROTATION_GRACE),
        same("presence.ttl", &PRESENCE_TTL),
    ];
    (tier, sessions)
}

impl From<WhenUnavailable> for config::WhenUnavailable {
    fn from(mode: WhenUnavailable) -> Self {
        match mode {
            WhenUnavailable::Error => Self::Error,
            WhenUnavailable::Memory => Self::Memory,
        }
    }
}
