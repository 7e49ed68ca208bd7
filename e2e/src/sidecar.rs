//! The sidecar under test, as a process of its own on free ports.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::OnceLock,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value as Json, json};

use crate::{
    RedisServer, Wire,
    built::build,
    environment::unusable,
    http, ports,
    process::{Folder, Process},
    server::loopback,
    wait,
};

/// How to start it.
#[derive(Clone, Debug)]
pub struct SidecarOptions {
    /// Its configuration file; JSON is YAML as well.
    pub config: Json,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// Further flags.
    pub flags: Vec<String>,
    /// Files beside its configuration, by name; `{folder}` in the configuration is their folder.
    pub files: Vec<(String, String)>,
    /// Whether the configuration is passed with `--config`.
    pub with_config: bool,
    /// Another program than [`program`].
    pub program: Option<PathBuf>,
}

/// A running sidecar; killed when dropped.
pub struct Sidecar {
    folder: Folder,
    redis: SocketAddr,
    http: SocketAddr,
    admin: SocketAddr,
    process: Process,
}

impl Default for SidecarOptions {
    fn default() -> Self {
        Self::memory()
    }
}

impl SidecarOptions {
    /// Memory only, no rules.
    pub fn memory() -> Self {
        Self {
            // Keys of the sidecar's own would be in the way of tests that count or list keys.
            config: json!({"sidecar": {"heartbeat": "0s"}}),
            environment: Vec::new(),
            flags: Vec::new(),
            files: Vec::new(),
            with_config: true,
            program: None,
        }
    }

    /// In front of `server`, no rules; time limits that suit tests.
    pub fn before(server: &RedisServer) -> Self {
        Self::before_port(server.port())
    }

    /// Before several servers or Sentinels; `upstream` says which they are.
    pub fn before_several(ports: &[u16], upstream: &Json) -> Self {
        let seeds = ports[1..].iter().map(|port| format!("127.0.0.1:{port}"));
        Self::before_port(ports[0])
            .config(json!({"upstream": upstream}))
            .config(json!({"upstream": {"seeds": seeds.collect::<Vec<_>>()}}))
    }

    /// In front of whatever is or will be on that port of 127.0.0.1.
    pub fn before_port(port: u16) -> Self {
        let mut options = Self::memory();
        options.config = json!({
            "upstream": {"host": "127.0.0.1", "port": port},
            "sidecar": {"heartbeat": "0s"},
            "resilience": {
                "connectTimeout": "1s",
                "commandTimeout": "2s",
                "backoffBase": "10ms",
                "backoffMax": "100ms",
            },
        });
        options
    }

    /// With one more rule: a name, a pattern and any further fields.
    #[must_use]
    pub fn rule(mut self, name: &str, pattern: &str, fields: Json) -> Self {
        let mut rule = json!({"name": name, "match": pattern});
        merge(&mut rule, fields);
        if self.config.get("rules").is_none() {
            self.config["rules"] = json!([]);
        }
        self.config["rules"]
            .as_array_mut()
            .expect("rules are a list")
            .push(rule);
        self
    }

    /// With further configuration, merged into what is there.
    #[must_use]
    pub fn config(mut self, more: Json) -> Self {
        merge(&mut self.config, more);
        self
    }

    /// With a further flag.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a file beside the configuration.
    #[must_use]
    pub fn file(mut self, name: &str, content: &str) -> Self {
        self.files.push((name.to_owned(), content.to_owned()));
        self
    }

    /// Without a configuration file.
    #[must_use]
    pub fn without_config(mut self) -> Self {
        self.with_config = false;
        self
    }
}

impl Sidecar {
    /// Starts it and waits until it says that it is ready.
    pub fn start(options: &SidecarOptions) -> Self {
        // Somebody else on this machine may take a port between our check and its use.
        (0..5)
            .find_map(|_| Self::try_start(options))
            .unwrap_or_else(|| unusable("five times in a row a port was taken by somebody else"))
    }

    fn try_start(options: &SidecarOptions) -> Option<Self> {
        let mut sidecar = Self::spawn(options);
        let ready = wait::until("the sidecar is ready", || {
            if let Some(status) = sidecar.process.ended() {
                let log = sidecar.log();
                if log.contains("already in use") {
                    return Some(false);
                }
                unusable(&format!("the sidecar ended: {status}\n{log}"));
            }
            let answer = http::get(sidecar.admin, "/ready").ok()?;
            (answer.status == 200).then_some(true)
        });
        ready.then_some(sidecar)
    }

    /// Starts it and waits until the local tier is in use as well.
    pub fn start_coherent(options: &SidecarOptions) -> Self {
        let sidecar = Self::start(options);
        sidecar.until_connected();
        wait::until_true("the local tier is in use", || {
            let in_state = |state| sidecar.metric("pannier_coherence_state", state);
            in_state("\"tracking\"") + in_state("\"broadcast\"") + in_state("\"ttl_only\"") > 0.0
        });
        sidecar
    }

