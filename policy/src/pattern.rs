//! Key patterns: `analytics:ghosts:{guildId}:{since}`, `user:*`.
//!
//! A pattern and a key are both read in segments separated by `:`. This file parses one pattern
//! and says what it means; `matcher` does the same for all rules of a policy in one walk.
//! Keys are bytes and need not be UTF-8; patterns are text because people write them.

use std::fmt;

/// Longest pattern in bytes.
pub const MAX_PATTERN_LEN: usize = 512;
/// Most segments in one pattern.
pub const MAX_SEGMENTS: usize = 16;
/// Longest name of a capture.
pub const MAX_CAPTURE_NAME_LEN: usize = 63;

/// A parsed key pattern.
///
/// * A literal segment matches itself; it may be empty, as in `users::{id}`.
/// * `{name}` matches exactly one segment that is not empty.
/// * `*` as the last segment matches the rest of the key, one or more segments, never nothing.
/// * `\` before one of `{ } * ? [ ] \` takes that character literally.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Box<str>,
    segments: Box<[Segment]>,
}

/// One segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Matches these bytes and nothing else.
    Literal(Box<[u8]>),
    /// Matches one segment that is not empty, under this name.
    Capture(Box<str>),
    /// Matches all that is left, at least one byte; only ever the last segment.
    Rest,
}

/// Why a pattern was refused: the pattern, the place in it and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pattern `{pattern}`, character {position}: {problem}")]
pub struct PatternError {
    /// The pattern as it was written, shortened when it is very long.
    pub pattern: String,
    /// Where the problem is, counted in characters from 1.
    pub position: usize,
    /// What is wrong there.
    pub problem: PatternProblem,
}

/// What can be wrong in a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternProblem {
    /// Nothing to match.
    #[error("a pattern must not be empty; write `*` to match every key")]
    Empty,
    /// More than [`MAX_PATTERN_LEN`] bytes.
    #[error("it has {0} bytes, at most {MAX_PATTERN_LEN} are allowed; end it earlier with `:*`")]
    TooLong(usize),
    /// More than [`MAX_SEGMENTS`] segments.
    #[error("it has {0} segments, at most {MAX_SEGMENTS} are allowed; end it earlier with `:*`")]
    TooManySegments(usize),
    /// `user:` would match only the key `user:` itself.
    #[error("it ends with `:`; write `:*` to match everything below, or remove the `:`")]
    TrailingSeparator,
    /// `user:*:x` or `user*`.
    #[error(
        "`*` must be the whole last segment, as in `user:*`; name a segment in the middle, as in `{{id}}`, and write `\\*` for the character itself"
    )]
    MisplacedWildcard,
    /// `v{major}`.
    #[error(
        "a capture must be a whole segment, as in `user:{{id}}:name`; put a `:` between it and the text around it, or capture the whole segment"
    )]
    PartialCapture,
    /// `{id` without its end.
    #[error(
        "`{{` opens a capture that is never closed; add `}}`, or write `\\{{` for the character itself"
    )]
    UnclosedCapture,
    /// The name is empty, too long or holds other characters than letters, digits and `_`.
    #[error(
        "`{0}` is no name for a capture; use a letter followed by letters, digits and `_`, at most {MAX_CAPTURE_NAME_LEN} characters"
    )]
    CaptureName(String),
    /// The same name twice.
    #[error("the capture `{0}` is there twice; give each its own name")]
    DuplicateCapture(String),
    /// A character that means something elsewhere and nothing here.
    #[error("`{0}` has no meaning here; write `\\{0}` for the character itself")]
    Reserved(char),
    /// `\x`, or `\` at the end of a segment.
    #[error(
        "`\\` may only stand before one of `{{ }} * ? [ ] \\`; write `\\\\` for the character itself"
    )]
    BadEscape,
    /// Control characters never belong in a key that a person declares.
    #[error("control character {:?}; remove it", .0)]
    Control(char),
}

