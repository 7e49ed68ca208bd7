//! Shard channels of every shard over one connection: the app sees one node that owns every slot.

use std::{collections::BTreeSet, time::Duration};

use e2e::{ClusterOptions, ClusterSet, Engine, RedisServer, Sidecar, Wire, wait, wire::encode};

use super::{keys, options, start};

/// The next frame; a message of RESP3 looks like one of RESP2.
fn next(wire: &mut Wire) -> String {
    let frame = wire.read().unwrap().to_string();
    frame.trim_start_matches('>').to_owned()
}

fn send(wire: &mut Wire, words: &[&str]) {
    wire.send(&encode(words)).unwrap();
}

fn ssubscribe(wire: &mut Wire, channels: &[String]) {
    for (index, channel) in channels.iter().enumerate() {
        send(wire, &["SSUBSCRIBE", channel]);
        let count = index + 1;
        assert_eq!(next(wire), format!("[ssubscribe {channel} {count}]"));
    }
}

/// Connections of subscribers to all nodes.
fn subscribers(cluster: &ClusterSet, nodes: &[usize]) -> usize {
    let of = |node: &usize| {
        let clients = cluster.call(*node, &["CLIENT", "LIST", "TYPE", "pubsub"]);
        clients.text().lines().count()
    };
    nodes.iter().map(of).sum()
}

/// Publishes until somebody listens.
fn publish(publisher: &mut Wire, channel: &str, text: &str) {
    wait::until_true("somebody listens", || {
        let reply = publisher.call(&["SPUBLISH", channel, text]);
        !reply.is_error() && reply.integer() == 1
    });
}

/// What a subscriber is told, with names that stand for a channel per shard.
fn transcript(wire: &mut Wire, names: &[String]) -> Vec<String> {
    let [a, b, c] = names else {
        panic!("a channel per shard");
    };
    let steps: [(&[&str], usize); 17] = [
        (&["SSUBSCRIBE", a], 1),
        (&["SSUBSCRIBE", b], 1),
        (&["SUBSCRIBE", "news"], 1),
        (&["SSUBSCRIBE", b], 1),
        (&["PSUBSCRIBE", "n*", "m*"], 2),
        (&["SSUBSCRIBE", c, c], 2),
        (&["PING"], 1),
        (&["SUNSUBSCRIBE", "never"], 1),
        (&["SUNSUBSCRIBE", b], 1),
        (&["SSUBSCRIBE", b], 1),
        (&["SUNSUBSCRIBE", b, a], 2),
        (&["PUNSUBSCRIBE", "n*", "m*"], 2),
        (&["UNSUBSCRIBE"], 1),
        (&["UNSUBSCRIBE"], 1),
        (&["SUNSUBSCRIBE"], 1),
        (&["SUNSUBSCRIBE"], 1),
        (&["GET", "plain"], 1),
    ];
    let mut told = Vec::new();
    for (words, frames) in steps {
        send(wire, words);
        for _ in 0..frames {
            told.push(format!("{words:?}: {:?}", wire.read().unwrap()));
        }
    }
    told
}

#[test]
fn s0_16_a_subscriber_of_all_shards_is_told_what_one_server_would_tell() {
    let (cluster, sidecar) = start();
    let server = RedisServer::new(Engine::Redis7);
    let names = keys(&cluster, "shard:");
    let direct = transcript(&mut server.connect(), &names);
    assert_eq!(transcript(&mut sidecar.connect(), &names), direct);
    let mut resp3 = server.connect();
    resp3.run("HELLO 3");
    let direct = transcript(&mut resp3, &names);
    assert_eq!(transcript(&mut sidecar.connect_resp3(), &names), direct);
    wait::until_true("nothing is listened to any longer", || {
        subscribers(&cluster, &[0, 1, 2]) == 0
    });
}

#[test]
fn s0_16_a_pipeline_of_subscriptions_and_ends_is_answered_per_channel_in_order() {
    let (cluster, sidecar) = start();
    let mut publisher = sidecar.connect();
    let names: Vec<String> = (0..40).map(|number| format!("many:{number}")).collect();
    for mut wire in [sidecar.connect(), sidecar.connect_resp3()] {
        let mut bytes = Vec::new();
        let mut words = vec!["SSUBSCRIBE".to_owned()];
        words.extend_from_slice(&names);
        bytes.extend(encode(&words));
        for name in &names {
            bytes.extend(encode(&["SUNSUBSCRIBE", name]));
            bytes.extend(encode(&["SSUBSCRIBE", name]));
        }
        wire.send(&bytes).unwrap();
        let mut counts = BTreeSet::new();
        for _ in &names {
            let frame = next(&mut wire);
            assert!(frame.starts_with("[ssubscribe many:"), "{frame}");
            counts.insert(
                frame
                    .trim_end_matches(']')
                    .rsplit_once(' ')
                    .unwrap()
                    .1
                    .to_owned(),
            );
        }
        let all: BTreeSet<String> = (1..=40).map(|count: u32| count.to_string()).collect();
        assert_eq!(counts, all);
        for name in &names {
            assert_eq!(next(&mut wire), format!("[sunsubscribe {name} 39]"));
            assert_eq!(next(&mut wire), format!("[ssubscribe {name} 40]"));
        }
        for name in &names {
            assert_eq!(publisher.call(&["SPUBLISH", name, "m"]).integer(), 1);
        }
        let heard: BTreeSet<String> = names.iter().map(|_| next(&mut wire)).collect();
        let sent = names.iter().map(|name| format!("[smessage {name} m]"));
        assert_eq!(heard, sent.collect());
        let busy = subscribers(&cluster, &[0, 1, 2]);
        assert_eq!(busy, 3, "one connection per shard");
        send(&mut wire, &["SUNSUBSCRIBE"]);
        let left: BTreeSet<String> = names
            .iter()
            .map(|_| next(&mut wire).split(' ').nth(1).unwrap().to_owned())
            .collect();
        assert_eq!(left, names.iter().cloned().collect());
        assert_eq!(wire.run("GET plain").to_string(), "(nil)");
    }
}

