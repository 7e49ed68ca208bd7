//! From what a user wrote to what holds: presets and scale applied, every value given.
//!
//! Pure, and the same for the operator and the local run. It takes a spec that passed
//! validation; it does not refuse anything and knows no Secret.

mod resources;
mod sessions;

use policy::{
    ByteSize, Span,
    config::{self, SidecarConfig},
};

pub use self::{
    resources::{SidecarResources, sidecar_resources},
    sessions::{ResolvedSessions, resolve_sessions},
};
use crate::{
    cache_tier::{
        CacheMode, CacheTierSpec, Caching, CircuitBreaker, Coherence, Engine, Environment,
        Keyspace, Local, LocalMode, MaxmemoryPolicy, OfflineQueue, OnWriteError, Redis, Resilience,
        Rule, Sidecar, Topology, Ttl,
    },
    preset::{self, Preset},
};

/// A tier with every value given.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedTier {
    /// The environment whose preset was used.
    pub environment: Environment,
    /// What stands behind the sidecars.
    pub redis: ResolvedRedis,
    /// The sidecar's configuration without names and without its upstream, which the caller
    /// knows. `keyspace.database` is 0 where the tier says nothing.
    pub config: SidecarConfig,
}

/// The servers with every value given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedRedis {
    /// What stands behind the sidecars.
    pub topology: Topology,
    /// Which server.
    pub engine: Engine,
    /// Number of shards; 0 where no server is run.
    pub shards: u32,
    /// Replicas beside each primary.
    pub replicas_per_shard: u32,
    /// Memory of each server's container.
    pub memory: ByteSize,
    /// What the server does when its memory is full.
    pub maxmemory_policy: MaxmemoryPolicy,
}

/// Applies presets and scale.
pub fn resolve(spec: &CacheTierSpec) -> ResolvedTier {
    let environment = spec.environment.unwrap_or_default();
    let preset = environment.preset();
    let ttl = spec.ttl.clone().unwrap_or_default();
    let scale = Scale(ttl.scale_percent.unwrap_or(100));
    ResolvedTier {
        environment,
        redis: redis(&spec.redis, &preset),
        config: SidecarConfig {
            tier: String::new(),
            generation: 0,
            caching: match spec.caching.unwrap_or_default() {
                Caching::Enabled => config::Caching::Enabled,
                Caching::Disabled => config::Caching::Disabled,
            },
            keyspace: keyspace(&spec.keyspace.clone().unwrap_or_default()),
            upstream: None,
            local: local(
                &spec.local.clone().unwrap_or_default(),
                memory_limit(spec),
                &preset,
            ),
            ttl: self::ttl(&ttl, scale, &preset),
            resilience: resilience(&spec.resilience.clone().unwrap_or_default(), &preset),
            slow_log_threshold: spec
                .slow_log_threshold
                .unwrap_or(preset::SLOW_LOG_THRESHOLD),
            rules: spec.rules.iter().map(|r| rule(r, scale)).collect(),
            sidecar: sidecar(&spec.sidecar.clone().unwrap_or_default()),
        },
    }
}

/// `ttl.scalePercent`: for what the user wrote, not for presets, which fit their environment.
#[derive(Clone, Copy)]
struct Scale(u16);

impl Scale {
    fn of(self, span: Span) -> Span {
        let millis = span.0.as_millis() * u128::from(self.0) / 100;
        // Never down to 0, which would mean something else.
        Span::from_millis(u64::try_from(millis).unwrap_or(u64::MAX).max(1))
    }
}

fn redis(redis: &Redis, preset: &Preset) -> ResolvedRedis {
    let (shards, replicas) = match redis.topology {
        Topology::None | Topology::External => (0, 0),
        Topology::Standalone => (1, 0),
        Topology::Replicated => (1, preset::REPLICAS_PER_SHARD),
        Topology::Cluster => (preset::CLUSTER_SHARDS, preset::REPLICAS_PER_SHARD),
    };
    ResolvedRedis {
        topology: redis.topology,
        engine: redis.engine.unwrap_or_default(),
        shards: redis.shards.unwrap_or(shards),
        replicas_per_shard: redis.replicas_per_shard.unwrap_or(replicas),
        memory: redis.memory.unwrap_or(preset.redis_memory),
        maxmemory_policy: redis.maxmemory_policy.unwrap_or_default(),
    }
}

/// The prefix as it stands before each key: `studytool:production:v2:`.
fn keyspace(keyspace: &Keyspace) -> config::Keyspace {
    let mut prefix = String::new();
    for segment in [&keyspace.prefix, &keyspace.schema_version]
        .into_iter()
        .flatten()
    {
        prefix.push_str(segment.trim_end_matches(':'));
        prefix.push(':');
    }
    config::Keyspace {
        prefix,
        database: keyspace.database.unwrap_or_default(),
    }
}

/// The limit that the tier gives the injected container.
fn memory_limit(spec: &CacheTierSpec) -> Option<ByteSize> {
    let resources = spec.sidecar.as_ref()?.resources.as_ref()?;
    resources.limits.as_ref()?.memory
}