/// The captures of one key, in the order of the pattern: `(name, bytes of the key)`.
#[derive(Clone, Debug)]
pub struct Captures<'a> {
    segments: std::slice::Iter<'a, Segment>,
    parts: Parts<'a>,
}

// === impl Pattern ===

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let fail = |byte: usize, problem| Err(PatternError::new(text, byte, problem));
        if text.is_empty() {
            return fail(0, PatternProblem::Empty);
        }
        if text.len() > MAX_PATTERN_LEN {
            return fail(0, PatternProblem::TooLong(text.len()));
        }
        let count = text.split(':').count();
        if count > MAX_SEGMENTS {
            return fail(0, PatternProblem::TooManySegments(count));
        }
        let mut segments = Vec::with_capacity(count);
        let mut start = 0;
        for (index, part) in text.split(':').enumerate() {
            let last = index + 1 == count;
            if last && part.is_empty() {
                return fail(text.len() - 1, PatternProblem::TrailingSeparator);
            }
            let segment = parse_segment(part, last)
                .map_err(|(offset, problem)| PatternError::new(text, start + offset, problem))?;
            if let Segment::Capture(name) = &segment
                && segments.contains(&segment)
            {
                return fail(start, PatternProblem::DuplicateCapture(name.to_string()));
            }
            segments.push(segment);
            start += part.len() + 1;
        }
        Ok(Self {
            text: text.into(),
            segments: segments.into(),
        })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The parsed segments, never empty.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Names of the captures in the order of the pattern.
    pub fn capture_names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Capture(name) => Some(&**name),
            Segment::Literal(_) | Segment::Rest => None,
        })
    }

    /// Whether the key matches. This is the definition that the compiled matcher is tested against.
    pub fn matches(&self, key: &[u8]) -> bool {
        let mut parts = Parts(Some(key));
        for segment in &self.segments {
            if matches!(segment, Segment::Rest) {
                return parts.0.is_some_and(|rest| !rest.is_empty());
            }
            let Some(part) = parts.next() else {
                return false;
            };
            match segment {
                Segment::Literal(literal) if part != &**literal => return false,
                Segment::Capture(_) if part.is_empty() => return false,
                _ => {}
            }
        }
        parts.0.is_none()
    }

    /// What the captures hold in this key; `None` when the key does not match.
    pub fn captures<'a>(&'a self, key: &'a [u8]) -> Option<Captures<'a>> {
        self.matches(key).then(|| Captures {
            segments: self.segments.iter(),
            parts: Parts(Some(key)),
        })
    }

    /// A key that this pattern matches and that no other pattern matches unless it matches all
    /// keys of this one: captures hold `fresh`, which must be no literal of any pattern, and the
    /// wildcard holds `fresh:`, because only a wildcard matches an empty last segment.
    pub(crate) fn witness(&self, fresh: &str) -> Vec<u8> {
        let mut key = Vec::new();
        for (index, segment) in self.segments.iter().enumerate() {
            if index > 0 {
                key.push(b':');
            }
            match segment {
                Segment::Literal(literal) => key.extend_from_slice(literal),
                Segment::Capture(_) => key.extend_from_slice(fresh.as_bytes()),
                Segment::Rest => {
                    key.extend_from_slice(fresh.as_bytes());
                    key.push(b':');
                }
            }
        }
        key
    }

    /// A key that both patterns match, or `None` when there is none.
    pub fn common_key(&self, other: &Self) -> Option<Vec<u8>> {
        let mut key = Vec::new();
        for index in 0..self.segments.len().max(other.segments.len()) {
            let pair = (self.segments.get(index), other.segments.get(index));
            if index > 0 {
                key.push(b':');
            }
            match pair {
                (Some(Segment::Rest), Some(_)) => {
                    other.append_example(index, &mut key);
                    return Some(key);
                }
                (Some(_), Some(Segment::Rest)) => {
                    self.append_example(index, &mut key);
                    return Some(key);
                }
                (Some(Segment::Literal(a)), Some(Segment::Literal(b))) if a == b => {
                    key.extend_from_slice(a);
                }
                (Some(Segment::Literal(literal)), Some(Segment::Capture(_)))
                | (Some(Segment::Capture(_)), Some(Segment::Literal(literal)))
                    if !literal.is_empty() =>
                {
                    key.extend_from_slice(literal);
                }
                (Some(Segment::Capture(_)), Some(Segment::Capture(_))) => key.push(b'1'),
                _ => return None,
            }
        }
        Some(key)
    }

    fn append_example(&self, from: usize, key: &mut Vec<u8>) {
        for (index, segment) in self.segments.iter().enumerate().skip(from) {
            if index > from {
                key.push(b':');
            }
            match segment {
                Segment::Literal(literal) => key.extend_from_slice(literal),
                Segment::Capture(_) | Segment::Rest => key.push(b'1'),
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Characters that a pattern reserves; `?`, `[` and `]` so that nobody takes a pattern for a glob.
fn is_reserved(c: char) -> bool {
    matches!(c, '{' | '}' | '*' | '?' | '[' | ']' | '\\')
}

/// One segment; an error carries the byte offset within the segment.
fn parse_segment(part: &str, last: bool) -> Result<Segment, (usize, PatternProblem)> {
    if part == "*" && last {
        return Ok(Segment::Rest);
    }
    if let Some(inner) = part.strip_prefix('{') {
        return parse_capture(inner);
    }
    let mut literal = String::with_capacity(part.len());
    let mut chars = part.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, escaped)) if is_reserved(escaped) => literal.push(escaped),
                _ => return Err((at, PatternProblem::BadEscape)),
            },
            '*' => return Err((at, PatternProblem::MisplacedWildcard)),
            '{' => return Err((at, PatternProblem::PartialCapture)),
            c if is_reserved(c) => return Err((at, PatternProblem::Reserved(c))),
            c if c.is_control() => return Err((at, PatternProblem::Control(c))),
            c => literal.push(c),
        }
    }
    Ok(Segment::Literal(literal.into_bytes().into()))
}

