//! What the parts of an agent share: who it is, what it knows, whether its pod is going away.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use super::{
    config::InstanceConfig,
    identity::Identity,
    link::Addresses,
    passwords::{Passwords, Secret, User},
    state::State,
};

/// Shared by all tasks of an agent.
pub struct Shared {
    /// What the operator says.
    pub config: InstanceConfig,
    /// Where it says so.
    pub config_path: PathBuf,
    /// Who this is.
    pub identity: Identity,
    /// Addresses of the others.
    pub addresses: Addresses,
    /// Something may have changed: look at once.
    pub look: Notify,
    /// A planned switch is under way: it alone freezes, thaws and changes the role.
    pub switching: AtomicBool,
    /// How often planned switches have set `min-replicas-to-write`: what was set before does not
    /// hold any longer.
    pub guards_set: AtomicU64,
    /// Held while the marker is written.
    pub marking: Mutex<()>,
    live: RwLock<InstanceConfig>,
    passwords: RwLock<Passwords>,
    /// What the operator logged in with before the Secret changed: servers that have not seen the
    /// change yet, this one included, still ask for it.
    former: RwLock<Option<Secret>>,
    state: Mutex<State>,
    answered: Mutex<Instant>,
    terminating: watch::Sender<bool>,
}

impl Shared {
    /// An agent that has just begun.
    pub fn new(
        config: InstanceConfig,
        config_path: PathBuf,
        identity: Identity,
        passwords: Passwords,
    ) -> Arc<Self> {
        let state = State::new(&config, &identity);
        Arc::new(Self {
            config_path,
            identity,
            addresses: Addresses::default(),
            look: Notify::new(),
            switching: AtomicBool::new(false),
            guards_set: AtomicU64::new(0),
            marking: Mutex::default(),
            live: RwLock::new(config.clone()),
            passwords: RwLock::new(passwords),
            former: RwLock::default(),
            state: Mutex::new(state),
            answered: Mutex::new(Instant::now()),
            terminating: watch::Sender::new(false),
            config,
        })
    }

    /// The passwords as they were last read.
    pub fn passwords(&self) -> Passwords {
        self.passwords.read().clone()
    }

    /// Takes new passwords.
    pub fn set_passwords(&self, passwords: Passwords) {
        let before = std::mem::replace(&mut *self.passwords.write(), passwords);
        *self.former.write() = before.of(User::Operator).current;
    }

    /// What the agent may try to log in with, most likely first.
    pub fn logins(&self) -> Vec<Secret> {
        let slots = self.passwords.read().of(User::Operator);
        let former = self.former.read().clone();
        slots
            .current
            .into_iter()
            .chain(slots.previous)
            .chain(former)
            .collect()
    }

    /// The configuration as it is mounted now; [`Self::config`] is what this process began with.
    pub fn live(&self) -> InstanceConfig {
        self.live.read().clone()
    }

    /// Takes a changed configuration.
    pub fn set_live(&self, config: InstanceConfig) {
        *self.live.write() = config;
    }

    /// A copy of the state.
    pub fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// Changes the state.
    pub fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock())
    }

    /// The server has answered, or there is a good reason why it does not.
    pub fn is_well(&self) {
        *self.answered.lock() = Instant::now();
    }

    /// Since when the server should answer and does not.
    pub fn silence(&self) -> Duration {
        self.answered.lock().elapsed()
    }

    /// The pod is going away.
    pub fn terminate(&self) {
        self.terminating.send_replace(true);
    }

    /// Whether the pod is going away.
    pub fn is_terminating(&self) -> bool {
        *self.terminating.borrow()
    }

    /// Waits until the pod is going away.
    pub async fn terminated(&self) {
        let mut receiver = self.terminating.subscribe();
        // The sender lives as long as `self`.
        let _ = receiver.wait_for(|is| *is).await;
    }
}
