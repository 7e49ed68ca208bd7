//! `redis://[user[:password]@]host[:port][/database]`, and `rediss://` for TLS.
//!
//! No message and no `Debug` output shows the user part: it holds the password.

use std::{fmt, str::FromStr};

/// Where a Redis is and how to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Host name or IP address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// ACL user; absent means the `default` user.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Logical database, where the URL names one.
    pub database: Option<u32>,
    /// `rediss://`.
    pub tls: bool,
}

/// Why a URL was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error(
        "the URL of Redis must begin with redis:// or, for TLS, rediss://; it begins with {0:?}"
    )]
    Scheme(String),
    /// No host.
    #[error("the URL of Redis names no host; write redis://host:6379")]
    Host,
    /// Not a port.
    // The text itself is not shown: where an @ is missing it is the password.
    #[error(
        "the port in the URL of Redis is not a number from 1 to 65535; a login before the host ends with @"
    )]
    Port,
    /// Not a database.
    #[error(
        "the database in the URL of Redis is not a number; write for example /0, and %2F for a / inside a password"
    )]
    Database,
    /// `?…` or `#…`.
    #[error(
        "the URL of Redis carries parameters after ? or #, which are not understood; remove them, and write %3F or %23 inside a password"
    )]
    Parameters,
    /// `%zz`.
    #[error(
        "the user or password in the URL of Redis has a % that is not followed by two hexadecimal digits; write %25 for a %"
    )]
    Escape,
    /// `user@`.
    #[error(
        "the URL of Redis names a user and no password; write user:password@, or :password@ for a password alone"
    )]
    NoPassword,
}

impl FromStr for RedisUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let (tls, rest) = if let Some(rest) = text.strip_prefix("redis://") {
            (false, rest)
        } else if let Some(rest) = text.strip_prefix("rediss://") {
            (true, rest)
        } else {
            return Err(UrlError::Scheme(scheme(text)));
        };
        if rest.contains(['?', '#']) {
            return Err(UrlError::Parameters);
        }
        // A password may hold an @ or a / that nobody escaped: the last @ ends it.
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = host_and_port(address)?;
        let (username, password) = user.map_or(Ok((None, None)), log_in)?;
        let database = match path.trim_end_matches('/') {
            "" => None,
            number => match number.parse() {
                Ok(number) => Some(number),
                Err(_) => return Err(UrlError::Database),
            },
        };
        Ok(Self {
            host,
            port,
            username,
            password,
            database,
            tls,
        })
    }
}

/// Only what stands before `://`: the rest may be a password.
fn scheme(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://"),
        None => String::new(),
    }
}

fn host_and_port(address: &str) -> Result<(String, u16), UrlError> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(UrlError::Host)?;
            (host, port.strip_prefix(':').unwrap_or(port))
        }
        None => address.split_once(':').unwrap_or((address, "")),
    };
    if host.is_empty() {
        return Err(UrlError::Host);
    }
    let port = match port {
        "" => 6379,
        text => match text.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(UrlError::Port),
        },
    };
    Ok((host.to_owned(), port))
}

type LogIn = (Option<String>, Option<String>);

fn log_in(user: &str) -> Result<LogIn, UrlError> {
    let (username, password) = user.split_once(':').ok_or(UrlError::NoPassword)?;
    let given = |text: String| (!text.is_empty()).then_some(text);
    let (username, password) = (given(decode(username)?), given(decode(password)?));
    if username.is_some() && password.is_none() {
        return Err(UrlError::NoPassword);
    }
    Ok((username, password))
}

fn decode(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = tail.get(..2).ok_or(UrlError::Escape)?;
            let digits = std::str::from_utf8(digits).map_err(|_| UrlError::Escape)?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| UrlError::Escape)?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Escape)
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisUrl")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("database", &self.database)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_host_port_database_and_login_s1_9() {
        let url: RedisUrl = "redis://localhost".parse().unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.tls),
            ("localhost", 6379, false)
        );
        assert_eq!(
            (url.username, url.password, url.database),
            (None, None, None)
        );
        let url: RedisUrl = "rediss://app:s%40c%2Fret@[::1]:7000/3".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port, url.tls), ("::1", 7000, true));
        assert_eq!(url.username.as_deref(), Some("app"));
        assert_eq!(url.password.as_deref(), Some("s@c/ret"));
        assert_eq!(url.database, Some(3));
        let url: RedisUrl = "redis://:un@escaped/x@host/".parse().unwrap();
        assert_eq!(url.password.as_deref(), Some("un@escaped/x"));
        assert_eq!(url.host, "host");
    }

    #[test]
    fn a_bad_url_is_refused_and_its_password_never_shown_p10() {
        for (text, part) in [
            ("http://:hunter2@host", "begins with \"http://\""),
            (":hunter2@host", "begins with \"\""),
            ("redis://:hunter2@", "names no host"),
            ("redis://:hunter2@host:0", "port in the URL"),
            ("redis://:hunter2@host:99999", "port in the URL"),
            ("redis://:hunter2@host/x", "database in the URL"),
            ("redis://:hunter2@host?timeout=3", "parameters"),
            ("redis://:hunter2%zz@host", "%25"),
            ("redis://hunter2@host", "no password"),
            ("redis://user:hunter2", "ends with @"),
            ("redis://user/hunter2", "database in the URL"),
        ] {
            let error = text.parse::<RedisUrl>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let url: RedisUrl = "redis://user:hunter2@host".parse().unwrap();
        let shown = format!("{url:?}");
        assert!(
            shown.contains("host") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
