//! The settings of a server: what the tier's fields mean in redis.conf, and which of them a
//! running server takes over. The agent adds role, addresses, files and users.

use std::collections::BTreeMap;

use crds::cache_tier::PersistenceMode;

use crate::cache_tier::{
    plan::Plan,
    validate::{Servers, ValidatedTier},
};

/// Settings that a server takes over while it runs, by `CONFIG SET`, in Redis 7, Redis 8 and
/// Valkey 8 alike. All others need a new pod. Sorted.
pub const LIVE_SETTINGS: [&str; 62] = [
    "active-defrag-cycle-max",
    "active-defrag-cycle-min",
    "active-defrag-ignore-bytes",
    "active-defrag-max-scan-fields",
    "active-defrag-threshold-lower",
    "active-defrag-threshold-upper",
    "activerehashing",
    "aof-load-truncated",
    "aof-rewrite-incremental-fsync",
    "appendfsync",
    "auto-aof-rewrite-min-size",
    "auto-aof-rewrite-percentage",
    "busy-reply-threshold",
    "client-output-buffer-limit",
    "client-query-buffer-limit",
    "dynamic-hz",
    "hash-max-listpack-entries",
    "hash-max-listpack-value",
    "hll-sparse-max-bytes",
    "hz",
    "jemalloc-bg-thread",
    "latency-monitor-threshold",
    "latency-tracking",
    "lazyfree-lazy-eviction",
    "lazyfree-lazy-expire",
    "lazyfree-lazy-server-del",
    "lazyfree-lazy-user-del",
    "lazyfree-lazy-user-flush",
    "lfu-decay-time",
    "lfu-log-factor",
    "list-compress-depth",
    "list-max-listpack-size",
    "loglevel",
    "lua-time-limit",
    "maxclients",
    "maxmemory",
    "maxmemory-clients",
    "maxmemory-eviction-tenacity",
    "maxmemory-policy",
    "maxmemory-samples",
    "min-replicas-max-lag",
    "min-replicas-to-write",
    "notify-keyspace-events",
    "rdb-save-incremental-fsync",
    "repl-backlog-size",
    "repl-backlog-ttl",
    "repl-disable-tcp-nodelay",
    "repl-diskless-sync",
    "repl-diskless-sync-delay",
    "repl-ping-replica-period",
    "repl-timeout",
    "save",
    "set-max-intset-entries",
    "set-max-listpack-entries",
    "slowlog-log-slower-than",
    "slowlog-max-len",
    "stream-node-max-bytes",
    "stream-node-max-entries",
    "tcp-keepalive",
    "timeout",
    "tracking-table-max-keys",
    "zset-max-listpack-entries",
];

/// Whether a running server takes over a setting.
pub(super) fn is_live(name: &str) -> bool {
    LIVE_SETTINGS.binary_search(&name).is_ok()
}

/// Whether the operator gives a setting to running servers. Two belong to the agent, which raises
/// one of them to freeze a primary.
pub fn is_settable(name: &str) -> bool {
    is_live(name) && !["min-replicas-to-write", "min-replicas-max-lag"].contains(&name)
}

/// All settings of a server; those of `redis.config` win.
pub fn settings(tier: &ValidatedTier, servers: &Servers, plan: &Plan) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        settings.insert(name.to_owned(), value);
    };
    set("maxmemory", servers.maxmemory().to_string());
    set("maxmemory-policy", policy(tier));
    set("databases", servers.databases.to_string());
    let mode = servers
        .persistence
        .as_ref()
        .map_or(PersistenceMode::None, |persistence| persistence.mode);
    let (snapshots, log) = match mode {
        PersistenceMode::None => (false, false),
        PersistenceMode::Rdb => (true, false),
        PersistenceMode::Aof => (false, true),
        PersistenceMode::RdbAndAof => (true, true),
    };
    let save = if snapshots {
        "3600 1 300 100 60 10000"
    } else {
        ""
    };
    set("save", save.to_owned());
    set("appendonly", if log { "yes" } else { "no" }.to_owned());
    set("appendfsync", "everysec".to_owned());
    set("repl-diskless-sync", "yes".to_owned());
    set("repl-diskless-sync-delay", "0".to_owned());
    // Long enough for a short absence, and never a large part of the memory.
    let backlog = (servers.memory.0 / 32).clamp(1 << 20, 256 << 20);
    set("repl-backlog-size", backlog.to_string());
    // With one replica a write would wait for it in vain whenever its pod is replaced.
    let pods = plan.shards.iter().map(|shard| shard.pods).max();
    let waits = pods.unwrap_or_default() >= 3;
    set("min-replicas-to-write", u8::from(waits).to_string());
    set("min-replicas-max-lag", "10".to_owned());
    settings.extend(servers.config.clone());
    settings
}

fn policy(tier: &ValidatedTier) -> String {
    serde_json::to_value(tier.redis.maxmemory_policy)
        .ok()
        .and_then(|value| value.as_str().map(ToOwned::to_owned))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_live_settings_is_sorted() {
        assert!(LIVE_SETTINGS.is_sorted());
        assert!(is_live("maxmemory") && !is_live("databases"));
    }
}
