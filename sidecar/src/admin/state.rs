//! `/state`: what the sidecar does and how it is, for people. Names and patterns of rules are
//! shown, keys, values and secrets never (P10).

mod measured;
mod topology;

use std::sync::Arc;

use policy::{
    CompiledRule, Span,
    config::{CacheMode, Caching, OnWriteError, Upstream, WhenUnavailable},
};
use serde_json::{Map, Value, json};

use crate::{
    clock::Tick,
    metrics::rules::RuleFigures,
    state::{Active, CoherenceState, Connection, Shared, UpstreamFacts},
    upstream::{
        health::{Circuit, Health},
        offline,
    },
};

pub(super) fn state(shared: &Shared) -> Value {
    let active = shared.active();
    let facts = shared.upstream.facts();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptimeSeconds": Tick::now().millis() / 1000,
        "tier": active.config.tier,
        "generation": active.config.generation,
        "caching": match active.config.caching {
            Caching::Enabled => "Enabled",
            Caching::Disabled => "Disabled",
        },
        "draining": shared.is_draining(),
        "keyspace": {
            "prefix": active.config.keyspace.prefix,
            "database": active.config.keyspace.database,
        },
        "connection": connection(&active, &facts),
        "topology": topology::topology(shared, &active),
        "coherence": coherence(&facts),
        "observedStaleness": measured::staleness(shared),
        "sidecars": measured::sidecars(shared),
        "localTier": local_tier(shared),
        "memory": memory(shared),
        "circuits": circuits(shared, &active),
        "offlineQueue": offline_queue(shared, &active),
        "clients": {
            "connected": shared.clients.len(),
            "max": active.config.sidecar.max_clients,
            "rejected": shared.sum(|counters| &counters.rejected),
        },
        "reload": reload(shared),
        "rules": rules(shared, &active),
        "notes": active.policy.reports().iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// S1.11: in plain words.
fn connection(active: &Active, facts: &UpstreamFacts) -> Value {
    let memory = active.config.resilience.when_unavailable == WhenUnavailable::Memory;
    let (state, words) = match &facts.connection {
        Connection::None => (
            "None",
            "memory only: there is no Redis behind this sidecar".to_owned(),
        ),
        Connection::Connecting => (
            "Connecting",
            "connecting to Redis for the first time".to_owned(),
        ),
        Connection::Ready => ("Ready", "connected and ready".to_owned()),
        Connection::Unavailable(why) if memory => (
            "Unavailable",
            format!("unavailable, running on memory: {why}"),
        ),
        Connection::Unavailable(why) if active.config.resilience.offline_queue.is_some() => (
            "Unavailable",
            format!("unavailable, commands wait in the offline queue: {why}"),
        ),
        Connection::Unavailable(why) => (
            "Unavailable",
            format!("unavailable, commands fail until it is back: {why}"),
        ),
    };
    let mut connection = json!({"state": state, "words": words});
    if let Some(Upstream {
        host, port, tls, ..
    }) = &active.config.upstream
    {
        connection["host"] = json!(host);
        connection["port"] = json!(port);
        connection["tls"] = json!(tls.is_some());
        connection["server"] = known(&facts.server);
        connection["maxmemoryPolicy"] = known(&facts.maxmemory_policy);
    }
    connection
}

fn known(text: &str) -> Value {
    if text.is_empty() {
        Value::Null
    } else {
        json!(text)
    }
}

fn coherence(facts: &UpstreamFacts) -> Value {
    let (name, words) = match &facts.coherence {
        CoherenceState::Idle => (
            "Idle",
            "nothing is kept locally on behalf of Redis".to_owned(),
        ),
        CoherenceState::Tracking => (
            "Tracking",
            "Redis pushes an invalidation for each change".to_owned(),
        ),
        CoherenceState::Broadcast => (
            "Broadcast",
            "Redis announces all changes under the prefixes of the rules".to_owned(),
        ),
        CoherenceState::TtlOnly => (
            "TtlOnly",
            "local entries live until their TTL ends, as declared".to_owned(),
        ),
        CoherenceState::Degraded(why) => (
            "Degraded",
            format!("the local tier is off, commands pass through: {why}"),
        ),
    };
    let table = &facts.tracking_table;
    json!({
        "state": name,
        "words": words,
        // Of the server, for all its clients; null: it does not say. Of several shards the fullest.
        "trackingTable": {
            "server": table.server,
            "keys": table.keys,
            "maxKeys": table.max_keys,
            "items": table.items,
            "prefixes": table.prefixes,
            "clients": table.clients,
            "warning": table.warning(),
        },
    })
}

fn local_tier(shared: &Shared) -> Value {
    let stats = shared.tier.stats();
    let RuleFigures {
        hits,
        misses,
        fills,
        fills_refused,
        shadow_hits,
        shadow_mismatches,
        stale_samples,
        stale,
        ..
    } = RuleFigures::total(&shared.counters);
    let mode = shared.serving.mode();
    json!({
        "mode": mode.name(),
        "words": mode.words(),
        "entries": stats.entries,
        "bytes": stats.bytes,
        "maxBytes": stats.max_bytes,
        "evicted": stats.evicted,
        "hits": hits,
        "misses": misses,
        "hitRate": rate(hits, misses),
        "staleServed": stale.iter().sum::<u64>(),
        "fills": fills,
        "fillsOvertaken": fills_refused,
        "invalidations": shared.sum(|counters| &counters.invalidations),
        "samples": shared.sum(|counters| &counters.samples),
        "staleSamples": stale_samples,
        "wouldBeHits": shadow_hits,
        "wouldBeHitRate": rate(shadow_hits, misses),
        "wouldBeStale": shadow_mismatches,
    })
}

/// Four digits; `null` before the first read.
fn rate(hits: u64, misses: u64) -> Value {
    match hits.saturating_add(misses) {
        0 => Value::Null,
        all => {
            let share = u128::from(hits) * 10_000 / u128::from(all);
            json!(f64::from(u16::try_from(share).unwrap_or(10_000)) / 10_000.0)
        }
    }
}

fn memory(shared: &Shared) -> Value {
    let stats = shared.store.lock().stats();
    json!({
        "keys": stats.keys,
        "bytes": stats.bytes,
        "maxBytes": stats.limit,
        "evicted": stats.evicted,
        "expired": stats.expired,
        "writesAcknowledged": shared.sum(|counters| &counters.memory_writes),
        "writesDiscarded": shared.sum(|counters| &counters.memory_discarded),
    })
}

/// One per server; `null` where no breaker is declared.
fn circuits(shared: &Shared, active: &Active) -> Value {
    if active.config.resilience.circuit_breaker.is_none() {
        return Value::Null;
    }
    let circuit = |server: &Arc<Health>| {
        let state = match server.circuit() {
            Circuit::Closed => "Closed",
            Circuit::Open => "Open",
            Circuit::HalfOpen => "HalfOpen",
        };
        json!({
            "server": &*server.address,
            "state": state,
            "words": server.words(),
            "opened": server.opened(),
        })
    };
    shared.healths.all().iter().map(circuit).collect()
}

/// `null` where none is declared.
fn offline_queue(shared: &Shared, active: &Active) -> Value {
    let Some(limits) = active.config.resilience.offline_queue else {
        return Value::Null;
    };
    let figures = shared.offline.figures();
    json!({
        "commands": figures.commands,
        "bytes": figures.bytes,
        "maxCommands": limits.max_commands,
        "maxBytes": offline::MAX_BYTES,
        "maxWait": limits.max_wait.to_string(),
        "droppedFull": figures.full,
        "droppedExpired": figures.expired,
    })
}

fn reload(shared: &Shared) -> Value {
    let reload = shared.reload.lock().clone();
    json!({
        "applied": reload.applied,
        "refused": reload.refused,
        "error": reload.error,
        "needsRestart": reload.needs_restart,
    })
}

fn rules(shared: &Shared, active: &Active) -> Value {
    let figures = shared.rule_figures();
    let rule = |rule: &CompiledRule| {
        // A reload may have come between; then this answer has no figures for new rules.
        let found = figures.iter().find(|(name, _)| *name == rule.name);
        let RuleFigures {
            hits,
            misses,
            write_errors_masked,
            stale,
            ..
        } = found.map(|(_, figures)| *figures).unwrap_or_default();
        let mut shown = Map::new();
        let mut show = |name: &str, value: Value| shown.insert(name.to_owned(), value);
        show("name", json!(&*rule.name));
        show("match", json!(rule.pattern.as_str()));
        show("cache", json!(mode(rule.cache)));
        for (name, span) in [
            ("ttl", rule.ttl),
            ("ttlMax", rule.ttl_max),
            ("localTtl", rule.local_ttl),
            ("negativeTtl", rule.negative_ttl),
            ("staleIfError", rule.stale_if_error),
        ] {
            show(
                name,
                span.map_or(Value::Null, |span| json!(Span(span).to_string())),
            );
        }
        show("jitterPercent", json!(rule.jitter_percent));
        show("maxValueBytes", json!(rule.max_value_size));
        show(
            "onWriteError",
            match rule.on_write_error {
                OnWriteError::Error => json!("Error"),
                OnWriteError::Log => json!("Log"),
            },
        );
        show("hits", json!(hits));
        show("misses", json!(misses));
        show("hitRate", rate(hits, misses));
        show("staleServed", json!(stale.iter().sum::<u64>()));
        show("maskedWriteErrors", json!(write_errors_masked));
        Value::Object(shown)
    };
    active.policy.rules().iter().map(rule).collect()
}

fn mode(cache: CacheMode) -> &'static str {
    match cache {
        CacheMode::Both => "Both",
        CacheMode::LocalOnly => "LocalOnly",
        CacheMode::RemoteOnly => "RemoteOnly",
        CacheMode::Bypass => "Bypass",
        CacheMode::Deny => "Deny",
    }
}
