//! Invalidations that no change has caused, estimated by samples (B.7).
//!
//! When Redis' table of tracked keys is full, it announces changes that did not happen. Nobody can
//! tell one from the other; but of the invalidations that hit a local string, at most two a second
//! are followed by a `GET`, over a connection that is not tracked, and counted by whether the
//! value is another now. A write of the same value, or of a TTL only, counts as unchanged as well.

use std::{
    cell::Cell,
    hash::{BuildHasher as _, Hasher as _},
    rc::Rc,
    time::Duration,
};

use foldhash::fast::FixedState;

use crate::{
    clock::Tick,
    engine::reply::Target,
    resp::{
        Proto,
        reply::is_error,
        write::{Reply, command},
    },
    tier::{Lookup, Query},
    upstream::Link,
    worker::Worker,
};

/// Shortest time between two samples of an event loop.
const PAUSE: Duration = Duration::from_millis(500);

/// When an event loop takes its next sample.
#[derive(Default)]
pub struct Unfounded(Cell<Tick>);

/// A value that was announced to have changed.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Of the reply to `GET` that the local entry would have given.
    hash: u64,
}

/// An invalidation of `key` has come and its entry is about to be dropped.
pub fn arrived(link: &Link, key: &[u8]) {
    let worker = link.worker();
    let now = worker.now();
    if now < worker.unfounded.0.get() || worker.announces_late() {
        return;
    }
    let db = link.handshake.db;
    let at = Lookup { db, key };
    let mut value = Vec::new();
    let mut reply = Reply::new(&mut value, Proto::Resp2);
    let known = worker.shared.tier.read(at, Query::Get, now, &mut reply);
    if known.is_none() {
        return;
    }
    let plain = worker
        .links_of(db, key)
        .map(|set| Rc::clone(set.plain(worker, Proto::Resp2)));
    let Some(plain) = plain.filter(|plain| plain.is_up() && !plain.is_full()) else {
        return;
    };
    worker.unfounded.0.set(now + PAUSE);
    let step = Step { hash: hash(&value) };
    let key = worker.active().key_in_redis(key);
    let target = Target::Measure(super::Step::Unfounded(step));
    plain.send(target, false, |out| command(out, &[b"GET", &key]));
}

/// The value as it is now.
pub(super) fn answered(worker: &Worker, step: Step, frame: &[u8]) {
    if !is_error(frame) {
        let same = hash(frame) == step.hash;
        worker.counters.sampled_invalidations[usize::from(same)].inc();
    }
}

fn hash(reply: &[u8]) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(reply);
    hasher.finish()
}
