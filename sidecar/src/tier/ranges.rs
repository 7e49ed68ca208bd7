//! Ranges of a list or a sorted set, each as Redis answered it, by their exact arguments.
//!
//! | bytes | |
//! |---|---|
//! | 4 | how many elements there are in Redis; all ones: not known |
//! | – | the ranges: start, stop, whether with scores, number of elements, bytes, the elements as in RESP3 |
//!
//! A list that was read from `0` to `-1` answers every range of it that begins and ends near its
//! front; a sorted set is answered by exact arguments only.

use smallvec::SmallVec;

/// Most ranges of one key; the one that was read first is forgotten.
pub const MAX_RANGES: usize = 8;
/// Elements that are skipped to find a part of a whole list; a range that lies farther from the
/// front is asked for and kept by itself.
const MAX_SKIPPED: usize = 1024;

const UNKNOWN: u32 = u32::MAX;
const HEAD: usize = 8 + 8 + 1 + 4 + 4;

/// The arguments of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Index of the first element; negative ones count from the end.
    pub start: i64,
    /// Index of the last.
    pub stop: i64,
    /// `WITHSCORES`
    pub scores: bool,
}

/// One range that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range<'a> {
    /// Its arguments.
    pub span: Span,
    /// How many elements it has.
    pub count: u32,
    /// The elements, as in a RESP3 reply behind its header.
    pub elements: &'a [u8],
}

/// What is known of a list or a sorted set by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ranges<'a>(&'a [u8]);

impl Span {
    /// The whole list or sorted set.
    pub const ALL: (i64, i64) = (0, -1);

    fn is_all(self) -> bool {
        (self.start, self.stop) == Self::ALL
    }
}

impl<'a> Ranges<'a> {
    /// Ranges as [`write`] wrote them.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// How many elements there are in Redis, if that is known.
    pub fn count(self) -> Option<u32> {
        let count = u32::from_le_bytes(*self.0.first_chunk()?);
        (count != UNKNOWN).then_some(count)
    }

    /// The ranges that were read.
    pub fn iter(self) -> impl Iterator<Item = Range<'a>> {
        let mut rest = self.0.get(4..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (range, tail) = split_range(rest)?;
            rest = tail;
            Some(range)
        })
    }

    /// The range of exactly these arguments.
    pub fn exact(self, span: Span) -> Option<Range<'a>> {
        self.iter().find(|range| range.span == span)
    }

    /// The range of these arguments, or the part of the whole list that they name.
    pub fn part(self, span: Span) -> Option<Range<'a>> {
        if let Some(range) = self.exact(span) {
            return Some(range);
        }
        let whole = self.iter().find(|range| range.span.is_all())?;
        let wanted = crate::store::argument::range(span.start, span.stop, whole.count as usize);
        if wanted.is_empty() {
            return Some(Range {
                span,
                count: 0,
                elements: &[],
            });
        }
        if wanted.end > MAX_SKIPPED {
            return None;
        }
        let start = skip(whole.elements, wanted.start)?;
        let end = start + skip(&whole.elements[start..], wanted.len())?;
        Some(Range {
            span,
            count: u32::try_from(wanted.len()).ok()?,
            elements: &whole.elements[start..end],
        })
    }

    /// As it is stored.
    pub(super) fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// Ranges, and how many elements there are in Redis, if that is known; `None` if they are too
