//! What a key can hold, and how many bytes it counts as.
//!
//! Sorted sets and streams are in files of their own, `sorted` and `stream`.
//!
//! The fixed parts are what 64-bit allocation costs: the slot in its vector with a quarter of
//! slack, its share of the index, and 16 bytes for each allocation. They are meant to be a little
//! too high rather than too low, because they are what keeps the limit honest (P9): 400,000 keys, fields, members or
//! items measured 0.76 to 0.97 of what they count as. Not counted: a vector that grows is
//! copied, so for a moment the slots of the largest table exist twice.

use super::sorted::Sorted;
use super::stream::Stream;
use super::table::Table;
use std::collections::VecDeque;

/// A key, beside the bytes of its name and its value.
pub const KEY_OVERHEAD: usize = 144;
/// A hash, set, sorted set or list, beside its elements.
pub const CONTAINER_OVERHEAD: usize = 128;
/// A field with its value, beside their bytes.
pub const FIELD_OVERHEAD: usize = 112;
/// A member of a set, beside its bytes.
pub const MEMBER_OVERHEAD: usize = 72;
/// A member of a sorted set, beside its bytes, which count twice.
pub const SCORED_OVERHEAD: usize = 152;
/// An entry of a stream, beside its fields and values, each of which counts as an element.
pub const ENTRY_OVERHEAD: usize = 112;
/// An element of a list, beside its bytes.
pub const ITEM_OVERHEAD: usize = 48;

/// The value of a key.
#[derive(Clone)]
pub(super) enum Value {
    String(Vec<u8>),
    Hash(Box<Hash>),
    Set(Box<Set>),
    List(Box<List>),
    Sorted(Box<Sorted>),
    Stream(Box<Stream>),
}

impl Value {
    /// The name that `TYPE` answers.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::Hash(_) => "hash",
            Self::Set(_) => "set",
            Self::List(_) => "list",
            Self::Sorted(_) => "zset",
            Self::Stream(_) => "stream",
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            Self::String(text) => text.capacity(),
            Self::Hash(hash) => hash.bytes + CONTAINER_OVERHEAD,
            Self::Set(set) => set.bytes + CONTAINER_OVERHEAD,
            Self::List(list) => list.bytes + CONTAINER_OVERHEAD,
            Self::Sorted(set) => set.bytes() + CONTAINER_OVERHEAD,
            Self::Stream(stream) => stream.bytes() + CONTAINER_OVERHEAD,
        }
    }

    /// Whether a blocking command may wait for such a value.
    pub fn wakes_the_blocked(&self) -> bool {
        matches!(self, Self::List(_) | Self::Sorted(_) | Self::Stream(_))
    }

    /// Whether the key has to go because its last element went.
    pub fn is_drained(&self) -> bool {
        match self {
            Self::String(_) | Self::Stream(_) => false,
            Self::Hash(hash) => hash.fields.is_empty(),
            Self::Set(set) => set.members.is_empty(),
            Self::List(list) => list.items.is_empty(),
            Self::Sorted(set) => set.is_empty(),
        }
    }
}

/// A type that a command can ask of a key.
pub(super) trait Kind: Sized {
    fn of(value: &Value) -> Option<&Self>;
    fn of_mut(value: &mut Value) -> Option<&mut Self>;
    fn empty() -> Value;
}

macro_rules! kind {
    ($type:ty, $variant:ident, $empty:expr) => {
        impl Kind for $type {
            fn of(value: &Value) -> Option<&Self> {
                if let Value::$variant(inner) = value {
                    Some(inner)
                } else {
                    None
                }
            }
            fn of_mut(value: &mut Value) -> Option<&mut Self> {
                if let Value::$variant(inner) = value {
                    Some(inner)
                } else {
                    None
                }
            }
            fn empty() -> Value {
                Value::$variant($empty)
            }
        }
    };
}

