//! Measured staleness: how long an invalidation takes, from the write to its arrival here.
//!
//! About once a second, on each tracked link: read a key of our own over it, so that it is
//! tracked; write the key over the plain link; time the invalidation on the tracked link. When the
//! write was answered and the invalidation is not here yet, one more read on the tracked link
//! settles it: Redis sends invalidations and replies in order, so if that read is answered first,
//! invalidations do not come, and the local tier is in doubt (P4).
//!
//! The key is deleted in the same breath, so that apps that list or count keys do not meet it; it is
//! never in the local tier and never counted as traffic of apps. A server that refuses is asked
//! again every minute.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use crate::{
    clock::Tick,
    engine::reply::Target,
    metrics::{Flush, Probed},
    planted,
    resp::{Proto, reply::is_error, write::command},
    upstream::Link,
    worker::Worker,
};

/// Every probe key begins like this, behind the prefix; then the sidecar's id and the link.
pub const KEY: &str = "pannier:probe:";
/// Shortest pause between two probes of a link.
const PAUSE: Duration = Duration::from_millis(750);
/// Longest time added to it at random.
const JITTER_MS: u32 = 500;
/// Pause after a refusal.
const REFUSED: Duration = Duration::from_mins(1);
/// The key's TTL in Redis, in milliseconds, should its deletion get lost with the connection.
const TTL_MS: &[u8] = b"10000";

/// The probes of one event loop, by the slot of the tracked link in the local tier.
#[derive(Default)]
pub struct Probes(RefCell<BTreeMap<u16, Probe>>);

struct Probe {
    /// Tells a late answer from one to the current questions.
    round: u64,
    phase: Phase,
}

enum Phase {
    /// Nothing is under way until then.
    Resting(Tick),
    /// The key is being read.
    Reading,
    /// It is being written, since then.
    Writing {
        sent: Tick,
        written: Option<Tick>,
        arrived: Option<Tick>,
    },
}

/// A probe's question, on its way to Redis.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    slot: u16,
    round: u64,
    what: Question,
}

#[derive(Clone, Copy, Debug)]
enum Question {
    Read,
    Write,
    Delete,
    Settle,
}

/// Begins a probe of that tracked link, if one is due.
pub fn begin(link: &Link) {
    let worker = link.worker();
    let Some(slot) = slot(link) else { return };
    let now = worker.now();
    let mut probes = worker.probes.0.borrow_mut();
    let probe = probes.entry(slot).or_insert_with(|| Probe {
        round: 0,
        phase: Phase::Resting(now),
    });
    let Phase::Resting(until) = probe.phase else {
        return;
    };
    if now < until || link.is_full() || planted::hides_measurements() {
        return;
    }
    // A server of a cluster that owns no slot can have no key.
    let Some(key) = key(link, slot) else { return };
    probe.round += 1;
    probe.phase = Phase::Reading;
    let step = Step {
        slot,
        round: probe.round,
        what: Question::Read,
    };
    drop(probes);
    ask(link, step, &[b"GET", &key]);
}

/// An invalidation of `key` has come; whether it was a probe's. Without the key prefix.
pub fn arrived(link: &Link, key: &[u8]) -> bool {
    let Some(rest) = key.strip_prefix(KEY.as_bytes()) else {
        return false;
    };
    let worker = link.worker();
    if !rest.starts_with(worker.shared.measured.id.as_bytes()) {
        return true;
    }
    let now = Tick::now();
    let mut done = None;
    on(worker, slot(link), |probe| {
        let Phase::Writing {
            sent,
            written,
            arrived,
        } = &mut probe.phase
        else {
            return;
        };
        arrived.get_or_insert(now);
        done = written.map(|written| (*sent, written, now));
    });
    if let Some((sent, written, arrived)) = done {
        measured(link, sent, written, arrived);
    }
    true
}

/// The server has flushed a database: the key will have no invalidation of its own.
pub fn abandon(link: &Link) {
    rest(link.worker(), slot(link), PAUSE);
}

pub(super) fn answered(link: &Link, step: Step, frame: &[u8]) {
    let worker = link.worker();
    let current = on(worker, Some(step.slot), |probe| probe.round == step.round);
    if current != Some(true) {
        return;
    }
    if is_error(frame) && !frame.starts_with(b"-NOPERM") && worker.fails_over() {
        // The slot has moved, or a fail-over is under way.
        return rest(worker, Some(step.slot), PAUSE);
    }
    if is_error(frame) {
        let error = String::from_utf8_lossy(&frame[1..]);
        worker.counters.probes[Probed::Refused as usize].inc();
        worker.shared.measured.refused(error.trim_end());
        return rest(worker, Some(step.slot), REFUSED);
    }
    match step.what {
        Question::Read => write_key(link, step),
        Question::Write => key_was_written(worker, link, step),
        Question::Delete => {}
        Question::Settle => settle(link, step),
    }
}

