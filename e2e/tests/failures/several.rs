//! Several servers: Sentinels and clusters, fail-overs and moving slots.

use e2e::{ClusterOptions, ClusterSet, Engine, SentinelSet, Sidecar, SidecarOptions, wait};
use serde_json::{Value as Json, json};

use super::{count, log_says, until_works};

fn in_front_of(ports: &[u16], upstream: &Json) -> SidecarOptions {
    SidecarOptions::before_several(ports, upstream).rule("cached", "c:*", json!({}))
}

fn behind_sentinels(servers: &SentinelSet) -> Sidecar {
    let upstream = json!({"mode": "Sentinel", "sentinel": {"masterName": "mymaster"}});
    Sidecar::start_coherent(&in_front_of(&servers.sentinel_ports(), &upstream))
}

fn behind_a_cluster(cluster: &ClusterSet) -> Sidecar {
    Sidecar::start_coherent(&in_front_of(&cluster.ports(), &json!({"mode": "Cluster"})))
}

fn cluster(replicas: usize) -> ClusterSet {
    let options = ClusterOptions {
        replicas,
        ..ClusterOptions::of(Engine::Redis7)
    };
    ClusterSet::start(&options)
}

#[test]
fn f50_the_primary_behind_sentinels_is_killed() {
    let mut servers = SentinelSet::new(Engine::Redis7);
    let sidecar = behind_sentinels(&servers);
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    let old = servers.kill_primary();
    let reply = app.run("SET c:1 w").to_string();
    assert!(
        reply.starts_with("-ERR ") || reply == "OK",
        "honest, whatever it is: {reply}"
    );
    servers.until_switched(old);
    until_works(&mut app);
    assert_eq!(app.run("SET c:1 new"), "OK");
    assert_eq!(app.run("GET c:1"), "new");
    sidecar.until_hit(&mut app, "GET c:1");
    assert!(count(&sidecar, "pannier_topology_changes_total", "") >= 1.0);
    assert!(count(&sidecar, "pannier_cache_flushes_total", "link_lost") > 0.0);
}

#[test]
fn f51_a_planned_switch_over_behind_sentinels() {
    let servers = SentinelSet::new(Engine::Redis7);
    let sidecar = behind_sentinels(&servers);
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    servers.failover();
    until_works(&mut app);
    assert_eq!(app.run("SET c:1 new"), "OK");
    assert_eq!(servers.primary().ask("GET c:1"), "new");
    assert_eq!(app.run("GET c:1"), "new");
}

#[test]
fn f52_all_sentinels_are_away() {
    let mut servers = SentinelSet::new(Engine::Redis7);
    let sidecar = behind_sentinels(&servers);
    let mut app = sidecar.connect();
    servers.kill_sentinels();
    wait::until_true("it is noticed", || {
        let state = sidecar.state();
        state["topology"]["words"]
            .as_str()
            .is_some_and(|words| words.contains("failed"))
    });
    assert_eq!(app.run("SET c:1 v"), "OK", "the known primary serves on");
    sidecar.until_hit(&mut app, "GET c:1");
}

#[test]
fn f53_a_primary_of_a_cluster_is_killed() {
    let mut cluster = cluster(1);
    let sidecar = behind_a_cluster(&cluster);
    let mut app = sidecar.connect();
    let (key, other) = (cluster.key_on(0, "c:"), cluster.key_on(1, "c:"));
    let (set, get) = (format!("SET {key} v"), format!("GET {key}"));
    assert_eq!(app.run(&set), "OK");
    sidecar.until_hit(&mut app, &get);
    cluster.kill(0);
    wait::until_true(
        "writes to its slots fail honestly, or succeed again",
        || {
            let reply = app.run(&set).to_string();
            assert!(reply.starts_with("-ERR ") || reply == "OK", "{reply}");
            assert_eq!(
                app.run(&format!("SET {other} v")),
                "OK",
                "other shards go on"
            );
            reply == "OK"
        },
    );
    assert_eq!(app.run(&get), "v");
    sidecar.until_hit(&mut app, &get);
    assert!(count(&sidecar, "pannier_topology_changes_total", "") >= 1.0);
}

#[test]
fn f54_a_slot_moves() {
    let cluster = cluster(0);
    let sidecar = behind_a_cluster(&cluster);
    let mut app = sidecar.connect();
    let key = cluster.key_on(0, "c:");
    assert_eq!(app.run(&format!("SET {key} v")), "OK");
    sidecar.until_hit(&mut app, &format!("GET {key}"));
    let migration = cluster.begin_migration(cluster.slot_of(&key), 1);
    migration.move_all();
    assert_eq!(app.run(&format!("APPEND {key} w")).integer(), 2, "ASK");
    migration.finish();
    assert_eq!(app.run(&format!("APPEND {key} x")).integer(), 3, "MOVED");
    assert_eq!(app.run(&format!("GET {key}")), "vwx");
    assert!(count(&sidecar, "pannier_upstream_redirects_total", "") > 0.0);
    wait::until_true("what was read from the old owner is dropped", || {
        count(&sidecar, "pannier_cache_flushes_total", "slot_moved") > 0.0
    });
}

#[test]
fn f55_a_cluster_has_lost_its_majority() {
    let mut cluster = cluster(0);
    let sidecar = behind_a_cluster(&cluster);
    let mut app = sidecar.connect();
    let key = cluster.key_on(2, "c:");
    assert_eq!(app.run(&format!("SET {key} v")), "OK");
    sidecar.until_hit(&mut app, &format!("GET {key}"));
    cluster.kill(0);
    cluster.kill(1);
    wait::until_true("the last node refuses", || {
        let reply = app.run(&format!("SET {key} w")).to_string();
        assert!(reply.starts_with('-') || reply == "OK", "{reply}");
        reply.starts_with("-CLUSTERDOWN")
    });
    let reply = app.run(&format!("GET {key}")).to_string();
    assert!(reply.starts_with("-CLUSTERDOWN"), "nothing local: {reply}");
    log_says(&sidecar, "redis is in doubt");
}
