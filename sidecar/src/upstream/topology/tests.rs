use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::*;

fn node(host: &str, port: u16) -> Node {
    let primary = Address::new(host, port);
    Node {
        id: primary.to_string(),
        primary,
        replicas: Vec::new(),
    }
}

/// `a` owns the lower half, `b` the upper but for the last slot, which nobody owns.
fn cluster() -> Topology {
    let mut slots = no_slots();
    slots[..8192].fill(0);
    slots[8192..].fill(1);
    slots[SLOTS - 1] = NOBODY;
    Topology {
        version: 0,
        nodes: vec![node("a", 1), node("b", 2)],
        slots: Some(slots),
    }
}

#[test]
fn an_address_is_written_with_brackets_where_they_are_needed() {
    assert_eq!(Address::new("10.0.0.1", 7000).to_string(), "10.0.0.1:7000");
    assert_eq!(Address::new("::1", 6379).to_string(), "[::1]:6379");
}

#[test]
fn a_slot_has_one_owner_or_none() {
    let cluster = cluster();
    assert!(cluster.is_cluster());
    assert_eq!(cluster.node_of(0), Some(0));
    assert_eq!(cluster.node_of(8192), Some(1));
    assert_eq!(cluster.node_of(16_383), None);
    assert_eq!(cluster.node_of(u16::MAX), None);
    assert_eq!(cluster.covered(), SLOTS - 1);
    assert_eq!(cluster.sole_primary(), None);
}

#[test]
fn without_a_cluster_one_node_serves_every_slot() {
    let single = Topology::single(Address::new("redis", 6379));
    assert!(!single.is_cluster());
    assert_eq!(single.node_of(12_345), Some(0));
    assert_eq!(single.sole_primary().unwrap().to_string(), "redis:6379");
    assert_eq!(Topology::unknown().node_of(0), None);
    assert_eq!(Topology::unknown_cluster().node_of(0), None);
    assert!(Topology::unknown_cluster().is_cluster());
}

#[test]
fn an_owner_moves_when_a_slot_has_another_primary_and_not_when_nodes_are_listed_otherwise() {
    let old = cluster();
    let mut same = old.clone();
    same.nodes.reverse();
    for index in same.slots.as_mut().unwrap().iter_mut() {
        *index = match *index {
            0 => 1,
            1 => 0,
            nobody => nobody,
        };
    }
    assert!(!same.moves_ownership(&old) && !same.is_same(&old));
    let mut replica = old.clone();
    replica.nodes[0].replicas.push(Address::new("c", 3));
    assert!(!replica.moves_ownership(&old));
    for slot in [0, 16_383] {
        let mut moved = old.clone();
        moved.slots.as_mut().unwrap()[slot] = 1;
        assert!(moved.moves_ownership(&old), "{slot}");
    }
    let mut lost = old.clone();
    lost.slots.as_mut().unwrap()[0] = NOBODY;
    assert!(lost.moves_ownership(&old));
    let single = |host: &str| Topology::single(Address::new(host, 1));
    assert!(single("b").moves_ownership(&single("a")));
    assert!(!single("a").moves_ownership(&single("a")));
    assert!(single("a").moves_ownership(&Topology::unknown()));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_told_of_a_new_version() {
    let known = Topologies::new(Topology::unknown());
    let mut changes = known.changes();
    assert_eq!(known.version(), 1);
    let published = known.publish(Topology::single(Address::new("a", 1)));
    assert_eq!((published.version, known.version()), (2, 2));
    assert_eq!(known.load().sole_primary().unwrap().port, 1);
    timeout(Duration::from_secs(1), changes.changed())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(*changes.borrow(), 2);
    assert_eq!(known.facts().changes, 1);
}

#[tokio::test(start_paused = true)]
async fn many_doubts_before_a_look_are_one_and_one_during_it_is_another() {
    let known = Arc::new(Topologies::new(Topology::unknown()));
    for _ in 0..1000 {
        known.doubt();
    }
    let second = Duration::from_secs(1);
    timeout(second, known.doubted()).await.unwrap();
    timeout(second, known.doubted()).await.unwrap_err();
    known.doubt();
    timeout(second, known.doubted()).await.unwrap();
    let waiting = tokio::spawn({
        let known = Arc::clone(&known);
        async move { known.doubted().await }
    });
    tokio::task::yield_now().await;
    known.doubt();
    timeout(second, waiting).await.unwrap().unwrap();
}
