//! What the settings outside of the rules must not say.

use std::{fmt, ops::RangeInclusive};

use super::{Place, Problems, rule::check_ttl};
use crate::{
    config::{
        Keyspace, ReplicaReads, Resilience, Sentinel, Sidecar, SidecarConfig, Upstream,
        UpstreamMode, host_and_port,
    },
    units::{ByteSize, Span},
};

const MAX_PREFIX_LEN: usize = 128;
/// `sun_path` on Linux holds 108 bytes with the final NUL.
const MAX_SOCKET_PATH_LEN: usize = 107;
const MAX_HOST_LEN: usize = 253;
const MAX_SEEDS: usize = 64;
const MAX_PATH_LEN: usize = 4095;
/// Commands that the sidecar refuses by itself, and that `allowCommands` may name.
const REFUSED_COMMANDS: [&str; 4] = ["SHUTDOWN", "REPLICAOF", "FAILOVER", "DEBUG"];

const KI: u64 = 1 << 10;
const MI: u64 = 1 << 20;
const GI: u64 = 1 << 30;

pub(super) fn check(config: &SidecarConfig, problems: &mut Problems) {
    keyspace(&config.keyspace, problems);
    discovery(config, problems);
    if let Some(upstream) = &config.upstream {
        self::upstream(upstream, problems);
    }
    let memory = config.local.memory;
    range(
        "local.memory",
        memory,
        &(ByteSize(MI)..=ByteSize(1024 * GI)),
        problems,
    );
    let staleness = config.local.max_staleness;
    range(
        "local.maxStaleness",
        staleness,
        &(Span::from_millis(1)..=Span::from_secs(3600)),
        problems,
    );
    range(
        "local.rampPercent",
        config.local.ramp_percent,
        &(0..=100),
        problems,
    );
    for (field, span) in [
        ("ttl.default", config.ttl.default),
        ("ttl.max", config.ttl.max),
    ] {
        if let Some(span) = span {
            check_ttl(at(field), span, problems);
        }
    }
    range(
        "ttl.jitterPercent",
        config.ttl.jitter_percent,
        &(0..=50),
        problems,
    );
    resilience(&config.resilience, problems);
    sidecar(&config.sidecar, problems);
}

fn keyspace(keyspace: &Keyspace, problems: &mut Problems) {
    let prefix = &keyspace.prefix;
    let shown = format!("{prefix:?}");
    if prefix.len() > MAX_PREFIX_LEN {
        let reason = format!("longer than {MAX_PREFIX_LEN} bytes");
        problems.add(
            at("keyspace.prefix"),
            &shown,
            reason,
            "it is stored with every key; shorten it",
        );
    }
    if prefix.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let reason = "it holds a control character or white space";
        problems.add(
            at("keyspace.prefix"),
            &shown,
            reason,
            "use visible characters only",
        );
    }
    if let Some(c) = prefix
        .chars()
        .find(|c| matches!(c, '*' | '?' | '[' | ']' | '\\'))
    {
        let reason = format!("`{c}` is a wildcard in Redis' patterns and ACLs");
        problems.add(
            at("keyspace.prefix"),
            &shown,
            reason,
            "use letters, digits, `:`, `-`, `_` or `.`",
        );
    }
    range(
        "keyspace.database",
        keyspace.database,
        &(0..=16_383),
        problems,
    );
}

/// A host name or an address, and nothing of a URL around it.
fn is_host(host: &str) -> bool {
    let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '/' | '@' | '?' | '#');
    !host.is_empty() && host.len() <= MAX_HOST_LEN && !host.contains(odd)
}

fn upstream(upstream: &Upstream, problems: &mut Problems) {
    let host = &upstream.host;
    if !is_host(host) {
        problems.add(
            at("upstream.host"),
            format_args!("{host:?}"),
            "not a host",
            "give a host name or an IP address, without scheme, port and user",
        );
    }
    range("upstream.port", upstream.port, &(1..=u16::MAX), problems);
    file(
        "upstream.usernameFile",
        upstream.username_file.as_deref(),
        problems,
    );
    file(
        "upstream.passwordFile",
        upstream.password_file.as_deref(),
        problems,
    );
    if let (Some(name), None) = (&upstream.username_file, &upstream.password_file) {
        problems.add(
            at("upstream.usernameFile"),
            format_args!("{name:?}"),
            "a user without a password cannot authenticate",
            "give upstream.passwordFile as well, or remove usernameFile",
        );
    }
    let Some(tls) = &upstream.tls else { return };
    file("upstream.tls.caFile", tls.ca_file.as_deref(), problems);
    file("upstream.tls.certFile", tls.cert_file.as_deref(), problems);
    file("upstream.tls.keyFile", tls.key_file.as_deref(), problems);
    match (&tls.cert_file, &tls.key_file) {
        (Some(cert), None) => problems.add(
            at("upstream.tls.certFile"),
            format_args!("{cert:?}"),
            "a certificate needs its private key",
            "give upstream.tls.keyFile as well",
        ),
        (None, Some(key)) => problems.add(
            at("upstream.tls.keyFile"),
            format_args!("{key:?}"),
            "a private key needs its certificate",
            "give upstream.tls.certFile as well",
        ),
        _ => {}
    }
}

