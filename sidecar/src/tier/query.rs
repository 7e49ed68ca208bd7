//! Answers a cached read from a local entry, in the reader's protocol version.

use super::entry::{Body, Entry};
use crate::resp::write::Reply;

/// The reads that a local entry can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query<'a> {
    /// `GET key`, and each key of `MGET`
    Get,
    /// `STRLEN key`
    StrLen,
    /// `EXISTS key`
    Exists,
    /// `TYPE key`
    Type,
    /// `TTL key`
    Ttl,
    /// `PTTL key`
    Pttl,
    /// `HGET key field`
    HGet(&'a [u8]),
    /// `HGETALL key`
    HGetAll,
}

impl Query<'_> {
    /// Writes the answer and says so, or writes nothing when the entry does not know it.
    #[inline]
    pub fn answer(self, entry: &Entry, now_ms: u64, reply: &mut Reply<'_>) -> bool {
        match (self, entry.body()) {
            (Self::Get, Body::Text(text)) => reply.bulk(text),
            (Self::Get | Self::HGet(_), Body::Missing) => reply.null(),
            (Self::StrLen, Body::Text(text)) => reply.integer(signed(text.len() as u64)),
            (Self::StrLen, Body::TextLen(len)) => reply.integer(signed(len)),
            (Self::StrLen | Self::Exists, Body::Missing) => reply.integer(0),
            (Self::Exists, _) => reply.integer(1),
            (Self::Type, Body::Missing) => reply.simple("none"),
            (Self::Type, Body::Text(_) | Body::TextLen(_)) => reply.simple("string"),
            (Self::Type, Body::Hash(_)) => reply.simple("hash"),
            (Self::Type, Body::Typed(name)) => {
                reply.simple(std::str::from_utf8(name).unwrap_or(""));
            }
            (Self::Ttl | Self::Pttl, Body::Missing) => reply.integer(-2),
            (Self::Ttl | Self::Pttl, _) => reply.integer(self.ttl(entry, now_ms)),
            (Self::HGet(field), Body::Hash(fields)) => match fields.get(field) {
                Some(Some(value)) => reply.bulk(value),
                Some(None) => reply.null(),
                None => return false,
            },
            (Self::HGetAll, Body::Missing) => reply.map(0),
            (Self::HGetAll, Body::Hash(fields)) if fields.complete => {
                reply.map(fields.iter().count());
                for (field, value) in fields.iter() {
                    reply.bulk(field);
                    reply.bulk(value.unwrap_or_default());
                }
            }
            _ => return false,
        }
        true
    }

    /// As Redis rounds: `(ttl + 500) / 1000` seconds.
    fn ttl(self, entry: &Entry, now_ms: u64) -> i64 {
        match entry.expires_ms() {
            None => -1,
            Some(at) => {
                let left = signed(at.saturating_sub(now_ms));
                if self == Self::Ttl {
                    (left + 500) / 1000
                } else {
                    left
                }
            }
        }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
