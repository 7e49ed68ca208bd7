//! The decision procedure: does a history keep the promises?
//!
//! Each register is judged on its own (`value`, `counter`), in O(n log n). The rules are sound: an
//! objection is a proof, because "A before B" is only said when A had ended before B began. What
//! ran concurrently may have taken place in any order, and nobody objects.

mod counter;
mod peaks;
mod value;

use std::collections::BTreeMap;

use super::{History, Kind, MILLI, Nanos};

/// Violations that are kept with their evidence; the others are only counted.
const KEPT: usize = 8;

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// No value that was never written, none before it was written.
    NothingInvented,
    /// A write that was answered "not executed" has no effect.
    RefusedIsRefused,
    /// P1: a read returns what was current at most `maxStaleness` before it began.
    BoundedStaleness,
    /// An entry is not served after its key's time to live.
    NoLifeAfterExpiry,
    /// P2: whoever reads through a sidecar sees what was written through it.
    ReadYourWrites,
    /// P2: what is seen through a sidecar never goes back.
    MonotonicReads,
    /// What was acknowledged is there for direct readers.
    NothingLost,
    /// No sum is told to two clients, and sums grow in the order of time.
    CountsOnce,
}

/// What the judge is told beside the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// `maxStaleness`, and what the schedule allows on top of it.
    pub bound: Nanos,
    /// How much later than its time to live a value may be seen; times to live are whole
    /// milliseconds, of another process' clock.
    pub expiry_slack: Nanos,
}

/// An objection with its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What was broken.
    pub promise: Promise,
    /// What happened, in one line.
    pub what: String,
    /// The operations that prove it, as places in [`History::ops`].
    pub evidence: Vec<u32>,
}

/// The judgement.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Reads that were checked.
    pub reads: u64,
    /// Reads during which a write of the same register was under way.
    pub concurrent: u64,
    /// Writes, of whatever fate.
    pub writes: u64,
    /// Age of what reads through sidecars returned: time since it had certainly been overwritten.
    pub staleness: Ages,
    /// Violations by promise.
    pub counts: BTreeMap<Promise, u64>,
    /// The first of them.
    pub violations: Vec<Violation>,
}

/// Ages, exact where they are not zero.
#[derive(Clone, Debug, Default)]
pub struct Ages {
    zero: u64,
    others: Vec<Nanos>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            bound: 1000 * MILLI,
            expiry_slack: 10 * MILLI,
        }
    }
}

/// Judges a history.
pub fn check(history: &History, terms: Terms) -> Verdict {
    let mut by_register: Vec<Vec<u32>> = vec![Vec::new(); history.registers.len()];
    for (place, op) in history.ops.iter().enumerate() {
        by_register[usize::from(op.register)].push(index(place));
    }
    let mut verdict = Verdict::default();
    for (register, places) in history.registers.iter().zip(&by_register) {
        match register.kind {
            Kind::Value => value::judge(history, places, terms, &mut verdict),
            Kind::Counter => counter::judge(history, places, terms, &mut verdict),
        }
    }
    verdict.staleness.others.sort_unstable();
    verdict.violations.sort_by_key(|violation| {
        let first = violation.evidence.first();
        first.map(|place| history.ops[*place as usize].begun)
    });
    verdict
}

fn index(place: usize) -> u32 {
    u32::try_from(place).expect("a history has fewer than four billion operations")
}

// === impl Verdict ===

impl Verdict {
    /// Whether there is nothing to object to.
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// Adds the figures of another history; its evidence stays behind.
    pub fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.concurrent += other.concurrent;
        self.writes += other.writes;
        self.staleness.zero += other.staleness.zero;
        self.staleness.others.extend(&other.staleness.others);
        self.staleness.others.sort_unstable();
        for (promise, count) in &other.counts {
            *self.counts.entry(*promise).or_default() += count;
        }
    }

    fn object(&mut self, promise: Promise, evidence: &[u32], what: impl FnOnce() -> String) {
        let count = self.counts.entry(promise).or_default();
        *count += 1;
        if *count == 1 || self.violations.len() < KEPT {
            self.violations.push(Violation {
                promise,
                what: what(),
                evidence: evidence.to_vec(),
            });
        }
    }
}

// === impl Ages ===

impl Ages {
    fn note(&mut self, age: Nanos) {
        if age == 0 {
            self.zero += 1;
        } else {
            self.others.push(age);
        }
    }

    /// The age that `percent` of all reads did not exceed.
    pub fn percentile(&self, percent: u64) -> Nanos {
        let all = self.zero + self.others.len() as u64;
        let rank = (all * percent).div_ceil(100);
        if rank <= self.zero {
            return 0;
        }
        let place = usize::try_from(rank - self.zero - 1).unwrap_or(usize::MAX);
        self.others.get(place).copied().unwrap_or_default()
    }

    /// The highest.
    pub fn highest(&self) -> Nanos {
        self.others.last().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
