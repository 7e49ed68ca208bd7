//! Cacheable reads: from the local tier, or over the tracked link with a fill.

use std::rc::Rc;

use policy::{config::CacheMode, matcher::RuleId};
use smallvec::SmallVec;

use super::stale;
use super::{Flow, Request, Turn, flight, forward};
use crate::{
    client::session::{Lane, Session, Touches},
    command::CommandId,
    store::argument::parse_integer,
    tier::{Hit, Lookup, Query, Span},
    worker::Worker,
};

/// The commands of `CommandSpec::has_cached_form`. What the number of words or an option makes
/// another question is forwarded.
#[inline]
pub fn read(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let args = request.args;
    let Some(query) = query(request.spec.id(), args) else {
        if request.spec.id() == CommandId::Mget {
            return read_many(turn, session, request);
        }
        return forward::forward(turn, session, request);
    };
    let key = args[1];
    let touches = if session.unanswered() == 0 {
        Touches::Nothing
    } else {
        let touches = turn.worker.touches(key);
        if session.must_wait(Lane::Local, touches) {
            return behind(turn, session, request, touches);
        }
        touches
    };
    if hit(turn.worker, session, key, query) {
        return Flow::Done;
    }
    miss(turn, session, request, query, touches)
}

/// What a command with one key asks of an entry, if one could answer it.
#[inline]
pub fn query<'a>(id: CommandId, args: &'a [&'a [u8]]) -> Option<Query<'a>> {
    Some(match id {
        CommandId::Get => Query::Get,
        CommandId::Strlen => Query::StrLen,
        CommandId::Type => Query::Type,
        CommandId::Ttl => Query::Ttl,
        CommandId::Pttl => Query::Pttl,
        CommandId::Hgetall => Query::HGetAll,
        CommandId::Exists if args.len() == 2 => Query::Exists,
        id => return of_collection(id, args),
    })
}

/// Reads of hashes, sets, lists and sorted sets.
#[inline]
fn of_collection<'a>(id: CommandId, args: &'a [&'a [u8]]) -> Option<Query<'a>> {
    Some(match (id, args) {
        (CommandId::Hget, [_, _, field]) => Query::HGet(field),
        (CommandId::Hmget, [_, _, fields @ ..]) => Query::HMGet(fields),
        (CommandId::Hexists, [_, _, field]) => Query::HExists(field),
        (CommandId::Hlen, [_, _]) => Query::HLen,
        (CommandId::Smembers, [_, _]) => Query::SMembers,
        (CommandId::Sismember, [_, _, member]) => Query::SIsMember(member),
        (CommandId::Scard, [_, _]) => Query::SCard,
        (CommandId::Lrange, [_, _, start, stop]) => Query::LRange(span(start, stop, false)?),
        (CommandId::Llen, [_, _]) => Query::LLen,
        (CommandId::Zrange, [_, _, start, stop]) => Query::ZRange(span(start, stop, false)?),
        (CommandId::Zrange, [_, _, start, stop, option])
            if option.eq_ignore_ascii_case(b"WITHSCORES") =>
        {
            Query::ZRange(span(start, stop, true)?)
        }
        (CommandId::Zscore, [_, _, member]) => Query::ZScore(member),
        (CommandId::Zcard, [_, _]) => Query::ZCard,
        _ => return None,
    })
}

/// `None` unless both are numbers as Redis accepts them; it says itself what is wrong.
fn span(start: &[u8], stop: &[u8], scores: bool) -> Option<Span> {
    Some(Span {
        start: parse_integer(start)?,
        stop: parse_integer(stop)?,
        scores,
    })
}

/// Earlier commands on the same key are unanswered: the read follows them on their way if that is
/// the shared link, and waits otherwise.
fn behind(turn: &Turn<'_>, session: &mut Session, request: Request<'_>, touches: Touches) -> Flow {
    match session.lane_of(touches) {
        Some(Lane::Plain(_)) => forward::forward(turn, session, request),
        _ => Flow::Wait,
    }
}

/// Answers from the local tier, if it can.
#[inline]
pub fn hit(worker: &Rc<Worker>, session: &mut Session, key: &[u8], query: Query<'_>) -> bool {
    let at = Lookup {
        db: session.db,
        key,
    };
    let now = worker.now();
    let Some(hit) = session.reply(|reply| worker.shared.tier.read(at, query, now, reply)) else {
        return false;
    };
    worker.counters.rules[usize::from(hit.rule)].hits.inc();
    worker.count_hit(session.command);
    if hit.touch | worker.sampler.is_armed() {
        seldom(worker, session.db, key, query, hit);
    }
    true
}

/// What few hits cause: Redis hears that the key is in use, or is asked to compare.
#[cold]
fn seldom(worker: &Rc<Worker>, db: u16, key: &[u8], query: Query<'_>, hit: Hit) {
    if hit.touch {
        worker.touch(db, key);
    }
    if worker.sampler.is_armed() && worker.sampler.take(worker) && worker.wants_tracking() {
        flight::sample(worker, db, key, RuleId(hit.rule), query);
    }
}

fn miss(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
    query: Query<'_>,
    touches: Touches,
) -> Flow {
    let key = request.args[1];
    let Some(rule) = cacheable(turn, key) else {
        return forward::forward(turn, session, request);
    };
    let touches = match touches {
        Touches::Nothing => turn.worker.touches(key),
        touches => touches,
    };
    if stale::read(turn, session, rule, key, query) {
        return Flow::Done;
    }
    match flight::read(turn, session, rule, key, query, touches) {
        Some(flow) => flow,
        None => forward::forward(turn, session, request),
    }
}

/// The rule under which a key may be kept locally.
fn cacheable(turn: &Turn<'_>, key: &[u8]) -> Option<RuleId> {
    let id = turn.active.policy.find(key)?;
    (turn.active.policy.rule(id).cache == CacheMode::Both).then_some(id)
}

/// `MGET`: from the local tier only when all keys are there.
fn read_many(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    if session.must_wait(Lane::Local, Touches::Anything) {
        return behind(turn, session, request, Touches::Anything);
    }
    let keys = &request.args[1..];
    if hit_many(turn.worker, session, keys) {
        return Flow::Done;
    }
    let rules: Option<SmallVec<[RuleId; 8]>> =
        keys.iter().map(|key| cacheable(turn, key)).collect();
    let Some(rules) = rules else {
        return forward::forward(turn, session, request);
    };
    if stale::read_many(turn, session, &rules, keys, None) {
        return Flow::Done;
    }
    match flight::read_many(turn, session, &rules, keys) {
        Some(flow) => flow,
        None => forward::forward(turn, session, request),
    }
}

fn hit_many(worker: &Worker, session: &mut Session, keys: &[&[u8]]) -> bool {
    let now = worker.now();
    let db = session.db;
    let mut rules: SmallVec<[u16; 8]> = SmallVec::new();
    let all = session.reply(|reply| {
        let before = reply.out.len();
        reply.array(keys.len());
        for key in keys {
            let Some(hit) = worker
                .shared
                .tier
                .read(Lookup { db, key }, Query::Get, now, reply)
            else {
                reply.out.truncate(before);
                return false;
            };
            rules.push(hit.rule);
        }
        true
    });
    if all {
        for rule in rules {
            worker.counters.rules[usize::from(rule)].hits.inc();
        }
        worker.count_hit(CommandId::Mget);
    }
    all
}
