//! A real Redis Cluster on free ports: primaries, replicas, fail-overs, moving slots.
//!
//! Nodes are numbered: primaries first, then their replicas in the same order. Their roles may
//! change afterwards; [`ClusterSet::owner_of`] and [`ClusterSet::is_primary`] ask the servers.

mod migration;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

pub use self::migration::Migration;
use crate::{
    Engine, RedisServer, ServerOptions, Value, Wire, environment::unusable, ports, process::Folder,
    proxy::Proxy, server::loopback, tls::Certificates, wait,
};

/// A replica gives a planned fail-over up after 5 s (`CLUSTER_MF_TIMEOUT`): its primary, which may
/// have just become one, did not get the request.
const GIVEN_UP: Duration = Duration::from_secs(6);
/// Hash slots of a cluster.
pub const SLOTS: u16 = 16_384;

/// How to make it.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Which server.
    pub engine: Engine,
    /// Primaries, at least three for fail-overs.
    pub primaries: usize,
    /// Replicas of each primary.
    pub replicas: usize,
    /// Slots that nobody owns, as a range; none unless set.
    pub hole: std::ops::Range<u16>,
    /// Password of the default user.
    pub password: Option<String>,
    /// Nodes talk TLS to each other and to clients, on ports beside the plain ones.
    pub tls: bool,
    /// A proxy stands before each node, and its port is what nodes tell clients.
    pub proxied: bool,
    /// Further lines of each node's configuration.
    pub config: Vec<String>,
}

/// A running cluster; every node dies with it.
pub struct ClusterSet {
    engine: Engine,
    nodes: Vec<RedisServer>,
    proxies: Vec<Proxy>,
    alive: Vec<bool>,
    certificates: Option<Certificates>,
    _folder: Folder,
    wires: RefCell<BTreeMap<usize, Wire>>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            engine: Engine::default(),
            primaries: 3,
            replicas: 0,
            hole: 0..0,
            password: None,
            tls: false,
            proxied: false,
            config: Vec::new(),
        }
    }
}

impl ClusterOptions {
    /// Three primaries of the given server.
    pub fn of(engine: Engine) -> Self {
        Self {
            engine,
            ..Self::default()
        }
    }

    /// With that many replicas of each primary.
    #[must_use]
    pub const fn replicas(mut self, count: usize) -> Self {
        self.replicas = count;
        self
    }

    /// With one more line in each node's configuration.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        self.config.push(line.to_owned());
        self
    }
}

impl ClusterSet {
    /// Three primaries without replicas.
    pub fn new(engine: Engine) -> Self {
        Self::start(&ClusterOptions::of(engine))
    }

    /// Starts the nodes, joins them, and waits until all agree and the cluster is ok.
    pub fn start(options: &ClusterOptions) -> Self {
        let count = options.primaries * (1 + options.replicas);
        let bus: Vec<u16> = (0..count).map(|_| ports::free()).collect();
        let folder = Folder::new("certificates");
        let certificates = options.tls.then(|| Certificates::make(&folder));
        let mut proxies = Vec::new();
        let nodes: Vec<_> = bus
            .iter()
            .map(|bus| start_node(options, *bus, certificates.as_ref(), &mut proxies))
            .collect();
        let cluster = Self {
            engine: options.engine,
            alive: vec![true; nodes.len()],
            nodes,
            proxies,
            certificates,
            _folder: folder,
            wires: RefCell::default(),
        };
        cluster.assign(options);
        cluster.meet(&bus);
        cluster.replicate(options);
        cluster.until_agreed();
        cluster
    }

