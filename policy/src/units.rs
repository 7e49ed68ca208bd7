//! Durations and sizes as users write them: `250ms`, `5m`, `1h30m`, `64Mi`.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A span of time, written like Go and Kubernetes do: `250ms`, `30s`, `5m`, `1h30m`, `7d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// A number of bytes, written as a Kubernetes quantity: `512`, `64Ki`, `128Mi`, `2Gi`, `10M`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Why a duration or a size could not be read; the message names value and remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error(
        "{0:?} is not a duration; write a number with a unit, for example \"250ms\", \"30s\", \"5m\", \"1h30m\" or \"7d\""
    )]
    Span(String),
    /// Not a size.
    #[error(
        "{0:?} is not a size in bytes; write a whole number with an optional unit, for example \"512\", \"64Ki\", \"128Mi\" or \"2Gi\""
    )]
    ByteSize(String),
    /// More than the largest number.
    #[error("{0:?} is too large: more than {max} milliseconds or bytes; write less", max = u64::MAX)]
    TooLarge(String),
}

// === impl Span ===

impl Span {
    /// A span of whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// A span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

const SPAN_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bad = || UnitError::Span(text.to_owned());
        let large = || UnitError::TooLarge(text.to_owned());
        let mut rest = text;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            if digits == 0 {
                return Err(bad());
            }
            let number: u64 = rest[..digits].parse().map_err(|_| large())?;
            rest = &rest[digits..];
            let unit_len = rest
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(rest.len());
            let (_, millis) = SPAN_UNITS
                .iter()
                .find(|(unit, _)| *unit == &rest[..unit_len])
                .ok_or_else(bad)?;
            rest = &rest[unit_len..];
            total = number
                .checked_mul(*millis)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(large)?;
        }
        if text.is_empty() {
            Err(bad())
        } else {
            Ok(Self(Duration::from_millis(total)))
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in SPAN_UNITS.iter().rev() {
            if millis >= *size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

// === impl ByteSize ===

const SIZE_UNITS: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bad = || UnitError::ByteSize(text.to_owned());
        let large = || UnitError::TooLarge(text.to_owned());
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        if digits == 0 {
            return Err(bad());
        }
        let number: u64 = text[..digits].parse().map_err(|_| large())?;
        let factor = match &text[digits..] {
            "" => 1,
            unit => {
                SIZE_UNITS
                    .iter()
                    .find(|(name, _)| *name == unit)
                    .ok_or_else(bad)?
                    .1
            }
        };
        number.checked_mul(factor).map(Self).ok_or_else(large)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = SIZE_UNITS[..4].iter().rev();
        match binary
            .into_iter()
            .find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size))
        {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

// === serde and schema: both are strings on the wire ===

macro_rules! string_unit {
    ($type:ty, $name:literal, $pattern:literal, $max:literal) => {
        impl $type {
            /// How it is written, as a regular expression; how large it may be no pattern can tell.
            pub const PATTERN: &'static str = $pattern;
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": Self::PATTERN, "maxLength": $max })
            }
        }
    };
}

string_unit!(Span, "Duration", "^([0-9]+(ms|s|m|h|d))+$", 32);
string_unit!(ByteSize, "ByteSize", "^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?$", 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_as_users_do() {
        for (text, millis) in [
            ("250ms", 250),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("0s", 0),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0.as_millis(), millis);
            assert_eq!(span.to_string(), text);
        }
        let refused = |text: &str| text.parse::<Span>().unwrap_err().to_string();
        for text in ["", "5", "m", "5 m", "-5m", "1.5h", "5x"] {
            let message = refused(text);
            assert!(message.contains("is not a duration"), "{message}");
        }
        for text in ["99999999999999999999s", "18446744073709551615d"] {
            let message = refused(text);
            assert!(message.contains("is too large"), "{message}");
        }
    }

    #[test]
    fn sizes_are_read_and_written_as_kubernetes_quantities() {
        for (text, bytes) in [
            ("512", 512),
            ("64Ki", 65_536),
            ("128Mi", 134_217_728),
            ("2Gi", 2_147_483_648),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.0, bytes);
            assert_eq!(size.to_string(), text);
        }
        assert_eq!("10M".parse::<ByteSize>().unwrap().0, 10_000_000);
        let refused = |text: &str| text.parse::<ByteSize>().unwrap_err().to_string();
        for text in ["", "Mi", "-1", "1.5Gi", "1mi"] {
            let message = refused(text);
            assert!(message.contains("is not a size"), "{message}");
        }
        for text in ["99999999Ti", "99999999999999999999"] {
            let message = refused(text);
            assert!(message.contains("is too large"), "{message}");
        }
    }
}
