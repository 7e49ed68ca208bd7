//! Measures and reads what Redis answered.
//!
//! Replies pass through as bytes, so all that is needed is where one ends ([`Scanner`]); the few
//! replies that are looked into are read with [`Value`].

use super::Proto;

/// Largest line (simple string, error, number, length) that a server may send.
const MAX_LINE: usize = 1 << 20;
/// Deepest nesting that [`Value::read`] follows.
const MAX_DEPTH: usize = 16;

/// The server sent something that is not RESP; the connection cannot be used any longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// An unknown type byte.
    #[error("the server sent {0:#04x} where a reply should begin")]
    Kind(u8),
    /// A length that is no number, or below -1.
    #[error("the server sent a length that cannot be")]
    Length,
    /// A line or string that goes on where it should end.
    #[error("the server sent no line end where one was due")]
    NoLineEnd,
    /// A line without end.
    #[error("the server sent a line longer than {MAX_LINE} bytes")]
    LineTooLong,
    /// A reply nested deeper than any command's.
    #[error("the server sent a reply nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// Finds the end of a reply; remembers how far it got when bytes are missing.
#[derive(Debug)]
pub struct Scanner {
    at: usize,
    missing: u64,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { at: 0, missing: 1 }
    }
}

impl Scanner {
    /// The length of the reply at the start of `buf`, or `None` while bytes are missing; the next
    /// call must bring the same bytes and more.
    #[inline]
    pub fn step(&mut self, buf: &[u8]) -> Result<Option<usize>, ReplyError> {
        while self.missing > 0 {
            let Some((kind, line, next)) = line(buf, self.at)? else {
                return Ok(None);
            };
            self.missing -= 1;
            match kind {
                b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => self.at = next,
                b'$' | b'=' | b'!' => {
                    let len = length(line)?;
                    let end = match usize::try_from(len) {
                        Ok(len) => next.saturating_add(len).saturating_add(2),
                        Err(_) => next,
                    };
                    if buf.len() < end {
                        self.missing += 1;
                        return Ok(None);
                    }
                    if len >= 0 && buf[end - 2..end] != *b"\r\n" {
                        return Err(ReplyError::NoLineEnd);
                    }
                    self.at = end;
                }
                b'*' | b'~' | b'>' => {
                    self.expect(length(line)?, 1);
                    self.at = next;
                }
                b'%' => {
                    self.expect(length(line)?, 2);
                    self.at = next;
                }
                // An attribute is a map that precedes the reply proper.
                b'|' => {
                    self.expect(length(line)?, 2);
                    self.expect(1, 1);
                    self.at = next;
                }
                other => return Err(ReplyError::Kind(other)),
            }
        }
        let len = self.at;
        *self = Self::default();
        Ok(Some(len))
    }
}

/// Kind, content and end of a line.
type Line<'a> = (u8, &'a [u8], usize);

impl Scanner {
    /// So many replies of so many parts follow. A server that lies about it waits for ever.
    fn expect(&mut self, replies: i64, parts: u64) {
        let more = u64::try_from(replies).unwrap_or(0).saturating_mul(parts);
        self.missing = self.missing.saturating_add(more);
    }
}

/// The line at `at`, if it is complete.
#[inline]
fn line(buf: &[u8], at: usize) -> Result<Option<Line<'_>>, ReplyError> {
    let Some(&kind) = buf.get(at) else {
        return Ok(None);
    };
    let rest = &buf[at + 1..];
    match memchr::memchr(b'\r', &rest[..rest.len().min(MAX_LINE)]) {
        Some(end) if rest.len() > end + 1 => {
            if rest[end + 1] != b'\n' {
                return Err(ReplyError::NoLineEnd);
            }
            Ok(Some((kind, &rest[..end], at + 1 + end + 2)))
        }
        Some(_) => Ok(None),
        None if rest.len() >= MAX_LINE => Err(ReplyError::LineTooLong),
        None => Ok(None),
    }
}

