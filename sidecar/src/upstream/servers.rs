//! The servers that one event loop talks to, and which of them a command goes to.
//!
//! Without a cluster there is one server for everything. With one, a key's slot names the server:
//! as the published topology says, unless an answer (`MOVED`) has said otherwise since. Where
//! nothing is known, any server will do: it answers with the way to the right one.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use foldhash::HashMap;

use super::{
    LinkSet,
    topology::{Address, MAX_NODES, Topology, key_slot},
};
use crate::clock::Tick;

/// Sets of links at a time, over all servers and databases (P9).
const SETS: usize = 1024;
/// Databases that may be in use at a time.
const DATABASES: usize = 64;
/// How long the word of one server counts for more than the topology.
const MOVED_FOR: Duration = Duration::from_secs(10);
/// The same, if the server that it names is away.
const MOVED_AT_LEAST: Duration = Duration::from_secs(1);

/// One server.
#[derive(Debug)]
pub struct Server {
    /// Tells servers apart, for the order of commands; never used twice in one event loop.
    pub number: u32,
    /// Where it is; `None`: where the configuration, or Sentinel, says at the time.
    pub address: Option<Address>,
    /// Asked as a replica: reads only.
    pub replica: bool,
    /// A hash tag for a slot, so that it is not searched for each time.
    tag: Cell<Option<(u16, u32)>>,
}

/// The servers of one event loop.
pub struct Servers {
    topology: RefCell<Arc<Topology>>,
    owners: RefCell<Owners>,
    /// Whoever is asked while nothing is known; the only one without a cluster.
    first: Rc<Server>,
    primaries: RefCell<BTreeMap<Address, Rc<Server>>>,
    replicas: RefCell<BTreeMap<Address, Rc<Server>>>,
    /// Slots that moved since the topology was published, and when they did.
    moved: RefCell<HashMap<u16, (Rc<Server>, Tick)>>,
    /// Changes whenever a slot is to be looked for elsewhere.
    ways: Cell<u32>,
    sets: RefCell<BTreeMap<(u32, u16), Rc<LinkSet>>>,
    last_number: Cell<u32>,
}

/// Who owns which slots, as the topology says; empty without a cluster.
#[derive(Default)]
struct Owners {
    /// The primary of each node, in the topology's order.
    nodes: Vec<Rc<Server>>,
    /// The first slot of each range of one owner, and the index of its node. A few ranges lie in one
    /// line of the processor's cache; a table of all slots would fill it, and is as random as keys are.
    ranges: Vec<(u16, u16)>,
}

impl Owners {
    #[inline]
    fn of(&self, slot: u16) -> Option<&Rc<Server>> {
        let behind = self.ranges.partition_point(|(first, _)| *first <= slot);
        let (_, node) = self.ranges.get(behind.checked_sub(1)?)?;
        self.nodes.get(usize::from(*node))
    }
}

/// What a new topology takes away.
#[derive(Default)]
pub struct Changes {
    /// Sets of servers that own a slot less than before.
    pub lost_slots: Vec<Rc<LinkSet>>,
    /// Sets of servers that are no longer there.
    pub gone: Vec<Rc<LinkSet>>,
}

impl Server {
    /// A number that hashes to the slot: `{number}` in a key puts the key there.
    pub fn tag(&self, slot: u16) -> u32 {
        if let Some((known, tag)) = self.tag.get()
            && known == slot
        {
            return tag;
        }
        let hits = |tag: &u32| key_slot(tag.to_string().as_bytes()) == slot;
        // Of so many numbers each slot gets some; a test tries them all.
        let tag = (0..1 << 20).find(hits).unwrap_or_default();
        self.tag.set(Some((slot, tag)));
        tag
    }
}

impl Servers {
    /// Begins with what is known.
    pub fn new(topology: Arc<Topology>) -> Self {
        let first = Server {
            number: 0,
            address: None,
            replica: false,
            tag: Cell::new(None),
        };
        let servers = Self {
            topology: RefCell::new(topology),
            owners: RefCell::default(),
            first: Rc::new(first),
            primaries: RefCell::default(),
            replicas: RefCell::default(),
            moved: RefCell::default(),
            ways: Cell::new(0),
            sets: RefCell::default(),
            last_number: Cell::new(0),
        };
        servers.name_owners();
        servers
    }

