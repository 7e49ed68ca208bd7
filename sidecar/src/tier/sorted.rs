//! What is known of a sorted set: ranges by their arguments, and scores of single members.
//!
//! | bytes | |
//! |---|---|
//! | 4 | length of the ranges |
//! | – | the ranges, as [`super::ranges`] writes them, with the number of members |
//! | – | the scores, as [`super::parts`] writes them: as text, as Redis printed it |

use super::{
    parts::{self, Named, Parts},
    ranges::{self, Range, Ranges},
};

/// Ranges and scores of a sorted set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sorted<'a>(&'a [u8]);

impl<'a> Sorted<'a> {
    /// As [`write`] or [`merged`] wrote it.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// How many members there are in Redis, if that is known.
    pub fn count(self) -> Option<u32> {
        self.ranges().count()
    }

    /// The ranges that were read.
    pub fn ranges(self) -> Ranges<'a> {
        Ranges::new(self.split().0)
    }

    /// The scores that were read.
    pub fn scores(self) -> Parts<'a> {
        Parts::new(false, self.split().1)
    }

    /// As it is stored.
    pub(super) fn bytes(self) -> &'a [u8] {
        self.0
    }

    fn split(self) -> (&'a [u8], &'a [u8]) {
        self.0
            .split_first_chunk()
            .and_then(|(len, tail)| tail.split_at_checked(u32::from_le_bytes(*len) as usize))
            .unwrap_or_default()
    }
}

/// What one read told; `None` if that is too large to be kept.
pub fn write(
    count: Option<u64>,
    range: Option<Range<'_>>,
    score: Option<Named<'_>>,
) -> Option<Vec<u8>> {
    join(
        &ranges::write(count, range.as_slice())?,
        &parts::some(None, score.as_slice()),
    )
}

/// What is known after a second read; ranges and scores have half of `max_size` each.
pub fn merged(known: Sorted<'_>, read: Sorted<'_>, max_size: usize) -> Option<Vec<u8>> {
    join(
        &ranges::merged(known.ranges(), read.ranges(), max_size / 2)?,
        &parts::merged(known.scores(), read.scores(), max_size / 2),
    )
}

fn join(ranges: &[u8], scores: &[u8]) -> Option<Vec<u8>> {
    let len = u32::try_from(ranges.len()).ok()?;
    let mut bytes = Vec::with_capacity(4 + ranges.len() + scores.len());
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(ranges);
    bytes.extend_from_slice(scores);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{parts::Part, ranges::Span},
        *,
    };

    #[test]
    fn a_count_a_range_and_scores_are_kept_beside_each_other() {
        let span = Span {
            start: 0,
            stop: 2,
            scores: true,
        };
        let range = Range {
            span,
            count: 1,
            elements: b"*2\r\n$1\r\na\r\n,1.5\r\n",
        };
        let reads = [
            write(Some(7), None, None),
            write(None, Some(range), None),
            write(None, None, Some((b"a", Part::Value(b"1.5")))),
            write(None, None, Some((b"b", Part::Absent))),
        ];
        let mut known = write(None, None, None).unwrap();
        for read in reads {
            known = merged(Sorted::new(&known), Sorted::new(&read.unwrap()), 1 << 16).unwrap();
        }
        let sorted = Sorted::new(&known);
        assert_eq!(sorted.count(), Some(7));
        assert_eq!(sorted.ranges().exact(span), Some(range));
        assert_eq!(sorted.scores().get(b"a"), Some(Part::Value(b"1.5")));
        assert_eq!(sorted.scores().get(b"b"), Some(Part::Absent));
        assert_eq!(sorted.scores().get(b"c"), None);
    }
}
