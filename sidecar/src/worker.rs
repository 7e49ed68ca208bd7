//! One event loop: what its connections, its engine and its links share without locks.

mod links;
mod route;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use policy::config::{Coherence, UpstreamMode, WhenUnavailable};

use crate::{
    client::{Client, parting::Parting, together::Together},
    clock::Tick,
    command::{CommandId, CommandTable, KeyPositions},
    engine::{flight::Flights, reply::Target},
    metrics::{Flush, LoopCounters},
    planted::{self, Bug},
    state::{Active, Shared},
    upstream::{
        Endpoint, Link, Lost, Server, Servers, Status, announce, convoy::Convoy, health::Health,
        tls::TlsSettings,
    },
};

/// Bytes read from one socket at a time.
const SCRATCH: usize = 64 * 1024;
/// Where invalidations are not to be had, they are asked for again after so long.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Keys that wait to be touched in Redis; more are hot enough to come again.
const TOUCHES: usize = 256;
/// Key of the proof; it never exists.
pub const PROOF_KEY: &[u8] = b"pannier:proof";

/// One event loop.
pub struct Worker {
    /// Shared with the other loops and the control thread.
    pub shared: Arc<Shared>,
    /// Counted by this loop only.
    pub counters: Arc<LoopCounters>,
    /// Number of the loop.
    pub index: usize,
    /// Reads of clients land here.
    pub scratch: RefCell<Box<[u8]>>,
    /// Reads of links land here.
    pub link_scratch: RefCell<Box<[u8]>>,
    /// Cacheable reads under way.
    pub flights: RefCell<Flights>,
    /// Commands that run at the end of this turn.
    pub together: Together,
    /// Replies that leave at the end of a turn.
    pub parting: Parting,
    /// Commands that leave together.
    pub convoy: Convoy,
    active: RefCell<(u64, Arc<Active>)>,
    commands: RefCell<Arc<CommandTable>>,
    endpoint: RefCell<Option<Rc<Endpoint>>>,
    has_upstream: bool,
    is_cluster: bool,
    asks_sentinels: bool,
    servers: Servers,
    dirty: RefCell<Vec<Rc<Client>>>,
    touches: RefCell<Vec<(u16, Box<[u8]>)>>,
    /// Bytes of refused commands that are sent again later.
    pub held: Cell<usize>,
    now: Cell<Tick>,
    random: Cell<u64>,
    /// Which hits are compared with Redis.
    pub sampler: crate::measure::Sampler,
    /// Measurements of staleness.
    pub probes: crate::measure::Probes,
    /// Samples of invalidations.
    pub unfounded: crate::measure::Unfounded,
    /// Key positions of the current command, to reuse the allocation.
    pub positions: Cell<KeyPositions>,
    /// Local hits of the current batch, to observe their duration once.
    batch_hits: Cell<(CommandId, u64)>,
}

impl Worker {
    /// The loop number `index`. Files that TLS needs are read now.
    pub fn new(
        shared: &Arc<Shared>,
        index: usize,
    ) -> Result<Rc<Self>, crate::upstream::tls::TlsError> {
        let active = shared.active();
        let upstream = active.config.upstream.as_ref();
        let mode = upstream.map_or(UpstreamMode::Standalone, |upstream| upstream.mode);
        let broadcast = announce::prefixes(&active, shared);
        let endpoint = endpoint(&active)?.map(|endpoint| {
            Rc::new(Endpoint {
                broadcast,
                ..endpoint
            })
        });
        Ok(Rc::new(Self {
            counters: Arc::clone(&shared.counters[index]),
            index,
            scratch: RefCell::new(vec![0; SCRATCH].into()),
            link_scratch: RefCell::new(vec![0; SCRATCH].into()),
            flights: RefCell::default(),
            together: Together::default(),
            parting: Parting::default(),
            convoy: Convoy::new(mode == UpstreamMode::Cluster),
            commands: RefCell::new(shared.commands.load_full()),
            is_cluster: mode == UpstreamMode::Cluster,
            asks_sentinels: mode == UpstreamMode::Sentinel,
            servers: Servers::new(shared.topology.current()),
            active: RefCell::new((shared.version(), active)),
            has_upstream: endpoint.is_some(),
            endpoint: RefCell::new(endpoint),
            dirty: RefCell::default(),
            touches: RefCell::default(),
            held: Cell::new(0),
            now: Cell::new(Tick::now()),
            random: Cell::new(seed(index)),
            sampler: crate::measure::Sampler::default(),
            probes: crate::measure::Probes::default(),
            unfounded: crate::measure::Unfounded::default(),
            positions: Cell::default(),
            batch_hits: Cell::new((CommandId::Other, 0)),
            shared: Arc::clone(shared),
        }))
    }