    fn assign(&self, options: &ClusterOptions) {
        let primaries = u16::try_from(options.primaries).expect("a few nodes");
        for index in 0..primaries {
            let node = usize::from(index);
            // Epochs that collide are sorted out by a vote, which takes its time.
            let epoch = (index + 1).to_string();
            self.ok(node, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
            let share = |of: u16| u32::from(of) * u32::from(SLOTS) / u32::from(primaries);
            let mine = share(index)..share(index + 1);
            let mut command = vec!["CLUSTER".to_owned(), "ADDSLOTS".to_owned()];
            let is_free = |slot: &u32| !options.hole.contains(&u16::try_from(*slot).unwrap_or(0));
            command.extend(mine.filter(is_free).map(|slot| slot.to_string()));
            assert_eq!(self.call(node, &command), "OK");
        }
    }

    fn meet(&self, bus: &[u16]) {
        let port = self.nodes[0].port().to_string();
        for node in 1..self.nodes.len() {
            let bus = bus[0].to_string();
            self.ok(node, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        wait::until_true("every node knows every other", || {
            (0..self.nodes.len()).all(|node| {
                let nodes = self.call(node, &["CLUSTER", "NODES"]).text();
                !nodes.contains("handshake") && self.info(node).contains(&known)
            })
        });
    }

    fn replicate(&self, options: &ClusterOptions) {
        for replica in options.primaries..self.nodes.len() {
            let id = self.id_of(replica % options.primaries);
            wait::until_true("the replica is accepted", || {
                self.call(replica, &["CLUSTER", "REPLICATE", &id]) == "OK"
            });
        }
    }

    /// Waits until every living node says that the cluster is ok, all describe the same owners,
    /// and living replicas follow their primaries.
    pub fn until_agreed(&self) {
        wait::until_true("the nodes of the cluster agree", || {
            let living: Vec<usize> = self.living().collect();
            let ok = |node: &usize| self.info(*node).contains("cluster_state:ok");
            let Some(first) = living.first() else {
                return false;
            };
            let view = self.owners(*first);
            living.iter().all(ok)
                && living.iter().all(|node| self.owners(*node) == view)
                && living.iter().all(|node| self.is_in_step(*node))
        });
    }

    /// A replica that follows, or a primary.
    fn is_in_step(&self, node: usize) -> bool {
        let info = self.call(node, &["INFO", "replication"]).text();
        info.contains("role:master") || info.contains("master_link_status:up")
    }

    // === nodes ===

    /// Which server they are.
    pub const fn engine(&self) -> Engine {
        self.engine
    }

    /// All nodes.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The proxies before the nodes, in their order; none unless that was asked for.
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// One node.
    pub fn node(&self, index: usize) -> &RedisServer {
        &self.nodes[index]
    }

    /// Ports of all nodes.
    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(RedisServer::port).collect()
    }

    /// Ports of all nodes with TLS.
    pub fn tls_ports(&self) -> Vec<u16> {
        self.nodes.iter().map(RedisServer::tls_port).collect()
    }

    /// The certificates of all nodes.
    pub fn certificates(&self) -> &Certificates {
        let found = self.certificates.as_ref();
        found.expect("the nodes were started with TLS")
    }

    /// The port by which nodes reach each other.
    fn port_for_nodes(&self, node: usize) -> u16 {
        match &self.certificates {
            None => self.nodes[node].port(),
            Some(_) => self.nodes[node].tls_port(),
        }
    }

    /// A new direct connection to a node.
    pub fn connect(&self, node: usize) -> Wire {
        self.nodes[node].connect()
    }

    /// One command to a node, over a connection that is kept.
    pub fn call<T: AsRef<[u8]>>(&self, node: usize, arguments: &[T]) -> Value {
        let mut wires = self.wires.borrow_mut();
        let wire = wires.entry(node).or_insert_with(|| self.connect(node));
        wire.call(arguments)
    }

    fn ok(&self, node: usize, arguments: &[&str]) {
        assert_eq!(self.call(node, arguments), "OK", "{arguments:?}");
    }

    fn info(&self, node: usize) -> String {
        self.call(node, &["CLUSTER", "INFO"]).text()
    }

    fn living(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|node| self.alive[*node])
    }

    fn any(&self) -> usize {
        let mut living = self.living();
        let found = living.next();
        found.unwrap_or_else(|| unusable("no node of the cluster is alive"))
    }

    /// A node's id in the cluster.
    pub fn id_of(&self, node: usize) -> String {
        self.call(node, &["CLUSTER", "MYID"]).text()
    }

    /// The node with that port.
    pub fn index_of(&self, port: u16) -> usize {
        let found = self.nodes.iter().position(|node| node.is_known_by(port));
        found.unwrap_or_else(|| unusable(&format!("no node of the cluster has port {port}")))
    }

    // === slots ===

    /// Ranges of slots with their owners' ports, as `node` sees it.
    pub fn owners(&self, node: usize) -> Vec<(u16, u16, u16)> {
        let reply = self.call(node, &["CLUSTER", "SLOTS"]);
        if reply.is_error() {
            return Vec::new();
        }
        let small = |value: &Value| u16::try_from(value.integer()).expect("slots and ports");
        let range = |row: &Value| {
            let [first, last, owner, ..] = row.items() else {
                unusable(&format!("not a row of CLUSTER SLOTS: {row}"));
            };
            let owner = self.index_of(small(&owner.items()[1]));
            (small(first), small(last), self.nodes[owner].port())
        };
        let mut ranges: Vec<_> = reply.items().iter().map(range).collect();
        ranges.sort_unstable();
        ranges
    }

    /// The node that owns a slot.
    pub fn owner_of(&self, slot: u16) -> usize {
        let owners = self.owners(self.any());
        let range = owners
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&slot));
        let Some((_, _, port)) = range else {
            unusable(&format!("nobody owns slot {slot}"));
        };
        self.index_of(*port)
    }

    /// The slot of a key.
    pub fn slot_of(&self, key: &str) -> u16 {
        let slot = self.call(self.any(), &["CLUSTER", "KEYSLOT", key]);
        u16::try_from(slot.integer()).expect("slots are small")
    }

    /// A key that begins with `prefix` and belongs to `node`.
    pub fn key_on(&self, node: usize, prefix: &str) -> String {
        let port = self.nodes[node].port();
        let owners = self.owners(self.any());
        let is_mine = |slot: u16| {
            let mine = owners.iter().filter(|(_, _, owner)| *owner == port);
            mine.into_iter()
                .any(|(first, last, _)| (*first..=*last).contains(&slot))
        };
        let mut keys = (0..10_000).map(|number| format!("{prefix}{number}"));
        let found = keys.find(|key| is_mine(self.slot_of(key)));
        found.unwrap_or_else(|| unusable(&format!("node {node} owns hardly a slot")))
    }

    /// Whether a node says that it is a primary.
    pub fn is_primary(&self, node: usize) -> bool {
        self.call(node, &["ROLE"]).items()[0] == "master"
    }

    /// A living replica of a node, as that node sees it.
    pub fn replica_of(&self, primary: usize) -> Option<usize> {
        let id = self.id_of(primary);
        self.living()
            .filter(|node| *node != primary && !self.is_primary(*node))
            .find(|node| {
                let nodes = self.call(*node, &["CLUSTER", "NODES"]).text();
                nodes
                    .lines()
                    .any(|line| line.contains("myself") && line.contains(&id))
            })
    }

    // === faults ===

    /// Kills a node at once.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
        self.gone(node);
    }

    /// Starts a killed node again; it remembers the cluster and has lost its data.
    pub fn restart(&mut self, node: usize) {
        self.nodes[node].restart();
        self.wires.borrow_mut().remove(&node);
        self.alive[node] = true;
    }

    /// Stops a node from running without closing anything.
    pub fn pause(&mut self, node: usize) {
        self.nodes[node].pause();
        self.gone(node);
    }

    /// Lets it run again.
    pub fn resume(&mut self, node: usize) {
        self.nodes[node].resume();
        self.alive[node] = true;
    }

    fn gone(&mut self, node: usize) {
        self.wires.borrow_mut().remove(&node);
        self.alive[node] = false;
    }

    /// Makes a replica the primary of its shard (`CLUSTER FAILOVER`), nothing is lost; waits
    /// until all nodes know.
    pub fn failover(&self, replica: usize) {
        let mut asked: Option<Instant> = None;
        wait::until_true("the replica has taken over", || {
            let is_due = asked.is_none_or(|at| at.elapsed() > GIVEN_UP);
            if is_due && self.call(replica, &["CLUSTER", "FAILOVER"]) == "OK" {
                asked = Some(Instant::now());
            }
            self.is_primary(replica)
        });
        self.until_agreed();
    }

    /// Moves a slot with all its keys, as `redis-cli --cluster reshard` does.
    pub fn migrate_slot(&self, slot: u16, to: usize) {
        let migration = self.begin_migration(slot, to);
        migration.move_all();
        migration.finish();
    }

    /// Begins to move a slot: from now on both nodes are involved, and `ASK` and `TRYAGAIN` come.
    pub fn begin_migration(&self, slot: u16, to: usize) -> Migration<'_> {
        Migration::begin(self, slot, to)
    }

    /// Moves a slot at once with `CLUSTER MIGRATESLOTS`, which Valkey has since 9.
    pub fn atomic_migrate(&self, slot: u16, to: usize) {
        migration::at_once(self, slot, to);
    }
}

