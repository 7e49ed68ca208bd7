//! Figures over all event loops: `PANNIER.STATS` and `INFO`.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    super::{Flow, Turn, local::connection_words},
    coherence_words,
};
use crate::{
    client::session::Session,
    clock::Tick,
    metrics::{LoopCounters, rules::RuleFigures},
    state::{Connection, Shared},
    worker::Worker,
};

/// Figures over all event loops.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Reads answered by the local tier or by memory mode.
    pub hits: u64,
    /// Reads that were not.
    pub misses: u64,
    /// Keys kept here: local entries, memory mode, `LocalOnly`.
    pub keys: u64,
    /// Bytes they take.
    pub bytes: u64,
    /// Most bytes they may take.
    pub max_bytes: u64,
    /// Keys dropped to make room.
    pub evicted: u64,
    /// Commands of apps.
    pub commands: u64,
    /// Invalidations from Redis.
    pub invalidations: u64,
    /// Fills refused because a change overtook them.
    pub fills_refused: u64,
    /// Writes acknowledged in memory only.
    pub memory_writes: u64,
    /// Of these, discarded when Redis came back.
    pub memory_discarded: u64,
    /// Connected apps.
    pub clients: u64,
}

impl Figures {
    /// Sums up.
    pub fn of(shared: &Shared) -> Self {
        let tier = shared.tier.stats();
        let stores = [
            shared.store.lock().stats(),
            shared.local_only.lock().stats(),
        ];
        let sum = |of: fn(&LoopCounters) -> u64| {
            shared
                .counters
                .iter()
                .map(|counters| of(counters))
                .sum::<u64>()
        };
        let wide = |n: usize| n as u64;
        Self {
            hits: sum(|c| c.rules.iter().map(|rule| rule.hits.get()).sum()),
            misses: sum(|c| c.rules.iter().map(|rule| rule.misses.get()).sum()),
            keys: tier.entries + stores.iter().map(|store| wide(store.keys)).sum::<u64>(),
            bytes: tier.bytes + stores.iter().map(|store| wide(store.bytes)).sum::<u64>(),
            max_bytes: tier.max_bytes + stores.iter().map(|store| wide(store.limit)).sum::<u64>(),
            evicted: tier.evicted + stores.iter().map(|store| store.evicted).sum::<u64>(),
            commands: sum(|c| {
                c.commands
                    .iter()
                    .flat_map(|one| &one.outcomes)
                    .map(crate::metrics::Counter::get)
                    .sum()
            }),
            invalidations: sum(|c| c.invalidations.get()),
            fills_refused: sum(|c| c.rules.iter().map(|rule| rule.fills_refused.get()).sum()),
            memory_writes: sum(|c| c.memory_writes.get()),
            memory_discarded: sum(|c| c.memory_discarded.get()),
            clients: wide(shared.clients.len()),
        }
    }

    /// Share of reads that were hits, in percent.
    #[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
    pub fn hit_rate(&self) -> f64 {
        let reads = self.hits + self.misses;
        if reads == 0 {
            0.0
        } else {
            100.0 * self.hits as f64 / reads as f64
        }
    }
}

/// Writes that only memory has, because Redis is away.
pub(super) fn memory_only_writes(shared: &Shared) -> u64 {
    let sum = |of: fn(&LoopCounters) -> u64| {
        shared
            .counters
            .iter()
            .map(|counters| of(counters))
            .sum::<u64>()
    };
    sum(|c| c.memory_writes.get()).saturating_sub(sum(|c| c.memory_discarded.get()))
}

/// `PANNIER.STATS`: the figures of S0.10 and S4.6, and ours.
pub fn stats(turn: &Turn<'_>, session: &mut Session) -> Flow {
    let shared = &turn.worker.shared;
    let figures = Figures::of(shared);
    let facts = shared.upstream.facts();
    let available = !matches!(facts.connection, Connection::Unavailable(_));
    let timestamp = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let status = if available { "healthy" } else { "degraded" };
    let numbers = [
        ("totalSessions", 0),
        ("totalKeys", signed(figures.keys)),
        ("memoryUsage", signed(figures.bytes)),
        ("memoryLimit", signed(figures.max_bytes)),
        ("hits", signed(figures.hits)),
        ("misses", signed(figures.misses)),
        ("memoryUsed", signed(figures.bytes)),
        ("evictedKeys", signed(figures.evicted)),
        ("keyCount", signed(figures.keys)),
        ("commands", signed(figures.commands)),
        ("invalidations", signed(figures.invalidations)),
        ("fillsRefused", signed(figures.fills_refused)),
        ("memoryOnlyWrites", signed(figures.memory_writes)),
        ("discardedWrites", signed(figures.memory_discarded)),
        ("connectedClients", signed(figures.clients)),
        ("timestamp", i64::try_from(timestamp).unwrap_or(i64::MAX)),
    ];
    let rules = RuleFigures::total(&shared.counters);
    let staleness = shared.measured.staleness.lock().summary(Tick::now());
    let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    let measured = [
        ("stalenessProbes", signed(staleness.count as u64)),
        ("stalenessP50Micros", micros(staleness.p50)),
        ("stalenessP99Micros", micros(staleness.p99)),
        ("stalenessMaxMicros", micros(staleness.max)),
        ("samples", signed(shared.sum(|counters| &counters.samples))),
        ("staleSamples", signed(rules.stale_samples)),
        ("wouldBeHits", signed(rules.shadow_hits)),
        ("wouldBeStale", signed(rules.shadow_mismatches)),
    ];
    let words = [
        ("status", status.to_owned()),
        ("redis", connection_words(&facts.connection)),
        ("coherence", coherence_words(&facts.coherence)),
        ("localMode", shared.serving.mode().name().to_owned()),
    ];
    session.reply(|reply| {
        reply.map(numbers.len() + measured.len() + words.len() + 2);
        reply.bulk(b"available");
        reply.boolean(available);
        reply.bulk(b"hitRate");
        reply.double((figures.hit_rate() * 100.0).round() / 100.0);
        for (name, number) in numbers.into_iter().chain(measured) {
            reply.bulk(name.as_bytes());
            reply.integer(number);
        }
        for (name, word) in &words {
            reply.bulk(name.as_bytes());
            reply.bulk(word.as_bytes());
        }
    });
    Flow::Done
}

