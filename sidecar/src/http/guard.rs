//! Who may ask: programs of this pod, with the local password if there is one.

use hyper::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, HOST, HeaderValue, WWW_AUTHENTICATE},
};
use subtle::ConstantTimeEq as _;

use super::problem::{Problem, short};
use crate::config::Secret;

/// A web page can make a browser send requests to 127.0.0.1 under a name of its own (DNS
/// rebinding); the name in `Host` gives it away.
pub(super) fn check_host(headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    if ["localhost", "127.0.0.1", "::1"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
    {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        "this is not the host you asked for",
    )
    .detail(format!(
        "the Host header is {:?}; use localhost, 127.0.0.1 or [::1] in the URL",
        short(host)
    )))
}

pub(super) fn check_password(headers: &HeaderMap, wanted: Option<&Secret>) -> Result<(), Problem> {
    let Some(wanted) = wanted else { return Ok(()) };
    let given = headers
        .get(AUTHORIZATION)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    let given = match given.split_at_checked("Bearer ".len()) {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"bearer ") => given,
        _ => b"",
    };
    // Both sides in full, whatever the first difference; the length is no secret.
    if given.ct_eq(wanted.expose().as_bytes()).into() {
        return Ok(());
    }
    let title = "the local password is wrong or missing";
    Err(Problem::new(StatusCode::UNAUTHORIZED, title)
        .detail("send it as Authorization: Bearer <password>; it is in the file that sidecar.localPasswordFile names")
        .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_answered() {
        let checked = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_str(host).unwrap());
            check_host(&headers).is_ok()
        };
        for host in [
            "localhost:6380",
            "LOCALHOST",
            "127.0.0.1:1",
            "[::1]:6380",
            "[::1]",
        ] {
            assert!(checked(host), "{host}");
        }
        for host in [
            "evil.example:6380",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "10.0.0.1",
            "",
        ] {
            assert!(!checked(host), "{host}");
        }
        assert!(check_host(&HeaderMap::new()).is_err());
    }

    #[test]
    fn a_local_password_is_asked_for_in_full() {
        let wanted = Secret::new("pass word");
        let checked = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            check_password(&headers, Some(&wanted)).is_ok()
        };
        assert!(checked("Bearer pass word") && checked("bearer pass word"));
        for value in [
            "Bearer pass wor",
            "Bearer pass word ",
            "Bearer ",
            "Basic pass word",
            "pass word",
            "",
        ] {
            assert!(!checked(value), "{value:?}");
        }
        assert!(check_password(&HeaderMap::new(), None).is_ok());
        assert!(check_password(&HeaderMap::new(), Some(&wanted)).is_err());
    }
}
