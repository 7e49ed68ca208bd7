//! Network policies and pods as packets see them: addresses and ports. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::Ipv4Addr,
};

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Pod},
        networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::ResourceExt as _;

/// One new connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    pub protocol: String,
    pub port: u16,
}

/// One rule of a policy for one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Policy and port, for people.
    pub name: String,
    /// Whose rule it is.
    pods: BTreeSet<Ipv4Addr>,
    /// With whom; none is everybody.
    peers: Option<BTreeSet<Ipv4Addr>>,
    protocol: String,
    port: u16,
}

/// All policies of a cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pods: BTreeSet<Ipv4Addr>,
    ingress: Half,
    egress: Half,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Half {
    isolated: BTreeSet<Ipv4Addr>,
    allowed: Vec<Allowed>,
}

/// What is in the cluster.
pub struct Seen {
    pub policies: Vec<NetworkPolicy>,
    pub pods: Vec<Pod>,
    pub namespaces: Vec<Namespace>,
}

// === impl Filter ===

impl Filter {
    /// What the policies mean now.
    pub fn of(seen: &Seen) -> Self {
        let mut filter = Self {
            pods: seen.pods.iter().filter_map(address).collect(),
            ..Self::default()
        };
        for policy in &seen.policies {
            let Some(spec) = &policy.spec else { continue };
            let namespace = policy.namespace().unwrap_or_default();
            let name = format!("{namespace}/{}", policy.name_any());
            let selector = spec.pod_selector.clone().unwrap_or_default();
            let pods: Vec<&Pod> = seen
                .pods
                .iter()
                .filter(|pod| pod.namespace().as_deref() == Some(&namespace))
                .filter(|pod| selects(&selector, pod.labels()))
                .collect();
            let addresses: BTreeSet<Ipv4Addr> = pods.iter().copied().filter_map(address).collect();
            for rule in spec.ingress.iter().flatten() {
                let peers = seen.peers(&namespace, rule.from.as_ref());
                for port in rule.ports.iter().flatten() {
                    filter.ingress.allow(
                        &name,
                        "in",
                        &addresses,
                        peers.as_ref(),
                        number(port, &pods),
                    );
                }
            }
            for rule in spec.egress.iter().flatten() {
                let peers = seen.peers(&namespace, rule.to.as_ref());
                for port in rule.ports.iter().flatten() {
                    filter.egress.allow(
                        &name,
                        "out",
                        &addresses,
                        peers.as_ref(),
                        number(port, &pods),
                    );
                }
            }
            for kind in spec.policy_types.iter().flatten() {
                let half = if kind == "Ingress" {
                    &mut filter.ingress
                } else {
                    &mut filter.egress
                };
                half.isolated.extend(&addresses);
            }
        }
        filter
    }

    /// Whether a new connection is dropped.
    pub fn drops(&self, flow: &Flow) -> bool {
        self.egress.drops(flow, flow.from, flow.to) || self.ingress.drops(flow, flow.to, flow.from)
    }

    /// Addresses of all pods.
    pub const fn pods(&self) -> &BTreeSet<Ipv4Addr> {
        &self.pods
    }

    /// Names of the rules that let a connection pass.
    pub fn used(&self, flow: &Flow) -> Vec<String> {
        let out = self.egress.matching(flow, flow.from, flow.to);
        let into = self.ingress.matching(flow, flow.to, flow.from);
        out.chain(into).map(|one| one.name.clone()).collect()
    }

    /// Names of all rules.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        let all = self.egress.allowed.iter().chain(&self.ingress.allowed);
        all.map(|one| one.name.clone())
    }

    /// As a script for `nft` that replaces the one before. What was dropped and what passed is
    /// noted in sets.
    pub fn script(&self) -> String {
        let set = |name: &str| {
            format!(
                "  set {name} {{\n    type ipv4_addr . ipv4_addr . inet_proto . inet_service\n    flags dynamic\n    \
                 size 65535\n  }}\n"
            )
        };
        let mut text = format!(
            "table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n{}{}",
            set("dropped"),
            set("passed")
        );
        for (name, half, own, other) in [
            ("egress", &self.egress, "saddr", "daddr"),
            ("ingress", &self.ingress, "daddr", "saddr"),
        ] {
            let _ = writeln!(text, "  chain {name} {{");
            for rule in &half.allowed {
                if rule.pods.is_empty() {
                    continue;
                }
                let peers = match &rule.peers {
                    None => String::new(),
                    Some(peers) if peers.is_empty() => continue,
                    Some(peers) => format!(" ip {other} {}", list(peers)),
                };
                let (pods, protocol, port) = (list(&rule.pods), &rule.protocol, rule.port);
                let _ = writeln!(
                    text,
                    "    ip {own} {pods}{peers} {protocol} dport {port} return"
                );
            }
            if !half.isolated.is_empty() {
                let isolated = list(&half.isolated);
                let _ = writeln!(
                    text,
                    "    ip {own} {isolated} update @dropped {{ {FLOW} }} drop"
                );
            }
            text.push_str("  }\n");
        }
        let _ = write!(
            text,
            "  chain forward {{\n    type filter hook forward priority -5; policy accept;\n    ct state \
             established,related accept\n    jump egress\n    jump ingress\n    update @passed {{ {FLOW} }}\n  }}\n}}\n"
        );
        text
    }
}