fn start_node(
    options: &ClusterOptions,
    bus: u16,
    pem: Option<&Certificates>,
    proxies: &mut Vec<Proxy>,
) -> RedisServer {
    let port = ports::free();
    let mut server = ServerOptions::of(options.engine)
        .with("cluster-enabled yes")
        .with("cluster-config-file nodes.conf")
        .with("cluster-node-timeout 1000")
        .with("cluster-allow-replica-migration no")
        .with("cluster-announce-ip 127.0.0.1")
        .with("repl-diskless-sync-delay 0")
        .with(&format!("cluster-port {bus}"));
    server.password.clone_from(&options.password);
    if let Some(password) = &options.password {
        server = server.with(&format!("masterauth {password}"));
    }
    server.config.extend(options.config.iter().cloned());
    if let Some(pem) = pem {
        server.tls = true;
        server.certificates = Some(pem.clone());
        server = server.with("tls-cluster yes").with("tls-replication yes");
    }
    if options.proxied {
        let proxy = Proxy::before(loopback(port), u64::from(port));
        let known = proxy.address().port();
        server.announced = Some(known);
        // The bus stays direct.
        server = server
            .with(&format!("cluster-announce-port {known}"))
            .with(&format!("cluster-announce-bus-port {bus}"));
        proxies.push(proxy);
    }
    RedisServer::start_on(port, server)
}
