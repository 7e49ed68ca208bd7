//! What the sidecar measures about its own coherence: observed staleness (B.2).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

#[path = "measured/muffle.rs"]
mod muffle;

use e2e::{Engine, RedisServer, ServerOptions, Sidecar, SidecarOptions, wait};
use muffle::Muffle;
use serde_json::json;

fn cached(server: &RedisServer) -> SidecarOptions {
    SidecarOptions::before(server).rule("cached", "c:{id}", json!({}))
}

fn measured(sidecar: &Sidecar) -> f64 {
    sidecar.metric("pannier_staleness_probes_total", "\"measured\"")
}

#[test]
fn b2_staleness_is_measured_all_the_time_and_shown() {
    for engine in Engine::ALL {
        let server = RedisServer::new(engine);
        let options = cached(&server).config(json!({"keyspace": {"prefix": "shop:"}}));
        let sidecar = Sidecar::start_coherent(&options);
        wait::until_true("three probes are through", || measured(&sidecar) >= 3.0);
        for since in ["sent", "answered"] {
            let label = format!("since=\"{since}\"");
            let count = sidecar.metric("pannier_observed_staleness_seconds_count", &label);
            assert!(count >= 3.0, "{engine:?}: {count} since {since}");
        }
        let state = &sidecar.state()["observedStaleness"];
        assert_eq!(state["state"], "Measured", "{state}");
        assert!(state["maxMillis"].as_f64() >= state["p50Millis"].as_f64());
        assert_eq!(state["lost"], 0);
        let figures = sidecar.connect().run("PANNIER.STATS").to_string();
        assert!(figures.contains("stalenessP99Micros"), "{figures}");

        // A probe is nobody's traffic and nobody's entry.
        let invalidations = sidecar.metric("pannier_invalidations_received_total", "");
        let misses = sidecar.metric("pannier_cache_requests_total", "");
        let commands = sidecar.metric("pannier_commands_total", "cmd=\"set\"");
        let entries = sidecar.metric("pannier_cache_entries", "");
        assert!(invalidations + misses + commands + entries < 0.5);
        let mut monitor = server.connect();
        monitor.run("MONITOR");
        let mut seen = |what: &str| {
            wait::until_true(what, || monitor.read().unwrap().to_string().contains(what));
        };
        seen("\"SET\" \"shop:pannier:probe:");
        seen("\"DEL\" \"shop:pannier:probe:");
        assert_eq!(server.connect().run("DBSIZE").integer(), 0);
    }
}

#[test]
fn b2_a_user_without_rights_to_the_probe_is_told_once_and_apps_are_not_concerned() {
    let server = RedisServer::start(ServerOptions {
        users: vec!["user app on >secret ~c:* +@all".to_owned()],
        ..ServerOptions::default()
    });
    let options = cached(&server)
        .config(json!({"upstream": {
            "usernameFile": "{folder}/user",
            "passwordFile": "{folder}/password",
        }}))
        .file("user", "app")
        .file("password", "secret");
    let sidecar = Sidecar::start_coherent(&options);
    wait::until_true("the refusal is in /state", || {
        sidecar.state()["observedStaleness"]["state"] == "Refused"
    });
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    let said = sidecar.log().matches("pannier:probe:").count();
    assert_eq!(said, 1, "{}", sidecar.log());
    assert!(sidecar.metric("pannier_staleness_probes_total", "refused") >= 1.0);
}

/// The proof says that Redis answers; only the probe says that it announces changes.
#[test]
fn p4_a_network_that_loses_invalidations_is_noticed_and_the_local_tier_is_flushed() {
    let server = RedisServer::new(Engine::Redis7);
    let muffle = Muffle::before(server.address());
    let options = SidecarOptions::before_port(muffle.port()).rule("cached", "c:{id}", json!({}));
    let sidecar = Sidecar::start_coherent(&options);
    let (mut app, mut direct) = (sidecar.connect(), server.connect());
    direct.run("SET c:1 old");
    sidecar.until_hit(&mut app, "GET c:1");
    wait::until_true("a probe is through", || measured(&sidecar) >= 1.0);
    muffle.lose(true);
    direct.run("SET c:1 new");
    wait::until_true("the loss is noticed", || {
        sidecar.metric("pannier_staleness_probes_total", "\"lost\"") >= 1.0
    });
    assert_eq!(app.run("GET c:1"), "new");
    assert!(sidecar.metric("pannier_cache_flushes_total", "\"doubt\"") >= 1.0);
    muffle.lose(false);
    let before = measured(&sidecar);
    wait::until_true("probes come through again", || measured(&sidecar) > before);
}
