//! Nothing is served before it was measured, and nothing any longer once it was wrong: sampled
//! re-reads, shadow mode, the ramp and the fall-back (B.5).
//!
//! A local value is made stale by a direct SWAPDB, the one change that Redis announces to nobody.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

use e2e::{Engine, RedisServer, Sidecar, SidecarOptions, Wire, wait};
use serde_json::json;

struct Stage {
    server: RedisServer,
    direct: Wire,
    sidecar: Sidecar,
    app: Wire,
}

impl Stage {
    /// Database 0 has `c:1` = `old`, database 1 has `c:1` = `new`.
    fn new(engine: Engine, local: &serde_json::Value) -> Self {
        let server = RedisServer::new(engine);
        let mut direct = server.connect();
        direct.run("SELECT 1");
        direct.run("SET c:1 new");
        direct.run("SELECT 0");
        direct.run("SET c:1 old");
        let sidecar = Sidecar::start_coherent(&options(&server, local));
        Self {
            app: sidecar.connect(),
            server,
            direct,
            sidecar,
        }
    }

    fn swap(&mut self) {
        assert_eq!(self.direct.run("SWAPDB 0 1"), "OK");
    }

    fn mode(&self) -> String {
        let mode = self.sidecar.state()["localTier"]["mode"].clone();
        mode.as_str().unwrap().to_owned()
    }

    fn of_rule(&self, metric: &str) -> f64 {
        self.sidecar.metric(metric, "rule=\"cached\"")
    }
}

fn options(server: &RedisServer, local: &serde_json::Value) -> SidecarOptions {
    SidecarOptions::before(server)
        .rule("cached", "c:{id}", json!({}))
        .config(json!({ "local": local }))
}

#[test]
fn b5_a_stale_local_value_is_found_by_a_sample_and_ends_local_answers() {
    for engine in Engine::ALL {
        let mut stage = Stage::new(engine, &json!({}));
        stage.sidecar.until_hit(&mut stage.app, "GET c:1");
        stage.swap();
        wait::until_true("the stale value is found", || {
            stage.app.run("GET c:1") == "new"
        });
        assert!(stage.of_rule("pannier_stale_samples_total") >= 1.0);
        assert!(stage.sidecar.metric("pannier_samples_total", "") >= 1.0);
        assert_eq!(stage.mode(), "FellBack");
        let metric = |mode| stage.sidecar.metric("pannier_local_mode", mode);
        assert!(metric("\"FellBack\"") > 0.5 && metric("\"Active\"") < 0.5);
        let log = stage.sidecar.log();
        assert!(log.contains("serves nothing from now on"), "{log}");
        assert!(!log.contains("c:1"), "a key in the log: {log}");
        let why = stage.app.run("PANNIER.WHY c:1").to_string();
        assert!(why.contains("stale value was found under rule"), "{why}");

        // From now on a swap is seen by the next read.
        let hits = stage.sidecar.hits();
        for value in ["old", "new", "old", "new"] {
            stage.swap();
            assert_eq!(stage.app.run("GET c:1"), value);
            assert_eq!(stage.app.run("MGET c:1").to_string(), format!("[{value}]"));
        }
        assert!(stage.sidecar.hits() - hits < 0.5);

        // A changed policy begins anew.
        let config = options(&stage.server, &json!({"maxStaleness": "900ms"})).config;
        stage.sidecar.replace_config(&config.to_string());
        wait::until_true("the policy has changed", || stage.mode() == "Active");
        stage.sidecar.until_hit(&mut stage.app, "GET c:1");
    }
}

#[test]
fn b5_changes_that_are_announced_never_count_as_stale() {
    let mut stage = Stage::new(Engine::Redis7, &json!({}));
    let done = Arc::new(AtomicBool::new(false));
    let (mut writer, stop) = (stage.server.connect(), Arc::clone(&done));
    let writing = thread::spawn(move || {
        let mut number = 0_u64;
        while !stop.load(SeqCst) {
            // Two values in turn: a reply that is one write behind looks like the entry before.
            writer.run(&format!("SET c:1 {}", number % 2));
            number += 1;
        }
        number
    });
    wait::until_true("hits were sampled", || {
        for _ in 0..500 {
            stage.app.run("GET c:1");
            stage.app.run("GET c:1");
        }
        stage.sidecar.metric("pannier_samples_total", "") >= 5.0
    });
    done.store(true, SeqCst);
    assert!(writing.join().unwrap() > 1000);
    assert!(stage.of_rule("pannier_stale_samples_total") < 0.5);
    assert_eq!(stage.mode(), "Active");
}

