//! A shard under its agents, without Kubernetes: each pod is a process `pannier-operator instance`
//! with a loopback address, a data folder and the real server as its child. All share one port,
//! one configuration and one folder of passwords, as pods do.

mod writer;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::{Value as Json, json};

use crate::{
    Engine, Wire,
    built::build,
    environment::unusable,
    http, ports,
    process::{Folder, Process},
    wait,
};

pub use writer::{Record, Writer};

/// What the Sentinels call the primary.
pub const MASTER: &str = "shard-0";

/// A shell's words to run a program with another `/etc/hosts`: `$0` is the file.
const IN_OWN_HOSTS: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;

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

/// Servers and Sentinels; all die with it.
pub struct Shard {
    folder: Folder,
    options: ShardOptions,
    ports: Ports,
    /// Servers, then Sentinels.
    pods: Vec<Pod>,
}

#[derive(Clone, Copy)]
struct Ports {
    server: u16,
    sentinel: u16,
    http: u16,
}

/// One pod.
pub struct Pod {
    name: String,
    address: IpAddr,
    data: PathBuf,
    process: Option<Process>,
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

impl Shard {
    /// Prepares folders, passwords and configuration; starts nothing.
    pub fn new(options: ShardOptions) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = Folder::new("shard");
        // 127.0.0.0/8 is ours: each shard has a block of its own there.
        let block = std::process::id().wrapping_mul(31) + NEXT.fetch_add(1, Ordering::Relaxed);
        let [_, _, high, low] = block.to_be_bytes();
        let address = |last: usize| {
            let last = u8::try_from(last).expect("a shard is small");
            IpAddr::V4(Ipv4Addr::new(127, high | 1, low, last))
        };
        let names = (0..options.servers)
            .map(|number| format!("t-shard-0-{number}"))
            .chain((0..options.sentinels).map(|number| format!("t-sentinel-{number}")));
        let pods = names.enumerate().map(|(number, name)| {
            let data = folder.path().join(&name);
            fs::create_dir_all(&data).expect("the folder is ours");
            Pod {
                address: address(number + 1),
                name,
                data,
                process: None,
            }
        });
        let pods = pods.collect();
        let ports = Ports {
            server: ports::free(),
            sentinel: ports::free(),
            http: ports::free(),
        };
        fs::create_dir_all(folder.path().join("auth")).expect("the folder is ours");
        let shard = Self {
            folder,
            options,
            ports,
            pods,
        };
        for user in ["default", "operator", "replica", "sidecar"] {
            shard.set_password(user, "current", Some(&format!("{user}-first")));
        }
        shard.write_config();
        shard
    }

    /// Starts everything and waits until it is formed.
    pub fn start(options: ShardOptions) -> Self {
        let mut shard = Self::new(options);
        shard.start_all();
        shard.until_formed();
        shard
    }

    /// By what the others know a pod.
    pub fn known_as(&self, number: usize) -> String {
        let pod = &self.pods[number];
        if self.options.named {
            format!("{}.pannier.test", pod.name)
        } else {
            pod.address.to_string()
        }
    }

