//! Which Redis flags and environment name.
//!
//! `--redis-url` and `PANNIER_REDIS_URL` are meant for the sidecar: they win over everything but a
//! configuration file, which says itself which Redis it is, so that both together are refused.
//! `REDIS_URL` and `REDIS_HOST` may be the app's: they count only where nothing else says which
//! Redis it is. `REDIS_USERNAME`, `REDIS_PASSWORD` and `REDIS_DB` fill what the address leaves
//! open, wherever it came from; `REDIS_PORT` and `REDIS_TLS` belong to `REDIS_HOST`, and
//! `REDIS_SENTINEL_PASSWORD` to Sentinels, which are never sent the password of Redis.

use std::fmt::Write as _;

use crds::{Beside, RedisUrl};
use policy::config::UpstreamMode;

use super::{Env, Read, Secret, error::Problems};
use crate::args::Args;

const FLAG: &str = "--redis-url";

/// What flags and environment say.
#[derive(Default)]
pub(super) struct Given {
    /// The server, if one is named.
    url: Option<RedisUrl>,
    /// The flag or variable that names it.
    place: &'static str,
    username: Option<String>,
    password: Option<String>,
    sentinel_password: Option<String>,
}

// === impl Given ===

impl Given {
    pub(super) fn read(
        args: &Args,
        env: &Env,
        notes: &mut Vec<String>,
        problems: &mut Problems,
    ) -> Self {
        let variable = |name: &'static str| Some((name, env.get(name)?));
        let url = args
            .redis_url
            .as_deref()
            .map(|text| (FLAG, text))
            .or_else(|| variable("PANNIER_REDIS_URL"))
            .or_else(|| variable("REDIS_URL"));
        let owned = |name| env.get(name).map(str::to_owned);
        let mut given = Self {
            username: owned("REDIS_USERNAME"),
            password: owned("REDIS_PASSWORD"),
            sentinel_password: owned("REDIS_SENTINEL_PASSWORD"),
            ..Self::default()
        };
        if let Some((place, text)) = url {
            given.place = place;
            given.url = parse(place, text, problems);
            if env.get("REDIS_HOST").is_some() {
                notes.push(format!(
                    "REDIS_HOST is not used: {place} says which Redis it is"
                ));
            }
        } else if let Some(host) = env.get("REDIS_HOST") {
            given.place = "REDIS_HOST";
            given.url = parts(host, env, notes, problems);
        }
        if let Some(url) = &mut given.url {
            url.database = url.database.or_else(|| database(env, problems));
        }
        given
    }

    /// Whether it was meant for the sidecar, and not perhaps for the app.
    fn is_aimed(&self) -> bool {
        matches!(self.place, FLAG | "PANNIER_REDIS_URL")
    }

    /// With no file at all: the server is the one given, or there is none.
    pub(super) fn serve(self, read: &mut Read, notes: &mut Vec<String>, problems: &mut Problems) {
        let Some(url) = &self.url else {
            if self.password.is_some() {
                notes.push(
                    "REDIS_PASSWORD is not used: neither REDIS_URL nor REDIS_HOST names a Redis"
                        .to_owned(),
                );
            }
            return;
        };
        read.config.keyspace.database = url.database.unwrap_or_default();
        match url.upstream(Beside::default()) {
            Ok(upstream) => read.config.upstream = Some(upstream),
            Err(error) => problems.setting(
                self.place,
                None,
                error.to_string(),
                "for example redis-sentinel://host:26379/0#mymaster",
            ),
        }
        read.credentials.username.clone_from(&url.username);
        read.credentials.password = url.password.clone().map(Secret::new);
        self.log_in(read);
    }

    /// With a configuration file, which says which Redis it is: only the login may be open.
    pub(super) fn complete_file(
        self,
        read: &mut Read,
        notes: &mut Vec<String>,
        problems: &mut Problems,
    ) {
        let place = self.place;
        if self.url.is_some() && self.is_aimed() {
            problems.setting(
                place,
                None,
                "--config is given as well, and the file says which Redis it is",
                "give one of the two; in the file it is upstream.host and upstream.port",
            );
        } else if self.url.is_some() {
            let what = match &read.config.upstream {
                Some(_) => "the configuration file says which Redis it is",
                None => "the configuration file names no upstream, so everything is in memory",
            };
            notes.push(format!("{place} is not used: {what}"));
        }
        self.log_in(read);
    }

    /// The URL for manifests whose tier asks for one: in place of the manifests' own if it was
    /// meant for the sidecar, else only where they have none.
    pub(super) fn for_manifests(&self) -> (Option<String>, Option<String>) {
        let text = self.url.as_ref().map(text);
        if self.is_aimed() {
            (text, None)
        } else {
            (None, text)
        }
    }

    /// The login from variables of its own, where the source left it open.
    pub(super) fn log_in(self, read: &mut Read) {
        let Some(upstream) = &read.config.upstream else {
            return;
        };
        let credentials = &mut read.credentials;
        if let Some(sentinel) = &upstream.sentinel
            && sentinel.password_file.is_none()
            && credentials.sentinel_password.is_none()
        {
            credentials.sentinel_password = self.sentinel_password.map(Secret::new);
        }
        if upstream.password_file.is_none() && credentials.password.is_none() {
            credentials.password = self.password.map(Secret::new);
            if upstream.username_file.is_none() && credentials.username.is_none() {
                credentials.username = self.username.filter(|_| credentials.password.is_some());
            }
        }
    }
}

