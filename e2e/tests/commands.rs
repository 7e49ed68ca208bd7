//! What the sidecar answers itself, and commands that hold state: subscriptions, blocking reads,
//! transactions, MONITOR, each on an upstream connection of its own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use std::time::Duration;

use e2e::{Engine, RedisServer, Sidecar, SidecarOptions, Value, Wire, wait, wire::encode};
use serde_json::json;

fn start() -> (RedisServer, Sidecar) {
    let server = RedisServer::new(Engine::Redis7);
    let options = SidecarOptions::before(&server).rule("cached", "c:{id}", json!({}));
    let sidecar = Sidecar::start_coherent(&options);
    (server, sidecar)
}

/// Connections of the sidecar to Redis.
fn upstream_connections(server: &RedisServer) -> usize {
    server.connect().run("CLIENT LIST").text().lines().count()
}

#[test]
fn client_subcommands_answer_for_the_apps_own_connection() {
    let (_server, sidecar) = start();
    let (mut one, mut two) = (sidecar.connect(), sidecar.connect());
    assert_eq!(one.run("CLIENT SETNAME first"), "OK");
    assert_eq!(one.run("CLIENT GETNAME"), "first");
    assert_eq!(two.run("CLIENT GETNAME"), "(nil)");
    assert_eq!(one.run("CLIENT SETINFO LIB-NAME test"), "OK");
    assert_eq!(one.run("CLIENT NO-EVICT on"), "OK");
    let (first, second) = (
        one.run("CLIENT ID").integer(),
        two.run("CLIENT ID").integer(),
    );
    assert_ne!(first, second);
    let list = two.run("CLIENT LIST").text();
    assert!(
        list.contains(&format!("id={first} ")) && list.contains("name=first"),
        "{list}"
    );
    assert!(
        one.run("CLIENT INFO")
            .text()
            .contains(&format!("id={first} "))
    );
    assert!(one.run("CLIENT TRACKING on").is_error());
    assert!(
        one.run("CLIENT NOSUCH")
            .to_string()
            .starts_with("-ERR unknown subcommand 'NOSUCH'")
    );
    assert!(one.call(&["CLIENT", "SETNAME", "with blank"]).is_error());
    assert_eq!(two.run(&format!("CLIENT KILL ID {first}")), "1");
    assert!(one.is_closed());
}

#[test]
fn client_reply_off_and_skip_hold_back_replies() {
    let (_server, sidecar) = start();
    let mut wire = sidecar.connect();
    wire.send(b"CLIENT REPLY OFF\r\nSET k 1\r\nPING\r\nCLIENT REPLY ON\r\n")
        .unwrap();
    assert_eq!(wire.read().unwrap(), "OK");
    wire.send(b"CLIENT REPLY SKIP\r\nINCR k\r\nGET k\r\n")
        .unwrap();
    assert_eq!(wire.read().unwrap(), "2");
}

#[test]
fn client_unblock_ends_a_blocked_command() {
    let (_server, sidecar) = start();
    let (mut blocked, mut other) = (sidecar.connect(), sidecar.connect());
    let id = blocked.run("CLIENT ID").integer();
    blocked.send(b"BLPOP none 0\r\n").unwrap();
    wait::until_true("it is blocked", || {
        other.run(&format!("CLIENT UNBLOCK {id}")) == "1"
    });
    assert_eq!(blocked.read().unwrap(), "(nil)");
    assert_eq!(blocked.run("PING"), "PONG");
}

#[test]
fn commands_about_the_server_are_answered_as_clients_expect() {
    let (server, sidecar) = start();
    let (mut app, mut direct) = (sidecar.connect(), server.connect());
    let info = app.run("INFO").text();
    assert!(
        info.contains("redis_version:7.0.") && info.contains("# Pannier"),
        "{info}"
    );
    assert!(app.run("COMMAND COUNT").integer() > 200);
    for line in [
        "COMMAND GETKEYS MSET a 1 b 2",
        "COMMAND INFO nosuch",
        "ECHO hello",
        "PING",
        "PING hello",
        "COMMAND GETKEYS EVAL x 2 a b c",
        "SENTINEL masters",
        "GET",
        "SELECT 99",
        "SELECT x",
        "NOSUCH a b",
    ] {
        assert_eq!(app.run(line), direct.run(line), "{line}");
    }
    assert_eq!(app.run("ROLE").items()[0], "master");
    assert_eq!(
        app.run("CONFIG GET maxmemory-policy"),
        direct.run("CONFIG GET maxmemory-policy")
    );
    assert_eq!(app.run("AUTH anything"), "OK");
    assert_eq!(app.run("AUTH user anything"), "OK");
    assert_eq!(app.run("QUIT"), "OK");
    assert!(app.is_closed());
}

