//! The invariants of a `CacheTier`, in the order of its fields.

use policy::{ByteSize, Span};
use serde_json::Value;

use super::{
    Invariant, any_of, get, has, is, number, ordered, positive, rule, size, span, transition,
};

/// Settings of redis.conf that have a field of their own or belong to the operator.
const OWN_SETTINGS: [&str; 16] = [
    "appendonly",
    "bind",
    "cluster-enabled",
    "daemonize",
    "databases",
    "dir",
    "logfile",
    "maxmemory",
    "maxmemory-policy",
    "masterauth",
    "port",
    "replicaof",
    "requirepass",
    "save",
    "tls-port",
    "user",
];

/// What a server needs that the operator runs; meaningless where it runs none.
const SERVER_FIELDS: [&str; 9] = [
    "engine",
    "image",
    "shards",
    "replicasPerShard",
    "memory",
    "maxmemoryPolicy",
    "auth",
    "config",
    "pod",
];

/// All invariants of a `CacheTier`.
pub fn cache_tier() -> Vec<Invariant> {
    let mut all = keyspace();
    all.extend(topology());
    all.extend(servers());
    all.extend(changes());
    all.extend(local_and_ttl());
    all.extend(rules());
    all.extend(sidecar());
    all
}

fn keyspace() -> Vec<Invariant> {
    vec![
        rule(
            "",
            "caching",
            "!has(self.caching) || self.caching != 'Disabled' || self.redis.topology != 'None'",
            "caching: Disabled passes commands on to Redis, and redis.topology None has none; remove caching or choose another topology",
            |spec| !is(spec, "caching", "Disabled") || !is(spec, "redis.topology", "None"),
        ),
        rule(
            "",
            "keyspace",
            "self.redis.topology != 'Cluster' || !has(self.keyspace) || !has(self.keyspace.database) || self.keyspace.database == 0",
            "keyspace.database must be 0 with redis.topology Cluster, which has no other database; separate apps by keyspace.prefix",
            |spec| {
                !is(spec, "redis.topology", "Cluster")
                    || number(spec, "keyspace.database").is_none_or(|database| database == 0)
            },
        ),
        rule(
            "",
            "keyspace",
            "!has(self.redis.external) || !has(self.redis.external.mode) || self.redis.external.mode != 'Cluster' || !has(self.keyspace) || !has(self.keyspace.database) || self.keyspace.database == 0",
            "keyspace.database must be 0 with redis.external.mode Cluster, which has no other database; separate apps by keyspace.prefix",
            |spec| {
                !is(spec, "redis.external.mode", "Cluster")
                    || number(spec, "keyspace.database").is_none_or(|database| database == 0)
            },
        ),
    ]
}

fn topology() -> Vec<Invariant> {
    let no_server = "self.topology in ['None', 'External']";
    let mut all = vec![
        rule(
            "redis",
            "topology",
            "self.topology != 'External' || has(self.external)",
            "redis.external is missing; topology External needs redis.external.urlSecretRef with the URL of the server",
            |redis| !is(redis, "topology", "External") || has(redis, "external"),
        ),
        rule(
            "redis",
            "external",
            "!has(self.external) || self.topology == 'External'",
            "redis.external is only for topology External; set redis.topology to External or remove redis.external",
            |redis| !has(redis, "external") || is(redis, "topology", "External"),
        ),
        rule(
            "redis.external",
            "sentinelMasterName",
            "(has(self.mode) && self.mode == 'Sentinel') == has(self.sentinelMasterName)",
            "redis.external.sentinelMasterName belongs to redis.external.mode Sentinel; give both or neither, a redis-sentinel:// URL ends with #name instead",
            |external| is(external, "mode", "Sentinel") == has(external, "sentinelMasterName"),
        ),
        rule(
            "redis.external",
            "sentinelPasswordSecretRef",
            "!has(self.sentinelPasswordSecretRef) || (has(self.mode) && self.mode == 'Sentinel')",
            "redis.external.sentinelPasswordSecretRef belongs to redis.external.mode Sentinel; set the mode or remove it",
            |external| {
                !has(external, "sentinelPasswordSecretRef") || is(external, "mode", "Sentinel")
            },
        ),
        rule(
            "redis.external",
            "replicaReads",
            "!has(self.replicaReads) || !has(self.mode) || self.mode == 'Cluster'",
            "redis.external.replicaReads belongs to redis.external.mode Cluster; set the mode or remove it",
            |external| {
                !has(external, "replicaReads")
                    || !has(external, "mode")
                    || is(external, "mode", "Cluster")
            },
        ),
        rule(
            "redis",
            "tls",
            "!has(self.tls) || self.topology != 'None'",
            "redis.tls has no effect with topology None, which has no connection to encrypt; remove redis.tls",
            |redis| !has(redis, "tls") || !is(redis, "topology", "None"),
        ),
        rule(
            "redis",
            "persistence",
            format!("!has(self.persistence) || !({no_server})"),
            "redis.persistence has no effect with topology None or External, where no server is run for you; remove it",
            |redis| !has(redis, "persistence") || !any_of(redis, "topology", &["None", "External"]),
        ),
    ];
    let absent: Vec<String> = SERVER_FIELDS
        .iter()
        .map(|field| format!("!has(self.{field})"))
        .collect();
    all.push(rule(
        "redis",
        "topology",
        format!("!({no_server}) || ({})", absent.join(" && ")),
        format!(
            "topology None and External run no server; remove from redis: {}",
            SERVER_FIELDS.join(", ")
        ),
        |redis| {
            !any_of(redis, "topology", &["None", "External"])
                || SERVER_FIELDS.iter().all(|field| !has(redis, field))
        },
    ));
    all
}

