//! Splits what an app sent into commands: arrays of bulk strings, and inline commands.
//!
//! Nothing is allocated for bytes that have not arrived: a frame that announces a gigabyte costs
//! a few bytes until it is there. Limits and error texts are those of `redis-server`
//! (`networking.c`, `processMultibulkBuffer` and `processInlineBuffer`).

use std::ops::Range;

/// Longest inline command and longest length line, as in Redis (`PROTO_INLINE_MAX_SIZE`).
const INLINE_MAX: usize = 64 * 1024;
/// Most arguments of one command, as in Redis.
const MAX_ARGS: i64 = 1024 * 1024;
/// The same two limits before a client has authenticated.
const UNAUTHENTICATED_MAX_ARGS: i64 = 10;
const UNAUTHENTICATED_MAX_BULK: usize = 16 * 1024;

/// What may come from one client.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest bulk string in bytes.
    pub max_bulk: usize,
    /// Most arguments.
    pub max_args: i64,
}

/// A frame that no Redis would accept; the connection is closed after the error was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// An inline command or a length line without end.
    #[error("ERR Protocol error: too big {0}")]
    TooBig(&'static str),
    /// `*` with a number that is none, or too large.
    #[error("ERR Protocol error: invalid multibulk length")]
    MultibulkLength,
    /// `$` with a number that is none, negative, or too large.
    #[error("ERR Protocol error: invalid bulk length")]
    BulkLength,
    /// Something else than `$` where an argument begins.
    #[error("ERR Protocol error: expected '$', got '{0}'")]
    ExpectedBulk(char),
    /// A quote without its partner in an inline command.
    #[error("ERR Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// Limits before `AUTH`.
    #[error("ERR Protocol error: unauthenticated {0} length")]
    Unauthenticated(&'static str),
    /// The whole command is larger than a client may send.
    #[error("ERR Protocol error: request larger than {0} bytes")]
    RequestTooLarge(usize),
}

/// The outcome of one step.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A command; its arguments are in [`Parser::args`], and it took so many bytes. It may have no
    /// arguments at all (an empty line, `*0`): nothing is answered then.
    Command(usize),
    /// Bytes are missing; at least so many must be there before it is worth trying again.
    Incomplete(usize),
}

/// Reads one command at a time and remembers how far it got, so that a command which arrives in
/// many pieces is not read from the start each time.
#[derive(Debug, Default)]
pub struct Parser {
    ranges: Vec<Range<usize>>,
    /// Arguments still to come; `None` before the header was read.
    missing: Option<usize>,
    at: usize,
    /// Arguments of an inline command, where quotes made them differ from the input.
    inline: Vec<Vec<u8>>,
}

// === impl Limits ===

impl Limits {
    /// Limits of an authenticated client.
    pub fn new(max_bulk: usize) -> Self {
        Self {
            max_bulk,
            max_args: MAX_ARGS,
        }
    }

    /// Limits of a client that has not said `AUTH` yet.
    pub fn unauthenticated() -> Self {
        Self {
            max_bulk: UNAUTHENTICATED_MAX_BULK,
            max_args: UNAUTHENTICATED_MAX_ARGS,
        }
    }

    /// Most bytes of one command, as Redis' `client-query-buffer-limit` (1 GiB by default).
    fn max_request(self) -> usize {
        self.max_bulk.saturating_mul(2).max(1 << 20)
    }

    fn is_unauthenticated(self) -> bool {
        self.max_args == UNAUTHENTICATED_MAX_ARGS
    }
}

// === impl Parser ===

impl Parser {
    /// Reads the command at the start of `buf`. After [`Step::Incomplete`] the next call must
    /// bring the same bytes and more.
    #[inline]
    pub fn step(&mut self, buf: &[u8], limits: Limits) -> Result<Step, ProtocolError> {
        if self.missing.is_none() {
            match buf.first() {
                None => return Ok(Step::Incomplete(1)),
                Some(b'*') => {}
                Some(_) => return self.inline(buf),
            }
            let Some((count, next)) = length_line(&buf[1..], "mbulk count string")? else {
                return Ok(Step::Incomplete(buf.len() + 1));
            };
            self.begin(count, 1 + next, limits)?;
        }
        self.arguments(buf, limits)
    }

