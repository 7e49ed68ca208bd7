//! The bounded offline queue.

use std::time::{Duration, Instant};

use e2e::{Engine, RedisServer, Sidecar, SidecarOptions, Wire, wait};
use serde_json::json;

fn queueing(server: &RedisServer, queue: &serde_json::Value) -> Sidecar {
    let options = SidecarOptions::before(server)
        .rule("cached", "c:{id}", json!({"ttl": "1h"}))
        .config(json!({"resilience": {"offlineQueue": queue, "maxRetries": 0}}));
    Sidecar::start_coherent(&options)
}

/// Kills Redis and waits until commands would fail.
fn lose(server: &mut RedisServer, sidecar: &Sidecar) {
    server.kill();
    sidecar.until_disconnected();
}

fn waiting(sidecar: &Sidecar, commands: f64) {
    wait::until_true(&format!("{commands} commands wait"), || {
        let now = sidecar.metric("pannier_offline_queue_commands", "");
        (now - commands).abs() < f64::EPSILON
    });
}

fn dropped(sidecar: &Sidecar, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    sidecar.metric("pannier_offline_queue_dropped_total", &label)
}

fn send(app: &mut Wire, commands: &[&str]) {
    app.send((commands.join("\r\n") + "\r\n").as_bytes())
        .unwrap();
}

fn read(app: &mut Wire, replies: usize) -> Vec<String> {
    (0..replies)
        .map(|_| app.read().unwrap().to_string())
        .collect()
}

#[test]
fn s2_9_commands_wait_in_order_and_are_executed_when_redis_is_back() {
    let mut server = RedisServer::new(Engine::Redis7);
    let sidecar = queueing(&server, &json!({"maxWait": "20s"}));
    let mut apps = [sidecar.connect(), sidecar.connect()];
    lose(&mut server, &sidecar);
    for (name, app) in ["a", "b"].iter().zip(&mut apps) {
        let lines: Vec<String> = (0..100).map(|n| format!("RPUSH {name} {n}")).collect();
        let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let set = format!("SET c:{name} v");
        lines.extend([set.as_str(), "INCR n"]);
        send(app, &lines);
    }
    waiting(&sidecar, 204.0);
    let state = sidecar.state();
    assert_eq!(state["offlineQueue"]["commands"], 204, "{state}");
    let words = state["connection"]["words"].as_str().unwrap();
    assert!(
        words.contains("commands wait in the offline queue"),
        "{words}"
    );
    server.restart();
    let mut direct = server.connect();
    let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    for (name, app) in ["a", "b"].iter().zip(&mut apps) {
        let replies = read(app, 102);
        let lengths: Vec<String> = (1..=100).map(|n| n.to_string()).collect();
        assert_eq!(replies[..100], lengths);
        assert_eq!(replies[100], "OK");
        let list = direct.run(&format!("LRANGE {name} 0 -1")).to_string();
        assert_eq!(list, format!("[{}]", expected.join(" ")));
    }
    assert_eq!(direct.run("GET n"), "2");
    // The TTL of the rule follows its write.
    let ttl = direct.run("TTL c:a").to_string();
    assert!(ttl.parse::<i64>().unwrap() > 3000, "{ttl}");
    waiting(&sidecar, 0.0);
}

#[test]
fn s2_9_the_queue_is_bounded_in_commands_and_the_next_one_fails_p9() {
    let mut server = RedisServer::new(Engine::Redis7);
    let sidecar = queueing(&server, &json!({"maxCommands": 3, "maxWait": "20s"}));
    let (mut first, mut second) = (sidecar.connect(), sidecar.connect());
    lose(&mut server, &sidecar);
    send(&mut first, &["INCR n", "INCR n", "INCR n"]);
    waiting(&sidecar, 3.0);
    let refused = second.run("INCR n").to_string();
    assert!(
        refused.starts_with("-ERR redis is unavailable, the command was not executed: the offline queue is full: 3 commands wait (resilience.offlineQueue.maxCommands); "),
        "{refused}"
    );
    assert!((dropped(&sidecar, "full") - 1.0).abs() < f64::EPSILON);
    assert!(sidecar.log().contains("the offline queue is full"));
    server.restart();
    assert_eq!(read(&mut first, 3), ["1", "2", "3"]);
    assert_eq!(second.run("GET n"), "3");
}

