//! Keeps the packet filters of all nodes in step with policies and pods, and collects what they noted.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use e2e::kubernetes::{Cluster, NodePrograms, blocking};
use kube::{Api, Client, api::ListParams};

use super::policy_rules::{Filter, Flow, Seen, TABLE};
use crate::world::World;

/// Between two looks at the cluster. New pods are free for so long, and unknown to others.
const REST: Duration = Duration::from_millis(200);

/// Running; stop it to have the filters removed.
pub struct Enforcer {
    world: &'static World,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Told>>,
}

/// What the filters noted.
#[derive(Debug, Default)]
pub struct Told {
    /// Rule sets that were put in force.
    pub applied: usize,
    /// Connections that were dropped, before and after the look that followed.
    pub dropped: BTreeSet<Flow>,
    /// Connections that passed.
    pub passed: BTreeSet<Flow>,
    /// Rules that no connection needed.
    pub unused: BTreeSet<String>,
}

// === impl Enforcer ===

impl Enforcer {
    /// Enforced when it returns.
    pub fn start(world: &'static World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let first = blocking(look(world.cluster));
        world.nft(&first.script());
        let thread = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || blocking(follow(world, first, &stop)))
        };
        Self {
            world,
            stop,
            thread: Some(thread),
        }
    }

    /// Removes the filters; gives what they noted.
    pub fn stop(mut self) -> Told {
        self.stop.store(true, Relaxed);
        let told = self.thread.take().unwrap().join();
        told.unwrap()
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.world
            .nft(&format!("table inet {TABLE}\ndelete table inet {TABLE}\n"));
    }
}

async fn look(cluster: &Cluster) -> Filter {
    read(&cluster.client().await).await
}

async fn read(client: &Client) -> Filter {
    Filter::of(&Seen {
        policies: list(Api::all(client.clone())).await,
        pods: list(Api::all(client.clone())).await,
        namespaces: list(Api::all(client.clone())).await,
    })
}

async fn list<K>(api: Api<K>) -> Vec<K>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    api.list(&ListParams::default()).await.unwrap().items
}

async fn follow(world: &'static World, first: Filter, stop: &AtomicBool) -> Told {
    let client = world.cluster.client().await;
    let mut told = Told {
        applied: 1,
        ..Told::default()
    };
    let mut used = BTreeSet::new();
    let mut names: BTreeSet<String> = first.names().collect();
    let mut pods = first.pods().clone();
    let mut filter = first;
    loop {
        let last = stop.load(Relaxed);
        let now = read(&client).await;
        names.extend(now.names());
        pods.extend(now.pods());
        let is_gone = |address: &Ipv4Addr| pods.contains(address) && !now.pods().contains(address);
        // Before the sets are replaced together with the rules.
        for flow in noted(world.cluster, "passed") {
            used.extend(filter.used(&flow));
            told.passed.insert(flow);
        }
        for flow in noted(world.cluster, "dropped") {
            // A pod that was not known yet, or is gone, is no fault of the policies.
            let between = !is_gone(&flow.from) && !is_gone(&flow.to);
            if between && filter.drops(&flow) && now.drops(&flow) {
                told.dropped.insert(flow);
            }
        }
        if last {
            told.unused = names.difference(&used).cloned().collect();
            return told;
        }
        if now != filter {
            world.nft(&now.script());
            told.applied += 1;
            filter = now;
        }
        tokio::time::sleep(REST).await;
    }
}

/// The flows in a set, of all nodes.
fn noted(cluster: &Cluster, set: &str) -> BTreeSet<Flow> {
    let nft = NodePrograms::get().unwrap().tools_folder().join("nft");
    let mut flows = BTreeSet::new();
    for node in cluster.nodes() {
        let mut command: Command = node.command(&nft);
        let listed = command
            .args(["-n", "list", "set", "inet", TABLE, set])
            .output();
        let listed = listed.unwrap();
        assert!(listed.status.success(), "{listed:?}");
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        let elements = text.split_once("elements = {").map_or("", |(_, rest)| rest);
        let elements = elements.split('}').next().unwrap_or_default();
        flows.extend(elements.split(',').filter_map(flow));
    }
    flows
}

/// Such as `10.88.1.3 . 10.88.2.4 . 6 . 6379`.
fn flow(text: &str) -> Option<Flow> {
    let parts: Vec<&str> = text.split(" . ").map(str::trim).collect();
    let [from, to, protocol, port] = parts.as_slice() else {
        return None;
    };
    let protocol = match *protocol {
        "6" | "tcp" => "tcp",
        "17" | "udp" => "udp",
        other => other,
    };
    Some(Flow {
        from: from.parse::<Ipv4Addr>().ok()?,
        to: to.parse().ok()?,
        protocol: protocol.to_owned(),
        // Followed by the time at which it will be forgotten, if it will.
        port: port.split_whitespace().next()?.parse().ok()?,
    })
}
