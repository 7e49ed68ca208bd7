//! Sorted sets: what such a key holds.
//!
//! A table finds the score of a member, `order` keeps members by score and then by bytes. Every
//! member is therefore kept twice, and counted twice. The children answer the commands: `members`
//! those about single members, `range` and `select` those about parts of the order, `pop` takes
//! members out, `algebra` combines several sets; `score` reads and writes scores as Redis does.

pub(super) mod algebra;
pub(super) mod members;
mod order;
pub(super) mod pop;
pub(super) mod range;
mod score;
mod select;

use self::order::Order;
pub(super) use self::score::text as score_text;
use super::table::Table;
use super::value::{SCORED_OVERHEAD, Value};
use crate::resp::{Proto, write::Reply};

/// Members with their scores.
#[derive(Clone, Default)]
pub(super) struct Sorted {
    scores: Table<f64>,
    order: Order,
    bytes: usize,
}

fn weight(member: &[u8]) -> usize {
    SCORED_OVERHEAD + 2 * member.len()
}

/// The score that is stored: redis-server keeps small sets, but not large ones, without the sign
/// of zero.
fn kept(score: f64) -> f64 {
    score + 0.0
}

impl Sorted {
    /// Members and scores, in no order.
    pub fn scores(&self) -> &Table<f64> {
        &self.scores
    }

    /// Members in order.
    pub fn order(&self) -> &Order {
        &self.order
    }

    pub fn len(&self) -> usize {
        self.scores.len()
    }

    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets the score of a member; answers the one it had.
    pub fn set(&mut self, member: &[u8], score: f64) -> Option<f64> {
        let before = self.scores.insert(member, score);
        match before {
            Some(before) => self.order.remove(before, member),
            None => self.bytes += weight(member),
        }
        self.order.insert(score, member);
        before
    }

    pub fn remove(&mut self, member: &[u8]) -> bool {
        let Some(score) = self.scores.remove(member) else {
            return false;
        };
        self.order.remove(score, member);
        self.bytes -= weight(member);
        true
    }

    /// The place of a member in the order.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        let score = *self.scores.get(member)?;
        Some(self.order.rank(score, member))
    }
}

impl FromIterator<(Box<[u8]>, f64)> for Sorted {
    fn from_iter<I: IntoIterator<Item = (Box<[u8]>, f64)>>(members: I) -> Self {
        let mut sorted = Self::default();
        for (member, score) in members {
            sorted.set(&member, score);
        }
        sorted
    }
}

impl From<Sorted> for Value {
    fn from(sorted: Sorted) -> Self {
        Value::Sorted(Box::new(sorted))
    }
}

/// Members as a reply; scores follow them in RESP2 and pair with them in RESP3.
fn answer<'a>(
    members: impl Iterator<Item = (&'a [u8], f64)>,
    len: usize,
    with_scores: bool,
    reply: &mut Reply<'_>,
) {
    let pairs = with_scores && reply.proto == Proto::Resp3;
    reply.array(if with_scores && !pairs { len * 2 } else { len });
    for (member, score) in members {
        if pairs {
            reply.array(2);
        }
        reply.bulk(member);
        if with_scores {
            score::write(score, reply);
        }
    }
}