    fn write_config(&self) {
        let list = |kind: &str| -> Vec<String> {
            let pods = (0..self.pods.len()).filter(|number| self.pods[*number].name.contains(kind));
            pods.map(|number| self.known_as(number)).collect()
        };
        let mut lines = vec!["127.0.0.1 localhost".to_owned()];
        for (number, pod) in self.pods.iter().enumerate() {
            // The file stands for the DNS, which agents ask for names with their final dot.
            let name = self.known_as(number);
            lines.push(format!("{} {name} {name}.", pod.address));
        }
        // In place: it is mounted over another file, by whose inode pods see it.
        self.folder.write("hosts", &(lines.join("\n") + "\n"));
        let config: serde_json::Map<String, Json> = self
            .options
            .config
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        for pod in &self.pods {
            let kind = if pod.is_sentinel() {
                "Sentinel"
            } else {
                "Server"
            };
            let port = if pod.is_sentinel() {
                self.ports.sentinel
            } else {
                self.ports.server
            };
            let mut file = json!({
                "tier": "ns/t",
                "kind": kind,
                "port": port,
                "servers": list("shard"),
                "serverPort": self.ports.server,
                "sentinels": list("sentinel"),
                "sentinelPort": self.ports.sentinel,
                "masterName": MASTER,
                "quorum": 2,
                "persistent": self.options.persistent && !pod.is_sentinel(),
                "data": pod.data.display().to_string(),
                "auth": self.folder.path().join("auth").display().to_string(),
                "config": config,
                "httpPort": self.ports.http,
                "gracePeriodSeconds": 30,
            });
            for (name, value) in self.options.more.as_object().into_iter().flatten() {
                file[name] = value.clone();
            }
            self.folder
                .write(&format!("{}.yaml", pod.name), &file.to_string());
        }
    }

    /// Changes a field of all instance configurations, as the operator changes the `ConfigMap`.
    pub fn change(&mut self, name: &str, value: Json) {
        self.options.more[name] = value;
        self.write_config();
    }

    /// Writes or removes a password, as the operator changes the Secret.
    pub fn set_password(&self, user: &str, slot: &str, password: Option<&str>) {
        let path = self
            .folder
            .path()
            .join("auth")
            .join(format!("{user}.{slot}"));
        match password {
            Some(password) => {
                let partial = path.with_extension("partial");
                fs::write(&partial, password).expect("the folder is ours");
                fs::rename(partial, path).expect("the folder is ours");
            }
            None => fs::remove_file(path).expect("the password was there"),
        }
    }

    // === life ===

    /// Starts every pod that does not run.
    pub fn start_all(&mut self) {
        for number in 0..self.pods.len() {
            if self.pods[number].process.is_none() {
                self.start_pod(number);
            }
        }
    }

    /// Starts a pod: servers are numbered first, then Sentinels.
    pub fn start_pod(&mut self, number: usize) {
        let config = self
            .folder
            .path()
            .join(format!("{}.yaml", self.pods[number].name));
        let programs = self.options.engine.programs();
        let programs = programs.unwrap_or_else(|error| unusable(&error.to_string()));
        let path = format!(
            "{}:{}",
            programs.display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let hosts = self.folder.path().join("hosts");
        let pod = &mut self.pods[number];
        let mut command = if self.options.named {
            let mut command = Command::new("unshare");
            command
                .args(["--mount", "sh", "-c", IN_OWN_HOSTS])
                .arg(hosts)
                .arg(program());
            command
        } else {
            Command::new(program())
        };
        command
            .args(["instance", "--config"])
            .arg(config)
            .env("PATH", path)
            .env("PANNIER_POD_NAME", &pod.name)
            .env("PANNIER_POD_IP", pod.address.to_string())
            // Process 1 of a container takes all others with it.
            .process_group(0);
        let log = self.folder.path().join(format!("{}.log", pod.name));
        pod.process = Some(Process::start(&pod.name, &mut command, &log));
    }

    /// Kills a container at once: agent and server.
    pub fn kill(&mut self, number: usize) {
        self.pods[number].kill();
    }

    /// Kills all containers at once.
    pub fn kill_all(&mut self) {
        for pod in &mut self.pods {
            pod.signal(Signal::SIGKILL);
        }
        for pod in &mut self.pods {
            pod.kill();
        }
    }

    /// Empties a pod's data folder: its volume is lost.
    pub fn wipe(&self, number: usize) {
        let data = &self.pods[number].data;
        fs::remove_dir_all(data).expect("the folder is ours");
        fs::create_dir_all(data).expect("the folder is ours");
    }

    /// Asks a container to end, as the kubelet does: the signal goes to process 1 only.
    pub fn terminate(&self, number: usize) {
        let process = self.pods[number].process.as_ref();
        process.expect("the pod runs").signal(Signal::SIGTERM);
    }

    /// Waits until a container has ended by itself.
    pub fn until_ended(&mut self, number: usize) -> ExitStatus {
        let process = self.pods[number].process.as_mut().expect("the pod runs");
        let status = process.wait(Duration::from_secs(40));
        self.pods[number].process = None;
        status
    }

    /// Stops a whole container from running without closing anything: unplugged, as far as others
    /// can tell.
    pub fn pause(&self, number: usize) {
        self.pods[number].signal(Signal::SIGSTOP);
    }

    /// Lets it run again.
    pub fn resume(&self, number: usize) {
        self.pods[number].signal(Signal::SIGCONT);
    }

    // === who is who ===

    /// Pods with servers.
    pub fn servers(&self) -> std::ops::Range<usize> {
        0..self.options.servers
    }

    /// Pods with Sentinels.
    pub fn sentinels(&self) -> std::ops::Range<usize> {
        self.options.servers..self.pods.len()
    }

    /// A pod.
    pub fn pod(&self, number: usize) -> &Pod {
        &self.pods[number]
    }

    /// Whether this machine lets a test give pods names of their own.
    pub fn can_be_named() -> Result<(), String> {
        let tried = Command::new("unshare")
            .args(["--mount", "sh", "-c", "mount --bind /etc/hosts /etc/hosts"])
            .output();
        match tried {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("unshare: {error}")),
        }
    }

