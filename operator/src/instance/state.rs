//! What an agent knows and says about itself: the JSON of `/state`, read by the operator and by
//! the agents of the other pods. No secret, no key, no value (P10).

use serde::{Deserialize, Serialize};

use super::config::Kind;

/// Everything in `/state`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// `namespace/name` of the tier.
    pub tier: String,
    /// UID of the tier as the configuration gives it.
    pub uid: String,
    /// Server or Sentinel.
    pub kind: Kind,
    /// Name of the pod.
    pub pod: String,
    /// The name by which the others know it.
    pub address: String,
    /// Version of the agent.
    pub version: String,
    /// How far it has come.
    pub phase: Phase,
    /// Whether `/ready` says yes; if not, why.
    pub ready: bool,
    /// Why not.
    pub not_ready: Option<String>,
    /// What the boot guard decided or is waiting for, in a sentence.
    pub guard: String,
    /// Whether the guard would wait no longer if a person said that what silent servers hold is lost.
    #[serde(default)]
    pub loss_would_help: bool,
    /// What is on the volume, and what this instance last was.
    pub past: Past,
    /// Data was there once and is gone: what happened, in a sentence.
    pub data_lost: Option<String>,
    /// What the server says; none while it does not answer.
    pub server: Option<Server>,
    /// What the Sentinels say.
    pub sentinels: Sentinels,
    /// Why the primary accepts no writes, if it does not.
    pub frozen: Option<String>,
    /// Hash of the instance configuration that the agent runs on.
    pub config_hash: String,
    /// Lines of the configuration that the server does not show as they were given; empty when all
    /// were verified.
    pub config_mismatches: Vec<String>,
    /// Whether the server was asked for its configuration.
    pub config_verified: bool,
    /// One short word for the passwords that the running server was seen to have; the operator makes
    /// the same of the tier's Secret.
    pub credential_generation: Option<String>,
    /// Why the credentials could not be brought up to date.
    pub credential_error: Option<String>,
    /// The last planned switch that this instance made.
    pub last_switchover: Option<String>,
    /// How many roles it has taken because Sentinels said so.
    pub followed: u64,
}

/// How far an instance has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// No server runs: the guard asks.
    Guarding,
    /// The process runs and does not answer yet.
    Starting,
    /// It has answered.
    Running,
    /// The pod is going away.
    Terminating,
}

/// A role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows.
    Replica,
}

/// What is known of an instance without its server.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own in a JSON that others read"
)]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Past {
    /// Whether it has ever run here: false means a new, empty volume.
    pub initialised: bool,
    /// Whether there is data to load that may be trusted.
    pub has_data: bool,
    /// Number of the failover it last knew.
    pub epoch: u64,
    /// How far it had come in the stream of writes.
    pub offset: i64,
    /// Which stream that was.
    pub replication_id: String,
    /// Whether it was the primary.
    pub was_primary: bool,
    /// Whether it ended in good order, everything saved.
    pub clean: bool,
    /// Whether it began as a replica without data and has not been in step since: what is on its
    /// volume is nothing that anyone wrote.
    #[serde(default)]
    pub unsynced: bool,
}

/// What a running server says about itself.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own in a JSON that others read"
)]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// What it is.
    pub role: Option<Role>,
    /// Version.
    pub version: String,
    /// Id of this run.
    pub run_id: String,
    /// Loading its data.
    pub loading: bool,
    /// Writing its append-only file anew: what is on the volume may be older than what it has.
    #[serde(default)]
    pub rewriting: bool,
    /// Whether it has been in step with its primary once since it started, or is one.
    pub synced: bool,
    /// Whom it follows.
    pub primary: Option<String>,
    /// Whether the link to its primary is up.
    pub link_up: bool,
    /// Seconds since it heard from its primary.
    pub link_silence: Option<i64>,
    /// Stream of writes it is part of.
    pub replication_id: String,
    /// Stream it was part of before.
    pub replication_id2: String,
    /// Its place in the stream.
    pub offset: i64,
    /// Those that follow it.
    pub replicas: Vec<Follower>,
    /// Memory that it uses.
    pub used_memory: u64,
    /// Its limit.
    pub max_memory: u64,
}

/// A replica as its primary sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Follower {
    /// Its name.
    pub address: String,
    /// Whether it follows the stream.
    pub online: bool,
    /// What it has confirmed.
    pub offset: i64,
    /// Seconds since it confirmed.
    pub lag: i64,
}

/// What the Sentinels say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sentinels {
    /// How many there should be.
    pub total: usize,
    /// How many answered.
    pub answering: usize,
    /// Whom they call the primary: the word of the one that knows the latest failover.
    pub primary: Option<String>,
    /// Number of that failover.
    pub epoch: u64,
}

impl State {
    /// What is true of an instance that has just begun.
    pub fn new(
        config: &super::config::InstanceConfig,
        identity: &super::identity::Identity,
    ) -> Self {
        Self {
            tier: config.tier.clone(),
            uid: config.uid.clone(),
            kind: config.kind,
            pod: identity.pod.clone(),
            address: identity.address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: Phase::Guarding,
            ready: false,
            not_ready: Some("the agent has just begun".to_owned()),
            guard: "it has just begun".to_owned(),
            loss_would_help: false,
            past: Past::default(),
            data_lost: None,
            server: None,
            sentinels: Sentinels {
                total: config.sentinels.len(),
                ..Sentinels::default()
            },
            frozen: None,
            config_hash: String::new(),
            config_mismatches: Vec::new(),
            config_verified: false,
            credential_generation: None,
            credential_error: None,
            last_switchover: None,
            followed: 0,
        }
    }

    /// Whether its server is a running primary that has passed the guard.
    pub fn is_primary(&self) -> bool {
        let role = self.server.as_ref().and_then(|server| server.role);
        self.phase == Phase::Running && role == Some(Role::Primary)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::instance::{config::tests::server, identity::Identity};

    /// Of an agent whose guard waits.
    pub fn state() -> State {
        let identity = Identity {
            pod: "s0".to_owned(),
            address: "s0".to_owned(),
            ordinal: 0,
            only: None,
        };
        State::new(&server(), &identity)
    }
}
