//! `sentinel.conf`: what the tier says, and what the Sentinel remembered when it last ran.

use super::{process, quoted};
use crate::instance::{
    config::InstanceConfig,
    identity::Identity,
    passwords::{Passwords, User, hex},
};
use ring::digest::{SHA256, digest};

/// What a Sentinel knows beyond its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The primary.
    pub primary: String,
    /// Number of the failover that made it the primary.
    pub config_epoch: u64,
    /// Highest number of an election that the Sentinel took part in: it votes once in each.
    pub current_epoch: u64,
    /// Number of the last election it voted in.
    pub leader_epoch: u64,
    /// `known-replica` and `known-sentinel` lines, as the Sentinel wrote them.
    pub known: Vec<String>,
}

impl Memory {
    /// Reads it from the file that the Sentinel rewrote while it ran; none, if that file does not
    /// name a primary for this shard.
    pub fn read(text: &str, master_name: &str) -> Option<Self> {
        let mut memory = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let ["sentinel", key, rest @ ..] = words.as_slice() else {
                continue;
            };
            if let ("current-epoch", [epoch]) = (*key, rest) {
                memory.current_epoch = epoch.parse().unwrap_or(0);
            }
            let Some((_, rest)) = rest.split_first().filter(|(name, _)| **name == master_name)
            else {
                continue;
            };
            match (*key, rest) {
                ("monitor", [host, ..]) => (*host).clone_into(&mut memory.primary),
                ("config-epoch", [epoch]) => memory.config_epoch = epoch.parse().unwrap_or(0),
                ("leader-epoch", [epoch]) => memory.leader_epoch = epoch.parse().unwrap_or(0),
                ("known-replica" | "known-slave" | "known-sentinel", [_, ..]) => {
                    memory.known.push(line.trim().to_owned());
                }
                _ => {}
            }
        }
        (!memory.primary.is_empty()).then_some(memory)
    }
}

/// A Sentinel's id, the same whenever its pod is made anew: with a random one the others would
/// count the lost Sentinel as a voter for ever.
fn id(config: &InstanceConfig, identity: &Identity) -> String {
    let seed = format!("{}/{}/{}", config.tier, config.uid, identity.pod);
    hex(&digest(&SHA256, seed.as_bytes()).as_ref()[..20])
}

/// `sentinel.conf`.
pub fn sentinel_conf(
    config: &InstanceConfig,
    identity: &Identity,
    passwords: &Passwords,
    memory: &Memory,
) -> String {
    let name = &config.master_name;
    let port = config.server_port;
    let mut lines =
        vec!["# Written by Pannier's agent at each start, then by the Sentinel.".to_owned()];
    lines.extend(process(config, identity));
    lines.extend([
        format!("sentinel myid {}", id(config, identity)),
        "sentinel deny-scripts-reconfig yes".to_owned(),
        "sentinel resolve-hostnames yes".to_owned(),
        "sentinel announce-hostnames yes".to_owned(),
        format!("sentinel announce-ip {}", identity.address),
        format!("sentinel announce-port {}", config.port),
        format!(
            "sentinel monitor {name} {} {port} {}",
            memory.primary, config.quorum
        ),
        format!(
            "sentinel down-after-milliseconds {name} {}",
            config.down_after_milliseconds
        ),
        format!(
            "sentinel failover-timeout {name} {}",
            config.failover_timeout_milliseconds
        ),
        format!("sentinel parallel-syncs {name} 1"),
    ]);
    if let Some(secret) = passwords.of(User::Operator).all().next() {
        lines.push(format!(
            "sentinel auth-user {name} {}",
            User::Operator.name()
        ));
        lines.push(format!(
            "sentinel auth-pass {name} {}",
            quoted(secret.expose())
        ));
    }
    if let Some(secret) = passwords.of(User::Replica).all().next() {
        lines.push(format!("sentinel sentinel-user {}", User::Replica.name()));
        lines.push(format!(
            "sentinel sentinel-pass {}",
            quoted(secret.expose())
        ));
    }
    lines.extend([
        format!("sentinel config-epoch {name} {}", memory.config_epoch),
        format!("sentinel leader-epoch {name} {}", memory.leader_epoch),
        format!("sentinel current-epoch {}", memory.current_epoch),
    ]);
    lines.extend(memory.known.iter().cloned());
    lines.join("\n") + "\n"
}
