//! A hash table whose entries lie densely in one vector, in the order of insertion.
//!
//! Three things need positions that the table of the standard library does not give: a `SCAN`
//! cursor that survives growing and shrinking, a random entry in constant time (`SPOP`,
//! `RANDOMKEY`, sampling for eviction), and bytes that can be counted. A removal moves the last
//! entry into the gap, so an entry only ever moves *down*; a scan that walks down therefore meets
//! every entry that was there for the whole scan.

use std::hash::BuildHasher;
use std::sync::LazyLock;

/// Up to here comparing hashes one by one is cheaper than an index.
const UNINDEXED: usize = 8;

static HASHER: LazyLock<foldhash::quality::RandomState> =
    LazyLock::new(foldhash::quality::RandomState::default);

#[allow(
    clippy::cast_possible_truncation,
    reason = "the lower half of a hash is a hash"
)]
fn hash(key: &[u8]) -> u32 {
    HASHER.hash_one(key) as u32
}

struct Slot<V> {
    key: Box<[u8]>,
    value: V,
    hash: u32,
}

/// Byte strings to values; positions are stable but for the moves of a removal.
pub(super) struct Table<V> {
    slots: Vec<Slot<V>>,
    /// Open addressing with linear probing; 0 is free, otherwise the position plus one.
    index: Vec<u32>,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            index: Vec::new(),
        }
    }
}

impl<V> Table<V> {
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn position(&self, key: &[u8]) -> Option<usize> {
        self.position_hashed(key, hash(key))
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        self.position(key).is_some()
    }

    pub fn get(&self, key: &[u8]) -> Option<&V> {
        self.position(key).map(|at| &self.slots[at].value)
    }

    /// The entry at a position below `len()`.
    pub fn at(&self, position: usize) -> (&[u8], &V) {
        let slot = &self.slots[position];
        (&slot.key, &slot.value)
    }

    pub fn value_mut(&mut self, position: usize) -> &mut V {
        &mut self.slots[position].value
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &V)> {
        self.slots.iter().map(|slot| (&*slot.key, &slot.value))
    }

    /// Sets the value of `key`; answers the value it had.
    pub fn insert(&mut self, key: &[u8], value: V) -> Option<V> {
        let hash = hash(key);
        if let Some(at) = self.position_hashed(key, hash) {
            return Some(std::mem::replace(&mut self.slots[at].value, value));
        }
        if self.slots.len() == self.slots.capacity() {
            // A quarter instead of the usual double: the slack is memory nobody counts.
            self.slots.reserve_exact((self.slots.len() / 4).max(2));
        }
        self.slots.push(Slot {
            key: key.into(),
            value,
            hash,
        });
        if self.index.is_empty() && self.slots.len() <= UNINDEXED {
            return None;
        }
        if self.slots.len() * 4 > self.index.len() * 3 {
            self.rebuild_index();
        } else {
            self.enter(self.slots.len() - 1);
        }
        None
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        self.position(key).map(|at| self.remove_at(at).1)
    }

    /// Takes out the entry at a position; the last entry takes its place.
    pub fn remove_at(&mut self, position: usize) -> (Box<[u8]>, V) {
        if !self.index.is_empty() {
            // Closing the gap reads the slots that the index names, so the slots move last.
            self.close_gap(self.index_of(position));
            let last = self.slots.len() - 1;
            if last != position {
                let moved = self.index_of(last);
                self.index[moved] = entry(position);
            }
        }
        let slot = self.slots.swap_remove(position);
        if self.slots.len() < self.slots.capacity() / 2 && self.slots.capacity() > 4 {
            self.slots
                .shrink_to(self.slots.len() + self.slots.len() / 4);
            if self.slots.len() <= UNINDEXED {
                self.index = Vec::new();
            } else {
                self.rebuild_index();
            }
        }
        (slot.key, slot.value)
    }

    fn position_hashed(&self, key: &[u8], hash: u32) -> Option<usize> {
        if self.index.is_empty() {
            return self
                .slots
                .iter()
                .position(|slot| slot.hash == hash && *slot.key == *key);
        }
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        while self.index[at] != 0 {
            let position = self.index[at] as usize - 1;
            let slot = &self.slots[position];
            if slot.hash == hash && *slot.key == *key {
                return Some(position);
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// Where the index names a position that it is known to name.
    fn index_of(&self, position: usize) -> usize {
        let mask = self.index.len() - 1;
        let wanted = entry(position);
        let mut at = self.slots[position].hash as usize & mask;
        while self.index[at] != wanted {
            at = (at + 1) & mask;
        }
        at
    }

    fn enter(&mut self, position: usize) {
        let mask = self.index.len() - 1;
        let mut at = self.slots[position].hash as usize & mask;
        while self.index[at] != 0 {
            at = (at + 1) & mask;
        }
        self.index[at] = entry(position);
    }

    /// Frees an index place and pulls back what probing had pushed behind it.
    fn close_gap(&mut self, mut gap: usize) {
        let mask = self.index.len() - 1;
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            if self.index[at] == 0 {
                break;
            }
            let home = self.slots[self.index[at] as usize - 1].hash as usize & mask;
            // It may move into the gap unless its home lies between the gap and itself.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                self.index[gap] = self.index[at];
                gap = at;
            }
        }
        self.index[gap] = 0;
    }

    fn rebuild_index(&mut self) {
        let size = (self.slots.len() * 4 / 3 + 1).next_power_of_two();
        self.index = vec![0; size];
        for position in 0..self.slots.len() {
            self.enter(position);
        }
    }
}

impl<V: Clone> Clone for Table<V> {
    fn clone(&self) -> Self {
        let slot = |s: &Slot<V>| Slot {
            key: s.key.clone(),
            value: s.value.clone(),
            hash: s.hash,
        };
        Self {
            slots: self.slots.iter().map(slot).collect(),
            index: self.index.clone(),
        }
    }
}

fn entry(position: usize) -> u32 {
    u32::try_from(position + 1).expect("the byte limit is reached long before 2^32 entries")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn it_holds_what_a_map_of_the_standard_library_holds(ops in prop::collection::vec((any::<bool>(), 0_u16..200), 0..800)) {
            let mut table = Table::default();
            let mut model = HashMap::new();
            for (step, (insert, key)) in ops.into_iter().enumerate() {
                let key = key.to_string().into_bytes();
                if insert {
                    prop_assert_eq!(table.insert(&key, step), model.insert(key, step));
                } else {
                    prop_assert_eq!(table.remove(&key), model.remove(&key));
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for (key, value) in &model {
                prop_assert_eq!(table.get(key), Some(value));
            }
            prop_assert_eq!(table.iter().count(), model.len());
        }
    }
}