fn servers() -> Vec<Invariant> {
    let settings = OWN_SETTINGS.map(|name| format!("'{name}'")).join(", ");
    vec![
        rule(
            "redis",
            "shards",
            "!has(self.shards) || self.topology in ['Cluster', 'None', 'External']",
            "redis.shards is only for topology Cluster; Standalone and Replicated have one shard, remove redis.shards",
            |redis| {
                !has(redis, "shards") || any_of(redis, "topology", &["Cluster", "None", "External"])
            },
        ),
        rule(
            "redis",
            "shards",
            "self.topology != 'Cluster' || !has(self.shards) || self.shards >= 3",
            "redis.shards must be at least 3 with topology Cluster, which needs a majority of shards to fail over; use Replicated for one shard",
            |redis| {
                !is(redis, "topology", "Cluster")
                    || number(redis, "shards").is_none_or(|shards| shards >= 3)
            },
        ),
        rule(
            "redis",
            "replicasPerShard",
            "self.topology != 'Standalone' || !has(self.replicasPerShard) || self.replicasPerShard == 0",
            "redis.replicasPerShard must be 0 with topology Standalone; use Replicated for one primary with replicas",
            |redis| {
                !is(redis, "topology", "Standalone")
                    || number(redis, "replicasPerShard").is_none_or(|replicas| replicas == 0)
            },
        ),
        rule(
            "redis",
            "replicasPerShard",
            "self.topology != 'Replicated' || !has(self.replicasPerShard) || self.replicasPerShard >= 1",
            "redis.replicasPerShard must be at least 1 with topology Replicated; use Standalone for a single server",
            |redis| {
                !is(redis, "topology", "Replicated")
                    || number(redis, "replicasPerShard").is_none_or(|replicas| replicas >= 1)
            },
        ),
        rule(
            "redis",
            "config",
            format!("!has(self.config) || self.config.all(name, !(name in [{settings}]))"),
            format!(
                "redis.config must not set what has a field of its own or belongs to the operator; remove from redis.config: {}",
                OWN_SETTINGS.join(", ")
            ),
            |redis| {
                OWN_SETTINGS.iter().all(|name| {
                    get(redis, "config").is_none_or(|config| config.get(name).is_none())
                })
            },
        ),
        rule(
            "redis.auth",
            "passwordSecretRef",
            "(self.mode == 'Secret') == has(self.passwordSecretRef)",
            "redis.auth.passwordSecretRef belongs to redis.auth.mode Secret; give both or neither",
            |auth| is(auth, "mode", "Secret") == has(auth, "passwordSecretRef"),
        ),
        rule(
            "redis.persistence",
            "size",
            "(self.mode == 'None') != has(self.size)",
            "redis.persistence.size is required unless redis.persistence.mode is None, and refused with None; give the size of each server's volume, such as 8Gi",
            |persistence| is(persistence, "mode", "None") != has(persistence, "size"),
        ),
        rule(
            "redis.tls",
            "mode",
            "self.mode == 'Enabled' || !(has(self.caSecretRef) || has(self.clientCertificateSecretName) || has(self.serverName))",
            "redis.tls.mode is Disabled, so the other fields of redis.tls have no effect; remove them or set the mode to Enabled",
            |tls| {
                is(tls, "mode", "Enabled")
                    || !(has(tls, "caSecretRef")
                        || has(tls, "clientCertificateSecretName")
                        || has(tls, "serverName"))
            },
        ),
    ]
}

