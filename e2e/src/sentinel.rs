//! A primary, its replicas and real Sentinels that watch them, on free ports.

use std::{net::SocketAddr, process::Command, time::Instant};

use nix::sys::signal::Signal;

use crate::{
    Engine, RedisServer, ServerOptions, Value, Wire,
    environment::unusable,
    ports,
    process::{Folder, Process},
    proxy::Proxy,
    server::loopback,
    tls::Certificates,
    wait,
};

/// What the Sentinels call the primary.
pub const MASTER: &str = "mymaster";

/// How to make it.
#[derive(Clone, Debug)]
pub struct SentinelOptions {
    /// Which server.
    pub engine: Engine,
    /// Replicas beside the primary.
    pub replicas: usize,
    /// Sentinels; a majority of them decides.
    pub sentinels: usize,
    /// Password of the servers' default user.
    pub password: Option<String>,
    /// Password that the Sentinels themselves ask for.
    pub sentinel_password: Option<String>,
    /// Silence in milliseconds after which a Sentinel takes the primary for dead.
    pub down_after: u32,
    /// All talk TLS to each other and to clients, on ports beside the plain ones.
    pub tls: bool,
    /// A proxy stands before each server, and its port is what Sentinels tell.
    pub proxied: bool,
    /// Further lines of each server's configuration.
    pub config: Vec<String>,
}

/// Servers and Sentinels; all die with it.
pub struct SentinelSet {
    servers: Vec<RedisServer>,
    proxies: Vec<Proxy>,
    sentinels: Vec<Sentinel>,
    certificates: Option<Certificates>,
    _folder: Folder,
}

/// One Sentinel.
pub struct Sentinel {
    folder: Folder,
    engine: Engine,
    port: u16,
    tls_port: Option<u16>,
    password: Option<String>,
    process: Process,
    alive: bool,
}

impl Default for SentinelOptions {
    fn default() -> Self {
        Self {
            engine: Engine::default(),
            replicas: 2,
            sentinels: 3,
            password: None,
            sentinel_password: None,
            // On a busy machine a living primary is silent for longer than one thinks.
            down_after: 1_500,
            tls: false,
            proxied: false,
            config: Vec::new(),
        }
    }
}

impl SentinelOptions {
    /// One primary, two replicas and three Sentinels of the given server.
    pub fn of(engine: Engine) -> Self {
        Self {
            engine,
            ..Self::default()
        }
    }
}

impl SentinelSet {
    /// One primary, two replicas and three Sentinels.
    pub fn new(engine: Engine) -> Self {
        Self::start(&SentinelOptions::of(engine))
    }

    /// Starts all of them and waits until the Sentinels know each other and every replica.
    pub fn start(options: &SentinelOptions) -> Self {
        let mut server = ServerOptions::of(options.engine)
            .with("repl-diskless-sync-delay 0")
            .with("repl-timeout 10");
        server.password.clone_from(&options.password);
        if let Some(password) = &options.password {
            server = server.with(&format!("masterauth {password}"));
        }
        server.config.extend(options.config.iter().cloned());
        let folder = Folder::new("certificates");
        let certificates = options.tls.then(|| Certificates::make(&folder));
        if let Some(pem) = &certificates {
            server.tls = true;
            server.certificates = Some(pem.clone());
            server = server.with("tls-replication yes");
        }
        let mut proxies = Vec::new();
        let (primary, port) = start_server(options, server.clone(), &mut proxies);
        let follow = format!("replicaof 127.0.0.1 {port}");
        let mut servers = vec![primary];
        servers.extend(
            (0..options.replicas)
                .map(|_| start_server(options, server.clone().with(&follow), &mut proxies).0),
        );
        let mut set = Self {
            servers,
            proxies,
            sentinels: Vec::new(),
            certificates,
            _folder: folder,
        };
        // Sentinels ask for replicas when they connect and then every ten seconds only.
        set.until_followed(set.servers[0].port());
        set.sentinels = (0..options.sentinels)
            .map(|_| Sentinel::start(options, port, set.certificates.as_ref()))
            .collect();
        set.until_watched();
        set
    }

    /// Waits until the server with that port has all other living servers as replicas in step.
    fn until_followed(&self, primary: u16) {
        let replicas = self
            .servers
            .iter()
            .filter(|server| server.is_running())
            .count()
            - 1;
        let wanted = format!("connected_slaves:{replicas}");
        wait::until_true("every replica follows", || {
            let mut wire = self.server(primary).connect();
            let info = wire.run("INFO replication").text();
            info.contains("role:master")
                && info.contains(&wanted)
                && info.matches("state=online").count() == replicas
        });
    }

