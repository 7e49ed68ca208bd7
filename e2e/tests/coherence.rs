//! What others write is seen, what we wrote is read, doubt flushes: P1, P2 and P4 against a real
//! server. The race of P3 has a file of its own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use std::time::{Duration, Instant};

use e2e::{Engine, RedisServer, Sidecar, SidecarOptions, Wire, wait};
use serde_json::json;

/// Redis' own LRU would see a key that is only read locally go cold, and evict it first.
#[test]
fn a_key_that_is_hot_locally_is_touched_in_redis() {
    let mut stage = Stage::new(Engine::Redis7);
    stage.direct.run("CONFIG SET maxmemory 100mb");
    stage.direct.run("CONFIG SET maxmemory-policy allkeys-lru");
    // A new control connection sees the policy.
    stage.sidecar.terminate();
    let server = stage.server;
    let options = SidecarOptions::before(&server).rule("cached", "c:{id}", json!({}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:hot v"), "OK");
    sidecar.until_hit(&mut app, "GET c:hot");
    wait::until_true("the key is touched", || {
        assert_eq!(app.run("GET c:hot"), "v");
        stage
            .direct
            .run("INFO commandstats")
            .to_string()
            .contains("cmdstat_touch")
    });
    assert!(sidecar.metric("pannier_cache_touches_total", "") >= 1.0);
}

struct Stage {
    server: RedisServer,
    direct: Wire,
    sidecar: Sidecar,
    app: Wire,
    barriers: u32,
}

impl Stage {
    fn new(engine: Engine) -> Self {
        Self::with(engine, json!({}))
    }

    fn with(engine: Engine, config: serde_json::Value) -> Self {
        let server = RedisServer::new(engine);
        let options = SidecarOptions::before(&server)
            .rule("cached", "c:{id}", json!({"negativeTtl": "60s"}))
            .rule("barrier", "barrier:{id}", json!({}))
            .config(config);
        let sidecar = Sidecar::start_coherent(&options);
        Self {
            direct: server.connect(),
            app: sidecar.connect(),
            server,
            sidecar,
            barriers: 0,
        }
    }

    /// After this, every invalidation sent before it has been applied: a miss travels on the
    /// tracked connection, behind the pushes.
    fn barrier(&mut self) {
        self.barriers += 1;
        assert_eq!(
            self.app.run(&format!("GET barrier:{}", self.barriers)),
            "(nil)"
        );
    }

    /// Warms `read`, does `write` directly, and expects `read` to answer `after`.
    fn direct_write_is_seen(&mut self, read: &str, write: &str, after: &str) {
        self.sidecar.until_hit(&mut self.app, read);
        assert!(!self.direct.run(write).is_error(), "{write}");
        self.barrier();
        assert_eq!(
            self.app.run(read).to_string(),
            after,
            "{read} after {write}"
        );
    }
}

#[test]
fn direct_writes_of_every_kind_are_seen() {
    for engine in Engine::ALL {
        let mut stage = Stage::new(engine);
        stage.direct.run("SET c:1 old");
        stage.direct.run("HSET c:h f old");
        stage.direct_write_is_seen("GET c:1", "SET c:1 new", "new");
        stage.direct_write_is_seen("STRLEN c:1", "APPEND c:1 er", "5");
        stage.direct_write_is_seen("GET c:1", "DEL c:1", "(nil)");
        stage.direct_write_is_seen("GET c:1", "SET c:1 again", "again");
        stage.direct_write_is_seen("HGET c:h f", "HSET c:h f new", "new");
        stage.direct_write_is_seen("HGETALL c:h", "HDEL c:h f", "[]");
        stage.direct_write_is_seen("TTL c:1", "EXPIRE c:1 1000", "1000");
        stage.direct_write_is_seen("TYPE c:1", "RENAME c:1 c:2", "none");
        stage.direct_write_is_seen("EXISTS c:2", "UNLINK c:2", "0");
        stage.direct_write_is_seen("HGETALL c:h", "HSET c:h f 1", "[f 1]");
        stage.direct_write_is_seen("HMGET c:h f g", "HSET c:h g 2", "[1 2]");
        stage.direct_write_is_seen("HEXISTS c:h g", "HDEL c:h g", "0");
        stage.direct_write_is_seen("HLEN c:h", "HSET c:h g 2 i 3", "3");
        stage.direct_write_is_seen("HEXISTS c:h j", "HSET c:h j 1", "1");
        stage.direct_write_is_seen("SMEMBERS c:t", "SADD c:t a", "[a]");
        stage.direct_write_is_seen("SISMEMBER c:t b", "SADD c:t b", "1");
        stage.direct_write_is_seen("SCARD c:t", "SREM c:t a", "1");
        stage.direct_write_is_seen("SMEMBERS c:t", "SMOVE c:t c:t2 b", "[]");
        stage.direct_write_is_seen("LRANGE c:l 0 -1", "RPUSH c:l a b c", "[a b c]");
        stage.direct_write_is_seen("LRANGE c:l 1 1", "LSET c:l 1 x", "[x]");
        stage.direct_write_is_seen("LLEN c:l", "LTRIM c:l 0 0", "1");
        stage.direct_write_is_seen("LLEN c:l", "LPOP c:l", "0");
        stage.direct_write_is_seen("ZRANGE c:z 0 -1", "ZADD c:z 1 a 2 b", "[a b]");
        stage.direct_write_is_seen("ZRANGE c:z 0 0 WITHSCORES", "ZINCRBY c:z 0.5 a", "[a 1.5]");
        stage.direct_write_is_seen("ZSCORE c:z b", "ZADD c:z 2.25 b", "2.25");
        stage.direct_write_is_seen("ZCARD c:z", "ZPOPMIN c:z", "1");
        stage.direct_write_is_seen("ZSCORE c:z b", "DEL c:z", "(nil)");
        stage.direct.run("MSET c:1 a c:2 b");
        stage.direct_write_is_seen("MGET c:1 c:2", "SET c:2 new", "[a new]");
        stage.direct_write_is_seen("GET c:1", "FLUSHDB", "(nil)");
        stage.direct.run("SET c:1 x");
        stage.direct_write_is_seen("GET c:1", "FLUSHALL", "(nil)");
    }
}

#[test]
fn p2_what_one_connection_wrote_the_next_one_reads() {
    let mut stage = Stage::new(Engine::Redis7);
    let mut other = stage.sidecar.connect();
    for round in 0..1000 {
        let value = round.to_string();
        match round % 5 {
            0 => drop(stage.app.call(&["SET", "c:1", &value])),
            1 => drop(stage.app.call(&["GETSET", "c:1", &value])),
            2 => drop(stage.app.call(&[
                "EVAL",
                "return redis.call('SET', KEYS[1], ARGV[1])",
                "1",
                "c:1",
                &value,
            ])),
            3 => {
                stage.app.run("MULTI");
                stage.app.call(&["SET", "c:1", &value]);
                assert_eq!(stage.app.run("EXEC"), "[OK]");
            }
            _ => assert_eq!(stage.app.call(&["MSET", "c:1", &value, "c:2", "x"]), "OK"),
        }
        assert_eq!(other.run("GET c:1").to_string(), value);
        assert_eq!(stage.app.run("GET c:1").to_string(), value);
    }
    assert!(
        stage.sidecar.hits() > 500.0,
        "hits: {}",
        stage.sidecar.hits()
    );
}

#[test]
fn p4_a_killed_tracked_connection_flushes_the_local_tier() {
    let mut stage = Stage::new(Engine::Redis7);
    stage.direct.run("SET c:1 old");
    stage.sidecar.until_hit(&mut stage.app, "GET c:1");
    let killed = stage
        .direct
        .run("CLIENT KILL TYPE normal SKIPME yes")
        .integer();
    assert!(killed > 0);
    // Nobody is told of this one: the server has forgotten who read the key.
    assert_eq!(stage.direct.run("SET c:1 new"), "OK");
    let changed = Instant::now();
    wait::until_true("the new value is seen", || {
        stage.app.run("GET c:1") == "new"
    });
    let took = changed.elapsed();
    assert!(
        took < Duration::from_millis(1500),
        "stale for {took:?}, above maxStaleness of 1s"
    );
    for _ in 0..100 {
        assert_eq!(stage.app.run("GET c:1"), "new");
    }
    assert!(
        stage
            .sidecar
            .metric("pannier_cache_flushes_total", "link_lost")
            > 0.0
    );
    stage.sidecar.until_hit(&mut stage.app, "GET c:1");
    stage.direct_write_is_seen("GET c:1", "SET c:1 newer", "newer");
}

#[test]
fn p1_a_silent_server_ends_local_answers_within_max_staleness() {
    let bound = Duration::from_millis(400);
    let mut stage = Stage::with(
        Engine::Redis7,
        json!({"local": {"maxStaleness": "400ms"}, "resilience": {"commandTimeout": "300ms"}}),
    );
    stage.direct.run("SET c:1 old");
    stage.sidecar.until_hit(&mut stage.app, "GET c:1");
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
fn an_entry_lives_no_longer_than_its_key() {
    let mut stage = Stage::new(Engine::Redis7);
    for round in 0..5 {
        stage.direct.run(&format!("SET c:{round} v PX 150"));
        let latest_end = Instant::now() + Duration::from_millis(150);
        let mut local = 0.0;
        loop {
            let asked = Instant::now();
            let before = stage.sidecar.hits();
            let value = stage.app.run(&format!("GET c:{round}"));
            if value == "(nil)" {
                break;
            }
            local += stage.sidecar.hits() - before;
            assert_eq!(value, "v");
            assert!(
                asked <= latest_end + Duration::from_millis(2),
                "served after its end"
            );
        }
        assert!(local > 0.0, "the local tier never answered");
    }
    stage.direct.run("SET c:ttl v PX 50000");
    stage.sidecar.until_hit(&mut stage.app, "GET c:ttl");
    let ours = stage.app.run("PTTL c:ttl").integer();
    let theirs = stage.direct.run("PTTL c:ttl").integer();
    assert!((ours - theirs).abs() < 100, "{ours} against {theirs}");
}

#[test]
fn databases_are_kept_apart_and_a_push_drops_the_key_in_all() {
    let mut stage = Stage::new(Engine::Redis7);
    let mut second = stage.sidecar.connect();
    assert_eq!(second.run("SELECT 1"), "OK");
    assert_eq!(stage.app.run("SET c:1 zero"), "OK");
    assert_eq!(second.run("SET c:1 one"), "OK");
    stage.sidecar.until_hit(&mut stage.app, "GET c:1");
    stage.sidecar.until_hit(&mut second, "GET c:1");
    assert_eq!(stage.app.run("GET c:1"), "zero");
    assert_eq!(second.run("GET c:1"), "one");
    let mut direct = stage.server.connect();
    direct.run("SELECT 1");
    direct.run("SET c:1 changed");
    // Each database has a connection of its own: its barrier is a miss in the same database.
    assert_eq!(second.run("GET barrier:db1"), "(nil)");
    assert_eq!(second.run("GET c:1"), "changed");
    assert_eq!(stage.app.run("GET c:1"), "zero");
    assert_eq!(second.run("SWAPDB 0 1"), "OK");
    assert_eq!(second.run("GET c:1"), "zero");
    assert_eq!(stage.app.run("GET c:1"), "changed");
}

#[test]
fn ttl_only_needs_no_tracking_and_keeps_its_bound() {
    let mut stage = Stage::with(
        Engine::Redis7,
        json!({"local": {"coherence": "TtlOnly", "maxStaleness": "300ms"}}),
    );
    stage.direct.run("SET c:1 old");
    stage.sidecar.until_hit(&mut stage.app, "GET c:1");
    stage.direct.run("SET c:1 new");
    let changed = Instant::now();
    wait::until_true("the new value is seen", || {
        stage.app.run("GET c:1") == "new"
    });
    assert!(
        changed.elapsed() < Duration::from_millis(450),
        "{:?}",
        changed.elapsed()
    );
    assert!(!stage.direct.run("CLIENT LIST").text().contains("flags=t"));
}

#[test]
fn a_field_missing_with_its_key_leaves_no_wrong_answer_about_the_key() {
    for negative in [json!({}), json!({"negativeTtl": "60s"})] {
        let server = RedisServer::new(Engine::Redis7);
        let options = SidecarOptions::before(&server).rule("cached", "c:{id}", negative);
        let sidecar = Sidecar::start_coherent(&options);
        let (mut direct, mut app) = (server.connect(), sidecar.connect());
        for (number, read) in ["HGET {} f", "HEXISTS {} f", "HMGET {} f g", "HGETALL {}"]
            .into_iter()
            .enumerate()
        {
            let key = format!("c:{number}");
            let read = read.replace("{}", &key);
            for _ in 0..3 {
                assert_eq!(app.run(&read), direct.run(&read), "{read}");
                for about in ["EXISTS", "TYPE", "TTL", "PTTL", "HLEN", "GET", "STRLEN"] {
                    let about = format!("{about} {key}");
                    assert_eq!(app.run(&about), direct.run(&about), "{about} after {read}");
                }
            }
        }
    }
}
