//! The servers that are measured side by side, and how each is started.

use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};
use crate::load::{KEYS, VALUE_BYTES};
use crate::process::{Core, Folder, Launch, Process, free_port};
use crate::redis::{Client, encode, key};
use crate::sidecar::{Settings, Sidecar};
use crate::tools::Tools;

/// Keys that the last rule matches.
pub const MATCHED: &str = "bench:kv:";
/// Keys that no rule matches, of the same length.
pub const UNMATCHED: &str = "other:kv:";
/// Keyspace prefix of the pass-through with a prefix.
const PREFIX: &str = "bench-prefix:";

/// `local.memory` in which few of the keys have room.
const TINY: &str = "1Mi";

/// One kind of server or of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Kind {
    /// Fixed replies, `floor.c`.
    Floor,
    /// redis-server, direct.
    Redis,
    /// Sidecar, every key in the local tier.
    Hit,
    /// The same, built without the guards of coherence.
    Unguarded,
    /// Sidecar, keys of no rule.
    Pass,
    /// Sidecar in front of a cluster of three shards, keys of no rule.
    Cluster,
    /// Sidecar with a keyspace prefix, keys of no rule.
    Prefix,
    /// Sidecar, a tier far too small: miss, fetch, fill, evict.
    Miss,
    /// twemproxy.
    Twemproxy,
    /// Envoy's Redis proxy.
    Envoy,
}

impl Kind {
    /// Those that are measured side by side, in the order of the table.
    pub const ALL: [Self; 9] = [
        Self::Floor,
        Self::Redis,
        Self::Hit,
        Self::Pass,
        Self::Cluster,
        Self::Prefix,
        Self::Miss,
        Self::Twemproxy,
        Self::Envoy,
    ];

    /// Row of the table.
    pub fn label(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Redis => "redis-server",
            Self::Hit => "pannier hit",
            Self::Unguarded => "pannier hit, unguarded build",
            Self::Pass => "pannier pass-through",
            Self::Cluster => "pannier pass-through, 3 shards",
            Self::Prefix => "pannier pass-through, prefix",
            Self::Miss => "pannier miss + fill",
            Self::Twemproxy => "twemproxy",
            Self::Envoy => "Envoy",
        }
    }
}

/// Everything that targets are started with.
#[derive(Debug)]
pub struct Lab {
    /// Programs.
    pub tools: Tools,
    /// Logs and generated files.
    pub folder: Folder,
    /// The sidecar, or why there is none.
    pub sidecar: Result<PathBuf, String>,
    /// The same without guards, or why there is none.
    pub unguarded: Result<PathBuf, String>,
    /// Core of the process under test.
    pub target_core: Core,
    /// Core of everything else.
    pub load_core: Core,
    /// Port of the Redis behind the proxies.
    pub backend: u16,
    /// Keeps that Redis running.
    pub _backend: Process,
}

/// A running server with the keys it is asked for.
#[derive(Debug)]
pub struct Target {
    /// Row of the table.
    pub label: String,
    /// The process under test.
    pub process: Process,
    /// Its port.
    pub port: u16,
    /// What stands before the digits of the keys.
    pub prefix: &'static str,
    /// Whether the share of hits is worth reporting.
    pub caches: bool,
    /// Servers of its own that run as long as it does.
    pub behind: Vec<Process>,
}

/// Starts a Redis without persistence.
pub fn start_redis(
    name: &str,
    tools: &Tools,
    folder: &Folder,
    core: Core,
) -> Outcome<(Process, u16)> {
    start_redis_with(name, tools, folder, core, &[])
}

/// The same with further settings.
pub fn start_redis_with(
    name: &str,
    tools: &Tools,
    folder: &Folder,
    core: Core,
    more: &[&str],
) -> Outcome<(Process, u16)> {
    let port = free_port()?;
    let port_text = port.to_string();
    let mut args = vec![
        "--port",
        &port_text,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--maxclients",
        "12000",
        "--loglevel",
        "warning",
    ];
    args.extend_from_slice(more);
    let mut process = Process::start(name, &tools.redis(&args, core), folder.path())?;
    process.wait_for_port(port)?;
    Ok((process, port))
}

/// Writes every key that any target asks for.
pub fn load_backend(port: u16) -> Outcome<()> {
    let mut client = Client::connect(port)?;
    let prefixed = format!("{PREFIX}{UNMATCHED}");
    for prefix in [MATCHED, UNMATCHED, &prefixed] {
        client.load(prefix, KEYS, VALUE_BYTES)?;
    }
    Ok(())
}

