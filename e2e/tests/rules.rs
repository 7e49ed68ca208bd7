//! Rules at work on real commands: TTLs, cache modes, sizes, write errors, hot reload.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use e2e::{Engine, RedisServer, Sidecar, SidecarOptions, Wire, wait};
use serde_json::json;

fn options(server: &RedisServer) -> SidecarOptions {
    SidecarOptions::before(server)
        .rule("plain", "t:{id}", json!({"ttl": "100s"}))
        .rule("bypass", "bypass:{id}", json!({"cache": "Bypass"}))
        .rule(
            "local",
            "local:{id}",
            json!({"cache": "LocalOnly", "ttl": "100s"}),
        )
        .rule(
            "remote",
            "remote:{id}",
            json!({"cache": "RemoteOnly", "ttl": "100s"}),
        )
        .rule("deny", "deny:{id}", json!({"cache": "Deny"}))
        .rule("small", "small:{id}", json!({"maxValueSize": "1Ki"}))
        .rule("logged", "logged:{id}", json!({"onWriteError": "Log"}))
        .rule("defaulted", "d:{id}", json!({}))
        .config(json!({"ttl": {"default": "50s", "max": "1000s"}}))
}

fn start() -> (RedisServer, Sidecar, Wire, Wire) {
    let server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&options(&server));
    let (direct, app) = (server.connect(), sidecar.connect());
    (server, sidecar, direct, app)
}

fn ttl(wire: &mut Wire, key: &str) -> i64 {
    wire.run(&format!("TTL {key}")).integer()
}

#[track_caller]
fn near(got: i64, expected: i64) {
    assert!(
        (expected - 3..=expected).contains(&got),
        "TTL {got}, expected {expected}"
    );
}

#[test]
fn writes_without_a_ttl_get_the_one_of_their_rule() {
    let (_server, _sidecar, mut direct, mut app) = start();
    for (write, key, expected) in [
        ("SET t:1 v", "t:1", 100),
        ("SETNX t:2 v", "t:2", 100),
        ("GETSET t:3 v", "t:3", 100),
        ("SET t:4 v XX", "t:4", -2),
        ("MSET t:5 v t:6 v", "t:6", 100),
        ("INCR t:7", "t:7", 100),
        ("HSET t:8 f v", "t:8", 100),
        ("LPUSH t:9 v", "t:9", 100),
        ("SADD t:10 v", "t:10", 100),
        ("ZADD t:11 1 v", "t:11", 100),
        ("APPEND t:12 v", "t:12", 100),
        ("SET d:1 v", "d:1", 50),
        ("SET t:13 v NX", "t:13", 100),
    ] {
        assert!(!app.run(write).is_error(), "{write}");
        let got = ttl(&mut direct, key);
        let range = if expected < 0 {
            expected..=expected
        } else {
            expected - 3..=expected
        };
        assert!(
            range.contains(&got),
            "{write}: TTL {got}, expected {expected}"
        );
    }
}

#[test]
fn a_ttl_that_the_app_gives_is_kept_up_to_the_cap() {
    let (_server, _sidecar, mut direct, mut app) = start();
    for (write, expected) in [
        ("SET t:1 v EX 10", 10),
        ("SETEX t:1 20 v", 20),
        ("PSETEX t:1 30000 v", 30),
        ("SET t:1 v PX 40000", 40),
        ("SET t:1 v KEEPTTL", 40),
        ("SET t:1 v EX 5000", 1000),
        ("SETEX t:1 5000 v", 1000),
        ("SET t:1 v PX 5000000", 1000),
    ] {
        assert_eq!(app.run(write), "OK", "{write}");
        near(ttl(&mut direct, "t:1"), expected);
    }
}

#[test]
fn a_second_write_does_not_prolong_a_counter_or_a_hash() {
    let (_server, _sidecar, mut direct, mut app) = start();
    for (write, key) in [
        ("INCR t:1", "t:1"),
        ("HSET t:2 f v", "t:2"),
        ("RPUSH t:3 v", "t:3"),
    ] {
        app.run(write);
        assert_eq!(direct.run(&format!("EXPIRE {key} 30")).integer(), 1);
        app.run(write);
        near(ttl(&mut direct, key), 30);
    }
}