/// What must not change under data that exists.
fn changes() -> Vec<Invariant> {
    const SERVED: [&str; 3] = ["Standalone", "Replicated", "Cluster"];
    vec![
        transition(
            "redis",
            "topology",
            "(self.topology == 'Cluster') == (oldSelf.topology == 'Cluster') || oldSelf.topology in ['None', 'External']",
            "redis.topology cannot change between Cluster and another topology: keys are laid out differently; create a second CacheTier and move the apps to it",
            |new, old| {
                is(new, "topology", "Cluster") == is(old, "topology", "Cluster")
                    || any_of(old, "topology", &["None", "External"])
            },
        ),
        transition(
            "redis",
            "topology",
            "!(oldSelf.topology in ['Standalone', 'Replicated', 'Cluster']) || self.topology in ['Standalone', 'Replicated', 'Cluster']",
            "redis.topology cannot change to None or External while servers with data are run for it; create a second CacheTier, move the apps to it, then delete this one",
            |new, old| !any_of(old, "topology", &SERVED) || any_of(new, "topology", &SERVED),
        ),
        transition(
            "redis.persistence",
            "size",
            "!has(self.size) || !has(oldSelf.size) || quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
            "redis.persistence.size can only grow; create a second CacheTier for smaller volumes",
            |new, old| match (size(new, "size"), size(old, "size")) {
                (Some(new), Some(old)) => new >= old,
                _ => true,
            },
        ),
        transition(
            "redis.persistence",
            "storageClassName",
            "has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
            "redis.persistence.storageClassName cannot change: volumes keep their class; create a second CacheTier",
            |new, old| get(new, "storageClassName") == get(old, "storageClassName"),
        ),
    ]
}

fn local_and_ttl() -> Vec<Invariant> {
    const SHORTEST: Span = Span::from_millis(10);
    const LONGEST: Span = Span::from_secs(3600);
    const LEAST: ByteSize = ByteSize(1 << 20);
    const MOST: ByteSize = ByteSize(64 << 30);
    let staleness = "duration(self.maxStaleness)";
    vec![
        rule(
            "local",
            "maxStaleness",
            format!(
                "!has(self.maxStaleness) || (!self.maxStaleness.contains('d') && {staleness} >= duration('10ms') && {staleness} <= duration('1h'))"
            ),
            "local.maxStaleness must be between 10ms and 1h, written without days; the default is 1s",
            |local| {
                get(local, "maxStaleness").is_none_or(|text| {
                    text.as_str().is_some_and(|text| !text.contains('d'))
                        && span(local, "maxStaleness")
                            .is_some_and(|span| (SHORTEST..=LONGEST).contains(&span))
                })
            },
        ),
        rule(
            "local",
            "memory",
            "!has(self.memory) || (quantity(self.memory).compareTo(quantity('1Mi')) >= 0 && quantity(self.memory).compareTo(quantity('64Gi')) <= 0)",
            "local.memory must be between 1Mi and 64Gi; use cache: RemoteOnly in rules that need no local copy",
            |local| size(local, "memory").is_none_or(|size| (LEAST..=MOST).contains(&size)),
        ),
        positive("ttl", "default", "remove it to use the preset"),
        positive("ttl", "max", "remove it for no limit"),
        ordered(
            "ttl",
            "default",
            "max",
            "ttl.default must not be longer than ttl.max, which would always shorten it; raise ttl.max or lower ttl.default",
        ),
        positive("resilience", "connectTimeout", "the default is 2s"),
        positive("resilience", "commandTimeout", "the default is 5s"),
        positive("resilience", "backoffBase", "the default is 50ms"),
        positive("resilience", "backoffMax", "the default is 5s"),
        positive("resilience.circuitBreaker", "openFor", "the default is 5s"),
        positive("resilience.offlineQueue", "maxWait", "the default is 5s"),
        ordered(
            "resilience",
            "backoffBase",
            "backoffMax",
            "resilience.backoffBase must not be longer than resilience.backoffMax; pauses grow from the first to the second",
        ),
    ]
}

