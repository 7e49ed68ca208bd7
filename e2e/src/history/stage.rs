//! What a schedule plays on: a server, sidecars before it, a proxy before each of their links.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{
    Action, Fate, MILLI, Nanos, Op, Via, Window,
    client::{Clock, Common},
    keys::Keyspace,
    servers::{Servers, Way},
    workload::FUNCTION,
};
use crate::{
    Engine, RedisServer, Sidecar, SidecarOptions, Wire,
    faketime::WallClock,
    http, ports,
    proxy::{Direction, Disturbance, Proxy, Which},
    random::Random,
    server::loopback,
    wait,
};

/// `maxStaleness` of the sidecars.
pub const MAX_STALENESS: Duration = Duration::from_millis(250);

/// Their `commandTimeout`: above `maxStaleness`, so that a reply may come later than its value may
/// be kept.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(800);

/// How a stage is built.
#[derive(Clone, Debug, Default)]
pub struct StageOptions {
    /// Which server.
    pub engine: Engine,
    /// How it is run.
    pub way: Way,
    /// Lines of its configuration.
    pub server: Vec<String>,
    /// Sidecars.
    pub pods: u8,
    /// Event loops of each.
    pub threads: u8,
    /// Another sidecar program than the usual one.
    pub program: Option<PathBuf>,
    /// Environment of the sidecars.
    pub environment: Vec<(String, String)>,
    /// A replica beside the server, which no sidecar is told of.
    pub replica: bool,
    /// Several servers have a proxy each, which they announce.
    pub proxied: bool,
    /// Sidecars and a single server have wall clocks that can be stepped.
    pub clocks: bool,
    /// Decides everything that is left to chance.
    pub seed: u64,
}

/// A sidecar with its proxy; it may be killed and started again at the same addresses.
pub struct Pod {
    /// Its number.
    pub number: u8,
    /// Between it and the server.
    pub proxy: Proxy,
    /// Its wall clock, where that can be stepped.
    pub clock: Option<WallClock>,
    options: SidecarOptions,
    address: SocketAddr,
    admin: SocketAddr,
    sidecar: Option<Sidecar>,
}

/// The server, the sidecars, and what faults need.
pub struct Stage {
    /// The servers.
    pub servers: Servers,
    /// The replica of a single server, and the proxy through which it follows.
    pub replica: Option<(RedisServer, Proxy)>,
    /// The wall clock of the server, where that can be stepped.
    pub clock_of_server: Option<WallClock>,
    /// The sidecars.
    pub pods: Vec<Pod>,
    /// Decides what is left to chance.
    pub random: Random,
    /// The clock of the history.
    pub clock: Clock,
    /// What the faults themselves did to registers.
    pub log: Vec<Op>,
    /// Times in which Redis may have lost writes.
    pub lossy: Vec<Window>,
    /// What clients share.
    pub common: Option<Arc<Common>>,
    /// The primary that Sentinels should name, by its port.
    expected: Option<u16>,
    end: Instant,
    space: Keyspace,
}

// === impl Pod ===

impl Pod {
    fn start(number: u8, servers: &Servers, options: &StageOptions) -> Self {
        // With several servers the sidecar finds them itself, and nothing stands between.
        let proxy = Proxy::before(servers.all()[0].address(), options.seed ^ u64::from(number));
        let upstream = servers.upstream(proxy.address().port());
        let address = loopback(ports::free());
        let admin = loopback(ports::free());
        let mut sidecar = SidecarOptions::before_port(proxy.address().port())
            .rule("cached", "k:{id}", json!({"negativeTtl": "60s"}))
            .config(json!({
                "upstream": upstream,
                "local": {"maxStaleness": millis(MAX_STALENESS)},
                "sidecar": {"threads": options.threads},
                "resilience": {"commandTimeout": millis(COMMAND_TIMEOUT), "connectTimeout": "500ms"},
            }))
            .flag("--listen")
            .flag(&address.to_string())
            .flag("--http")
            .flag(&loopback(ports::free()).to_string())
            .flag("--admin")
            .flag(&admin.to_string());
        let clock = options.clocks.then(WallClock::default);
        let of_clock = clock.as_ref().map(WallClock::environment);
        for (name, value) in options.environment.iter().chain(of_clock.iter().flatten()) {
            sidecar = sidecar.env(name, value);
        }
        sidecar.program.clone_from(&options.program);
        let mut pod = Self {
            number,
            proxy,
            clock,
            options: sidecar,
            address,
            admin,
            sidecar: None,
        };
        pod.restart();
        pod
    }

