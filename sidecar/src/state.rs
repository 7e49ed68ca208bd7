//! What the event loops and the control thread share.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use policy::{Policy, SidecarConfig};

use crate::{
    client::Clients,
    command::{CommandTable, Prefix},
    config::Credentials,
    metrics::LoopCounters,
    store::Store,
    tier::Tier,
};

/// One per process.
pub struct Shared {
    active: ArcSwap<Active>,
    version: AtomicU64,
    /// The local tier.
    pub tier: Arc<Tier>,
    /// Memory mode and `LocalOnly` rules.
    pub store: Mutex<Store>,
    /// Subscriptions of memory mode.
    pub channels: Mutex<crate::engine::memory::Channels>,
    /// Built-in commands, merged with those of the server.
    pub commands: ArcSwap<CommandTable>,
    /// Connected apps.
    pub clients: Clients,
    /// Counters of each event loop.
    pub counters: Vec<Arc<LoopCounters>>,
    /// What is known about the Redis behind us.
    pub upstream: UpstreamState,
    /// Listeners are bound; cleared when draining begins.
    pub ready: AtomicBool,
    /// Draining: no new commands are accepted on new connections.
    pub draining: AtomicBool,
    /// Last configuration that was refused, for `/state`.
    pub reload: Mutex<ReloadState>,
}

/// A configuration in force.
pub struct Active {
    /// As it was read.
    pub config: SidecarConfig,
    /// Its rules, compiled.
    pub policy: Policy,
    /// Its key prefix, if it has one.
    pub prefix: Option<Prefix>,
    /// Secrets for Redis and for apps; never printed.
    pub credentials: Credentials,
}

/// How the last reload went.
#[derive(Clone, Debug, Default)]
pub struct ReloadState {
    /// Reloads that took effect.
    pub applied: u64,
    /// Reloads that were refused.
    pub refused: u64,
    /// Why the last one was refused; cleared by the next that takes effect.
    pub error: Option<String>,
    /// Fields that changed in the files and keep their old value until a restart.
    pub needs_restart: Vec<&'static str>,
}

/// What is known about the Redis behind us.
#[derive(Default)]
pub struct UpstreamState {
    facts: Mutex<UpstreamFacts>,
    /// Evicts by LRU or LFU: hot local keys must be touched there.
    pub evicts_by_use: AtomicBool,
    /// Has per-field expiry of hashes: hash entries are capped at `maxStaleness`.
    pub expires_fields: AtomicBool,
}

/// Facts for people.
#[derive(Clone, Debug, Default)]
pub struct UpstreamFacts {
    /// Whether the last connection attempt succeeded.
    pub connection: Connection,
    /// Whether the local tier is kept coherent, and if not, why.
    pub coherence: CoherenceState,
    /// `redis 7.0.15` or `valkey 8.1.1`; empty while unknown.
    pub server: String,
    /// Memory policy of the server; empty while unknown.
    pub maxmemory_policy: String,
}

/// Connection state in words (S1.11).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// Memory only; there is no Redis.
    #[default]
    None,
    /// The first attempt is under way.
    Connecting,
    /// Connected and ready.
    Ready,
    /// Away, and why.
    Unavailable(String),
}

/// Whether the local tier is kept coherent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CoherenceState {
    /// Nothing is kept locally on behalf of Redis (memory only, or not connected yet).
    #[default]
    Idle,
    /// Invalidations arrive.
    Tracking,
    /// Entries live until their TTL ends, as declared.
    TtlOnly,
    /// The local tier is off, and why.
    Degraded(String),
}

impl Shared {
    /// The shared state for `threads` event loops.
    pub fn new(active: Active, threads: usize) -> Arc<Self> {
        let memory = active.config.local.memory.0;
        let connection = match active.config.upstream {
            None => Connection::None,
            Some(_) => Connection::Connecting,
        };
        let upstream = UpstreamState::default();
        upstream.facts.lock().connection = connection;
        Arc::new(Self {
            tier: Arc::new(Tier::new(memory, threads)),
            store: Mutex::new(Store::new(memory)),
            channels: Mutex::default(),
            commands: ArcSwap::from_pointee(CommandTable::builtin()),
            clients: Clients::default(),
            counters: (0..threads).map(|_| Arc::default()).collect(),
            upstream,
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            reload: Mutex::default(),
            active: ArcSwap::from_pointee(active),
            version: AtomicU64::new(0),
        })
    }

    /// The configuration in force.
    pub fn active(&self) -> Arc<Active> {
        self.active.load_full()
    }

    /// Changes whenever the configuration does; cheaper to compare than to load.
    pub fn version(&self) -> u64 {
        self.version.load(Acquire)
    }

    /// Puts a new configuration in force. What was kept under the old rules is dropped.
    pub fn activate(&self, active: Active) {
        self.active.store(Arc::new(active));
        self.version.fetch_add(1, AcqRel);
        self.tier.flush();
    }

    /// Whether new work is refused because the process is about to end.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Begins the drain: not ready from now on.
    pub fn drain(&self) {
        self.ready.store(false, Release);
        self.draining.store(true, Release);
    }
}

impl UpstreamState {
    /// A copy of the facts.
    pub fn facts(&self) -> UpstreamFacts {
        self.facts.lock().clone()
    }

    /// Changes the facts; the answer is whether they are others now.
    pub fn update(&self, change: impl FnOnce(&mut UpstreamFacts)) -> UpstreamFacts {
        let mut facts = self.facts.lock();
        change(&mut facts);
        facts.clone()
    }
}
