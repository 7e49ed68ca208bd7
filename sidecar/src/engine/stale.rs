//! Stale values where a rule allows them: `stale.ifError` (P1, P6).
//!
//! While the tracked link is away or unproven, or Redis does not answer, a read is answered from
//! an entry that cannot be proven any longer, up to `ifError` after the moment when it could last
//! be. What was invalidated, written here or flushed on purpose is gone and never comes back.
//! All of it happens after a miss; a hit knows nothing of it.

use std::rc::Rc;

use policy::matcher::RuleId;

use super::{Request, Turn, cached, forward::Ruled, introspect};
use crate::{
    client::{Client, session::Session},
    command::CommandId,
    metrics::Stale,
    resp::{reply::integer, write::Reply},
    tier::{Lookup, Query, StaleBound},
    worker::Worker,
};

/// Why Redis would not be asked, or not with success.
pub fn outage(worker: &Rc<Worker>, db: u16, key: &[u8]) -> Option<Stale> {
    if !worker.has_upstream() {
        return None;
    }
    let set = worker.links_of(db, key)?;
    let link = set.tracked(worker);
    if !link.is_up() {
        return Some(Stale::Disconnected);
    }
    // Without invalidations the local tier is off, and Redis answers.
    if !link.fills.get() {
        return None;
    }
    let tier = link.tier.as_ref()?;
    let limit = worker.max_staleness();
    tier.is_silent(worker.now(), link.up_since.get(), limit)
        .then_some(Stale::Unproven)
}

/// How long entries of a rule may be served stale; `None`: not at all.
pub fn bound(worker: &Worker, rule: RuleId) -> Option<StaleBound> {
    let active = worker.active();
    let if_error = active.policy.get(rule)?.stale_if_error?;
    Some(StaleBound {
        rule: rule.0,
        if_error,
    })
}

/// Answers a read that missed, if Redis is out and the rule allows it.
pub fn read(
    turn: &Turn<'_>,
    session: &mut Session,
    rule: RuleId,
    key: &[u8],
    query: Query<'_>,
) -> bool {
    let reason = outage(turn.worker, session.db, key);
    reason.is_some_and(|reason| read_for(turn, session, rule, key, query, reason))
}

fn read_for(
    turn: &Turn<'_>,
    session: &mut Session,
    rule: RuleId,
    key: &[u8],
    query: Query<'_>,
    reason: Stale,
) -> bool {
    let worker = turn.worker;
    let Some(bound) = bound(worker, rule) else {
        return false;
    };
    let at = Lookup {
        db: session.db,
        key,
    };
    let now = worker.now();
    let tier = &worker.shared.tier;
    if !session.reply(|reply| tier.read_stale(at, query, bound, now, reply)) {
        return false;
    }
    count(worker, rule, reason);
    worker.count_hit(session.command);
    true
}

