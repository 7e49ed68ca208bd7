//! The 80-bit floats of `INCRBYFLOAT` and `HINCRBYFLOAT` on x86-64.
//!
//! Redis computes them in `long double` and prints 17 digits after the point, so 0.1 + 0.2 is
//! 0.3 there; with 64-bit floats it would be 0.30000000000000004. Numbers with more than 27
//! digits after the point or beyond 2^128 are rounded to 64-bit floats first; what no
//! 64-bit float holds is refused as no float.

use std::cmp::Ordering;
use std::fmt::{self, Write};

/// Digits after the point that Redis prints.
const PRINTED: u32 = 17;
/// Powers of ten up to here leave room for one more bit in a `u128`.
const MAX_FRACTION: u32 = 27;

/// `mantissa * 2^exponent`; the mantissa has 64 significant bits unless it is 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LongDouble {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

impl LongDouble {
    pub const ZERO: Self = Self {
        negative: false,
        mantissa: 0,
        exponent: 0,
    };

    /// May be read, but is no result.
    const INFINITY: Self = Self {
        negative: false,
        mantissa: 1 << 63,
        exponent: i32::MAX,
    };

    /// What `strtold` reads from the whole text, hexadecimal numbers excepted.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (negative, digits) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if digits.eq_ignore_ascii_case("inf") || digits.eq_ignore_ascii_case("infinity") {
            return Some(Self {
                negative,
                ..Self::INFINITY
            });
        }
        let (number, exponent) = match digits.find(['e', 'E']) {
            Some(at) => (&digits[..at], digits[at + 1..].parse::<i32>().ok()?),
            None => (digits, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let all_digits = whole
            .bytes()
            .chain(fraction.bytes())
            .all(|b| b.is_ascii_digit());
        if !all_digits || whole.len() + fraction.len() == 0 {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        let places = i64::try_from(fraction.len()).ok()? - i64::from(exponent);
        Self::exact(negative, &format!("{whole}{fraction}"), places).or_else(|| Self::rough(text))
    }

    /// `digits / 10^places`, rounded once.
    fn exact(negative: bool, digits: &str, places: i64) -> Option<Self> {
        let mut number: u128 = digits.parse().ok()?;
        if number == 0 {
            return Some(Self {
                negative,
                ..Self::ZERO
            });
        }
        let divisor = 10_u128.pow(
            u32::try_from(places.max(0))
                .ok()
                .filter(|p| *p <= MAX_FRACTION)?,
        );
        if places < 0 {
            number = number.checked_mul(10_u128.checked_pow(u32::try_from(-places).ok()?)?)?;
        }
        let (mut quotient, mut rest) = (number / divisor, number % divisor);
        let mut exponent = 0;
        // Long division, bit by bit, until there are 64 bits and one to round by.
        while quotient >> 64 == 0 {
            rest *= 2;
            quotient = quotient * 2 + u128::from(rest >= divisor);
            rest %= divisor;
            exponent -= 1;
        }
        Some(Self::rounded(negative, quotient, rest != 0, exponent))
    }

    fn rough(text: &str) -> Option<Self> {
        let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
        let bits = value.to_bits();
        let (raw, fraction) = (
            i32::try_from(bits >> 52 & 0x7FF).ok()?,
            bits & ((1 << 52) - 1),
        );
        let mantissa = if raw == 0 {
            fraction
        } else {
            fraction | 1 << 52
        };
        Some(Self::rounded(
            value.is_sign_negative(),
            u128::from(mantissa),
            false,
            raw.max(1) - 1075,
        ))
    }

    /// Rounds to 64 significant bits, ties to even; `sticky` says that something follows.
    fn rounded(negative: bool, number: u128, sticky: bool, exponent: i32) -> Self {
        if number == 0 {
            return Self {
                negative,
                ..Self::ZERO
            };
        }
        let excess = 64 - i32::try_from(number.leading_zeros()).unwrap_or(0);
        if excess <= 0 {
            #[allow(
                clippy::cast_possible_truncation,
                reason = "the number has at most 64 bits"
            )]
            return Self {
                negative,
                mantissa: (number as u64) << -excess,
                exponent: exponent + excess,
            };
        }
        let half = 1_u128 << (excess - 1);
        let rest = number & (half * 2 - 1);
        let mut kept = number >> excess;
        let up = match rest.cmp(&half) {
            Ordering::Less => false,
            Ordering::Equal => sticky || kept & 1 == 1,
            Ordering::Greater => true,
        };
        kept += u128::from(up);
        let exponent = exponent + excess;
        match u64::try_from(kept) {
            Ok(mantissa) => Self {
                negative,
                mantissa,
                exponent,
            },
            Err(_) => Self {
                negative,
                mantissa: 1 << 63,
                exponent: exponent + 1,
            },
        }
    }

    pub fn is_infinite(self) -> bool {
        self.exponent == Self::INFINITY.exponent
    }

    /// The sum; nothing when it overflows.
    pub fn plus(self, other: Self) -> Option<Self> {
        if self.is_infinite() || other.is_infinite() {
            return None;
        }
        if self.mantissa == 0 {
            return Some(other);
        }
        if other.mantissa == 0 {
            return Some(self);
        }
        let (high, low) = if (self.exponent, self.mantissa) >= (other.exponent, other.mantissa) {
            (self, other)
        } else {
            (other, self)
        };
        // Three bits below the result are enough to round by; what is lost is kept as one bit.
        let wide = u128::from(high.mantissa) << 62;
        let apart = u32::try_from(high.exponent - low.exponent).ok()?;
        let full = u128::from(low.mantissa) << 62;
        let small = full.checked_shr(apart).unwrap_or(0);
        let lost = apart > 127 || small << apart != full;
        let (number, sticky) = if high.negative == low.negative {
            (wide + small, lost)
        } else {
            // With bits lost the true difference is a little below: borrow one.
            (wide - small - u128::from(lost), lost)
        };
        if number == 0 {
            return Some(Self::ZERO);
        }
        let sum = Self::rounded(high.negative, number, sticky, high.exponent - 62);
        (sum.exponent < 16384 - 63).then_some(sum)
    }
}

