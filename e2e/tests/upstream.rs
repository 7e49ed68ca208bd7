//! Redis missing, dying, silent, refusing, encrypted, restricted: what the app sees (P6, P7).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use std::time::{Duration, Instant};

use e2e::{Engine, RedisServer, ServerOptions, Sidecar, SidecarOptions, Wire, http, ports, wait};
use serde_json::json;

/// Errors that clients take as an invitation to send the command again by themselves.
const RETRIED_BY_CLIENTS: [&str; 6] = [
    "-LOADING",
    "-READONLY",
    "-TRYAGAIN",
    "-CLUSTERDOWN",
    "-MASTERDOWN",
    "-MOVED",
];

fn before(server: &RedisServer) -> SidecarOptions {
    SidecarOptions::before(server).rule("cached", "c:{id}", json!({}))
}

fn until_works(app: &mut Wire) {
    wait::until_true("commands work", || app.run("SET probe v") == "OK");
}

fn log_says(sidecar: &Sidecar, words: &str) {
    wait::until_true(&format!("the log says {words:?}"), || {
        sidecar.log().to_lowercase().contains(words)
    });
}

#[test]
fn p7_it_is_ready_without_redis_and_connects_when_redis_comes() {
    let port = ports::free();
    let begun = Instant::now();
    let sidecar = Sidecar::start(&SidecarOptions::before_port(port));
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let mut app = sidecar.connect();
    assert_eq!(app.run("PING"), "PONG");
    let refused = app.run("GET k");
    assert!(refused.is_error(), "{refused}");
    log_says(&sidecar, "unavailable");
    let server = RedisServer::start_on(port, ServerOptions::default());
    until_works(&mut app);
    assert_eq!(server.connect().run("GET probe"), "v");
    log_says(&sidecar, "connected");
}