fn rules() -> Vec<Invariant> {
    const UNTOUCHED: &[&str] = &[
        "ttl",
        "localTtl",
        "negativeTtl",
        "maxValueSize",
        "onWriteError",
        "write",
    ];
    const UNUSED_LOCAL_ONLY: &[&str] = &["localTtl", "negativeTtl", "onWriteError", "write"];
    const UNUSED_REMOTE_ONLY: &[&str] = &["localTtl", "negativeTtl", "maxValueSize"];
    let absent = |fields: &[&str]| {
        let absent: Vec<String> = fields.iter().map(|f| format!("!has(self.{f})")).collect();
        absent.join(" && ")
    };
    let none_of = |fields: &'static [&'static str]| {
        move |rule: &Value| fields.iter().all(|field| !has(rule, field))
    };
    let mut all = vec![
        positive(
            "rules[]",
            "ttl",
            "use cache: Bypass for keys that must not be cached",
        ),
        positive(
            "rules[]",
            "localTtl",
            "use cache: RemoteOnly for keys without a local copy",
        ),
        positive("rules[]", "negativeTtl", "remove it to remember no misses"),
        positive(
            "rules[].stale",
            "ifError",
            "remove it to serve no stale values",
        ),
        rule(
            "rules[]",
            "stale",
            "!has(self.stale) || !has(self.stale.ifError) || !has(self.cache) || self.cache == 'Both'",
            "rules[].stale.ifError needs cache: Both, where there is a local entry to serve while Redis fails; remove it or change cache",
            |rule| !has(rule, "stale.ifError") || !has(rule, "cache") || is(rule, "cache", "Both"),
        ),
    ];
    for (mode, fields, why) in [
        ("Bypass", UNTOUCHED, "passes keys through untouched"),
        ("Deny", UNTOUCHED, "refuses keys"),
        (
            "LocalOnly",
            UNUSED_LOCAL_ONLY,
            "keeps keys in memory only, where ttl alone counts",
        ),
        ("RemoteOnly", UNUSED_REMOTE_ONLY, "keeps no local copy"),
    ] {
        let unused = none_of(fields);
        all.push(rule(
            "rules[]",
            "cache",
            format!(
                "!has(self.cache) || self.cache != '{mode}' || ({})",
                absent(fields)
            ),
            format!(
                "rules[].cache: {mode} {why}; remove from the rule: {}",
                fields.join(", ")
            ),
            move |rule| !is(rule, "cache", mode) || unused(rule),
        ));
    }
    all
}

fn sidecar() -> Vec<Invariant> {
    const PORTS: [(&str, u64); 3] = [("redis", 6379), ("http", 6380), ("admin", 9464)];
    let port =
        |(name, default): (&str, u64)| format!("(has(self.{name}) ? self.{name} : {default})");
    let [redis, http, admin] = PORTS.map(port);
    let mut all = vec![rule(
        "sidecar.ports",
        "",
        format!("{redis} != {http} && {redis} != {admin} && {http} != {admin}"),
        "sidecar.ports must all be different; the defaults are redis 6379, http 6380, admin 9464",
        |ports| {
            let [redis, http, admin] =
                PORTS.map(|(name, default)| number(ports, name).unwrap_or(default));
            redis != http && redis != admin && http != admin
        },
    )];
    all.extend(["cpu", "memory"].map(request_within_limit));
    // A sidecar that has less is killed before it serves; no node has more.
    all.push(memory_within("limits", "32Mi", "1Ti"));
    all.push(memory_within("requests", "0", "1Ti"));
    all
}

/// The API server refuses every pod with a larger request than limit: better that it refuses the
/// tier.
fn request_within_limit(what: &'static str) -> Invariant {
    let [request, limit] = ["requests", "limits"].map(|side| format!("{side}.{what}"));
    rule(
        "sidecar.resources",
        "requests",
        format!(
            "!has(self.requests) || !has(self.limits) || !has(self.{request}) || !has(self.{limit}) || quantity(self.{request}).compareTo(quantity(self.{limit})) <= 0"
        ),
        format!(
            "sidecar.resources.{request} must not be larger than sidecar.resources.{limit}; lower the one or raise the other"
        ),
        move |resources| {
            let amount = |path: &str| amount(get(resources, path)?.as_str()?);
            match (amount(&request), amount(&limit)) {
                (Some(request), Some(limit)) => request <= limit,
                _ => true,
            }
        },
    )
}

/// An amount of memory that a pod can have.
fn memory_within(side: &'static str, least: &'static str, most: &'static str) -> Invariant {
    let memory = format!("{side}.memory");
    let compared = |bound: &str| format!("quantity(self.{memory}).compareTo(quantity('{bound}'))");
    rule(
        "sidecar.resources",
        side,
        format!(
            "!has(self.{side}) || !has(self.{memory}) || ({} >= 0 && {} <= 0)",
            compared(least),
            compared(most)
        ),
        format!(
            "sidecar.resources.{memory} must be from {least} to {most}; give an amount in between"
        ),
        move |resources| {
            let given = get(resources, &memory)
                .and_then(Value::as_str)
                .and_then(amount);
            given.is_none_or(|given| {
                let [least, most] = [least, most].map(|bound| amount(bound).unwrap_or_default());
                given >= least && given <= most
            })
        },
    )
}

/// Bytes, or cores: `500m`, `0.5`.
fn amount(text: &str) -> Option<f64> {
    if let Ok(ByteSize(bytes)) = text.parse() {
        #[expect(
            clippy::cast_precision_loss,
            reason = "amounts that differ in the 53rd bit only are equal to a person"
        )]
        return Some(bytes as f64);
    }
    match text.strip_suffix('m') {
        Some(milli) => milli.parse().ok().map(|milli: f64| milli / 1000.0),
        None => text.parse().ok(),
    }
}