    /// The arguments of the command that [`Step::Command`] announced; `buf` as it was then.
    #[inline]
    pub fn args<'b>(&'b self, buf: &'b [u8], out: &mut impl Extend<&'b [u8]>) {
        if self.inline.is_empty() {
            out.extend(self.ranges.iter().map(|range| &buf[range.clone()]));
        } else {
            out.extend(self.inline.iter().map(Vec::as_slice));
        }
    }

    /// Forgets the current command.
    #[inline]
    pub fn reset(&mut self) {
        self.ranges.clear();
        self.missing = None;
        self.at = 0;
        if !self.inline.is_empty() {
            self.inline.clear();
        }
    }

    fn begin(&mut self, count: i64, at: usize, limits: Limits) -> Result<(), ProtocolError> {
        if count > MAX_ARGS {
            return Err(ProtocolError::MultibulkLength);
        }
        if count > limits.max_args {
            return Err(ProtocolError::Unauthenticated("multibulk"));
        }
        self.missing = Some(usize::try_from(count).unwrap_or(0));
        self.at = at;
        Ok(())
    }

    #[inline]
    fn arguments(&mut self, buf: &[u8], limits: Limits) -> Result<Step, ProtocolError> {
        while let Some(missing @ 1..) = self.missing {
            match buf.get(self.at) {
                None => return Ok(Step::Incomplete(self.at + 1)),
                Some(b'$') => {}
                Some(other) => return Err(ProtocolError::ExpectedBulk(char::from(*other))),
            }
            let Some((len, next)) = length_line(&buf[self.at + 1..], "bulk count string")? else {
                return Ok(Step::Incomplete(buf.len() + 1));
            };
            let len = bulk_length(len, limits)?;
            let start = self.at + 1 + next;
            let end = start + len;
            if end > limits.max_request() {
                return Err(ProtocolError::RequestTooLarge(limits.max_request()));
            }
            if buf.len() < end + 2 {
                return Ok(Step::Incomplete(end + 2));
            }
            self.ranges.push(start..end);
            self.at = end + 2;
            self.missing = Some(missing - 1);
        }
        Ok(Step::Command(self.at))
    }

    #[cold]
    fn inline(&mut self, buf: &[u8]) -> Result<Step, ProtocolError> {
        let Some(end) = memchr::memchr(b'\n', &buf[..buf.len().min(INLINE_MAX + 1)]) else {
            return if buf.len() > INLINE_MAX {
                Err(ProtocolError::TooBig("inline request"))
            } else {
                Ok(Step::Incomplete(buf.len() + 1))
            };
        };
        let line = buf[..end].strip_suffix(b"\r").unwrap_or(&buf[..end]);
        self.inline = split_inline(line).ok_or(ProtocolError::UnbalancedQuotes)?;
        Ok(Step::Command(end + 1))
    }
}

fn bulk_length(len: i64, limits: Limits) -> Result<usize, ProtocolError> {
    let len = usize::try_from(len).map_err(|_| ProtocolError::BulkLength)?;
    if len > limits.max_bulk {
        return Err(if limits.is_unauthenticated() {
            ProtocolError::Unauthenticated("bulk")
        } else {
            ProtocolError::BulkLength
        });
    }
    Ok(len)
}

/// A number up to the end of its line, and where the next line begins.
#[inline]
fn length_line(buf: &[u8], what: &'static str) -> Result<Option<(i64, usize)>, ProtocolError> {
    // The common case: one to three digits. `memchr` would cost more than it saves.
    let mut value: i64 = 0;
    for (at, byte) in buf.iter().take(20).enumerate() {
        match byte {
            b'0'..=b'9' if at < 18 => value = value * 10 + i64::from(byte - b'0'),
            b'\r' if at > 0 => {
                return Ok(buf.get(at + 1).map(|_| (value, at + 2)));
            }
            _ => return slow_length_line(buf, what),
        }
    }
    slow_length_line(buf, what)
}

#[cold]
fn slow_length_line(buf: &[u8], what: &'static str) -> Result<Option<(i64, usize)>, ProtocolError> {
    let Some(end) = memchr::memchr(b'\r', &buf[..buf.len().min(INLINE_MAX)]) else {
        return if buf.len() >= INLINE_MAX {
            Err(ProtocolError::TooBig(what))
        } else {
            Ok(None)
        };
    };
    if buf.len() < end + 2 {
        return Ok(None);
    }
    let value = std::str::from_utf8(&buf[..end])
        .ok()
        .and_then(|text| text.parse().ok());
    match value {
        Some(value) => Ok(Some((value, end + 2))),
        None if what.starts_with("mbulk") => Err(ProtocolError::MultibulkLength),
        None => Err(ProtocolError::BulkLength),
    }
}

/// Words of an inline command with the quoting of `sdssplitargs`; `None` for unbalanced quotes.
fn split_inline(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(words);
        }
        let (word, after) = inline_word(rest)?;
        words.push(word);
        rest = after;
    }
}

fn inline_word(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' | b'\'' => {
                let (quoted, len) = inline_quoted(&text[at + 1..], byte)?;
                word.extend_from_slice(&quoted);
                at += 1 + len;
                // A closing quote must be followed by a blank or nothing.
                return match text.get(at) {
                    None => Some((word, &text[at..])),
                    Some(next) if next.is_ascii_whitespace() => Some((word, &text[at..])),
                    Some(_) => None,
                };
            }
            _ if byte.is_ascii_whitespace() || byte == 0 => break,
            _ => word.push(byte),
        }
        at += 1;
    }
    Some((word, &text[at.max(1).min(text.len())..]))
}

