//! Presets by environment, overrides and scale.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic is the report; clippy.toml covers only functions marked #[test]"
)]

use crds::{
    CacheTierSpec, ResolvedTier, SessionPolicySpec,
    cache_tier::{Environment, Topology},
    resolve, resolve_sessions,
    session_policy::OnExceed,
};
use policy::{Span, config};

fn tier(yaml: &str) -> ResolvedTier {
    let spec: CacheTierSpec = serde_yaml::from_str(yaml).unwrap();
    resolve(&spec)
}

#[test]
fn each_environment_has_its_ttl_and_retries_s2_9_s2_12() {
    for (environment, ttl, retries) in [
        ("Production", Span::from_secs(3600), 5),
        ("Development", Span::from_secs(300), 3),
        ("Test", Span::from_secs(60), 1),
    ] {
        let tier = tier(&format!(
            "{{environment: {environment}, redis: {{topology: None}}}}"
        ));
        assert_eq!(tier.config.ttl.default, Some(ttl));
        assert_eq!(tier.config.resilience.max_retries, retries);
    }
    assert_eq!(
        tier("{redis: {topology: None}}").environment,
        Environment::Production
    );
}

#[test]
fn each_environment_has_its_sessions_s2_5_s2_6() {
    let spec: SessionPolicySpec = serde_yaml::from_str("{cacheTierRef: {name: t}}").unwrap();
    for (environment, idle, max) in [
        (Environment::Production, 7200, 5),
        (Environment::Development, 3600, 10),
        (Environment::Test, 300, 2),
    ] {
        let sessions = resolve_sessions(&spec, environment);
        assert_eq!(sessions.idle_timeout, Span::from_secs(idle));
        assert_eq!(sessions.per_user_max, max);
        assert_eq!(sessions.on_exceed, OnExceed::EvictOldest);
        assert!(sessions.rolling);
    }
}

#[test]
fn what_the_user_writes_wins_over_the_preset_s2_12() {
    let tier = tier(
        "{environment: Test, redis: {topology: None}, ttl: {default: 2h, jitterPercent: 25},
          resilience: {maxRetries: 9, whenUnavailable: Memory}, local: {memory: 8Mi, coherence: TtlOnly}}",
    );
    assert_eq!(tier.config.ttl.default, Some(Span::from_secs(7200)));
    assert_eq!(tier.config.ttl.jitter_percent, 25);
    assert_eq!(tier.config.resilience.max_retries, 9);
    assert_eq!(
        tier.config.resilience.when_unavailable,
        config::WhenUnavailable::Memory
    );
    assert_eq!(tier.config.local.memory.0, 8 << 20);
    assert_eq!(tier.config.local.coherence, config::Coherence::TtlOnly);
    let broadcast = self::tier("{redis: {topology: None}, local: {coherence: Broadcast}}");
    assert_eq!(
        broadcast.config.local.coherence,
        config::Coherence::Broadcast
    );
    let spec: SessionPolicySpec =
        serde_yaml::from_str("{cacheTierRef: {name: t}, idleTimeout: 30m, perUser: {max: 3, onExceed: Refuse}, rolling: Disabled}").unwrap();
    let sessions = resolve_sessions(&spec, Environment::Test);
    assert_eq!(sessions.idle_timeout, Span::from_secs(1800));
    assert_eq!(
        (sessions.per_user_max, sessions.on_exceed),
        (3, OnExceed::Refuse)
    );
    assert!(!sessions.rolling);
}

#[test]
fn scale_multiplies_what_is_written_and_not_the_preset_s3_5() {
    let tier = tier(
        "{environment: Development, redis: {topology: None}, ttl: {scalePercent: 10, max: 10h},
          rules: [{name: a, match: a, ttl: 5m, localTtl: 1m, negativeTtl: 5ms}, {name: b, match: b}]}",
    );
    let [first, second] = tier.config.rules.as_slice() else {
        panic!()
    };
    assert_eq!(first.ttl, Some(Span::from_secs(30)));
    assert_eq!(first.local_ttl, Some(Span::from_secs(6)));
    assert_eq!(
        first.negative_ttl,
        Some(Span::from_millis(1)),
        "never down to 0"
    );
    assert_eq!(second.ttl, None);
    assert_eq!(tier.config.ttl.max, Some(Span::from_secs(3600)));
    assert_eq!(tier.config.ttl.default, Some(Span::from_secs(300)));
}

#[test]
fn prefix_and_schema_version_become_one_prefix_s2_1_s2_13() {
    let prefix = |keyspace: &str| {
        tier(&format!(
            "{{redis: {{topology: None}}, keyspace: {keyspace}}}"
        ))
        .config
        .keyspace
        .prefix
    };
    assert_eq!(prefix("{}"), "");
    assert_eq!(
        prefix("{prefix: 'studytool:production'}"),
        "studytool:production:"
    );
    assert_eq!(prefix("{prefix: 'pyramid:dev:'}"), "pyramid:dev:");
    assert_eq!(prefix("{prefix: 'app', schemaVersion: v2}"), "app:v2:");
    assert_eq!(prefix("{schemaVersion: v2}"), "v2:");
}

#[test]
fn a_preset_gives_way_to_the_other_end_that_the_user_wrote() {
    let tier = tier("{redis: {topology: None}, ttl: {max: 10m}, resilience: {backoffMax: 10ms}}");
    assert_eq!(tier.config.ttl.default, Some(Span::from_secs(600)));
    assert_eq!(tier.config.resilience.backoff_base, Span::from_millis(10));
    let spec: SessionPolicySpec = serde_yaml::from_str(
        "{cacheTierRef: {name: t}, absoluteTimeout: 10s, members: {capacity: 2}}",
    )
    .unwrap();
    let sessions = resolve_sessions(&spec, Environment::Production);
    assert_eq!(sessions.idle_timeout, Span::from_secs(10));
    assert_eq!(
        sessions.members.unwrap().disconnect_grace,
        Span::from_secs(10)
    );
}

#[test]
fn servers_have_one_shape_of_shards_and_replicas() {
    for (topology, shards, replicas) in [
        (Topology::None, 0, 0),
        (Topology::External, 0, 0),
        (Topology::Standalone, 1, 0),
        (Topology::Replicated, 1, 1),
        (Topology::Cluster, 3, 1),
    ] {
        let redis = tier(&format!("{{redis: {{topology: {topology:?}}}}}")).redis;
        assert_eq!(
            (redis.shards, redis.replicas_per_shard),
            (shards, replicas),
            "{topology:?}"
        );
    }
    let redis =
        tier("{redis: {topology: Cluster, shards: 5, replicasPerShard: 2, memory: 2Gi}}").redis;
    assert_eq!(
        (redis.shards, redis.replicas_per_shard, redis.memory.0),
        (5, 2, 2 << 30)
    );
}
