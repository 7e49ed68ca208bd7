//! Redis' glob patterns, as `KEYS`, `SCAN … MATCH` and `PSUBSCRIBE` read them.
//!
//! The meaning is that of Redis' `stringmatchlen`, corner cases of classes included. The method
//! is not: Redis tried every split at every `*` (CVE-2024-31228). A glob only ever has to go back
//! to its last `*`, so this takes at most pattern × text steps and no stack. One difference: `*`
//! matches the empty text here in every command, in Redis only as the whole pattern of `KEYS` and
//! `SCAN`.
//!
//! These are not the key patterns of rules; those are in `pattern`.

use std::borrow::Cow;

/// Whether the whole text matches the glob pattern.
///
/// `*` any bytes, `?` one byte, `[abc]` `[a-z]` `[^a]` one byte of a class, `\` takes the next
/// byte literally.
pub fn glob_match(pattern: &[u8], text: &[u8]) -> bool {
    matches(pattern, text, |byte| byte)
}

/// The same with ASCII letters of either case alike, as `CONFIG GET` and `COMMAND LIST` match.
pub fn glob_match_ignoring_case(pattern: &[u8], text: &[u8]) -> bool {
    matches(pattern, text, |byte| byte.to_ascii_lowercase())
}

fn matches(pattern: &[u8], text: &[u8], fold: impl Fn(u8) -> u8 + Copy) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when the match fails: after the last `*`, one byte further in the text.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            if p == pattern.len() {
                return true;
            }
            retry = Some((p, t));
            continue;
        }
        if t == text.len() {
            return p == pattern.len();
        }
        if let Some(len) = one_byte(&pattern[p..], text[t], fold) {
            p += len;
            t += 1;
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            (p, t) = (star, from + 1);
        } else {
            return false;
        }
    }
}

/// Whether the first element of the pattern matches the byte: its length, or `None`.
fn one_byte(pattern: &[u8], byte: u8, fold: impl Fn(u8) -> u8 + Copy) -> Option<usize> {
    let same = |literal: u8| fold(literal) == fold(byte);
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => {
            let (matched, len) = class_match(class, byte, fold);
            matched.then_some(1 + len)
        }
        [b'\\', literal, ..] => same(*literal).then_some(2),
        [literal, ..] => same(*literal).then_some(1),
    }
}

/// A class after its `[`: whether it holds the byte, and its length with the `]`. As in Redis a
/// `]` ends the class even when it comes first, a range may be written backwards, and a class
/// that is never closed ends with the pattern. The ends of a range are put in order before their
/// case is folded: `[Z-a]` holds no letter where case is ignored.
fn class_match(class: &[u8], byte: u8, fold: impl Fn(u8) -> u8) -> (bool, usize) {
    let byte = fold(byte);
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        let len = match &class[at..] {
            [] => return (found != negated, at),
            [b'\\', literal, ..] => {
                found |= fold(*literal) == byte;
                2
            }
            [b']', ..] => return (found != negated, at + 1),
            [from, b'-', to, ..] => {
                found |= (fold(*from.min(to))..=fold(*from.max(to))).contains(&byte);
                3
            }
            [literal, ..] => {
                found |= fold(*literal) == byte;
                1
            }
        };
        at += len;
    }
}

/// Escapes bytes so that they stand for themselves in a glob pattern: a prefix before a `MATCH`
/// argument, for example. `^` and `-` mean something only inside `[…]`, which is escaped.
pub fn glob_escape(bytes: &[u8]) -> Cow<'_, [u8]> {
    let special = |byte: &u8| matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\');
    if !bytes.iter().any(special) {
        return Cow::Borrowed(bytes);
    }
    let mut escaped = Vec::with_capacity(bytes.len() + 8);
    for byte in bytes {
        if special(byte) {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests;