/// The text up to the closing quote and the number of bytes it took, that quote included.
fn inline_quoted(text: &[u8], quote: u8) -> Option<(Vec<u8>, usize)> {
    let mut out = Vec::new();
    let mut at = 0;
    loop {
        match (*text.get(at)?, text.get(at + 1)) {
            (byte, _) if byte == quote => return Some((out, at + 1)),
            (b'\\', Some(b'x')) if quote == b'"' && hex(text, at + 2).is_some() => {
                out.push(hex(text, at + 2)?);
                at += 4;
            }
            (b'\\', Some(&next)) if quote == b'"' => {
                out.push(match next {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => other,
                });
                at += 2;
            }
            (b'\\', Some(b'\'')) if quote == b'\'' => {
                out.push(b'\'');
                at += 2;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
}

fn hex(text: &[u8], at: usize) -> Option<u8> {
    let digits = std::str::from_utf8(text.get(at..at + 2)?).ok()?;
    u8::from_str_radix(digits, 16)
        .ok()
        .filter(|_| !digits.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The arguments and how many bytes they took.
    type Parsed = Option<(Vec<Vec<u8>>, usize)>;

    fn parse(bytes: &[u8]) -> Result<Parsed, ProtocolError> {
        let mut parser = Parser::default();
        Ok(match parser.step(bytes, Limits::new(512 << 20))? {
            Step::Incomplete(_) => None,
            Step::Command(len) => {
                let mut args = Vec::new();
                parser.args(bytes, &mut args);
                Some((args.iter().map(|arg| arg.to_vec()).collect(), len))
            }
        })
    }

    fn words(bytes: &[u8]) -> Vec<String> {
        let (args, _) = parse(bytes).unwrap().unwrap();
        args.into_iter()
            .map(|arg| String::from_utf8(arg).unwrap())
            .collect()
    }

    #[test]
    fn arrays_and_inline_commands_are_split_into_arguments() {
        assert_eq!(words(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), ["GET", "k"]);
        assert_eq!(words(b"SET  k 'a b'\r\n"), ["SET", "k", "a b"]);
        assert_eq!(words(b"SET k \"\\x41\\n\"\n"), ["SET", "k", "A\n"]);
        assert_eq!(words(b"\r\n"), [""; 0]);
        assert_eq!(words(b"*0\r\n"), [""; 0]);
        assert_eq!(words(b"*-5\r\n"), [""; 0]);
    }

    #[test]
    fn malformed_frames_get_the_errors_of_redis() {
        for (bytes, error) in [
            (
                b"*x\r\n".as_slice(),
                "ERR Protocol error: invalid multibulk length",
            ),
            (
                b"*2147483648\r\n",
                "ERR Protocol error: invalid multibulk length",
            ),
            (b"*1\r\n$-1\r\n", "ERR Protocol error: invalid bulk length"),
            (
                b"*1\r\n$999999999999\r\n",
                "ERR Protocol error: invalid bulk length",
            ),
            (b"*1\r\n:5\r\n", "ERR Protocol error: expected '$', got ':'"),
            (
                b"GET 'k\r\n",
                "ERR Protocol error: unbalanced quotes in request",
            ),
            (
                b"GET \"k\"x\r\n",
                "ERR Protocol error: unbalanced quotes in request",
            ),
        ] {
            assert_eq!(parse(bytes).unwrap_err().to_string(), error);
        }
        assert_eq!(
            parse(&vec![b'a'; INLINE_MAX + 1]),
            Err(ProtocolError::TooBig("inline request"))
        );
        let endless = [b"*1\r\n$".as_slice(), &vec![b'1'; INLINE_MAX]].concat();
        assert_eq!(
            parse(&endless),
            Err(ProtocolError::TooBig("bulk count string"))
        );
    }

    #[test]
    fn before_auth_frames_are_small() {
        let mut parser = Parser::default();
        let error = parser
            .step(b"*11\r\n", Limits::unauthenticated())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "ERR Protocol error: unauthenticated multibulk length"
        );
        parser.reset();
        let error = parser
            .step(b"*1\r\n$20000\r\n", Limits::unauthenticated())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "ERR Protocol error: unauthenticated bulk length"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Whatever the cuts, a command that arrives in pieces is the command that was sent.
        #[test]
        fn pieces_make_the_same_command(
            args in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut wire = Vec::new();
            let slices: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            crate::resp::write::command(&mut wire, &slices);
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
            ends.sort_unstable();
            let mut parser = Parser::default();
            for end in ends {
                match parser.step(&wire[..end], Limits::new(1 << 20)).unwrap() {
                    Step::Incomplete(need) => prop_assert!(need > end),
                    Step::Command(_) => prop_assert!(false, "complete too early"),
                }
            }
            prop_assert_eq!(parser.step(&wire, Limits::new(1 << 20)).unwrap(), Step::Command(wire.len()));
            let mut out = Vec::new();
            parser.args(&wire, &mut out);
            prop_assert_eq!(out, slices);
        }

        /// The fuzz target's property: no input panics, and progress is always made.
        #[test]
        fn no_input_panics(bytes in prop::collection::vec(prop_oneof![
            Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'"'), any::<u8>()], 0..200)) {
            let mut parser = Parser::default();
            if let Ok(Step::Command(len)) = parser.step(&bytes, Limits::new(100)) {
                prop_assert!(len > 0 && len <= bytes.len());
                let mut out = Vec::new();
                parser.args(&bytes, &mut out);
            }
        }
    }
}
