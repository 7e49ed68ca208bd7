//! Moving a slot from one node to another, step by step, so that a test may stop in the middle.

use super::ClusterSet;
use crate::{environment::unusable, wait};

/// A slot that is being moved.
///
/// Until [`Self::finish`] its owner answers `ASK` for keys that have gone, and `TRYAGAIN` for
/// several keys of which some have.
pub struct Migration<'c> {
    cluster: &'c ClusterSet,
    slot: String,
    /// The owner until the end.
    pub from: usize,
    /// The owner to be.
    pub to: usize,
}

impl<'c> Migration<'c> {
    pub(super) fn begin(cluster: &'c ClusterSet, slot: u16, to: usize) -> Self {
        let from = cluster.owner_of(slot);
        assert_ne!(from, to, "the slot is there already");
        let slot = slot.to_string();
        let (source, target) = (cluster.id_of(from), cluster.id_of(to));
        // The target first: the source must not send anybody to a node that refuses him.
        cluster.ok(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]);
        cluster.ok(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]);
        Self {
            cluster,
            slot,
            from,
            to,
        }
    }

    /// Moves one key.
    pub fn move_key(&self, key: &str) {
        let node = self.cluster.node(self.to);
        let port = self.cluster.port_for_nodes(self.to).to_string();
        let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000"];
        if let Some(password) = node.password() {
            command.extend(["AUTH", password]);
        }
        command.extend(["KEYS", key]);
        let moved = self.cluster.call(self.from, &command);
        // Somebody may have deleted it meanwhile, or it has expired.
        assert!(moved == "OK" || moved == "NOKEY", "{command:?}: {moved}");
    }

    /// The keys that have not gone yet, at most 1000.
    pub fn left(&self) -> Vec<String> {
        let command = ["CLUSTER", "GETKEYSINSLOT", &self.slot, "1000"];
        let keys = self.cluster.call(self.from, &command);
        keys.items().iter().map(|key| key.text()).collect()
    }

    /// Moves every key.
    pub fn move_all(&self) {
        loop {
            let keys = self.left();
            if keys.is_empty() {
                return;
            }
            for key in keys {
                self.move_key(&key);
            }
        }
    }

    /// Makes the target the owner and tells every node, and waits until all agree.
    pub fn finish(self) {
        let Self {
            cluster, slot, to, ..
        } = &self;
        let id = cluster.id_of(*to);
        let others = cluster
            .living()
            .filter(|node| *node != self.from && node != to && cluster.is_primary(*node));
        // First those who serve the slot: the other way round it would be nobody's for a moment.
        for node in [*to, self.from].into_iter().chain(others) {
            cluster.ok(node, &["CLUSTER", "SETSLOT", slot, "NODE", &id]);
        }
        cluster.until_agreed();
    }

    /// Gives up before any key has gone: the owner stays.
    pub fn cancel(self) {
        let Self {
            cluster,
            slot,
            from,
            to,
        } = self;
        cluster.ok(from, &["CLUSTER", "SETSLOT", &slot, "STABLE"]);
        cluster.ok(to, &["CLUSTER", "SETSLOT", &slot, "STABLE"]);
        let command = ["CLUSTER", "GETKEYSINSLOT", &slot, "1000"];
        let gone = cluster.call(to, &command).items().len();
        assert_eq!(gone, 0, "keys have gone already: finish the migration");
    }
}

pub(super) fn at_once(cluster: &ClusterSet, slot: u16, to: usize) {
    let (from, target) = (cluster.owner_of(slot), cluster.id_of(to));
    let number = slot.to_string();
    let command = [
        "CLUSTER",
        "MIGRATESLOTS",
        "SLOTSRANGE",
        &number,
        &number,
        "NODE",
        &target,
    ];
    let reply = cluster.call(from, &command);
    if reply.is_error() {
        unusable(&format!("CLUSTER MIGRATESLOTS: {reply}"));
    }
    wait::until_true("the slot has moved", || cluster.owner_of(slot) == to);
    cluster.until_agreed();
}