    /// Waits until every living Sentinel knows the others and could switch to a replica.
    pub fn until_watched(&self) {
        let others = self.sentinels.len() - 1;
        wait::until_true("the Sentinels know each other and the replicas", || {
            let living = self.sentinels.iter().filter(|sentinel| sentinel.alive);
            living.into_iter().all(|sentinel| {
                let mut wire = sentinel.connect();
                let known = wire.call(&["SENTINEL", "SENTINELS", MASTER]).items().len();
                let replicas = wire.call(&["SENTINEL", "REPLICAS", MASTER]);
                let fit = |replica: &&Value| {
                    field(replica, "flags") == "slave"
                        && field(replica, "master-link-status") == "ok"
                };
                known == others && replicas.items().iter().filter(fit).count() == self.followers()
            })
        });
    }

    fn followers(&self) -> usize {
        let running = self.servers.iter().filter(|server| server.is_running());
        running.count() - 1
    }

    // === who is who ===

    /// The proxies before the servers, in their order; none unless that was asked for.
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// All servers, the first primary first.
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// The server with that port.
    pub fn server(&self, port: u16) -> &RedisServer {
        let mut servers = self.servers.iter();
        let found = servers.find(|server| server.is_known_by(port));
        found.unwrap_or_else(|| unusable(&format!("no server has port {port}")))
    }

    fn server_mut(&mut self, port: u16) -> &mut RedisServer {
        let mut servers = self.servers.iter_mut();
        let found = servers.find(|server| server.is_known_by(port));
        found.unwrap_or_else(|| unusable(&format!("no server has port {port}")))
    }

    /// The Sentinels.
    pub fn sentinels(&self) -> &[Sentinel] {
        &self.sentinels
    }

    /// Ports of the Sentinels.
    pub fn sentinel_ports(&self) -> Vec<u16> {
        self.sentinels
            .iter()
            .map(|sentinel| sentinel.port)
            .collect()
    }

    /// Their ports with TLS.
    pub fn sentinel_tls_ports(&self) -> Vec<u16> {
        let ports = self.sentinels.iter().map(|sentinel| sentinel.tls_port);
        ports
            .collect::<Option<_>>()
            .expect("the Sentinels were started with TLS")
    }

    /// The certificates of all.
    pub fn certificates(&self) -> &Certificates {
        let found = self.certificates.as_ref();
        found.expect("the servers were started with TLS")
    }

    /// The primary that the first living Sentinel names.
    pub fn primary(&self) -> &RedisServer {
        let sentinel = self.any_sentinel();
        self.server(sentinel.names())
    }

    fn any_sentinel(&self) -> &Sentinel {
        let found = self.sentinels.iter().find(|sentinel| sentinel.alive);
        found.unwrap_or_else(|| unusable("no Sentinel is alive"))
    }

    // === faults ===

    /// Kills the primary at once; the answer is its port.
    pub fn kill_primary(&mut self) -> u16 {
        let port = self.primary().port();
        self.server_mut(port).kill();
        port
    }

    /// Starts a killed server again, empty. If it was the primary it begins as one: Sentinel
    /// makes it a replica some seconds later.
    pub fn restart(&mut self, port: u16) {
        self.server_mut(port).restart();
    }

    /// Waits until a server other than `old` accepts a direct write; answers with its address
    /// and the moment when it did.
    pub fn until_switched(&self, old: u16) -> (SocketAddr, Instant) {
        wait::until("another server accepts a write", || {
            let candidates = self.servers.iter().filter(|server| server.port() != old);
            let mut candidates = candidates.filter(|server| server.is_running());
            let found = candidates.find(|server| accepts_writes(server))?;
            Some((found.address(), Instant::now()))
        })
    }

    /// A planned switch, `SENTINEL FAILOVER`; waits until every living Sentinel names the new
    /// primary, which is returned.
    pub fn failover(&self) -> u16 {
        let old = self.primary().port();
        let mut wire = self.any_sentinel().connect();
        wait::until_true("the Sentinel begins the failover", || {
            wire.call(&["SENTINEL", "FAILOVER", MASTER]) == "OK"
        });
        self.until_renamed(old)
    }

    /// Waits until every living Sentinel names the same primary, and it is not `old`.
    pub fn until_renamed(&self, old: u16) -> u16 {
        wait::until("the Sentinels name another primary", || {
            let living = self.sentinels.iter().filter(|sentinel| sentinel.alive);
            let mut named: Vec<u16> = living
                .map(|sentinel| self.server(sentinel.names()).port())
                .collect();
            named.dedup();
            match named.as_slice() {
                [one] if *one != old => Some(*one),
                _ => None,
            }
        })
    }

    /// Stops the server with that port from running without closing anything.
    pub fn pause(&self, port: u16) {
        self.server(port).pause();
    }

    /// Lets it run again.
    pub fn resume(&self, port: u16) {
        self.server(port).resume();
    }

    /// Kills every Sentinel.
    pub fn kill_sentinels(&mut self) {
        for sentinel in &mut self.sentinels {
            sentinel.process.kill();
            sentinel.alive = false;
        }
    }

    /// Kills one Sentinel.
    pub fn kill_sentinel(&mut self, index: usize) {
        self.sentinels[index].process.kill();
        self.sentinels[index].alive = false;
    }

