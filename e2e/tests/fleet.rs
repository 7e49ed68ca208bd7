//! The sidecars of a tier know each other, and an invalidation says how many applied it (P5,
//! groundwork).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

#[path = "fleet/several.rs"]
mod several;

use std::time::{Duration, Instant};

use e2e::{Engine, RedisServer, ServerOptions, Sidecar, SidecarOptions, Value, Wire, http, wait};
use nix::sys::signal::Signal;
use operator::visits::{Place, visit};
use policy::config::Upstream;
use serde_json::json;

fn options(server: &RedisServer) -> SidecarOptions {
    SidecarOptions::before(server)
        .rule("cached", "c:{id}", json!({}))
        .config(json!({
            "tier": "shop/main",
            "generation": 7,
            "keyspace": {"prefix": "shop:"},
            "sidecar": {"heartbeat": "2s"},
        }))
        .env("POD_NAME", "web-0")
}

fn live(app: &mut Wire) -> usize {
    match app.run("PANNIER.SIDECARS") {
        Value::Error(_) => 0,
        list => list.items().len(),
    }
}

/// `applied` and `live` of an answer.
fn applied(answer: &Value) -> (i64, i64) {
    let [_, applied, _, live] = answer.items() else {
        panic!("{answer}")
    };
    (applied.integer(), live.integer())
}

fn is_refusal(text: &str) -> bool {
    text.to_uppercase().contains("NOPERM")
}

fn until_all_are_known(apps: &mut [Wire]) {
    let wanted = apps.len();
    wait::until_true("the sidecars know each other", || {
        apps.iter_mut().all(|app| live(app) == wanted)
    });
}

#[test]
fn every_sidecar_of_a_tier_is_known_to_the_others() {
    for engine in Engine::ALL {
        let server = RedisServer::new(engine);
        let mut sidecars = [(); 3].map(|()| Sidecar::start_coherent(&options(&server)));
        let stranger =
            Sidecar::start_coherent(&options(&server).config(json!({"tier": "shop/other"})));
        let mut apps = [0, 1, 2].map(|index: usize| sidecars[index].connect());
        until_all_are_known(&mut apps);
        // Tiers are apart.
        until_all_are_known(&mut [stranger.connect()]);

        let answer = http::get(sidecars[0].http(), "/v1/sidecars")
            .unwrap()
            .json();
        let records = answer.as_array().unwrap();
        assert_eq!(records.len(), 3);
        let mut ids = Vec::new();
        for record in records {
            assert_eq!(record["pod"], "web-0");
            assert_eq!(record["generation"], 7);
            assert_eq!(record["mode"], "Active");
            assert!(record["startedAtMillis"].as_u64() > Some(1_500_000_000_000));
            assert!(record["entries"].is_u64() && record["version"].is_string());
            ids.push(record["id"].as_str().unwrap());
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 3);
        assert_eq!(sidecars[0].state()["sidecars"]["state"], "Announced");

        // One that goes is forgotten after a few beats.
        sidecars[2].terminate();
        wait::until_true("the third is gone", || live(&mut apps[0]) == 2);
    }
}

#[test]
fn the_operator_counts_the_sidecars_and_their_hits() {
    let server = RedisServer::new(Engine::Valkey8);
    let sidecars = [(); 2].map(|()| Sidecar::start_coherent(&options(&server)));
    let mut apps = [0, 1].map(|index: usize| sidecars[index].connect());
    until_all_are_known(&mut apps);
    server.connect().run("SET shop:c:1 v");
    for (sidecar, app) in sidecars.iter().zip(&mut apps) {
        sidecar.until_hit(app, "GET c:1");
    }
    let place = |generation| Place {
        namespace: "shop".to_owned(),
        tier: "main".to_owned(),
        upstream: Upstream::at("127.0.0.1", server.port()),
        username: None,
        password: None,
        sentinel_password: None,
        database: 0,
        prefix: "shop:".to_owned(),
        generation,
    };
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let visited = |generation| {
        let found = runtime.block_on(visit(&place(generation)));
        found.answer.unwrap();
        found.sidecars.unwrap()
    };
    wait::until_true("hits are in the records", || {
        visited(7).hit_ratio_percent > Some(0)
    });
    let seen = visited(7);
    assert_eq!((seen.live, seen.current, seen.degraded), (2, 2, 0));
    assert_eq!(visited(8).current, 0);
}

