//! The files that a server or a Sentinel is started with. Pure: texts in, texts out.
//!
//! They are written anew at each start, so that what Redis rewrote in between (`CONFIG REWRITE` by
//! a Sentinel) never outlives the process; a Sentinel's memory of the others is carried over.

mod sentinel;

use std::{fmt::Write as _, path::Path};

use super::{
    config::InstanceConfig,
    identity::Identity,
    passwords::{Passwords, User},
};

pub use sentinel::{Memory, sentinel_conf};

/// More replicas than a shard can have: with it in `min-replicas-to-write` no write is accepted.
pub const FROZEN: u32 = 10_000;

/// Name of the ACL file in the data folder.
pub const ACL_FILE: &str = "users.acl";

/// What the agent alone decides; a line of the tier's configuration with that name is left out.
pub const OWNED: &[&str] = &[
    "aclfile",
    "bind",
    "daemonize",
    "dir",
    "include",
    "logfile",
    "masterauth",
    "masteruser",
    "min-replicas-max-lag",
    "min-replicas-to-write",
    "min-slaves-max-lag",
    "min-slaves-to-write",
    "pidfile",
    "port",
    "primaryauth",
    "primaryuser",
    "protected-mode",
    "replica-announce-ip",
    "replica-announce-port",
    "replica-priority",
    "replicaof",
    "requirepass",
    "slave-announce-ip",
    "slave-announce-port",
    "slave-priority",
    "slaveof",
    "supervised",
    "syslog-enabled",
    "user",
];

/// What a server is started as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// As the primary. Where Sentinels watch it begins frozen: its agent thaws it when it has seen
    /// a majority of them, or all replicas.
    Primary,
    /// As a replica of the server with that address.
    Replica(String),
}

/// Replicas that must be in step for a write to be accepted, and the lag in seconds that counts as
/// in step: what the tier's configuration says, under the names that the agent owns.
pub fn wanted_guard(config: &InstanceConfig) -> (u32, u32) {
    let number = |name: &str| {
        config
            .config
            .get(name)
            .and_then(|text| text.trim().parse().ok())
    };
    let replicas = u32::try_from(config.servers.len().saturating_sub(1)).unwrap_or(0);
    let wanted = number("min-replicas-to-write").unwrap_or(u32::from(replicas >= 2));
    // Zero would switch the check off, and with it the freeze.
    let lag = number("min-replicas-max-lag").unwrap_or(0);
    (wanted, if lag == 0 { 5 } else { lag })
}

/// A value as the parser of `redis.conf` reads it back.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            other => {
                let _ = write!(out, "\\x{other:02x}");
            }
        }
    }
    out + "\""
}

/// Which address to listen on. A loopback address means several instances on one machine.
fn bind(identity: &Identity) -> String {
    match identity.only {
        Some(address) => format!("bind {address}"),
        None => "bind * -::*".to_owned(),
    }
}

/// The lines of the tier's configuration that a server takes as they are.
fn given(config: &InstanceConfig) -> impl Iterator<Item = String> {
    config
        .config
        .iter()
        .filter(|(name, value)| {
            let one_line = !name.contains(['\n', '\r', ' ']) && !value.contains(['\n', '\r']);
            one_line && !OWNED.contains(&name.to_ascii_lowercase().as_str())
        })
        .map(|(name, value)| match value.trim() {
            "" => format!("{name} \"\""),
            value => format!("{name} {value}"),
        })
}

/// What servers and Sentinels have in common: where they listen, where their files are.
fn process(config: &InstanceConfig, identity: &Identity) -> [String; 6] {
    let acl_file = Path::new(&config.data).join(ACL_FILE);
    [
        bind(identity),
        format!("port {}", config.port),
        "protected-mode no".to_owned(),
        "daemonize no".to_owned(),
        format!("dir {}", quoted(&config.data)),
        format!("aclfile {}", quoted(&acl_file.to_string_lossy())),
    ]
}

/// `redis.conf`, the same for Valkey.
pub fn server_conf(
    config: &InstanceConfig,
    identity: &Identity,
    passwords: &Passwords,
    start: &Start,
    priority: u32,
) -> String {
    let mut lines =
        vec!["# Written by Pannier's agent at each start; changes are lost.".to_owned()];
    lines.extend(process(config, identity));
    lines.extend(given(config));
    if !config.config.contains_key("repl-diskless-sync-delay") {
        // Waiting for more replicas to come is not worth five seconds of a shard's start.
        lines.push("repl-diskless-sync-delay 0".to_owned());
    }
    if !config.sentinels.is_empty() {
        let (wanted, lag) = wanted_guard(config);
        let wanted = if *start == Start::Primary {
            FROZEN
        } else {
            wanted
        };
        lines.extend([
            format!("replica-announce-ip {}", identity.address),
            format!("replica-announce-port {}", config.port),
            format!("replica-priority {priority}"),
            format!("min-replicas-to-write {wanted}"),
            format!("min-replicas-max-lag {lag}"),
        ]);
        if let Some(secret) = passwords.of(User::Replica).all().next() {
            lines.push(format!("masteruser {}", User::Replica.name()));
            lines.push(format!("masterauth {}", quoted(secret.expose())));
        }
    }
    if let Start::Replica(primary) = start {
        lines.push(format!("replicaof {primary} {}", config.server_port));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests;