    /// Where clients connect.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills it, if it runs, and starts it again.
    pub fn restart(&mut self) {
        self.kill();
        self.sidecar = Some(Sidecar::spawn(&self.options));
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut sidecar) = self.sidecar.take() {
            sidecar.process().kill();
        }
    }

    /// Stops it from running.
    pub fn pause(&mut self) {
        if let Some(sidecar) = &mut self.sidecar {
            sidecar.process().signal(Signal::SIGSTOP);
        }
    }

    /// Lets it run again.
    pub fn resume(&mut self) {
        if let Some(sidecar) = &mut self.sidecar {
            sidecar.process().signal(Signal::SIGCONT);
        }
    }

    /// A figure of its metrics, summed over labels; 0 while it does not run.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let Ok(answer) = http::get(self.admin, "/metrics") else {
            return 0.0;
        };
        answer
            .text()
            .lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && line.contains(labels)
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// A counter of its metrics, summed over labels.
    pub fn count(&self, name: &str, labels: &str) -> u64 {
        // Counters are whole numbers, shown as such.
        format!("{:.0}", self.metric(name, labels))
            .parse()
            .unwrap_or(0)
    }

    /// Waits until its local tier is in use.
    pub fn until_coherent(&self) {
        let what = || format!("the sidecar is coherent; it says:\n{}", self.log());
        wait::within(wait::PATIENCE, what, || {
            (self.metric("pannier_coherence_state", "\"tracking\"") > 0.0).then_some(())
        });
    }

    /// What it has logged since it was started last.
    pub fn log(&self) -> String {
        self.sidecar.as_ref().map(Sidecar::log).unwrap_or_default()
    }
}

// === impl Stage ===

impl Stage {
    /// Starts everything and waits until it is in use.
    pub fn start(options: &StageOptions, space: &Keyspace) -> Self {
        let clock_of_server = options.clocks.then(WallClock::default);
        let environment = clock_of_server.as_ref().map(WallClock::environment);
        let servers = Servers::start(options, environment.unwrap_or_default());
        let replica = options.replica.then(|| replica(servers.one(), options));
        let mut options = options.clone();
        if let Some((replica, _)) = &replica {
            // Only a sidecar with a planted bug looks at this.
            let port = (
                "PANNIER_PLANT_REPLICA".to_owned(),
                replica.port().to_string(),
            );
            options.environment.push(port);
        }
        let pods: Vec<Pod> = (0..options.pods)
            .map(|number| Pod::start(number, &servers, &options))
            .collect();
        for pod in &pods {
            pod.until_coherent();
        }
        for server in servers.primaries() {
            let loaded = server.connect().call(&["FUNCTION", "LOAD", FUNCTION]);
            assert!(!loaded.is_error(), "FUNCTION LOAD: {loaded}");
        }
        Self {
            servers,
            replica,
            clock_of_server,
            pods,
            random: Random::new(options.seed ^ 0x5eed),
            clock: Clock::default(),
            log: Vec::new(),
            lossy: Vec::new(),
            common: None,
            expected: None,
            end: Instant::now(),
            space: space.clone(),
        }
    }

    /// The clock of the history that begins now, and the time until which faults may happen.
    pub fn begin(&mut self, common: &Arc<Common>, span: Duration) {
        self.clock = common.clock;
        self.common = Some(Arc::clone(common));
        self.expected = self.named();
        self.end = Instant::now() + span;
    }