pub(super) fn lost(worker: &Worker, step: Step) {
    if on(worker, Some(step.slot), |probe| probe.round == step.round) == Some(true) {
        rest(worker, Some(step.slot), PAUSE);
    }
}

/// The key is tracked now: write it over the link that carries the apps' writes.
fn write_key(link: &Link, step: Step) {
    let worker = link.worker();
    let writer = worker
        .links_if_there(link.handshake.db, &link.server)
        .map(|set| Rc::clone(set.plain(worker, Proto::Resp2)));
    let writer = writer.filter(|writer| writer.is_up() && !writer.is_full());
    let (Some(writer), Some(key)) = (writer, key(link, step.slot)) else {
        return rest(worker, Some(step.slot), PAUSE);
    };
    let sent = Tick::now();
    on(worker, Some(step.slot), |probe| {
        probe.phase = Phase::Writing {
            sent,
            written: None,
            arrived: None,
        };
    });
    let round = step.round.to_string();
    let what = Question::Write;
    let words: [&[u8]; 5] = [b"SET", &key, round.as_bytes(), b"PX", TTL_MS];
    ask(&writer, Step { what, ..step }, &words);
    let what = Question::Delete;
    ask(&writer, Step { what, ..step }, &[b"DEL", &key]);
}

fn key_was_written(worker: &Rc<Worker>, writer: &Link, step: Step) {
    let now = Tick::now();
    let phase = on(worker, Some(step.slot), |probe| match &mut probe.phase {
        Phase::Writing {
            sent,
            written,
            arrived,
        } => {
            *written = Some(now);
            Some((*sent, *arrived))
        }
        _ => None,
    });
    let Some(Some((sent, arrived))) = phase else {
        return;
    };
    let links = worker.links_if_there(writer.handshake.db, &writer.server);
    let tracked = links.and_then(|set| {
        let link = set.tracked_link()?;
        (slot(link) == Some(step.slot)).then(|| Rc::clone(link))
    });
    let (Some(tracked), Some(key)) = (tracked, key(writer, step.slot)) else {
        return rest(worker, Some(step.slot), PAUSE);
    };
    if let Some(arrived) = arrived {
        return measured(&tracked, sent, now, arrived);
    }
    let what = Question::Settle;
    let words: [&[u8]; 2] = [b"EXISTS", &key];
    ask(&tracked, Step { what, ..step }, &words);
}

/// A read that was sent after the write was answered has its answer: the invalidation had to come
/// before it.
fn settle(link: &Link, step: Step) {
    let worker = link.worker();
    let missing = on(worker, Some(step.slot), |probe| {
        matches!(probe.phase, Phase::Writing { arrived: None, .. })
    });
    if missing != Some(true) {
        return;
    }
    worker.counters.probes[Probed::Lost as usize].inc();
    worker.counters.flushes[Flush::Doubt as usize].inc();
    tracing::warn!(
        "redis did not announce a change of a key that was read; the local tier was flushed"
    );
    if let Some(tier) = &link.tier {
        tier.break_proof();
    }
    rest(worker, Some(step.slot), PAUSE);
}

fn measured(link: &Link, sent: Tick, written: Tick, arrived: Tick) {
    let worker = link.worker();
    let took = arrived.since(sent);
    worker.counters.probes[Probed::Measured as usize].inc();
    for (histogram, took) in worker
        .counters
        .staleness
        .iter()
        .zip([took, arrived.since(written)])
    {
        histogram.observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), 1);
    }
    let shared = &worker.shared.measured;
    shared.staleness.lock().add(arrived, took);
    shared.probe_refused.lock().take();
    rest(worker, slot(link), PAUSE);
}

fn rest(worker: &Worker, slot: Option<u16>, pause: Duration) {
    let jitter = Duration::from_millis(u64::from(worker.random() % JITTER_MS));
    let until = Tick::now() + pause + jitter;
    on(worker, slot, |probe| {
        // Answers that are still under way belong to nobody.
        probe.round += 1;
        probe.phase = Phase::Resting(until);
    });
}

fn on<T>(worker: &Worker, slot: Option<u16>, act: impl FnOnce(&mut Probe) -> T) -> Option<T> {
    worker.probes.0.borrow_mut().get_mut(&slot?).map(act)
}

/// The tracked link's slot; other links have none.
fn slot(link: &Link) -> Option<u16> {
    link.tier.as_ref().map(|tier| tier.origin().link)
}

/// The key of one link, as Redis has it.
fn key(link: &Link, slot: u16) -> Option<Vec<u8>> {
    let worker = link.worker();
    let name = format!("{KEY}{}:{slot}", worker.shared.measured.id);
    worker.own_key(&link.server, name.as_bytes())
}

fn ask(link: &Link, step: Step, words: &[&[u8]]) {
    let target = Target::Measure(super::Step::Probe(step));
    link.send(target, false, |out| command(out, words));
}