    fn name_owners(&self) {
        let topology = self.topology.borrow();
        let nodes = topology.nodes.iter().filter(|_| topology.is_cluster());
        let nodes = nodes.map(|node| self.at(&node.primary)).collect();
        let ranges = topology.ranges();
        *self.owners.borrow_mut() = Owners { nodes, ranges };
    }

    /// The topology in force here.
    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.borrow())
    }

    /// The server for commands without keys.
    pub fn any(&self) -> Rc<Server> {
        Rc::clone(self.owners.borrow().nodes.first().unwrap_or(&self.first))
    }

    /// The server that owns a slot, as far as is known.
    pub fn of_slot(&self, slot: u16) -> Rc<Server> {
        if let Some((server, _)) = self.moved.borrow().get(&slot) {
            return Rc::clone(server);
        }
        let owners = self.owners.borrow();
        let owner = owners.of(slot).or(owners.nodes.first());
        Rc::clone(owner.unwrap_or(&self.first))
    }

    /// A replica of the server that owns a slot, if there is one; `random` chooses.
    pub fn replica_of_slot(&self, slot: u16, random: u32) -> Option<Rc<Server>> {
        let topology = self.topology.borrow();
        let node = &topology.nodes[topology.node_of(slot)?];
        let count = u32::try_from(node.replicas.len()).ok().filter(|n| *n > 0)?;
        let address = &node.replicas[(random % count) as usize];
        Some(self.intern(&self.replicas, address, true))
    }

    /// The primary at an address.
    pub fn at(&self, address: &Address) -> Rc<Server> {
        self.intern(&self.primaries, address, false)
    }

    fn intern(
        &self,
        known: &RefCell<BTreeMap<Address, Rc<Server>>>,
        address: &Address,
        replica: bool,
    ) -> Rc<Server> {
        if let Some(server) = known.borrow().get(address) {
            return Rc::clone(server);
        }
        self.last_number.set(self.last_number.get() + 1);
        let server = Rc::new(Server {
            number: self.last_number.get(),
            address: Some(address.clone()),
            replica,
            tag: Cell::new(None),
        });
        known
            .borrow_mut()
            .insert(address.clone(), Rc::clone(&server));
        server
    }

    /// Every primary that is known, in the order of their first slots: the order that survives a
    /// fail-over.
    pub fn primaries(&self) -> Vec<Rc<Server>> {
        let topology = self.topology.borrow();
        let Some(slots) = &topology.slots else {
            return vec![Rc::clone(&self.first)];
        };
        let owners = self.owners.borrow();
        let owners = &owners.nodes;
        let mut seen = vec![false; owners.len()];
        let mut servers = Vec::new();
        for index in slots.iter().map(|index| usize::from(*index)) {
            if let Some(seen) = seen.get_mut(index)
                && !std::mem::replace(seen, true)
            {
                servers.push(Rc::clone(&owners[index]));
            }
        }
        if servers.is_empty() {
            servers.push(self.any());
        }
        servers
    }

    /// The primary at an address that an answer named; `None` when too many were named (P9).
    pub fn named(&self, address: &Address) -> Option<Rc<Server>> {
        let primaries = self.primaries.borrow();
        let has_room = primaries.len() < MAX_NODES || primaries.contains_key(address);
        drop(primaries);
        has_room.then(|| self.at(address))
    }

    /// A slot is served elsewhere than was thought; until the next topology, and not for long if
    /// discovery does not find it so.
    pub fn moved(&self, slot: u16, to: &Address, now: Tick) {
        let owners = self.owners.borrow();
        if owners
            .of(slot)
            .is_some_and(|owner| owner.address.as_ref() == Some(to))
        {
            // An answer to a question from before the topology was known: nothing new in it.
            if self.moved.borrow_mut().remove(&slot).is_some() {
                self.ways.set(self.ways.get().wrapping_add(1));
            }
            return;
        }
        drop(owners);
        let Some(server) = self.named(to) else { return };
        let before = self.moved.borrow_mut().insert(slot, (server, now));
        if before.is_none_or(|(before, _)| before.address.as_ref() != Some(to)) {
            self.ways.set(self.ways.get().wrapping_add(1));
        }
    }

    /// Tells apart what was known of the slots at different times.
    pub fn ways(&self) -> u32 {
        self.ways.get()
    }

    /// The topology counts again for slots that are said to have moved long ago, or to a server
    /// that is away: whoever said so may have known less. Servers that are neither in the topology
    /// nor named any longer, and have nothing to do, are given up.
    pub fn forget_moves(&self, now: Tick, away: &BTreeSet<u32>) -> Vec<Rc<LinkSet>> {
        let mut moved = self.moved.borrow_mut();
        let before = moved.len();
        moved.retain(|_, (server, since)| {
            let age = now.since(*since);
            age < MOVED_FOR && (age < MOVED_AT_LEAST || !away.contains(&server.number))
        });
        if moved.len() != before {
            self.ways.set(self.ways.get().wrapping_add(1));
        }
        let topology = self.topology.borrow();
        let mut unknown = Vec::new();
        if !topology.is_cluster() || topology.nodes.is_empty() {
            return unknown;
        }
        let named: BTreeSet<u32> = moved.values().map(|(server, _)| server.number).collect();
        let is_known = |server: &Server| named.contains(&server.number) || is_in(&topology, server);
        self.sets.borrow_mut().retain(|_, set| {
            let stays = is_known(&set.server) || !set.is_idle();
            if !stays {
                unknown.push(Rc::clone(set));
            }
            stays
        });
        let used: BTreeSet<u32> = self
            .sets
            .borrow()
            .keys()
            .map(|(number, _)| *number)
            .collect();
        self.primaries
            .borrow_mut()
            .retain(|_, server| used.contains(&server.number) || is_known(server));
        unknown
    }

    /// A slot that the server owns, as far as the topology says.
    pub fn slot_of(&self, server: &Server) -> Option<u16> {
        let address = server.address.as_ref()?;
        let topology = self.topology.borrow();
        let slots = topology.slots.as_ref()?;
        let owns = |index: &u16| {
            let node = topology.nodes.get(usize::from(*index));
            node.is_some_and(|node| node.primary == *address)
        };
        slots
            .iter()
            .position(owns)
            .and_then(|slot| u16::try_from(slot).ok())
    }

    // === links ===

    /// The links to a server in a database; `None` when too many are in use.
    pub fn links(&self, server: &Rc<Server>, db: u16) -> Option<Rc<LinkSet>> {
        if let Some(set) = self.links_in_use(server, db) {
            return Some(set);
        }
        let mut sets = self.sets.borrow_mut();
        let databases = sets.keys().filter(|(number, _)| *number == server.number);
        if sets.len() >= SETS || databases.count() >= DATABASES {
            return None;
        }
        let set = Rc::new(LinkSet::new(Rc::clone(server), db));
        sets.insert((server.number, db), Rc::clone(&set));
        Some(set)
    }

    /// The links to a server in a database, if they are in use.
    pub fn links_in_use(&self, server: &Server, db: u16) -> Option<Rc<LinkSet>> {
        self.sets.borrow().get(&(server.number, db)).cloned()
    }

    /// Every set that was used.
    pub fn sets(&self) -> Vec<Rc<LinkSet>> {
        self.sets.borrow().values().cloned().collect()
    }

    /// Forgets the sets of a database that no server has.
    pub fn forget_database(&self, db: u16) -> Vec<Rc<LinkSet>> {
        let mut gone = Vec::new();
        self.sets.borrow_mut().retain(|(_, of), set| {
            let stays = *of != db;
            if !stays {
                gone.push(Rc::clone(set));
            }
            stays
        });
        gone
    }

    /// Puts a new topology in force.
    pub fn adopt(&self, topology: &Arc<Topology>) -> Changes {
        let old = self.topology.replace(Arc::clone(topology));
        self.name_owners();
        self.moved.borrow_mut().clear();
        self.ways.set(self.ways.get().wrapping_add(1));
        let mut changes = Changes::default();
        if !topology.is_cluster() {
            return changes;
        }
        let losers = losers(&old, topology);
        // Who was asked while nothing was known answers what it was asked; then it is idle, and
        // given up with the strangers.
        let is_there = |server: &Server| server.address.is_none() || is_in(topology, server);
        self.sets.borrow_mut().retain(|_, set| {
            let server = &set.server;
            let stays = is_there(server);
            if !stays {
                changes.gone.push(Rc::clone(set));
            } else if server
                .address
                .as_ref()
                .is_some_and(|at| losers.contains(at))
            {
                changes.lost_slots.push(Rc::clone(set));
            }
            stays
        });
        let stays = |_: &Address, server: &mut Rc<Server>| is_there(server);
        self.primaries.borrow_mut().retain(stays);
        self.replicas.borrow_mut().retain(stays);
        changes
    }
}