    /// The time at the start of the current batch.
    #[inline]
    pub fn now(&self) -> Tick {
        self.now.get()
    }

    /// Reads the clock, and the policy if it changed, once per batch.
    #[inline]
    pub fn refresh_now(&self) {
        self.now.set(Tick::now());
        let version = self.shared.version();
        if self.active.borrow().0 != version {
            self.reload(version);
        }
    }

    /// The configuration changed. Links that connect from now on log in with the new credentials.
    #[cold]
    fn reload(&self, version: u64) {
        self.counters.flushes[Flush::PolicyChange as usize].inc();
        let active = self.shared.active();
        let broadcast = announce::prefixes(&active, &self.shared);
        let old = self.endpoint.take();
        let renew = old.as_ref().is_some_and(|old| old.broadcast != broadcast);
        let new = match endpoint(&active) {
            Ok(new) => new,
            Err(error) => {
                tracing::error!(%error, "the old address and credentials of redis stay in use");
                None
            }
        };
        let new = new.or_else(|| old.as_deref().cloned());
        *self.endpoint.borrow_mut() = new.map(|endpoint| {
            Rc::new(Endpoint {
                broadcast,
                ..endpoint
            })
        });
        *self.active.borrow_mut() = (version, active);
        if renew {
            for set in self.servers.sets() {
                if let Some(link) = set.tracked_link() {
                    link.renew();
                }
            }
        }
        // Reads that this loop began under the old rules carry their numbers.
        self.shared.tier.flush();
    }

    /// The configuration in force.
    #[inline]
    pub fn active(&self) -> Arc<Active> {
        Arc::clone(&self.active.borrow().1)
    }

    /// The command table in force.
    #[inline]
    pub fn commands(&self) -> Arc<CommandTable> {
        Arc::clone(&self.commands.borrow())
    }

