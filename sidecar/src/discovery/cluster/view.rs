//! What a node says about the cluster, read and checked.
//!
//! Slots may be nobody's. What cannot be true at once is refused: the caller keeps what it knew.

use std::collections::HashMap;

use super::super::ask;
use crate::{
    resp::reply::Value,
    upstream::topology::{Address, MAX_NODES, NOBODY, Node, SLOTS, Topology, no_slots},
};

/// Why a description cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Untrusted {
    #[error("the answer has not the form of {0}")]
    Form(&'static str),
    #[error("slots from {0} to {1}: a cluster has 0 to 16383")]
    Range(i64, i64),
    #[error("slot {slot} has two owners, {one} and {other}")]
    TwoOwners {
        slot: usize,
        one: String,
        other: String,
    },
    #[error("a shard with slots has no primary")]
    NoPrimary,
    #[error("a shard has {0} primaries that live")]
    SeveralPrimaries(usize),
    #[error("{address} is two nodes, {one} and {other}")]
    SameAddress {
        address: Address,
        one: String,
        other: String,
    },
    #[error("more than {MAX_NODES} nodes")]
    TooMany,
    #[error("node {0} has no port to connect to")]
    Port(String),
    #[error("node {0} has a host that is none: {1:?}")]
    Host(String, String),
}

impl Untrusted {
    /// Whether the older `CLUSTER SLOTS`, which names the owner of each range, may say more.
    pub(super) fn is_ambiguous(&self) -> bool {
        matches!(self, Self::NoPrimary | Self::SeveralPrimaries(_))
    }
}

/// Reads `CLUSTER SHARDS`. `asked` is the host that answered; `tls` chooses between the ports.
pub(crate) fn shards(reply: &Value<'_>, asked: &str, tls: bool) -> Result<Topology, Untrusted> {
    const FORM: Untrusted = Untrusted::Form("CLUSTER SHARDS");
    let mut builder = Builder::default();
    for shard in reply.list().ok_or(FORM)? {
        let slots = shard.field(b"slots").and_then(Value::list).ok_or(FORM)?;
        let nodes = shard.field(b"nodes").and_then(Value::list).ok_or(FORM)?;
        builder.count(nodes.len())?;
        // A node that owns nothing serves nothing.
        if slots.is_empty() {
            continue;
        }
        let members = nodes
            .iter()
            .map(|node| Member::of_shard(node, asked, tls).ok_or(FORM)?)
            .collect::<Result<Vec<_>, _>>()?;
        let index = builder.add(shard_of(members)?)?;
        let (ranges, odd) = slots.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(FORM);
        }
        for [first, last] in ranges {
            match (first, last) {
                (Value::Integer(first), Value::Integer(last)) => {
                    builder.own(index, *first, *last)?;
                }
                _ => return Err(FORM),
            }
        }
    }
    Ok(builder.finish())
}

/// Reads `CLUSTER SLOTS`, which servers without `CLUSTER SHARDS` have.
pub(crate) fn slots(reply: &Value<'_>, asked: &str) -> Result<Topology, Untrusted> {
    const FORM: Untrusted = Untrusted::Form("CLUSTER SLOTS");
    let mut builder = Builder::default();
    for row in reply.list().ok_or(FORM)? {
        let [
            Value::Integer(first),
            Value::Integer(last),
            primary,
            replicas @ ..,
        ] = row.list().ok_or(FORM)?
        else {
            return Err(FORM);
        };
        builder.count(1 + replicas.len())?;
        let primary = Member::of_row(primary, asked).ok_or(FORM)??;
        let replicas = replicas
            .iter()
            .map(|replica| Ok(Member::of_row(replica, asked).ok_or(FORM)??.address))
            .collect::<Result<Vec<_>, Untrusted>>()?;
        let index = builder.add(Node {
            id: primary.id,
            primary: primary.address,
            replicas,
        })?;
        builder.own(index, *first, *last)?;
    }
    Ok(builder.finish())
}

/// The primary of a shard and its replicas that can be read from.
fn shard_of(members: Vec<Member>) -> Result<Node, Untrusted> {
    let mut living = Vec::new();
    let mut dead = Vec::new();
    let mut replicas = Vec::new();
    for member in members {
        match (member.is_primary, member.has_failed) {
            (true, false) => living.push(member),
            (true, true) => dead.push(member),
            (false, false) => replicas.push(member.address),
            (false, true) => {}
        }
    }
    // After a fail-over the dead primary is listed beside the new one until it comes back.
    let primaries = if living.is_empty() { dead } else { living };
    let count = primaries.len();
    let mut primaries = primaries.into_iter();
    match (primaries.next(), count) {
        (Some(primary), 1) => Ok(Node {
            id: primary.id,
            primary: primary.address,
            replicas,
        }),
        (None, _) => Err(Untrusted::NoPrimary),
        (Some(_), _) => Err(Untrusted::SeveralPrimaries(count)),
    }
}

/// One node, as an answer has it.
struct Member {
    id: String,
    address: Address,
    is_primary: bool,
    has_failed: bool,
}

/// `None`: not of the form that was expected.
type Read = Option<Result<Member, Untrusted>>;