fn is_in(topology: &Topology, server: &Server) -> bool {
    let Some(address) = &server.address else {
        // Served while nothing was known; its address is among the others now.
        return topology.nodes.is_empty();
    };
    topology.nodes.iter().any(|node| {
        if server.replica {
            node.replicas.contains(address)
        } else {
            node.primary == *address
        }
    })
}

/// Who owned a slot that somebody else, or nobody, owns now.
fn losers(old: &Topology, new: &Topology) -> Vec<Address> {
    let mut losers: Vec<Address> = Vec::new();
    for (was, is) in old.owners().zip(new.owners()) {
        if let Some(was) = was
            && is != Some(was)
            && !losers.contains(was)
        {
            losers.push(was.clone());
        }
    }
    losers
}

#[cfg(test)]
mod tests {
    use super::{
        super::topology::{Node, SLOTS},
        *,
    };

    fn cluster(owners: &[(u16, &str)]) -> Arc<Topology> {
        let mut topology = Topology::unknown_cluster();
        let slots = topology.slots.as_mut().unwrap();
        let mut nodes: Vec<Node> = Vec::new();
        for (end, (from, host)) in owners
            .iter()
            .skip(1)
            .map(|(from, _)| usize::from(*from))
            .chain([SLOTS])
            .zip(owners)
        {
            let index = nodes
                .iter()
                .position(|node| node.id == *host)
                .unwrap_or_else(|| {
                    nodes.push(Node {
                        id: (*host).to_owned(),
                        primary: Address::new(*host, 7000),
                        replicas: vec![Address::new(format!("{host}-replica"), 7000)],
                    });
                    nodes.len() - 1
                });
            slots[usize::from(*from)..end].fill(u16::try_from(index).unwrap());
        }
        topology.nodes = nodes;
        Arc::new(topology)
    }

