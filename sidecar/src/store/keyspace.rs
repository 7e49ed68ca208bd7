//! The keys of all databases under one byte limit: lookup, deadlines, eviction.
//!
//! Deadlines are monotonic milliseconds and are checked on every lookup, so an expired key is
//! never seen; `sweep` frees those that nobody asks for. At the limit the key that was used
//! longest ago among a random sample goes first, as Redis' `allkeys-lru` does. Knows no commands
//! and no replies.

use super::fail::Fail;
use super::random::Random;
use super::table::Table;
use super::value::{KEY_OVERHEAD, Kind, Value};
use super::watch::Watches;
use std::collections::BTreeMap;

/// The deadline of a key without one.
pub(super) const NEVER: i64 = i64::MAX;
/// Redis' default is 5; with 10 its approximation is close to a true LRU.
const SAMPLE: usize = 10;

pub(super) struct Object {
    pub value: Value,
    pub deadline: i64,
    used: u64,
}

#[derive(Default)]
pub(super) struct Database {
    pub table: Table<Object>,
    pub expiring: usize,
    /// Where the next sweep goes on, walking down.
    swept_to: usize,
}

pub(super) struct Keyspace {
    pub databases: BTreeMap<u32, Database>,
    pub bytes: usize,
    pub limit: usize,
    pub evicted: u64,
    pub expired: u64,
    pub watches: Watches,
    uses: u64,
}

fn weight(key: &[u8], value: &Value) -> usize {
    KEY_OVERHEAD + key.len() + value.bytes()
}