#[test]
fn s2_9_the_queue_is_bounded_in_bytes_p9() {
    let mut server = RedisServer::new(Engine::Redis7);
    let sidecar = queueing(&server, &json!({"maxWait": "20s"}));
    let mut app = sidecar.connect();
    lose(&mut server, &sidecar);
    let big = "x".repeat(30 << 20);
    for _ in 0..2 {
        let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", big.len());
        app.send(head.as_bytes()).unwrap();
        app.send(big.as_bytes()).unwrap();
        app.send(b"\r\n").unwrap();
    }
    waiting(&sidecar, 2.0);
    let mut other = sidecar.connect();
    let refused = other.call(&["SET", "k", &big]).to_string();
    assert!(
        refused.contains("the waiting commands take 64 MiB"),
        "{}",
        &refused[..200.min(refused.len())]
    );
    waiting(&sidecar, 2.0);
}

#[test]
fn s2_9_a_command_that_waits_too_long_fails_and_is_never_executed() {
    let mut server = RedisServer::new(Engine::Redis7);
    let sidecar = queueing(&server, &json!({"maxWait": "300ms"}));
    let mut app = sidecar.connect();
    lose(&mut server, &sidecar);
    let begun = Instant::now();
    send(&mut app, &["INCR n", "INCR n"]);
    for reply in read(&mut app, 2) {
        assert!(
            reply.starts_with("-ERR redis is unavailable, the command was not executed: it waited 300ms in the offline queue (resilience.offlineQueue.maxWait): "),
            "{reply}"
        );
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    // Together, not one after the other, and well before the patience of an app ends.
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!((dropped(&sidecar, "expired") - 2.0).abs() < f64::EPSILON);
    server.restart();
    wait::until_true("commands work", || app.run("SET probe v") == "OK");
    assert_eq!(server.connect().run("EXISTS n"), "0");
    waiting(&sidecar, 0.0);
}

#[test]
fn s2_9_transactions_and_blocking_commands_wait_too_and_nothing_overtakes() {
    let mut server = RedisServer::new(Engine::Redis7);
    let sidecar = queueing(&server, &json!({"maxWait": "20s"}));
    let (mut app, mut blocked) = (sidecar.connect(), sidecar.connect());
    lose(&mut server, &sidecar);
    send(
        &mut app,
        &[
            "SET c:1 5",
            "MULTI",
            "INCR c:1",
            "EXEC",
            "GET c:1",
            "RPUSH l x",
        ],
    );
    send(&mut blocked, &["BLPOP l 20", "PING"]);
    // `SET`, and `BLPOP` in its client; the rest comes behind.
    waiting(&sidecar, 2.0);
    server.restart();
    assert_eq!(read(&mut app, 6), ["OK", "OK", "QUEUED", "[6]", "6", "1"]);
    assert_eq!(read(&mut blocked, 2), ["[l x]", "PONG"]);
    waiting(&sidecar, 0.0);
}

#[test]
fn s2_9_a_blocking_command_that_waits_too_long_fails() {
    let mut server = RedisServer::new(Engine::Redis7);
    let sidecar = queueing(&server, &json!({"maxWait": "200ms", "maxCommands": 1}));
    let (mut app, mut other) = (sidecar.connect(), sidecar.connect());
    lose(&mut server, &sidecar);
    send(&mut app, &["BLPOP l 20"]);
    waiting(&sidecar, 1.0);
    let refused = other.run("MULTI").to_string();
    assert!(refused.contains("the offline queue is full"), "{refused}");
    let reply = app.read().unwrap().to_string();
    assert!(
        reply.contains("it waited 200ms in the offline queue"),
        "{reply}"
    );
    waiting(&sidecar, 0.0);
}

#[test]
fn memory_mode_answers_although_a_queue_is_declared() {
    let mut server = RedisServer::new(Engine::Redis7);
    let options = SidecarOptions::before(&server).config(
        json!({"resilience": {"offlineQueue": {"maxWait": "20s"}, "whenUnavailable": "Memory"}}),
    );
    let sidecar = Sidecar::start(&options);
    sidecar.until_connected();
    let mut app = sidecar.connect();
    lose(&mut server, &sidecar);
    assert_eq!(app.run("SET k v"), "OK");
    assert_eq!(app.run("GET k"), "v");
}