    /// Whether there is time for more faults.
    pub fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }

    /// Lets `least` to `most` milliseconds pass, or what is left.
    pub fn pass(&mut self, least: u64, most: u64) {
        let more = self.random.number() % (most - least + 1);
        let time = Duration::from_millis(least + more);
        thread::sleep(time.min(self.end.saturating_duration_since(Instant::now())));
    }

    /// One of the sidecars.
    pub fn any_pod(&mut self) -> &mut Pod {
        let place = self.random.below(self.pods.len());
        &mut self.pods[place]
    }

    /// Disturbs some connections of one sidecar for a while.
    pub fn disturb_one(
        &mut self,
        which: Which,
        direction: Direction,
        how: Disturbance,
        (least, most): (u64, u64),
    ) {
        let place = self.random.below(self.pods.len());
        self.pods[place].proxy.disturb(which, direction, how);
        self.pass(least, most);
        self.pods[place].proxy.heal();
    }

    /// Disturbs some connections of all sidecars, until they are healed.
    pub fn disturb_all(&self, which: Which, direction: Direction, how: Disturbance) {
        for pod in &self.pods {
            pod.proxy.disturb(which, direction, how);
        }
    }

    /// Disturbs some connections of all sidecars to one of the primaries, until it is healed.
    pub fn disturb_shard(&mut self, which: Which, direction: Direction, how: Disturbance) {
        let proxies = self.servers.proxies_of_primaries();
        let place = self.random.below(proxies.len());
        proxies[place].disturb(which, direction, how);
    }

    /// Resets some connections of all sidecars to one of the primaries.
    pub fn cut_shard(&mut self, which: Which) {
        let proxies = self.servers.proxies_of_primaries();
        let place = self.random.below(proxies.len());
        proxies[place].cut(which);
    }

    /// Nothing is disturbed any longer on the way to several servers.
    pub fn heal_shards(&self) {
        for proxy in self.servers.proxies() {
            proxy.heal();
        }
    }

    /// Every sidecar's wall clock shows another time: seconds, minutes or hours off, either way.
    pub fn step_sidecars(&mut self) {
        for place in 0..self.pods.len() {
            let seconds = self.some_seconds();
            if let Some(clock) = &self.pods[place].clock {
                clock.step(seconds);
            }
        }
    }

    /// The server's wall clock shows another time, either way.
    pub fn step_server(&mut self) {
        let seconds = self.some_seconds();
        if let Some(clock) = &self.clock_of_server {
            clock.step(seconds);
        }
    }

    fn some_seconds(&mut self) -> i64 {
        let most = [3, 100, 10_000][self.random.below(3)];
        let seconds = 1 + i64::try_from(self.random.below(most)).unwrap_or(0);
        if self.random.chance(50) {
            seconds
        } else {
            -seconds
        }
    }

    /// Runs a command directly; it must not fail.
    pub fn direct(&mut self, line: &str) -> crate::wire::Value {
        let mut wire = self.servers.one().connect();
        let reply = wire.run(line);
        assert!(!reply.is_error(), "{line}: {reply}");
        reply
    }

    /// Plays a fault during which Redis may lose writes, from a moment before it until direct
    /// clients know where the keys are now.
    pub fn losing(&mut self, fault: impl FnOnce(&mut Self)) {
        // What was acknowledged a moment ago may not have reached a replica.
        let from = self.clock.now().saturating_sub(500 * MILLI);
        fault(self);
        self.relocate();
        self.expected = self.named();
        let to = self.clock.now();
        self.lossy.push(Window { from, to });
    }

    /// The primary that Sentinels name.
    fn named(&self) -> Option<u16> {
        match &self.servers {
            Servers::Sentinel(set) => Some(set.primary().port()),
            _ => None,
        }
    }

    /// On a busy machine Sentinels may replace a primary that was only slow. Nobody knows when
    /// writes were lost then, so nothing of that run can be judged.
    fn note_surprise(&mut self) {
        if self.named() != self.expected {
            eprintln!("Sentinels replaced a living primary: nothing of this run is judged");
            self.relocate();
            let to = self.clock.now();
            self.lossy.push(Window { from: 0, to });
        }
    }

    /// Direct clients learn where the keys are.
    pub fn relocate(&self) {
        if let Some(common) = &self.common {
            common.directory.replace(self.servers.addresses());
        }
    }

    /// Kills the server, which has nothing on disk, and starts it again.
    pub fn restart_server(&mut self) {
        let begun = self.clock.now();
        self.servers.one_mut().restart();
        self.note_all(
            "restart",
            begun,
            self.clock.now(),
            Action::Remove(Fate::Done),
        );
    }

    /// `SWAPDB 0 1` through a sidecar, with nothing in database 1: everything is gone.
    pub fn swap_databases(&mut self, pod: usize) {
        let mut wire = Wire::connect(self.pods[pod].address());
        let begun = self.clock.now();
        assert_eq!(wire.run("SWAPDB 0 1"), "OK");
        let first = self.log.len();
        self.note_all(
            "SWAPDB",
            begun,
            self.clock.now(),
            Action::Remove(Fate::Done),
        );
        for op in &mut self.log[first..] {
            op.via = Via::Pod(self.pods[pod].number);
        }
    }

    /// Empties database 1 directly.
    pub fn empty_other_database(&mut self) {
        let mut wire = self.servers.one().connect();
        assert_eq!(wire.run("SELECT 1"), "OK");
        assert_eq!(wire.run("FLUSHDB"), "OK");
    }

    /// Something happened to all registers of values.
    pub fn note_all(&mut self, verb: &'static str, begun: Nanos, ended: Nanos, action: Action) {
        let ops = self.space.values().map(|register| Op {
            begun,
            ended,
            client: 0,
            via: Via::Direct,
            register,
            action,
            verb,
        });
        self.log.extend(ops);
    }

    /// Ends all faults: everything runs, nothing is disturbed.
    pub fn heal(&mut self) {
        for server in self.servers.all() {
            if server.is_running() {
                server.resume();
            }
        }
        if let Some((_, proxy)) = &self.replica {
            proxy.heal();
        }
        self.heal_shards();
        for pod in &mut self.pods {
            pod.resume();
            pod.proxy.heal();
            if pod.sidecar.is_none() {
                pod.restart();
            }
        }
        for pod in &self.pods {
            pod.until_coherent();
        }
        self.note_surprise();
    }
}

/// A replica that is in step.
fn replica(server: &RedisServer, options: &StageOptions) -> (RedisServer, Proxy) {
    let replica = RedisServer::new(options.engine);
    let proxy = Proxy::before(server.address(), options.seed);
    let mut wire = replica.connect();
    let follow = format!("REPLICAOF 127.0.0.1 {}", proxy.address().port());
    assert_eq!(wire.run(&follow), "OK");
    wait::until_true("the replica is in step", || {
        wire.run("INFO replication")
            .text()
            .contains("master_link_status:up")
    });
    (replica, proxy)
}

fn millis(span: Duration) -> String {
    format!("{}ms", span.as_millis())
}
