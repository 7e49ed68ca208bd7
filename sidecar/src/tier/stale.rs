//! Entries that cannot be proven any longer, for rules that allow to serve them.
//!
//! A lost connection only makes entries suspect: they stay where they are, and [`Links`] knows when
//! the life of the link ended that had read them. A flush on purpose forgets those times.

use std::time::Duration;

use super::{Lookup, Query, Tier};
use crate::{clock::Tick, resp::write::Reply};

/// What a rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleBound {
    /// The rule; entries that another one allowed are not served.
    pub rule: u16,
    /// For so long after an entry could last be served coherently.
    pub if_error: Duration,
}

impl Tier {
    /// Answers `query` from an entry that need not be current, if it was current within the bound.
    pub fn read_stale(
        &self,
        at: Lookup<'_>,
        query: Query<'_>,
        bound: StaleBound,
        now: Tick,
        reply: &mut Reply<'_>,
    ) -> bool {
        let hash = self.hash(at.key);
        let shard = self.shard(hash);
        let Some(kept) = shard.cache.get(&hash.in_db(at.db)) else {
            return false;
        };
        let entry = &kept.entry;
        self.stale_left(entry, at, bound, now).is_some() && query.answer(entry, now.millis(), reply)
    }

    /// How much longer the key's entry may be served although it is not current.
    pub fn peek_stale(&self, at: Lookup<'_>, bound: StaleBound, now: Tick) -> Option<Duration> {
        let hash = self.hash(at.key);
        let shard = self.shard(hash);
        let kept = shard.cache.peek(&hash.in_db(at.db))?;
        self.stale_left(&kept.entry, at, bound, now)
    }

    fn stale_left(
        &self,
        entry: &super::Entry,
        at: Lookup<'_>,
        bound: StaleBound,
        now: Tick,
    ) -> Option<Duration> {
        if !entry.is(at) || entry.rule() != bound.rule {
            return None;
        }
        let proven = self.links.coherent_until(entry.origin(), now)?;
        let coherent = proven.millis().min(entry.deadline_ms());
        let bound = u64::try_from(bound.if_error.as_millis()).unwrap_or(u64::MAX);
        let left = coherent.saturating_add(bound).checked_sub(now.millis())?;
        (left > 0).then_some(Duration::from_millis(left))
    }

    /// Redis has answered for the key, and the answer is not kept: an entry from before must not
    /// come back when Redis is away.
    pub fn forget(&self, at: Lookup<'_>) {
        let hash = self.hash(at.key);
        let mut shard = self.shard(hash);
        let slot = hash.in_db(at.db);
        if shard.cache.peek(&slot).is_some() {
            shard.cache.remove(&slot);
        }
    }
}