#[test]
fn p5_an_invalidation_is_answered_when_all_have_applied_it() {
    let server = RedisServer::new(Engine::Redis7);
    let sidecars = [(); 3].map(|()| Sidecar::start_coherent(&options(&server)));
    let mut apps = [0, 1, 2].map(|index: usize| sidecars[index].connect());
    until_all_are_known(&mut apps);
    server.connect().run("SET shop:c:1 v");
    for (sidecar, app) in sidecars.iter().zip(&mut apps) {
        sidecar.until_hit(app, "GET c:1");
    }
    assert_eq!(applied(&apps[0].run("PANNIER.INVALIDATE c:1 c:2")), (3, 3));
    for (sidecar, app) in sidecars.iter().zip(&mut apps) {
        assert!(
            !sidecar.is_hit(app, "GET c:1"),
            "the local copy was dropped"
        );
        assert!(sidecar.is_hit(app, "GET c:1"));
    }
}

#[test]
fn p5_a_sidecar_that_does_not_answer_is_not_counted_and_serves_nothing_old() {
    let server = RedisServer::new(Engine::Redis7);
    let mut sidecars = [(); 3].map(|()| Sidecar::start_coherent(&options(&server)));
    let mut apps = [0, 1, 2].map(|index: usize| sidecars[index].connect());
    until_all_are_known(&mut apps);
    let mut direct = server.connect();
    direct.run("SET shop:c:1 old");
    for (sidecar, app) in sidecars.iter().zip(&mut apps) {
        sidecar.until_hit(app, "GET c:1");
    }
    sidecars[2].process().signal(Signal::SIGSTOP);
    assert_eq!(apps[0].run("SET c:1 new"), "OK");
    let asked = Instant::now();
    assert_eq!(applied(&apps[0].run("PANNIER.INVALIDATE c:1")), (2, 3));
    assert!(
        asked.elapsed() >= Duration::from_secs(1),
        "maxStaleness was waited for"
    );
    // Whoever may still have the old value may not serve it any longer.
    apps[2].send(b"GET c:1\r\n").unwrap();
    sidecars[2].process().signal(Signal::SIGCONT);
    assert_eq!(apps[2].read().unwrap(), "new");
    for app in &mut apps {
        assert_eq!(app.run("GET c:1"), "new");
    }
    until_all_are_known(&mut apps);
    assert_eq!(applied(&apps[1].run("PANNIER.INVALIDATE c:1")), (3, 3));
}

#[test]
fn a_user_who_may_not_announce_is_told_once_and_apps_are_not_concerned() {
    let server = RedisServer::start(ServerOptions {
        users: vec!["user app on >secret resetchannels ~shop:c:* +@all".to_owned()],
        ..ServerOptions::default()
    });
    let options = options(&server)
        .config(json!({"upstream": {
            "usernameFile": "{folder}/user",
            "passwordFile": "{folder}/password",
        }}))
        .file("user", "app")
        .file("password", "secret");
    let sidecar = Sidecar::start_coherent(&options);
    wait::until_true("the refusal is in /state", || {
        let state = sidecar.state()["sidecars"].clone();
        state["state"] == "Unknown" && is_refusal(&state["words"].to_string())
    });
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    let answer = app.run("PANNIER.INVALIDATE c:1").to_string();
    assert!(
        answer.contains("in this sidecar only") && is_refusal(&answer),
        "{answer}"
    );
    assert!(
        !sidecar.is_hit(&mut app, "GET c:1"),
        "dropped here all the same"
    );
    let said = sidecar.log().matches("refuses its announcement").count();
    assert_eq!(said, 1, "{}", sidecar.log());
}

#[test]
fn without_redis_a_sidecar_is_alone() {
    let sidecar = Sidecar::start(&SidecarOptions::memory());
    let mut app = sidecar.connect();
    assert_eq!(applied(&app.run("PANNIER.INVALIDATE any")), (1, 1));
    assert_eq!(live(&mut app), 1);
    assert_eq!(sidecar.state()["sidecars"]["state"], "Off");
}