#[test]
fn s0_16_all_connections_end_with_the_apps() {
    let (cluster, sidecar) = start();
    let names = keys(&cluster, "shard:");
    for end in ["RESET", "QUIT", ""] {
        for mut wire in [sidecar.connect(), sidecar.connect_resp3()] {
            ssubscribe(&mut wire, &names);
            send(&mut wire, &["SUBSCRIBE", "news"]);
            assert_eq!(next(&mut wire), "[subscribe news 1]");
            assert_eq!(subscribers(&cluster, &[0, 1, 2]), 4);
            match end {
                "RESET" => {
                    assert_eq!(wire.run("RESET").to_string(), "RESET");
                    for key in &names {
                        assert_eq!(wire.call(&["SET", key, "v"]).to_string(), "OK");
                    }
                }
                "QUIT" => assert_eq!(wire.run("QUIT").to_string(), "OK"),
                _ => drop(wire),
            }
            wait::until_true("the servers are left", || {
                subscribers(&cluster, &[0, 1, 2]) == 0
            });
        }
    }
}

#[test]
fn s0_16_a_channel_whose_slot_moves_is_listened_to_on() {
    let (cluster, sidecar) = start();
    let mut publisher = sidecar.connect();
    let names = keys(&cluster, "shard:");
    for mut wire in [sidecar.connect(), sidecar.connect_resp3()] {
        ssubscribe(&mut wire, &names);
        let slot = cluster.slot_of(&names[0]);
        for round in 0..4 {
            let to = (cluster.owner_of(slot) + 1) % 3;
            cluster.migrate_slot(slot, to);
            let text = format!("round {round}");
            for name in &names {
                publish(&mut publisher, name, &text);
                assert_eq!(next(&mut wire), format!("[smessage {name} {text}]"));
            }
        }
        send(&mut wire, &["SUNSUBSCRIBE", &names[0]]);
        assert_eq!(next(&mut wire), format!("[sunsubscribe {} 2]", names[0]));
        send(&mut wire, &["SSUBSCRIBE", &names[0]]);
        assert_eq!(next(&mut wire), format!("[ssubscribe {} 3]", names[0]));
        publish(&mut publisher, &names[0], "again");
        assert_eq!(next(&mut wire), format!("[smessage {} again]", names[0]));
    }
}

fn with_replicas() -> (ClusterSet, Sidecar) {
    let mut options_of_cluster = ClusterOptions::of(Engine::Redis7);
    options_of_cluster.replicas = 1;
    let cluster = ClusterSet::start(&options_of_cluster);
    let sidecar = Sidecar::start_coherent(&options(&cluster));
    (cluster, sidecar)
}

#[test]
fn s0_16_a_planned_fail_over_is_not_seen_by_subscribers() {
    let (cluster, sidecar) = with_replicas();
    let mut publisher = sidecar.connect();
    let names = keys(&cluster, "shard:");
    let mut wire = sidecar.connect_resp3();
    ssubscribe(&mut wire, &names);
    let replica = cluster.replica_of(0).unwrap();
    cluster.failover(replica);
    wait::until_true("the new primary is listened at", || {
        let channels = cluster.call(replica, &["PUBSUB", "SHARDCHANNELS"]);
        !channels.items().is_empty()
    });
    for name in &names {
        assert!(!publisher.call(&["SPUBLISH", name, "m"]).is_error());
        assert_eq!(next(&mut wire), format!("[smessage {name} m]"));
    }
}

