//! The network of a cluster: a namespace per node and one, the hub, for the control plane, with a
//! bridge that joins them. None has a way out of the machine, so nothing can leave by mistake.

use std::{
    fs::File,
    io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};

use super::super::{Unavailable, programs::NodePrograms, run::Run, sweep};
use crate::debian::run;

/// Address of the control plane.
pub const HUB: &str = "10.77.0.254";

/// Where nodes look for a registry.
pub fn registry() -> SocketAddr {
    let hub = HUB.parse().expect("it is an address");
    SocketAddr::new(hub, 5000)
}

/// The namespaces of one cluster.
#[derive(Clone, Debug)]
pub struct Network {
    ip: PathBuf,
    hub: PathBuf,
    nodes: Vec<PathBuf>,
}

/// Address of node `number`, which is counted from 1.
pub fn node_address(number: usize) -> String {
    format!("10.77.0.{number}")
}

/// Addresses of the pods of node `number`.
pub fn pod_range(number: usize) -> String {
    format!("10.88.{number}.0/24")
}

impl Network {
    pub fn build(run: &Run, programs: &NodePrograms, nodes: usize) -> Result<Self, Unavailable> {
        let name = sweep::name(run.folder());
        let place =
            |part: &str| Path::new(sweep::NAMESPACES).join(format!("pannier-{name}-{part}"));
        let network = Self {
            ip: programs.ip(),
            hub: place("hub"),
            nodes: (1..=nodes)
                .map(|number| place(&format!("n{number}")))
                .collect(),
        };
        network.create().map_err(|error| {
            Unavailable::NotPermitted(format!(
                "it must create network namespaces and bridges: {error}"
            ))
        })?;
        Ok(network)
    }

    /// The namespace of the control plane.
    pub fn hub(&self) -> &PathBuf {
        &self.hub
    }

    /// The namespace of node `number`.
    pub fn node(&self, number: usize) -> &PathBuf {
        &self.nodes[number - 1]
    }

    /// Takes a node off the network, or joins it again. Both ends of its link see it.
    pub fn set_link(&self, number: usize, up: bool) {
        let state = if up { "up" } else { "down" };
        self.link_state(number, state)
            .unwrap_or_else(|error| crate::environment::unusable(&error.to_string()));
    }

    fn link_state(&self, number: usize, state: &str) -> Result<(), crate::debian::FetchError> {
        let link = format!("node{number}");
        self.ip(&self.hub, &["link", "set", &link, state])
    }

    fn create(&self) -> Result<(), crate::debian::FetchError> {
        for namespace in std::iter::once(&self.hub).chain(&self.nodes) {
            let mut add = Command::new(&self.ip);
            let name = namespace.file_name().unwrap_or_default();
            run(
                "create a network namespace",
                add.args(["netns", "add"]).arg(name),
            )?;
            self.ip(namespace, &["link", "set", "lo", "up"])?;
        }
        let hub = &self.hub;
        self.ip(hub, &["link", "add", "nodes", "type", "bridge"])?;
        self.ip(hub, &["addr", "add", &format!("{HUB}/24"), "dev", "nodes"])?;
        self.ip(hub, &["link", "set", "nodes", "up"])?;
        // Some programs want a default route before they believe in an address.
        self.ip(hub, &["route", "add", "default", "dev", "nodes"])?;
        // The kernel's view of each node on its own bridge traffic: replies of a Service to a pod
        // of the same node must pass the rules that changed the request.
        let _ = Command::new("modprobe").arg("br_netfilter").output();
        for number in 1..=self.nodes.len() {
            self.create_node(number)?;
        }
        for number in 1..=self.nodes.len() {
            let (pods, address) = (pod_range(number), node_address(number));
            let others = self
                .nodes
                .iter()
                .enumerate()
                .filter(|(i, _)| i + 1 != number);
            for place in others.map(|(_, node)| node).chain([hub]) {
                self.ip(place, &["route", "add", &pods, "via", &address])?;
            }
        }
        // The hub reaches Services by way of the first node's rules.
        let first = node_address(1);
        self.ip(hub, &["route", "add", "10.96.0.0/16", "via", &first])
    }

    fn create_node(&self, number: usize) -> Result<(), crate::debian::FetchError> {
        let node = self.node(number);
        let link = format!("node{number}");
        let peer = node.file_name().unwrap_or_default().to_string_lossy();
        self.ip(
            &self.hub,
            &[
                "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &peer,
            ],
        )?;
        self.ip(&self.hub, &["link", "set", &link, "master", "nodes", "up"])?;
        let address = format!("{}/24", node_address(number));
        self.ip(node, &["addr", "add", &address, "dev", "eth0"])?;
        self.ip(node, &["link", "set", "eth0", "up"])?;
        self.ip(node, &["route", "add", "default", "via", HUB])?;
        set_kernel(node, "net/ipv4/ip_forward")?;
        // Absent in kernels without it; then Services reach pods of other nodes only.
        let _ = set_kernel(node, "net/bridge/bridge-nf-call-iptables");
        Ok(())
    }

    fn ip(&self, namespace: &Path, arguments: &[&str]) -> Result<(), crate::debian::FetchError> {
        let mut command = enter(namespace, &self.ip);
        run(
            &format!("ip {}", arguments.join(" ")),
            command.args(arguments),
        )
    }
}

/// A command in a network namespace. Not `ip netns exec`: that hides the control groups.
pub fn enter(namespace: &Path, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", namespace.display()))
        .arg("--")
        .arg(program);
    command
}

fn set_kernel(namespace: &Path, name: &str) -> Result<(), crate::debian::FetchError> {
    let mut write = enter(namespace, Path::new("sh"));
    run(
        &format!("set {name}"),
        write.args(["-c", &format!("echo 1 > /proc/sys/{name}")]),
    )
}

/// Connects from within a network namespace; the connection can be used everywhere.
pub fn dial(namespace: &Path, to: SocketAddr) -> io::Result<TcpStream> {
    let namespace = File::open(namespace)?;
    // A thread of its own: the namespace is a property of the thread, and it ends with it.
    let thread = std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
        TcpStream::connect_timeout(&to, Duration::from_secs(5))
    });
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the connecting thread failed")))
}
