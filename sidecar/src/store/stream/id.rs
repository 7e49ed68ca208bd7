//! Ids of entries: milliseconds and a number within them.

use std::fmt;

use crate::store::fail::Fail;

/// Longer ones are invalid for redis-server too.
const LONGEST: usize = 127;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct Id {
    pub ms: u64,
    pub seq: u64,
}

impl Id {
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    pub const MAX: Self = Self {
        ms: u64::MAX,
        seq: u64::MAX,
    };

    pub fn next(self) -> Option<Self> {
        match (self.seq.checked_add(1), self.ms.checked_add(1)) {
            (Some(seq), _) => Some(Self { ms: self.ms, seq }),
            (None, Some(ms)) => Some(Self { ms, seq: 0 }),
            (None, None) => None,
        }
    }

    pub fn previous(self) -> Option<Self> {
        match (self.seq.checked_sub(1), self.ms.checked_sub(1)) {
            (Some(seq), _) => Some(Self { ms: self.ms, seq }),
            (None, Some(ms)) => Some(Self { ms, seq: u64::MAX }),
            (None, None) => None,
        }
    }

    /// `ms-seq`, or `ms` alone, which means `ms-<missing>`.
    pub fn parse(arg: &[u8], missing: u64) -> Result<Self, Fail> {
        match Wanted::parse(arg, missing)? {
            Wanted::Exactly(id) => Ok(id),
            Wanted::Within(_) => Err(INVALID),
        }
    }

    /// The same, and `-` and `+` for the first and the last that there can be.
    pub fn parse_end(arg: &[u8], missing: u64) -> Result<Self, Fail> {
        match arg {
            b"-" => Ok(Self::MIN),
            b"+" => Ok(Self::MAX),
            _ => Self::parse(arg, missing),
        }
    }
}

const INVALID: Fail = Fail::Other("Invalid stream ID specified as stream command argument");

/// The id that `XADD` is given.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    Exactly(Id),
    /// `ms-*`
    Within(u64),
}

impl Wanted {
    pub fn parse(arg: &[u8], missing: u64) -> Result<Self, Fail> {
        if arg.len() > LONGEST {
            return Err(INVALID);
        }
        let Some(at) = arg.iter().position(|b| *b == b'-') else {
            let ms = number(arg).ok_or(INVALID)?;
            return Ok(Self::Exactly(Id { ms, seq: missing }));
        };
        let ms = number(&arg[..at]).ok_or(INVALID)?;
        if &arg[at + 1..] == b"*" {
            return Ok(Self::Within(ms));
        }
        let seq = number(&arg[at + 1..]).ok_or(INVALID)?;
        Ok(Self::Exactly(Id { ms, seq }))
    }
}

/// As `strtoull` reads it: blanks and a plus may come first.
fn number(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii_start();
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let digits = all_digits
        .then(|| std::str::from_utf8(digits).ok())
        .flatten()?;
    digits.parse().ok()
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}