#[test]
fn commands_that_would_harm_the_server_are_refused() {
    let (server, sidecar) = start();
    for line in [
        "SYNC",
        "PSYNC ? -1",
        "REPLCONF listening-port 1",
        "SHUTDOWN NOSAVE",
        "REPLICAOF 127.0.0.1 1",
        "SLAVEOF 127.0.0.1 1",
        "FAILOVER",
        "DEBUG SLEEP 0",
    ] {
        let reply = sidecar.connect().run(line);
        assert!(reply.to_string().starts_with("-ERR"), "{line}: {reply}");
    }
    assert_eq!(server.connect().run("ROLE").items()[0], "master");
}

#[test]
fn allowed_commands_reach_the_server() {
    let server = RedisServer::new(Engine::Redis7);
    let options =
        SidecarOptions::before(&server).config(json!({"sidecar": {"allowCommands": ["DEBUG"]}}));
    let sidecar = Sidecar::start_coherent(&options);
    assert_eq!(sidecar.connect().run("DEBUG SLEEP 0"), "OK");
}

#[test]
fn subscriptions_work_over_both_protocols() {
    let (_server, sidecar) = start();
    let mut publisher = sidecar.connect();
    let mut old = sidecar.connect();
    assert_eq!(old.run("SUBSCRIBE a b"), "[subscribe a 1]");
    assert_eq!(old.read().unwrap(), "[subscribe b 2]");
    assert_eq!(old.run("PSUBSCRIBE n*"), "[psubscribe n* 3]");
    assert_eq!(old.run("PING"), "[pong ]");
    assert_eq!(old.run("PING hello"), "[pong hello]");
    assert!(
        old.run("GET k")
            .to_string()
            .starts_with("-ERR Can't execute 'get'")
    );
    assert_eq!(publisher.run("PUBLISH a one"), "1");
    assert_eq!(old.read().unwrap(), "[message a one]");
    assert_eq!(publisher.run("PUBLISH news two"), "1");
    assert_eq!(old.read().unwrap(), "[pmessage n* news two]");
    assert_eq!(old.run("UNSUBSCRIBE a"), "[unsubscribe a 2]");
    assert_eq!(old.run("UNSUBSCRIBE"), "[unsubscribe b 1]");
    assert_eq!(old.run("PUNSUBSCRIBE"), "[punsubscribe n* 0]");
    assert_eq!(old.run("GET k"), "(nil)");

    let mut new = Wire::connect_resp3(sidecar.address());
    assert_eq!(new.run("SUBSCRIBE a"), ">[subscribe a 1]");
    assert_eq!(new.run("SET c:1 v"), "OK");
    assert_eq!(new.run("GET c:1"), "v");
    assert_eq!(publisher.run("PUBLISH a three"), "1");
    assert_eq!(new.read().unwrap(), ">[message a three]");
    assert_eq!(new.run("SSUBSCRIBE s"), ">[ssubscribe s 1]");
    assert_eq!(publisher.run("SPUBLISH s four"), "1");
    assert_eq!(new.read().unwrap(), ">[smessage s four]");
    assert_eq!(new.run("RESET"), "RESET");
    wait::until_true("nobody is subscribed any more", || {
        publisher.run("PUBLISH a five") == "0"
    });
}

#[test]
fn channels_have_no_prefix() {
    let server = RedisServer::new(Engine::Redis7);
    let options = SidecarOptions::before(&server).config(json!({"keyspace": {"prefix": "app:"}}));
    let sidecar = Sidecar::start_coherent(&options);
    let (mut app, mut direct) = (sidecar.connect(), server.connect());
    assert_eq!(app.run("SUBSCRIBE news"), "[subscribe news 1]");
    assert_eq!(direct.run("PUBLISH news hello"), "1");
    assert_eq!(app.read().unwrap(), "[message news hello]");
}

#[test]
fn under_a_prefix_only_its_own_keys_are_seen() {
    let server = RedisServer::new(Engine::Redis7);
    let options = SidecarOptions::before(&server).config(json!({"keyspace": {"prefix": "a.b:"}}));
    let sidecar = Sidecar::start_coherent(&options);
    let (mut app, mut direct) = (sidecar.connect(), server.connect());
    assert_eq!(direct.run("MSET axb:foreign 1 stranger 2"), "OK");
    assert_eq!(app.run("MSET k 1 l 2"), "OK");
    assert_eq!(direct.run("MGET a.b:k a.b:l"), "[1 2]");
    assert_eq!(app.run("DBSIZE"), "2");
    let mut keys: Vec<String> = app.run("KEYS *").items().iter().map(Value::text).collect();
    keys.sort();
    assert_eq!(keys, ["k", "l"]);
    for refused in ["FLUSHDB", "FLUSHALL", "SWAPDB 0 1"] {
        assert!(app.run(refused).is_error(), "{refused}");
    }
    assert_eq!(app.run("RANDOMKEY").text().len(), 1);
    assert_eq!(app.run("RPUSH q job"), "1");
    assert_eq!(app.run("BLPOP q 1"), "[q job]");
    assert_eq!(app.run("XADD s 1-1 f v"), "1-1");
    assert_eq!(app.run("XREAD STREAMS s 0"), "[[s [[1-1 [f v]]]]]");
    assert_eq!(direct.run("DBSIZE"), "5");
}

