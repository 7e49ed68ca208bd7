//! Keys that transactions watch: who is to be told when one changes.
//!
//! As in Redis, it is the change that counts, not the value: a key that was set and deleted again
//! has changed. `Keyspace` reports every change here; nothing is done while nobody watches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::table::Table;

/// Raised when a watched key changes. Read and written under the lock of the store.
#[derive(Clone, Debug, Default)]
pub struct Flag(Arc<AtomicBool>);

impl Flag {
    /// Whether a watched key has changed.
    pub fn is_raised(&self) -> bool {
        self.0.load(Relaxed)
    }

    fn raise(&self) {
        self.0.store(true, Relaxed);
    }
}

/// Watched keys by database.
#[derive(Default)]
pub(super) struct Watches {
    keys: BTreeMap<u32, Table<Vec<Flag>>>,
    /// Keys edited in place by the command that runs, which may turn out to have changed nothing.
    edited: Vec<(u32, Box<[u8]>)>,
}

impl Watches {
    pub fn add(&mut self, db: u32, key: &[u8], flag: &Flag) {
        let table = self.keys.entry(db).or_default();
        let mut flags = table.get(key).cloned().unwrap_or_default();
        if !flags.iter().any(|known| Arc::ptr_eq(&known.0, &flag.0)) {
            flags.push(flag.clone());
            table.insert(key, flags);
        }
    }

    pub fn remove(&mut self, db: u32, key: &[u8], flag: &Flag) {
        let Some(table) = self.keys.get_mut(&db) else {
            return;
        };
        let Some(at) = table.position(key) else {
            return;
        };
        let flags = table.value_mut(at);
        flags.retain(|known| !Arc::ptr_eq(&known.0, &flag.0));
        if flags.is_empty() {
            table.remove_at(at);
        }
        if table.is_empty() {
            self.keys.remove(&db);
        }
    }

    /// A key has changed.
    pub fn changed(&self, db: u32, key: &[u8]) {
        if let Some(flags) = self.keys.get(&db).and_then(|table| table.get(key)) {
            flags.iter().for_each(Flag::raise);
        }
    }

    /// A key was edited in place; the command will say whether that changed anything.
    pub fn edited(&mut self, db: u32, key: &[u8]) {
        if self.keys.contains_key(&db) {
            self.edited.push((db, key.into()));
        }
    }

    /// The command is over.
    pub fn settle(&mut self, wrote: bool) {
        for (db, key) in std::mem::take(&mut self.edited) {
            if wrote {
                self.changed(db, &key);
            }
        }
    }

    /// A database goes or comes as a whole: watched keys that it holds have changed.
    pub fn database_changed(&self, db: u32, holds: impl Fn(&[u8]) -> bool) {
        let watched = self.keys.get(&db).into_iter().flat_map(Table::iter);
        for (_, flags) in watched.filter(|(key, _)| holds(key)) {
            flags.iter().for_each(Flag::raise);
        }
    }
}