/// What belongs to one way of finding servers and not to another.
fn discovery(config: &SidecarConfig, problems: &mut Problems) {
    let Some(upstream) = &config.upstream else {
        return;
    };
    let mode = upstream.mode;
    let named = format!("{mode:?}");
    match (mode, &upstream.sentinel) {
        (UpstreamMode::Sentinel, None) => problems.add(
            at("upstream.mode"),
            &named,
            "the Sentinels must be told which primary is meant",
            "give upstream.sentinel.masterName, the name in their `sentinel monitor`",
        ),
        (UpstreamMode::Sentinel, Some(sentinel)) => self::sentinel(sentinel, problems),
        (_, Some(_)) => problems.add(
            at("upstream.mode"),
            &named,
            "upstream.sentinel is given as well, and no Sentinel is asked",
            "write upstream.mode: Sentinel, or remove upstream.sentinel",
        ),
        (_, None) => {}
    }
    if mode == UpstreamMode::Standalone && !upstream.seeds.is_empty() {
        problems.add(
            at("upstream.seeds"),
            upstream.seeds.join(","),
            "there is one server at a fixed address, and nobody else to ask",
            "write upstream.mode: Sentinel or Cluster, or remove upstream.seeds",
        );
    }
    if upstream.seeds.len() > MAX_SEEDS {
        problems.add(
            at("upstream.seeds"),
            upstream.seeds.len(),
            format!("more than {MAX_SEEDS} further servers to ask"),
            "name a few: they tell of the others",
        );
    }
    for seed in &upstream.seeds {
        if host_and_port(seed).is_none_or(|(host, _)| !is_host(host)) {
            problems.add(
                at("upstream.seeds"),
                format_args!("{seed:?}"),
                "not host:port",
                "write for example redis-1:6379, or [::1]:6379",
            );
        }
    }
    if mode != UpstreamMode::Cluster && upstream.replica_reads != ReplicaReads::Never {
        problems.add(
            at("upstream.replicaReads"),
            format_args!("{:?}", upstream.replica_reads),
            "replicas are only known in a cluster",
            "write upstream.mode: Cluster, or remove replicaReads",
        );
    }
    if mode == UpstreamMode::Cluster && config.keyspace.database != 0 {
        problems.add(
            at("keyspace.database"),
            config.keyspace.database,
            "a cluster has database 0 only",
            "write 0; separate apps by keyspace.prefix",
        );
    }
}

fn sentinel(sentinel: &Sentinel, problems: &mut Problems) {
    let name = &sentinel.master_name;
    // What `sentinel monitor` accepts: letters, digits, `.`, `-` and `_`.
    let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if name.is_empty() || name.len() > MAX_HOST_LEN || name.contains(odd) {
        problems.add(
            at("upstream.sentinel.masterName"),
            format_args!("{name:?}"),
            "not the name of a primary",
            "write the name in the Sentinels' `sentinel monitor`: letters, digits, `.`, `-`, `_`",
        );
    }
    file(
        "upstream.sentinel.usernameFile",
        sentinel.username_file.as_deref(),
        problems,
    );
    file(
        "upstream.sentinel.passwordFile",
        sentinel.password_file.as_deref(),
        problems,
    );
    if let (Some(name), None) = (&sentinel.username_file, &sentinel.password_file) {
        problems.add(
            at("upstream.sentinel.usernameFile"),
            format_args!("{name:?}"),
            "a user without a password cannot authenticate",
            "give upstream.sentinel.passwordFile as well, or remove usernameFile",
        );
    }
}