    /// Starts it and does not wait.
    pub fn spawn(options: &SidecarOptions) -> Self {
        let folder = Folder::new("sidecar");
        let redis = loopback(ports::free());
        let http = loopback(ports::free());
        let admin = loopback(ports::free());
        let mut command = command(options, &folder);
        // A test that sets an address itself wants exactly that one.
        for (flag, address) in [("--listen", redis), ("--http", http), ("--admin", admin)] {
            if !options.flags.iter().any(|given| given == flag) {
                command.arg(flag).arg(address.to_string());
            }
        }
        let process = Process::start("pannier-sidecar", &mut command, &folder.path().join("log"));
        Self {
            folder,
            redis,
            http,
            admin,
            process,
        }
    }

    /// Runs it to its end, for `--check` and `--version`: exit status and output.
    pub fn run_to_end(options: &SidecarOptions) -> (ExitStatus, String) {
        let folder = Folder::new("sidecar");
        let log = folder.path().join("log");
        let mut process = Process::start("pannier-sidecar", &mut command(options, &folder), &log);
        let status = process.wait(Duration::from_secs(10));
        (status, process.log())
    }

    /// Address of the Redis protocol.
    pub const fn address(&self) -> SocketAddr {
        self.redis
    }

    /// Address of the HTTP API.
    pub const fn http(&self) -> SocketAddr {
        self.http
    }

    /// Address of probes and metrics.
    pub const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// A connection that speaks RESP2.
    pub fn connect(&self) -> Wire {
        Wire::connect(self.redis)
    }

    /// A connection that speaks RESP3.
    pub fn connect_resp3(&self) -> Wire {
        Wire::connect_resp3(self.redis)
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its process.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its folder, with `config.yaml` in it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces its configuration file at once, as a mounted `ConfigMap` does.
    pub fn replace_config(&self, text: &str) {
        let path = self.folder.path().join("config.yaml");
        let text = text.replace("{folder}", &self.folder.path().display().to_string());
        let partial = self.folder.write("config.partial", &text);
        std::fs::rename(partial, path).expect("the folder is ours");
    }

    /// Asks it to end, as Kubernetes does.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.signal(Signal::SIGTERM);
        self.process.wait(Duration::from_secs(15))
    }

    /// `/metrics`.
    pub fn metrics(&self) -> String {
        http::get(self.admin, "/metrics")
            .expect("the admin port answers")
            .text()
    }

    /// The sum of a metric over all its labels that contain `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        self.metrics()
            .lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && line.contains(labels)
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// `/state`.
    pub fn state(&self) -> Json {
        http::get(self.admin, "/state")
            .expect("the admin port answers")
            .json()
    }

    /// Reads that the local tier has answered so far.
    pub fn hits(&self) -> f64 {
        self.metric("pannier_cache_requests_total", "result=\"hit\"")
    }

    /// Whether a read of `key` is answered by the local tier now.
    pub fn is_hit(&self, wire: &mut Wire, command: &str) -> bool {
        let before = self.hits();
        wire.run(command);
        self.hits() > before
    }

    /// Reads until the local tier answers.
    pub fn until_hit(&self, wire: &mut Wire, command: &str) {
        wait::until_true(&format!("{command} is answered locally"), || {
            self.is_hit(wire, command)
        });
    }

    /// Waits until the upstream is connected.
    pub fn until_connected(&self) {
        wait::until_true("the sidecar is connected to Redis", || {
            (self.metric("pannier_upstream_up", "") - 1.0).abs() < f64::EPSILON
        });
    }

    /// Waits until it knows that the upstream is gone.
    pub fn until_disconnected(&self) {
        wait::until_true("the sidecar has lost Redis", || {
            self.metric("pannier_upstream_up", "").abs() < f64::EPSILON
        });
    }
}

fn command(options: &SidecarOptions, folder: &Folder) -> Command {
    let here = folder.path().display().to_string();
    for (name, content) in &options.files {
        folder.write(name, content);
    }
    let mut command = Command::new(options.program.as_deref().unwrap_or_else(|| program()));
    // What the machine happens to have set must not reach the process under test.
    for (name, _) in std::env::vars() {
        if name.starts_with("PANNIER_") || name.starts_with("REDIS_") {
            command.env_remove(name);
        }
    }
    if options.with_config {
        let config = options.config.to_string().replace("{folder}", &here);
        command
            .arg("--config")
            .arg(folder.write("config.yaml", &config));
    }
    command.args(
        options
            .flags
            .iter()
            .map(|flag| flag.replace("{folder}", &here)),
    );
    command.envs(
        options
            .environment
            .iter()
            .map(|(name, value)| (name, value.replace("{folder}", &here))),
    );
    command
}

/// The binary: `$PANNIER_SIDECAR_BIN`, else built now, next to the running test.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("PANNIER_SIDECAR_BIN") {
            return path.into();
        }
        build("pannier-sidecar", "pannier-sidecar", &[])
    })
}

/// The binary with planted bugs: `$PANNIER_PLANTED_BIN`, else built now.
pub fn planted_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        std::env::var_os("PANNIER_PLANTED_BIN").map_or_else(
            || {
                build(
                    "pannier-sidecar",
                    "pannier-sidecar-planted",
                    &["--features", "planted-bugs"],
                )
            },
            PathBuf::from,
        )
    })
}

fn merge(into: &mut Json, more: Json) {
    match (into, more) {
        (Json::Object(into), Json::Object(more)) => {
            for (name, value) in more {
                merge(into.entry(name).or_insert(Json::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}
