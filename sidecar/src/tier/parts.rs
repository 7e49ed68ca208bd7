//! Named parts of a key: fields of a hash, members of a set, scores of a sorted set.
//!
//! | bytes | |
//! |---|---|
//! | 4 | how many there are in Redis; all ones: not known |
//! | 4 × count | only if all are here and there are more than [`LINEAR`]: where each begins, by name |
//! | – | the parts: length of the name, of the value, name, value |
//!
//! A few parts are searched one by one, many by bisection, so that no lookup takes longer than it
//! would take to ask Redis.

use smallvec::SmallVec;

/// Up to so many parts are searched one by one.
const LINEAR: usize = 32;
/// Most parts of an entry that does not have all of them. What is known beyond is forgotten, so
/// that a key whose fields are read one by one costs no more with each of them.
pub const MAX_PARTIAL: usize = 256;

const UNKNOWN: u32 = u32::MAX;
const ABSENT: u32 = u32::MAX;
const PRESENT: u32 = u32::MAX - 1;
const COUNT: usize = 4;

/// What is known about one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// There is no such part.
    Absent,
    /// There is one; it has no value, or its value is not known.
    Present,
    /// There is one with this value.
    Value(&'a [u8]),
}

/// A part with its name.
pub type Named<'a> = (&'a [u8], Part<'a>);

/// Parts of a key: some of them, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parts<'a> {
    /// Whether these are all the parts there are.
    pub complete: bool,
    bytes: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Parts as [`all`] or [`some`] wrote them.
    pub fn new(complete: bool, bytes: &'a [u8]) -> Self {
        Self { complete, bytes }
    }

    /// How many parts the key has in Redis, if that is known.
    pub fn count(self) -> Option<u32> {
        self.number(0).filter(|count| *count != UNKNOWN)
    }

    /// All parts that are known, in the order of the server's reply.
    pub fn iter(self) -> impl Iterator<Item = Named<'a>> {
        let mut rest = self.bytes.get(self.start()..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (part, tail) = split_part(rest)?;
            rest = tail;
            Some(part)
        })
    }

    /// One part; `None` if nothing is known about it.
    pub fn get(self, name: &[u8]) -> Option<Part<'a>> {
        let indexed = self.indexed();
        let found = if indexed == 0 {
            self.iter().find(|(known, _)| *known == name)
        } else {
            self.bisect(name, indexed)
        };
        match found {
            Some((_, part)) => Some(part),
            None => self.complete.then_some(Part::Absent),
        }
    }

    /// Bytes that this takes.
    pub fn size(self) -> usize {
        self.bytes.len()
    }

    /// As it is stored.
    pub(super) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    fn bisect(self, name: &[u8], count: usize) -> Option<Named<'a>> {
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low.midpoint(high);
            let at = self.number(COUNT + 4 * middle)? as usize;
            let (part, _) = split_part(self.bytes.get(at..)?)?;
            match part.0.cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(part),
            }
        }
        None
    }

    /// How many parts the index has; 0: there is none.
    fn indexed(self) -> usize {
        match self.count() {
            Some(count) if self.complete && count as usize > LINEAR => count as usize,
            _ => 0,
        }
    }

    /// Where the first part begins.
    fn start(self) -> usize {
        COUNT + 4 * self.indexed()
    }

    fn number(self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    }
}

