//! Dynamic parts of keys (S2.14): a user id, a search term, whatever an app or an event puts where
//! a pattern has a capture. A part must stay one segment and must not turn into a wildcard.
//!
//! [`check`] refuses what would break that, [`escape`] makes any bytes safe and [`unescape`] gives
//! them back. Escaping is like that of URLs: `%` and two hexadecimal digits.

use std::borrow::Cow;

/// Why bytes cannot stand as one segment of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyPartError {
    /// A capture never matches an empty segment.
    #[error("the key part is empty; give it at least one character, or escape it")]
    Empty,
    /// A separator, a wildcard, a control character or another byte that means something.
    #[error(
        "the key part has {} at byte {position}, which must not stand in a key part; escape it as `%{byte:02X}`",
        describe(*.byte)
    )]
    Reserved {
        /// The byte.
        byte: u8,
        /// Its offset, counted from 0.
        position: usize,
    },
    /// `%` without two hexadecimal digits.
    #[error(
        "the key part has a `%` at byte {position} without two hexadecimal digits; write a `%` as `%25`"
    )]
    BadEscape {
        /// Offset of the `%`, counted from 0.
        position: usize,
    },
}

/// What [`escape`] writes for an empty part, so that the segment is not empty.
const EMPTY: &[u8] = b"%";

/// Accepts a part that can stand in a key as it is.
pub fn check(part: &[u8]) -> Result<(), KeyPartError> {
    if part.is_empty() {
        return Err(KeyPartError::Empty);
    }
    match part.iter().position(|byte| is_reserved(*byte)) {
        Some(position) => Err(KeyPartError::Reserved {
            byte: part[position],
            position,
        }),
        None => Ok(()),
    }
}

/// Makes any bytes one segment that is not empty and has no separator, wildcard, brace or control
/// character. Different parts stay different; [`unescape`] is the way back.
pub fn escape(part: &[u8]) -> Cow<'_, [u8]> {
    let special = |byte: u8| byte == b'%' || is_reserved(byte);
    if part.is_empty() {
        return Cow::Borrowed(EMPTY);
    }
    if !part.iter().any(|byte| special(*byte)) {
        return Cow::Borrowed(part);
    }
    let mut escaped = Vec::with_capacity(part.len() + 8);
    for byte in part {
        if special(*byte) {
            let digit = |half: u8| b"0123456789ABCDEF"[usize::from(half)];
            escaped.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        } else {
            escaped.push(*byte);
        }
    }
    Cow::Owned(escaped)
}

/// What was escaped by [`escape`].
pub fn unescape(part: &[u8]) -> Result<Cow<'_, [u8]>, KeyPartError> {
    if part == EMPTY {
        return Ok(Cow::Borrowed(b""));
    }
    if !part.contains(&b'%') {
        return Ok(Cow::Borrowed(part));
    }
    let mut plain = Vec::with_capacity(part.len());
    let mut at = 0;
    while let Some(byte) = part.get(at) {
        if *byte != b'%' {
            plain.push(*byte);
            at += 1;
            continue;
        }
        let digits = part.get(at + 1..at + 3).and_then(|digits| {
            let high = char::from(digits[0]).to_digit(16)?;
            let low = char::from(digits[1]).to_digit(16)?;
            u8::try_from(high << 4 | low).ok()
        });
        plain.push(digits.ok_or(KeyPartError::BadEscape { position: at })?);
        at += 3;
    }
    Ok(Cow::Owned(plain))
}

/// Separators, wildcards of patterns and globs, braces (captures and Redis' hash tags), the escape
/// characters of both, and control characters.
fn is_reserved(byte: u8) -> bool {
    matches!(byte, b':' | b'*' | b'?' | b'[' | b']' | b'{' | b'}' | b'\\')
        || byte.is_ascii_control()
}

fn describe(byte: u8) -> String {
    match byte {
        b':' => "the separator `:`".to_owned(),
        _ if byte.is_ascii_control() => format!("the control character 0x{byte:02x}"),
        _ => format!("the reserved character `{}`", char::from(byte)),
    }
}

#[cfg(test)]
mod tests;
