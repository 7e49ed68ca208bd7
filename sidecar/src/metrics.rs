//! Counters of the data path.
//!
//! Each event loop has a [`LoopCounters`] of its own and is the only one that writes to it, so
//! counting is a load and a store without bus locking; readers sum over the loops. Names and
//! labels on `/metrics` are made in `metrics::export`, not here.

pub mod export;
pub mod rules;
pub mod table;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter with one writing thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one; only the owning thread may call this.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`; only the owning thread may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value, for readers.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the latency buckets, in microseconds; the last bucket has none.
pub const BUCKETS_US: [u64; 11] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 1_000_000,
];

/// A latency histogram with one writing thread.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Observations per bucket, not cumulative; the last is above all bounds.
    pub buckets: [Counter; BUCKETS_US.len() + 1],
    /// Sum of all observations in nanoseconds.
    pub sum_ns: Counter,
}

impl Histogram {
    /// Counts `times` observations of one duration.
    #[inline]
    pub fn observe(&self, ns: u64, times: u64) {
        let us = ns / 1_000;
        let bucket = BUCKETS_US
            .iter()
            .position(|bound| us <= *bound)
            .unwrap_or(BUCKETS_US.len());
        self.buckets[bucket].add(times);
        self.sum_ns.add(ns.saturating_mul(times));
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Ok = 0,
    /// Answered with an error.
    Error = 1,
}

/// Most commands with counters of their own; later ones are counted as `other`.
pub const COMMANDS: usize = 512;
/// Most rules; as in the policy.
pub const RULES: usize = 1024;

/// Why the local tier was flushed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// The tracked connection was lost.
    LinkLost = 0,
    /// The server said that a database was flushed (null push).
    ServerFlush = 1,
    /// The server's answer to the proof was in doubt.
    Doubt = 2,
    /// A write passed through whose keys are not known.
    UnknownWrite = 3,
    /// The policy changed.
    PolicyChange = 4,
    /// A server of a cluster lost a slot.
    SlotMoved = 5,
}

/// Labels of [`Flush`], in the order of its numbers.
pub const FLUSHES: [&str; 6] = [
    "link_lost",
    "server_flush",
    "doubt",
    "unknown_write",
    "policy_change",
    "slot_moved",
];

/// What came of a probe of staleness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// The invalidation came.
    Measured = 0,
    /// It did not, though a later answer did.
    Lost = 1,
    /// Redis refused to read or write the key.
    Refused = 2,
}

/// Labels of [`Probed`], in the order of its numbers.
pub const PROBED: [&str; 3] = ["measured", "lost", "refused"];

/// Why a read was answered by an entry that was not current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// There was no tracked connection.
    Disconnected = 0,
    /// There was one, and Redis was silent on it.
    Unproven = 1,
    /// The read was sent and got no answer.
    Unanswered = 2,
    /// Redis answered that it cannot serve.
    Refused = 3,
}

/// Labels of [`Stale`], in the order of its numbers.
pub const STALES: [&str; 4] = ["disconnected", "unproven", "unanswered", "refused"];

/// Per command of the table, by its number there.
#[derive(Debug, Default)]
pub struct CommandCounters {
    /// By [`Outcome`].
    pub outcomes: [Counter; 2],
    /// From parsing to reply.
    pub duration: Histogram,
}

/// Per rule, by its number in the policy.
#[derive(Debug, Default)]
pub struct RuleCounters {
    /// Answered by the local tier.
    pub hits: Counter,
    /// Asked Redis because the local tier had nothing.
    pub misses: Counter,
    /// Replies kept.
    pub fills: Counter,
    /// Replies not kept because they were overtaken by a change.
    pub fills_refused: Counter,
    /// Answered by a local entry that was not current; by [`Stale`].
    pub stale: [Counter; 4],
    /// Failed writes that were answered as if they had succeeded (`onWriteError: Log`).
    pub write_errors_masked: Counter,
    /// Reads of keys in shadow that the local tier would have answered.
    pub shadow_hits: Counter,
    /// Of these, those that Redis answered otherwise without having announced a change.
    pub shadow_mismatches: Counter,
    /// Hits compared with Redis that were stale.
    pub stale_samples: Counter,
}

/// Everything one event loop counts.
#[derive(Debug)]
pub struct LoopCounters {
    /// By command.
    pub commands: Box<[CommandCounters]>,
    /// By rule.
    pub rules: Box<[RuleCounters]>,
    /// Reads that joined one that was under way.
    pub coalesced: Counter,
    /// Commands answered from memory instead of Redis.
    pub memory_commands: Counter,
    /// Writes acknowledged in memory only, while Redis was away.
    pub memory_writes: Counter,
    /// Memory-only writes thrown away when Redis came back.
    pub memory_discarded: Counter,
    /// Invalidation pushes, keys in them.
    pub invalidations: Counter,
    /// By [`Flush`].
    pub flushes: [Counter; FLUSHES.len()],
    /// Hits compared with Redis.
    pub samples: Counter,
    /// By [`Probed`].
    pub probes: [Counter; 3],
    /// Values read again after an invalidation: those that had changed, and those that had not.
    pub sampled_invalidations: [Counter; 2],
    /// Until a probe's invalidation arrived: since its write was sent, and since it was answered.
    pub staleness: [Histogram; 2],
    /// Requests to Redis and the time to their replies.
    pub upstream: Histogram,
    /// Connections to Redis that were opened.
    pub upstream_connects: Counter,
    /// Attempts that failed, and connections that broke.
    pub upstream_errors: Counter,
    /// Commands sent again after a connection broke.
    pub upstream_retries: Counter,
    /// Commands that a server refused unexecuted and that were sent on.
    pub redirects: Counter,
    /// Connections from apps.
    pub connections: Counter,
    /// Connections refused because of `maxClients`.
    pub rejected: Counter,
    /// Malformed requests.
    pub protocol_errors: Counter,
    /// Connections closed because the app did not read its replies.
    pub slow_readers: Counter,
    /// Keys touched in Redis so that its LRU does not see them go cold.
    pub touches: Counter,
    /// Commands that the policy refused.
    pub denied: Counter,
    /// Bytes from apps.
    pub bytes_in: Counter,
    /// Bytes to apps.
    pub bytes_out: Counter,
}

impl Default for LoopCounters {
    fn default() -> Self {
        Self {
            commands: (0..COMMANDS).map(|_| CommandCounters::default()).collect(),
            rules: (0..RULES).map(|_| RuleCounters::default()).collect(),
            coalesced: Counter::default(),
            memory_commands: Counter::default(),
            memory_writes: Counter::default(),
            memory_discarded: Counter::default(),
            invalidations: Counter::default(),
            flushes: Default::default(),
            samples: Counter::default(),
            probes: Default::default(),
            sampled_invalidations: Default::default(),
            staleness: Default::default(),
            upstream: Histogram::default(),
            upstream_connects: Counter::default(),
            upstream_errors: Counter::default(),
            upstream_retries: Counter::default(),
            redirects: Counter::default(),
            connections: Counter::default(),
            rejected: Counter::default(),
            protocol_errors: Counter::default(),
            slow_readers: Counter::default(),
            touches: Counter::default(),
            denied: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
        }
    }
}