/// What follows the `{` that opens a segment.
fn parse_capture(inner: &str) -> Result<Segment, (usize, PatternProblem)> {
    let Some(end) = inner.find('}') else {
        return Err((0, PatternProblem::UnclosedCapture));
    };
    let (name, after) = (&inner[..end], &inner[end + 1..]);
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.len() <= MAX_CAPTURE_NAME_LEN;
    if !named {
        let shown = name.chars().take(MAX_CAPTURE_NAME_LEN + 1).collect();
        return Err((1, PatternProblem::CaptureName(shown)));
    }
    if !after.is_empty() {
        return Err((end + 2, PatternProblem::PartialCapture));
    }
    Ok(Segment::Capture(name.into()))
}

// === impl PatternError ===

impl PatternError {
    fn new(text: &str, byte: usize, problem: PatternProblem) -> Self {
        let mut pattern: String = text.chars().take(MAX_PATTERN_LEN).collect();
        if pattern.len() < text.len() {
            pattern.push('…');
        }
        Self {
            pattern,
            position: text[..byte].chars().count() + 1,
            problem,
        }
    }
}

// === impl Captures ===

impl<'a> Iterator for Captures<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.segments.next()? {
                Segment::Literal(_) => {
                    self.parts.next();
                }
                Segment::Capture(name) => return Some((name, self.parts.next()?)),
                Segment::Rest => return None,
            }
        }
    }
}

/// The segments of a key; `None` inside means that all have been given out.
#[derive(Clone, Debug)]
struct Parts<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        if let Some(at) = rest.iter().position(|b| *b == b':') {
            self.0 = Some(&rest[at + 1..]);
            Some(&rest[..at])
        } else {
            self.0 = None;
            Some(rest)
        }
    }
}

#[cfg(test)]
mod tests;
