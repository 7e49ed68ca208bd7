//! What the sidecar says about itself: `PANNIER.WHY` and `PANNIER.READ`; figures and
//! `INFO` are in `figures`.

mod figures;

use std::{rc::Rc, sync::Arc};

use policy::config::{CacheMode, Caching};

use self::figures::memory_only_writes;
pub use self::figures::{Figures, info_section, info_text, stats};
use super::stale;
use super::{
    Flow, Turn, flight, forward,
    local::connection_words,
    memory,
    reply::{After, ClientTarget, ReplyChange, Target},
    spread::Nowhere,
};
use crate::metrics::STALES;
use crate::{
    client::session::Session,
    clock::Tick,
    measure::Mode,
    resp::{
        reply::{integer, is_error, is_null},
        write::{Reply, command},
    },
    state::{CoherenceState, Connection},
    tier::{self, Lookup, Query},
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
        reply.bulk(&turn.active.key_in_redis(key));
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
    if worker.shared.serving.shadows(key) {
        let db = tier::shadow(session.db);
        let would = worker.shared.tier.peek(Lookup { db, key }, now).is_some();
        let entry = if would { "a" } else { "no" };
        let reason = match worker.shared.serving.mode() {
            Mode::Active(percent) => format!("the key is outside of local.rampPercent, {percent}"),
            mode => mode.words(),
        };
        let reason = format!("{reason}; {entry} local entry would answer");
        return ("redis", reason, None);
    }
    if let Some(reason) = why_stale(turn, session, key, now) {
        return ("stale", reason, None);
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

/// Why a value that need not be current would be served, if it would.
fn why_stale(turn: &Turn<'_>, session: &Session, key: &[u8], now: Tick) -> Option<String> {
    let worker = turn.worker;
    let reason = stale::outage(worker, session.db, key)?;
    let bound = stale::bound(worker, turn.active.policy.find(key)?)?;
    let at = Lookup {
        db: session.db,
        key,
    };
    let left = worker.shared.tier.peek_stale(at, bound, now)?;
    Some(format!(
        "redis is out ({}); the rule allows to serve the last known value for another {} ms",
        STALES[reason as usize],
        left.as_millis()
    ))
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
        CoherenceState::Broadcast => "broadcast".to_owned(),
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
        && let Some(reason) = stale::outage(turn.worker, session.db, key)
    {
        let (worker, db) = (turn.worker, session.db);
        if session.reply(|reply| stale::read_value(worker, db, id, key, reason, reply)) {
            return Flow::Done;
        }
    }
    if let Some(id) = id.filter(|_| cacheable)
        && let Some(flow) =
            flight::read(turn, session, id, key, Query::Get, turn.worker.touches(key))
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
    let Some(set) = turn.worker.links_of(session.db, key) else {
        return super::refuse(turn, session, Nowhere::TooManyLinks.to_string());
    };
    let link = Rc::clone(set.plain(turn.worker, session.proto));
    match forward::takes(turn, &link, key.len()) {
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
    let number = session.reserve(forward::lane(&link), turn.worker.touches(key));
    let after = After {
        change: ReplyChange::Read(rule),
        keys: vec![key.into()],
        ..After::default()
    };
    let target = ClientTarget::new(turn.client, number, session.command, after);
    let key = turn.active.key_in_redis(key);
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
