//! The proofs that entries depend on: one slot per upstream connection that fills the tier.
//!
//! A link proves itself by answering a keyed read; the proof is dated by the moment the read was
//! *sent*, so an answer that was long on its way proves little. An entry whose link has lost its
//! connection, or has not proved itself within `maxStaleness`, is not served (promises P1, P4).

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{
            AtomicU32, AtomicU64,
            Ordering::{AcqRel, Acquire},
        },
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::entry::Origin;
use crate::{
    clock::Tick,
    planted::{self, Bug},
};

/// Links at a time; one per event loop, server and database. Further ones do not fill the tier.
const SLOTS: usize = 1024;

/// All slots.
pub struct Links {
    slots: Box<[Slot]>,
    free: Mutex<Vec<u16>>,
    /// Ends of proven lives, per slot; apart from what hits read.
    ended: Box<[Mutex<VecDeque<Ended>>]>,
    /// Counts flushes on purpose, which forget all ends.
    purges: AtomicU64,
}

/// A life of a link in which it was proven, and until when entries could be served.
struct Ended {
    epoch: u32,
    until: Tick,
    purges: u64,
}

/// Lives that are remembered per slot.
const REMEMBERED: usize = 16;

#[derive(Default)]
struct Slot {
    epoch: AtomicU32,
    /// Entries may be served before this tick.
    proven_until: AtomicU64,
}

/// A link's own slot, given back when dropped.
pub struct TierLink {
    tier: Arc<super::Tier>,
    slot: u16,
}

impl Default for Links {
    fn default() -> Self {
        let free = (0..SLOTS)
            .rev()
            .filter_map(|slot| u16::try_from(slot).ok())
            .collect();
        Self {
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            free: Mutex::new(free),
            ended: (0..SLOTS).map(|_| Mutex::default()).collect(),
            purges: AtomicU64::new(0),
        }
    }
}

impl Links {
    /// Whether entries of that origin may be served at `now`.
    #[inline]
    pub fn may_serve(&self, origin: Origin, now: Tick) -> bool {
        let slot = &self.slots[usize::from(origin.link)];
        slot.epoch.load(Acquire) == origin.epoch
            && (now.0 < slot.proven_until.load(Acquire) || planted::is(Bug::Proof))
    }

    /// Whether the link is still in the life in which it made the read.
    pub fn is_current(&self, origin: Origin) -> bool {
        self.slots[usize::from(origin.link)].epoch.load(Acquire) == origin.epoch
    }

    /// Makes every entry of every link unservable, for good.
    pub fn bump_all(&self) {
        for slot in &self.slots {
            slot.epoch.fetch_add(1, AcqRel);
        }
        // After the epochs: an end that is noted meanwhile is forgotten rather than kept by error.
        self.purges.fetch_add(1, AcqRel);
    }

    /// Ends the life of every link's entries, as [`TierLink::break_proof`] does.
    pub fn doubt_all(&self) {
        for (link, slot) in (0_u16..).zip(self.slots.iter()) {
            self.end(link, slot.proven_until.load(Acquire));
        }
    }

    /// The entries of a link can be served no longer, but where a rule allows what could be served
    /// `until` then.
    fn end(&self, link: u16, until: u64) {
        let purges = self.purges.load(Acquire);
        let slot = usize::from(link);
        let epoch = self.slots[slot].epoch.fetch_add(1, AcqRel);
        if until == 0 {
            return;
        }
        let mut ended = self.ended[slot].lock();
        if ended.len() == REMEMBERED {
            ended.pop_front();
        }
        ended.push_back(Ended {
            epoch,
            until: Tick(until).min(Tick::now()),
            purges,
        });
    }

    /// When an entry of that origin could last be served coherently, if a lost or silent link, and
    /// no flush, is the reason that it cannot be now.
    pub fn coherent_until(&self, origin: Origin, now: Tick) -> Option<Tick> {
        let slot = &self.slots[usize::from(origin.link)];
        if slot.epoch.load(Acquire) == origin.epoch {
            let until = slot.proven_until.load(Acquire);
            return (until != 0).then_some(Tick(until).min(now));
        }
        let purges = self.purges.load(Acquire);
        self.ended[usize::from(origin.link)]
            .lock()
            .iter()
            .find(|end| end.epoch == origin.epoch && end.purges == purges)
            .map(|end| end.until)
    }
}

impl TierLink {
    /// Takes a slot; `None` when all are taken.
    pub fn open(tier: &Arc<super::Tier>) -> Option<Self> {
        let slot = tier.links().free.lock().pop()?;
        let link = Self {
            tier: Arc::clone(tier),
            slot,
        };
        link.break_proof();
        Some(link)
    }

    fn slot(&self) -> &Slot {
        &self.tier.links().slots[usize::from(self.slot)]
    }

    /// The origin of entries that this link reads now.
    pub fn origin(&self) -> Origin {
        Origin {
            link: self.slot,
            epoch: self.slot().epoch.load(Acquire),
        }
    }

    /// The link answered a keyed read that was sent at `sent`.
    pub fn prove(&self, sent: Tick, max_staleness: Duration) {
        self.slot()
            .proven_until
            .fetch_max((sent + max_staleness).0, AcqRel);
    }

    /// Its entries are not current any longer; the connection itself is not in doubt.
    pub fn doubt(&self) {
        let until = self.slot().proven_until.load(Acquire);
        self.tier.links().end(self.slot, until);
    }

    /// The connection is lost or in doubt: none of its entries is current any longer. The answer is
    /// whether it had a proof to lose.
    pub fn break_proof(&self) -> bool {
        if planted::is(Bug::Epoch) {
            return true;
        }
        let until = self.slot().proven_until.swap(0, AcqRel);
        self.tier.links().end(self.slot, until);
        until > 0
    }

    /// Whether the link has been without a proof for longer than it may be, `up_since` its
    /// connection came up.
    pub fn is_silent(&self, now: Tick, up_since: Tick, max_staleness: Duration) -> bool {
        match self.slot().proven_until.load(Acquire) {
            0 => now.since(up_since) > max_staleness,
            until => now.0 >= until,
        }
    }
}

impl Drop for TierLink {
    fn drop(&mut self) {
        self.break_proof();
        self.tier.links().free.lock().push(self.slot);
    }
}