    /// Starts every killed Sentinel again; it remembers what it knew.
    pub fn restart_sentinels(&mut self) {
        for sentinel in &mut self.sentinels {
            if !sentinel.alive {
                sentinel.restart();
            }
        }
    }
}

impl Sentinel {
    fn start(options: &SentinelOptions, primary: u16, pem: Option<&Certificates>) -> Self {
        let folder = Folder::new("sentinel");
        let port = ports::free();
        let quorum = options.sentinels / 2 + 1;
        let mut lines = vec![
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", folder.path().display()),
            format!("sentinel monitor {MASTER} 127.0.0.1 {primary} {quorum}"),
            format!(
                "sentinel down-after-milliseconds {MASTER} {}",
                options.down_after
            ),
            format!("sentinel failover-timeout {MASTER} 3000"),
        ];
        let tls_port = pem.map(|_| ports::free());
        if let (Some(port), Some(pem)) = (tls_port, pem) {
            lines.extend(pem.lines(port));
            lines.push("tls-replication yes".to_owned());
        }
        if let Some(password) = &options.password {
            lines.push(format!("sentinel auth-pass {MASTER} {password}"));
        }
        if let Some(password) = &options.sentinel_password {
            lines.push(format!("requirepass {password}"));
            lines.push(format!("sentinel sentinel-pass {password}"));
        }
        folder.write("sentinel.conf", &(lines.join("\n") + "\n"));
        let process = launch(options.engine, &folder, port);
        let sentinel = Self {
            folder,
            engine: options.engine,
            port,
            tls_port,
            password: options.sentinel_password.clone(),
            process,
            alive: true,
        };
        sentinel.hurry();
        sentinel
    }

    fn restart(&mut self) {
        self.process = launch(self.engine, &self.folder, self.port);
        self.alive = true;
        self.hurry();
    }

    /// It looks for changes of roles every ten seconds, and for others like it every two; and after
    /// a pause of the whole machine it would do nothing for half a minute (TILT).
    fn hurry(&self) {
        let periods = [
            "info-period",
            "500",
            "publish-period",
            "500",
            "tilt-period",
            "1000",
        ];
        let command = [&["SENTINEL", "DEBUG"][..], &periods].concat();
        assert_eq!(self.connect().call(&command), "OK");
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// A direct connection, logged in when it asks for a password.
    pub fn connect(&self) -> Wire {
        let mut wire = Wire::connect(loopback(self.port));
        if let Some(password) = &self.password {
            assert_eq!(wire.call(&["AUTH", password]), "OK");
        }
        wire
    }

    /// Port of the primary that it names.
    pub fn names(&self) -> u16 {
        let reply = self
            .connect()
            .call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        let port = reply.items()[1].text();
        port.parse().expect("a Sentinel names a port")
    }

    /// Stops it from running without closing anything.
    pub fn pause(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Lets it run again.
    pub fn resume(&self) {
        self.process.signal(Signal::SIGCONT);
    }
}

/// A server, and the port by which others know it.
fn start_server(
    options: &SentinelOptions,
    mut server: ServerOptions,
    proxies: &mut Vec<Proxy>,
) -> (RedisServer, u16) {
    let port = ports::free();
    let mut known = port;
    if options.proxied {
        let proxy = Proxy::before(loopback(port), u64::from(port));
        known = proxy.address().port();
        server.announced = Some(known);
        server = server
            .with("replica-announce-ip 127.0.0.1")
            .with(&format!("replica-announce-port {known}"));
        proxies.push(proxy);
    }
    let server = RedisServer::start_on(port, server);
    if options.tls {
        known = server.tls_port();
    }
    (server, known)
}

fn launch(engine: Engine, folder: &Folder, port: u16) -> Process {
    let program = engine
        .server()
        .unwrap_or_else(|error| unusable(&error.to_string()));
    let mut process = Process::start(
        "sentinel",
        Command::new(program)
            .arg(folder.path().join("sentinel.conf"))
            .arg("--sentinel"),
        &folder.path().join("sentinel.log"),
    );
    wait::until(&format!("the Sentinel answers on {port}"), || {
        if let Some(status) = process.ended() {
            unusable(&format!("the Sentinel ended: {status}\n{}", process.log()));
        }
        let mut wire = Wire::try_connect(loopback(port)).ok()?;
        wire.try_call(&["PING"]).ok()
    });
    process
}

fn accepts_writes(server: &RedisServer) -> bool {
    let write = ["SET", "pannier:e2e:switched", "1", "PX", "1"];
    let connected = server.try_connect();
    let reply = connected.and_then(|mut wire| wire.try_call(&write));
    // Connections are closed when a server changes its role.
    reply.is_ok_and(|reply| reply == "OK")
}

/// A field of the flat list that RESP2 writes for a map.
fn field(map: &Value, name: &str) -> String {
    let pairs = map.items().chunks_exact(2);
    let mut found = pairs.filter(|pair| pair[0] == name);
    found.next().map(|pair| pair[1].text()).unwrap_or_default()
}
