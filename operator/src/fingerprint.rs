//! A short hash of a JSON value, the same in every run and version: for annotations that say
//! whether something changed.

use std::fmt::Write as _;

use ring::digest;
use serde::Serialize;

/// Sixteen hexadecimal digits.
pub fn of(value: &impl Serialize) -> String {
    // Keys of a JSON object are sorted, whatever order the value had.
    let value = serde_json::to_value(value).expect("what is compared is JSON");
    let digest = digest::digest(&digest::SHA256, value.to_string().as_bytes());
    hex(&digest.as_ref()[..8])
}

/// Two hexadecimal digits per byte.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