#[test]
fn a_blocked_client_holds_up_nobody_and_leaves_nothing_behind() {
    let (server, sidecar) = start();
    let mut app = sidecar.connect();
    let rest = {
        let mut blocked: Vec<Wire> = (0..20).map(|_| sidecar.connect()).collect();
        for (position, wire) in blocked.iter_mut().enumerate() {
            wire.send(b"BLPOP queue 0\r\n").unwrap();
            // Redis serves whoever has waited longest.
            if position == 0 {
                wait::until_true("the first is blocked in Redis", || {
                    let clients = server.connect().run("INFO clients").text();
                    clients.contains("blocked_clients:1")
                });
            }
        }
        wait::until_true("all are blocked in Redis", || {
            server
                .connect()
                .run("INFO clients")
                .text()
                .contains("blocked_clients:20")
        });
        assert_eq!(app.run("SET k v"), "OK");
        assert_eq!(app.run("RPUSH queue job"), "1");
        assert_eq!(blocked[0].read().unwrap(), "[queue job]");
        upstream_connections(&server)
    };
    wait::until_true("the connections of vanished clients are closed", || {
        server
            .connect()
            .run("INFO clients")
            .text()
            .contains("blocked_clients:0")
    });
    assert!(upstream_connections(&server) <= rest);
    // A job pushed now must not be taken by a connection whose client has gone.
    assert_eq!(app.run("RPUSH queue later"), "1");
    assert_eq!(app.run("LRANGE queue 0 -1"), "[later]");
}

#[test]
fn a_transaction_of_a_vanished_client_is_never_inherited() {
    let (_server, sidecar) = start();
    for _ in 0..20 {
        let mut gone = sidecar.connect();
        assert_eq!(gone.run("MULTI"), "OK");
        assert_eq!(gone.run("SET k broken"), "QUEUED");
        drop(gone);
        let mut next = sidecar.connect();
        assert_eq!(next.run("SET other v"), "OK");
        assert_eq!(next.run("MULTI"), "OK");
        assert_eq!(next.run("GET other"), "QUEUED");
        assert_eq!(next.run("EXEC"), "[v]");
    }
    assert_eq!(sidecar.connect().run("GET k"), "(nil)");
}

#[test]
fn watch_sees_the_write_of_another_connection() {
    let (server, sidecar) = start();
    let mut app = sidecar.connect();
    assert_eq!(app.run("WATCH c:1"), "OK");
    assert_eq!(server.connect().run("SET c:1 changed"), "OK");
    assert_eq!(app.run("MULTI"), "OK");
    assert_eq!(app.run("SET c:1 mine"), "QUEUED");
    assert_eq!(app.run("EXEC"), "(nil)");
    assert_eq!(app.run("GET c:1"), "changed");
    assert!(
        app.run("EXEC")
            .to_string()
            .starts_with("-ERR EXEC without MULTI")
    );
}

#[test]
fn a_pipeline_keeps_its_order_across_local_answers_and_waiting_commands() {
    let (_server, sidecar) = start();
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 warm"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    let pipeline: &[&[&str]] = &[
        &["GET", "c:1"],
        &["SET", "c:1", "two"],
        &["GET", "c:1"],
        &["MULTI"],
        &["SET", "c:1", "three"],
        &["EXEC"],
        &["GET", "c:1"],
        &["BLPOP", "none", "0.05"],
        &["GET", "c:1"],
        &["SELECT", "1"],
        &["GET", "c:1"],
        &["SELECT", "0"],
        &["DEL", "c:1"],
        &["GET", "c:1"],
        &["CLIENT", "GETNAME"],
        &["ECHO", "end"],
    ];
    let bytes: Vec<u8> = pipeline
        .iter()
        .flat_map(|command| encode(command))
        .collect();
    for _ in 0..20 {
        app.send(&bytes).unwrap();
        let replies: Vec<String> = pipeline
            .iter()
            .map(|_| app.read().unwrap().to_string())
            .collect();
        assert_eq!(
            &replies[1..],
            [
                "OK", "two", "OK", "QUEUED", "[OK]", "three", "(nil)", "three", "OK", "(nil)",
                "OK", "1", "(nil)", "(nil)", "end",
            ]
        );
    }
}