/// A length; -1 stands for a null.
#[inline]
fn length(line: &[u8]) -> Result<i64, ReplyError> {
    match number(line)? {
        length if length < -1 => Err(ReplyError::Length),
        length => Ok(length),
    }
}

#[inline]
fn number(line: &[u8]) -> Result<i64, ReplyError> {
    let (negative, digits) = match line.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, line),
    };
    if digits.is_empty() || digits.len() > 18 {
        return Err(ReplyError::Length);
    }
    let mut value = 0_i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(ReplyError::Length);
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Ok(if negative { -value } else { value })
}

/// A reply that was read; strings are slices of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `_`, `$-1` or `*-1`.
    Null,
    /// A simple or bulk or verbatim string, a double or a big number as text.
    Text(&'a [u8]),
    /// An error with its prefix.
    Error(&'a [u8]),
    /// An integer, or a boolean as 0 or 1.
    Integer(i64),
    /// An array, a set or a push.
    List(Vec<Value<'a>>),
    /// A map.
    Map(Vec<(Value<'a>, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// Reads the complete reply in `buf`, as [`Scanner`] measured it.
    pub fn read(buf: &'a [u8]) -> Result<Self, ReplyError> {
        Self::read_at(buf, 0, 0).map(|(value, _)| value)
    }

    fn read_at(buf: &'a [u8], at: usize, depth: usize) -> Result<(Self, usize), ReplyError> {
        if depth > MAX_DEPTH {
            return Err(ReplyError::TooDeep);
        }
        let (kind, text, next) = line(buf, at)?.ok_or(ReplyError::Length)?;
        Ok(match kind {
            b'+' | b',' | b'(' => (Self::Text(text), next),
            b'-' => (Self::Error(text), next),
            b':' => (Self::Integer(number(text)?), next),
            b'#' => (Self::Integer(i64::from(text == b"t")), next),
            b'_' => (Self::Null, next),
            b'$' | b'=' | b'!' => match usize::try_from(number(text)?) {
                Err(_) => (Self::Null, next),
                Ok(len) => {
                    let bytes = buf
                        .get(next..next.saturating_add(len))
                        .ok_or(ReplyError::Length)?;
                    let value = match kind {
                        b'!' => Self::Error(bytes),
                        b'=' => Self::Text(bytes.get(4..).unwrap_or(bytes)),
                        _ => Self::Text(bytes),
                    };
                    (value, next + len + 2)
                }
            },
            b'*' | b'~' | b'>' => match number(text)? {
                len if len < 0 => (Self::Null, next),
                len => {
                    let mut items = Vec::new();
                    let mut at = next;
                    for _ in 0..len {
                        let (item, end) = Self::read_at(buf, at, depth + 1)?;
                        items.push(item);
                        at = end;
                    }
                    (Self::List(items), at)
                }
            },
            b'%' | b'|' => {
                let mut pairs = Vec::new();
                let mut at = next;
                for _ in 0..number(text)? {
                    let (key, end) = Self::read_at(buf, at, depth + 1)?;
                    let (value, end) = Self::read_at(buf, end, depth + 1)?;
                    pairs.push((key, value));
                    at = end;
                }
                if kind == b'|' {
                    return Self::read_at(buf, at, depth + 1);
                }
                (Self::Map(pairs), at)
            }
            other => return Err(ReplyError::Kind(other)),
        })
    }

    /// The text of a string reply.
    pub fn text(&self) -> Option<&'a [u8]> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of an array, set or push.
    pub fn list(&self) -> Option<&[Value<'a>]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The value of `key` in a map, or in the flat array that RESP2 has for it.
    pub fn field(&self, key: &[u8]) -> Option<&Value<'a>> {
        match self {
            Self::Map(pairs) => pairs
                .iter()
                .find(|(k, _)| k.text() == Some(key))
                .map(|(_, v)| v),
            Self::List(items) => items
                .chunks_exact(2)
                .find(|pair| pair[0].text() == Some(key))
                .map(|pair| &pair[1]),
            _ => None,
        }
    }
}

/// Whether this is an out-of-band push of RESP3.
#[inline]
pub fn is_push(frame: &[u8]) -> bool {
    frame.first() == Some(&b'>')
}

/// Whether this reply is an error.
#[inline]
pub fn is_error(frame: &[u8]) -> bool {
    matches!(frame.first(), Some(b'-' | b'!'))
}

/// Whether this reply is a null of either protocol version.
#[inline]
pub fn is_null(frame: &[u8]) -> bool {
    matches!(frame, b"$-1\r\n" | b"*-1\r\n" | b"_\r\n")
}

/// The number in an integer reply.
pub fn integer(frame: &[u8]) -> Option<i64> {
    match Value::read(frame) {
        Ok(Value::Integer(value)) => Some(value),
        _ => None,
    }
}

/// A null, as `proto` has it for a missing bulk string.
pub fn null(proto: Proto) -> &'static [u8] {
    match proto {
        Proto::Resp2 => b"$-1\r\n",
        Proto::Resp3 => b"_\r\n",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_end_of_every_kind_of_reply_is_found() {
        for frame in [
            "+OK\r\n",
            "-ERR no\r\n",
            ":12\r\n",
            "$3\r\nfoo\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
            "%1\r\n+a\r\n:1\r\n",
            "~1\r\n+a\r\n",
            ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
            "|1\r\n+ttl\r\n:1\r\n$1\r\nx\r\n",
            "=7\r\ntxt:abc\r\n",
            ",1.5\r\n",
            "#t\r\n",
            "(123456789012345678901234567890\r\n",
        ] {
            let wire = format!("{frame}+next\r\n");
            assert_eq!(
                Scanner::default().step(wire.as_bytes()),
                Ok(Some(frame.len())),
                "{frame}"
            );
            let mut scanner = Scanner::default();
            for end in 0..frame.len() {
                assert_eq!(
                    scanner.step(&frame.as_bytes()[..end]),
                    Ok(None),
                    "{frame} cut at {end}"
                );
            }
            assert_eq!(scanner.step(frame.as_bytes()), Ok(Some(frame.len())));
            Value::read(frame.as_bytes()).unwrap();
        }
    }

    #[test]
    fn a_server_that_lies_is_found_out() {
        assert_eq!(
            Scanner::default().step(b"HTTP/1.1 400\r\n"),
            Err(ReplyError::Kind(b'H'))
        );
        assert_eq!(
            Scanner::default().step(b"$abc\r\n"),
            Err(ReplyError::Length)
        );
        assert_eq!(
            Scanner::default().step(&vec![b'+'; MAX_LINE + 10]),
            Err(ReplyError::LineTooLong)
        );
        for cannot_be in ["$-7\r\n", "*-2\r\n", ">-3\r\n", "%-2\r\n"] {
            let answer = Scanner::default().step(cannot_be.as_bytes());
            assert_eq!(answer, Err(ReplyError::Length), "{cannot_be}");
        }
        for goes_on in ["$3\r\nabcde\r\n", "+OK\r+", ":1\rx"] {
            let answer = Scanner::default().step(goes_on.as_bytes());
            assert_eq!(answer, Err(ReplyError::NoLineEnd), "{goes_on}");
        }
        let deep = "*1\r\n".repeat(100) + ":1\r\n";
        assert_eq!(Value::read(deep.as_bytes()), Err(ReplyError::TooDeep));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// The fuzz target's property: no bytes from a server panic, and what is measured is there.
        #[test]
        fn no_reply_panics(bytes in prop::collection::vec(prop_oneof![
            prop::sample::select(b"+-:$*%~>|=,#(_\r\n0123-".to_vec()), any::<u8>()], 0..200)) {
            if let Ok(Some(len)) = Scanner::default().step(&bytes) {
                prop_assert!(len <= bytes.len());
                let _ = Value::read(&bytes[..len]);
            }
        }
    }
}
