//! What the sidecar says about itself: `PANNIER.WHY`, `PANNIER.STATS`, `PANNIER.READ`, `INFO`.

use std::{
    fmt::Write as _,
    rc::Rc,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use policy::config::{CacheMode, Caching};

use super::{
    Flow, Turn, flight, forward, key_hash,
    local::connection_words,
    memory,
    reply::{After, ClientTarget, ReplyChange, Target},
};
use crate::{
    client::session::{Lane, Session, Touches},
    clock::Tick,
    metrics::LoopCounters,
    resp::{
        reply::{Value, is_error, is_null},
        write::{Reply, command},
    },
    state::{CoherenceState, Connection, Shared},
    tier::{Lookup, Query},
    worker::Worker,
};

// === PANNIER.WHY ===

/// `PANNIER.WHY key`: which rule and which tier answer for a key, and why (S0.11).
pub fn why(turn: &Turn<'_>, session: &mut Session, key: &[u8]) -> Flow {
    if session.unanswered() > 0 {
        return Flow::Wait;
    }
    let rule = turn
        .active
        .policy
        .find_declared(key)
        .map(|id| turn.active.policy.rule(id));
    let (tier, reason, ttl) = answerer(turn, session, key);
    let facts = turn.worker.shared.upstream.facts();
    let prefix = turn
        .active
        .prefix
        .as_ref()
        .map_or(b"".as_slice(), |prefix| prefix.raw());
    let mut lines = vec![
        (
            "rule",
            rule.map_or("-".to_owned(), |rule| rule.name.to_string()),
        ),
        (
            "match",
            rule.map_or("-".to_owned(), |rule| rule.pattern.as_str().to_owned()),
        ),
        (
            "cache",
            rule.map_or("-".to_owned(), |rule| format!("{:?}", rule.cache)),
        ),
        ("tier", tier.to_owned()),
        ("why", reason),
        ("redis", connection_words(&facts.connection)),
        ("coherence", coherence_words(&facts.coherence)),
    ];
    if let Some(ttl) = ttl {
        lines.push(("local_ttl_ms", ttl.to_string()));
    }
    session.reply(|reply| {
        reply.map(lines.len() + 1);
        reply.bulk(b"key_in_redis");
        reply.bulk(&[prefix, key].concat());
        for (name, value) in &lines {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
    });
    Flow::Done
}

/// The tier that would answer `GET` now, the reason, and the rest of a local entry's life.
fn answerer(turn: &Turn<'_>, session: &Session, key: &[u8]) -> (&'static str, String, Option<u64>) {
    let worker = turn.worker;
    let policy = &turn.active.policy;
    let rule = policy.find(key).map(|id| policy.rule(id));
    let mode = rule.map(|rule| rule.cache);
    if policy.caching() == Caching::Disabled {
        return redis_or_memory(
            turn,
            session,
            "caching is Disabled: every command passes through",
        );
    }
    match mode {
        Some(CacheMode::Deny) => {
            return (
                "none",
                "the rule refuses commands on this key".to_owned(),
                None,
            );
        }
        Some(CacheMode::LocalOnly) => {
            return (
                "memory",
                "the rule keeps this key in this sidecar only".to_owned(),
                None,
            );
        }
        None => {
            return redis_or_memory(
                turn,
                session,
                "no rule matches: the key is passed through untouched",
            );
        }
        Some(CacheMode::Bypass) => return redis_or_memory(turn, session, "the rule says Bypass"),
        Some(CacheMode::RemoteOnly) => {
            return redis_or_memory(turn, session, "the rule says RemoteOnly");
        }
        Some(CacheMode::Both) => {}
    }
    let now = Tick::now();
    if let Some(entry) = worker.shared.tier.peek(
        Lookup {
            db: session.db,
            key,
        },
        now,
    ) {
        let left = entry.deadline_ms.saturating_sub(now.millis());
        return (
            "local",
            "a local entry is current".to_owned(),
            Some(left).filter(|_| entry.deadline_ms < 1 << 47),
        );
    }
    if let CoherenceState::Degraded(why) = worker.shared.upstream.facts().coherence {
        return ("redis", format!("the local tier is off: {why}"), None);
    }
    redis_or_memory(
        turn,
        session,
        "there is no local entry: the next read asks and keeps the answer",
    )
}

fn redis_or_memory(
    turn: &Turn<'_>,
    _: &Session,
    reason: &str,
) -> (&'static str, String, Option<u64>) {
    match turn.worker.shared.upstream.facts().connection {
        Connection::None => (
            "memory",
            "there is no Redis: memory is all there is".to_owned(),
            None,
        ),
        Connection::Unavailable(why) if turn.worker.memory_when_unavailable() => {
            let unsafe_writes = memory_only_writes(&turn.worker.shared);
            let reason = format!(
                "redis is unavailable ({why}); memory answers, {unsafe_writes} writes are acknowledged in memory only"
            );
            ("memory", reason, None)
        }
        Connection::Unavailable(why) => ("none", format!("redis is unavailable: {why}"), None),
        _ => ("redis", reason.to_owned(), None),
    }
}

fn coherence_words(coherence: &CoherenceState) -> String {
    match coherence {
        CoherenceState::Idle => "idle".to_owned(),
        CoherenceState::Tracking => "tracking".to_owned(),
        CoherenceState::TtlOnly => "ttl-only".to_owned(),
        CoherenceState::Degraded(why) => format!("degraded: {why}"),
    }
}

// === PANNIER.READ ===

/// `PANNIER.READ key`: `[value, tier, hit|miss, rule, ttl in ms]`; unknown parts are null.
pub fn read(turn: &Turn<'_>, session: &mut Session, key: &[u8]) -> Flow {
    if session.unanswered() > 0 {
        return Flow::Wait;
    }
    let policy = &turn.active.policy;
    let id = policy.find(key);
    let rule = id.map(|id| policy.rule(id));
    let name = rule.map(|rule| Arc::clone(&rule.name));
    match rule.map(|rule| rule.cache) {
        Some(CacheMode::Deny) => {
            let name = name.as_deref().unwrap_or("");
            return super::refuse(
                turn,
                session,
                format!("ERR the read is refused: rule {name:?} has cache: Deny"),
            );
        }
        Some(CacheMode::LocalOnly) => {
            return from_memory(turn, session, key, name.as_deref(), true);
        }
        _ if !turn.worker.has_upstream() => {
            return from_memory(turn, session, key, name.as_deref(), false);
        }
        _ => {}
    }
    if let Some(flow) = from_tier(turn, session, key, name.as_deref()) {
        return flow;
    }
    let cacheable = rule.is_some_and(|rule| rule.cache == CacheMode::Both);
    if let Some(id) = id.filter(|_| cacheable)
        && let Some(flow) = flight::read(
            turn,
            session,
            id,
            key,
            Query::Get,
            Touches::Key(key_hash(key)),
        )
    {
        return flow;
    }
    from_redis(turn, session, key, name)
}

fn from_tier(
    turn: &Turn<'_>,
    session: &mut Session,
    key: &[u8],
    rule: Option<&str>,
) -> Option<Flow> {
    let worker = turn.worker;
    let at = Lookup {
        db: session.db,
        key,
    };
    let now = worker.now();
    let mut value = Vec::new();
    let hit = worker.shared.tier.read(
        at,
        Query::Get,
        now,
        &mut Reply::new(&mut value, session.proto),
    )?;
    worker.counters.rules[usize::from(hit.rule)].hits.inc();
    let mut ttl = Vec::new();
    let mut reply = Reply::new(&mut ttl, session.proto);
    worker.shared.tier.read(at, Query::Pttl, now, &mut reply);
    session.reply(|reply| write_read(&value, rule, "local", integer(&ttl), reply));
    Some(Flow::Done)
}

fn from_memory(
    turn: &Turn<'_>,
    session: &mut Session,
    key: &[u8],
    rule: Option<&str>,
    local_only: bool,
) -> Flow {
    let (value, ttl) = memory::peek(turn.worker, session.db, key, local_only);
    if let Some(id) = turn.active.policy.find(key) {
        let counters = &turn.worker.counters.rules[usize::from(id.0)];
        if is_null(&value) {
            counters.misses.inc();
        } else {
            counters.hits.inc();
        }
    }
    let tier = if is_null(&value) { "none" } else { "memory" };
    session.reply(|reply| write_read(&value, rule, tier, Some(ttl), reply));
    Flow::Done
}

fn from_redis(turn: &Turn<'_>, session: &mut Session, key: &[u8], rule: Option<Arc<str>>) -> Flow {
    let Some(set) = turn.worker.links(session.db) else {
        return super::refuse(turn, session, "ERR too many databases are in use at a time");
    };
    let link = Rc::clone(set.plain(turn.worker, session.proto));
    match forward::usable(turn, &link) {
        forward::Usable::Yes => {}
        forward::Usable::Wait => return Flow::Wait,
        forward::Usable::No(_) if turn.worker.in_memory_mode(&link) => {
            return from_memory(turn, session, key, rule.as_deref(), false);
        }
        forward::Usable::No(why) => {
            let text = super::reply::error_text(turn.worker, session.command, &why);
            return super::refuse(turn, session, &text);
        }
    }
    let number = session.reserve(Lane::Plain, Touches::Key(key_hash(key)));
    let after = After {
        change: ReplyChange::Read(rule),
        keys: vec![key.into()],
        ..After::default()
    };
    let target = ClientTarget {
        client: Rc::clone(turn.client),
        number,
        command: session.command,
        after: Some(Box::new(after)),
    };
    let prefix = turn
        .active
        .prefix
        .as_ref()
        .map_or(b"".as_slice(), |prefix| prefix.raw());
    let key = [prefix, key].concat();
    link.send(Target::Client(target), true, |out| {
        command(out, &[b"GET", &key]);
    });
    Flow::Done
}

/// Writes the answer around a value that is a reply itself. A null from Redis is a miss.
pub fn write_read(
    value: &[u8],
    rule: Option<&str>,
    tier: &str,
    pttl: Option<i64>,
    reply: &mut Reply<'_>,
) {
    if is_error(value) {
        return reply.out.extend_from_slice(value);
    }
    let found = !is_null(value);
    reply.array(5);
    if found {
        reply.out.extend_from_slice(value);
    } else {
        reply.null();
    }
    let hit = found && tier != "redis";
    reply.bulk(if found { tier } else { "none" }.as_bytes());
    reply.bulk(if hit { b"hit" } else { b"miss" });
    match rule {
        Some(rule) => reply.bulk(rule.as_bytes()),
        None => reply.null(),
    }
    match pttl {
        Some(pttl) => reply.integer(pttl),
        None => reply.null(),
    }
}

/// The number in an integer reply.
pub fn integer(frame: &[u8]) -> Option<i64> {
    match Value::read(frame) {
        Ok(Value::Integer(value)) => Some(value),
        _ => None,
    }
}

// === figures ===

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

fn memory_only_writes(shared: &Shared) -> u64 {
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
    let words = [
        ("status", status.to_owned()),
        ("redis", connection_words(&facts.connection)),
        ("coherence", coherence_words(&facts.coherence)),
    ];
    session.reply(|reply| {
        reply.map(numbers.len() + words.len() + 2);
        reply.bulk(b"available");
        reply.boolean(available);
        reply.bulk(b"hitRate");
        reply.double((figures.hit_rate() * 100.0).round() / 100.0);
        for (name, number) in numbers {
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

// === INFO ===

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
