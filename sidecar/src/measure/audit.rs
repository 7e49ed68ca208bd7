//! Compares local entries with Redis: sampled hits, and would-be hits of keys in shadow.
//!
//! The comparing read goes over the tracked link that filled the entry and holds a fill token, so
//! any invalidation, flush or local write of the key in between is known and settles the matter. A
//! difference counts only if it survives a barrier: one more round trip on that link, after which
//! everything that Redis had announced before has been applied. Only then, if the entry is still
//! there and still says something else, is it stale. Neither keys nor values are logged (P10).

use std::{rc::Rc, sync::Arc};

use policy::matcher::RuleId;

use crate::{
    clock::Tick,
    engine::{flight::Question, reply::Target},
    metrics::Flush,
    resp::{
        Proto,
        reply::{Value, is_error},
        write::{Reply, command},
    },
    tier::{FillToken, Lookup, Origin, shadow},
    upstream::Link,
    worker::Worker,
};

/// Why a reply is compared with the local entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// It is not.
    Off,
    /// The key is in shadow; whether its entry would have answered.
    Shadow {
        /// It would have.
        hit: bool,
    },
    /// The entry has just answered, and was chosen to be checked.
    Sample,
}

/// A read whose reply is compared.
pub struct Audit<'a> {
    /// Why.
    pub watch: Watch,
    /// Database.
    pub db: u16,
    /// Key, without prefix.
    pub key: &'a [u8],
    /// What was asked.
    pub question: &'a Question,
    /// Of the read.
    pub token: FillToken,
    /// Of the link that carried it.
    pub origin: Origin,
    /// Under which the entry was kept.
    pub rule: RuleId,
}

/// What is to be done with the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Keep it: there is no entry to compare with.
    Keep,
    /// Leave the entry as it is, and give the token back.
    Leave,
    /// Nothing: the token is in use until the barrier.
    Suspect,
}

/// A difference that has to survive the barrier.
pub struct Suspect {
    watch: Watch,
    db: u16,
    key: Box<[u8]>,
    question: Question,
    token: FillToken,
    origin: Origin,
    rule: RuleId,
    reply: Box<[u8]>,
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// There is no entry, or it does not know the answer.
    Gone,
    Agrees,
    Differs,
    /// Another link filled the entry, or a difference would prove nothing.
    Unknown,
}

/// Whether the entry of a key in shadow would answer now; counts it.
pub fn would_hit(worker: &Worker, db: u16, key: &[u8], question: &Question, rule: RuleId) -> bool {
    let at = Lookup {
        db: shadow(db),
        key,
    };
    let mut answer = Vec::new();
    let mut reply = Reply::new(&mut answer, Proto::Resp3);
    let tier = &worker.shared.tier;
    let now = worker.now();
    let hit = question.with_query(|query| tier.read(at, query, now, &mut reply).is_some());
    if hit {
        let counters = &worker.counters.rules[usize::from(rule.0)];
        counters.shadow_hits.inc();
    }
    hit
}

/// Compares `reply` with the entry; begins the barrier if they differ.
pub fn check(link: &Link, audit: &Audit<'_>, reply: &[u8]) -> Verdict {
    let worker = link.worker();
    match audit.watch {
        Watch::Off | Watch::Shadow { hit: false } => return Verdict::Keep,
        Watch::Shadow { hit: true } => {}
        Watch::Sample => worker.counters.samples.inc(),
    }
    match compare(worker, audit, reply) {
        // What has expired meanwhile is kept anew, as after a miss.
        Outcome::Gone if audit.watch != Watch::Sample => Verdict::Keep,
        Outcome::Gone | Outcome::Agrees | Outcome::Unknown => Verdict::Leave,
        Outcome::Differs if begin_barrier(link, audit, reply) => Verdict::Suspect,
        Outcome::Differs => Verdict::Leave,
    }
}

/// Whether there is a key to read there.
fn begin_barrier(link: &Link, audit: &Audit<'_>, reply: &[u8]) -> bool {
    let Some(key) = link.worker().proof_key(&link.server) else {
        return false;
    };
    let suspect = Rc::new(Suspect {
        watch: audit.watch,
        db: audit.db,
        key: audit.key.into(),
        question: audit.question.clone(),
        token: audit.token,
        origin: audit.origin,
        rule: audit.rule,
        reply: reply.into(),
    });
    let target = Target::Measure(super::Step::Audit(suspect));
    link.send(target, false, |out| command(out, &[b"EXISTS", &key]));
    true
}

/// The barrier was answered: everything announced before has been applied.
pub(super) fn after_barrier(worker: &Worker, suspect: &Suspect) {
    let audit = Audit {
        watch: suspect.watch,
        db: suspect.db,
        key: &suspect.key,
        question: &suspect.question,
        token: suspect.token,
        origin: suspect.origin,
        rule: suspect.rule,
    };
    let tier = &worker.shared.tier;
    let at = Lookup {
        db: suspect.db,
        key: &suspect.key,
    };
    let untouched = tier.is_current(at, suspect.token);
    let stale = untouched && compare(worker, &audit, &suspect.reply) == Outcome::Differs;
    tier.cancel_fill(at, suspect.token);
    if stale {
        found_stale(worker, suspect);
    }
}

