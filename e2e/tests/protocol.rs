//! Bad input on the Redis port: answered as Redis answers it, harmless to the other connections,
//! and bounded in memory before bytes arrive (P9).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use std::{net::SocketAddr, time::Duration};

use e2e::{Engine, RedisServer, Sidecar, SidecarOptions, Value, Wire, wait, wire::encode};
use serde_json::json;

/// Inputs whose answer is taken from a real server. A connection that is still open at the end is
/// closed by the `QUIT` that follows.
const INPUTS: &[&[u8]] = &[
    b"*1\r\n$4\r\nPING\r\n",
    b"PING\r\n",
    b"PING\n",
    b"  ping   hello  \r\n",
    b"SET k \"a b\\x41\\n\"\r\nGET k\r\n",
    b"SET k 'it is'\r\nGET k\r\n",
    b"\r\n\r\nPING\r\n",
    b"*0\r\n*1\r\n$4\r\nPING\r\n",
    b"*-1\r\n*1\r\n$4\r\nPING\r\n",
    b"*-7\r\nPING\r\n",
    b"SET k \"unbalanced\r\n",
    b"SET k 'unbalanced\r\n",
    b"*abc\r\n",
    b"*1x\r\n",
    b"*99999999999999999999\r\n",
    b"*1\r\n+PING\r\n",
    b"*1\r\n:1\r\n",
    b"*1\r\n*1\r\n*1\r\n*1\r\n$4\r\nPING\r\n",
    b"*1\r\n$abc\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$-5\r\n",
    b"*1\r\n$\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n$99999999999999999999\r\n",
    b"*1\r\n$0\r\n\r\n",
    b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n",
    b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4x\r\n",
    b"\xff\xfe\r\n",
    b"*1\r\n$5\r\nNOSUC\r\n",
    b"*3\r\n$3\r\nGET\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"*1\r\n$3\r\nGET\r\n",
];

/// Everything that is answered until the other side closes.
fn answer(address: SocketAddr, input: &[u8]) -> String {
    let mut wire = Wire::connect(address);
    wire.patience(Duration::from_secs(3));
    // The other side may close before it has read everything.
    let _ = wire.send(input);
    match wire.read_to_end() {
        Ok(bytes) => bytes.escape_ascii().to_string(),
        Err(error) => format!("still open: {error}"),
    }
}

