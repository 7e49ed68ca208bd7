//! The configuration of one run: where it comes from, what is wrong with it, and its secrets.
//!
//! Exactly one source says what is served: `--config`, `--manifests`, or, with neither, a Redis
//! address alone (`redis`). Flags and their variables win over the file for what concerns this
//! process (`address`). `REDIS_…` variables fill only what a file leaves open, see `redis`.
//! [`load`] reads all of it and reports every problem, not the first; `reload` does so again
//! whenever one of the files changes. Rules and limits themselves are checked by the policy crate.

mod address;
mod env;
mod error;
mod files;
mod manifests;
mod redis;
mod reload;
mod secret;

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use policy::{Policy, SidecarConfig};

pub use self::{
    address::Listen,
    env::Env,
    error::{ConfigError, Problem},
    files::Source,
    reload::watch,
    secret::{Credentials, Secret},
};
use self::{error::Problems, files::Files};
use crate::{args::Args, command::Prefix, state::Active};

/// A configuration that can be served.
pub struct Loaded {
    /// Rules and settings.
    pub active: Active,
    /// What to bind, flags applied.
    pub listen: Listen,
    /// The files it was read from, to be watched.
    pub source: Source,
    /// What is legal but worth knowing, as sentences.
    pub notes: Vec<String>,
}

/// Reads the configuration that flags and environment name.
pub fn load(args: &Args, env: &Env) -> Result<Loaded, ConfigError> {
    let mut problems = Problems::default();
    let mut files = Files::default();
    let mut notes = Vec::new();
    let listen_flags = address::Flags::read(args, &mut problems);
    let given = redis::Given::read(args, env, &mut notes, &mut problems);
    let read = match (&args.config, &args.manifests) {
        (Some(_), Some(_)) => {
            problems.setting(
                "--manifests / PANNIER_MANIFESTS",
                None,
                "--config is given as well, and each says alone what is served",
                "give one of the two",
            );
            None
        }
        (Some(path), None) => file(path, given, &mut files, &mut notes, &mut problems),
        (None, Some(path)) => manifests::read(path, given, &mut files, &mut notes, &mut problems),
        (None, None) => {
            let mut read = Read::default();
            given.serve(&mut read, &mut notes, &mut problems);
            Some(read)
        }
    };
    let Some(mut read) = read else {
        return Err(problems.into_error());
    };
    read_secrets(&mut read, &mut files, &mut problems);
    let listen = listen_flags.apply(&mut read.config, &mut problems);
    address::refuse_loop(&read.config, &listen, &mut problems);
    let policy = match Policy::compile(&read.config) {
        Ok(policy) => policy,
        Err(errors) => {
            problems.push(Problem::Policy(errors));
            return Err(problems.into_error());
        }
    };
    if !problems.is_empty() {
        return Err(problems.into_error());
    }
    let reports = policy.reports().iter().map(ToString::to_string);
    notes.extend(reports);
    let prefix = Prefix::new(read.config.keyspace.prefix.as_bytes());
    let Read {
        config,
        credentials,
    } = read;
    Ok(Loaded {
        active: Active {
            config,
            policy,
            prefix,
            credentials,
        },
        listen,
        source: Source::new(args, env, &files),
        notes,
    })
}

/// `--check`: says what is worth knowing and exits with 0, or what is wrong and exits with 2.
pub fn check(args: &Args, env: &Env) -> ExitCode {
    let (text, code) = verdict(args, env);
    // Nobody is left to be told when the terminal is gone.
    let _ = if code == 0 {
        io::stdout().write_all(text.as_bytes())
    } else {
        io::stderr().write_all(text.as_bytes())
    };
    ExitCode::from(code)
}

fn verdict(args: &Args, env: &Env) -> (String, u8) {
    match load(args, env) {
        Ok(loaded) => {
            let rules = loaded.active.policy.rules().len();
            let mut text = String::new();
            for note in &loaded.notes {
                let _ = writeln!(text, "note: {note}");
            }
            let plural = if rules == 1 { "rule" } else { "rules" };
            let _ = writeln!(text, "the configuration can be served: {rules} {plural}");
            (text, 0)
        }
        Err(error) => (format!("{error}\n"), 2),
    }
}

/// What a source said, before flags and environment.
#[derive(Default)]
struct Read {
    config: SidecarConfig,
    credentials: Credentials,
}

fn file(
    path: &Path,
    given: redis::Given,
    files: &mut Files,
    notes: &mut Vec<String>,
    problems: &mut Problems,
) -> Option<Read> {
    let text = files.text(
        "--config / PANNIER_CONFIG",
        path,
        policy::read::MAX_CONFIG_LEN,
        problems,
    )?;
    match SidecarConfig::from_yaml(&text) {
        Ok(config) => {
            let mut read = Read {
                config,
                ..Read::default()
            };
            given.complete_file(&mut read, notes, problems);
            Some(read)
        }
        Err(source) => {
            problems.push(Problem::File {
                path: path.to_owned(),
                source,
            });
            None
        }
    }
}

/// Reads the files that the configuration names; what is already known stays.
fn read_secrets(read: &mut Read, files: &mut Files, problems: &mut Problems) {
    let Read {
        config,
        credentials,
    } = read;
    if let Some(upstream) = &config.upstream {
        if let Some(path) = &upstream.username_file {
            let name = files.secret("upstream.usernameFile", path.as_ref(), problems);
            credentials.username = name.map(|name| name.expose().to_owned());
        }
        if let Some(path) = &upstream.password_file {
            credentials.password = files.secret("upstream.passwordFile", path.as_ref(), problems);
        }
        if let Some(sentinel) = &upstream.sentinel {
            if let Some(path) = &sentinel.username_file {
                let place = "upstream.sentinel.usernameFile";
                let name = files.secret(place, path.as_ref(), problems);
                credentials.sentinel_username = name.map(|name| name.expose().to_owned());
            }
            if let Some(path) = &sentinel.password_file {
                let place = "upstream.sentinel.passwordFile";
                credentials.sentinel_password = files.secret(place, path.as_ref(), problems);
            }
        }
        if let Some(tls) = &upstream.tls {
            for (place, path, pem) in [
                (
                    "upstream.tls.caFile",
                    &tls.ca_file,
                    &mut credentials.ca_certificate,
                ),
                (
                    "upstream.tls.certFile",
                    &tls.cert_file,
                    &mut credentials.client_certificate,
                ),
                (
                    "upstream.tls.keyFile",
                    &tls.key_file,
                    &mut credentials.client_key,
                ),
            ] {
                if let Some(path) = path {
                    *pem = files.pem(place, path.as_ref(), problems);
                }
            }
        }
    }
    if let Some(path) = &config.sidecar.local_password_file {
        let place = "sidecar.localPasswordFile";
        credentials.local_password = files.secret(place, path.as_ref(), problems);
    }
}

#[cfg(test)]
mod tests;