/// The section that is added to Redis' own.
pub fn info_section(worker: &Worker) -> String {
    let shared = &worker.shared;
    let figures = Figures::of(shared);
    let facts = shared.upstream.facts();
    let active = shared.active();
    let mut text = String::from("# Pannier\r\n");
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = write!(text, "pannier_{name}:{value}\r\n");
    };
    line("version", &env!("CARGO_PKG_VERSION"));
    line("tier", &active.config.tier);
    line("generation", &active.config.generation);
    line("redis", &connection_words(&facts.connection));
    line("coherence", &coherence_words(&facts.coherence));
    line("local_entries", &figures.keys);
    line("local_bytes", &figures.bytes);
    line("local_bytes_max", &figures.max_bytes);
    line("hits", &figures.hits);
    line("misses", &figures.misses);
    line("hit_rate", &format!("{:.2}", figures.hit_rate()));
    line("evicted", &figures.evicted);
    line("invalidations", &figures.invalidations);
    line("fills_refused", &figures.fills_refused);
    line("memory_only_writes", &figures.memory_writes);
    line("discarded_writes", &figures.memory_discarded);
    text
}

/// `INFO` without a Redis that could be asked, in Redis' vocabulary, so that exporters work.
pub fn info_text(worker: &Worker, sections: &[&[u8]]) -> String {
    let shared = &worker.shared;
    let figures = Figures::of(shared);
    let uptime = Tick::now().since(Tick(0)).as_secs();
    let expired: u64 = [&shared.store, &shared.local_only]
        .iter()
        .map(|store| store.lock().stats().expired)
        .sum();
    let mut parts: Vec<(&str, String)> = vec![
        (
            "Server",
            format!(
                "redis_version:{}\r\nredis_mode:standalone\r\nos:{}\r\nprocess_id:{}\r\nuptime_in_seconds:{uptime}\r\n\
                 tcp_port:{}\r\n",
                worker.server_version(),
                std::env::consts::OS,
                std::process::id(),
                shared.active().config.sidecar.redis_port,
            ),
        ),
        (
            "Clients",
            format!(
                "connected_clients:{}\r\nblocked_clients:0\r\n",
                figures.clients
            ),
        ),
        (
            "Memory",
            format!(
                "used_memory:{}\r\nmaxmemory:{}\r\nmaxmemory_policy:allkeys-lru\r\n",
                figures.bytes, figures.max_bytes
            ),
        ),
        (
            "Persistence",
            "loading:0\r\nrdb_bgsave_in_progress:0\r\naof_enabled:0\r\n".to_owned(),
        ),
        (
            "Stats",
            format!(
                "total_commands_processed:{}\r\nkeyspace_hits:{}\r\nkeyspace_misses:{}\r\nevicted_keys:{}\r\nexpired_keys:{expired}\r\n",
                figures.commands, figures.hits, figures.misses, figures.evicted
            ),
        ),
        (
            "Replication",
            "role:master\r\nconnected_slaves:0\r\nmaster_repl_offset:0\r\n".to_owned(),
        ),
        ("Cluster", "cluster_enabled:0\r\n".to_owned()),
        ("Keyspace", keyspace(shared)),
    ];
    let wants = |name: &str| {
        sections.is_empty()
            || sections.iter().any(|wanted| {
                wanted.eq_ignore_ascii_case(name.as_bytes())
                    || [b"all".as_slice(), b"everything", b"default"]
                        .iter()
                        .any(|all| wanted.eq_ignore_ascii_case(all))
            })
    };
    parts.retain(|(name, _)| wants(name));
    let mut text = String::new();
    for (name, body) in parts {
        let _ = write!(text, "# {name}\r\n{body}\r\n");
    }
    if wants("Pannier") {
        text.push_str(&info_section(worker));
    }
    text
}

fn keyspace(shared: &Shared) -> String {
    let stats = shared.store.lock().stats();
    stats.databases.iter().fold(String::new(), |mut text, db| {
        let _ = write!(
            text,
            "db{}:keys={},expires={},avg_ttl=0\r\n",
            db.number, db.keys, db.expiring
        );
        text
    })
}
