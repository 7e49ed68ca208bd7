//! `redis://[user[:password]@]host[:port][/database]`, and `rediss://` for TLS; with Sentinels
//! `redis-sentinel://host[:port][,host…][/database]#name`, with a cluster
//! `redis-cluster://host[:port][,host…]`, both also as `rediss-…`.
//!
//! No message and no `Debug` output shows the user part: it holds the password.

use std::{fmt, str::FromStr};

use policy::config::{Sentinel, Tls, Upstream, UpstreamMode};

/// Where a Redis is and how to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// What the scheme says about how servers are found; plain `redis://` says nothing.
    pub mode: Option<UpstreamMode>,
    /// Host names or IP addresses, IPv6 without brackets, with their ports where they have one;
    /// at least one.
    pub hosts: Vec<(String, Option<u16>)>,
    /// The primary that Sentinels are asked for.
    pub master_name: Option<String>,
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
        "the URL of Redis must begin with redis:// or, for TLS, rediss://, for Sentinels with redis-sentinel:// and for a cluster with redis-cluster://; it begins with {0:?}"
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
    /// `redis://a,b`
    #[error(
        "the URL of Redis names several hosts; begin it with redis-sentinel:// or redis-cluster://, or name one host"
    )]
    SeveralHosts,
    /// `redis-sentinel://a`
    #[error(
        "the URL of Redis does not say which primary the Sentinels are asked for; end it with # and the name in their `sentinel monitor`, such as #mymaster"
    )]
    NoMasterName,
    /// Two names.
    #[error(
        "the URL of Redis and redis.external.sentinelMasterName name different primaries; give one of the two"
    )]
    MasterName,
    /// Two modes.
    #[error(
        "redis.external.mode is {declared:?} and the URL of Redis begins with the scheme of {url:?}; give one of the two"
    )]
    Mode {
        /// What the tier says.
        declared: UpstreamMode,
        /// What the URL says.
        url: UpstreamMode,
    },
}

/// What stands beside the URL, in a tier.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// How servers are found.
    pub mode: Option<UpstreamMode>,
    /// The primary that Sentinels are asked for.
    pub master_name: Option<&'a str>,
}

impl FromStr for RedisUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let (mode, tls, rest) = scheme_of(text)?;
        let (rest, master_name) = match rest.rsplit_once('#') {
            Some((rest, name)) if mode == Some(UpstreamMode::Sentinel) && !name.contains('@') => {
                (rest, Some(name.to_owned()).filter(|name| !name.is_empty()))
            }
            _ => (rest, None),
        };
        if rest.contains(['?', '#']) {
            return Err(UrlError::Parameters);
        }
        // A password may hold an @ or a / that nobody escaped: the last @ ends it.
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let (addresses, path) = rest.split_once('/').unwrap_or((rest, ""));
        let hosts = addresses
            .split(',')
            .map(host_and_port)
            .collect::<Result<_, _>>()?;
        let (username, password) = user.map_or(Ok((None, None)), log_in)?;
        let database = match path.trim_end_matches('/') {
            "" => None,
            number => match number.parse() {
                Ok(number) => Some(number),
                Err(_) => return Err(UrlError::Database),
            },
        };
        Ok(Self {
            mode,
            hosts,
            master_name,
            username,
            password,
            database,
            tls,
        })
    }
}

impl RedisUrl {
    /// One server at a fixed address, without login.
    pub fn at(host: &str, port: u16) -> Self {
        Self {
            mode: None,
            hosts: vec![(host.to_owned(), Some(port))],
            master_name: None,
            username: None,
            password: None,
            database: None,
            tls: false,
        }
    }

    /// The upstream of a configuration, without login: secrets are never in it.
    pub fn upstream(&self, beside: Beside<'_>) -> Result<Upstream, UrlError> {
        let mode = match (self.mode, beside.mode) {
            (Some(url), Some(declared)) if url != declared => {
                return Err(UrlError::Mode { declared, url });
            }
            (url, declared) => url.or(declared).unwrap_or_default(),
        };
        if mode == UpstreamMode::Standalone && self.hosts.len() > 1 {
            return Err(UrlError::SeveralHosts);
        }
        let usual = match mode {
            UpstreamMode::Sentinel => 26_379,
            UpstreamMode::Standalone | UpstreamMode::Cluster => 6379,
        };
        let mut hosts = self
            .hosts
            .iter()
            .map(|(host, port)| (host.clone(), port.unwrap_or(usual)));
        let (host, port) = hosts.next().ok_or(UrlError::Host)?;
        Ok(Upstream {
            mode,
            seeds: hosts.map(|(host, port)| seed(&host, port)).collect(),
            sentinel: self.sentinel(mode, beside.master_name)?,
            tls: self.tls.then(Tls::default),
            ..Upstream::at(host, port)
        })
    }

    fn sentinel(
        &self,
        mode: UpstreamMode,
        declared: Option<&str>,
    ) -> Result<Option<Sentinel>, UrlError> {
        if mode != UpstreamMode::Sentinel {
            return Ok(None);
        }
        let master_name = match (self.master_name.as_deref(), declared) {
            (Some(url), Some(declared)) if url != declared => return Err(UrlError::MasterName),
            (url, declared) => url.or(declared).ok_or(UrlError::NoMasterName)?,
        };
        Ok(Some(Sentinel {
            master_name: master_name.to_owned(),
            ..Sentinel::default()
        }))
    }
}