    /// Gives a pod that does not run another address.
    pub fn move_pod(&mut self, number: usize) {
        let pod = &mut self.pods[number];
        assert!(pod.process.is_none(), "the pod runs");
        if let IpAddr::V4(address) = pod.address {
            let [_, high, low, last] = address.octets();
            pod.address = IpAddr::V4(Ipv4Addr::new(127, high, low, last + 100));
        }
        self.write_config();
    }

    /// The pod that others know by that address or name.
    pub fn number_of(&self, address: &str) -> usize {
        let found = (0..self.pods.len()).find(|number| self.known_as(*number) == address);
        found.unwrap_or_else(|| unusable(&format!("no pod has the address {address}")))
    }

    /// Where a pod's server or Sentinel listens.
    pub fn address(&self, number: usize) -> SocketAddr {
        let pod = &self.pods[number];
        let port = if pod.is_sentinel() {
            self.ports.sentinel
        } else {
            self.ports.server
        };
        SocketAddr::new(pod.address, port)
    }

    /// Where a pod's agent listens.
    pub fn agent(&self, number: usize) -> SocketAddr {
        SocketAddr::new(self.pods[number].address, self.ports.http)
    }

    /// A connection to a server or Sentinel, logged in.
    pub fn try_connect(&self, number: usize, user: &str, password: &str) -> Option<Wire> {
        let mut wire = Wire::try_connect(self.address(number)).ok()?;
        wire.patience(Duration::from_secs(3));
        let reply = wire.try_call(&["AUTH", user, password]).ok()?;
        (reply == "OK").then_some(wire)
    }

    /// A connection as the operator, with its first password.
    pub fn operator(&self, number: usize) -> Wire {
        wait::until("the operator logs in", || {
            self.try_connect(number, "operator", "operator-first")
        })
    }