kind!(Vec<u8>, String, Vec::new());
kind!(Hash, Hash, Box::default());
kind!(Set, Set, Box::default());
kind!(List, List, Box::default());
kind!(Sorted, Sorted, Box::default());
kind!(Stream, Stream, Box::default());

/// Fields and their values.
#[derive(Clone, Default)]
pub(super) struct Hash {
    fields: Table<Box<[u8]>>,
    bytes: usize,
}

impl Hash {
    pub fn fields(&self) -> &Table<Box<[u8]>> {
        &self.fields
    }

    /// Whether the field is new.
    pub fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        if let Some(old) = self.fields.insert(field, value.into()) {
            self.bytes = self.bytes - old.len() + value.len();
            return false;
        }
        self.bytes += FIELD_OVERHEAD + field.len() + value.len();
        true
    }

    pub fn remove(&mut self, field: &[u8]) -> bool {
        let removed = self.fields.remove(field);
        if let Some(value) = &removed {
            self.bytes -= FIELD_OVERHEAD + field.len() + value.len();
        }
        removed.is_some()
    }
}

/// Members.
#[derive(Clone, Default)]
pub(super) struct Set {
    members: Table<()>,
    bytes: usize,
}

impl Set {
    pub fn members(&self) -> &Table<()> {
        &self.members
    }

    /// Whether the member is new.
    pub fn add(&mut self, member: &[u8]) -> bool {
        let new = self.members.insert(member, ()).is_none();
        if new {
            self.bytes += MEMBER_OVERHEAD + member.len();
        }
        new
    }

    pub fn remove(&mut self, member: &[u8]) -> bool {
        let removed = self.members.remove(member).is_some();
        if removed {
            self.bytes -= MEMBER_OVERHEAD + member.len();
        }
        removed
    }

    pub fn remove_at(&mut self, position: usize) -> Box<[u8]> {
        let (member, ()) = self.members.remove_at(position);
        self.bytes -= MEMBER_OVERHEAD + member.len();
        member
    }
}

/// Elements in order.
#[derive(Clone, Default)]
pub(super) struct List {
    items: VecDeque<Box<[u8]>>,
    bytes: usize,
}

/// The two ends of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Left,
    Right,
}

impl List {
    pub fn items(&self) -> &VecDeque<Box<[u8]>> {
        &self.items
    }

    pub fn push(&mut self, end: End, item: &[u8]) {
        if self.items.len() == self.items.capacity() {
            self.items.reserve_exact((self.items.len() / 4).max(4));
        }
        self.bytes += ITEM_OVERHEAD + item.len();
        match end {
            End::Left => self.items.push_front(item.into()),
            End::Right => self.items.push_back(item.into()),
        }
    }

    pub fn pop(&mut self, end: End) -> Option<Box<[u8]>> {
        let item = match end {
            End::Left => self.items.pop_front(),
            End::Right => self.items.pop_back(),
        }?;
        self.bytes -= ITEM_OVERHEAD + item.len();
        self.shrink();
        Some(item)
    }

    pub fn replace(&mut self, at: usize, item: &[u8]) {
        self.bytes = self.bytes - self.items[at].len() + item.len();
        self.items[at] = item.into();
    }

    pub fn insert(&mut self, at: usize, item: &[u8]) {
        self.bytes += ITEM_OVERHEAD + item.len();
        self.items.insert(at, item.into());
    }

    /// Keeps the elements that `keep` accepts, in order.
    pub fn retain(&mut self, mut keep: impl FnMut(usize, &[u8]) -> bool) {
        let (mut at, mut gone) = (0, 0);
        self.items.retain(|item| {
            let stays = keep(at, item);
            at += 1;
            if !stays {
                gone += ITEM_OVERHEAD + item.len();
            }
            stays
        });
        self.bytes -= gone;
        self.shrink();
    }

    fn shrink(&mut self) {
        if self.items.len() < self.items.capacity() / 2 && self.items.capacity() > 8 {
            self.items
                .shrink_to(self.items.len() + self.items.len() / 4);
        }
    }
}
