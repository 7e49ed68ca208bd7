//! What the event loops and the control thread share.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use policy::{
    Policy, SidecarConfig,
    config::{CacheMode, UpstreamMode, WhenUnavailable},
};

use crate::{
    client::Clients,
    clock::Tick,
    command::{CommandTable, Prefix},
    config::Credentials,
    metrics::{
        Counter, LoopCounters,
        rules::{RuleFigures, RuleTotals},
    },
    store::Store,
    tier::Tier,
    upstream::{
        health::Healths,
        offline::OfflineQueue,
        topology::{Address, Topologies, Topology},
    },
};

/// One per process.
pub struct Shared {
    active: ArcSwap<Active>,
    version: AtomicU64,
    /// The local tier.
    pub tier: Arc<Tier>,
    /// Memory mode.
    pub store: Mutex<Store>,
    /// Keys of `LocalOnly` rules, where there is a Redis for the others.
    pub local_only: Mutex<Store>,
    /// Subscriptions of memory mode.
    pub channels: Mutex<crate::engine::memory::Channels>,
    /// Clients that wait in memory mode.
    pub waiters: Mutex<crate::engine::memory::Waiters>,
    /// Built-in commands, merged with those of the server.
    pub commands: ArcSwap<CommandTable>,
    /// Connected apps.
    pub clients: Clients,
    /// Counters of each event loop.
    pub counters: Vec<Arc<LoopCounters>>,
    /// What rules counted under earlier policies.
    rule_totals: Mutex<RuleTotals>,
    /// When each event loop last went round, in milliseconds of [`Tick`].
    beats: Vec<AtomicU64>,
    /// Connections, counted by the thread that accepts.
    pub counters_of_listener: LoopCounters,
    /// What is known about the Redis behind us.
    pub upstream: UpstreamState,
    /// Which servers that are, and which of them owns a key.
    pub topology: Topologies,
    /// The other sidecars of the tier.
    pub presence: crate::presence::Presence,
    /// Which keys the local tier serves.
    pub serving: crate::measure::Serving,
    /// What was measured about coherence.
    pub measured: crate::measure::Measured,
    /// Listeners are bound; cleared when draining begins.
    pub ready: AtomicBool,
    /// Draining: no new commands are accepted on new connections.
    pub draining: AtomicBool,
    /// How the servers fare that links lead to.
    pub healths: Healths,
    /// What waits while Redis is away.
    pub offline: Arc<OfflineQueue>,
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
    /// A link came up: others need not wait any longer.
    pub is_back: tokio::sync::Notify,
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
    /// Its table of tracked keys.
    pub tracking_table: crate::control::tracking::TrackingTable,
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
    /// All changes under the prefixes of the rules are announced.
    Broadcast,
    /// Entries live until their TTL ends, as declared.
    TtlOnly,
    /// The local tier is off, and why.
    Degraded(String),
}

impl Active {
    /// A key as Redis has it: behind the prefix, if there is one.
    pub fn key_in_redis(&self, key: &[u8]) -> Vec<u8> {
        match &self.prefix {
            Some(prefix) => [prefix.raw(), key].concat(),
            None => key.to_vec(),
        }
    }
}

/// How `local.memory` is divided: one bound for everything that is kept (P9).
struct Budget {
    tier: u64,
    store: u64,
    local_only: u64,
}

impl Budget {
    /// Without Redis the store gets all. With it, memory mode and `LocalOnly` keys get a quarter
    /// each where they are declared, and the local tier the rest.
    fn of(config: &SidecarConfig) -> Self {
        let memory = config.local.memory.0;
        if config.upstream.is_none() {
            return Self {
                tier: 0,
                store: memory,
                local_only: 0,
            };
        }
        let quarter = |wanted: bool| if wanted { memory / 4 } else { 0 };
        let store = quarter(config.resilience.when_unavailable == WhenUnavailable::Memory);
        let local_only = quarter(
            config
                .rules
                .iter()
                .any(|rule| rule.cache == CacheMode::LocalOnly),
        );
        Self {
            tier: memory - store - local_only,
            store,
            local_only,
        }
    }
}

/// What is known without asking anybody.
fn first_topology(config: &SidecarConfig) -> Topology {
    match &config.upstream {
        None => Topology::unknown(),
        Some(upstream) => match upstream.mode {
            UpstreamMode::Standalone => {
                Topology::single(Address::new(upstream.host.as_str(), upstream.port))
            }
            UpstreamMode::Sentinel => Topology::unknown(),
            UpstreamMode::Cluster => Topology::unknown_cluster(),
        },
    }
}

impl Shared {
    /// The shared state for `threads` event loops.
    pub fn new(active: Active, threads: usize) -> Arc<Self> {
        let budget = Budget::of(&active.config);
        let connection = match active.config.upstream {
            None => Connection::None,
            Some(_) => Connection::Connecting,
        };
        let upstream = UpstreamState::default();
        upstream.facts.lock().connection = connection;
        Arc::new(Self {
            tier: Arc::new(Tier::new(budget.tier, threads)),
            store: Mutex::new(Store::new(budget.store)),
            local_only: Mutex::new(Store::new(budget.local_only)),
            channels: Mutex::default(),
            waiters: Mutex::default(),
            commands: ArcSwap::from_pointee(CommandTable::builtin()),
            clients: Clients::default(),
            counters: (0..threads).map(|_| Arc::default()).collect(),
            rule_totals: Mutex::default(),
            beats: (0..threads)
                .map(|_| AtomicU64::new(Tick::now().millis()))
                .collect(),
            counters_of_listener: LoopCounters::default(),
            upstream,
            topology: Topologies::new(first_topology(&active.config)),
            presence: crate::presence::Presence::default(),
            serving: crate::measure::Serving::new(&active.config.local),
            measured: crate::measure::Measured::default(),
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            healths: Healths::default(),
            offline: Arc::default(),
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
        let mut totals = self.rule_totals.lock();
        totals.change(&self.counters, &self.active.load().policy, &active.policy);
        let budget = Budget::of(&active.config);
        self.serving.reset(&active.config.local);
        self.active.store(Arc::new(active));
        drop(totals);
        self.version.fetch_add(1, AcqRel);
        self.tier.flush();
        self.tier.resize(budget.tier);
        self.store.lock().set_limit(budget.store);
        self.local_only.lock().set_limit(budget.local_only);
    }

    /// One counter over all loops and the thread that accepts.
    pub fn sum(&self, of: impl Fn(&LoopCounters) -> &Counter) -> u64 {
        let loops = self.counters.iter().map(AsRef::as_ref);
        loops
            .chain([&self.counters_of_listener])
            .map(|counters| of(counters).get())
            .sum()
    }

    /// What each rule in force has counted, in order.
    pub fn rule_figures(&self) -> Vec<(Arc<str>, RuleFigures)> {
        let totals = self.rule_totals.lock();
        totals.figures(&self.counters, &self.active.load().policy)
    }

    /// The event loop number `index` lives; to be said at least every few seconds.
    pub fn beat(&self, index: usize) {
        self.beats[index].store(Tick::now().millis(), Relaxed);
    }

    /// The event loops that have not been heard of for longer than `limit`.
    pub fn stuck_loops(&self, limit: Duration) -> Vec<usize> {
        let now = Tick::now().millis();
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let silent = |beat: &AtomicU64| now.saturating_sub(beat.load(Relaxed)) > limit;
        (0..self.beats.len())
            .filter(|index| silent(&self.beats[*index]))
            .collect()
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
