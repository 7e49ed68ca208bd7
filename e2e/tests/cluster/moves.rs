//! Slots that move while apps read and write: `MOVED`, `ASK`, `TRYAGAIN`, and no stale value.

use std::time::Instant;

use e2e::{ClusterOptions, ClusterSet, Engine, Sidecar, http, wait};
use serde_json::json;

use super::{options, start};

#[test]
fn a_slot_that_moves_is_followed_and_nothing_stale_is_served() {
    let (cluster, sidecar) = start();
    let mut wire = sidecar.connect();
    let key = cluster.key_on(0, "c:");
    let slot = cluster.slot_of(&key);
    for round in 0..4 {
        let value = format!("before {round}");
        wire.call(&["SET", &key, &value]);
        sidecar.until_hit(&mut wire, &format!("GET {key}"));
        let to = (cluster.owner_of(slot) + 1) % 3;
        cluster.migrate_slot(slot, to);
        assert_eq!(wire.call(&["GET", &key]).text(), value);
        let value = format!("after {round}");
        cluster.call(to, &["SET", &key, &value]);
        wait::until_true("the write at the new owner is seen", || {
            wire.call(&["GET", &key]).text() == value
        });
        sidecar.until_hit(&mut wire, &format!("GET {key}"));
    }
}

#[test]
fn in_the_middle_of_a_move_every_key_is_found_where_it_is() {
    let (cluster, sidecar) = start();
    let mut wire = sidecar.connect();
    let tag = cluster.key_on(0, "tag");
    let key = |number: u32| format!("c:{{{tag}}}:{number}");
    for number in 0..10 {
        wire.call(&["SET", &key(number), &format!("v{number}")]);
        wire.call(&["GET", &key(number)]);
    }
    let migration = cluster.begin_migration(cluster.slot_of(&key(0)), 1);
    for number in 0..5 {
        migration.move_key(&key(number));
    }
    for number in 0..10 {
        assert_eq!(
            wire.call(&["GET", &key(number)]).text(),
            format!("v{number}")
        );
        assert_eq!(wire.call(&["APPEND", &key(number), "+"]).integer(), 3);
        assert_eq!(
            wire.call(&["GET", &key(number)]).text(),
            format!("v{number}+")
        );
    }
    assert_eq!(wire.call(&["SET", &key(99), "new"]).to_string(), "OK");
    // Several keys of which some have gone: TRYAGAIN until the move is over.
    let mut many = sidecar.connect();
    many.send(&e2e::wire::encode(&["SUNION", &key(0), &key(9)]))
        .unwrap();
    wait::until_true("the command was refused and is held", || {
        sidecar.metric("pannier_upstream_redirects_total", "") > 20.0
    });
    migration.move_all();
    migration.finish();
    let reply = many.read().unwrap().to_string();
    assert!(reply.starts_with("-WRONGTYPE"), "{reply}");
    for number in 0..10 {
        assert_eq!(
            wire.call(&["GET", &key(number)]).text(),
            format!("v{number}+")
        );
    }
}

#[test]
fn a_command_that_blocks_follows_its_key() {
    let (cluster, sidecar) = start();
    let key = cluster.key_on(2, "list:");
    let mut wire = sidecar.connect();
    wire.call(&["RPUSH", &key, "one"]);
    cluster.migrate_slot(cluster.slot_of(&key), 0);
    assert_eq!(
        wire.call(&["BLPOP", &key, "5"]).to_string(),
        format!("[{key} one]")
    );
}

#[test]
fn a_promoted_replica_takes_over_and_acknowledged_writes_are_there() {
    let mut options_of_cluster = ClusterOptions::of(Engine::Redis7);
    options_of_cluster.replicas = 1;
    let cluster = ClusterSet::start(&options_of_cluster);
    let sidecar = Sidecar::start_coherent(&options(&cluster));
    let mut wire = sidecar.connect();
    let key = cluster.key_on(0, "c:");
    wire.call(&["SET", &key, "0"]);
    sidecar.until_hit(&mut wire, &format!("GET {key}"));
    let replica = cluster.replica_of(0).unwrap();
    cluster.failover(replica);
    for number in 1..100 {
        assert_eq!(wire.call(&["INCR", &key]).integer(), number);
    }
    cluster.call(replica, &["SET", &key, "direct"]);
    wait::until_true("the write at the new primary is seen", || {
        wire.call(&["GET", &key]).text() == "direct"
    });
    sidecar.until_hit(&mut wire, &format!("GET {key}"));
}

#[test]
fn a_primary_that_dies_is_replaced_and_writes_resume() {
    let mut options_of_cluster = ClusterOptions::of(Engine::Redis7);
    options_of_cluster.replicas = 1;
    let mut cluster = ClusterSet::start(&options_of_cluster);
    let sidecar = Sidecar::start_coherent(&options(&cluster));
    let mut wire = sidecar.connect();
    let (key, other) = (cluster.key_on(0, "c:"), cluster.key_on(1, "c:"));
    wire.call(&["SET", &key, "old"]);
    wire.call(&["SET", &other, "stays"]);
    sidecar.until_hit(&mut wire, &format!("GET {key}"));
    let replica = cluster.replica_of(0).unwrap();
    wait::until_true("the replica has the write", || {
        let info = cluster.call(0, &["WAIT", "1", "100"]);
        info.integer() == 1
    });
    cluster.kill(0);
    let slot = cluster.slot_of(&key);
    let mut direct = cluster.connect(replica);
    wait::until_true("the replica accepts writes", || {
        direct.call(&["SET", &format!("{{{key}}}:probe"), "1"]) == "OK"
    });
    let since = Instant::now();
    wait::until_true("writes go to the new primary", || {
        let reply = wire.call(&["SET", &key, "new"]).to_string();
        assert!(reply == "OK" || reply.starts_with("-ERR"), "{reply}");
        reply == "OK"
    });
    println!("writes resumed {:?} after the new primary", since.elapsed());
    // The sidecar may have heard of it before the other servers have.
    cluster.until_agreed();
    assert_eq!(cluster.owner_of(slot), replica);
    assert_eq!(wire.call(&["GET", &key]).text(), "new");
    assert_eq!(wire.call(&["GET", &other]).text(), "stays");
    sidecar.until_hit(&mut wire, &format!("GET {key}"));
}

