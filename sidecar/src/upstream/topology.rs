//! Which servers are behind the sidecar, and which of them owns a key.
//!
//! [`Topologies`] holds what is known now. Discovery, on the control thread, publishes it; event
//! loops read it, and say when an answer contradicts it. Nothing here talks to a server.

mod slot;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

pub use self::slot::key_slot;
use crate::clock::Tick;

/// Hash slots of a Redis Cluster.
pub const SLOTS: usize = 16_384;
/// Most nodes of a topology; Redis Cluster itself is made for 1000.
pub const MAX_NODES: usize = 4096;
/// Marks a slot that nobody owns.
pub const NOBODY: u16 = u16::MAX;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Host name or IP address, IPv6 without brackets.
    pub host: Arc<str>,
    /// TCP port.
    pub port: u16,
}

/// One primary and its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Node id of a cluster; else the address.
    pub id: String,
    /// Where writes go.
    pub primary: Address,
    /// Who may answer reads that need not be fresh.
    pub replicas: Vec<Address>,
}

/// The servers, at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Grows with each change; given by [`Topologies::publish`].
    pub version: u64,
    /// One for each primary; none while they are not known.
    pub nodes: Vec<Node>,
    /// For each slot the index of its node, or [`NOBODY`]; only in a cluster.
    pub slots: Option<Box<[u16; SLOTS]>>,
}

/// What is known now, for all threads.
pub struct Topologies {
    current: ArcSwap<Topology>,
    version: AtomicU64,
    changes: watch::Sender<u64>,
    doubted: AtomicBool,
    doubts: Notify,
    facts: Mutex<TopologyFacts>,
}

/// How the looks of discovery went, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopologyFacts {
    /// When a look last confirmed or changed what is known.
    pub confirmed: Option<Tick>,
    /// Why the last look failed; cleared by the next that succeeds.
    pub failure: Option<String>,
    /// Times that the topology changed.
    pub changes: u64,
    /// Answers that were refused because they contradict themselves.
    pub refused: u64,
}

/// Slots that nobody owns yet.
pub fn no_slots() -> Box<[u16; SLOTS]> {
    let slots = vec![NOBODY; SLOTS];
    slots.try_into().expect("the vector has the array's length")
}

// === impl Address ===

impl Address {
    /// `host` and `port`.
    pub fn new(host: impl Into<Arc<str>>, port: u16) -> Self {
        let host = host.into();
        Self { host, port }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

// === impl Topology ===

impl Topology {
    /// One server, which is all there is.
    pub fn single(primary: Address) -> Self {
        let node = Node {
            id: primary.to_string(),
            primary,
            replicas: Vec::new(),
        };
        Self {
            version: 0,
            nodes: vec![node],
            slots: None,
        }
    }

    /// Nothing is known yet.
    pub fn unknown() -> Self {
        Self {
            version: 0,
            nodes: Vec::new(),
            slots: None,
        }
    }

    /// A cluster of which nothing is known yet: nobody owns a slot.
    pub fn unknown_cluster() -> Self {
        Self {
            slots: Some(no_slots()),
            ..Self::unknown()
        }
    }

    /// Whether keys are spread over nodes by their slot.
    #[inline]
    pub fn is_cluster(&self) -> bool {
        self.slots.is_some()
    }

    /// The index of the node that owns a slot. Without a cluster there is one node for all.
    #[inline]
    pub fn node_of(&self, slot: u16) -> Option<usize> {
        let index = match &self.slots {
            None => 0,
            Some(slots) => usize::from(*slots.get(usize::from(slot))?),
        };
        (index < self.nodes.len()).then_some(index)
    }

    /// The first slot of each range that belongs to one node, and the node's index (or [`NOBODY`]).
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for (slot, node) in (0..).zip(self.slots.iter().flat_map(|slots| slots.iter())) {
            if ranges.last().is_none_or(|(_, last)| last != node) {
                ranges.push((slot, *node));
            }
        }
        ranges
    }

    /// The address that writes go to, where there is one node for all.
    pub fn sole_primary(&self) -> Option<&Address> {
        match (&self.slots, self.nodes.as_slice()) {
            (None, [node]) => Some(&node.primary),
            _ => None,
        }
    }

    /// Slots that somebody owns.
    pub fn covered(&self) -> usize {
        let owned = |slots: &[u16; SLOTS]| slots.iter().filter(|index| **index != NOBODY).count();
        self.slots.as_deref().map_or(0, owned)
    }

    /// Whether `other` describes the same servers, whatever its version.
    pub fn is_same(&self, other: &Self) -> bool {
        self.nodes == other.nodes && self.slots == other.slots
    }

    /// Whether a slot, or everything where there are none, is served by another primary in
    /// `self` than in `old`. Replicas do not count: they own nothing.
    pub fn moves_ownership(&self, old: &Self) -> bool {
        self.is_cluster() != old.is_cluster() || self.owners().ne(old.owners())
    }

    /// Who owns each slot, in their order; without a cluster one node owns all.
    pub fn owners(&self) -> impl Iterator<Item = Option<&Address>> {
        (0..SLOTS).map(|slot| {
            let index = self.node_of(u16::try_from(slot).ok()?)?;
            Some(&self.nodes[index].primary)
        })
    }
}

// === impl Topologies ===

impl Topologies {
    /// Begins with `topology`, as version 1.
    pub fn new(mut topology: Topology) -> Self {
        topology.version = 1;
        Self {
            current: ArcSwap::from_pointee(topology),
            version: AtomicU64::new(1),
            changes: watch::Sender::new(1),
            doubted: AtomicBool::new(false),
            doubts: Notify::new(),
            facts: Mutex::default(),
        }
    }

    /// What is known now. For a short look; [`Self::current`] may be kept.
    #[inline]
    pub fn load(&self) -> Guard<Arc<Topology>> {
        self.current.load()
    }

    /// What is known now.
    pub fn current(&self) -> Arc<Topology> {
        self.current.load_full()
    }

    /// Changes whenever the topology does; cheaper to compare than to load.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Acquire)
    }

    /// Told of each new version.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Puts a topology in force, and gives it its version. Only discovery calls this, and it
    /// flushes the local tier when owners changed.
    pub fn publish(&self, mut topology: Topology) -> Arc<Topology> {
        let mut facts = self.facts.lock();
        facts.changes += 1;
        topology.version = self.version.load(Relaxed) + 1;
        let topology = Arc::new(topology);
        self.current.store(Arc::clone(&topology));
        self.version.store(topology.version, Release);
        drop(facts);
        self.changes.send_replace(topology.version);
        topology
    }

    /// An answer contradicts what is known: discovery should look again. May be called as often
    /// as answers come: until discovery begins to look, further calls are one load each.
    #[inline]
    pub fn doubt(&self) {
        if !self.doubted.load(Relaxed) && !self.doubted.swap(true, AcqRel) {
            self.doubts.notify_one();
        }
    }

    /// Waits until somebody doubts. A doubt that comes after the return is a new one.
    pub async fn doubted(&self) {
        self.doubts.notified().await;
        self.doubted.store(false, Release);
    }

    /// How the looks of discovery went.
    pub fn facts(&self) -> TopologyFacts {
        self.facts.lock().clone()
    }

    /// Changes what is told about the looks of discovery.
    pub fn note(&self, change: impl FnOnce(&mut TopologyFacts)) {
        change(&mut self.facts.lock());
    }
}

#[cfg(test)]
mod tests;
