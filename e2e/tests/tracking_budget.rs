//! Redis' table of tracked keys is full: entries fall by announcements of changes that did not
//! happen, everything stays correct, and the sidecar says what to do (B.7).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use e2e::{ClusterSet, Engine, RedisServer, Sidecar, SidecarOptions, wait};
use serde_json::json;

const LIMIT: u32 = 100;
const KEYS: u32 = 500;

#[test]
fn b7_a_full_tracking_table_costs_hits_and_is_warned_about() {
    for engine in [Engine::Redis7, Engine::Valkey8] {
        let server = RedisServer::new(engine);
        let mut direct = server.connect();
        direct.run(&format!("CONFIG SET tracking-table-max-keys {LIMIT}"));
        for n in 0..KEYS {
            direct.run(&format!("SET c:{n} {n}"));
        }
        let options = SidecarOptions::before(&server)
            .rule("cached", "c:{id}", json!({}))
            .rule("barrier", "barrier:{id}", json!({}));
        let sidecar = Sidecar::start_coherent(&options);
        let mut app = sidecar.connect();
        assert!(sidecar.state()["coherence"]["trackingTable"]["warning"].is_null());

        // Nobody writes, and still entries fall.
        let invalidations = || sidecar.metric("pannier_invalidations_received_total", "");
        wait::until_true("changes are announced that did not happen", || {
            for n in 0..KEYS {
                assert_eq!(app.run(&format!("GET c:{n}")).to_string(), n.to_string());
            }
            invalidations() > f64::from(KEYS)
        });
        wait::until_true("samples show that nothing had changed", || {
            for n in 0..KEYS {
                assert_eq!(app.run(&format!("GET c:{n}")).to_string(), n.to_string());
            }
            sidecar.metric("pannier_invalidations_sampled_total", "\"same\"") >= 1.0
        });
        let changed = sidecar.metric("pannier_invalidations_sampled_total", "\"changed\"");
        assert!(changed.abs() < f64::EPSILON, "{changed} values had changed");

        // It is said in the log, in /state and in figures.
        let warning = || {
            let table = &sidecar.state()["coherence"]["trackingTable"];
            table["warning"].as_str().map(str::to_owned)
        };
        wait::until_true("there is a warning", || {
            for n in 0..KEYS {
                app.run(&format!("GET c:{n}"));
            }
            warning().is_some()
        });
        let words = warning().unwrap();
        assert!(words.contains("raise tracking-table-max-keys"), "{words}");
        assert!(words.contains("coherence: Broadcast"), "{words}");
        assert!(sidecar.log().contains("raise tracking-table-max-keys"));
        let limit = sidecar.metric("pannier_tracking_table_max_keys", "");
        assert!((limit - f64::from(LIMIT)).abs() < f64::EPSILON, "{limit}");
        assert!(sidecar.metric("pannier_tracking_table_keys", "") >= f64::from(LIMIT) * 0.8);

        // What is written is seen all the same.
        for round in 0..300 {
            let key = format!("c:{}", round % KEYS);
            app.run(&format!("GET {key}"));
            assert_eq!(direct.run(&format!("SET {key} new-{round}")), "OK");
            assert_eq!(app.run(&format!("GET barrier:{round}")), "(nil)");
            assert_eq!(
                app.run(&format!("GET {key}")).to_string(),
                format!("new-{round}")
            );
        }

        // With room again the warning goes.
        direct.run("CONFIG SET tracking-table-max-keys 1000000");
        wait::until_true("the warning is taken back", || warning().is_none());
    }
}

#[test]
fn a_server_that_does_not_tell_its_limit_is_not_warned_about() {
    let server = RedisServer::new(Engine::Redis7);
    let mut direct = server.connect();
    direct.run("ACL SETUSER default on nopass ~* &* +@all -config");
    let options = SidecarOptions::before(&server).rule("cached", "c:{id}", json!({}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    wait::until_true("the refusal is logged", || {
        sidecar.log().contains("CONFIG GET tracking-table-max-keys")
    });
    wait::until_true("the number of keys is known", || {
        sidecar.metrics().contains("pannier_tracking_table_keys ")
    });
    assert!(
        !sidecar
            .metrics()
            .contains("pannier_tracking_table_max_keys ")
    );
    assert!(sidecar.state()["coherence"]["trackingTable"]["warning"].is_null());
}

#[test]
fn b7_in_a_cluster_the_fullest_table_of_all_shards_is_warned_about() {
    let cluster = ClusterSet::new(Engine::Redis7);
    let upstream = json!({"mode": "Cluster"});
    let options = SidecarOptions::before_several(&cluster.ports(), &upstream).rule(
        "cached",
        "c:*",
        json!({}),
    );
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    let table = || sidecar.state()["coherence"]["trackingTable"].clone();
    // Each shard in turn: none is more looked at than another.
    for shard in 0..3 {
        let limit = |max: u32| {
            let max = max.to_string();
            let set = ["CONFIG", "SET", "tracking-table-max-keys", &max];
            assert_eq!(cluster.call(shard, &set), "OK");
        };
        limit(20);
        let tag = cluster.key_on(shard, "");
        let words = wait::until("there is a warning", || {
            for n in 0..60 {
                app.run(&format!("GET c:{{{tag}}}{n}"));
            }
            table()["warning"].as_str().map(str::to_owned)
        });
        let port = cluster.node(shard).port();
        assert!(
            words.contains(&format!("127.0.0.1:{port} tracks")),
            "{words}"
        );
        assert_eq!(table()["maxKeys"], 20);
        assert!(
            (sidecar.metric("pannier_tracking_table_max_keys", "") - 20.0).abs() < f64::EPSILON
        );
        limit(1_000_000);
        wait::until_true("the warning is taken back", || table()["warning"].is_null());
    }
}
