//! Answers a cached read from a local entry, in the reader's protocol version.

use super::{
    entry::{Body, Entry},
    parts::{Part, Parts},
    ranges::Span,
};
use crate::resp::{Proto, downgrade, write::Reply};

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
    /// `HMGET key field …`
    HMGet(&'a [&'a [u8]]),
    /// `HEXISTS key field`
    HExists(&'a [u8]),
    /// `HLEN key`
    HLen,
    /// `SMEMBERS key`
    SMembers,
    /// `SISMEMBER key member`
    SIsMember(&'a [u8]),
    /// `SCARD key`
    SCard,
    /// `LRANGE key start stop`
    LRange(Span),
    /// `LLEN key`
    LLen,
    /// `ZRANGE key start stop [WITHSCORES]`, by index
    ZRange(Span),
    /// `ZSCORE key member`
    ZScore(&'a [u8]),
    /// `ZCARD key`
    ZCard,
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
            (Self::Type, Body::Set(_)) => reply.simple("set"),
            (Self::Type, Body::List(_)) => reply.simple("list"),
            (Self::Type, Body::Sorted(_)) => reply.simple("zset"),
            (Self::Type, Body::Typed(name)) => {
                reply.simple(std::str::from_utf8(name).unwrap_or(""));
            }
            (Self::Ttl | Self::Pttl, Body::Missing) => reply.integer(-2),
            (Self::Ttl | Self::Pttl, _) => reply.integer(self.ttl(entry, now_ms)),
            (Self::HGet(field), Body::Hash(fields)) => return value(fields.get(field), reply),
            (_, Body::Missing) => return self.answer_missing(reply),
            (_, body) => return self.answer_collection(body, reply),
        }
        true
    }

    /// The answers of reads of hashes, sets, lists and sorted sets when there is no such key.
    fn answer_missing(self, reply: &mut Reply<'_>) -> bool {
        match self {
            Self::HMGet(fields) => {
                reply.array(fields.len());
                for _ in fields {
                    reply.null();
                }
            }
            Self::HGetAll => reply.map(0),
            Self::SMembers => reply.set(0),
            Self::LRange(_) | Self::ZRange(_) => reply.array(0),
            Self::ZScore(_) => reply.null(),
            _ => reply.integer(0),
        }
        true
    }

    /// Reads of hashes, sets, lists and sorted sets; of another type, Redis has to say so.
    fn answer_collection(self, body: Body<'_>, reply: &mut Reply<'_>) -> bool {
        match (self, body) {
            (Self::HGetAll, Body::Hash(fields)) if fields.complete => {
                reply.map(fields.count().unwrap_or(0) as usize);
                for (field, part) in fields.iter() {
                    reply.bulk(field);
                    value(Some(part), reply);
                }
                true
            }
            (Self::HMGet(wanted), Body::Hash(fields)) => values(fields, wanted, reply),
            (Self::HExists(field), Body::Hash(fields)) => presence(fields.get(field), reply),
            (Self::HLen, Body::Hash(parts)) | (Self::SCard, Body::Set(parts)) => {
                count(parts.count(), reply)
            }
            (Self::SMembers, Body::Set(members)) if members.complete => {
                reply.set(members.count().unwrap_or(0) as usize);
                for (member, _) in members.iter() {
                    reply.bulk(member);
                }
                true
            }
            (Self::SIsMember(member), Body::Set(members)) => presence(members.get(member), reply),
            (Self::LRange(span), Body::List(list)) => {
                let Some(range) = list.part(span) else {
                    return false;
                };
                reply.array(range.count as usize);
                reply.out.extend_from_slice(range.elements);
                true
            }
            (Self::LLen, Body::List(list)) => count(list.count(), reply),
            (Self::ZRange(span), Body::Sorted(sorted)) => {
                let Some(range) = sorted.ranges().exact(span) else {
                    return false;
                };
                if span.scores && reply.proto == Proto::Resp2 {
                    reply.array(range.count as usize * 2);
                    downgrade::scored_elements(range.elements, reply.out);
                } else {
                    reply.array(range.count as usize);
                    reply.out.extend_from_slice(range.elements);
                }
                true
            }
            (Self::ZScore(member), Body::Sorted(sorted)) => match sorted.scores().get(member) {
                Some(Part::Value(score)) => {
                    reply.double_text(score);
                    true
                }
                Some(Part::Absent) => {
                    reply.null();
                    true
                }
                _ => false,
            },
            (Self::ZCard, Body::Sorted(sorted)) => count(sorted.count(), reply),
            _ => false,
        }
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

/// A field's value.
#[inline]
fn value(part: Option<Part<'_>>, reply: &mut Reply<'_>) -> bool {
    match part {
        Some(Part::Value(value)) => reply.bulk(value),
        Some(Part::Absent) => reply.null(),
        Some(Part::Present) | None => return false,
    }
    true
}

/// The values of all these fields, or nothing.
fn values(fields: Parts<'_>, wanted: &[&[u8]], reply: &mut Reply<'_>) -> bool {
    let before = reply.out.len();
    reply.array(wanted.len());
    let all = wanted.iter().all(|field| value(fields.get(field), reply));
    if !all {
        reply.out.truncate(before);
    }
    all
}

fn presence(part: Option<Part<'_>>, reply: &mut Reply<'_>) -> bool {
    if let Some(part) = part {
        reply.integer(i64::from(part != Part::Absent));
    }
    part.is_some()
}

fn count(count: Option<u32>, reply: &mut Reply<'_>) -> bool {
    if let Some(count) = count {
        reply.integer(i64::from(count));
    }
    count.is_some()
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