    fn host(server: &Server) -> &str {
        server.address.as_ref().map_or("", |address| &address.host)
    }

    #[test]
    fn a_slot_goes_to_its_owner_until_an_answer_says_otherwise() {
        let servers = Servers::new(Arc::new(Topology::unknown_cluster()));
        assert_eq!(servers.of_slot(7).number, 0, "nothing is known: anybody");
        servers.adopt(&cluster(&[(0, "a"), (8000, "b")]));
        assert_eq!(host(&servers.of_slot(7999)), "a");
        assert_eq!(host(&servers.of_slot(8000)), "b");
        servers.moved(7999, &Address::new("b", 7000), Tick::now());
        assert_eq!(host(&servers.of_slot(7999)), "b");
        assert_eq!(servers.of_slot(7999).number, servers.of_slot(8000).number);
        servers.adopt(&cluster(&[(0, "a"), (8000, "b")]));
        assert_eq!(
            host(&servers.of_slot(7999)),
            "a",
            "the newer topology counts"
        );
        servers.moved(8001, &Address::new("b", 7000), Tick::now());
        assert!(servers.moved.borrow().is_empty(), "that was known");
        let ways = servers.ways();
        servers.moved(8001, &Address::new("a", 7000), Tick::now());
        assert_eq!(host(&servers.of_slot(8001)), "a");
        servers.moved(8001, &Address::new("b", 7000), Tick::now());
        assert_eq!(host(&servers.of_slot(8001)), "b", "and back");
        assert_ne!(servers.ways(), ways, "the order of commands depends on it");
    }

