//! One local entry: header, key and value in one exact-size allocation.
//!
//! A slice of the read buffer would pin the whole buffer, and a `String` plus a `Vec` would cost
//! two allocations with slack. The header is written as bytes, so no `unsafe` is needed.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 6 | deadline: not served from this millisecond on |
//! | 6 | 6 | expiry in Redis, in milliseconds; all ones: the key has none |
//! | 12 | 4 | epoch of the link that read it |
//! | 16 | 2 | that link |
//! | 18 | 2 | rule |
//! | 20 | 2 | database |
//! | 22 | 1 | kind of body |
//! | 23 | 3 | length of the key |
//! | 26 | – | key, then body |

use std::hash::BuildHasher as _;

use super::{parts::Parts, ranges::Ranges, sorted::Sorted};

const HEADER: usize = 26;
const NO_EXPIRY: u64 = (1 << 48) - 1;
/// Longest key that is kept locally (the header has three bytes for it).
pub const MAX_KEY: usize = (1 << 24) - 1;

/// Which connection read an entry, and in which of its lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Slot of the link in the tier's table.
    pub link: u16,
    /// The link's epoch at the time of the read.
    pub epoch: u32,
}

/// What is known about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Body<'a> {
    /// There is no such key.
    Missing,
    /// A string and its value.
    Text(&'a [u8]),
    /// A string of which only the length is known.
    TextLen(u64),
    /// A key of which only the type is known.
    Typed(&'a [u8]),
    /// A hash: some fields, or all of them; or how many there are.
    Hash(Parts<'a>),
    /// A set: some members, or all of them; or how many there are.
    Set(Parts<'a>),
    /// A list: some ranges, or all of it; or its length.
    List(Ranges<'a>),
    /// A sorted set: some ranges and scores; or how many members there are.
    Sorted(Sorted<'a>),
}

/// Everything about an entry but its key and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Not served from this moment on, in milliseconds of [`crate::clock::Tick`].
    pub deadline_ms: u64,
    /// When the key expires in Redis, if it does.
    pub expires_ms: Option<u64>,
    /// Which connection read it.
    pub origin: Origin,
    /// The rule that allows it.
    pub rule: u16,
    /// Logical database.
    pub db: u16,
}

/// A stored entry.
#[derive(Debug)]
pub struct Entry(Box<[u8]>);

/// Database and key, to look an entry up without building one.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// Logical database.
    pub db: u16,
    /// The key as the app writes it.
    pub key: &'a [u8],
}

// === impl Body ===

impl Body<'_> {
    /// Equal bodies have equal digests.
    pub fn digest(&self) -> u64 {
        foldhash::fast::FixedState::default().hash_one(self)
    }

    /// Bytes of the value, which a rule may bound.
    pub fn size(&self) -> usize {
        match self {
            Body::Missing | Body::TextLen(_) | Body::Typed(_) => 0,
            Body::Text(text) => text.len(),
            Body::Hash(parts) | Body::Set(parts) => parts.size(),
            Body::List(ranges) => ranges.bytes().len(),
            Body::Sorted(sorted) => sorted.bytes().len(),
        }
    }
}

// === impl Entry ===

impl Entry {
    /// Builds an entry; `None` if the key is too long to be kept.
    pub fn new(meta: Meta, key: &[u8], body: Body<'_>) -> Option<Self> {
        if key.len() > MAX_KEY {
            return None;
        }
        let len_bytes;
        let (kind, content): (u8, &[u8]) = match body {
            Body::Missing => (0, &[]),
            Body::Text(text) => (1, text),
            Body::TextLen(len) => {
                len_bytes = len.to_le_bytes();
                (2, &len_bytes)
            }
            Body::Typed(name) => (3, name),
            Body::Hash(fields) => (if fields.complete { 4 } else { 5 }, fields.bytes()),
            Body::Set(members) => (if members.complete { 6 } else { 7 }, members.bytes()),
            Body::List(ranges) => (8, ranges.bytes()),
            Body::Sorted(sorted) => (9, sorted.bytes()),
        };
        let mut bytes = Vec::with_capacity(HEADER + key.len() + content.len());
        bytes.extend_from_slice(&meta.deadline_ms.min(NO_EXPIRY).to_le_bytes()[..6]);
        let expires = meta
            .expires_ms
            .map_or(NO_EXPIRY, |at| at.min(NO_EXPIRY - 1));
        bytes.extend_from_slice(&expires.to_le_bytes()[..6]);
        bytes.extend_from_slice(&meta.origin.epoch.to_le_bytes());
        bytes.extend_from_slice(&meta.origin.link.to_le_bytes());
        bytes.extend_from_slice(&meta.rule.to_le_bytes());
        bytes.extend_from_slice(&meta.db.to_le_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(&u32::try_from(key.len()).unwrap_or(0).to_le_bytes()[..3]);
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(content);
        Some(Self(bytes.into_boxed_slice()))
    }

    fn u48(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..6].copy_from_slice(&self.0[at..at + 6]);
        u64::from_le_bytes(bytes)
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    /// Not served from this millisecond on.
    pub fn deadline_ms(&self) -> u64 {
        self.u48(0)
    }

    /// When the key expires in Redis, if it does.
    pub fn expires_ms(&self) -> Option<u64> {
        Some(self.u48(6)).filter(|at| *at != NO_EXPIRY)
    }

    /// Which connection read it.
    pub fn origin(&self) -> Origin {
        let epoch = u32::from_le_bytes([self.0[12], self.0[13], self.0[14], self.0[15]]);
        Origin {
            link: self.u16(16),
            epoch,
        }
    }

    /// The rule that allows it.
    pub fn rule(&self) -> u16 {
        self.u16(18)
    }

    /// Logical database.
    pub fn db(&self) -> u16 {
        self.u16(20)
    }

    /// Everything but key and body.
    pub fn meta(&self) -> Meta {
        Meta {
            deadline_ms: self.deadline_ms(),
            expires_ms: self.expires_ms(),
            origin: self.origin(),
            rule: self.rule(),
            db: self.db(),
        }
    }

    fn key_len(&self) -> usize {
        u32::from_le_bytes([self.0[23], self.0[24], self.0[25], 0]) as usize
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.0[HEADER..HEADER + self.key_len()]
    }

    /// What is known about it.
    #[inline]
    pub fn body(&self) -> Body<'_> {
        let content = &self.0[HEADER + self.key_len()..];
        match self.0[22] {
            0 => Body::Missing,
            1 => Body::Text(content),
            2 => Body::TextLen(
                content
                    .first_chunk()
                    .map_or(0, |len| u64::from_le_bytes(*len)),
            ),
            3 => Body::Typed(content),
            kind @ (4 | 5) => Body::Hash(Parts::new(kind == 4, content)),
            kind @ (6 | 7) => Body::Set(Parts::new(kind == 6, content)),
            8 => Body::List(Ranges::new(content)),
            _ => Body::Sorted(Sorted::new(content)),
        }
    }

    /// Reads a byte of each of the first cache lines, and of the last.
    #[inline]
    pub fn touch(&self) -> u8 {
        let at = |index: usize| self.0.get(index).copied().unwrap_or(0);
        at(0) ^ at(64) ^ at(128) ^ at(self.0.len() - 1)
    }

    /// Bytes of the allocation.
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

// === lookup by database and key ===

impl Entry {
    /// Whether this is the entry of that key; the table finds entries by hash alone.
    #[inline]
    pub fn is(&self, at: Lookup<'_>) -> bool {
        self.db() == at.db && self.key() == at.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: Meta = Meta {
        deadline_ms: 123_456_789,
        expires_ms: Some(987_654_321),
        origin: Origin { link: 7, epoch: 42 },
        rule: 3,
        db: 15,
    };

    #[test]
    fn an_entry_gives_back_what_was_put_in() {
        let content = b"any content";
        for body in [
            Body::Hash(Parts::new(true, content)),
            Body::Hash(Parts::new(false, content)),
            Body::Set(Parts::new(true, content)),
            Body::Set(Parts::new(false, content)),
            Body::List(Ranges::new(content)),
            Body::Sorted(Sorted::new(content)),
            Body::Missing,
            Body::Text(b"v"),
            Body::TextLen(1 << 40),
            Body::Typed(b"zset"),
        ] {
            let entry = Entry::new(META, b"key", body).unwrap();
            assert_eq!(
                (entry.meta(), entry.key(), entry.body()),
                (META, b"key".as_slice(), body)
            );
        }
        let endless = Meta {
            expires_ms: None,
            ..META
        };
        assert_eq!(
            Entry::new(endless, b"", Body::Missing)
                .unwrap()
                .expires_ms(),
            None
        );
    }

    #[test]
    fn an_entry_is_one_allocation_of_exact_size() {
        let entry = Entry::new(META, &[b'k'; 21], Body::Text(&[b'v'; 100])).unwrap();
        assert_eq!(entry.size(), 26 + 21 + 100);
    }
}
