//! Memory mode: the data of an app that has no Redis, or not now (P6), bounded in bytes (P9).
//!
//! Strings with counters and bits, expiry, hashes, sets, sorted sets, lists, streams without
//! consumer groups and the SCAN family, answered as redis-server 7.0 answers them. One `Store` serves topology `None`, `whenUnavailable: Memory`
//! and the rules with `cache: LocalOnly`. It is pure: no I/O, no clock, no randomness of its own.
//! `pubsub` beside it keeps who listens to what.
//!
//! `command` finds the command, `run` is what a command gets to work with, `keyspace` keeps keys
//! under the limit, `value` says what a key can hold; one file per type answers its commands.
//!
//! Known differences from redis-server: members of sets and fields of hashes come in another
//! order; the SCAN family pages small collections too; a random choice with repetition gives at
//! most 2^20 elements; `INCRBYFLOAT` takes no number beyond the range of 64-bit floats; scores are
//! not read in hexadecimal and zero has no sign; `ZRANK` knows `WITHSCORE`, as redis 7.2 does.

#![allow(
    clippy::unnecessary_wraps,
    reason = "all commands have one signature, also those that cannot fail"
)]

pub(crate) mod argument;
mod bits;
mod command;
mod deadlines;
mod fail;
mod hashes;
mod keys;
mod keyspace;
mod lists;
mod long_double;
mod numbers;
pub mod pubsub;
mod random;
mod run;
mod scan;
mod sets;
mod sorted;
mod stream;
mod strings;
mod table;
mod value;
mod waiting;
mod watch;

use crate::resp::write::Reply;
use fail::Fail;
use keyspace::Keyspace;
use random::Random;
use run::Run;
use std::time::Duration;

pub use value::{
    CONTAINER_OVERHEAD, ENTRY_OVERHEAD, FIELD_OVERHEAD, ITEM_OVERHEAD, KEY_OVERHEAD,
    MEMBER_OVERHEAD, SCORED_OVERHEAD,
};
pub use watch::Flag;

/// What one call brings along.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The database that the connection selected.
    pub db: u32,
    /// How many databases there are; `MOVE`, `COPY` and `SWAPDB` refuse others.
    pub databases: u32,
    /// Monotonic, since the start of the process.
    pub now: Duration,
    /// Wall clock, since the epoch; read together with `now`.
    pub unix_now: Duration,
    /// A seed; consecutive numbers are good enough.
    pub random: u64,
    /// The longest string that `APPEND`, `SETRANGE` and `SETBIT` may make, in bytes.
    pub max_value: usize,
}

/// What became of a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// The reply is written; it may be an error.
    Answered {
        /// Whether data changed.
        wrote: bool,
        /// Keys that got elements: commands that wait for them may go on.
        ready: Vec<(u32, Box<[u8]>)>,
    },
    /// Nothing is written: memory mode does not have this command.
    NotAvailable,
}

/// Figures for `/state`, `INFO` and the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Keys in all databases, expired ones that nobody met yet included.
    pub keys: usize,
    /// Bytes that they count as.
    pub bytes: usize,
    /// Bytes that they may count as.
    pub limit: usize,
    /// Keys that went for lack of room.
    pub evicted: u64,
    /// Keys that went because their time was over.
    pub expired: u64,
    /// Writes since the store was last cleared.
    pub writes: u64,
    /// The databases with keys, by number.
    pub databases: Vec<DatabaseStats>,
}

/// Figures of one database, as `INFO keyspace` shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseStats {
    /// Its number.
    pub number: u32,
    /// Its keys.
    pub keys: usize,
    /// Its keys with a deadline.
    pub expiring: usize,
}

/// What `clear` threw away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discarded {
    /// Keys.
    pub keys: usize,
    /// Bytes that they counted as.
    pub bytes: usize,
    /// Writes that were acknowledged since the store was last cleared.
    pub writes: u64,
}

/// The keys of memory mode.
pub struct Store {
    keys: Keyspace,
    writes: u64,
    /// How often it was cleared.
    generation: u64,
    /// Wall clock minus monotonic clock, in milliseconds.
    offset: Option<i64>,
}

/// The clocks are read one after the other; less than this apart they count as unchanged, so
/// that `PEXPIRETIME` answers exactly what `PEXPIREAT` was given.
const CLOCK_STEP_MS: i64 = 50;