#[test]
fn replies_are_not_changed_by_the_ttl_that_is_added() {
    let (_server, _sidecar, mut direct, mut app) = start();
    assert_eq!(app.run("INCR t:1"), "1");
    assert_eq!(app.run("INCR t:1"), "2");
    assert_eq!(app.run("HSET t:2 a 1 b 2"), "2");
    assert_eq!(
        app.run("LPUSH t:2 x").to_string(),
        direct.run("LPUSH t:2 x").to_string()
    );
    assert_eq!(app.run("MSET t:3 a t:4 b"), "OK");
    assert_eq!(app.run("SETNX t:3 c"), "0");
    assert_eq!(app.run("GETSET t:3 d"), "a");
    assert_eq!(app.run("SET t:3 e GET"), "d");
}

#[test]
fn a_write_inside_a_transaction_gets_its_ttl_as_well() {
    let (_server, _sidecar, mut direct, mut app) = start();
    assert_eq!(app.run("MULTI"), "OK");
    assert_eq!(app.run("SET t:1 v"), "QUEUED");
    assert_eq!(app.run("GET t:1"), "QUEUED");
    assert_eq!(app.run("EXEC"), "[OK v]");
    near(ttl(&mut direct, "t:1"), 100);
}

#[test]
fn keys_that_no_rule_matches_are_left_alone() {
    let (_server, sidecar, mut direct, mut app) = start();
    for write in [
        "SET other:1 v",
        "SET t:1:more v",
        "SET t v",
        "INCR other:2",
        "HSET other:3 f v",
    ] {
        assert!(!app.run(write).is_error(), "{write}");
    }
    for key in ["other:1", "t:1:more", "t", "other:2", "other:3"] {
        assert_eq!(ttl(&mut direct, key), -1, "{key}");
    }
    app.run("GET other:1");
    assert!(!sidecar.is_hit(&mut app, "GET other:1"));
}

#[test]
fn jitter_shortens_by_no_more_than_its_share_and_spreads() {
    let server = RedisServer::new(Engine::Redis7);
    let sidecar =
        Sidecar::start_coherent(&options(&server).config(json!({"ttl": {"jitterPercent": 30}})));
    let (mut direct, mut app) = (server.connect(), sidecar.connect());
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..40 {
        assert_eq!(app.run(&format!("SET t:{number} v")), "OK");
        let got = ttl(&mut direct, &format!("t:{number}"));
        assert!((69..=100).contains(&got), "{got}");
        seen.insert(got);
    }
    assert!(seen.len() > 5, "{seen:?}");
    assert_eq!(app.run("SET t:given v EX 90"), "OK");
    near(ttl(&mut direct, "t:given"), 90);
}

#[test]
fn each_cache_mode_uses_the_tiers_it_names() {
    let (_server, sidecar, mut direct, mut app) = start();
    assert_eq!(app.run("SET bypass:1 v"), "OK");
    assert_eq!(ttl(&mut direct, "bypass:1"), -1);
    app.run("GET bypass:1");
    assert!(!sidecar.is_hit(&mut app, "GET bypass:1"));

    assert_eq!(app.run("SET local:1 v"), "OK");
    assert_eq!(app.run("GET local:1"), "v");
    near(ttl(&mut app, "local:1"), 100);
    assert_eq!(direct.run("EXISTS local:1"), "0");

    assert_eq!(app.run("SET remote:1 v"), "OK");
    near(ttl(&mut direct, "remote:1"), 100);
    app.run("GET remote:1");
    assert!(!sidecar.is_hit(&mut app, "GET remote:1"));

    for refused in [
        "SET deny:1 v",
        "GET deny:1",
        "DEL deny:1",
        "MGET t:1 deny:1",
    ] {
        let reply = app.run(refused);
        assert!(reply.is_error(), "{refused}: {reply}");
        assert!(
            reply.to_string().contains("deny"),
            "the rule is named: {reply}"
        );
    }
    assert_eq!(direct.run("EXISTS deny:1"), "0");
}

#[test]
fn a_value_above_the_size_of_its_rule_is_written_but_not_kept() {
    let (_server, sidecar, mut direct, mut app) = start();
    assert_eq!(app.call(&["SET", "small:1", &"x".repeat(1000)]), "OK");
    assert_eq!(app.call(&["SET", "small:2", &"x".repeat(1100)]), "OK");
    sidecar.until_hit(&mut app, "GET small:1");
    for _ in 0..3 {
        assert!(!sidecar.is_hit(&mut app, "GET small:2"));
    }
    assert_eq!(direct.run("STRLEN small:2"), "1100");
}

