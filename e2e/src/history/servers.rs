//! The servers of a run, whichever way they are joined, and where direct clients find a key.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value as Json, json};

use super::stage::StageOptions;
use crate::{
    RedisServer, ServerOptions,
    cluster::{ClusterOptions, ClusterSet},
    environment::unusable,
    proxy::Proxy,
    sentinel::{MASTER, SentinelOptions, SentinelSet},
    server::loopback,
};

/// How Redis is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// One server.
    #[default]
    Standalone,
    /// A primary, two replicas, three Sentinels.
    Sentinel,
    /// Three primaries with a replica each.
    Cluster,
}

/// The servers.
pub enum Servers {
    /// One.
    One(RedisServer),
    /// Watched by Sentinels.
    Sentinel(SentinelSet),
    /// A cluster.
    Cluster(ClusterSet),
}

/// Where direct clients find keys: an address for each tag in [`Directory::tags`].
#[derive(Debug, Default)]
pub struct Directory {
    /// What is put into the names of keys, so that they lie in few slots.
    pub tags: Vec<&'static str>,
    addresses: Mutex<Vec<SocketAddr>>,
    /// Ports of proxies that servers announce, with their own.
    announced: HashMap<u16, u16>,
}

impl Way {
    /// Tags of the keys; in a cluster each has a slot of its own, one on every shard.
    pub fn tags(self) -> Vec<&'static str> {
        match self {
            Self::Standalone | Self::Sentinel => vec![""],
            // Slots 15495, 3300 and 7365.
            Self::Cluster => vec!["{a}", "{b}", "{c}"],
        }
    }
}

impl Servers {
    /// Starts them; `environment` is a single server's.
    pub fn start(options: &StageOptions, environment: Vec<(String, String)>) -> Self {
        let (engine, config) = (options.engine, &options.server);
        match options.way {
            Way::Standalone => Self::One(RedisServer::start(ServerOptions {
                engine,
                config: config.clone(),
                environment,
                ..ServerOptions::default()
            })),
            Way::Sentinel => Self::Sentinel(SentinelSet::start(&SentinelOptions {
                config: config.clone(),
                proxied: options.proxied,
                ..SentinelOptions::of(engine)
            })),
            Way::Cluster => Self::Cluster(ClusterSet::start(&ClusterOptions {
                config: config.clone(),
                proxied: options.proxied,
                ..ClusterOptions::of(engine).replicas(1)
            })),
        }
    }

    /// The only server.
    pub fn one(&self) -> &RedisServer {
        match self {
            Self::One(server) => server,
            _ => unusable("this fault is for a single server"),
        }
    }

    /// The only server.
    pub fn one_mut(&mut self) -> &mut RedisServer {
        match self {
            Self::One(server) => server,
            _ => unusable("this fault is for a single server"),
        }
    }

    /// The servers that Sentinels watch.
    pub fn sentinel(&mut self) -> &mut SentinelSet {
        match self {
            Self::Sentinel(set) => set,
            _ => unusable("this fault is for Sentinels"),
        }
    }

    /// The cluster.
    pub fn cluster(&mut self) -> &mut ClusterSet {
        match self {
            Self::Cluster(set) => set,
            _ => unusable("this fault is for a cluster"),
        }
    }

    /// Every server.
    pub fn all(&self) -> Vec<&RedisServer> {
        match self {
            Self::One(server) => vec![server],
            Self::Sentinel(set) => set.servers().iter().collect(),
            Self::Cluster(set) => set.nodes().iter().collect(),
        }
    }

    /// The proxies before servers that announce them, in the order of [`Self::all`].
    pub fn proxies(&self) -> &[Proxy] {
        match self {
            Self::One(_) => &[],
            Self::Sentinel(set) => set.proxies(),
            Self::Cluster(set) => set.proxies(),
        }
    }

    /// The proxies before those that accept writes.
    pub fn proxies_of_primaries(&self) -> Vec<&Proxy> {
        let ports: Vec<u16> = self.primaries().iter().map(|one| one.port()).collect();
        let all = self.all().into_iter().zip(self.proxies());
        all.filter(|(server, _)| ports.contains(&server.port()))
            .map(|(_, proxy)| proxy)
            .collect()
    }

    /// Those that accept writes.
    pub fn primaries(&self) -> Vec<&RedisServer> {
        match self {
            Self::One(server) => vec![server],
            Self::Sentinel(set) => vec![set.primary()],
            Self::Cluster(set) => set
                .nodes()
                .iter()
                .enumerate()
                .filter(|(node, _)| set.is_primary(*node))
                .map(|(_, server)| server)
                .collect(),
        }
    }

    /// `upstream` of a sidecar that reaches a single server over `port`.
    pub fn upstream(&self, port: u16) -> Json {
        match self {
            Self::One(_) => json!({"host": "127.0.0.1", "port": port}),
            Self::Sentinel(set) => {
                let ports = set.sentinel_ports();
                json!({
                    "mode": "Sentinel",
                    "host": "127.0.0.1",
                    "port": ports[0],
                    "seeds": seeds(&ports[1..]),
                    "sentinel": {"masterName": MASTER},
                })
            }
            Self::Cluster(set) => {
                let ports = if set.proxies().is_empty() {
                    set.ports()
                } else {
                    set.proxies()
                        .iter()
                        .map(|one| one.address().port())
                        .collect()
                };
                json!({
                    "mode": "Cluster",
                    "host": "127.0.0.1",
                    "port": ports[0],
                    "seeds": seeds(&ports[1..]),
                })
            }
        }
    }

    /// Where each tag is now.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::One(server) => vec![server.address()],
            Self::Sentinel(set) => vec![set.primary().address()],
            Self::Cluster(set) => Way::Cluster
                .tags()
                .iter()
                .map(|tag| set.node(set.owner_of(set.slot_of(tag))).address())
                .collect(),
        }
    }
}

fn seeds(ports: &[u16]) -> Vec<String> {
    ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect()
}

// === impl Directory ===

impl Directory {
    /// Of these servers.
    pub fn of(way: Way, servers: &Servers) -> Self {
        Self {
            tags: way.tags(),
            addresses: Mutex::new(servers.addresses()),
            announced: servers
                .proxies()
                .iter()
                .zip(servers.all())
                .map(|(proxy, server)| (proxy.address().port(), server.port()))
                .collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a tag is.
    pub fn find(&self, tag: usize) -> SocketAddr {
        self.lock()[tag]
    }

    /// All have moved.
    pub fn replace(&self, addresses: Vec<SocketAddr>) {
        *self.lock() = addresses;
    }

    /// A server said `MOVED slot host:port`.
    pub fn moved(&self, tag: usize, error: &str) {
        let port = error
            .strip_prefix("MOVED ")
            .and_then(|rest| rest.rsplit(':').next()?.trim().parse().ok());
        if let Some(port) = port {
            // Direct clients know no proxy.
            let port = self.announced.get(&port).copied().unwrap_or(port);
            self.lock()[tag] = loopback(port);
        }
    }
}