pub(super) fn lost(worker: &Worker, suspect: &Suspect) {
    let at = Lookup {
        db: suspect.db,
        key: &suspect.key,
    };
    worker.shared.tier.cancel_fill(at, suspect.token);
}

fn found_stale(worker: &Worker, suspect: &Suspect) {
    let shared = &worker.shared;
    shared.tier.invalidate(&suspect.key);
    let counters = &worker.counters.rules[usize::from(suspect.rule.0)];
    let sampled = suspect.watch == Watch::Sample;
    if sampled {
        counters.stale_samples.inc();
    } else {
        counters.shadow_mismatches.inc();
    }
    // Without invalidations entries are stale at times, as declared.
    if !worker.wants_tracking() {
        return;
    }
    let active = worker.active();
    let name = match active.policy.get(suspect.rule) {
        Some(rule) => Arc::clone(&rule.name),
        None => Arc::from("-"),
    };
    if shared.measured.may_say_stale() {
        tracing::warn!(
            rule = &*name,
            in_shadow = !sampled,
            "a local value differs from redis, and no invalidation came; it was dropped"
        );
    }
    if shared.serving.fall_back(&name) {
        worker.counters.flushes[Flush::Doubt as usize].inc();
        shared.tier.flush();
        tracing::error!(
            rule = &*name,
            "the local tier serves nothing from now on: a stale value was found; it stays in shadow mode until the policy changes or the sidecar restarts"
        );
    }
}

fn compare(worker: &Worker, audit: &Audit<'_>, reply: &[u8]) -> Outcome {
    if is_error(reply) && !reply.starts_with(b"-WRONGTYPE") {
        return Outcome::Unknown;
    }
    let db = match audit.watch {
        Watch::Sample => audit.db,
        _ => shadow(audit.db),
    };
    let at = Lookup { db, key: audit.key };
    let tier = &worker.shared.tier;
    let now = Tick::now();
    let Some(meta) = tier.peek(at, now) else {
        return Outcome::Gone;
    };
    // Invalidations for it come over the link that filled it, which the barrier is not on.
    if meta.origin != audit.origin {
        return Outcome::Unknown;
    }
    // A field that ends on its own is not announced; the entry lives for maxStaleness at most.
    if worker.expires_fields() && audit.question.is_of_a_hash() {
        return Outcome::Unknown;
    }
    let mut local = Vec::new();
    let mut answer = Reply::new(&mut local, Proto::Resp3);
    let known = audit
        .question
        .with_query(|query| tier.read(at, query, now, &mut answer).is_some());
    if !known {
        return Outcome::Gone;
    }
    if same(&local, reply) {
        Outcome::Agrees
    } else {
        Outcome::Differs
    }
}

/// Whether two replies say the same. Redis gives the members of hashes and sets in any order.
fn same(local: &[u8], redis: &[u8]) -> bool {
    if local == redis {
        return true;
    }
    let is_set = local.starts_with(b"~") && redis.starts_with(b"~");
    let (Ok(local), Ok(redis)) = (Value::read(local), Value::read(redis)) else {
        return false;
    };
    match (local, redis) {
        (Value::Map(local), Value::Map(redis)) => {
            let texts = |pairs: &[(Value<'_>, Value<'_>)]| {
                let mut pairs: Vec<_> = pairs
                    .iter()
                    .map(|(field, value)| format!("{field:?} {value:?}"))
                    .collect();
                pairs.sort_unstable();
                pairs
            };
            texts(&local) == texts(&redis)
        }
        // In a set `~`; the order of a list is part of the answer.
        (Value::List(mut local_members), Value::List(mut members)) if is_set => {
            local_members.sort_unstable_by_key(|member| format!("{member:?}"));
            members.sort_unstable_by_key(|member| format!("{member:?}"));
            local_members == members
        }
        (local, redis) => local == redis,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_hashes_and_sets_have_no_order_and_those_of_lists_have_one() {
        let map = |a: &str, b: &str| format!("%2\r\n{a}{b}");
        let (x, y) = ("$1\r\nx\r\n:1\r\n", "$1\r\ny\r\n:2\r\n");
        assert!(same(map(x, y).as_bytes(), map(y, x).as_bytes()));
        assert!(!same(map(x, y).as_bytes(), map(x, x).as_bytes()));
        assert!(same(b"~2\r\n:1\r\n:2\r\n", b"~2\r\n:2\r\n:1\r\n"));
        assert!(!same(b"~2\r\n:1\r\n:2\r\n", b"~2\r\n:1\r\n:1\r\n"));
        assert!(!same(b"*2\r\n:1\r\n:2\r\n", b"*2\r\n:2\r\n:1\r\n"));
    }

    #[test]
    fn a_key_of_another_type_differs() {
        assert!(!same(b"$1\r\nv\r\n", b"-WRONGTYPE Operation\r\n"));
        assert!(!same(b"_\r\n", b"$0\r\n\r\n"));
    }
}