#[test]
fn s2_15_a_failed_write_is_an_error_or_a_logged_loss_as_the_rule_says() {
    let (mut server, sidecar, _direct, mut app) = start();
    server.kill();
    sidecar.until_disconnected();
    assert!(app.run("SET t:1 v").is_error());
    assert_eq!(app.run("SET logged:1 v"), "OK");
    assert!(
        app.run("GET logged:1").is_error(),
        "a read that failed is never made up"
    );
    let masked = sidecar.metric("pannier_rule_masked_write_errors_total", "rule=\"logged\"");
    assert_eq!(masked.to_string(), "1");
    assert!(sidecar.log().contains("logged"), "{}", sidecar.log());
}

#[test]
fn s3_5_disabled_caching_passes_everything_through() {
    let server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&options(&server).config(json!({"caching": "Disabled"})));
    let (mut direct, mut app) = (server.connect(), sidecar.connect());
    assert_eq!(app.run("SET t:1 v"), "OK");
    assert_eq!(ttl(&mut direct, "t:1"), -1);
    assert_eq!(app.run("SET deny:1 v"), "OK");
    app.run("GET t:1");
    assert!(!sidecar.is_hit(&mut app, "GET t:1"));
}

#[test]
fn rules_hold_in_memory_mode_as_well() {
    let options = SidecarOptions::memory().rule("plain", "t:{id}", json!({"ttl": "100s"}));
    let sidecar = Sidecar::start(&options);
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET t:1 v"), "OK");
    near(ttl(&mut app, "t:1"), 100);
    assert_eq!(app.run("SET other v"), "OK");
    assert_eq!(ttl(&mut app, "other"), -1);
    assert_eq!(app.run("SET t:1 v EX 5"), "OK");
    near(ttl(&mut app, "t:1"), 5);
}

#[test]
fn a_changed_file_is_put_in_force_and_a_bad_one_is_refused_aloud() {
    let server = RedisServer::new(Engine::Redis7);
    let first = options(&server);
    let sidecar = Sidecar::start_coherent(&first);
    let (mut direct, mut app) = (server.connect(), sidecar.connect());
    let mut changed = first.config.clone();
    changed["rules"][0]["ttl"] = json!("200s");
    sidecar.replace_config(&changed.to_string());
    let mut number = 0;
    let mut ttl_now = || {
        number += 1;
        assert_eq!(app.run(&format!("SET t:{number} v")), "OK");
        ttl(&mut direct, &format!("t:{number}"))
    };
    wait::until_true("the new TTL is in force", || ttl_now() > 150);

    changed["rules"][0]["tttl"] = json!("300s");
    sidecar.replace_config(&changed.to_string());
    wait::until_true("the refusal is logged", || sidecar.log().contains("tttl"));
    near(ttl_now(), 200);
    let state = sidecar.state().to_string();
    assert!(state.contains("tttl"), "{state}");
    let refused = sidecar.metric("pannier_config_reload_total", "result=\"refused\"");
    assert_eq!(refused.to_string(), "1");
    sidecar.replace_config(&first.config.to_string());
    wait::until_true("the file is good again", || ttl_now() <= 100);
    let state = sidecar.state().to_string();
    assert!(!state.contains("tttl"), "{state}");
}

/// How often Redis has executed `GET`.
fn gets(direct: &mut Wire) -> u32 {
    direct
        .run("INFO commandstats")
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_get:calls=")?.split(',').next())
        .map_or(0, |calls| calls.parse().unwrap())
}

#[test]
fn a_key_is_kept_again_after_its_local_ttl_has_ended() {
    let server = RedisServer::new(Engine::Redis7);
    let options =
        SidecarOptions::before(&server).rule("short", "c:{id}", json!({"localTtl": "1s"}));
    let sidecar = Sidecar::start_coherent(&options);
    let (mut direct, mut app) = (server.connect(), sidecar.connect());
    assert_eq!(direct.run("SET c:1 v"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    for life in 0..3 {
        let before = gets(&mut direct);
        wait::until_true("the local copy ends", || {
            app.run("GET c:1");
            gets(&mut direct) > before
        });
        let before = gets(&mut direct);
        for _ in 0..50 {
            assert_eq!(app.run("GET c:1"), "v");
        }
        let asked = gets(&mut direct) - before;
        assert!(
            asked <= 1,
            "life {life}: 50 reads asked Redis {asked} times"
        );
    }
}