#[test]
fn f53_subscribers_of_a_shard_that_dies_are_closed_and_may_come_again() {
    let (mut cluster, sidecar) = with_replicas();
    let mut publisher = sidecar.connect();
    let names = keys(&cluster, "shard:");
    let mut all = sidecar.connect();
    ssubscribe(&mut all, &names);
    let mut others = sidecar.connect();
    ssubscribe(&mut others, &names[1..]);
    let replica = cluster.replica_of(0).unwrap();
    cluster.kill(0);
    assert!(all.is_closed());
    let alive: Vec<usize> = (1..6).collect();
    wait::until_true("its other connections are closed", || {
        subscribers(&cluster, &alive) == 2
    });
    wait::until_true("the replica has taken over", || cluster.is_primary(replica));
    let mut again = wait::until("it is subscribed to again", || {
        let mut wire = sidecar.connect();
        send(&mut wire, &["SSUBSCRIBE", &names[0]]);
        let reply = wire.read().unwrap().to_string();
        let done = format!("[ssubscribe {} 1]", names[0]);
        assert!(reply == done || reply.starts_with("-ERR"), "{reply}");
        (reply == done).then_some(wire)
    });
    publish(&mut publisher, &names[0], "m");
    assert_eq!(next(&mut again), format!("[smessage {} m]", names[0]));
    publish(&mut publisher, &names[1], "m");
    assert_eq!(next(&mut others), format!("[smessage {} m]", names[1]));
}

#[test]
fn s0_16_a_subscriber_of_resp3_runs_any_command_at_any_shard() {
    let (cluster, sidecar) = start();
    let mut publisher = sidecar.connect();
    let names = keys(&cluster, "shard:");
    let mut wire = sidecar.connect_resp3();
    ssubscribe(&mut wire, &names[..1]);
    let id = wire.run("CLIENT ID").integer().to_string();
    for key in keys(&cluster, "plain:") {
        assert_eq!(wire.call(&["SET", &key, "v"]).to_string(), "OK");
        assert_eq!(wire.call(&["GET", &key]).text(), "v");
        let list = format!("{{{key}}}:list");
        let node = cluster.owner_of(cluster.slot_of(&list));
        let blocked = || {
            let info = cluster.call(node, &["INFO", "clients"]).text();
            info.contains("blocked_clients:1")
        };
        send(&mut wire, &["BLPOP", &list, "0"]);
        wait::until_true("the client blocks", blocked);
        publish(&mut publisher, &names[0], "while blocked");
        assert_eq!(
            next(&mut wire),
            format!("[smessage {} while blocked]", names[0])
        );
        publisher.call(&["RPUSH", &list, "item"]);
        assert_eq!(next(&mut wire), format!("[{list} item]"));
        // Who is unblocked from outside listens on.
        send(&mut wire, &["BLPOP", &list, "0"]);
        wait::until_true("the client blocks", blocked);
        assert_eq!(publisher.call(&["CLIENT", "UNBLOCK", &id]).integer(), 1);
        assert_eq!(next(&mut wire), "(nil)");
        assert_eq!(wire.run("WAIT 0 100").to_string(), "0");
        publish(&mut publisher, &names[0], "still");
        assert_eq!(next(&mut wire), format!("[smessage {} still]", names[0]));
    }
    send(&mut wire, &["SUNSUBSCRIBE"]);
    assert_eq!(next(&mut wire), format!("[sunsubscribe {} 0]", names[0]));
    assert_eq!(wire.run("MULTI").to_string(), "OK");
    assert_eq!(wire.run("EXEC").to_string(), "[]");
}

#[test]
fn s0_16_a_command_that_blocks_a_subscriber_follows_its_key() {
    let (cluster, sidecar) = start();
    let mut publisher = sidecar.connect();
    let names = keys(&cluster, "shard:");
    let key = cluster.key_on(2, "list:");
    let mut wire = sidecar.connect_resp3();
    ssubscribe(&mut wire, &names);
    publisher.call(&["RPUSH", &key, "one"]);
    cluster.migrate_slot(cluster.slot_of(&key), 0);
    assert_eq!(
        wire.call(&["BLPOP", &key, "5"]).to_string(),
        format!("[{key} one]")
    );
    for name in &names {
        publish(&mut publisher, name, "m");
        assert_eq!(next(&mut wire), format!("[smessage {name} m]"));
    }
}

#[test]
fn s0_16_what_a_server_refuses_is_told_and_the_rest_is_listened_to() {
    let (cluster, sidecar) = start();
    let names = keys(&cluster, "shard:");
    for node in 0..3 {
        let rights = ["ACL", "SETUSER", "default", "resetchannels", "&shard:*"];
        assert_eq!(cluster.call(node, &rights).to_string(), "OK");
    }
    let mut publisher = sidecar.connect();
    let mut wire = sidecar.connect();
    let forbidden = keys(&cluster, "secret:");
    send(&mut wire, &["SSUBSCRIBE", &forbidden[0]]);
    let error = next(&mut wire);
    assert!(error.starts_with("-NOPERM"), "{error}");
    assert_eq!(wire.run("GET plain").to_string(), "(nil)");
    ssubscribe(&mut wire, &names);
    for channel in &forbidden {
        send(&mut wire, &["SSUBSCRIBE", channel]);
        let error = next(&mut wire);
        assert!(error.starts_with("-NOPERM"), "{error}");
    }
    for name in &names {
        publish(&mut publisher, name, "m");
        assert_eq!(next(&mut wire), format!("[smessage {name} m]"));
    }
    send(&mut wire, &["SUNSUBSCRIBE", &names[2]]);
    assert_eq!(next(&mut wire), format!("[sunsubscribe {} 2]", names[2]));
    wire.patience(Duration::from_secs(5));
    assert_eq!(wire.run("PING").to_string(), "[pong ]");
}
