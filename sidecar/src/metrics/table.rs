//! Every metric of the sidecar: its name, type, labels and meaning. `export` fills them; the page
//! `docs/reference/metrics.md` is made from this table.
//!
//! Labels are bounded: commands of the built-in table, names of rules, and words listed here.
//! Never a key.

use std::fmt::Write as _;

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $id: Metric =
            Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        /// All metrics, in the order of the page.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    CACHE_REQUESTS Counter "pannier_cache_requests_total" ["tier", "result"]
        "Cacheable reads of keys with a rule. tier is always l1, the local tier; result is hit (answered locally) or miss (asked Redis).";
    CACHE_FILLS Counter "pannier_cache_fills_total" ["result"]
        "Replies that could have been kept locally: kept, or overtaken by a change and therefore not kept.";
    CACHE_COALESCED Counter "pannier_cache_coalesced_reads_total" []
        "Reads that joined one of the same key that was under way.";
    CACHE_EVICTIONS Counter "pannier_cache_evictions_total" ["reason"]
        "Local entries dropped; reason is size: to stay below the limit.";
    CACHE_ENTRIES Gauge "pannier_cache_entries" []
        "Local entries, expired ones that nobody asked for again included.";
    CACHE_USED Gauge "pannier_cache_memory_used_bytes" []
        "Bytes of the local tier, keys and bookkeeping included.";
    CACHE_MAX Gauge "pannier_cache_memory_max_bytes" []
        "Most bytes that the local tier may take: local.memory.";
    CACHE_FLUSHES Counter "pannier_cache_flushes_total" ["reason"]
        "The local tier was emptied as a whole: link_lost (a tracked connection broke), server_flush (FLUSHALL or FLUSHDB somewhere), doubt (an unexpected answer), unknown_write (a write whose keys are not known), policy_change, slot_moved (a server of a cluster lost a slot: what was read from it).";
    CACHE_TOUCHES Counter "pannier_cache_touches_total" []
        "Hot local keys that were touched in Redis, so that its own LRU or LFU does not evict them.";
    INVALIDATIONS Counter "pannier_invalidations_received_total" []
        "Keys in invalidations that Redis pushed.";
    STALENESS Histogram "pannier_observed_staleness_seconds" ["since"]
        "Measured about once a second on each tracked connection with a key of the sidecar's own: until the invalidation of a write arrived, since sent (an upper bound of staleness) and since answered (zero if the invalidation came first).";
    PROBES Counter "pannier_staleness_probes_total" ["result"]
        "These measurements: measured, lost (a later answer came and the invalidation did not; the local tier was flushed), refused (Redis would not GET or SET the keys pannier:probe:*).";
    SAMPLES Counter "pannier_samples_total" []
        "Local hits compared with Redis: one in ten thousand, at least about two a second.";
    STALE_SAMPLES Counter "pannier_stale_samples_total" ["rule"]
        "Of these, those that differed though no invalidation had come: the local tier was wrong. It serves nothing from then on, see pannier_local_mode.";
    SHADOW_HITS Counter "pannier_shadow_hits_total" ["rule"]
        "Reads of keys in shadow (local.mode Shadow, or outside of local.rampPercent) that the local tier would have answered. Compare with pannier_rule_requests_total, result miss.";
    SHADOW_MISMATCHES Counter "pannier_shadow_mismatches_total" ["rule"]
        "Of these, those that Redis answered otherwise though no invalidation had come.";
    LOCAL_MODE Gauge "pannier_local_mode" ["mode"]
        "1 for the mode that holds: Active, Shadow (as declared), FellBack (Shadow since a stale local value was found).";
    SAMPLED_INVALIDATIONS Counter "pannier_invalidations_sampled_total" ["result"]
        "Invalidations of local strings, at most two a second on each event loop, after which the value was read again: changed, or same. Many of the same mean that Redis announces what did not happen, because its table of tracked keys is full, or that values are written again as they were.";
    TRACKING_KEYS Gauge "pannier_tracking_table_keys" []
        "Keys that Redis tracks for all its clients, as INFO says; in front of a cluster on the shard whose table is fullest. Absent while unknown.";
    TRACKING_MAX_KEYS Gauge "pannier_tracking_table_max_keys" []
        "tracking-table-max-keys of Redis; above it changes are announced that did not happen. 0: no limit. Absent while unknown.";
    COHERENCE Gauge "pannier_coherence_state" ["state"]
        "1 for the state that holds: idle (nothing is kept on behalf of Redis), tracking, broadcast, ttl_only, degraded (the local tier is off, /state says why).";

    RULE_REQUESTS Counter "pannier_rule_requests_total" ["rule", "result"]
        "As pannier_cache_requests_total, by rule. Series of a rule end when the rule is gone.";
    RULE_FILLS Counter "pannier_rule_fills_total" ["rule", "result"]
        "As pannier_cache_fills_total, by rule.";
    STALE Counter "pannier_stale_served_total" ["rule", "reason"]
        "Reads answered by a local entry that was not current, as stale.ifError allows: disconnected (no tracked connection), unproven (Redis was silent), unanswered (the read was sent and got no answer), refused (Redis answered that it cannot serve).";
    RULE_MASKED Counter "pannier_rule_masked_write_errors_total" ["rule"]
        "Failed writes that the app was not told of: onWriteError is Log.";
    RULES Gauge "pannier_policy_rules" []
        "Rules in force.";

    COMMANDS Counter "pannier_commands_total" ["cmd", "outcome"]
        "Commands answered; outcome is ok or error. Commands of modules and unknown ones count as other.";
    COMMAND_DURATION Histogram "pannier_command_duration_seconds" ["cmd"]
        "From the parsed command to its reply, blocking included. Local hits of one read batch are counted with the duration of the batch.";
    DENIED Counter "pannier_commands_denied_total" []
        "Commands refused by a rule with cache Deny, or because they are not allowed here.";

    CLIENTS Gauge "pannier_connected_clients" []
        "Connections from apps.";
    CONNECTIONS Counter "pannier_connections_total" []
        "Connections that apps opened.";
    REJECTED Counter "pannier_rejected_connections_total" []
        "Connections refused because sidecar.maxClients were open.";
    SLOW_READERS Counter "pannier_slow_readers_closed_total" []
        "Connections closed because the app left more than sidecar.outputLimit unread.";
    PROTOCOL_ERRORS Counter "pannier_protocol_errors_total" []
        "Connections closed because of a malformed request.";
    RECEIVED Counter "pannier_received_bytes_total" []
        "Bytes from apps.";
    SENT Counter "pannier_sent_bytes_total" []
        "Bytes to apps.";

    UPSTREAM_UP Gauge "pannier_upstream_up" []
        "1 if Redis is connected, 0 if not. Absent when the sidecar is memory only.";
    UPSTREAM_DURATION Histogram "pannier_upstream_request_duration_seconds" []
        "From sending a command to Redis to its reply.";
    UPSTREAM_CONNECTS Counter "pannier_upstream_connects_total" []
        "Connections to Redis that were opened.";
    UPSTREAM_ERRORS Counter "pannier_upstream_errors_total" []
        "Connections to Redis that failed or broke.";
    UPSTREAM_RETRIES Counter "pannier_upstream_retries_total" []
        "Idempotent commands sent again after a connection broke.";
    UPSTREAM_REDIRECTS Counter "pannier_upstream_redirects_total" []
        "Commands that a server refused unexecuted (MOVED, ASK, TRYAGAIN, LOADING, READONLY ...) and that were sent on.";

    CIRCUIT Gauge "pannier_circuit_state" ["server", "state"]
        "1 for the state that holds: closed, open (nothing is sent), half_open (a probe is on its way). One set per server behind the sidecar, if resilience.circuitBreaker is declared.";
    CIRCUIT_OPENED Counter "pannier_circuit_opened_total" []
        "Times a circuit opened, or opened again after a probe that failed.";
    OFFLINE_COMMANDS Gauge "pannier_offline_queue_commands" []
        "Commands that wait for Redis to be back: resilience.offlineQueue.";
    OFFLINE_DROPPED Counter "pannier_offline_queue_dropped_total" ["reason"]
        "Commands that failed instead: full (maxCommands waited, or 64 MiB), expired (maxWait was over).";

    UPSTREAM_NODES Gauge "pannier_upstream_nodes" ["role"]
        "Servers that are known; role is primary or replica. Absent when the sidecar is memory only.";
    TOPOLOGY_CHANGES Counter "pannier_topology_changes_total" []
        "Changes of the servers that are known: fail-overs, slots that moved, nodes that came or went.";
    TOPOLOGY_REFUSED Counter "pannier_topology_refused_total" []
        "Descriptions of a cluster that contradict themselves and were refused; what is known stays, the local tier is emptied.";

    MEMORY_KEYS Gauge "pannier_memory_keys" []
        "Keys of memory mode and of rules with cache LocalOnly.";
    MEMORY_USED Gauge "pannier_memory_used_bytes" []
        "Bytes of these keys.";
    MEMORY_MAX Gauge "pannier_memory_max_bytes" []
        "Most bytes that they may take.";
    MEMORY_EVICTIONS Counter "pannier_memory_evictions_total" []
        "Of these keys, those dropped for lack of room.";
    MEMORY_EXPIRED Counter "pannier_memory_expired_total" []
        "Of these keys, those whose time was over.";
    MEMORY_WRITES Counter "pannier_memory_writes_total" []
        "Writes acknowledged in memory only, while Redis was away.";
    MEMORY_DISCARDED Counter "pannier_memory_discarded_writes_total" []
        "Writes acknowledged in memory only that were thrown away when Redis came back.";

    RELOADS Counter "pannier_config_reload_total" ["result"]
        "Changed configurations: applied, or refused because they were bad.";
    RELOAD_OK Gauge "pannier_config_last_reload_successful" []
        "0 while a changed configuration is refused and the old one goes on, else 1.";
    BUILD_INFO Gauge "pannier_build_info" ["version"]
        "1; the version is the label.";
}

