//! `WAIT` and `WAITAOF`: at every shard, the least of the answers.

use e2e::{ClusterOptions, ClusterSet, Engine, Sidecar, wait};

use super::{keys, options};

#[test]
fn s0_16_wait_counts_the_replicas_of_the_shard_that_has_fewest() {
    for engine in [Engine::Redis7, Engine::Valkey9] {
        let mut options_of_cluster = ClusterOptions::of(engine);
        options_of_cluster.replicas = 1;
        let mut cluster = ClusterSet::start(&options_of_cluster);
        let sidecar = Sidecar::start_coherent(&options(&cluster));
        let keys = keys(&cluster, "plain:");
        let mut app = sidecar.connect();
        let replica = cluster.replica_of(2).unwrap();
        assert_eq!(
            app.run("WAIT").to_string(),
            "-ERR wrong number of arguments for 'wait' command"
        );
        for round in 0..2 {
            for key in &keys {
                assert_eq!(
                    app.call(&["SET", key, &format!("v{round}")]).to_string(),
                    "OK"
                );
            }
            assert_eq!(app.run("WAIT 1 5000").integer(), 1);
            let written = cluster.call(replica, &["INFO", "keyspace"]).text();
            assert!(written.contains("keys="), "{written}");
            cluster.pause(replica);
            for key in &keys {
                assert_eq!(app.call(&["SET", key, "unseen"]).to_string(), "OK");
            }
            assert_eq!(app.run("WAIT 1 200").integer(), 0, "{}", engine.name());
            cluster.resume(replica);
            assert_eq!(app.run("WAIT 1 10000").integer(), 1);
            // While keys are watched, too.
            assert_eq!(app.call(&["WATCH", &keys[0]]).to_string(), "OK");
            assert_eq!(app.run("WAIT 1 5000").integer(), 1);
            app.run("MULTI");
            app.call(&["SET", &keys[0], "mine"]);
            assert_eq!(app.run("EXEC").to_string(), "[OK]");
        }
        wait::until_true("nothing of it stays", || {
            (0..3).all(|node| {
                let keys = cluster.call(node, &["KEYS", "pannier:wait*"]);
                keys.items().is_empty()
            })
        });
    }
}

#[test]
fn s0_16_waitaof_asks_every_shard() {
    let mut options_of_cluster = ClusterOptions::of(Engine::Valkey9);
    options_of_cluster.config.push("appendonly yes".to_owned());
    let cluster = ClusterSet::start(&options_of_cluster);
    let sidecar = Sidecar::start_coherent(&options(&cluster));
    for mut app in [sidecar.connect(), sidecar.connect_resp3()] {
        for key in keys(&cluster, "plain:") {
            assert_eq!(app.call(&["SET", &key, "v"]).to_string(), "OK");
        }
        assert_eq!(app.run("WAITAOF 1 0 5000").to_string(), "[1 0]");
        assert_eq!(app.run("WAITAOF 1 1 50").to_string(), "[1 0]");
        assert_eq!(
            cluster.call(1, &["CONFIG", "SET", "appendonly", "no"]),
            "OK"
        );
        let reply = app.run("WAITAOF 1 0 50").to_string();
        assert!(reply.starts_with("-ERR WAITAOF cannot be used"), "{reply}");
        assert_eq!(
            cluster.call(1, &["CONFIG", "SET", "appendonly", "yes"]),
            "OK"
        );
    }
}

#[test]
fn s0_16_who_waits_for_replicas_may_be_unblocked_or_go() {
    let cluster = ClusterSet::start(&ClusterOptions::of(Engine::Redis7));
    let sidecar = Sidecar::start_coherent(&options(&cluster));
    let blocked = |count: usize| {
        wait::until_true("so many connections are blocked", || {
            let of = |node| {
                let info = cluster.call(node, &["INFO", "clients"]).text();
                info.contains("blocked_clients:1")
            };
            (0..3).filter(|node| of(*node)).count() == count
        });
    };
    let mut app = sidecar.connect();
    let id = app.run("CLIENT ID").integer().to_string();
    app.send(b"WAIT 1 0\r\n").unwrap();
    blocked(3);
    let mut other = sidecar.connect();
    assert_eq!(other.call(&["CLIENT", "UNBLOCK", &id]).integer(), 1);
    assert_eq!(app.read().unwrap().integer(), 0);
    blocked(0);
    assert_eq!(app.run("GET plain").to_string(), "(nil)");
    app.send(b"WAIT 1 0\r\n").unwrap();
    blocked(3);
    drop(app);
    blocked(0);
}
