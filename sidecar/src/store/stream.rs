//! Streams, as far as Socket.IO's streams adapter and its connection state recovery need them.
//!
//! A stream is its entries by id, and the last id it ever gave. `append` adds and removes,
//! `read` reads; `XREAD` that waits is the engine's, which asks again. There are no consumer
//! groups. `MAXLEN ~` and `MINID ~` trim exactly, within what they may remove at a time.

pub(super) mod append;
mod id;
pub(super) mod read;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use self::id::Id;
use super::value::{ENTRY_OVERHEAD, ITEM_OVERHEAD, Value};
use crate::resp::write::Reply;

pub(super) use self::read::{settle_ids, watched_keys};

/// Fields and values in turn.
type Entry = Box<[Box<[u8]>]>;

/// Entries by id. Unlike other containers it stays when it is empty: it knows the last id.
#[derive(Clone, Default)]
pub(super) struct Stream {
    entries: BTreeMap<Id, Entry>,
    last: Id,
    bytes: usize,
}

fn weight<T: AsRef<[u8]>>(words: &[T]) -> usize {
    let words = words.iter().map(|word| word.as_ref().len() + ITEM_OVERHEAD);
    ENTRY_OVERHEAD + words.sum::<usize>()
}

impl Stream {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn add(&mut self, id: Id, words: &[&[u8]]) {
        self.bytes += weight(words);
        self.last = id;
        let entry = words.iter().map(|word| Box::from(*word)).collect();
        self.entries.insert(id, entry);
    }

    fn remove(&mut self, id: Id) -> bool {
        let entry = self.entries.remove(&id);
        if let Some(entry) = &entry {
            self.bytes -= weight(entry);
        }
        entry.is_some()
    }

    /// Removes up to `most` of the first entries while `holds`.
    fn trim(&mut self, most: usize, holds: impl Fn(&Self, Id) -> bool) -> usize {
        let mut gone = 0;
        while gone < most
            && let Some((id, _)) = self.entries.first_key_value()
        {
            let id = *id;
            if !holds(self, id) {
                break;
            }
            self.remove(id);
            gone += 1;
        }
        gone
    }
}

/// The entries of a range as a reply.
fn answer(
    stream: &Stream,
    ids: RangeInclusive<Id>,
    reverse: bool,
    most: usize,
    reply: &mut Reply<'_>,
) {
    if ids.is_empty() {
        return reply.array(0);
    }
    let range = stream.entries.range(ids);
    let found: Vec<(&Id, &Entry)> = if reverse {
        range.rev().take(most).collect()
    } else {
        range.take(most).collect()
    };
    reply.array(found.len());
    for (id, entry) in found {
        reply.array(2);
        reply.bulk(id.to_string().as_bytes());
        reply.array(entry.len());
        entry.iter().for_each(|word| reply.bulk(word));
    }
}

impl From<Stream> for Value {
    fn from(stream: Stream) -> Self {
        Value::Stream(Box::new(stream))
    }
}