    #[test]
    fn p9_the_word_of_a_server_counts_for_a_while_and_strangers_are_forgotten() {
        let servers = Servers::new(cluster(&[(0, "a"), (8000, "b")]));
        let now = Tick::now();
        servers.moved(1, &Address::new("stranger", 7000), now);
        servers.links(&servers.of_slot(1), 0).unwrap();
        servers.links(&servers.of_slot(2), 0).unwrap();
        let away = BTreeSet::from([servers.of_slot(1).number]);
        let ways = servers.ways();
        assert!(servers.forget_moves(now, &away).is_empty());
        assert_eq!(host(&servers.of_slot(1)), "stranger", "it may still come");
        let strays = servers.forget_moves(now + MOVED_AT_LEAST, &away);
        assert_eq!(host(&servers.of_slot(1)), "a");
        assert_ne!(servers.ways(), ways, "the order of commands depends on it");
        assert_eq!(strays.len(), 1);
        assert_eq!(host(&strays[0].server), "stranger");
        assert_eq!(servers.sets().len(), 1);
        servers.moved(1, &Address::new("b", 7000), now);
        servers.forget_moves(now + MOVED_AT_LEAST, &BTreeSet::new());
        assert_eq!(host(&servers.of_slot(1)), "b");
        servers.forget_moves(now + MOVED_FOR, &BTreeSet::new());
        assert_eq!(host(&servers.of_slot(1)), "a");
        for number in 0..2 * u16::try_from(MAX_NODES).unwrap() {
            servers.moved(1, &Address::new("liar", number + 1), now);
        }
        assert_eq!(servers.primaries.borrow().len(), MAX_NODES);
        servers.forget_moves(now + MOVED_FOR, &BTreeSet::new());
        assert_eq!(servers.primaries.borrow().len(), 2);
    }

    #[test]
    fn a_new_topology_names_who_lost_slots_and_who_is_gone() {
        let servers = Servers::new(cluster(&[(0, "a"), (5000, "b"), (10_000, "c")]));
        for slot in [0, 5000, 10_000] {
            servers.links(&servers.of_slot(slot), 0).unwrap();
        }
        let changes = servers.adopt(&cluster(&[(0, "a"), (4999, "b")]));
        let names = |sets: &[Rc<LinkSet>]| -> Vec<String> {
            sets.iter()
                .map(|set| host(&set.server).to_owned())
                .collect()
        };
        assert_eq!(names(&changes.lost_slots), ["a"]);
        assert_eq!(names(&changes.gone), ["c"]);
        assert_eq!(servers.sets().len(), 2);
    }

    #[test]
    fn who_was_asked_while_nothing_was_known_is_not_cut_off_by_the_first_topology() {
        let servers = Servers::new(Arc::new(Topology::unknown_cluster()));
        servers.links(&servers.any(), 0).unwrap();
        let changes = servers.adopt(&cluster(&[(0, "a")]));
        assert!(changes.gone.is_empty());
        assert_eq!(host(&servers.of_slot(7)), "a");
        let strays = servers.forget_moves(Tick::now(), &BTreeSet::new());
        assert_eq!(strays.len(), 1, "it has nothing to do");
    }

    #[test]
    fn every_slot_has_a_tag() {
        let servers = Servers::new(Arc::new(Topology::unknown_cluster()));
        for slot in [0, 1, 8191, 16_383] {
            let key = format!("pannier:proof:{{{}}}", servers.any().tag(slot));
            assert_eq!(key_slot(key.as_bytes()), slot);
        }
        let mut seen = vec![false; SLOTS];
        for tag in 0..1_u32 << 20 {
            seen[usize::from(key_slot(tag.to_string().as_bytes()))] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
    }

    #[test]
    fn primaries_come_in_the_order_of_their_slots() {
        let servers = Servers::new(cluster(&[(0, "z"), (100, "a"), (200, "z"), (300, "m")]));
        let order: Vec<String> = servers
            .primaries()
            .iter()
            .map(|server| host(server).to_owned())
            .collect();
        assert_eq!(order, ["z", "a", "m"]);
        assert_eq!(servers.slot_of(&servers.of_slot(301)), Some(300));
        assert_eq!(host(&servers.replica_of_slot(100, 5).unwrap()), "a-replica");
    }
}