impl Member {
    fn of_shard(node: &Value<'_>, asked: &str, tls: bool) -> Read {
        let id = id(node.field(b"id")?)?;
        let role = node.field(b"role")?.text()?;
        let health = node.field(b"health").and_then(Value::text);
        let port = node.field(if tls { b"tls-port" } else { b"port" });
        // Without TLS of its own a node that is reached through a proxy may list one port only.
        let port = port.or_else(|| node.field(b"port")).and_then(ask::port);
        let ip = node.field(b"ip");
        let endpoint = node.field(b"endpoint").or(ip);
        let Some(port) = port else {
            return Some(Err(Untrusted::Port(id)));
        };
        Some(host(&id, endpoint, ip, asked).map(|host| Self {
            address: Address::new(host, port),
            is_primary: role == b"master" || role == b"primary",
            has_failed: matches!(health, Some(b"fail" | b"failed")),
            id,
        }))
    }

    fn of_row(node: &Value<'_>, asked: &str) -> Read {
        let [endpoint, port, rest @ ..] = node.list()? else {
            return None;
        };
        let id = rest.first().map_or(Some(String::new()), id)?;
        // Where the endpoint is a host name that is not known, the address stands in a list.
        let ip = rest.get(1).and_then(|more| more.field(b"ip"));
        let Some(port) = ask::port(port) else {
            return Some(Err(Untrusted::Port(id)));
        };
        Some(host(&id, Some(endpoint), ip, asked).map(|host| {
            let address = Address::new(host, port);
            Self {
                id: if id.is_empty() {
                    address.to_string()
                } else {
                    id.clone()
                },
                address,
                is_primary: true,
                has_failed: false,
            }
        }))
    }
}

fn id(value: &Value<'_>) -> Option<String> {
    let text = value.text().filter(|text| text.len() <= 64)?;
    Some(ask::shown(text))
}

/// The host to connect to. Null or nothing means the one that was asked; `?` means that a host
/// name is preferred and not known, so the address is taken, if there is one.
/// <https://redis.io/docs/latest/commands/cluster-slots/>
fn host(
    id: &str,
    endpoint: Option<&Value<'_>>,
    ip: Option<&Value<'_>>,
    asked: &str,
) -> Result<String, Untrusted> {
    let named = |value: Option<&Value<'_>>| match value.and_then(Value::text) {
        Some(b"" | b"?") | None => None,
        Some(text) => Some(text.to_vec()),
    };
    let unknown = matches!(endpoint.and_then(Value::text), Some(b"?"));
    let text = match named(endpoint) {
        Some(text) => text,
        None if unknown => named(ip).unwrap_or_else(|| asked.into()),
        None => asked.into(),
    };
    match ask::host(&text) {
        Some(host) => Ok(host.to_owned()),
        None => Err(Untrusted::Host(id.to_owned(), ask::shown(&text))),
    }
}

/// Collects nodes and slots.
struct Builder {
    nodes: Vec<Node>,
    by_address: HashMap<Address, usize>,
    slots: Box<[u16; SLOTS]>,
    seen: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            by_address: HashMap::new(),
            slots: no_slots(),
            seen: 0,
        }
    }
}

impl Builder {
    /// Nodes that are mentioned; ranges of `CLUSTER SLOTS` mention theirs again and again.
    fn count(&mut self, more: usize) -> Result<(), Untrusted> {
        self.seen += more;
        if more > MAX_NODES || self.seen > MAX_NODES * 64 {
            return Err(Untrusted::TooMany);
        }
        Ok(())
    }

    /// The index of a node, which may be mentioned several times.
    fn add(&mut self, mut node: Node) -> Result<usize, Untrusted> {
        if let Some(index) = self.by_address.get(&node.primary) {
            let known = &mut self.nodes[*index];
            if known.id != node.id {
                return Err(Untrusted::SameAddress {
                    address: node.primary,
                    one: known.id.clone(),
                    other: node.id,
                });
            }
            return Ok(*index);
        }
        if self.nodes.len() >= MAX_NODES {
            return Err(Untrusted::TooMany);
        }
        // In one order, whoever is asked: else each look would find "another" topology.
        node.replicas.sort();
        node.replicas.dedup();
        self.by_address
            .insert(node.primary.clone(), self.nodes.len());
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    fn own(&mut self, index: usize, first: i64, last: i64) -> Result<(), Untrusted> {
        let range = || {
            let (first, last) = (usize::try_from(first).ok()?, usize::try_from(last).ok()?);
            (first <= last && last < SLOTS).then_some(first..=last)
        };
        let range = range().ok_or(Untrusted::Range(first, last))?;
        let owner = u16::try_from(index).map_err(|_| Untrusted::TooMany)?;
        for slot in range {
            let before = std::mem::replace(&mut self.slots[slot], owner);
            if before != NOBODY {
                let name = |index: u16| self.nodes[usize::from(index)].primary.to_string();
                return Err(Untrusted::TwoOwners {
                    slot,
                    one: name(before),
                    other: name(owner),
                });
            }
        }
        Ok(())
    }

    /// Nodes in the order of their addresses, so that all servers' views can be compared.
    fn finish(self) -> Topology {
        let Self {
            nodes, mut slots, ..
        } = self;
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.sort_by(|a, b| nodes[*a].primary.cmp(&nodes[*b].primary));
        let mut place = vec![NOBODY; nodes.len()];
        for (new, old) in order.iter().enumerate() {
            place[*old] = u16::try_from(new).unwrap_or(NOBODY);
        }
        for slot in slots.iter_mut().filter(|slot| **slot != NOBODY) {
            *slot = place[usize::from(*slot)];
        }
        let mut nodes: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
        Topology {
            version: 0,
            nodes: order.iter().filter_map(|old| nodes[*old].take()).collect(),
            slots: Some(slots),
        }
    }
}

#[cfg(test)]
mod tests;
