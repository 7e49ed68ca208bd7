//! Paths of the API. Keys are any bytes, percent-encoded.

use std::borrow::Cow;

use hyper::StatusCode;

use super::problem::{Problem, short};

const CACHE: &str = "/v1/cache/";

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Path<'p> {
    /// `/v1/cache/{key}`
    Key(Cow<'p, [u8]>),
    /// `/v1/stats`
    Stats,
    /// `/v1/sidecars`
    Sidecars,
}

pub(super) fn parse(path: &str) -> Result<Path<'_>, Problem> {
    if path == "/v1/stats" {
        return Ok(Path::Stats);
    }
    if path == "/v1/sidecars" {
        return Ok(Path::Sidecars);
    }
    let Some(key) = path.strip_prefix(CACHE) else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "no such path").detail(format!(
            "{:?} is not known; there are /v1/cache/{{key}} (GET, PUT, DELETE), /v1/stats (GET) and /v1/sidecars (GET)",
            short(path)
        )));
    };
    if key.is_empty() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the key is empty")
            .detail("write it after /v1/cache/, for example /v1/cache/user:1"));
    }
    // A slash in a key may be written as it is: nothing follows the key.
    match decode(key) {
        Some(key) => Ok(Path::Key(key)),
        None => Err(
            Problem::new(StatusCode::BAD_REQUEST, "the key is not percent-encoded").detail(
                format!(
                    "{:?} has a % without two hexadecimal digits; write %25 for a %",
                    short(key)
                ),
            ),
        ),
    }
}

fn decode(text: &str) -> Option<Cow<'_, [u8]>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = tail else {
            return None;
        };
        bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
        rest = tail;
    }
    Some(Cow::Owned(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_any_bytes() {
        for (path, key) in [
            ("/v1/cache/user:1", &b"user:1"[..]),
            ("/v1/cache/a%20b%2Fc/d", b"a b/c/d"),
            ("/v1/cache/%00%ff%C3%A9", b"\x00\xff\xc3\xa9"),
            ("/v1/cache/%25", b"%"),
            ("/v1/cache/a+b", b"a+b"),
        ] {
            assert_eq!(parse(path).unwrap(), Path::Key(key.into()), "{path}");
        }
        assert_eq!(parse("/v1/stats").unwrap(), Path::Stats);
        assert_eq!(parse("/v1/sidecars").unwrap(), Path::Sidecars);
        for path in [
            "/v1/cache/%",
            "/v1/cache/%2",
            "/v1/cache/%zz",
            "/v1/cache/%+1",
        ] {
            assert!(parse(path).is_err(), "{path}");
        }
        for path in ["/v1/cache/", "/", "/v1", "/v1/cache", "/v1/stats/"] {
            assert!(parse(path).is_err(), "{path}");
        }
    }
}
