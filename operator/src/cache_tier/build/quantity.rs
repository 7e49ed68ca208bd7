//! Quantities as the API server writes them back, so that an applied object compares equal.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use policy::ByteSize;

/// Bytes.
pub(crate) fn bytes(size: ByteSize) -> Quantity {
    let text = size.to_string();
    if !text.ends_with(|last: char| last.is_ascii_digit()) {
        return Quantity(text);
    }
    let units = [
        ("T", 1_000_000_000_000),
        ("G", 1_000_000_000),
        ("M", 1_000_000),
        ("k", 1000),
    ];
    let decimal = units
        .into_iter()
        .find(|(_, unit)| size.0 >= *unit && size.0.is_multiple_of(*unit));
    Quantity(match decimal {
        Some((letter, unit)) => format!("{}{letter}", size.0 / unit),
        None => text,
    })
}

/// Cores, as the schema allows them: `500m`, `2`, `0.5`.
pub(crate) fn cores(text: &str) -> Quantity {
    let milli = match text.strip_suffix('m') {
        // A fraction of a thousandth is rounded up, as the API server does.
        Some(milli) => thousandths(milli).map(|micro| micro.div_ceil(1000)),
        None => thousandths(text),
    };
    Quantity(match milli {
        Some(milli) if milli % 1000 == 0 => (milli / 1000).to_string(),
        Some(milli) => format!("{milli}m"),
        None => text.to_owned(),
    })
}

/// A decimal number times 1000, rounded up.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    let more = fraction.chars().skip(3).any(|digit| digit != '0');
    let whole: u64 = whole.parse().ok()?;
    whole
        .checked_mul(1000)?
        .checked_add(digits.parse().ok()?)?
        .checked_add(u64::from(more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_the_form_that_the_api_server_keeps() {
        for (size, text) in [
            (1 << 30, "1Gi"),
            (1536 << 20, "1536Mi"),
            (1_000_000_000, "1G"),
            (1500, "1500"),
            (3_000, "3k"),
        ] {
            assert_eq!(bytes(ByteSize(size)).0, text);
        }
        for (given, text) in [
            ("2", "2"),
            ("2.0", "2"),
            ("0.5", "500m"),
            ("1500m", "1500m"),
            ("2000m", "2"),
            ("0.0005", "1m"),
        ] {
            assert_eq!(cores(given).0, text, "{given}");
        }
    }
}