/// large to be kept. The whole tells the number of elements.
pub fn write(count: Option<u64>, ranges: &[Range<'_>]) -> Option<Vec<u8>> {
    let whole = ranges.iter().find(|range| range.span.is_all());
    let count = match whole {
        Some(range) => range.count,
        None => count
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(UNKNOWN),
    };
    let size: usize = ranges.iter().map(|range| HEAD + range.elements.len()).sum();
    let mut bytes = Vec::with_capacity(4 + size);
    bytes.extend_from_slice(&count.to_le_bytes());
    for range in ranges {
        bytes.extend_from_slice(&range.span.start.to_le_bytes());
        bytes.extend_from_slice(&range.span.stop.to_le_bytes());
        bytes.push(u8::from(range.span.scores));
        bytes.extend_from_slice(&range.count.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(range.elements.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(range.elements);
    }
    Some(bytes)
}

/// What is known after a second read: `read` goes before `known`, and the last of `known` are
/// forgotten first, so that at most [`MAX_RANGES`] and `max_size` bytes remain.
pub fn merged(known: Ranges<'_>, read: Ranges<'_>, max_size: usize) -> Option<Vec<u8>> {
    let count = read.count().or(known.count()).map(u64::from);
    let mut ranges: SmallVec<[Range<'_>; MAX_RANGES]> = read.iter().collect();
    let mut size: usize = 4 + ranges
        .iter()
        .map(|range| HEAD + range.elements.len())
        .sum::<usize>();
    for range in known.iter() {
        size += HEAD + range.elements.len();
        if ranges.len() == MAX_RANGES || size > max_size {
            break;
        }
        if read.exact(range.span).is_none() {
            ranges.push(range);
        }
    }
    write(count, &ranges)
}

/// Where the element with this index begins among bulk strings.
fn skip(elements: &[u8], count: usize) -> Option<usize> {
    let mut at = 0;
    for _ in 0..count {
        let head = elements.get(at..)?.strip_prefix(b"$")?;
        let digits = head.iter().position(|byte| *byte == b'\r')?;
        let len = head[..digits]
            .iter()
            .fold(0_usize, |len, digit| len * 10 + usize::from(digit - b'0'));
        at += 1 + digits + 2 + len + 2;
    }
    (at <= elements.len()).then_some(at)
}

fn split_range(bytes: &[u8]) -> Option<(Range<'_>, &[u8])> {
    let (start, tail) = bytes.split_first_chunk::<8>()?;
    let (stop, tail) = tail.split_first_chunk::<8>()?;
    let (scores, tail) = tail.split_first()?;
    let (count, tail) = tail.split_first_chunk::<4>()?;
    let (size, tail) = tail.split_first_chunk::<4>()?;
    let (elements, tail) = tail.split_at_checked(u32::from_le_bytes(*size) as usize)?;
    let range = Range {
        span: Span {
            start: i64::from_le_bytes(*start),
            stop: i64::from_le_bytes(*stop),
            scores: *scores == 1,
        },
        count: u32::from_le_bytes(*count),
        elements,
    };
    Some((range, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: i64, stop: i64) -> Span {
        Span {
            start,
            stop,
            scores: false,
        }
    }

    fn elements(numbers: std::ops::Range<usize>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in numbers {
            crate::resp::write::bulk(&mut bytes, number.to_string().as_bytes());
        }
        bytes
    }

    fn whole(count: usize) -> Vec<u8> {
        let all = Range {
            span: span(0, -1),
            count: u32::try_from(count).unwrap(),
            elements: &elements(0..count),
        };
        write(None, &[all]).unwrap()
    }

    #[test]
    fn a_whole_list_answers_every_range_of_it() {
        let bytes = whole(15);
        let list = Ranges::new(&bytes);
        assert_eq!(list.count(), Some(15));
        for start in -20..20_i64 {
            for stop in -20..20_i64 {
                let from_end = |n: i64| if n < 0 { n + 15 } else { n };
                let first = usize::try_from(from_end(start).max(0)).unwrap();
                let end = usize::try_from((from_end(stop) + 1).clamp(0, 15)).unwrap();
                let expected = elements(first..end.max(first));
                let part = list.part(span(start, stop)).unwrap();
                assert_eq!(part.elements, expected, "{start} {stop}");
                assert_eq!(part.count as usize, end.saturating_sub(first));
            }
        }
    }

    #[test]
    fn p9_what_lies_far_from_the_front_is_not_searched_for() {
        let bytes = whole(5_000);
        let list = Ranges::new(&bytes);
        assert!(list.part(span(1_000, 1_023)).is_some());
        assert!(list.part(span(1_000, 1_024)).is_none());
        assert!(list.part(span(-2, -1)).is_none());
        assert!(
            list.part(span(0, -1)).is_some(),
            "the whole is not searched"
        );
        assert_eq!(list.part(span(6_000, 7_000)).unwrap().count, 0);
    }

    #[test]
    fn ranges_add_up_to_a_bound() {
        let read = |start: i64| {
            let range = Range {
                span: span(start, start),
                count: 1,
                elements: b"$1\r\nx\r\n",
            };
            write(None, &[range]).unwrap()
        };
        let mut known = write(Some(70), &[]).unwrap();
        for start in 0..50 {
            known = merged(Ranges::new(&known), Ranges::new(&read(start)), usize::MAX).unwrap();
        }
        let ranges = Ranges::new(&known);
        assert_eq!(
            (ranges.count(), ranges.iter().count()),
            (Some(70), MAX_RANGES)
        );
        for start in 42..50 {
            assert!(ranges.exact(span(start, start)).is_some());
        }
        let small = merged(ranges, Ranges::new(&read(60)), 100).unwrap();
        assert!(small.len() <= 100 && Ranges::new(&small).iter().count() == 3);
    }
}