#[test]
fn replicas_answer_reads_where_that_is_asked_for_and_never_fill_the_local_tier() {
    let mut options_of_cluster = ClusterOptions::of(Engine::Redis7);
    options_of_cluster.replicas = 1;
    let cluster = ClusterSet::start(&options_of_cluster);
    let options = options(&cluster).config(json!({"upstream": {"replicaReads": "Preferred"}}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut wire = sidecar.connect();
    let key = cluster.key_on(0, "plain:");
    wire.call(&["SET", &key, "value"]);
    let replica = cluster.replica_of(0).unwrap();
    let reads = |node| {
        let stats = cluster.call(node, &["INFO", "commandstats"]).text();
        let line = stats.lines().find(|line| line.starts_with("cmdstat_get:"));
        line.map(ToOwned::to_owned)
    };
    wait::until_true("the replica answers", || {
        wire.call(&["GET", &key]).text() == "value" && reads(replica).is_some()
    });
    assert!(!sidecar.is_hit(&mut wire, &format!("GET {key}")));
    // Kept keys are read where invalidations come from.
    let kept = cluster.key_on(0, "c:");
    wire.call(&["SET", &kept, "1"]);
    sidecar.until_hit(&mut wire, &format!("GET {kept}"));
    let owner = cluster.owner_of(cluster.slot_of(&kept));
    cluster.call(owner, &["SET", &kept, "2"]);
    wait::until_true("the direct write is seen", || {
        wire.call(&["GET", &kept]).text() == "2"
    });
}

#[test]
fn a_slot_that_moves_at_once_is_followed_and_nothing_stale_is_served() {
    let cluster = ClusterSet::start(&ClusterOptions::of(Engine::Valkey9));
    for coherence in ["Tracking", "Broadcast"] {
        let options = options(&cluster).config(json!({"local": {"coherence": coherence}}));
        let sidecar = Sidecar::start_coherent(&options);
        let mut wire = sidecar.connect();
        let key = cluster.key_on(0, "c:");
        let slot = cluster.slot_of(&key);
        for round in 0..4 {
            let value = format!("{coherence} before {round}");
            wire.call(&["SET", &key, &value]);
            sidecar.until_hit(&mut wire, &format!("GET {key}"));
            let to = (cluster.owner_of(slot) + 1) % 3;
            cluster.atomic_migrate(slot, to);
            let value = format!("{coherence} after {round}");
            cluster.call(to, &["SET", &key, &value]);
            wait::until_true("the write at the new owner is seen", || {
                wire.call(&["GET", &key]).text() == value
            });
            sidecar.until_hit(&mut wire, &format!("GET {key}"));
        }
    }
}

#[test]
fn a_read_over_http_follows_a_key_that_has_gone() {
    let (cluster, sidecar) = start();
    let key = cluster.key_on(0, "c:");
    sidecar.connect().call(&["SET", &key, "value"]);
    let migration = cluster.begin_migration(cluster.slot_of(&key), 1);
    migration.move_key(&key);
    for _ in 0..3 {
        let answer = http::get(sidecar.http(), &format!("/v1/cache/{key}")).unwrap();
        assert_eq!((answer.status, answer.text()), (200, "value".to_owned()));
    }
    migration.finish();
}

#[test]
fn a_command_that_blocks_waits_where_its_key_will_be() {
    let (cluster, sidecar) = start();
    let key = cluster.key_on(0, "list:");
    let migration = cluster.begin_migration(cluster.slot_of(&key), 1);
    let mut blocked = sidecar.connect();
    blocked
        .send(&e2e::wire::encode(&["BLPOP", &key, "10"]))
        .unwrap();
    wait::until_true("the client blocks at the next owner", || {
        let info = cluster.call(1, &["INFO", "clients"]).text();
        info.contains("blocked_clients:1")
    });
    assert_eq!(
        sidecar.connect().call(&["RPUSH", &key, "item"]).integer(),
        1
    );
    assert_eq!(blocked.read().unwrap().to_string(), format!("[{key} item]"));
    migration.move_all();
    migration.finish();
}

#[test]
fn a_write_over_several_slots_is_hidden_like_any_other_when_a_server_is_away() {
    let mut cluster = ClusterSet::start(&ClusterOptions::of(Engine::Redis7));
    let options = options(&cluster).rule("log", "log:*", json!({"onWriteError": "Log"}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut wire = sidecar.connect();
    let keys: Vec<String> = (0..3).map(|node| cluster.key_on(node, "log:")).collect();
    cluster.kill(1);
    wait::until_true("it is known that the server is away", || {
        let reply = wire.call(&["GET", &keys[1]]).to_string();
        reply.starts_with("-ERR redis is unavailable")
    });
    let reply = wire.call(&["MSET", &keys[0], "v", &keys[1], "v", &keys[2], "v"]);
    assert_eq!(reply.to_string(), "OK");
}