/// All parts of a key; `None` if they are too many or too large to be kept.
pub fn all(parts: &[Named<'_>]) -> Option<Vec<u8>> {
    let count = u32::try_from(parts.len())
        .ok()
        .filter(|count| *count != UNKNOWN)?;
    let indexed = if parts.len() > LINEAR { parts.len() } else { 0 };
    let start = COUNT + 4 * indexed;
    let size: usize = parts.iter().map(part_size).sum();
    u32::try_from(start + size).ok()?;
    let mut bytes = Vec::with_capacity(start + size);
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.resize(start, 0);
    let mut places: Vec<(&[u8], u32)> = Vec::with_capacity(indexed);
    for part in parts {
        if indexed > 0 {
            places.push((part.0, u32::try_from(bytes.len()).ok()?));
        }
        append(&mut bytes, *part);
    }
    places.sort_unstable_by_key(|place| place.0);
    for (slot, (_, place)) in bytes[COUNT..start].chunks_exact_mut(4).zip(places) {
        slot.copy_from_slice(&place.to_le_bytes());
    }
    Some(bytes)
}

/// Some parts of a key, and how many it has in Redis, if that is known.
pub fn some(count: Option<u64>, parts: &[Named<'_>]) -> Vec<u8> {
    let count = count
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(UNKNOWN);
    let size: usize = parts.iter().map(part_size).sum();
    let mut bytes = Vec::with_capacity(COUNT + size);
    bytes.extend_from_slice(&count.to_le_bytes());
    for part in parts {
        append(&mut bytes, *part);
    }
    bytes
}

/// What is known after a second read: `read` goes before `known`. At most `max_size` bytes and
/// [`MAX_PARTIAL`] parts; beyond that, only what was read is known.
pub fn merged(known: Parts<'_>, read: Parts<'_>, max_size: usize) -> Vec<u8> {
    let count = read.count().or(known.count()).map(u64::from);
    let mut parts: SmallVec<[Named<'_>; 16]> = read
        .iter()
        .map(|(name, part)| match (part, known.get(name)) {
            // A value says more than that there is one.
            (Part::Present, Some(value @ Part::Value(_))) => (name, value),
            _ => (name, part),
        })
        .collect();
    let news = parts.len();
    parts.extend(known.iter().filter(|(name, _)| read.get(name).is_none()));
    let size: usize = parts.iter().map(part_size).sum();
    if parts.len() > MAX_PARTIAL || COUNT + size > max_size {
        parts.truncate(news);
    }
    some(count, &parts)
}

fn part_size((name, part): &Named<'_>) -> usize {
    8 + name.len()
        + match part {
            Part::Value(value) => value.len(),
            Part::Absent | Part::Present => 0,
        }
}

fn append(bytes: &mut Vec<u8>, (name, part): Named<'_>) {
    // Redis' strings have at most 512 MB.
    let len = |text: &[u8]| u32::try_from(text.len()).unwrap_or(0);
    let value = match part {
        Part::Absent => ABSENT,
        Part::Present => PRESENT,
        Part::Value(value) => len(value),
    };
    bytes.extend_from_slice(&len(name).to_le_bytes());
    bytes.extend_from_slice(&value.to_le_bytes());
    bytes.extend_from_slice(name);
    if let Part::Value(value) = part {
        bytes.extend_from_slice(value);
    }
}

fn split_part(bytes: &[u8]) -> Option<(Named<'_>, &[u8])> {
    let (name_len, tail) = bytes.split_first_chunk::<4>()?;
    let (value_len, tail) = tail.split_first_chunk::<4>()?;
    let (name, tail) = tail.split_at_checked(u32::from_le_bytes(*name_len) as usize)?;
    Some(match u32::from_le_bytes(*value_len) {
        ABSENT => ((name, Part::Absent), tail),
        PRESENT => ((name, Part::Present), tail),
        len => {
            let (value, tail) = tail.split_at_checked(len as usize)?;
            ((name, Part::Value(value)), tail)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        // Not in the order of the alphabet, as a server has them.
        (0..count)
            .map(|n| format!("member-{}", n * 7919 % 100_003))
            .collect()
    }

    #[test]
    fn every_part_is_found_and_no_other_whatever_their_number() {
        for count in [0, 1, LINEAR, LINEAR + 1, 5_000] {
            let names = names(count);
            let parts: Vec<Named<'_>> = names
                .iter()
                .map(|name| (name.as_bytes(), Part::Value(&name.as_bytes()[3..])))
                .collect();
            let bytes = all(&parts).unwrap();
            let kept = Parts::new(true, &bytes);
            assert_eq!(kept.count(), Some(u32::try_from(count).unwrap()));
            assert!(kept.iter().eq(parts.iter().copied()), "order is kept");
            for (name, part) in &parts {
                assert_eq!(kept.get(name), Some(*part));
            }
            assert_eq!(kept.get(b"nobody"), Some(Part::Absent));
            assert_eq!(kept.get(b""), Some(Part::Absent));
        }
    }

    #[test]
    fn some_parts_tell_absent_from_unknown() {
        let bytes = some(
            Some(9),
            &[
                (b"a", Part::Value(b"1")),
                (b"gone", Part::Absent),
                (b"there", Part::Present),
            ],
        );
        let partial = Parts::new(false, &bytes);
        assert_eq!(partial.get(b"a"), Some(Part::Value(b"1")));
        assert_eq!(partial.get(b"gone"), Some(Part::Absent));
        assert_eq!(partial.get(b"there"), Some(Part::Present));
        assert_eq!(partial.get(b"other"), None);
        assert_eq!(partial.count(), Some(9));
        assert_eq!(Parts::new(false, &some(None, &[])).count(), None);
    }

    #[test]
    fn reads_add_up_and_a_presence_displaces_no_value() {
        let known = some(Some(3), &[(b"a", Part::Value(b"1")), (b"b", Part::Absent)]);
        let read = some(None, &[(b"a", Part::Present), (b"c", Part::Value(b"3"))]);
        let bytes = merged(Parts::new(false, &known), Parts::new(false, &read), 1 << 20);
        let both = Parts::new(false, &bytes);
        assert_eq!(both.get(b"a"), Some(Part::Value(b"1")));
        assert_eq!(both.get(b"b"), Some(Part::Absent));
        assert_eq!(both.get(b"c"), Some(Part::Value(b"3")));
        assert_eq!(both.count(), Some(3));
    }

    #[test]
    fn p9_parts_that_are_read_one_by_one_are_bounded_in_number_and_bytes() {
        let mut known = some(None, &[]);
        for n in 0..2_000_u32 {
            let name = n.to_be_bytes();
            let read = some(None, &[(&name, Part::Present)]);
            known = merged(
                Parts::new(false, &known),
                Parts::new(false, &read),
                usize::MAX,
            );
            let now = Parts::new(false, &known);
            assert_eq!(now.get(&name), Some(Part::Present));
            assert!(now.iter().count() <= MAX_PARTIAL);
        }
        let read = some(None, &[(b"new", Part::Value(&[0; 50]))]);
        let bytes = merged(Parts::new(false, &known), Parts::new(false, &read), 100);
        assert_eq!(Parts::new(false, &bytes).iter().count(), 1);
    }
}