fn resilience(resilience: &Resilience, problems: &mut Problems) {
    let least = Span::from_millis(1);
    let minutes = |count: u64| Span::from_secs(count * 60);
    range(
        "resilience.connectTimeout",
        resilience.connect_timeout,
        &(least..=minutes(5)),
        problems,
    );
    range(
        "resilience.commandTimeout",
        resilience.command_timeout,
        &(least..=minutes(60)),
        problems,
    );
    range(
        "resilience.maxRetries",
        resilience.max_retries,
        &(0..=20),
        problems,
    );
    range(
        "resilience.backoffBase",
        resilience.backoff_base,
        &(least..=minutes(1)),
        problems,
    );
    range(
        "resilience.backoffMax",
        resilience.backoff_max,
        &(least..=minutes(10)),
        problems,
    );
    if let Some(queue) = resilience.offline_queue {
        range(
            "resilience.offlineQueue.maxCommands",
            queue.max_commands,
            &(1..=1_000_000),
            problems,
        );
        range(
            "resilience.offlineQueue.maxWait",
            queue.max_wait,
            &(least..=minutes(60)),
            problems,
        );
    }
    if let Some(breaker) = resilience.circuit_breaker {
        range(
            "resilience.circuitBreaker.failures",
            breaker.failures,
            &(1..=1000),
            problems,
        );
        range(
            "resilience.circuitBreaker.openFor",
            breaker.open_for,
            &(least..=minutes(60)),
            problems,
        );
    }
    if resilience.backoff_base > resilience.backoff_max {
        problems.add(
            at("resilience.backoffBase"),
            resilience.backoff_base,
            format!(
                "longer than resilience.backoffMax, {}",
                resilience.backoff_max
            ),
            "the pause grows from backoffBase to backoffMax; make it the smaller of the two",
        );
    }
}

fn sidecar(sidecar: &Sidecar, problems: &mut Problems) {
    range("sidecar.threads", sidecar.threads, &(1..=64), problems);
    range(
        "sidecar.maxClients",
        sidecar.max_clients,
        &(1..=1_000_000),
        problems,
    );
    range(
        "sidecar.maxBulkSize",
        sidecar.max_bulk_size,
        &(ByteSize(KI)..=ByteSize(4 * GI)),
        problems,
    );
    range(
        "sidecar.outputLimit",
        sidecar.output_limit,
        &(ByteSize(KI)..=ByteSize(64 * GI)),
        problems,
    );
    if sidecar.heartbeat != Span::from_secs(0) {
        range(
            "sidecar.heartbeat",
            sidecar.heartbeat,
            &(Span::from_millis(100)..=Span::from_secs(60)),
            problems,
        );
    }
    file(
        "sidecar.localPasswordFile",
        sidecar.local_password_file.as_deref(),
        problems,
    );
    ports(sidecar, problems);
    if let Some(path) = &sidecar.unix_socket {
        let shown = format!("{path:?}");
        if path.len() > MAX_SOCKET_PATH_LEN {
            let reason =
                format!("longer than the {MAX_SOCKET_PATH_LEN} bytes that a socket path may have");
            problems.add(
                at("sidecar.unixSocket"),
                &shown,
                reason,
                "use a shorter path",
            );
        }
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            let reason = "not the absolute path of a file";
            problems.add(
                at("sidecar.unixSocket"),
                &shown,
                reason,
                "give a path such as /run/pannier/redis.sock",
            );
        }
    }
    for command in &sidecar.allow_commands {
        if !REFUSED_COMMANDS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(command))
        {
            problems.add(
                at("sidecar.allowCommands"),
                format_args!("{command:?}"),
                "not a command that is refused unless allowed",
                format!("name some of {}, or remove it", REFUSED_COMMANDS.join(", ")),
            );
        }
    }
}

/// Two listeners on one port; 0 means any free port.
fn ports(sidecar: &Sidecar, problems: &mut Problems) {
    let ports = [
        ("sidecar.redisPort", sidecar.redis_port),
        ("sidecar.httpPort", sidecar.http_port),
        ("sidecar.adminPort", sidecar.admin_port),
    ];
    for (index, (field, port)) in ports.iter().enumerate() {
        let same = ports[..index]
            .iter()
            .find(|(_, other)| other == port && *port != 0);
        if let Some((other, _)) = same {
            let reason = format!("{other} has that port as well");
            problems.add(at(field), port, reason, "give each its own port");
        }
    }
}

fn file(field: &'static str, path: Option<&str>, problems: &mut Problems) {
    let Some(path) = path else { return };
    if path.is_empty() || path.len() > MAX_PATH_LEN || path.contains('\0') {
        let reason = "not the path of a file";
        problems.add(
            at(field),
            format_args!("{path:?}"),
            reason,
            format!("give a path, or remove {field}"),
        );
    }
}

fn range<T: PartialOrd + fmt::Display>(
    field: &'static str,
    value: T,
    allowed: &RangeInclusive<T>,
    problems: &mut Problems,
) {
    if !allowed.contains(&value) {
        let remedy = format!("give a value from {} to {}", allowed.start(), allowed.end());
        problems.add(at(field), value, "out of range", remedy);
    }
}

const fn at(field: &'static str) -> Place {
    Place { rule: None, field }
}