impl Keyspace {
    pub fn new(limit: usize) -> Self {
        Self {
            databases: BTreeMap::new(),
            bytes: 0,
            limit,
            evicted: 0,
            expired: 0,
            watches: Watches::default(),
            uses: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.databases
            .values()
            .map(|database| database.table.len())
            .sum()
    }

    /// The living object of a key, now the one used last.
    pub fn find(&mut self, db: u32, key: &[u8], now: i64) -> Option<&mut Object> {
        let database = self.databases.get_mut(&db)?;
        let at = database.table.position(key)?;
        if database.table.at(at).1.deadline <= now {
            self.drop_at(db, at);
            self.expired += 1;
            return None;
        }
        self.uses += 1;
        let object = self.databases.get_mut(&db)?.table.value_mut(at);
        object.used = self.uses;
        Some(object)
    }

    /// Sets a key, whatever it held; the caller has made room.
    pub fn put(&mut self, db: u32, key: &[u8], value: Value, deadline: i64) {
        self.uses += 1;
        self.bytes += weight(key, &value);
        self.watches.changed(db, key);
        let database = self.databases.entry(db).or_default();
        database.expiring += usize::from(deadline != NEVER);
        if let Some(old) = database.table.insert(
            key,
            Object {
                value,
                deadline,
                used: self.uses,
            },
        ) {
            self.bytes -= weight(key, &old.value);
            database.expiring -= usize::from(old.deadline != NEVER);
        }
    }

    /// Takes a living key out.
    pub fn take(&mut self, db: u32, key: &[u8], now: i64) -> Option<Object> {
        self.find(db, key, now)?;
        let at = self.databases.get(&db)?.table.position(key)?;
        Some(self.drop_at(db, at))
    }

    /// Changes the deadline of a living key.
    pub fn set_deadline(&mut self, db: u32, key: &[u8], now: i64, deadline: i64) {
        let Some(object) = self.find(db, key, now) else {
            return;
        };
        let before = std::mem::replace(&mut object.deadline, deadline);
        self.watches.changed(db, key);
        if let Some(database) = self.databases.get_mut(&db) {
            database.expiring += usize::from(deadline != NEVER);
            database.expiring -= usize::from(before != NEVER);
        }
    }

    /// Changes the value of a key in place, keeps the books, drops it when drained. A missing
    /// key is skipped, or created first.
    pub fn edit<K: Kind, T>(
        &mut self,
        (db, key, now): (u32, &[u8], i64),
        create: bool,
        change: impl FnOnce(&mut K) -> T,
    ) -> Result<Option<T>, Fail> {
        if self.find(db, key, now).is_none() {
            if !create {
                return Ok(None);
            }
            self.put(db, key, K::empty(), NEVER);
        }
        let Some(object) = self.find(db, key, now) else {
            return Ok(None);
        };
        let before = object.value.bytes();
        let done = change(K::of_mut(&mut object.value).ok_or(Fail::WrongType)?);
        let after = object.value.bytes();
        let drained = object.value.is_drained();
        self.bytes = self.bytes - before + after;
        self.watches.edited(db, key);
        if drained {
            self.take(db, key, now);
        }
        Ok(Some(done))
    }

    /// Makes room for `growth` more bytes; the keys being written are not evicted for it.
    pub fn reserve(
        &mut self,
        growth: usize,
        written: &[(u32, &[u8])],
        now: i64,
        random: &mut Random,
    ) -> Result<(), Fail> {
        if growth > self.limit {
            return Err(Fail::OutOfMemory);
        }
        while self.bytes + growth > self.limit {
            let (db, at) = self.victim(written, now, random).ok_or(Fail::OutOfMemory)?;
            if self.drop_at(db, at).deadline <= now {
                self.expired += 1;
            } else {
                self.evicted += 1;
            }
        }
        Ok(())
    }

    /// Frees expired keys, looking at no more than `budget`.
    pub fn sweep(&mut self, now: i64, budget: usize) -> usize {
        let (mut looked, mut freed) = (0, 0);
        let numbers: Vec<u32> = self
            .databases
            .iter()
            .filter(|(_, d)| d.expiring > 0)
            .map(|(n, _)| *n)
            .collect();
        let share = budget.div_ceil(numbers.len().max(1));
        for number in numbers {
            let mut left = share.min(budget - looked);
            while left > 0 {
                let Some(database) = self.databases.get_mut(&number) else {
                    break;
                };
                let len = database.table.len();
                if len == 0 {
                    break;
                }
                let at = if database.swept_to == 0 {
                    len
                } else {
                    database.swept_to.min(len)
                } - 1;
                database.swept_to = at;
                if database.table.at(at).1.deadline <= now {
                    self.drop_at(number, at);
                    self.expired += 1;
                    freed += 1;
                }
                left -= 1;
                looked += 1;
                if at == 0 {
                    break;
                }
            }
        }
        freed
    }

    /// Empties one database.
    pub fn flush(&mut self, db: u32) -> usize {
        let Some(database) = self.databases.remove(&db) else {
            return 0;
        };
        self.watches
            .database_changed(db, |key| database.table.contains(key));
        self.bytes -= database
            .table
            .iter()
            .map(|(key, object)| weight(key, &object.value))
            .sum::<usize>();
        database.table.len()
    }

    /// Exchanges two databases.
    pub fn swap(&mut self, first: u32, second: u32) {
        if first == second {
            return;
        }
        let one = self.databases.remove(&first);
        let two = self.databases.remove(&second);
        for db in [first, second] {
            self.watches.database_changed(db, |key| {
                let mut both = [&one, &two].into_iter().flatten();
                both.any(|database| database.table.contains(key))
            });
        }
        self.databases
            .extend(one.map(|database| (second, database)));
        self.databases.extend(two.map(|database| (first, database)));
    }

    /// Bytes that a key counts as now; nothing when it is missing.
    pub fn weight_of(&mut self, db: u32, key: &[u8], now: i64) -> usize {
        self.find(db, key, now)
            .map_or(0, |object| weight(key, &object.value))
    }

    fn drop_at(&mut self, db: u32, at: usize) -> Object {
        let database = self
            .databases
            .get_mut(&db)
            .expect("the position was found in this database");
        let (key, object) = database.table.remove_at(at);
        database.expiring -= usize::from(object.deadline != NEVER);
        self.bytes -= weight(&key, &object.value);
        self.watches.changed(db, &key);
        object
    }

    fn victim(
        &self,
        written: &[(u32, &[u8])],
        now: i64,
        random: &mut Random,
    ) -> Option<(u32, usize)> {
        let total = self.len();
        if total == 0 {
            return None;
        }
        let mut best: Option<(u64, u32, usize)> = None;
        for _ in 0..SAMPLE {
            let (db, at) = self.locate(random.below(total))?;
            let (key, object) = self.databases[&db].table.at(at);
            let age = if object.deadline <= now {
                0
            } else {
                object.used
            };
            if best.is_none_or(|(oldest, ..)| age < oldest) && !written.contains(&(db, key)) {
                best = Some((age, db, at));
            }
        }
        best.map(|(_, db, at)| (db, at))
            .or_else(|| self.any_but(written))
    }

    /// The slow way, for when the sample met only the keys being written.
    fn any_but(&self, written: &[(u32, &[u8])]) -> Option<(u32, usize)> {
        self.databases.iter().find_map(|(db, database)| {
            database
                .table
                .iter()
                .position(|(key, _)| !written.contains(&(*db, key)))
                .map(|at| (*db, at))
        })
    }

    fn locate(&self, mut nth: usize) -> Option<(u32, usize)> {
        for (db, database) in &self.databases {
            if nth < database.table.len() {
                return Some((*db, nth));
            }
            nth -= database.table.len();
        }
        None
    }
}
