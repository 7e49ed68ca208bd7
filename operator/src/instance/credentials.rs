//! Keeps the users of the running server or Sentinel as the mounted Secret has them, without a
//! restart and without a client being dropped; then asks whether they are (P10: hashes only).

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use redis::Value;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    config::{InstanceConfig, Kind},
    link::{Link, LinkError, accepts, command, text},
    passwords::{Passwords, Secret, User},
    render::ACL_FILE,
    shared::Shared,
    state::Role,
    users::{self, Rules},
};

/// Between two looks at the files. The kubelet itself takes up to a minute.
const LOOK: Duration = Duration::from_secs(1);

/// Why the users are not as they should be.
#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error(transparent)]
    Passwords(#[from] super::passwords::PasswordError),
    #[error("failed to write the ACL file: {0}")]
    File(#[from] io::Error),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the server does not show the user {0} as it was set")]
    NotVerified(&'static str),
}

/// Rotates the credentials of one instance.
pub struct Credentials {
    shared: Arc<Shared>,
    own: Link,
    /// Rules that the server was seen to have.
    verified: Option<Vec<Rules>>,
    /// What the server or Sentinel logs in with: at the primary, or at the servers.
    upwards: Option<Secret>,
    /// What a Sentinel logs in with at other Sentinels.
    sideways: Option<Secret>,
}

/// Writes the ACL file for a start.
pub fn write_file(config: &InstanceConfig, passwords: &Passwords) -> io::Result<()> {
    let rules = users::rules(config.kind, config.open, passwords);
    private(
        &Path::new(&config.data).join(ACL_FILE),
        &users::file(&rules),
    )
}

/// Writes a file that only this user may read; a kill in between leaves the old one.
pub fn private(path: &Path, content: &str) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let _ = fs::remove_file(&partial);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(content.as_bytes())?;
    file.sync_data()?;
    fs::rename(&partial, path)
}

impl Credentials {
    /// Of an instance whose server was started with what `shared` knows.
    pub fn new(shared: &Arc<Shared>) -> Self {
        let passwords = shared.passwords();
        let first = |user| passwords.of(user).all().next().cloned();
        let up = match shared.config.kind {
            Kind::Server => User::Replica,
            Kind::Sentinel => User::Operator,
        };
        Self {
            own: Link::own(shared),
            verified: None,
            upwards: first(up),
            sideways: first(User::Replica),
            shared: Arc::clone(shared),
        }
    }

    /// Looks until it is dropped.
    pub async fn run(mut self) {
        let mut said = None;
        loop {
            let error = self.look().await.err().map(|error| error.to_string());
            if error != said {
                if let Some(error) = &error {
                    warn!(error, "the credentials are not up to date");
                }
                said.clone_from(&error);
            }
            self.shared.update(|state| state.credential_error = error);
            sleep(LOOK).await;
        }
    }

    async fn look(&mut self) -> Result<(), RotateError> {
        let passwords =
            Passwords::load(Path::new(&self.shared.config.auth), self.shared.config.open)?;
        let changed = passwords != self.shared.passwords();
        if changed {
            self.shared.set_passwords(passwords.clone());
        }
        let config = self.shared.live();
        let rules = users::rules(config.kind, config.open, &passwords);
        if self.verified.as_ref() != Some(&rules) {
            private(
                &Path::new(&config.data).join(ACL_FILE),
                &users::file(&rules),
            )?;
            for one in &rules {
                self.set(one).await?;
            }
            for one in &rules {
                self.verify(one).await?;
            }
            let generation = passwords.generation(config.open);
            info!(generation, "the server has the users of the tier's Secret");
            self.shared
                .update(|state| state.credential_generation = Some(generation));
            self.verified = Some(rules);
        }
        match config.kind {
            Kind::Server => self.log_in_at_primary(&passwords).await,
            Kind::Sentinel => self.log_in_as_sentinel(&config, &passwords).await,
        }
    }

    /// One user, at once and as a whole; its connections stay.
    async fn set(&mut self, rules: &Rules) -> Result<(), RotateError> {
        let head = ["ACL", "SETUSER", rules.user.name(), "reset"].map(str::to_owned);
        let words: Vec<String> = head
            .into_iter()
            .chain(rules.words.iter().cloned())
            .collect();
        self.own.ask(&command(&words)).await?;
        Ok(())
    }

    async fn verify(&mut self, rules: &Rules) -> Result<(), RotateError> {
        let name = rules.user.name();
        let shown = self.own.ask(&command(&["ACL", "GETUSER", name])).await?;
        let mut hashes = list(&shown, "passwords");
        let mut wanted: Vec<String> = rules
            .words
            .iter()
            .filter_map(|word| word.strip_prefix('#').map(str::to_owned))
            .collect();
        hashes.sort_unstable();
        wanted.sort_unstable();
        wanted.dedup();
        let flags = list(&shown, "flags");
        let has = |flag: &str| flags.iter().any(|one| one == flag);
        let wants = |word: &str| rules.words.iter().any(|one| one == word);
        let same = hashes == wanted && has("on") == wants("on") && has("nopass") == wants("nopass");
        same.then_some(()).ok_or(RotateError::NotVerified(name))
    }

    /// What a replica says to its primary. The Secret reaches pods at different times: the new
    /// password is used when the primary knows it, the previous one until then.
    async fn log_in_at_primary(&mut self, passwords: &Passwords) -> Result<(), RotateError> {
        if self.shared.config.sentinels.is_empty() {
            return Ok(());
        }
        let server = self.shared.state().server.unwrap_or_default();
        let slots = passwords.of(User::Replica);
        let settled = self.upwards == slots.current;
        if settled && (server.role == Some(Role::Primary) || server.link_up) {
            return Ok(());
        }
        let port = self.shared.config.server_port;
        let hosts: Vec<String> = server.primary.into_iter().collect();
        let Some(secret) = self.choose(&hosts, port, User::Replica, slots.all()).await else {
            return Ok(());
        };
        if self.upwards.as_ref() != Some(&secret) {
            let set = ["CONFIG", "SET", "masterauth", secret.expose()];
            self.own.ask(&command(&set)).await?;
            self.upwards = Some(secret);
        }
        Ok(())
    }

    /// What a Sentinel says to the servers and to its like.
    async fn log_in_as_sentinel(
        &mut self,
        config: &InstanceConfig,
        passwords: &Passwords,
    ) -> Result<(), RotateError> {
        let slots = passwords.of(User::Operator);
        if self.upwards != slots.current {
            let (hosts, port) = (&config.servers, config.server_port);
            let secret = self.choose(hosts, port, User::Operator, slots.all()).await;
            if let Some(secret) = secret.filter(|secret| self.upwards.as_ref() != Some(secret)) {
                let name = &config.master_name;
                let set = ["SENTINEL", "SET", name, "auth-pass", secret.expose()];
                self.own.ask(&command(&set)).await?;
                self.upwards = Some(secret);
            }
        }
        let slots = passwords.of(User::Replica);
        if self.sideways != slots.current {
            let others: Vec<String> = config
                .sentinels
                .iter()
                .filter(|host| **host != self.shared.identity.address)
                .cloned()
                .collect();
            let port = config.sentinel_port;
            let secret = self.choose(&others, port, User::Replica, slots.all()).await;
            if let Some(secret) = secret.filter(|secret| self.sideways.as_ref() != Some(secret)) {
                let set = [
                    "SENTINEL",
                    "CONFIG",
                    "SET",
                    "sentinel-pass",
                    secret.expose(),
                ];
                self.own.ask(&command(&set)).await?;
                self.sideways = Some(secret);
            }
        }
        Ok(())
    }

    /// The first password that none of those who answer refuses.
    async fn choose(
        &self,
        hosts: &[String],
        port: u16,
        user: User,
        secrets: impl Iterator<Item = &Secret>,
    ) -> Option<Secret> {
        for secret in secrets {
            let mut refused = false;
            for host in hosts {
                let Some(address) = self.shared.addresses.of(host, port).await else {
                    continue;
                };
                refused |= accepts(address, user, secret).await == Some(false);
            }
            if !refused {
                return Some(secret.clone());
            }
        }
        None
    }
}

/// A list within the reply to `ACL GETUSER`.
fn list(shown: &Value, name: &str) -> Vec<String> {
    let Value::Array(items) = shown else {
        return Vec::new();
    };
    let mut fields = items.chunks_exact(2);
    let found = fields.find(|pair| text(&pair[0]).as_deref() == Some(name));
    match found.map(|pair| &pair[1]) {
        Some(Value::Array(items)) => items.iter().filter_map(text).collect(),
        _ => Vec::new(),
    }
}
