//! The proofs that entries depend on: one slot per upstream connection that fills the tier.
//!
//! A link proves itself by answering a keyed read; the proof is dated by the moment the read was
//! *sent*, so an answer that was long on its way proves little. An entry whose link has lost its
//! connection, or has not proved itself within `maxStaleness`, is not served (promises P1, P4).

use std::{
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
}

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

    /// Makes every entry of every link unservable.
    pub fn bump_all(&self) {
        for slot in &self.slots {
            slot.epoch.fetch_add(1, AcqRel);
        }
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

    /// Drops all its entries at once; the connection itself is not in doubt.
    pub fn flush(&self) {
        self.slot().epoch.fetch_add(1, AcqRel);
    }

    /// The connection is lost or in doubt: drops all its entries at once. The answer is whether it
    /// had a proof to lose.
    pub fn break_proof(&self) -> bool {
        if planted::is(Bug::Epoch) {
            return true;
        }
        let had = self.slot().proven_until.swap(0, AcqRel) > 0;
        self.slot().epoch.fetch_add(1, AcqRel);
        had
    }
}

impl Drop for TierLink {
    fn drop(&mut self) {
        self.break_proof();
        self.tier.links().free.lock().push(self.slot);
    }
}
