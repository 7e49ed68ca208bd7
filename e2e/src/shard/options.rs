//! How a shard is made.

use serde_json::{Value as Json, json};

use crate::Engine;

/// How to make it.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Which server.
    pub engine: Engine,
    /// Servers.
    pub servers: usize,
    /// Sentinels.
    pub sentinels: usize,
    /// Whether the data folders are kept, as volumes are.
    pub persistent: bool,
    /// Lines of `redis.conf`.
    pub config: Vec<(String, String)>,
    /// Further fields of the instance configuration.
    pub more: Json,
    /// Pods have names instead of addresses, in an `/etc/hosts` that only they see: addresses may
    /// change. Needs the right to mount.
    pub named: bool,
}

impl ShardOptions {
    /// Three servers and three Sentinels, nothing kept.
    pub fn of(engine: Engine) -> Self {
        Self {
            engine,
            servers: 3,
            sentinels: 3,
            persistent: false,
            config: vec![("save".to_owned(), String::new())],
            more: json!({}),
            named: false,
        }
    }

    /// One server.
    pub fn standalone(engine: Engine) -> Self {
        Self {
            servers: 1,
            sentinels: 0,
            ..Self::of(engine)
        }
    }

    /// With an append-only file on a volume that is kept.
    #[must_use]
    pub fn appending(self) -> Self {
        // Synced every second, the last two may be lost with the process.
        self.persistent()
            .with("appendonly", "yes")
            .with("appendfsync", "always")
    }

    /// With a volume that is kept.
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// With one more line of `redis.conf`.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.config.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With one more field of the instance configuration.
    #[must_use]
    pub fn field(mut self, name: &str, value: Json) -> Self {
        self.more[name] = value;
        self
    }
}
