//! A history checker in the manner of Jepsen: what was asked, when, what came back, and whether
//! the promises P1 to P3 allow it.
//!
//! Clients log every operation with the time before it was sent and the time after
//! its reply was read, on one monotonic clock. Every written value is unique, so a value names its
//! write. [`check`] decides from the log alone; it knows nothing of the sidecar, of Redis or of the
//! faults. What it cannot see is in `docs/checker.md`.

pub mod check;
pub mod client;
pub mod keys;
pub mod report;
pub mod request;
pub mod run;
pub mod schedule;
pub mod servers;
pub mod stage;
pub mod workload;

/// Nanoseconds since the history began.
pub type Nanos = u64;

/// A time that never comes.
pub const NEVER: Nanos = u64::MAX;

/// One millisecond.
pub const MILLI: Nanos = 1_000_000;

/// What was read or written: the number of a write, or a counter's value.
pub type Mark = u64;

/// There was nothing.
pub const NIL: Mark = 0;

/// Something that no client ever writes.
pub const FOREIGN: Mark = u64::MAX;

/// Which way a client reaches Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// Through the sidecar of that number.
    Pod(u8),
    /// Without a sidecar.
    Direct,
}

/// What is known of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was acknowledged.
    Done,
    /// It may have been executed, or be executed later.
    Unknown,
    /// The answer said that it was not executed.
    Refused,
}

/// What an operation did to one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It returned this.
    Read(Mark),
    /// It wrote this, for `ttl_ms` milliseconds (0: for ever).
    Set {
        /// What.
        mark: Mark,
        /// Its time to live.
        ttl_ms: u32,
        /// What became of it.
        fate: Fate,
    },
    /// It removed what was there.
    Remove(Fate),
    /// Between its beginning and its end what was there may have gone by itself: expiry, eviction.
    MayVanish,
    /// It added one to a counter and was told the sum ([`NIL`] when it was told nothing).
    Add {
        /// The sum.
        sum: Mark,
        /// What became of it.
        fate: Fate,
    },
}

/// One operation on one register. An operation on several keys or fields is logged as several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// Before it was sent.
    pub begun: Nanos,
    /// After its reply, or the error instead of it, was read.
    pub ended: Nanos,
    /// Who asked; a connection.
    pub client: u16,
    /// Which way.
    pub via: Via,
    /// Place in [`History::registers`].
    pub register: u16,
    /// What happened.
    pub action: Action,
    /// The command, for people.
    pub verb: &'static str,
}

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The mark of its last write.
    Value,
    /// A sum that only grows.
    Counter,
}

/// A key, or a field of a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// For people.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
}

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its beginning.
    pub from: Nanos,
    /// Its end.
    pub to: Nanos,
}

/// Everything that was logged.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Keys and fields.
    pub registers: Vec<Register>,
    /// The operations of one client lie together, in the order of its program.
    pub ops: Vec<Op>,
    /// Times in which Redis itself may lose acknowledged writes: a failover.
    pub lossy: Vec<Window>,
}

// === impl Window ===

impl Window {
    /// Whether an operation with these times may have taken place within.
    pub const fn touches(&self, begun: Nanos, ended: Nanos) -> bool {
        begun <= self.to && ended >= self.from
    }
}

// === impl Op ===

impl Op {
    /// Whether it is a read.
    pub const fn is_read(&self) -> bool {
        matches!(self.action, Action::Read(_))
    }
}

// === impl History ===

impl History {
    /// Whether Redis may lose what was acknowledged at that time.
    pub fn may_lose(&self, begun: Nanos, ended: Nanos) -> bool {
        self.lossy.iter().any(|window| window.touches(begun, ended))
    }
}