impl Lab {
    /// Starts one target, ready to be measured.
    pub fn start(&self, kind: Kind) -> Outcome<Target> {
        let plain = Settings::new(self.backend, self.target_core);
        match kind {
            Kind::Floor => self.start_floor(),
            Kind::Redis => {
                let (process, port) =
                    start_redis("redis", &self.tools, &self.folder, self.target_core)?;
                Client::connect(port)?.load(MATCHED, KEYS, VALUE_BYTES)?;
                Ok(target(kind, process, port, MATCHED))
            }
            Kind::Hit => self.start_sidecar(kind.label(), &plain, MATCHED),
            Kind::Unguarded => {
                let binary = self.unguarded.clone().map_err(Failure::Missing)?;
                self.start_binary(&binary, kind.label(), &plain, MATCHED)
            }
            Kind::Cluster => {
                let (behind, port) =
                    crate::cluster::start(3, &self.tools, &self.folder, self.load_core)?;
                let settings = Settings {
                    upstream: port,
                    cluster: true,
                    ..plain
                };
                let mut target = self.start_sidecar(kind.label(), &settings, UNMATCHED)?;
                target.behind = behind;
                Ok(target)
            }
            Kind::Pass => self.start_sidecar(kind.label(), &plain, UNMATCHED),
            Kind::Prefix => {
                let settings = Settings {
                    prefix: PREFIX,
                    ..plain
                };
                self.start_sidecar(kind.label(), &settings, UNMATCHED)
            }
            Kind::Miss => {
                let settings = Settings {
                    memory: TINY,
                    ..plain
                };
                self.start_sidecar(kind.label(), &settings, MATCHED)
            }
            Kind::Twemproxy => self.start_twemproxy(),
            Kind::Envoy => self.start_envoy(),
        }
    }

    fn start_floor(&self) -> Outcome<Target> {
        let mut request = String::new();
        encode(&mut request, &["GET", &key(MATCHED, 0)]);
        let port = free_port()?;
        let args = [&*port.to_string(), &*request.len().to_string()];
        let launch = Launch {
            core: self.target_core,
            ..Launch::new(&self.tools.floor, &args)
        };
        let mut process = Process::start("floor", &launch, self.folder.path())?;
        process.wait_for_port(port)?;
        Ok(target(Kind::Floor, process, port, MATCHED))
    }

    /// The sidecar's path, or why there is none.
    pub fn binary(&self) -> Outcome<&PathBuf> {
        self.sidecar
            .as_ref()
            .map_err(|reason| Failure::Missing(reason.clone()))
    }

    /// Starts a sidecar whose keys have all been read once; with a tier that is large enough they
    /// are read until none of them goes to Redis any more.
    pub fn start_sidecar(
        &self,
        label: &str,
        settings: &Settings,
        prefix: &'static str,
    ) -> Outcome<Target> {
        self.start_binary(self.binary()?, label, settings, prefix)
    }

    fn start_binary(
        &self,
        binary: &Path,
        label: &str,
        settings: &Settings,
        prefix: &'static str,
    ) -> Outcome<Target> {
        let name = label.replace([' ', ','], "-");
        let sidecar = Sidecar::start(&name, binary, settings, &self.folder)?;
        let mut client = Client::connect(sidecar.port)?;
        if settings.cluster {
            client.load(prefix, KEYS, VALUE_BYTES)?;
        }
        client.read_all(prefix, KEYS)?;
        let caches = prefix == MATCHED;
        if caches && settings.memory != TINY {
            let share = self.warm(&mut client)?;
            if share < 0.99 {
                println!("  {label}: only {:.1} % hits after warming", share * 100.0);
            }
        }
        let (process, port) = (sidecar.process, sidecar.port);
        Ok(Target {
            label: label.to_owned(),
            process,
            port,
            prefix,
            caches,
            behind: Vec::new(),
        })
    }

    fn warm(&self, client: &mut Client) -> Outcome<f64> {
        let mut redis = Client::connect(self.backend)?;
        let mut share = 0.0;
        for _ in 0..5 {
            let before = redis.gets()?;
            client.read_all(MATCHED, KEYS)?;
            share = 1.0 - (redis.gets()? - before) as f64 / f64::from(KEYS);
            if share > 0.999 {
                break;
            }
        }
        Ok(share)
    }

    fn start_twemproxy(&self) -> Outcome<Target> {
        let (port, statistics) = (free_port()?, free_port()?);
        let config = format!(
            "bench:\n  listen: 127.0.0.1:{port}\n  hash: fnv1a_64\n  distribution: modula\n  \
             redis: true\n  preconnect: true\n  servers:\n   - 127.0.0.1:{}:1\n",
            self.backend
        );
        let config = self
            .folder
            .write("twemproxy.yaml", &config)?
            .display()
            .to_string();
        let statistics = statistics.to_string();
        // Without -o it insists on a log below /var/log.
        let args = [
            "-c",
            &config,
            "-a",
            "127.0.0.1",
            "-s",
            &statistics,
            "-o",
            "/dev/null",
        ];
        let launch = self.tools.twemproxy(&args, self.target_core)?;
        let mut process = Process::start("twemproxy", &launch, self.folder.path())?;
        process.wait_for_port(port)?;
        Ok(target(Kind::Twemproxy, process, port, MATCHED))
    }

    fn start_envoy(&self) -> Outcome<Target> {
        let port = free_port()?;
        let config = include_str!("../envoy.yaml")
            .replace("LISTEN_PORT", &port.to_string())
            .replace("REDIS_PORT", &self.backend.to_string());
        let config = self
            .folder
            .write("envoy.yaml", &config)?
            .display()
            .to_string();
        let args = [
            "-c",
            &config,
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "-l",
            "error",
        ];
        let launch = self.tools.envoy(&args, self.target_core)?;
        let mut process = Process::start("envoy", &launch, self.folder.path())?;
        process.wait_for_port(port)?;
        Ok(target(Kind::Envoy, process, port, MATCHED))
    }
}

fn target(kind: Kind, process: Process, port: u16, prefix: &'static str) -> Target {
    Target {
        label: kind.label().to_owned(),
        process,
        port,
        prefix,
        caches: false,
        behind: Vec::new(),
    }
}
