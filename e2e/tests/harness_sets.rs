//! The harness itself: Sentinels switch and clusters move slots, as the tests of others expect.

use e2e::{ClusterOptions, ClusterSet, Engine, SentinelOptions, SentinelSet, wait};

#[test]
fn sentinels_switch_to_another_primary_when_it_is_killed_and_when_they_are_asked() {
    let mut set = SentinelSet::start(&SentinelOptions {
        password: Some("sesame".to_owned()),
        sentinel_password: Some("watch".to_owned()),
        ..SentinelOptions::default()
    });
    assert_eq!(set.servers().len(), 3);
    let mut client = set.primary().connect();
    assert_eq!(client.run("SET k 1"), "OK");
    // Replication is asynchronous: without this a killed primary may take the write with it.
    assert_eq!(client.run("WAIT 2 60000"), "2");
    let first = set.kill_primary();
    let (second, _) = set.until_switched(first);
    assert_eq!(set.until_renamed(first), second.port());
    assert_eq!(set.primary().ask("GET k"), "1");
    set.restart(first);
    wait::until_true("the old primary follows the new one", || {
        let info = set.server(first).ask("INFO replication").text();
        info.contains("role:slave") && info.contains("master_link_status:up")
    });
    set.until_watched();
    let third = set.failover();
    assert_eq!(set.server(third).ask("GET k"), "1");
}

#[test]
fn a_cluster_has_an_owner_for_each_slot_but_those_of_its_hole() {
    let cluster = ClusterSet::start(&ClusterOptions {
        hole: 100..102,
        config: vec!["cluster-require-full-coverage no".to_owned()],
        ..ClusterOptions::of(Engine::Valkey8)
    });
    assert_eq!(cluster.owner_of(99), 0);
    assert_eq!(cluster.owner_of(102), 0);
    assert_eq!(cluster.owner_of(16_383), 2);
    let owners = cluster.owners(1);
    assert!(
        !owners
            .iter()
            .any(|(first, last, _)| *first <= 101 && *last >= 100),
        "{owners:?}"
    );
}

#[test]
fn a_slot_can_be_stopped_half_way_between_two_nodes() {
    let cluster = ClusterSet::new(Engine::Redis7);
    let (one, two) = ("{tag}1", "{tag}2");
    let slot = cluster.slot_of(one);
    let from = cluster.owner_of(slot);
    let to = (from + 1) % 3;
    for key in [one, two] {
        assert_eq!(cluster.call(from, &["SET", key, "v"]), "OK");
    }
    cluster.begin_migration(slot, to).cancel();
    assert_eq!(cluster.call(from, &["GET", "{tag}3"]), "(nil)");
    let migration = cluster.begin_migration(slot, to);
    migration.move_key(one);
    assert_eq!(migration.left(), [two]);
    let asked = cluster.call(from, &["GET", one]).to_string();
    let port = cluster.node(to).port();
    assert_eq!(asked, format!("-ASK {slot} 127.0.0.1:{port}"));
    let both = cluster.call(from, &["MGET", one, two]).to_string();
    assert!(both.starts_with("-TRYAGAIN"), "{both}");
    migration.move_all();
    migration.finish();
    assert_eq!(cluster.owner_of(slot), to);
    assert_eq!(cluster.call(to, &["GET", one]), "v");
    let moved = cluster.call(from, &["GET", one]).to_string();
    assert!(moved.starts_with("-MOVED"), "{moved}");
}

#[test]
fn a_replica_takes_over_when_it_is_asked_and_when_its_primary_dies() {
    let mut cluster = ClusterSet::start(&ClusterOptions::of(Engine::Redis7).replicas(1));
    let replica = cluster.replica_of(0).expect("each primary has a replica");
    assert_eq!(replica, 3);
    let key = cluster.key_on(0, "k");
    assert_eq!(cluster.call(0, &["SET", &key, "v"]), "OK");
    cluster.failover(replica);
    assert_eq!(cluster.owner_of(cluster.slot_of(&key)), replica);
    cluster.kill(replica);
    wait::until_true("the old primary takes over again", || cluster.is_primary(0));
    cluster.until_agreed();
    assert_eq!(cluster.call(0, &["GET", &key]), "v");
    cluster.restart(replica);
    wait::until_true("the killed node follows", || !cluster.is_primary(replica));
    cluster.until_agreed();
}

#[test]
fn valkey_9_moves_a_slot_at_once() {
    let Some(_) =
        e2e::environment::available("valkey_9_moves_a_slot_at_once", Engine::Valkey9.server())
    else {
        return;
    };
    let cluster = ClusterSet::new(Engine::Valkey9);
    let slot = cluster.slot_of("k");
    let from = cluster.owner_of(slot);
    let to = (from + 1) % 3;
    assert_eq!(cluster.call(from, &["SET", "k", "v"]), "OK");
    cluster.atomic_migrate(slot, to);
    assert_eq!(cluster.call(to, &["GET", "k"]), "v");
}
