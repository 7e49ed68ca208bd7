//! What a command gets to work with: the keyspace seen from one database at one moment.

use super::Call;
use super::fail::Fail;
use super::keyspace::{Keyspace, NEVER, Object};
use super::random::Random;
use super::value::{FIELD_OVERHEAD, KEY_OVERHEAD, Kind, Value};

/// One command being answered.
pub(super) struct Run<'a> {
    pub keys: &'a mut Keyspace,
    pub call: &'a Call,
    /// Monotonic milliseconds.
    pub now: i64,
    /// What to add to `now` for milliseconds since the epoch.
    pub offset: i64,
    pub command: &'static str,
    pub random: Random,
    pub wrote: bool,
    pub ready: Vec<(u32, Box<[u8]>)>,
}

/// A length as the integer of a reply.
pub(super) fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// The answer of a command whose reply is not an error.
pub(super) type Answer = Result<(), Fail>;

impl Run<'_> {
    pub fn object(&mut self, key: &[u8]) -> Option<&mut Object> {
        self.keys.find(self.call.db, key, self.now)
    }

    pub fn exists(&mut self, key: &[u8]) -> bool {
        self.object(key).is_some()
    }

    /// The value of a key that must be of one type if it exists.
    pub fn read<K: Kind>(&mut self, key: &[u8]) -> Result<Option<&K>, Fail> {
        match self.object(key) {
            Some(object) => K::of(&object.value).map(Some).ok_or(Fail::WrongType),
            None => Ok(None),
        }
    }

    pub fn string(&mut self, key: &[u8]) -> Result<Option<&[u8]>, Fail> {
        Ok(self.read::<Vec<u8>>(key)?.map(Vec::as_slice))
    }

    /// The deadline of a key, `NEVER` when it has none or does not exist.
    pub fn deadline(&mut self, key: &[u8]) -> i64 {
        self.object(key).map_or(NEVER, |object| object.deadline)
    }

    pub fn set_deadline(&mut self, key: &[u8], deadline: i64) {
        self.keys
            .set_deadline(self.call.db, key, self.now, deadline);
        self.wrote = true;
    }

    /// Changes a value in place; `None` when there is none.
    pub fn edit<K: Kind, T>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut K) -> T,
    ) -> Result<Option<T>, Fail> {
        self.keys.edit((self.call.db, key, self.now), false, change)
    }

    /// Changes a value in place, a new one when there is none.
    pub fn edit_or_create<K: Kind, T>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut K) -> T,
    ) -> Result<T, Fail> {
        let done = self
            .keys
            .edit((self.call.db, key, self.now), true, change)?;
        Ok(done.expect("the key was created"))
    }

    /// Sets a key, whatever it held, after making room for what it grows by.
    pub fn put(&mut self, key: &[u8], value: Value, deadline: i64) -> Answer {
        self.put_into(self.call.db, key, value, deadline)
    }

    pub fn put_into(&mut self, db: u32, key: &[u8], value: Value, deadline: i64) -> Answer {
        let before = self.keys.weight_of(db, key, self.now);
        let after = KEY_OVERHEAD + key.len() + value.bytes();
        if after > self.keys.limit {
            return Err(Fail::OutOfMemory);
        }
        self.keys.reserve(
            after.saturating_sub(before),
            &[(db, key)],
            self.now,
            &mut self.random,
        )?;
        if value.wakes_the_blocked() {
            self.ready.push((db, key.into()));
        }
        self.keys.put(db, key, value, deadline);
        self.wrote = true;
        Ok(())
    }

    pub fn put_string(&mut self, key: &[u8], text: &[u8], deadline: i64) -> Answer {
        self.put(key, Value::String(text.to_vec()), deadline)
    }

    pub fn take(&mut self, key: &[u8]) -> Option<Object> {
        let taken = self.keys.take(self.call.db, key, self.now);
        self.wrote |= taken.is_some();
        taken
    }

    pub fn reserve(&mut self, growth: usize, written: &[&[u8]]) -> Answer {
        let written: Vec<(u32, &[u8])> = written.iter().map(|key| (self.call.db, *key)).collect();
        self.keys
            .reserve(growth, &written, self.now, &mut self.random)
    }

    /// Makes room for everything that a command with these arguments can add to its key.
    pub fn make_room_for(&mut self, args: &[&[u8]]) -> Answer {
        let elements: usize = args
            .iter()
            .skip(1)
            .map(|arg| arg.len() + FIELD_OVERHEAD)
            .sum();
        self.reserve(KEY_OVERHEAD * 2 + elements, &args[1..args.len().min(2)])
    }
}