/// The page `docs/reference/metrics.md`.
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics of the sidecar\n\n\
         `GET /metrics` on the admin port, 9464 unless configured otherwise. Generated from\n\
         `sidecar/src/metrics/table.rs`; do not edit.\n\n\
         Labels are bounded: `rule` is the name of a rule, `cmd` a Redis command in lower case.\n\
         Keys and values never appear. A histogram has the series `_bucket`, `_sum` and `_count`.\n\n\
         | name | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for Metric {
        name,
        kind,
        labels,
        help,
    } in ALL
    {
        let kind = format!("{kind:?}").to_lowercase();
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            page,
            "| `{name}` | {kind} | {} | {help} |",
            labels.join(", ")
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for metric in ALL {
            let name = metric.name;
            assert!(name.starts_with("pannier_"), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{name}"
            );
            assert_eq!(
                name.ends_with("_seconds"),
                metric.kind == Kind::Histogram,
                "{name}"
            );
            assert!(
                metric.help.ends_with('.') && !metric.help.contains(['|', '\n']),
                "{name}"
            );
        }
        let mut names: Vec<_> = ALL.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    /// `UPDATE=1 cargo test -p pannier-sidecar --lib metrics::table` writes it anew.
    #[test]
    fn the_page_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/metrics.md");
        if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
            std::fs::write(path, reference()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == reference(),
            "docs/reference/metrics.md is stale; run `UPDATE=1 cargo test -p pannier-sidecar --lib metrics::table`"
        );
    }
}
