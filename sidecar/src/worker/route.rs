//! Which links a command takes, and what a change of the servers does to them.

use std::rc::Rc;

use policy::config::ReplicaReads;

use super::{PROOF_KEY, Worker};
use crate::{
    client::session::{Lane, Touches},
    engine::key_hash,
    metrics::Flush,
    resp::Proto,
    upstream::{
        LinkSet, Lost, Server,
        topology::{Address, key_slot},
    },
};

impl Worker {
    /// Whether keys are spread over servers by their slot.
    #[inline]
    pub fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// The links for commands without keys, in a database; `None` when too many are in use.
    pub fn links(&self, db: u16) -> Option<Rc<LinkSet>> {
        self.servers.links(&self.servers.any(), db)
    }

    /// The links to the primary that owns a key.
    pub fn links_of(&self, db: u16, key: &[u8]) -> Option<Rc<LinkSet>> {
        if self.is_cluster {
            self.links_of_slot(db, self.slot(key))
        } else {
            self.links(db)
        }
    }

    /// The links to the primary that owns a slot.
    pub fn links_of_slot(&self, db: u16, slot: u16) -> Option<Rc<LinkSet>> {
        self.servers.links(&self.servers.of_slot(slot), db)
    }

    /// The links to a replica of it, where those are to be read and there is one.
    pub fn links_of_replica(&self, db: u16, slot: u16) -> Option<Rc<LinkSet>> {
        let active = self.active.borrow();
        let upstream = active.1.config.upstream.as_ref()?;
        if upstream.replica_reads != ReplicaReads::Preferred {
            return None;
        }
        let replica = self.servers.replica_of_slot(slot, self.random())?;
        self.servers.links(&replica, db)
    }

    /// The links to every primary, in a stable order.
    /// `None` when too many are in use: all or nothing.
    pub fn links_of_all(&self, db: u16) -> Option<Vec<Rc<LinkSet>>> {
        let primaries = self.servers.primaries();
        primaries
            .iter()
            .map(|server| self.servers.links(server, db))
            .collect()
    }

    /// The way of a command that goes to several servers now.
    pub fn spread_lane(&self, tracked: bool) -> Lane {
        Lane::Spread {
            ways: self.servers.ways(),
            tracked,
        }
    }

    /// What single answers said of the servers is forgotten in time.
    pub(super) fn forget_moves(&self) {
        if !self.is_cluster {
            return;
        }
        let db = self.default_db();
        let sets = self.servers.sets().into_iter();
        let away = sets.filter(|set| set.db == db && set.is_away());
        let away = away.map(|set| set.server.number).collect();
        for set in self.servers.forget_moves(self.now(), &away) {
            for link in set.links() {
                link.close(Lost::Replaced);
            }
        }
    }

    /// The links to the primary at an address that an answer named.
    pub fn links_at(&self, db: u16, address: &Address) -> Option<Rc<LinkSet>> {
        self.servers.links(&self.servers.named(address)?, db)
    }

    /// The links to a server, if it is still one of those that are used.
    pub fn links_if_there(&self, db: u16, server: &Server) -> Option<Rc<LinkSet>> {
        self.servers.links_in_use(server, db)
    }

    /// Whether any shared link is connected.
    pub(super) fn another_is_up(&self) -> bool {
        let sets = self.servers.sets();
        sets.iter().any(|set| set.has_plain_up())
    }

    /// Whether any link fills the local tier.
    pub(super) fn another_fills(&self) -> bool {
        let sets = self.servers.sets();
        sets.iter()
            .filter_map(|set| set.tracked_link())
            .any(|link| link.fills.get())
    }

    /// Whether another server may take over.
    pub fn fails_over(&self) -> bool {
        self.is_cluster || self.asks_sentinels
    }

    /// The slot of a key as the app writes it.
    pub fn slot(&self, key: &[u8]) -> u16 {
        let active = self.active.borrow();
        match &active.1.prefix {
            None => key_slot(key),
            Some(_) => key_slot(&active.1.key_in_redis(key)),
        }
    }

    /// The key whose read proves a link: in a cluster one that the server owns; `None` if it owns
    /// none, and then nothing is kept of what it says.
    pub fn proof_key(&self, server: &Server) -> Option<Vec<u8>> {
        self.own_key(server, PROOF_KEY)
    }

    /// A key of the sidecar's own at that server, as Redis has it; `None` if none can be there.
    pub fn own_key(&self, server: &Server, name: &[u8]) -> Option<Vec<u8>> {
        let active = self.active();
        if !self.is_cluster {
            return Some(active.key_in_redis(name));
        }
        let slot = self.servers.slot_of(server)?;
        let tag = format!(":{{{}}}", server.tag(slot));
        let key = active.key_in_redis(&[name, tag.as_bytes()].concat());
        // A prefix with a tag of its own puts all keys into one slot.
        let at = key_slot(&key);
        let owns = at == slot || self.servers.of_slot(at).number == server.number;
        owns.then_some(key)
    }

    /// What a command on one key touches, as far as order is concerned: the key, or in a cluster
    /// its slot, because the keys of one slot may be named together.
    #[inline]
    pub fn touches(&self, key: &[u8]) -> Touches {
        if self.is_cluster {
            Touches::Key(u64::from(self.slot(key)))
        } else {
            Touches::Key(key_hash(key))
        }
    }

    /// An answer said that a slot is served elsewhere: what was read there before is dropped, and
    /// discovery looks again.
    pub fn slot_moved(&self, from: &Server, slot: u16, to: &Address) {
        self.servers.moved(slot, to, self.now());
        for set in self.servers.sets() {
            if set.server.number == from.number {
                self.flush_links(&set, Flush::SlotMoved);
            }
        }
        self.shared.topology.doubt();
    }

    /// What the links of a set have read is in doubt.
    fn flush_links(&self, set: &LinkSet, why: Flush) {
        let tier = set.tracked_link().and_then(|link| link.tier.as_ref());
        if let Some(tier) = tier {
            self.counters.flushes[why as usize].inc();
            tier.doubt();
        }
    }

    /// Discovery has published another topology.
    pub fn topology_changed(self: &Rc<Self>) {
        let topology = self.shared.topology.current();
        let switched = self.asks_sentinels
            && topology.sole_primary() != self.servers.topology().sole_primary();
        let changes = self.servers.adopt(&topology);
        if switched {
            for link in self.servers.sets().iter().flat_map(|set| set.links()) {
                link.switch();
            }
        }
        for set in &changes.lost_slots {
            self.flush_links(set, Flush::SlotMoved);
        }
        for set in changes.gone {
            for link in set.links() {
                link.close(Lost::Replaced);
            }
        }
        self.open_links();
    }

    /// Opens the links that apps are sure to need, so that the first command does not wait.
    pub fn open_links(self: &Rc<Self>) {
        for set in self.links_of_all(self.default_db()).unwrap_or_default() {
            set.tracked(self);
            set.plain(self, Proto::Resp2);
        }
    }

    /// Gives up the links of a database that the server does not have.
    pub fn drop_links(&self, db: u16) {
        for set in self.servers.forget_database(db) {
            for link in set.links() {
                link.close(Lost::Closed);
            }
        }
    }
}