fn seed(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn scheme_of(text: &str) -> Result<(Option<UpstreamMode>, bool, &str), UrlError> {
    for (scheme, mode) in [
        ("://", None),
        ("-sentinel://", Some(UpstreamMode::Sentinel)),
        ("-cluster://", Some(UpstreamMode::Cluster)),
    ] {
        for (name, tls) in [("redis", false), ("rediss", true)] {
            let rest = text.strip_prefix(name);
            if let Some(rest) = rest.and_then(|rest| rest.strip_prefix(scheme)) {
                return Ok((mode, tls, rest));
            }
        }
    }
    Err(UrlError::Scheme(scheme(text)))
}

/// Only what stands before `://`: the rest may be a password.
fn scheme(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://"),
        None => String::new(),
    }
}

fn host_and_port(address: &str) -> Result<(String, Option<u16>), UrlError> {
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
        "" => None,
        text => match text.parse() {
            Ok(port) if port > 0 => Some(port),
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
            .field("mode", &self.mode)
            .field("hosts", &self.hosts)
            .field("master_name", &self.master_name)
            .field("database", &self.database)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> RedisUrl {
        text.parse().unwrap()
    }

    fn upstream(text: &str) -> Result<Upstream, UrlError> {
        read(text).upstream(Beside::default())
    }

    #[test]
    fn a_url_says_host_port_database_and_login_s1_9() {
        let url = read("redis://localhost");
        assert_eq!(url.hosts, [("localhost".to_owned(), None)]);
        assert!(!url.tls);
        assert_eq!(
            (url.username, url.password, url.database),
            (None, None, None)
        );
        assert_eq!(upstream("redis://localhost").unwrap().port, 6379);
        let url = read("rediss://app:s%40c%2Fret@[::1]:7000/3");
        assert_eq!(url.hosts, [("::1".to_owned(), Some(7000))]);
        assert!(url.tls);
        assert_eq!(url.username.as_deref(), Some("app"));
        assert_eq!(url.password.as_deref(), Some("s@c/ret"));
        assert_eq!(url.database, Some(3));
        let url = read("redis://:un@escaped/x@host/");
        assert_eq!(url.password.as_deref(), Some("un@escaped/x"));
        assert_eq!(url.hosts, [("host".to_owned(), None)]);
    }

    #[test]
    fn a_url_names_sentinels_or_nodes_of_a_cluster() {
        let url = "redis-sentinel://app:se#cret@a,b:5000,[::1]/2#mymaster";
        assert_eq!(url.parse::<RedisUrl>(), Err(UrlError::Parameters));
        let url = read("redis-sentinel://app:se%23cret@a,b:5000,[::1]/2#mymaster");
        assert_eq!(url.password.as_deref(), Some("se#cret"));
        assert_eq!(url.database, Some(2));
        let found = url.upstream(Beside::default()).unwrap();
        assert_eq!(found.mode, UpstreamMode::Sentinel);
        assert_eq!(found.sentinel.as_ref().unwrap().master_name, "mymaster");
        let addresses: Vec<_> = found.addresses().collect();
        assert_eq!(addresses, [("a", 26_379), ("b", 5000), ("::1", 26_379)]);
        assert!(found.tls.is_none());
        let found = upstream("rediss-cluster://a:7000,b").unwrap();
        assert_eq!(found.mode, UpstreamMode::Cluster);
        assert_eq!(found.seeds, ["b:6379"]);
        assert!(found.tls.is_some() && found.sentinel.is_none());
        assert!(upstream("rediss-sentinel://a#m").unwrap().tls.is_some());
    }

    #[test]
    fn what_stands_beside_a_url_completes_it_and_must_not_contradict_it() {
        let with =
            |text: &str, mode, master_name| read(text).upstream(Beside { mode, master_name });
        let sentinel = Some(UpstreamMode::Sentinel);
        let found = with("redis://a,b/1", sentinel, Some("m")).unwrap();
        assert_eq!(
            (found.port, found.seeds),
            (26_379, vec!["b:26379".to_owned()])
        );
        with("redis-sentinel://a#m", sentinel, Some("m")).unwrap();
        for (text, mode, name, says) in [
            ("redis://:hunter2@a,b", None, None, "names several hosts"),
            ("redis-sentinel://:hunter2@a", None, None, "which primary"),
            ("redis-sentinel://:hunter2@a#", None, None, "which primary"),
            ("redis://:hunter2@a", sentinel, None, "which primary"),
            (
                "redis-sentinel://:hunter2@a#m",
                sentinel,
                Some("n"),
                "different primaries",
            ),
            (
                "redis-cluster://:hunter2@a",
                sentinel,
                Some("n"),
                "mode is Sentinel and the URL",
            ),
        ] {
            let error = with(text, mode, name).unwrap_err().to_string();
            assert!(
                error.contains(says) && !error.contains("hunter2"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_bad_url_is_refused_and_its_password_never_shown_p10() {
        for (text, part) in [
            ("http://:hunter2@host", "begins with \"http://\""),
            (":hunter2@host", "begins with \"\""),
            ("redis://:hunter2@", "names no host"),
            ("redis-cluster://:hunter2@a,", "names no host"),
            ("redis://:hunter2@host:0", "port in the URL"),
            ("redis://:hunter2@host:99999", "port in the URL"),
            ("redis-cluster://:hunter2@a:1,b:x", "port in the URL"),
            ("redis://:hunter2@host/x", "database in the URL"),
            ("redis://:hunter2@host?timeout=3", "parameters"),
            ("redis-cluster://:hunter2@host#m", "parameters"),
            ("redis-sentinel://:hunter2@host?x#m", "parameters"),
            ("redis-sentinel://:#hunter2@host", "parameters"),
            ("redis://:hunter2%zz@host", "%25"),
            ("redis://hunter2@host", "no password"),
            ("redis://user:hunter2", "ends with @"),
            ("redis://user/hunter2", "database in the URL"),
        ] {
            let error = text.parse::<RedisUrl>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let shown = format!("{:?}", read("redis://user:hunter2@host"));
        assert!(
            shown.contains("host") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
