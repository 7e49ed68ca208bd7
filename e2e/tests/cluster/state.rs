//! Commands with connection state: transactions, subscriptions, blocking.

use std::time::Duration;

use e2e::wait;

use super::{keys, start};

#[test]
fn a_transaction_goes_to_the_shard_of_its_first_key() {
    let (cluster, sidecar) = start();
    let mut wire = sidecar.connect();
    for key in keys(&cluster, "c:") {
        let other = format!("{{{key}}}:other");
        assert_eq!(wire.run("MULTI").to_string(), "OK");
        assert_eq!(wire.call(&["SET", &key, "1"]).to_string(), "QUEUED");
        assert_eq!(wire.call(&["INCR", &key]).to_string(), "QUEUED");
        assert_eq!(wire.call(&["SET", &other, "x"]).to_string(), "QUEUED");
        assert_eq!(wire.run("EXEC").to_string(), "[OK 2 OK]");
        assert_eq!(wire.call(&["GET", &key]).text(), "2");
    }
    assert_eq!(wire.run("MULTI").to_string(), "OK");
    assert_eq!(wire.run("EXEC").to_string(), "[]");
    assert_eq!(wire.run("MULTI").to_string(), "OK");
    assert_eq!(
        wire.run("MULTI").to_string(),
        "-ERR MULTI calls can not be nested"
    );
    assert_eq!(wire.run("DISCARD").to_string(), "OK");
    assert_eq!(wire.run("EXEC").to_string(), "-ERR EXEC without MULTI");
}

#[test]
fn a_transaction_over_two_shards_fails_as_a_whole() {
    let (cluster, sidecar) = start();
    let mut wire = sidecar.connect();
    let keys = keys(&cluster, "c:");
    wire.run("MULTI");
    assert_eq!(wire.call(&["SET", &keys[0], "1"]).to_string(), "QUEUED");
    let error = wire.call(&["SET", &keys[1], "1"]).to_string();
    assert!(error.starts_with("-ERR the slot of this key"), "{error}");
    let exec = wire.run("EXEC").to_string();
    assert!(exec.starts_with("-EXECABORT"), "{exec}");
    assert_eq!(wire.call(&["EXISTS", &keys[0]]).integer(), 0);
    // And at the first command.
    wire.run("MULTI");
    let error = wire.call(&["SINTER", &keys[0], &keys[1]]).to_string();
    assert!(error.starts_with("-CROSSSLOT"), "{error}");
    assert_eq!(wire.call(&["SET", &keys[0], "1"]).to_string(), "QUEUED");
    let exec = wire.run("EXEC").to_string();
    assert!(exec.starts_with("-EXECABORT"), "{exec}");
    assert_eq!(wire.call(&["EXISTS", &keys[0]]).integer(), 0);
}

#[test]
fn a_watched_key_that_changes_fails_the_transaction() {
    let (cluster, sidecar) = start();
    let mut wire = sidecar.connect();
    for key in keys(&cluster, "c:") {
        assert_eq!(wire.call(&["WATCH", &key]).to_string(), "OK");
        let owner = cluster.owner_of(cluster.slot_of(&key));
        cluster.call(owner, &["SET", &key, "changed"]);
        wire.run("MULTI");
        wire.call(&["SET", &key, "mine"]);
        assert_eq!(wire.run("EXEC").to_string(), "(nil)");
        assert_eq!(wire.call(&["GET", &key]).text(), "changed");
    }
}

#[test]
fn blocking_commands_wait_at_the_owner_of_their_key() {
    let (cluster, sidecar) = start();
    for key in keys(&cluster, "list:") {
        let mut blocked = sidecar.connect();
        blocked
            .send(&e2e::wire::encode(&["BLPOP", &key, "10"]))
            .unwrap();
        let owner = cluster.owner_of(cluster.slot_of(&key));
        wait::until_true("the client blocks", || {
            let info = cluster.call(owner, &["INFO", "clients"]).text();
            info.contains("blocked_clients:1")
        });
        sidecar.connect().call(&["RPUSH", &key, "item"]);
        assert_eq!(blocked.read().unwrap().to_string(), format!("[{key} item]"));
    }
}

#[test]
fn messages_arrive_over_channels_and_shard_channels() {
    let (cluster, sidecar) = start();
    let mut publisher = sidecar.connect();
    let mut listener = sidecar.connect();
    listener
        .send(&e2e::wire::encode(&["SUBSCRIBE", "news"]))
        .unwrap();
    assert_eq!(listener.read().unwrap().to_string(), "[subscribe news 1]");
    publisher.call(&["PUBLISH", "news", "hello"]);
    assert_eq!(listener.read().unwrap().to_string(), "[message news hello]");
    for channel in keys(&cluster, "shard:") {
        let mut listener = sidecar.connect();
        listener
            .send(&e2e::wire::encode(&["SSUBSCRIBE", &channel]))
            .unwrap();
        assert_eq!(
            listener.read().unwrap().to_string(),
            format!("[ssubscribe {channel} 1]")
        );
        assert_eq!(publisher.call(&["SPUBLISH", &channel, "m"]).integer(), 1);
        assert_eq!(
            listener.read().unwrap().to_string(),
            format!("[smessage {channel} m]")
        );
    }
}

#[test]
fn a_subscriber_of_resp3_reads_keys_of_every_shard() {
    let (cluster, sidecar) = start();
    let mut wire = sidecar.connect_resp3();
    wire.patience(Duration::from_secs(5));
    wire.send(&e2e::wire::encode(&["SUBSCRIBE", "news"]))
        .unwrap();
    wire.read().unwrap();
    for key in keys(&cluster, "plain:") {
        assert_eq!(wire.call(&["SET", &key, "v"]).to_string(), "OK");
        assert_eq!(wire.call(&["GET", &key]).text(), "v");
    }
}

#[test]
fn a_transaction_whose_first_command_is_refused_can_be_discarded() {
    let (cluster, sidecar) = start();
    let mut wire = sidecar.connect();
    wire.run("MULTI");
    let reply = wire.run("SUBSCRIBE news").to_string();
    assert!(reply.starts_with("-ERR"), "{reply}");
    assert_eq!(wire.run("DISCARD").to_string(), "OK");
    for key in keys(&cluster, "plain:") {
        assert_eq!(wire.call(&["SET", &key, "v"]).to_string(), "OK");
    }
    for (command, reply) in [("MULTI", "OK"), ("UNWATCH", "QUEUED"), ("EXEC", "[OK]")] {
        assert_eq!(wire.run(command).to_string(), reply);
    }
}