#[test]
fn a_killed_redis_gives_errors_and_a_restarted_one_is_used_again() {
    let mut server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&before(&server));
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 old"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    server.kill();
    sidecar.until_disconnected();
    assert!(app.run("SET c:1 v").is_error());
    assert_eq!(http::get(sidecar.admin(), "/ready").unwrap().status, 200);
    server.restart();
    until_works(&mut app);
    // It came back empty: what was kept before is not served.
    assert_eq!(app.run("GET c:1"), "(nil)");
    assert_eq!(app.run("SET c:1 new"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
}

#[test]
fn a_silent_redis_ends_in_an_error_within_the_command_timeout() {
    let server = RedisServer::new(Engine::Redis7);
    let options =
        before(&server).config(json!({"resilience": {"commandTimeout": "300ms", "maxRetries": 0}}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET k v"), "OK");
    server.pause();
    let begun = Instant::now();
    let reply = app.run("GET k");
    let took = begun.elapsed();
    assert!(reply.is_error(), "{reply}");
    assert!(
        took > Duration::from_millis(250) && took < Duration::from_secs(2),
        "{took:?}"
    );
    server.resume();
    until_works(&mut app);
    assert_eq!(app.run("GET k"), "v");
}

#[test]
fn blocking_commands_are_exempt_from_the_command_timeout() {
    let server = RedisServer::new(Engine::Redis7);
    let options = before(&server).config(json!({"resilience": {"commandTimeout": "100ms"}}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    let begun = Instant::now();
    assert_eq!(app.run("BLPOP none 0.5"), "(nil)");
    assert!(
        begun.elapsed() >= Duration::from_millis(450),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(app.run("PING"), "PONG");
}

#[test]
fn a_write_whose_outcome_is_unknown_is_an_error_that_clients_do_not_retry() {
    let mut server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&before(&server));
    for write in ["INCR c:n", "SET other v", "LPUSH l v"] {
        let mut app = sidecar.connect();
        until_works(&mut app);
        server.pause();
        app.send(format!("{write}\r\n").as_bytes()).unwrap();
        // It is on its way to Redis once this one, behind it on the same connection, is answered.
        let mut second = sidecar.connect();
        assert_eq!(second.run("PING"), "PONG");
        server.kill();
        let reply = app.read().unwrap();
        assert!(reply.is_error(), "{write}: {reply}");
        let text = reply.to_string();
        assert!(
            !RETRIED_BY_CLIENTS
                .iter()
                .any(|prefix| text.starts_with(prefix)),
            "{text}"
        );
        server.restart();
        until_works(&mut second);
        assert_eq!(
            second.run("EXISTS c:n other l"),
            "0",
            "{write} was sent a second time"
        );
    }
}

#[test]
fn an_idempotent_read_survives_a_restart_of_redis() {
    let mut server = RedisServer::new(Engine::Redis7);
    let options =
        before(&server).config(json!({"resilience": {"maxRetries": 20, "commandTimeout": "10s"}}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    until_works(&mut app);
    server.pause();
    app.send(b"GET k\r\n").unwrap();
    assert_eq!(sidecar.connect().run("PING"), "PONG");
    server.restart();
    assert_eq!(app.read().unwrap(), "(nil)");
}

#[test]
fn subscribed_connections_are_closed_when_redis_is_lost() {
    let mut server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&before(&server));
    let (mut subscriber, mut idle) = (sidecar.connect(), sidecar.connect());
    assert_eq!(subscriber.run("SUBSCRIBE news"), "[subscribe news 1]");
    assert_eq!(idle.run("PING"), "PONG");
    server.kill();
    assert!(subscriber.is_closed());
    assert_eq!(idle.run("PING"), "PONG");
}

#[test]
fn p6_memory_mode_takes_over_and_redis_is_the_truth_afterwards() {
    let mut server = RedisServer::new(Engine::Redis7);
    let options = before(&server).config(json!({"resilience": {"whenUnavailable": "Memory"}}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    let mut subscriber = sidecar.connect();
    assert_eq!(subscriber.run("SUBSCRIBE news"), "[subscribe news 1]");
    assert_eq!(app.run("SET c:1 redis"), "OK");
    server.kill();
    sidecar.until_disconnected();
    for (command, expected) in [
        ("SET c:1 memory", "OK"),
        ("GET c:1", "memory"),
        ("INCR c:n", "1"),
        ("INCR c:n", "2"),
        ("HSET c:h f v", "1"),
        ("HGETALL c:h", "[f v]"),
        ("EXPIRE c:n 100", "1"),
    ] {
        assert_eq!(app.run(command).to_string(), expected, "{command}");
    }
    assert!(
        app.run("PFADD p a")
            .to_string()
            .contains("is not available in memory mode")
    );
    // S1.10, single-instance fallback: the subscriber notices nothing and is served from memory.
    wait::until_true("the subscriber is taken over", || {
        app.run("PUBLISH news hello") == "1"
    });
    assert_eq!(subscriber.read().unwrap(), "[message news hello]");
    log_says(&sidecar, "memory");
    server.restart();
    wait::until_true("Redis is used again", || app.run("PFCOUNT p") == "0");
    // Now it would miss what is published in Redis: it is closed, so that it subscribes there.
    assert!(subscriber.is_closed());
    assert_eq!(app.run("GET c:1"), "(nil)");
    assert_eq!(app.run("EXISTS c:n c:h"), "0");
    log_says(&sidecar, "discarded");
    assert!(sidecar.metric("pannier_memory_discarded_writes_total", "") >= 4.0);
}

#[test]
fn a_wrong_password_is_an_error_in_words_and_ends_when_it_is_right() {
    let server = RedisServer::start(ServerOptions {
        password: Some("right".to_owned()),
        ..ServerOptions::default()
    });
    let options = before(&server)
        .file("password", "wrong-canary\n")
        .config(json!({"upstream": {"passwordFile": "{folder}/password"}}));
    let sidecar = Sidecar::start(&options);
    let mut app = sidecar.connect();
    assert!(app.run("GET k").is_error());
    log_says(&sidecar, "password");
    assert!(!sidecar.log().contains("wrong-canary"));
    assert_eq!(
        server.connect().run("CONFIG SET requirepass wrong-canary"),
        "OK"
    );
    until_works(&mut app);
}

#[test]
fn an_acl_user_logs_in_with_name_and_password() {
    let server = RedisServer::start(ServerOptions {
        users: vec![
            "user default off".to_owned(),
            "user app on >secret ~* &* +@all".to_owned(),
        ],
        ..ServerOptions::default()
    });
    let options = before(&server)
        .file("user", "app")
        .file("password", "secret")
        .config(json!({"upstream": {"usernameFile": "{folder}/user", "passwordFile": "{folder}/password"}}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    // The app's own AUTH is answered here and never reaches Redis.
    assert_eq!(app.run("AUTH whatever"), "OK");
    assert_eq!(app.run("GET c:1"), "v");
}

#[test]
fn tls_is_verified_and_works() {
    for engine in Engine::ALL {
        let server = RedisServer::start(ServerOptions {
            tls: true,
            ..ServerOptions::of(engine)
        });
        let ca = server.certificates().authority.clone();
        let tls = |name: &str| json!({"upstream": {"port": server.tls_port(), "tls": {"caFile": ca, "serverName": name}}});
        let sidecar = Sidecar::start_coherent(&before(&server).config(tls("localhost")));
        let mut app = sidecar.connect();
        assert_eq!(app.run("SET c:1 v"), "OK");
        assert_eq!(app.call(&["SET", "c:big", &"x".repeat(300_000)]), "OK");
        assert_eq!(app.run("STRLEN c:big"), "300000");
        sidecar.until_hit(&mut app, "GET c:1");
        assert_eq!(server.connect().run("GET c:1"), "v");

        let stranger = Sidecar::start(&before(&server).config(tls("other.example")));
        assert!(stranger.connect().run("GET c:1").is_error());
        log_says(&stranger, "certificate");
        let stranger = Sidecar::start(
            &before(&server).config(json!({"upstream": {"port": server.tls_port(), "tls": {}}})),
        );
        assert!(stranger.connect().run("GET c:1").is_error());
        log_says(&stranger, "certificate");
    }
}

/// Works, keeps nothing, and says so.
fn passes_through(server: &RedisServer, options: &SidecarOptions) {
    let sidecar = Sidecar::start(options);
    let mut app = sidecar.connect();
    until_works(&mut app);
    let mut direct = Wire::connect(server.address());
    direct.run("AUTH app secret");
    for round in 0..20 {
        assert_eq!(app.run(&format!("SET c:1 {round}")), "OK");
        assert_eq!(app.run("GET c:1").to_string(), round.to_string());
        assert_eq!(direct.run("SET c:1 direct"), "OK");
        assert_eq!(app.run("GET c:1"), "direct");
    }
    assert!(!sidecar.is_hit(&mut app, "GET c:1"));
    log_says(&sidecar, "tracking");
    let degraded = sidecar.metric("pannier_coherence_state", "state=\"degraded\"");
    assert_eq!(degraded.to_string(), "1");
    let state = sidecar.state().to_string().to_lowercase();
    assert!(state.contains("tracking"), "{state}");
}

#[test]
fn an_acl_user_without_the_right_to_track_is_passed_through() {
    let server = RedisServer::start(ServerOptions {
        users: vec!["user app on >secret ~* &* +@all -client|tracking".to_owned()],
        ..ServerOptions::default()
    });
    let options = before(&server)
        .file("user", "app")
        .file("password", "secret")
        .config(json!({"upstream": {"usernameFile": "{folder}/user", "passwordFile": "{folder}/password"}}));
    passes_through(&server, &options);
}

#[test]
fn a_server_without_tracking_is_passed_through() {
    let server = RedisServer::start(ServerOptions::default().with("rename-command CLIENT \"\""));
    passes_through(&server, &before(&server));
}

#[test]
fn a_user_with_few_rights_gets_the_servers_own_errors() {
    let server = RedisServer::start(ServerOptions {
        users: vec!["user app on >secret ~c:* +@read +@connection".to_owned()],
        ..ServerOptions::default()
    });
    let options = before(&server)
        .file("user", "app")
        .file("password", "secret")
        .config(json!({"upstream": {"usernameFile": "{folder}/user", "passwordFile": "{folder}/password"}}));
    let sidecar = Sidecar::start(&options);
    let mut app = sidecar.connect();
    assert_eq!(server.connect().run("SET c:1 v"), "OK");
    wait::until_true("reads work", || app.run("GET c:1") == "v");
    for refused in ["SET c:1 w", "GET other"] {
        assert!(
            app.run(refused).to_string().starts_with("-NOPERM"),
            "{refused}"
        );
    }
    assert_eq!(app.run("GET c:1"), "v");
}

#[test]
fn replies_stay_with_their_client_when_one_times_out_while_reconnecting() {
    let server = RedisServer::new(Engine::Redis7);
    let options = before(&server).config(json!({"resilience": {"connectTimeout": "5s"}}));
    let sidecar = Sidecar::start_coherent(&options);
    let (mut a, mut b) = (sidecar.connect(), sidecar.connect());
    assert_eq!(a.run("SET u:a value-of-a"), "OK");
    assert_eq!(b.run("SET u:b value-of-b"), "OK");
    // A reads at 0 s, B at 1.2 s, the connection is given up at 2 s: both commands wait for the
    // next one, on which Redis answers at 2.7 s. A was told of its timeout before that, B was not.
    server.pause();
    let begun = Instant::now();
    let passed = |time| {
        wait::until_true("it is time", || {
            begun.elapsed() > Duration::from_millis(time)
        });
    };
    a.send(b"GET u:a\r\n").unwrap();
    passed(1200);
    b.send(b"GET u:b\r\n").unwrap();
    let own = |reply: &e2e::Value, value: &str| {
        assert!(reply.is_error() || *reply == value, "{value}: {reply}");
    };
    own(&a.read().unwrap(), "value-of-a");
    passed(2700);
    server.resume();
    own(&b.read().unwrap(), "value-of-b");
    until_works(&mut a);
    for _ in 0..5 {
        b.send(b"GET u:b\r\n").unwrap();
        a.send(b"GET u:a\r\n").unwrap();
        assert_eq!(b.read().unwrap(), "value-of-b");
        assert_eq!(a.read().unwrap(), "value-of-a");
    }
}

#[test]
fn wait_counts_the_replicas_that_have_the_apps_own_write() {
    for engine in Engine::ALL {
        let server =
            RedisServer::start(ServerOptions::of(engine).with("repl-diskless-sync-delay 0"));
        let replica = RedisServer::start(
            ServerOptions::of(engine).with(&format!("replicaof 127.0.0.1 {}", server.port())),
        );
        let sidecar = Sidecar::start_coherent(&before(&server));
        let mut app = sidecar.connect();
        let mut direct = server.connect();
        wait::until_true("the replica is in step", || {
            direct
                .run("INFO replication")
                .text()
                .contains("state=online")
        });
        assert_eq!(app.run("SET u:1 v"), "OK");
        assert_eq!(app.run("WAIT 1 5000"), "1");
        assert_eq!(replica.connect().run("GET u:1"), "v");
        replica.pause();
        assert_eq!(app.run("SET u:1 w"), "OK");
        assert_eq!(app.run("WAIT 1 200"), "0", "{}", engine.name());
        replica.resume();
        assert_eq!(app.run("WAIT 1 5000"), "1");
    }
}