#[test]
fn malformed_input_is_answered_as_redis_answers_it() {
    let server = RedisServer::new(Engine::Redis7);
    let reference = RedisServer::new(Engine::Redis7);
    let before = Sidecar::start_coherent(&SidecarOptions::before(&server));
    let alone = Sidecar::start(&SidecarOptions::memory());
    let mut differences = Vec::new();
    for input in INPUTS {
        let input = &[input, &encode(&["QUIT"])[..]].concat();
        let expected = answer(reference.address(), input);
        for (name, address) in [
            ("before Redis", before.address()),
            ("memory", alone.address()),
        ] {
            let got = answer(address, input);
            if got != expected {
                let input = input.escape_ascii();
                differences.push(format!(
                    "{name}: {input}\n  expected {expected}\n  got      {got}"
                ));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn lines_that_never_end_are_refused() {
    let reference = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start(&SidecarOptions::memory());
    for first in [b'P', b'*', b'$'] {
        let mut input = vec![b'1'; 70 * 1024];
        input[0] = first;
        if first == b'$' {
            input.splice(0..0, *b"*1\r\n");
        }
        let expected = answer(reference.address(), &input);
        assert!(expected.contains("Protocol error"), "{expected}");
        assert_eq!(answer(sidecar.address(), &input), expected);
    }
}

#[test]
fn commands_that_arrive_byte_by_byte_are_understood() {
    let server = RedisServer::new(Engine::Redis7);
    let options = SidecarOptions::before(&server).rule("cached", "c:{id}", json!({}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut wire = sidecar.connect();
    let commands: &[&[&str]] = &[
        &["SET", "c:1", "one"],
        &["GET", "c:1"],
        &["GET", "c:1"],
        &["SET", "u:1", ""],
        &["GET", "u:1"],
        &["MULTI"],
        &["INCR", "n"],
        &["EXEC"],
        &["LPUSH", "l", "a", "b"],
        &["LRANGE", "l", "0", "-1"],
    ];
    let bytes: Vec<u8> = commands
        .iter()
        .flat_map(|command| encode(command))
        .collect();
    for byte in bytes {
        wire.send(&[byte]).unwrap();
    }
    let replies: Vec<String> = commands
        .iter()
        .map(|_| wire.read().unwrap().to_string())
        .collect();
    let expected = [
        "OK", "one", "one", "OK", "", "OK", "QUEUED", "[1]", "2", "[b a]",
    ];
    assert_eq!(replies, expected);
}

#[test]
fn hello_answers_what_redis_answers() {
    let sidecar = Sidecar::start(&SidecarOptions::memory());
    let reference = RedisServer::new(Engine::Redis7);
    let mut wires = [sidecar.connect(), reference.connect()];
    for line in [
        "HELLO 4",
        "HELLO 1",
        "HELLO three",
        "HELLO 3 BOGUS",
        "HELLO 3 SETNAME",
        "PING",
    ] {
        let [got, expected] = wires.each_mut().map(|wire| wire.run(line));
        assert_eq!(got, expected, "{line}");
    }
    let [got, _] = wires.each_mut().map(|wire| wire.run("HELLO 4"));
    assert!(got.to_string().starts_with("-NOPROTO"), "{got}");
    let [got, expected] = wires.each_mut().map(|wire| wire.run("HELLO 3 SETNAME app"));
    let names = |reply: &Value| -> Vec<String> {
        assert!(matches!(reply, Value::Map(_)), "{reply:?}");
        reply.items().chunks(2).map(|pair| pair[0].text()).collect()
    };
    assert_eq!(names(&got), names(&expected));
    assert_eq!(wires[0].run("CLIENT GETNAME"), "app");
    assert_eq!(wires[0].run("GET none").to_string(), "(nil)");
    assert_eq!(wires[0].run("RESET"), "RESET");
    assert_eq!(wires[0].run("GET none"), Value::NullBulk);
}

#[test]
fn announced_sizes_take_no_memory_before_bytes_arrive() {
    let options = SidecarOptions::memory().config(json!({"sidecar": {"maxBulkSize": "64Mi"}}));
    let mut sidecar = Sidecar::start(&options);
    let mut healthy = sidecar.connect();
    assert_eq!(healthy.run("SET k v"), "OK");
    let before = sidecar.process().resident();
    let mut hungry = Vec::new();
    for head in [
        "*1048576\r\n$3\r\nSET\r\n",
        "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$67108864\r\nfirst bytes",
        "*1000000\r\n",
    ] {
        for _ in 0..100 {
            let mut wire = sidecar.connect();
            wire.send(head.as_bytes()).unwrap();
            hungry.push(wire);
        }
        // Answered after the bytes above were read: one event loop serves all.
        assert_eq!(healthy.run("GET k"), "v");
    }
    let grown = sidecar.process().resident().saturating_sub(before);
    assert!(
        grown < 32 << 20,
        "300 connections that only announce took {grown} bytes"
    );
    drop(hungry);
    assert_eq!(healthy.run("GET k"), "v");
}

#[test]
fn a_bulk_string_above_the_limit_is_refused_at_its_head() {
    let options = SidecarOptions::memory().config(json!({"sidecar": {"maxBulkSize": "1Mi"}}));
    let sidecar = Sidecar::start(&options);
    let mut healthy = sidecar.connect();
    assert_eq!(healthy.call(&["SET", "k", &"x".repeat(1 << 20)]), "OK");
    let mut wire = sidecar.connect();
    wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048577\r\n")
        .unwrap();
    assert_eq!(
        wire.read().unwrap(),
        "-ERR Protocol error: invalid bulk length"
    );
    assert!(wire.is_closed());
    assert_eq!(healthy.run("STRLEN k"), "1048576");
}

#[test]
fn one_client_too_many_is_told_so_and_a_free_place_is_given_again() {
    let options = SidecarOptions::memory().config(json!({"sidecar": {"maxClients": 5}}));
    let sidecar = Sidecar::start(&options);
    let mut wires: Vec<Wire> = (0..5).map(|_| sidecar.connect()).collect();
    for wire in &mut wires {
        assert_eq!(wire.run("PING"), "PONG");
    }
    let mut sixth = sidecar.connect();
    assert_eq!(sixth.read().unwrap(), "-ERR max number of clients reached");
    assert!(sixth.is_closed());
    wires.pop();
    wait::until_true("the place is free", || {
        let ping = sidecar.connect().try_call(&["PING"]);
        ping.is_ok_and(|reply| reply == "PONG")
    });
    assert_eq!(wires[0].run("PING"), "PONG");
}

/// Redis closes a connection that says `Host:` or `POST`: a browser was talked into sending it.
/// Passed on, it would close a connection that other apps share.
#[test]
fn a_request_for_a_web_server_is_closed_and_does_not_reach_redis() {
    let server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&SidecarOptions::before(&server));
    let mut healthy = sidecar.connect();
    assert_eq!(healthy.run("SET k v"), "OK");
    let connections = server.connect().run("INFO stats").text();
    let received = |stats: &str| -> u64 {
        let line = stats
            .lines()
            .find(|line| line.starts_with("total_connections_received:"));
        line.and_then(|line| line.split(':').nth(1)?.parse().ok())
            .unwrap()
    };
    let before = received(&connections);
    for request in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\n\r\nSET k w\r\n",
    ] {
        let mut wire = sidecar.connect();
        wire.patience(Duration::from_secs(3));
        wire.send(request.as_bytes()).unwrap();
        assert!(wire.is_closed(), "{request}");
        assert_eq!(healthy.run("GET k"), "v");
    }
    // Our own connection for this question is the one that came.
    assert_eq!(
        received(&server.connect().run("INFO stats").text()),
        before + 1
    );
}

#[test]
fn a_reader_that_does_not_read_is_closed_and_stalls_nobody() {
    let server = RedisServer::new(Engine::Redis7);
    let options = SidecarOptions::before(&server)
        .rule("cached", "c:{id}", json!({}))
        .config(json!({"sidecar": {"outputLimit": "1Mi"}}));
    let mut sidecar = Sidecar::start_coherent(&options);
    let mut healthy = sidecar.connect();
    for key in ["c:big", "u:big"] {
        assert_eq!(healthy.call(&["SET", key, &"x".repeat(100_000)]), "OK");
    }
    sidecar.until_hit(&mut healthy, "GET c:big");
    let before = sidecar.process().resident();
    for key in ["c:big", "u:big"] {
        let mut lazy = sidecar.connect();
        let many: Vec<u8> = (0..2000).flat_map(|_| encode(&["GET", key])).collect();
        // 200 MB of replies that nobody takes; the send itself may already meet the closed end.
        let _ = lazy.send(&many);
        // Local answers can wait until they are read: such a reader may stay open, at little cost.
        // Replies that come from Redis cannot wait.
        if key == "u:big" {
            wait::until_true("the slow reader is closed", || {
                assert_eq!(healthy.run("SET n 1"), "OK");
                sidecar.metric("pannier_slow_readers_closed_total", "") > 0.0
            });
        } else {
            for _ in 0..200 {
                assert_eq!(healthy.run("SET n 1"), "OK");
            }
        }
        let grown = sidecar.process().resident().saturating_sub(before);
        assert!(
            grown < 64 << 20,
            "the slow reader of {key} took {grown} bytes"
        );
    }
}