    /// `/state` of an agent.
    pub fn state(&self, number: usize) -> Option<Json> {
        let answer = http::get(self.agent(number), "/state").ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// Status of one of the agent's paths.
    pub fn status(&self, number: usize, path: &str) -> Option<u16> {
        Some(http::get(self.agent(number), path).ok()?.status)
    }

    /// The primary that most Sentinels name.
    pub fn named(&self) -> Option<usize> {
        let mut names: Vec<usize> = self
            .sentinels()
            .filter_map(|number| {
                let mut wire = self.try_connect(number, "operator", "operator-first")?;
                let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
                let reply = wire.try_call(&command).ok()?;
                match &reply {
                    crate::Value::Array(items) => Some(self.number_of(&items.first()?.text())),
                    _ => None,
                }
            })
            .collect();
        names.sort_unstable();
        let (all, wanted) = (names.clone(), self.options.sentinels / 2 + 1);
        names.dedup();
        names
            .into_iter()
            .find(|name| all.iter().filter(|one| *one == name).count() >= wanted)
    }

    /// Waits until all pods that run are ready, and the Sentinels know them; the answer is the
    /// primary.
    pub fn until_formed(&self) -> usize {
        wait::until("the shard is formed", || self.formed())
    }

    fn formed(&self) -> Option<usize> {
        let running: Vec<usize> = (0..self.pods.len())
            .filter(|number| self.pods[*number].process.is_some())
            .collect();
        if !running
            .iter()
            .all(|number| self.status(*number, "/ready") == Some(200))
        {
            return None;
        }
        if self.options.sentinels == 0 {
            return Some(0);
        }
        let primary = self.named()?;
        let replicas = running
            .iter()
            .filter(|number| self.servers().contains(number))
            .count()
            - 1;
        let state = self.state(primary)?;
        let followers = state["server"]["replicas"].as_array()?;
        let online = followers
            .iter()
            .filter(|one| one["online"] == json!(true))
            .count();
        let is_open = state["frozen"].is_null() && state["server"]["role"] == "Primary";
        if online != replicas || !is_open {
            return None;
        }
        let known = self.sentinels().all(|number| {
            self.pods[number].process.is_none() || self.sees(number, replicas).unwrap_or(false)
        });
        known.then_some(primary)
    }

    /// Whether a Sentinel could choose every replica, and knows the other Sentinels.
    fn sees(&self, sentinel: usize, replicas: usize) -> Option<bool> {
        let mut wire = self.try_connect(sentinel, "operator", "operator-first")?;
        let reply = wire.try_call(&["SENTINEL", "REPLICAS", MASTER]).ok()?;
        let fit = |replica: &&crate::Value| {
            let text = replica.to_string();
            text.contains("flags slave ")
                && text.contains("master-link-status ok")
                && text.contains("slave-priority 100")
        };
        let fit = reply.items().iter().filter(fit).count();
        let others = wire.try_call(&["SENTINEL", "SENTINELS", MASTER]).ok()?;
        let up = |other: &&crate::Value| other.to_string().contains("flags sentinel ");
        let others = others.items().iter().filter(up).count();
        let running = self
            .sentinels()
            .filter(|number| self.pods[*number].process.is_some());
        Some(fit == replicas && others + 1 == running.count())
    }

    /// Everything a pod has logged.
    pub fn log(&self, number: usize) -> String {
        let path = self
            .folder
            .path()
            .join(format!("{}.log", self.pods[number].name));
        fs::read_to_string(path).unwrap_or_default()
    }
}

impl Pod {
    fn is_sentinel(&self) -> bool {
        self.name.contains("sentinel")
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Ends the server and leaves its agent alive, as the kernel does to the largest process when
    /// memory is short.
    pub fn kill_server(&self) {
        let id = self.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let child = wait::until("the agent has a child", || {
            children
                .as_ref()
                .ok()?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        });
        let _ = nix::sys::signal::kill(Pid::from_raw(child), Signal::SIGKILL);
    }

    /// Its first process.
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("the pod runs").id()
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            let group = i32::try_from(process.id()).expect("process ids are small");
            let _ = killpg(Pid::from_raw(group), signal);
        }
    }

    fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        for pod in &self.pods {
            // One that is stopped must not be left behind.
            pod.signal(Signal::SIGKILL);
        }
    }
}

/// The binary: `$PANNIER_OPERATOR_BIN`, else built now, next to the running test.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("PANNIER_OPERATOR_BIN") {
            return path.into();
        }
        build("pannier-operator", "pannier-operator", &[])
    })
}