/// Answers a read that could not be sent, if the rule allows it. The tracked link may be up already
/// while the one that would carry the read is not.
pub fn unsent(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> bool {
    let Request { spec, args, .. } = request;
    let policy = &turn.active.policy;
    let reason = Stale::Disconnected;
    if spec.id() == CommandId::Mget {
        // Other keys may be at servers that are well.
        let known = (!turn.worker.is_cluster()).then_some(reason);
        let rules: Option<Vec<RuleId>> = args[1..].iter().map(|key| policy.find(key)).collect();
        return rules.is_some_and(|rules| read_many(turn, session, &rules, &args[1..], known));
    }
    let Some(query) = cached::query(spec.id(), args) else {
        return false;
    };
    let rule = policy.find(args[1]);
    rule.is_some_and(|rule| read_for(turn, session, rule, args[1], query, reason))
}

/// `MGET`: each key current or stale, or nothing. `known` is why Redis cannot be asked, if it is known.
pub fn read_many(
    turn: &Turn<'_>,
    session: &mut Session,
    rules: &[RuleId],
    keys: &[&[u8]],
    known: Option<Stale>,
) -> bool {
    let worker = turn.worker;
    let allowed = |rule: &RuleId| turn.active.policy.rule(*rule).stale_if_error.is_some();
    if !rules.iter().all(allowed) {
        return false;
    }
    let db = session.db;
    let served = session.reply(|reply| write_many(worker, db, rules, keys, known, reply));
    if served {
        worker.count_hit(session.command);
    }
    served
}

/// `known` is why Redis did not answer, where it was asked.
fn write_many(
    worker: &Rc<Worker>,
    db: u16,
    rules: &[RuleId],
    keys: &[&[u8]],
    known: Option<Stale>,
    reply: &mut Reply<'_>,
) -> bool {
    let tier = &worker.shared.tier;
    let now = worker.now();
    let before = reply.out.len();
    reply.array(keys.len());
    for (key, rule) in keys.iter().zip(rules) {
        let at = Lookup { db, key };
        if tier.read(at, Query::Get, now, reply).is_some() {
            continue;
        }
        let reason = known.or_else(|| outage(worker, db, key));
        let allowed = reason.zip(bound(worker, *rule));
        match allowed {
            Some((reason, bound)) if tier.read_stale(at, Query::Get, bound, now, reply) => {
                count(worker, *rule, reason);
            }
            _ => {
                reply.out.truncate(before);
                return false;
            }
        }
    }
    true
}

/// A read was asked and got no answer, or one that says that Redis cannot serve: answers it all
/// the same, if it can. `words` is the command.
#[allow(
    clippy::too_many_arguments,
    reason = "who waits, for what, and why it cannot have it"
)]
pub fn answer_waiting(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    number: u64,
    command: CommandId,
    db: u16,
    words: &[&[u8]],
    reason: Stale,
) -> bool {
    let active = worker.active();
    let policy = &active.policy;
    let keys = if command == CommandId::Mget {
        &words[1..]
    } else {
        &words[1..2]
    };
    let rules: Option<Vec<RuleId>> = keys.iter().map(|key| policy.find(key)).collect();
    let Some(rules) = rules.filter(|rules| rules.iter().all(|rule| bound(worker, *rule).is_some()))
    else {
        return false;
    };
    let proto = client.session.borrow().proto;
    let mut bytes = Vec::new();
    let mut reply = Reply::new(&mut bytes, proto);
    let served = match command {
        CommandId::Mget => write_many(worker, db, &rules, keys, Some(reason), &mut reply),
        CommandId::PannierRead => read_value(worker, db, rules[0], keys[0], reason, &mut reply),
        _ => cached::query(command, words).is_some_and(|query| {
            let at = Lookup { db, key: keys[0] };
            let tier = &worker.shared.tier;
            let served = bound(worker, rules[0])
                .is_some_and(|bound| tier.read_stale(at, query, bound, worker.now(), &mut reply));
            if served {
                count(worker, rules[0], reason);
            }
            served
        }),
    };
    if served {
        super::count(worker, command, crate::metrics::Outcome::Ok);
        client.complete(number, |out, _| out.extend_from_slice(&bytes));
    }
    served
}

/// `PANNIER.READ` of a stale value.
pub fn read_value(
    worker: &Worker,
    db: u16,
    rule: RuleId,
    key: &[u8],
    reason: Stale,
    reply: &mut Reply<'_>,
) -> bool {
    let Some(bound) = bound(worker, rule) else {
        return false;
    };
    let at = Lookup { db, key };
    let now = worker.now();
    let mut value = Vec::new();
    let mut inner = Reply::new(&mut value, reply.proto);
    if !worker
        .shared
        .tier
        .read_stale(at, Query::Get, bound, now, &mut inner)
    {
        return false;
    }
    count(worker, rule, reason);
    let active = worker.active();
    let name = active.policy.get(rule).map(|rule| &*rule.name);
    let mut ttl = Vec::new();
    let mut inner = Reply::new(&mut ttl, reply.proto);
    let tier = &worker.shared.tier;
    tier.read_stale(at, Query::Pttl, bound, now, &mut inner);
    introspect::write_read(&value, name, "stale", integer(&ttl), reply);
    true
}

fn count(worker: &Worker, rule: RuleId, reason: Stale) {
    worker.counters.rules[usize::from(rule.0)].stale[reason as usize].inc();
}

/// An answer that says that the server cannot serve now, not what is in it.
pub fn cannot_serve(frame: &[u8]) -> bool {
    [
        b"-LOADING".as_slice(),
        b"-BUSY ",
        b"-MASTERDOWN",
        b"-CLUSTERDOWN",
    ]
    .iter()
    .any(|code| frame.starts_with(code))
}

/// A write was answered without Redis, be it with an error: what it names is not served any longer.
pub fn written(turn: &Turn<'_>, request: Request<'_>, ruled: &Ruled) {
    if !request.spec.may_write() {
        return;
    }
    let tier = &turn.worker.shared.tier;
    for index in &ruled.cached {
        tier.invalidate(request.args[*index as usize]);
    }
    if matches!(
        request.spec.id(),
        CommandId::Flushall | CommandId::Flushdb | CommandId::Swapdb
    ) {
        tier.flush();
    }
}