    /// A random number; not for secrets.
    pub fn random(&self) -> u32 {
        // xorshift64*
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// Unsent bytes above which a client is closed.
    pub fn output_limit(&self) -> usize {
        usize::try_from(self.active.borrow().1.config.sidecar.output_limit.0).unwrap_or(usize::MAX)
    }

    /// Age up to which local values may be served.
    pub fn max_staleness(&self) -> Duration {
        let times = if planted::is(Bug::Bound) { 8 } else { 1 };
        self.active.borrow().1.config.local.max_staleness.0 * times
    }

    /// Commands that take longer are logged; zero: none.
    pub fn slow_log_threshold(&self) -> Duration {
        self.active.borrow().1.config.slow_log_threshold.0
    }

    /// Whether memory answers while Redis is away.
    pub fn memory_when_unavailable(&self) -> bool {
        self.active.borrow().1.config.resilience.when_unavailable == WhenUnavailable::Memory
    }

    /// The bounds of the offline queue, where one is declared; memory mode answers instead.
    pub fn offline_queue(&self) -> Option<policy::config::OfflineQueue> {
        let resilience = self.active.borrow().1.config.resilience;
        let errors = resilience.when_unavailable == WhenUnavailable::Error;
        resilience.offline_queue.filter(|_| errors)
    }

    /// Whether fields of hashes may expire on their own in Redis.
    pub fn expires_fields(&self) -> bool {
        self.shared
            .upstream
            .expires_fields
            .load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The version that clients see: the server's, or that of the commands of memory mode.
    pub fn server_version(&self) -> String {
        let facts = self.shared.upstream.facts();
        facts
            .server
            .split_whitespace()
            .nth(1)
            .unwrap_or("7.0.15")
            .to_owned()
    }

    // === upstream ===

    /// Where Redis is. Only links ask, and there are none without one.
    pub fn endpoint(&self) -> Rc<Endpoint> {
        let endpoint = self.endpoint.borrow();
        Rc::clone(
            endpoint
                .as_ref()
                .expect("links are only opened with an upstream"),
        )
    }

    /// Where that server is now; behind Sentinels only the topology says.
    pub fn locate(&self, server: &Server) -> Result<Rc<Endpoint>, Lost> {
        if !self.asks_sentinels {
            return Ok(self.endpoint_of(server));
        }
        if let Some(primary) = self.servers.topology().sole_primary() {
            return Ok(Rc::new(self.endpoint().at(primary)));
        }
        let why = self.shared.topology.facts().failure;
        let why = why.unwrap_or_else(|| "the Sentinels have not answered yet".to_owned());
        Err(Lost::Unavailable(
            format!("no primary is known: {why}").into(),
        ))
    }

    /// The address of that server, for logs.
    pub fn address_of(&self, server: &Server) -> String {
        match self.locate(server) {
            Ok(endpoint) => endpoint.address(),
            Err(_) => "the primary".to_owned(),
        }
    }

    /// Where that server is, without Sentinels.
    fn endpoint_of(&self, server: &Server) -> Rc<Endpoint> {
        let endpoint = self.endpoint();
        match &server.address {
            Some(address) if *address.host != *endpoint.host || address.port != endpoint.port => {
                Rc::new(endpoint.at(address))
            }
            _ => endpoint,
        }
    }

    /// How a server fares.
    pub fn health_of(&self, server: &Server) -> Arc<Health> {
        let address = self.endpoint_of(server).address();
        self.shared.healths.get(&address)
    }

    /// Whether there is a Redis at all.
    pub fn has_upstream(&self) -> bool {
        self.has_upstream
    }

    /// The database in which clients begin.
    pub fn default_db(&self) -> u16 {
        u16::try_from(self.active.borrow().1.config.keyspace.database).unwrap_or(0)
    }

    /// Whether clients begin in that database.
    pub fn is_default(&self, db: u16) -> bool {
        self.active.borrow().1.config.keyspace.database == u32::from(db)
    }

    /// Whether invalidations are wanted.
    pub fn wants_tracking(&self) -> bool {
        self.active.borrow().1.config.local.coherence != Coherence::TtlOnly
    }

    /// Whether changes are announced at the end of a turn of Redis, behind its replies.
    pub fn announces_late(&self) -> bool {
        self.active.borrow().1.config.local.coherence == Coherence::Broadcast
    }

    /// Whether commands of that link's clients are answered from memory now.
    pub fn in_memory_mode(&self, link: &Link) -> bool {
        self.active.borrow().1.config.resilience.when_unavailable == WhenUnavailable::Memory
            && matches!(link.status(), Status::Down(_))
    }

    // === turns ===

    /// A reply was added to the client's output.
    #[inline]
    pub fn mark_dirty(&self, client: &Rc<Client>) {
        if !client.dirty.replace(true) {
            client.dirty_since.set(self.now());
            self.dirty.borrow_mut().push(Rc::clone(client));
        }
    }

    /// Sends what a link has brought: at once, or after the other links of a cluster were read.
    pub fn flush_read(&self) {
        if self.is_cluster {
            self.parting.soon();
        } else {
            self.flush_dirty();
        }
    }

    /// Sends to those whose replies are complete, or are kept back for as long as `patience`; for
    /// how long others may still be kept back.
    pub fn flush_ripe(&self, patience: Duration) -> Option<Duration> {
        let mut wait = None;
        self.dirty.borrow_mut().retain(|client| {
            let left = patience.saturating_sub(self.now().since(client.dirty_since.get()));
            let stays = !left.is_zero() && !client.session.borrow_mut().take_ripe();
            if stays {
                // The first has been there the longest.
                wait.get_or_insert(left);
            } else {
                client.dirty.set(false);
                client.flush();
            }
            stays
        });
        wait
    }

    /// Sends what was added to outputs since the last time.
    pub fn flush_dirty(&self) {
        let mut dirty = std::mem::take(&mut *self.dirty.borrow_mut());
        for client in dirty.drain(..) {
            client.dirty.set(false);
            client.flush();
        }
        // Keeps the allocation; nobody was marked meanwhile, `flush` does not call back.
        *self.dirty.borrow_mut() = dirty;
    }

    /// Counts a local hit of the current batch.
    #[inline]
    pub fn count_hit(&self, command: CommandId) {
        let (last, hits) = self.batch_hits.get();
        if last == command {
            self.batch_hits.set((command, hits + 1));
        } else {
            self.end_batch();
            self.batch_hits.set((command, 1));
        }
    }

    /// Observes the duration of the batch's local hits.
    #[inline]
    pub fn end_batch(&self) {
        let (command, hits) = self.batch_hits.get();
        if hits > 0 {
            self.batch_hits.set((command, 0));
            let took = Tick::now().0.saturating_sub(self.now().0);
            let counters = &self.counters.commands[command as usize];
            counters.outcomes[0].add(hits);
            counters.duration.observe(took, hits);
            self.sampler.count(hits);
        }
    }

    /// Redis should hear that the key is in use.
    #[cold]
    pub fn touch(&self, db: u16, key: &[u8]) {
        let mut touches = self.touches.borrow_mut();
        if touches.len() < TOUCHES {
            touches.push((db, key.into()));
        }
    }

    /// How often [`Worker::housekeep`] is due: proofs must be sent less than half of
    /// `maxStaleness` apart.
    pub fn housekeeping_interval(&self) -> Duration {
        let staleness = self.active().config.local.max_staleness.0;
        (staleness * 2 / 5).clamp(Duration::from_millis(2), Duration::from_millis(500))
    }

    /// Proofs, timeouts, touches, expiry.
    pub fn housekeep(self: &Rc<Self>) {
        self.refresh_now();
        *self.commands.borrow_mut() = self.shared.commands.load_full();
        let now = self.now();
        for set in &self.servers.sets() {
            for link in set.links() {
                link.check_timeout(now);
            }
            if let Some(link) = set.tracked_link()
                && link.is_up()
                && !link.fills.get()
                && self.wants_tracking()
                && now.since(link.up_since.get()) > ASK_AGAIN
            {
                link.leave();
            } else if let Some(link) = set.tracked_link()
                && link.is_up()
                && link.fills.get()
            {
                self.prove(link);
                if self.wants_tracking() {
                    crate::measure::probe::begin(link);
                }
            }
        }
        self.forget_moves();
        self.sampler.tick(self);
        self.send_touches();
        crate::engine::memory::sweep(self);
        self.flush_dirty();
    }

    fn send_touches(self: &Rc<Self>) {
        use std::sync::atomic::Ordering::Relaxed;
        let touches = self.touches.take();
        if touches.is_empty() || !self.shared.upstream.evicts_by_use.load(Relaxed) {
            return;
        }
        let active = self.active();
        for (db, key) in touches {
            let Some(set) = self.links_of(db, &key) else {
                continue;
            };
            // The link that is opened at the start: a fresh one would not be up yet.
            let link = set.plain(self, crate::resp::Proto::Resp2);
            if link.is_up() && !link.is_full() {
                self.counters.touches.inc();
                let key = active.key_in_redis(&key);
                link.send(Target::Ignore(0), false, |out| {
                    crate::resp::write::command(out, &[b"TOUCH", &key]);
                });
            }
        }
    }
}

/// Where Redis is, according to the configuration; files that TLS needs are read.
pub fn endpoint(active: &Active) -> Result<Option<Endpoint>, crate::upstream::tls::TlsError> {
    let Some(upstream) = &active.config.upstream else {
        return Ok(None);
    };
    let tls = match &upstream.tls {
        Some(tls) => Some(TlsSettings::read(tls, &upstream.host, &active.credentials)?),
        None => None,
    };
    Ok(Some(Endpoint {
        host: upstream.host.clone(),
        port: upstream.port,
        tls,
        credentials: active.credentials.clone(),
        timeout: active.config.resilience.connect_timeout.0,
        name: "pannier-sidecar".to_owned(),
        broadcast: None,
        // A replica of a cluster sends commands on by itself; behind Sentinels nobody does.
        refuses_replicas: upstream.mode == UpstreamMode::Sentinel,
    }))
}

fn seed(index: usize) -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(index) | 1
}