/// Its name on the nodes.
pub const TABLE: &str = "pannier_policies";
const FLOW: &str = "ip saddr . ip daddr . meta l4proto . th dport";

fn list(addresses: &BTreeSet<Ipv4Addr>) -> String {
    let all: Vec<String> = addresses.iter().map(|one| one.to_string()).collect();
    format!("{{ {} }}", all.join(", "))
}

impl Half {
    fn allow(
        &mut self,
        policy: &str,
        way: &str,
        pods: &BTreeSet<Ipv4Addr>,
        peers: Option<&BTreeSet<Ipv4Addr>>,
        (protocol, port): (String, u16),
    ) {
        self.allowed.push(Allowed {
            name: format!("{policy} {way} {protocol} {port}"),
            pods: pods.clone(),
            peers: peers.cloned(),
            protocol,
            port,
        });
    }

    fn matching<'a>(
        &'a self,
        flow: &'a Flow,
        own: Ipv4Addr,
        other: Ipv4Addr,
    ) -> impl Iterator<Item = &'a Allowed> {
        self.allowed.iter().filter(move |rule| {
            rule.pods.contains(&own)
                && rule
                    .peers
                    .as_ref()
                    .is_none_or(|peers| peers.contains(&other))
                && rule.protocol == flow.protocol
                && rule.port == flow.port
        })
    }

    fn drops(&self, flow: &Flow, own: Ipv4Addr, other: Ipv4Addr) -> bool {
        self.isolated.contains(&own) && self.matching(flow, own, other).next().is_none()
    }
}

impl Seen {
    fn peers(
        &self,
        namespace: &str,
        peers: Option<&Vec<NetworkPolicyPeer>>,
    ) -> Option<BTreeSet<Ipv4Addr>> {
        let peers = peers.filter(|peers| !peers.is_empty())?;
        let labels: BTreeMap<String, &BTreeMap<String, String>> = self
            .namespaces
            .iter()
            .map(|one| (one.name_any(), one.labels()))
            .collect();
        let meant = |pod: &&Pod| {
            let own = pod.namespace().unwrap_or_default();
            peers.iter().any(|peer| {
                let there = match &peer.namespace_selector {
                    None => own == namespace,
                    Some(selector) => labels.get(&own).is_some_and(|one| selects(selector, one)),
                };
                let selector = peer.pod_selector.clone().unwrap_or_default();
                there && selects(&selector, pod.labels())
            })
        };
        Some(self.pods.iter().filter(meant).filter_map(address).collect())
    }
}

/// Of a pod with a network of its own that has not ended.
fn address(pod: &Pod) -> Option<Ipv4Addr> {
    let phase = pod.status.as_ref()?.phase.as_deref();
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten();
    let mut equal = equal.map(|(name, value)| labels.get(name) == Some(value));
    let mut expressions = selector.match_expressions.iter().flatten().map(|one| {
        let value = labels.get(&one.key);
        let listed =
            || value.is_some_and(|value| one.values.iter().flatten().any(|one| one == value));
        match one.operator.as_str() {
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "In" => listed(),
            _ => !listed(),
        }
    });
    equal.all(|yes| yes) && expressions.all(|yes| yes)
}

/// Protocol and number of a port; by name it is that of the selected pods' containers.
fn number(port: &NetworkPolicyPort, pods: &[&Pod]) -> (String, u16) {
    let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
    let number = match port.port.as_ref().unwrap() {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let specs = pods.iter().filter_map(|pod| pod.spec.as_ref());
            let containers = specs.flat_map(|spec| &spec.containers);
            let mut ports = containers.flat_map(|one| one.ports.iter().flatten());
            let found = ports.find(|one| one.name.as_ref() == Some(name));
            // Without a pod the rule means nothing.
            found.map_or(0, |one| one.container_port)
        }
    };
    (protocol, u16::try_from(number).unwrap())
}