impl fmt::Display for LongDouble {
    /// As `%.17Lf` without trailing zeros.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.negative { "-" } else { "" };
        let scale = 10_u128.pow(PRINTED);
        if self.exponent >= 0 {
            return match u128::from(self.mantissa).checked_shl(self.exponent.unsigned_abs()) {
                Some(whole) if self.exponent <= 64 => write!(f, "{sign}{whole}"),
                _ => write!(
                    f,
                    "{sign}{}",
                    power_of_two_digits(self.mantissa, self.exponent.unsigned_abs())
                ),
            };
        }
        let shift = self.exponent.unsigned_abs();
        let product = u128::from(self.mantissa) * scale;
        let mut scaled = product.checked_shr(shift).unwrap_or(0);
        if shift < 128 {
            let rest = product & ((1 << shift) - 1);
            let half = 1 << (shift - 1);
            scaled += u128::from(rest > half || rest == half && scaled & 1 == 1);
        }
        let (whole, fraction) = (scaled / scale, scaled % scale);
        if fraction == 0 {
            // Redis prints a negative zero as 0 since 6.0, but rounding alone keeps the sign.
            let sign = if self.mantissa == 0 || whole == 0 {
                ""
            } else {
                sign
            };
            return write!(f, "{sign}{whole}");
        }
        let fraction = format!("{fraction:017}");
        write!(f, "{sign}{whole}.{}", fraction.trim_end_matches('0'))
    }
}

/// The decimal digits of `mantissa * 2^shift`, in steps of 32 bits.
fn power_of_two_digits(mantissa: u64, shift: u32) -> String {
    const CHUNK: u64 = 1_000_000_000;
    let mut chunks: Vec<u64> = vec![
        mantissa % CHUNK,
        mantissa / CHUNK % CHUNK,
        mantissa / CHUNK / CHUNK,
    ];
    for _ in 0..shift {
        let mut carry = 0;
        for chunk in &mut chunks {
            let doubled = *chunk * 2 + carry;
            *chunk = doubled % CHUNK;
            carry = doubled / CHUNK;
        }
        if carry > 0 {
            chunks.push(carry);
        }
    }
    let mut digits = String::new();
    for chunk in chunks.iter().rev() {
        write!(digits, "{chunk:09}").expect("a String takes everything");
    }
    digits.trim_start_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> String {
        let parse = |text: &str| LongDouble::parse(text.as_bytes()).unwrap();
        parse(a).plus(parse(b)).unwrap().to_string()
    }

    #[test]
    fn sums_print_as_redis_prints_them() {
        assert_eq!(sum("0.1", "0.2"), "0.3");
        assert_eq!(sum("10.50", "0.1"), "10.6");
        assert_eq!(sum("5.0e3", "2.0e2"), "5200");
        assert_eq!(sum("10.6", "-5"), "5.6");
        assert_eq!(sum("1", "-1"), "0");
        assert_eq!(sum("1e20", "1e-5"), "100000000000000000000");
        assert_eq!(sum("1e30", "0"), "1000000000000000000024696061952");
        assert_eq!(sum("-3", "0.25"), "-2.75");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "abc", "1 ", " 1", "1e", "nan", ".", "-", "1.2.3", "0x1"] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text}");
        }
    }
}
