//! Scores as text: read as `strtod` reads them, written as redis-server 7.0 writes them.
//!
//! Hexadecimal numbers, which `strtod` knows too, are refused.

use crate::resp::{Proto, write::Reply};
use crate::store::fail::Fail;

/// A score, a weight or an increment.
pub(super) fn parse(arg: &[u8]) -> Result<f64, Fail> {
    let value = number(arg).ok_or(Fail::NotFloat)?;
    // What is too large or too small for a double is an error here.
    let overflowed = value.is_infinite() && !names_infinity(arg);
    let underflowed = value == 0.0 && has_digits(arg);
    if overflowed || underflowed {
        return Err(Fail::NotFloat);
    }
    Ok(value)
}

/// An end of a range: nothing at all is 0, leading blanks are skipped, too large is infinite.
pub(super) fn parse_bound(arg: &[u8]) -> Option<f64> {
    let blanks = arg
        .iter()
        .take_while(|b| b.is_ascii_whitespace() || **b == 0x0b)
        .count();
    match &arg[blanks..] {
        [] if blanks == 0 => Some(0.0),
        text => number(text),
    }
}

fn number(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!value.is_nan()).then_some(value)
}

fn names_infinity(text: &[u8]) -> bool {
    text.iter().any(|b| matches!(b, b'n' | b'N'))
}

fn has_digits(text: &[u8]) -> bool {
    text.iter()
        .take_while(|b| !matches!(b, b'e' | b'E'))
        .any(|b| matches!(b, b'1'..=b'9'))
}

/// The score as a reply: a double, or a bulk string in RESP2.
pub(super) fn write(score: f64, reply: &mut Reply<'_>) {
    let text = text(score);
    match reply.proto {
        Proto::Resp2 => reply.bulk(text.as_bytes()),
        Proto::Resp3 => {
            reply.out.push(b',');
            reply.out.extend_from_slice(text.as_bytes());
            reply.out.extend_from_slice(b"\r\n");
        }
    }
}

/// `printf("%.17g")`: the shortest form of 17 significant digits.
pub(in crate::store) fn text(score: f64) -> String {
    if score.is_infinite() {
        return if score > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{score:.16e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let digits = mantissa.replace('.', "");
    let digits = match digits.trim_end_matches('0') {
        "" => "0",
        some => some,
    };
    match usize::try_from(exponent) {
        Ok(whole) if whole < 17 => {
            let (whole, fraction) = digits.split_at(digits.len().min(whole + 1));
            let zeros = usize::try_from(exponent).unwrap_or(0) + 1 - whole.len();
            let zeros = "0".repeat(zeros);
            let point = if fraction.is_empty() { "" } else { "." };
            format!("{sign}{whole}{zeros}{point}{fraction}")
        }
        Err(_) if exponent >= -4 => {
            let zeros = "0".repeat(usize::try_from(-exponent - 1).unwrap_or(0));
            format!("{sign}0.{zeros}{digits}")
        }
        _ => {
            let (first, rest) = digits.split_at(1);
            let point = if rest.is_empty() { "" } else { "." };
            let direction = if exponent < 0 { '-' } else { '+' };
            format!(
                "{sign}{first}{point}{rest}e{direction}{:02}",
                exponent.abs()
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_written_with_seventeen_digits_as_printf_does() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (-12.5, "-12.5"),
            (0.1, "0.10000000000000001"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (1.5e300, "1.5000000000000001e+300"),
            (0.0001, "0.0001"),
            (0.000_012_5, "1.2500000000000001e-05"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (5e-324, "4.9406564584124654e-324"),
        ];
        for (score, wanted) in cases {
            assert_eq!(text(score), wanted);
        }
    }
}