fn parse(place: &'static str, text: &str, problems: &mut Problems) -> Option<RedisUrl> {
    let secret_on_command_line = |problems: &mut Problems| {
        problems.setting(
            place,
            None,
            "the URL holds a user or password, and every process of the node can read command lines",
            "put the URL into PANNIER_REDIS_URL or REDIS_URL, or the password into a file that upstream.passwordFile names",
        );
    };
    if ["unix:", "redis+unix:", "redis+socket:"]
        .iter()
        .any(|scheme| text.starts_with(scheme))
    {
        problems.setting(
            place,
            None,
            "a Redis behind a UNIX socket is not supported",
            "give its TCP address, redis://host:6379",
        );
        return None;
    }
    match text.parse::<RedisUrl>() {
        Ok(url) if place == FLAG && (url.password.is_some() || url.username.is_some()) => {
            secret_on_command_line(problems);
            None
        }
        Ok(url) => Some(url),
        Err(_) if place == FLAG && text.contains('@') => {
            secret_on_command_line(problems);
            None
        }
        Err(error) => {
            problems.setting(
                place,
                None,
                error.to_string(),
                "for example redis://host:6379/0",
            );
            None
        }
    }
}

/// `REDIS_HOST` and what belongs to it.
fn parts(
    host: &str,
    env: &Env,
    notes: &mut Vec<String>,
    problems: &mut Problems,
) -> Option<RedisUrl> {
    let place = "REDIS_HOST";
    if host.contains(['/', '@', ' ']) {
        let remedy = "write a host name or an IP address; a URL goes into REDIS_URL";
        problems.setting(place, None, "not a host name", remedy);
        return None;
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(RedisUrl {
        tls: switch("REDIS_TLS", env, problems)?,
        ..RedisUrl::at(host, port(env, notes, problems)?)
    })
}

fn port(env: &Env, notes: &mut Vec<String>, problems: &mut Problems) -> Option<u16> {
    const DEFAULT: u16 = 6379;
    let Some(text) = env.get("REDIS_PORT") else {
        return Some(DEFAULT);
    };
    // Kubernetes puts `REDIS_PORT=tcp://10.0.0.1:6379` into pods beside a Service called `redis`.
    if text.starts_with("tcp://") {
        notes.push(format!(
            "REDIS_PORT is not used: Kubernetes set it for a Service called redis; the port is {DEFAULT}"
        ));
        return Some(DEFAULT);
    }
    let port = text.parse().ok().filter(|port| *port != 0);
    if port.is_none() {
        problems.setting(
            "REDIS_PORT",
            Some(text),
            "not a port",
            "write a number from 1 to 65535",
        );
    }
    port
}

fn database(env: &Env, problems: &mut Problems) -> Option<u32> {
    let text = env.get("REDIS_DB")?;
    let number = text.parse().ok();
    if number.is_none() {
        problems.setting(
            "REDIS_DB",
            Some(text),
            "not a database",
            "write a number such as 0",
        );
    }
    number
}

fn switch(name: &'static str, env: &Env, problems: &mut Problems) -> Option<bool> {
    let Some(text) = env.get(name) else {
        return Some(false);
    };
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => {
            problems.setting(
                name,
                Some(text),
                "neither true nor false",
                "write true or false",
            );
            None
        }
    }
}

/// The URL as text, for whoever takes only that.
fn text(url: &RedisUrl) -> String {
    let mut text = String::from(if url.tls { "rediss" } else { "redis" });
    text.push_str(match url.mode {
        None | Some(UpstreamMode::Standalone) => "://",
        Some(UpstreamMode::Sentinel) => "-sentinel://",
        Some(UpstreamMode::Cluster) => "-cluster://",
    });
    if url.username.is_some() || url.password.is_some() {
        encode(url.username.as_deref().unwrap_or_default(), &mut text);
        text.push(':');
        encode(url.password.as_deref().unwrap_or_default(), &mut text);
        text.push('@');
    }
    for (index, (host, port)) in url.hosts.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        let _ = if host.contains(':') {
            write!(text, "[{host}]")
        } else {
            write!(text, "{host}")
        };
        if let Some(port) = port {
            let _ = write!(text, ":{port}");
        }
    }
    if let Some(database) = url.database {
        let _ = write!(text, "/{database}");
    }
    if let Some(name) = &url.master_name {
        let _ = write!(text, "#{name}");
    }
    text
}

fn encode(part: &str, out: &mut String) {
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_survives_being_written_and_read_again() {
        for given in [
            "redis://host:6379",
            "rediss://us%40er:p%2Fa%3Fs%23s%20%C3%A9@[::1]:7000/3",
            "redis://:only@h:1/0",
            "rediss-sentinel://:pw@a:1,[::1],b/3#my.master",
            "redis-cluster://a,b:2",
        ] {
            let url: RedisUrl = given.parse().unwrap();
            assert_eq!(text(&url).parse::<RedisUrl>().unwrap(), url);
        }
    }
}
