//! Parts of the order of a sorted set: by place, by score, by the members' bytes.

use std::ops::Range;

use super::{Sorted, score};
use crate::store::argument::{integer, range};
use crate::store::fail::Fail;

/// Which members are meant.
#[derive(Clone, Copy)]
pub(super) enum Span<'a> {
    /// From the first to the last of these indexes, counted in the direction of the answer.
    Places(i64, i64),
    Scores(Scores),
    Bytes(Edge<'a>, Edge<'a>),
}

#[derive(Clone, Copy)]
pub(super) struct Scores {
    min: (f64, bool),
    max: (f64, bool),
}

/// An end of a range of members.
#[derive(Clone, Copy)]
pub(super) enum Edge<'a> {
    Lowest,
    Highest,
    Inclusive(&'a [u8]),
    Exclusive(&'a [u8]),
}

impl<'a> Span<'a> {
    pub fn places(start: &[u8], stop: &[u8]) -> Result<Self, Fail> {
        Ok(Self::Places(integer(start)?, integer(stop)?))
    }

    pub fn scores(min: &[u8], max: &[u8]) -> Result<Self, Fail> {
        let end = |arg: &[u8]| {
            let (text, exclusive) = match arg.strip_prefix(b"(") {
                Some(text) => (text, true),
                None => (arg, false),
            };
            let value = score::parse_bound(text).ok_or(Fail::Other("min or max is not a float"))?;
            Ok((value, exclusive))
        };
        Ok(Self::Scores(Scores {
            min: end(min)?,
            max: end(max)?,
        }))
    }

    pub fn bytes(min: &'a [u8], max: &'a [u8]) -> Result<Self, Fail> {
        let end = |arg: &'a [u8]| match arg {
            b"-" => Ok(Edge::Lowest),
            b"+" => Ok(Edge::Highest),
            [b'[', member @ ..] => Ok(Edge::Inclusive(member)),
            [b'(', member @ ..] => Ok(Edge::Exclusive(member)),
            _ => Err(Fail::Other("min or max not valid string range item")),
        };
        Ok(Self::Bytes(end(min)?, end(max)?))
    }

    /// The places that it covers, from the lowest.
    pub fn of(self, set: &Sorted, reverse: bool) -> Range<usize> {
        let (order, len) = (set.order(), set.len());
        let (from, to) = match self {
            Self::Places(start, stop) => {
                let places = range(start, stop, len);
                return if reverse {
                    len - places.end..len - places.start
                } else {
                    places
                };
            }
            Self::Scores(Scores { min, max }) => (
                order.count_while(|score, _| score < min.0 || min.1 && score <= min.0),
                order.count_while(|score, _| score < max.0 || !max.1 && score <= max.0),
            ),
            Self::Bytes(min, max) => {
                let before = |edge: Edge<'_>, with: bool| match edge {
                    Edge::Lowest => 0,
                    Edge::Highest => len,
                    Edge::Inclusive(end) => {
                        order.count_while(|_, member| member < end || with && member <= end)
                    }
                    Edge::Exclusive(end) => {
                        order.count_while(|_, member| member < end || !with && member <= end)
                    }
                };
                (before(min, false), before(max, true))
            }
        };
        from..to.max(from)
    }
}
