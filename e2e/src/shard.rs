//! A shard under its agents, without Kubernetes: each pod is a process `pannier-operator instance`
//! with a loopback address, a data folder and the real server as its child. All share one port,
//! one configuration and one folder of passwords, as pods do.

mod options;
mod pod;
mod roles;
mod writer;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value as Json, json};

use crate::{
    built::build,
    environment::unusable,
    ports,
    process::{Folder, Process},
};

pub use options::ShardOptions;
pub use pod::Pod;
pub use writer::{Record, Writer};

/// What the Sentinels call the primary.
pub const MASTER: &str = "shard-0";

/// A shell's words to run a program with another `/etc/hosts`: `$0` is the file.
const IN_OWN_HOSTS: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;

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
            let port = self.port_of(pod);
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

    fn port_of(&self, pod: &Pod) -> u16 {
        if pod.is_sentinel() {
            self.ports.sentinel
        } else {
            self.ports.server
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

    /// Runs `accept-loss` in a pod, as a person would.
    pub fn accept_loss(&self, number: usize) -> Output {
        Command::new(program())
            .args(["accept-loss", "--config"])
            .arg(self.config_of(number))
            .output()
            .expect("the program runs")
    }

    fn config_of(&self, number: usize) -> PathBuf {
        let file = format!("{}.yaml", self.pods[number].name);
        self.folder.path().join(file)
    }

    /// Starts a pod: servers are numbered first, then Sentinels.
    pub fn start_pod(&mut self, number: usize) {
        let config = self.config_of(number);
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
