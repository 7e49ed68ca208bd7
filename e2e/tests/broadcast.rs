//! Coherence mode Broadcast against real servers: what others write is seen, Redis keeps no table
//! of who read what, and a change of the rules changes what is announced (B.7). The race of P3 in
//! this mode is in `race.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use std::time::{Duration, Instant};

use e2e::{Engine, RedisServer, Sidecar, SidecarOptions, Wire, wait};
use serde_json::{Value as Json, json};

const PREFIX: &str = "app:";

struct Stage {
    server: RedisServer,
    options: SidecarOptions,
    sidecar: Sidecar,
    direct: Wire,
    app: Wire,
    barriers: u32,
}

impl Stage {
    fn new(engine: Engine, config: Json) -> Self {
        let server = RedisServer::new(engine);
        let options = SidecarOptions::before(&server)
            .rule("barrier", "barrier:{id}", json!({}))
            .rule("cached", "c:{id}", json!({"negativeTtl": "60s"}))
            // Overlaps with the one before; Redis refuses overlapping prefixes.
            .rule("deep", "c:deep:{id}:*", json!({}))
            .config(json!({"local": {"coherence": "Broadcast"}, "keyspace": {"prefix": PREFIX}}))
            .config(config);
        let sidecar = Sidecar::start_coherent(&options);
        Self {
            direct: server.connect(),
            app: sidecar.connect(),
            server,
            options,
            sidecar,
            barriers: 0,
        }
    }

    /// After this, every announcement made before it has been applied.
    fn barrier(&mut self) {
        self.barriers += 1;
        let read = format!("GET barrier:{}", self.barriers);
        assert_eq!(self.app.run(&read), "(nil)");
    }

    fn direct_write_is_seen(&mut self, read: &str, write: &str, after: &str) {
        self.sidecar.until_hit(&mut self.app, read);
        let write = write.replace("c:", &format!("{PREFIX}c:"));
        assert!(!self.direct.run(&write).is_error(), "{write}");
        self.barrier();
        let got = self.app.run(read).to_string();
        assert_eq!(got, after, "{read} after {write}");
    }

    /// A figure of `INFO`.
    fn figure(&mut self, name: &str) -> i64 {
        let info = self.direct.run("INFO all");
        let line = info.text().lines().find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(':')
                .map(str::to_owned)
        });
        line.unwrap().trim().parse().unwrap()
    }
}

#[test]
fn direct_writes_are_seen_and_redis_remembers_no_keys() {
    for engine in Engine::ALL {
        let mut stage = Stage::new(engine, json!({}));
        let coherence = stage.sidecar.state()["coherence"]["state"].clone();
        assert_eq!(coherence, "Broadcast");
        stage
            .direct
            .run("MSET app:c:1 old app:c:2 old app:c:deep:1:x old");
        stage.direct_write_is_seen("GET c:1", "SET c:1 new", "new");
        stage.direct_write_is_seen("GET c:deep:1:x", "SET c:deep:1:x new", "new");
        stage.direct_write_is_seen("GET c:1", "DEL c:1", "(nil)");
        stage.direct_write_is_seen("GET c:1", "MSET c:1 a c:2 b", "a");
        stage.direct_write_is_seen("MGET c:1 c:2", "MSET c:2 d c:1 e", "[e d]");
        stage.direct_write_is_seen("SMEMBERS c:t", "SADD c:t m", "[m]");
        stage.direct_write_is_seen("HGET c:h f", "HSET c:h f 1", "1");
        stage.direct_write_is_seen("TTL c:1", "EXPIRE c:1 1000", "1000");
        stage.direct_write_is_seen("GET c:1", "PEXPIREAT c:1 1", "(nil)");
        // One announcement with many keys.
        stage.direct.run("MULTI");
        for n in 0..300 {
            stage
                .sidecar
                .until_hit(&mut stage.app, &format!("GET c:{n}"));
            stage.direct.run(&format!("SET app:c:{n} many"));
        }
        assert_eq!(stage.direct.run("EXEC").items().len(), 300);
        stage.barrier();
        for n in 0..300 {
            assert_eq!(stage.app.run(&format!("GET c:{n}")), "many");
        }
        assert_eq!(stage.figure("tracking_total_keys"), 0);
        // The rules' two, and one for measurements.
        assert_eq!(stage.figure("tracking_total_prefixes"), 3);
        stage.direct_write_is_seen("GET c:1", "FLUSHALL", "(nil)");
        assert!(
            stage
                .sidecar
                .metric("pannier_coherence_state", "\"broadcast\"")
                > 0.0
        );
        wait::until_true("staleness is measured in this mode as well", || {
            stage
                .sidecar
                .metric("pannier_observed_staleness_seconds_count", "")
                > 0.0
        });
    }
}

