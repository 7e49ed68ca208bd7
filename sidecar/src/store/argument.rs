//! Reads numbers and option words the way redis-server does.

use super::fail::Fail;

/// A decimal integer exactly as Redis accepts it: no sign but `-`, no blanks, no leading zeros.
pub(super) fn integer(arg: &[u8]) -> Result<i64, Fail> {
    parse_integer(arg).ok_or(Fail::NotInteger)
}

pub(crate) fn parse_integer(arg: &[u8]) -> Option<i64> {
    let digits = arg.strip_prefix(b"-").unwrap_or(arg);
    let plain = match digits {
        b"0" => arg.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    plain
        .then(|| std::str::from_utf8(arg).ok()?.parse().ok())
        .flatten()
}

/// A count that must not be negative.
pub(super) fn positive(arg: &[u8]) -> Result<usize, Fail> {
    parse_integer(arg)
        .and_then(|n| usize::try_from(n).ok())
        .ok_or(Fail::NotPositive)
}

/// Whether an option word is this one, in any case.
pub(super) fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// The part of `len` elements that two Redis indexes name (negative ones count from the end).
pub(crate) fn range(start: i64, stop: i64, len: usize) -> std::ops::Range<usize> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let from_end = |n: i64| if n < 0 { n.saturating_add(len) } else { n };
    let start = from_end(start).max(0);
    let stop = from_end(stop).min(len - 1);
    if start > stop {
        return 0..0;
    }
    usize::try_from(start).unwrap_or(0)..usize::try_from(stop + 1).unwrap_or(0)
}