#[test]
fn b5_shadow_mode_serves_nothing_and_counts_what_it_would_have_served() {
    for engine in Engine::ALL {
        let mut stage = Stage::new(engine, &json!({"mode": "Shadow"}));
        stage.direct.run("HSET c:h f 1 g 2");
        let reads = [
            "GET c:1",
            "HGETALL c:h",
            "HGET c:h f",
            "STRLEN c:1",
            "TTL c:1",
        ];
        for _ in 0..10 {
            for read in reads {
                let ours = stage.app.run(read).to_string();
                assert_eq!(ours, stage.direct.run(read).to_string(), "{read}");
            }
            assert_eq!(stage.app.run("MGET c:1 c:2").to_string(), "[old (nil)]");
        }
        assert!(stage.sidecar.hits() < 0.5);
        let would = stage.of_rule("pannier_shadow_hits_total");
        assert!(would >= 40.0, "{engine:?}: {would}");
        assert!(stage.of_rule("pannier_shadow_mismatches_total") < 0.5);
        assert_eq!(stage.mode(), "Shadow");
        let why = stage.app.run("PANNIER.WHY c:1").to_string();
        assert!(why.contains("a local entry would answer"), "{why}");

        // An announced change is no mismatch, an unannounced one is.
        stage.direct.run("SET c:1 newer");
        assert_eq!(stage.app.run("GET c:1"), "newer");
        stage.app.run("GET c:1");
        assert!(stage.of_rule("pannier_shadow_mismatches_total") < 0.5);
        stage.swap();
        assert_eq!(stage.app.run("GET c:1"), "new");
        wait::until_true("the mismatch is counted", || {
            stage.of_rule("pannier_shadow_mismatches_total") >= 1.0
        });
        assert_eq!(stage.mode(), "Shadow");
        assert!(stage.sidecar.state()["localTier"]["wouldBeHitRate"].as_f64() > Some(0.5));
    }
}

#[test]
fn b5_a_ramp_serves_the_same_share_of_the_keys_in_every_sidecar() {
    let mut stage = Stage::new(Engine::Redis7, &json!({"rampPercent": 40}));
    let second = Sidecar::start_coherent(&options(&stage.server, &json!({"rampPercent": 40})));
    let mut other = second.connect();
    let mut served = 0;
    for id in 0..200 {
        let key = format!("c:k{id}");
        stage.direct.run(&format!("SET {key} {id}"));
        let local = |app: &mut Wire| {
            assert_eq!(app.run(&format!("GET {key}")).to_string(), id.to_string());
            let why = app.run(&format!("PANNIER.WHY {key}")).to_string();
            why.contains("a local entry is current")
        };
        let here = local(&mut stage.app);
        assert_eq!(here, local(&mut other), "{key}");
        served += usize::from(here);
    }
    assert!(
        (50..110).contains(&served),
        "{served} of 200 keys are served"
    );
    // A mixed MGET reads everything from Redis.
    let keys: Vec<String> = (0..20).map(|id| format!("c:k{id}")).collect();
    let values = stage.app.run(&format!("MGET {}", keys.join(" ")));
    assert_eq!(values.items().len(), 20);
    assert_eq!(stage.mode(), "Active");
}

#[test]
fn b5_a_mismatch_of_a_key_in_shadow_ends_the_ramp() {
    let mut stage = Stage::new(Engine::Redis7, &json!({"rampPercent": 50}));
    for id in 0..50 {
        stage.direct.run(&format!("SET c:k{id} old"));
        stage.app.run(&format!("GET c:k{id}"));
    }
    stage.swap();
    for id in 0..50 {
        stage.app.run(&format!("GET c:k{id}"));
    }
    wait::until_true("the mismatch is found", || stage.mode() == "FellBack");
    for id in 0..50 {
        assert_eq!(stage.app.run(&format!("GET c:k{id}")), "(nil)");
    }
}
