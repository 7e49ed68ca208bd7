//! Redis is away, comes back, or does not say anything.

use std::{net::TcpListener, time::Instant};

use e2e::{
    Engine, RedisServer, ServerOptions, Sidecar, SidecarOptions,
    liar::{Liar, Lie},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{NOT_EXECUTED, before, count, limited, log_says, until_says, until_works};

#[test]
fn f01_redis_is_killed() {
    let mut server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&before(&server));
    let mut app = sidecar.connect();
    let mut listener = sidecar.connect();
    listener.run("SUBSCRIBE news");
    assert_eq!(app.run("SET c:1 v"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    server.kill();
    assert!(listener.read().is_err(), "a subscriber is closed");
    sidecar.until_disconnected();
    for command in ["GET c:1", "SET c:1 w", "MULTI", "BLPOP l 0"] {
        let reply = app.run(command).to_string();
        assert!(
            reply.starts_with(&format!("{NOT_EXECUTED}failed to connect to 127.0.0.1:")),
            "{command}: {reply}"
        );
    }
    log_says(
        &sidecar,
        "redis is unavailable; commands fail until it is back",
    );
    assert!(count(&sidecar, "pannier_upstream_errors_total", "") > 0.0);
    assert!(count(&sidecar, "pannier_cache_flushes_total", "link_lost") > 0.0);
    server.restart();
    until_works(&mut app);
    log_says(&sidecar, "redis is connected and ready");
}

#[test]
fn f02_redis_is_restarted_empty() {
    let mut server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&before(&server));
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    server.restart();
    until_works(&mut app);
    assert_eq!(app.run("GET c:1"), "(nil)", "nothing of before is served");
    assert_eq!(app.run("SET c:1 new"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
}

#[test]
fn f03_redis_is_restarted_with_its_data() {
    let mut server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&before(&server));
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    assert_eq!(server.connect().run("SAVE"), "OK");
    server.restart();
    until_works(&mut app);
    assert_eq!(app.run("GET c:1"), "v");
    sidecar.until_hit(&mut app, "GET c:1");
}

#[test]
fn f04_redis_is_paused() {
    let server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&before(&server));
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    server.pause();
    let write = app.run("SET c:2 v").to_string();
    assert!(
        write.starts_with("-ERR SET was sent to redis at 127.0.0.1:"),
        "{write}"
    );
    assert!(
        write.ends_with(
            "got no reply (no reply within 300ms); it may or may not have been executed"
        ),
        "{write}"
    );
    log_says(&sidecar, "a connection to redis broke; reconnecting");
    until_says(&mut app, "GET c:1", NOT_EXECUTED);
    server.resume();
    until_works(&mut app);
}

#[test]
fn f05_redis_cannot_be_reached() {
    // Connections are taken by the kernel and by nobody else.
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = hole.local_addr().unwrap().port();
    let options = limited(SidecarOptions::before_port(port))
        .config(json!({"resilience": {"connectTimeout": "200ms"}}));
    let sidecar = Sidecar::start(&options);
    let mut app = sidecar.connect();
    let reply = app.run("GET c:1").to_string();
    assert!(
        reply.starts_with(NOT_EXECUTED)
            && reply.ends_with("did not complete the handshake within 200ms"),
        "{reply}"
    );
    log_says(&sidecar, "did not complete the handshake within 200ms");
    drop(hole);
    let _server = RedisServer::start_on(port, ServerOptions::default());
    until_works(&mut app);
}

#[test]
fn f06_the_connection_breaks_in_the_middle_of_a_reply() {
    let server = RedisServer::new(Engine::Redis7);
    let liar = Liar::before(&server);
    let options = limited(SidecarOptions::before_port(liar.port()));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    until_works(&mut app);
    liar.answer("INCR", Lie::SayAndClose(b":1".to_vec()));
    let reply = app.run("INCR n").to_string();
    assert!(
        reply.starts_with("-ERR INCR was sent to redis at ")
            && reply.contains("the connection broke")
            && reply.ends_with("it may or may not have been executed"),
        "{reply}"
    );
    log_says(&sidecar, "a connection to redis broke; reconnecting");
    liar.repent();
    until_works(&mut app);
}

#[test]
fn f07_redis_is_slow() {
    let server = RedisServer::new(Engine::Redis7);
    let options = SidecarOptions::before(&server).config(json!({"slowLogThreshold": "50ms"}));
    let sidecar = Sidecar::start(&options);
    sidecar.until_connected();
    let mut app = sidecar.connect();
    until_works(&mut app);
    let mut direct = server.connect();
    direct.send(b"DEBUG SLEEP 0.3\r\n").unwrap();
    wait::until_true("a command is slow", || {
        let begun = Instant::now();
        assert_eq!(app.run("GET probe"), "v");
        begun.elapsed().as_millis() > 100
    });
    log_says(&sidecar, "slow operation");
    assert!(
        count(
            &sidecar,
            "pannier_upstream_request_duration_seconds_count",
            ""
        ) > 0.0
    );
}

#[test]
fn f08_redis_fails_again_and_again_before_a_circuit_breaker() {
    let mut server = RedisServer::new(Engine::Redis7);
    let options = before(&server).config(json!({"resilience": {
        "circuitBreaker": {"failures": 3, "openFor": "500ms"},
    }}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    server.kill();
    let open = format!("{NOT_EXECUTED}the circuit is open: nothing is sent for another ");
    until_says(&mut app, "GET c:1", &open);
    assert!(count(&sidecar, "pannier_circuit_opened_total", "") > 0.0);
    log_says(&sidecar, "the circuit opened: nothing is sent to redis for");
    server.restart();
    until_works(&mut app);
    log_says(&sidecar, "the circuit closed");
}

#[test]
fn f09_redis_is_away_and_commands_may_wait() {
    let mut server = RedisServer::new(Engine::Redis7);
    let options = before(&server)
        .config(json!({"resilience": {"offlineQueue": {"maxCommands": 1, "maxWait": "10s"}}}));
    let sidecar = Sidecar::start_coherent(&options);
    let (mut app, mut other) = (sidecar.connect(), sidecar.connect());
    server.kill();
    sidecar.until_disconnected();
    app.send(b"SET k v\r\n").unwrap();
    let full = format!("{NOT_EXECUTED}the offline queue is full: 1 commands wait");
    until_says(&mut other, "SET k w", &full);
    assert!(count(&sidecar, "pannier_offline_queue_dropped_total", "full") > 0.0);
    log_says(
        &sidecar,
        "redis is unavailable; commands wait in the offline queue",
    );
    server.restart();
    assert_eq!(app.read().unwrap(), "OK");
    assert_eq!(server.connect().run("GET k"), "v");
}

#[test]
fn f10_redis_is_away_and_stale_values_are_allowed() {
    let mut server = RedisServer::new(Engine::Redis7);
    let options = before(&server).rule("stale", "s:{id}", json!({"stale": {"ifError": "10s"}}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET s:1 v"), "OK");
    sidecar.until_hit(&mut app, "GET s:1");
    server.kill();
    sidecar.until_disconnected();
    assert_eq!(app.run("GET s:1"), "v");
    assert!(app.run("GET c:1").is_error(), "where no rule allows it");
    assert!(count(&sidecar, "pannier_stale_served_total", "rule=\"stale\"") > 0.0);
    server.restart();
    until_works(&mut app);
    wait::until_true("Redis is the truth", || app.run("GET s:1") == "(nil)");
}

#[test]
fn f11_redis_is_away_and_memory_answers() {
    let mut server = RedisServer::new(Engine::Redis7);
    let options = before(&server).config(json!({"resilience": {"whenUnavailable": "Memory"}}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    server.kill();
    sidecar.until_disconnected();
    wait::until_true("memory answers", || app.run("SET k memory") == "OK");
    assert_eq!(app.run("GET k"), "memory");
    log_says(&sidecar, "redis is unavailable; running on memory");
    server.restart();
    wait::until_true("Redis is the truth", || app.run("GET k") == "(nil)");
    assert!(count(&sidecar, "pannier_memory_discarded_writes_total", "") > 0.0);
    log_says(&sidecar, "redis is back and is the truth again");
}

#[test]
fn f12_the_sidecar_is_paused() {
    let server = RedisServer::new(Engine::Redis7);
    let options = before(&server).config(json!({"local": {"maxStaleness": "100ms"}}));
    let mut sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 old"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    sidecar.process().signal(Signal::SIGSTOP);
    let begun = Instant::now();
    assert_eq!(server.connect().run("SET c:1 new"), "OK");
    app.send(b"GET c:1\r\n").unwrap();
    wait::until_true("its proofs are old", || begun.elapsed().as_millis() > 150);
    sidecar.process().signal(Signal::SIGCONT);
    assert_eq!(app.read().unwrap(), "new");
}

#[test]
fn f13_the_sidecar_is_killed() {
    let server = RedisServer::new(Engine::Redis7);
    let mut sidecar = Sidecar::start_coherent(&before(&server));
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    sidecar.process().kill();
    assert!(app.try_call(&["GET", "c:1"]).is_err());
    let again = Sidecar::start_coherent(&before(&server));
    let mut app = again.connect();
    assert_eq!(app.run("GET c:1"), "v");
    assert!(again.hits() < 1.0, "it starts with nothing");
}