impl Store {
    /// The commands that are answered, in lower case, sorted.
    pub const COMMANDS: &'static [&'static str] = &command::NAMES;

    /// Whether a command of that name, in any case, is answered.
    pub fn has(name: &[u8]) -> bool {
        command::find(name).is_some()
    }

    /// How long a command waits that answered with null: `Duration::MAX` until something comes,
    /// `None` not at all.
    pub fn patience(args: &[&[u8]]) -> Option<Duration> {
        waiting::patience(args)
    }

    /// The keys that such a command waits for.
    pub fn waits_for<'b>(args: &[&'b [u8]]) -> Vec<&'b [u8]> {
        waiting::keys(args)
    }

    /// The words of such a command for when it is asked again: `$` is the last id of now.
    pub fn words_to_wait_with(&mut self, call: &Call, args: &[&[u8]]) -> Vec<Box<[u8]>> {
        if args.first().is_some_and(|name| argument::is(name, "XREAD")) {
            return stream::settle_ids(&mut self.run("xread", call), args);
        }
        args.iter().map(|word| Box::from(*word)).collect()
    }

    /// An empty store that never holds more than `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Self {
        let limit = usize::try_from(limit_bytes)
            .unwrap_or(usize::MAX / 2)
            .min(usize::MAX / 2);
        Self {
            keys: Keyspace::new(limit),
            writes: 0,
            generation: 0,
            offset: None,
        }
    }

    /// Answers a command; `args[0]` is its name in any case.
    pub fn execute(&mut self, call: &Call, args: &[&[u8]], reply: &mut Reply<'_>) -> Done {
        let Some(spec) = args.first().and_then(|name| command::find(name)) else {
            return Done::NotAvailable;
        };
        let mut run = self.run(spec.name, call);
        let result = if !spec.takes(args.len()) {
            Err(Fail::Arity(spec.name))
        } else if spec.grows {
            run.make_room_for(args)
                .and_then(|()| (spec.run)(&mut run, args, reply))
        } else {
            (spec.run)(&mut run, args, reply)
        };
        if let Err(fail) = result {
            reply.error(fail.to_string());
        }
        let (wrote, ready) = (run.wrote, run.ready);
        self.keys.watches.settle(wrote);
        self.writes += u64::from(wrote);
        Done::Answered { wrote, ready }
    }

    fn run<'a>(&'a mut self, command: &'static str, call: &'a Call) -> Run<'a> {
        Run {
            now: milliseconds(call.now),
            offset: self.follow_clocks(call),
            keys: &mut self.keys,
            call,
            command,
            random: Random::new(call.random),
            wrote: false,
            ready: Vec::new(),
        }
    }

    /// Changes the bound; keys above it go with the next write.
    pub fn set_limit(&mut self, limit_bytes: u64) {
        self.keys.limit = usize::try_from(limit_bytes)
            .unwrap_or(usize::MAX / 2)
            .min(usize::MAX / 2);
    }

    /// The figures of now.
    pub fn stats(&self) -> StoreStats {
        let databases = self
            .keys
            .databases
            .iter()
            .filter(|(_, database)| !database.table.is_empty());
        StoreStats {
            keys: self.keys.len(),
            bytes: self.keys.bytes,
            limit: self.keys.limit,
            evicted: self.keys.evicted,
            expired: self.keys.expired,
            writes: self.writes,
            databases: databases
                .map(|(number, database)| DatabaseStats {
                    number: *number,
                    keys: database.table.len(),
                    expiring: database.expiring,
                })
                .collect(),
        }
    }

    /// Frees expired keys, looking at no more than `budget` keys; answers how many it freed.
    pub fn sweep(&mut self, now: Duration, budget: usize) -> usize {
        self.keys.sweep(milliseconds(now), budget)
    }

    /// Empties the store: Redis is back and is the truth (P6).
    pub fn clear(&mut self) -> Discarded {
        let discarded = Discarded {
            keys: self.keys.len(),
            bytes: self.keys.bytes,
            writes: self.writes,
        };
        let databases: Vec<u32> = self.keys.databases.keys().copied().collect();
        for db in databases {
            self.keys.flush(db);
        }
        self.writes = 0;
        self.generation += 1;
        discarded
    }

    /// How often the store was cleared: a transaction does not go on in another store than it
    /// began in.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Raises `flag` when the key changes from now on.
    pub fn watch(&mut self, call: &Call, key: &[u8], flag: &Flag) {
        self.is_there(call, call.db, key);
        self.keys.watches.add(call.db, key, flag);
    }

    /// Ends `watch`.
    pub fn unwatch(&mut self, db: u32, key: &[u8], flag: &Flag) {
        self.keys.watches.remove(db, key, flag);
    }

    /// Whether a key exists now. One whose time is over goes, which is a change for who watches.
    pub fn is_there(&mut self, call: &Call, db: u32, key: &[u8]) -> bool {
        self.keys.find(db, key, milliseconds(call.now)).is_some()
    }

    fn follow_clocks(&mut self, call: &Call) -> i64 {
        let seen = milliseconds(call.unix_now) - milliseconds(call.now);
        match self.offset {
            Some(known) if (known - seen).abs() <= CLOCK_STEP_MS => known,
            _ => *self.offset.insert(seen),
        }
    }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis())
        .unwrap_or(i64::MAX / 4)
        .min(i64::MAX / 4)
}

#[cfg(test)]
mod tests;
