//! What is known after a second read of a key that is still cached.
//!
//! Facts of the same kind add up, as far as they stay small; of different kinds the last read one
//! wins, but a length or a type does not displace a value.

use super::{
    entry::{Body, Entry, Meta},
    parts::{self, Parts},
    ranges::{self, Ranges},
    sorted::{self, Sorted},
};

/// Facts add up to at most so many bytes, or the rule's `maxValueSize` if that is less: each
/// further read of the key copies them.
const MAX_SIZE: usize = 64 << 10;

/// The entry that takes the place of `old`.
pub fn merge(old: &Entry, meta: Meta, key: &[u8], new: Body<'_>, max_size: usize) -> Option<Entry> {
    // What stays of the old entry lives no longer than it did.
    let both = Meta {
        deadline_ms: meta.deadline_ms.min(old.deadline_ms()),
        ..meta
    };
    let most = max_size.min(MAX_SIZE);
    match (old.body(), new) {
        (Body::Hash(known), Body::Hash(read)) if !read.complete => {
            if known.complete {
                return Entry::new(both, key, Body::Hash(known));
            }
            let bytes = parts::merged(known, read, most);
            Entry::new(both, key, Body::Hash(Parts::new(false, &bytes)))
        }
        (Body::Set(known), Body::Set(read)) if !read.complete => {
            if known.complete {
                return Entry::new(both, key, Body::Set(known));
            }
            let bytes = parts::merged(known, read, most);
            Entry::new(both, key, Body::Set(Parts::new(false, &bytes)))
        }
        (Body::List(known), Body::List(read)) => {
            let bytes = ranges::merged(known, read, most)?;
            Entry::new(both, key, Body::List(Ranges::new(&bytes)))
        }
        (Body::Sorted(known), Body::Sorted(read)) => {
            let bytes = sorted::merged(known, read, most)?;
            Entry::new(both, key, Body::Sorted(Sorted::new(&bytes)))
        }
        (
            Body::Text(_) | Body::Hash(_) | Body::Set(_) | Body::List(_) | Body::Sorted(_),
            Body::TextLen(_) | Body::Typed(_),
        ) => Entry::new(both, key, old.body()),
        _ => Entry::new(meta, key, new),
    }
}