#[test]
fn p1_a_silent_server_ends_local_answers_within_max_staleness() {
    let bound = Duration::from_millis(400);
    let config =
        json!({"local": {"maxStaleness": "400ms"}, "resilience": {"commandTimeout": "300ms"}});
    let mut stage = Stage::new(Engine::Redis7, config);
    stage.direct.run("SET app:c:1 old");
    stage.sidecar.until_hit(&mut stage.app, "GET c:1");
    // In health the proof never lapses: local answers go on for much longer than the bound.
    let begun = Instant::now();
    let before = stage.sidecar.hits();
    let mut reads = 0.0;
    while begun.elapsed() < bound * 3 {
        assert_eq!(stage.app.run("GET c:1"), "old");
        reads += 1.0;
    }
    let share = (stage.sidecar.hits() - before) / reads;
    assert!(share > 0.9, "only {share} of the reads were local");
    stage.server.pause();
    let paused = Instant::now();
    let mut last_answer = Duration::ZERO;
    wait::until_true("local answers end", || {
        let asked = paused.elapsed();
        let reply = stage.app.run("GET c:1");
        if reply == "old" {
            last_answer = asked;
        }
        reply.is_error()
    });
    // The scheduler of a busy machine gets some slack; a missing check would answer for ever.
    let slack = Duration::from_millis(150);
    assert!(
        last_answer <= bound + slack,
        "answered locally {last_answer:?} after the pause"
    );
    stage.server.resume();
    wait::until_true("reads work again", || stage.app.run("GET c:1") == "old");
    stage.sidecar.until_hit(&mut stage.app, "GET c:1");
}

#[test]
fn p4_a_killed_connection_flushes_the_local_tier() {
    let mut stage = Stage::new(Engine::Valkey8, json!({}));
    stage.direct.run("SET app:c:1 old");
    stage.sidecar.until_hit(&mut stage.app, "GET c:1");
    let killed = stage.direct.run("CLIENT KILL TYPE normal SKIPME yes");
    assert!(killed.integer() > 0);
    // Nobody is told of this one.
    assert_eq!(stage.direct.run("SET app:c:1 new"), "OK");
    let changed = Instant::now();
    wait::until_true("the new value is seen", || {
        stage.app.run("GET c:1") == "new"
    });
    let took = changed.elapsed();
    assert!(took < Duration::from_millis(1500), "stale for {took:?}");
    stage.sidecar.until_hit(&mut stage.app, "GET c:1");
    stage.direct_write_is_seen("GET c:1", "SET c:1 newer", "newer");
}

#[test]
fn changed_rules_change_what_is_announced() {
    let mut stage = Stage::new(Engine::Redis7, json!({"sidecar": {"threads": 2}}));
    // A client on each event loop; each has a tracked link of its own.
    let mut apps = [stage.sidecar.connect(), stage.sidecar.connect()];
    for app in &mut apps {
        app.run("SET d:1 old");
        app.run("GET d:1");
        assert!(!stage.sidecar.is_hit(app, "GET d:1"), "no rule matches it");
    }
    let mut changed = stage.options.config.clone();
    let rule = json!({"name": "more", "match": "d:{id}"});
    changed["rules"].as_array_mut().unwrap().push(rule);
    stage.sidecar.replace_config(&changed.to_string());
    for app in &mut apps {
        stage.sidecar.until_hit(app, "GET d:1");
    }
    for round in 0..50 {
        for app in &mut apps {
            stage.sidecar.until_hit(app, "GET d:1");
        }
        assert_eq!(stage.direct.run(&format!("SET app:d:1 {round}")), "OK");
        for app in &mut apps {
            assert_eq!(app.run(&format!("GET barrier:{round}")), "(nil)");
        }
        for app in &mut apps {
            assert_eq!(app.run("GET d:1").to_string(), round.to_string());
        }
    }
    wait::until_true("both links have asked anew", || {
        stage.figure("tracking_total_prefixes") >= 4
    });
}
