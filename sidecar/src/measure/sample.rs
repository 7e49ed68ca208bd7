//! Chooses local hits to be compared with Redis: one in ten thousand, at least about two a second
//! while there are hits, at most a hundred a second.
//!
//! The choice costs the hit path nothing of its own: hits are counted per batch, and the branch
//! that asks whether Redis is to be told of a hot key asks for a sample as well.

use std::{cell::Cell, time::Duration};

use crate::{clock::Tick, planted, worker::Worker};

/// Hits per sample.
const ONE_IN: u64 = 10_000;
/// Hits that were too few for a sample get one after this time.
const PERIOD: Duration = Duration::from_millis(400);
/// Most samples in that time.
const PER_PERIOD: u64 = 40;
/// The hit that is taken is one of so many, at random: otherwise it would always be the first of a
/// batch.
const SPREAD: u32 = 16;

/// When the next sample of one event loop is due.
#[derive(Default)]
pub struct Sampler {
    /// The next hits are looked at.
    armed: Cell<bool>,
    /// Of these, so many are let go.
    skip: Cell<u32>,
    /// Hits since the last sample.
    hits: Cell<u64>,
    /// Samples that are left of this period.
    allowance: Cell<u64>,
    /// When it began.
    since: Cell<Tick>,
}

impl Sampler {
    /// Whether the next hit is to be shown to [`Sampler::take`].
    #[inline]
    pub fn is_armed(&self) -> bool {
        self.armed.get()
    }

    /// A batch had so many hits.
    #[inline]
    pub fn count(&self, hits: u64) {
        let hits = self.hits.get() + hits;
        self.hits.set(hits);
        if hits >= ONE_IN && self.allowance.get() > 0 {
            self.armed.set(true);
        }
    }

    /// Time has passed.
    pub fn tick(&self, worker: &Worker) {
        let now = worker.now();
        if now.since(self.since.get()) < PERIOD || planted::hides_measurements() {
            return;
        }
        self.since.set(now);
        self.allowance.set(PER_PERIOD);
        if self.hits.get() > 0 {
            self.armed.set(true);
        }
    }

    /// A hit while armed; whether it is the sample.
    pub fn take(&self, worker: &Worker) -> bool {
        if let Some(left) = self.skip.get().checked_sub(1) {
            self.skip.set(left);
            return false;
        }
        self.skip.set(worker.random() % SPREAD);
        self.armed.set(false);
        self.hits.set(0);
        self.allowance.set(self.allowance.get().saturating_sub(1));
        true
    }
}