#[test]
fn monitor_shows_commands_and_is_closed_with_its_client() {
    let (server, sidecar) = start();
    let (mut monitor, mut app) = (sidecar.connect(), sidecar.connect());
    assert_eq!(monitor.run("MONITOR"), "OK");
    assert_eq!(app.run("SET watched v"), "OK");
    wait::until_true("the command is shown", || {
        monitor.read().unwrap().text().contains("watched")
    });
    drop(monitor);
    wait::until_true("the upstream connection is closed", || {
        !server
            .connect()
            .run("CLIENT LIST")
            .text()
            .contains("flags=O")
    });
}

#[test]
fn memory_mode_serves_what_it_promises_and_names_what_it_does_not() {
    let sidecar = Sidecar::start(&SidecarOptions::memory());
    let reference = RedisServer::new(Engine::Redis7);
    let (mut app, mut direct) = (sidecar.connect(), reference.connect());
    for line in [
        "SET s v",
        "GET s",
        "APPEND s w",
        "STRLEN s",
        "GETRANGE s 0 0",
        "SETRANGE s 5 x",
        "GETSET s z",
        "GETDEL s",
        "SETNX s 1",
        "INCR n",
        "INCRBY n 5",
        "DECR n",
        "INCRBYFLOAT n 1.5",
        "MSET a 1 b 2",
        "MGET a b none",
        "MSETNX a 1 c 2",
        "EXISTS a b none",
        "EXPIRE a 100",
        "TTL a",
        "PERSIST a",
        "TTL a",
        "TTL none",
        "EXPIRE none 1",
        "TYPE a",
        "TYPE none",
        "DEL a none",
        "DBSIZE",
        "HSET h f 1 g 2",
        "HGET h f",
        "HGET h none",
        "HMGET h f none",
        "HDEL h f",
        "HLEN h",
        "HEXISTS h g",
        "HINCRBY h g 3",
        "HGETALL h",
        "TYPE h",
        "SADD t a b a",
        "SISMEMBER t a",
        "SCARD t",
        "SREM t a",
        "SMEMBERS t",
        "LPUSH l a b",
        "RPUSH l c",
        "LRANGE l 0 -1",
        "LLEN l",
        "LPOP l",
        "RPOP l",
        "LINDEX l 0",
        "LPUSH s x",
        "GET h",
        "INCR l",
        "RENAME b d",
        "GET d",
        "SELECT 1",
        "GET d",
        "SELECT 0",
        "FLUSHDB",
        "DBSIZE",
        "GET",
        "SET k v EX 0",
        "SET k v BOGUS",
        "INCR",
        "HSET h f",
    ] {
        assert_eq!(app.run(line), direct.run(line), "{line}");
    }
    for line in ["XGROUP CREATE s g $", "PFADD p a", "FCALL f 0"] {
        let reply = app.run(line);
        assert!(reply.to_string().starts_with("-ERR"), "{reply}");
        assert!(
            reply
                .to_string()
                .contains("is not available in memory mode"),
            "{reply}"
        );
    }
    assert!(app.run("INFO").text().contains("redis_version:"));
}

#[test]
fn memory_mode_expires_and_publishes() {
    let sidecar = Sidecar::start(&SidecarOptions::memory());
    let (mut app, mut subscriber) = (sidecar.connect(), sidecar.connect());
    assert_eq!(app.run("SET k v PX 60"), "OK");
    assert_eq!(app.run("GET k"), "v");
    wait::within(
        Duration::from_secs(2),
        || "the key expires".into(),
        || (app.run("GET k") == "(nil)").then_some(()),
    );
    assert_eq!(app.run("DBSIZE"), "0");
    assert_eq!(subscriber.run("PSUBSCRIBE n*"), "[psubscribe n* 1]");
    assert_eq!(app.run("PUBLISH news hi"), "1");
    assert_eq!(subscriber.read().unwrap(), "[pmessage n* news hi]");
    for number in 0..500 {
        assert_eq!(app.run(&format!("SET scan:{number} v")), "OK");
    }
    let (mut cursor, mut found) = ("0".to_owned(), std::collections::BTreeSet::new());
    loop {
        let reply = app.run(&format!("SCAN {cursor} MATCH scan:* COUNT 50"));
        let [next, keys] = reply.items() else {
            panic!("{reply}")
        };
        found.extend(keys.items().iter().map(Value::text));
        cursor = next.text();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found.len(), 500);
}