fn local(local: &Local, limit: Option<ByteSize>, preset: &Preset) -> config::Local {
    let default = config::Local::default();
    let memory = local.memory.unwrap_or(preset.local_memory);
    config::Local {
        memory: limit.map_or(memory, |limit| memory.min(resources::fits(limit))),
        coherence: match local.coherence.unwrap_or_default() {
            Coherence::Tracking => config::Coherence::Tracking,
            Coherence::Broadcast => config::Coherence::Broadcast,
            Coherence::TtlOnly => config::Coherence::TtlOnly,
        },
        max_staleness: local.max_staleness.unwrap_or(default.max_staleness),
        mode: match local.mode.unwrap_or_default() {
            LocalMode::Active => config::LocalMode::Active,
            LocalMode::Shadow => config::LocalMode::Shadow,
        },
        ramp_percent: local.ramp_percent.unwrap_or(default.ramp_percent),
    }
}

fn ttl(ttl: &Ttl, scale: Scale, preset: &Preset) -> config::Ttl {
    let max = ttl.max.map(|max| scale.of(max));
    let default = match ttl.default {
        Some(default) => scale.of(default),
        // A preset gives way to a cap that the user wrote.
        None => max.map_or(preset.default_ttl, |max| max.min(preset.default_ttl)),
    };
    config::Ttl {
        default: Some(default),
        max,
        jitter_percent: ttl.jitter_percent.unwrap_or(preset.jitter_percent),
    }
}

fn resilience(resilience: &Resilience, preset: &Preset) -> config::Resilience {
    let default = config::Resilience::default();
    // A preset gives way to the one of the two pauses that the user wrote.
    let (base, max) = match (resilience.backoff_base, resilience.backoff_max) {
        (Some(base), Some(max)) => (base, max),
        (Some(base), None) => (base, default.backoff_max.max(base)),
        (None, Some(max)) => (default.backoff_base.min(max), max),
        (None, None) => (default.backoff_base, default.backoff_max),
    };
    config::Resilience {
        when_unavailable: resilience
            .when_unavailable
            .unwrap_or(preset.when_unavailable)
            .into(),
        connect_timeout: resilience
            .connect_timeout
            .unwrap_or(default.connect_timeout),
        command_timeout: resilience
            .command_timeout
            .unwrap_or(default.command_timeout),
        max_retries: resilience.max_retries.unwrap_or(preset.max_retries),
        backoff_base: base,
        backoff_max: max,
        offline_queue: resilience.offline_queue.as_ref().map(offline_queue),
        circuit_breaker: resilience.circuit_breaker.as_ref().map(circuit_breaker),
    }
}

fn circuit_breaker(breaker: &CircuitBreaker) -> config::CircuitBreaker {
    let default = config::CircuitBreaker::default();
    config::CircuitBreaker {
        failures: breaker.failures.unwrap_or(default.failures),
        open_for: breaker.open_for.unwrap_or(default.open_for),
    }
}

fn offline_queue(queue: &OfflineQueue) -> config::OfflineQueue {
    let default = config::OfflineQueue::default();
    config::OfflineQueue {
        max_commands: queue.max_commands.unwrap_or(default.max_commands),
        max_wait: queue.max_wait.unwrap_or(default.max_wait),
    }
}

fn rule(rule: &Rule, scale: Scale) -> config::Rule {
    config::Rule {
        name: rule.name.clone(),
        pattern: rule.pattern.clone(),
        cache: match rule.cache.unwrap_or_default() {
            CacheMode::Both => config::CacheMode::Both,
            CacheMode::LocalOnly => config::CacheMode::LocalOnly,
            CacheMode::RemoteOnly => config::CacheMode::RemoteOnly,
            CacheMode::Bypass => config::CacheMode::Bypass,
            CacheMode::Deny => config::CacheMode::Deny,
        },
        ttl: rule.ttl.map(|span| scale.of(span)),
        local_ttl: rule.local_ttl.map(|span| scale.of(span)),
        negative_ttl: rule.negative_ttl.map(|span| scale.of(span)),
        max_value_size: rule.max_value_size,
        stale: rule.stale.as_ref().map(|stale| config::Stale {
            if_error: stale.if_error,
        }),
        on_write_error: match rule.on_write_error.unwrap_or_default() {
            OnWriteError::Error => config::OnWriteError::Error,
            OnWriteError::Log => config::OnWriteError::Log,
        },
    }
}

fn sidecar(sidecar: &Sidecar) -> config::Sidecar {
    let default = config::Sidecar::default();
    let ports = sidecar.ports.clone().unwrap_or_default();
    config::Sidecar {
        threads: sidecar.threads.unwrap_or(default.threads),
        redis_port: ports.redis.unwrap_or(default.redis_port),
        http_port: ports.http.unwrap_or(default.http_port),
        admin_port: ports.admin.unwrap_or(default.admin_port),
        unix_socket: sidecar.unix_socket.clone(),
        local_password_file: None,
        max_clients: sidecar.max_clients.unwrap_or(default.max_clients),
        max_bulk_size: sidecar.max_bulk_size.unwrap_or(default.max_bulk_size),
        output_limit: sidecar.output_limit.unwrap_or(default.output_limit),
        heartbeat: default.heartbeat,
        allow_commands: sidecar
            .allow_commands
            .iter()
            .map(|command| command.name().to_owned())
            .collect(),
    }
}
