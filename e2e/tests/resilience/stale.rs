//! `stale.ifError`: reads go on while Redis is away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use e2e::{
    ClusterOptions, ClusterSet, Engine, RedisServer, SentinelSet, ServerOptions, Sidecar,
    SidecarOptions, Wire, http, wait,
};
use serde_json::{Value as Json, json};

fn forgiving(server: &RedisServer, if_error: &str) -> Sidecar {
    let options = SidecarOptions::before(server)
        .rule("stale", "s:{id}", json!({"stale": {"ifError": if_error}}))
        .rule("strict", "c:{id}", json!({}))
        .config(json!({"local": {"maxStaleness": "200ms"}}));
    Sidecar::start_coherent(&options)
}

fn keep(sidecar: &Sidecar, app: &mut Wire, key: &str) {
    assert_eq!(app.run(&format!("SET {key} v")), "OK");
    sidecar.until_hit(app, &format!("GET {key}"));
}

fn served(sidecar: &Sidecar, reason: &str) -> f64 {
    sidecar.metric(
        "pannier_stale_served_total",
        &format!("reason=\"{reason}\""),
    )
}

const KEYS: usize = 50;

/// Reads cached keys without a pause, from four connections, while `faults` happen. None may fail.
fn reads_during(sidecar: &Sidecar, commands: &'static [&str], faults: impl FnOnce()) {
    let address = sidecar.address();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut app = Wire::connect(address);
                let (mut reads, mut failed) = (0_usize, Vec::new());
                while !stop.load(Relaxed) {
                    let key = (reads * 7 + reader) % KEYS;
                    let other = (key + 1) % KEYS;
                    for command in commands {
                        let (command, right) = match *command {
                            "MGET" => (format!("MGET s:{key} s:{other}"), "[v v]"),
                            "STRLEN" => (format!("STRLEN s:{key}"), "1"),
                            name => (format!("{name} s:{key}"), "v"),
                        };
                        let reply = app.run(&command).to_string();
                        if reply != right {
                            failed.push(format!("{command}: {reply}"));
                        }
                        reads += 1;
                    }
                }
                (reads, failed)
            })
        })
        .collect();
    wait::until_true("reads are under way", || sidecar.hits() > 500.0);
    faults();
    stop.store(true, Relaxed);
    let mut reads = 0;
    for reader in readers {
        let (count, failed) = reader.join().unwrap();
        let some = &failed[..failed.len().min(3)];
        assert!(failed.is_empty(), "{} failed: {some:?}", failed.len());
        reads += count;
    }
    println!("{reads} reads, none failed");
}

#[test]
fn s0_14_p6_no_read_of_a_cached_key_fails_when_redis_is_killed_under_load() {
    let mut server = RedisServer::new(Engine::Redis7);
    let sidecar = forgiving(&server, "1m");
    let mut app = sidecar.connect();
    for key in 0..KEYS {
        keep(&sidecar, &mut app, &format!("s:{key}"));
    }
    reads_during(&sidecar, &["GET", "MGET", "STRLEN"], || {
        server.kill();
        wait::until_true("stale values are served", || {
            served(&sidecar, "disconnected") > 10_000.0
        });
    });
    // What came back is the truth, though it is empty.
    server.restart();
    sidecar.until_connected();
    wait::until_true("Redis is asked again", || app.run("GET s:1") == "(nil)");
    server.kill();
    sidecar.until_disconnected();
    assert!(app.run("GET s:1").is_error(), "it was seen to be gone");
}

#[test]
fn s0_14_p6_no_read_of_a_cached_key_fails_while_redis_comes_and_goes() {
    let mut server = RedisServer::start(ServerOptions {
        config: vec!["appendonly yes".to_owned(), "appendfsync always".to_owned()],
        ..ServerOptions::default()
    });
    let sidecar = forgiving(&server, "1m");
    let mut app = sidecar.connect();
    for key in 0..KEYS {
        keep(&sidecar, &mut app, &format!("s:{key}"));
    }
    // STRLEN alone, read anew in between, would leave the length and not the value.
    reads_during(&sidecar, &["GET", "MGET"], || {
        for _ in 0..10 {
            server.kill();
            sidecar.until_disconnected();
            server.restart();
            sidecar.until_hit(&mut app, "GET s:1");
        }
    });
}

#[test]
fn p1_a_silent_redis_is_not_waited_for_and_everyone_can_see_it() {
    let server = RedisServer::new(Engine::Redis7);
    let sidecar = forgiving(&server, "1m");
    let mut app = sidecar.connect();
    keep(&sidecar, &mut app, "s:1");
    keep(&sidecar, &mut app, "c:1");
    server.pause();
    wait::until_true("the proof has ended", || {
        assert_eq!(app.run("GET s:1"), "v");
        served(&sidecar, "unproven") > 0.0
    });
    let why = app.run("PANNIER.WHY s:1").to_string();
    assert!(
        why.contains("tier stale") && why.contains("last known value"),
        "{why}"
    );
    let answer = http::get(sidecar.http(), "/v1/cache/s:1").unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-pannier-tier"), Some("stale"));
    let state = sidecar.state();
    assert_eq!(state["rules"][0]["staleIfError"], "1m", "{state}");
    assert!(
        state["rules"][0]["staleServed"].as_u64() > Some(0),
        "{state}"
    );
    server.resume();
    wait::until_true("it is current again", || {
        sidecar.is_hit(&mut app, "GET s:1")
    });
}

#[test]
fn p1_never_after_a_change_was_announced_or_a_write_was_tried() {
    let mut server = RedisServer::new(Engine::Redis7);
    let sidecar = forgiving(&server, "1m");
    let mut app = sidecar.connect();
    for key in ["s:changed", "s:written", "s:tried", "s:kept"] {
        keep(&sidecar, &mut app, key);
    }
    let before = sidecar.metric("pannier_invalidations_received_total", "");
    assert_eq!(server.connect().run("SET s:changed w"), "OK");
    wait::until_true("the change is announced", || {
        sidecar.metric("pannier_invalidations_received_total", "") > before
    });
    assert_eq!(app.run("SET s:written w"), "OK");
    server.kill();
    sidecar.until_disconnected();
    assert_eq!(app.run("GET s:tried"), "v");
    assert!(app.run("SET s:tried w").is_error());
    for key in ["s:changed", "s:written", "s:tried"] {
        assert!(app.run(&format!("GET {key}")).is_error(), "{key}");
    }
    assert!(app.run("MGET s:kept s:tried").is_error());
    assert_eq!(app.run("GET s:kept"), "v");
    assert_eq!(app.run("PTTL s:kept"), "-1");
}

#[test]
fn p1_never_longer_than_declared() {
    let mut server = RedisServer::new(Engine::Redis7);
    let sidecar = forgiving(&server, "600ms");
    let mut app = sidecar.connect();
    keep(&sidecar, &mut app, "s:1");
    let begun = Instant::now();
    server.kill();
    sidecar.until_disconnected();
    wait::until_true("the bound is over", || app.run("GET s:1").is_error());
    assert!(begun.elapsed() >= Duration::from_millis(400));
}

#[test]
fn p4_a_flush_on_purpose_drops_what_would_be_stale() {
    let mut server = RedisServer::new(Engine::Redis7);
    let sidecar = forgiving(&server, "1m");
    let mut app = sidecar.connect();
    keep(&sidecar, &mut app, "s:1");
    keep(&sidecar, &mut app, "s:2");
    // Nobody says which keys a script writes.
    assert_eq!(app.call(&["EVAL", "return 1", "0"]), "1");
    sidecar.until_hit(&mut app, "GET s:2");
    server.kill();
    sidecar.until_disconnected();
    assert!(app.run("GET s:1").is_error());
    assert_eq!(app.run("GET s:2"), "v", "read since then");
}

/// Rules as [`forgiving`], behind what these options say.
fn forgiving_behind(ports: &[u16], upstream: &Json) -> Sidecar {
    let options = SidecarOptions::before_several(ports, upstream)
        .rule("stale", "s:{id}", json!({"stale": {"ifError": "1m"}}))
        .config(json!({"local": {"maxStaleness": "200ms"}}));
    Sidecar::start_coherent(&options)
}

#[test]
fn s0_14_p6_no_read_of_a_cached_key_fails_while_sentinels_choose_another_primary() {
    let mut set = SentinelSet::new(Engine::Redis7);
    let upstream = json!({"mode": "Sentinel", "sentinel": {"masterName": "mymaster"}});
    let sidecar = forgiving_behind(&set.sentinel_ports(), &upstream);
    let mut app = sidecar.connect();
    for key in 0..KEYS {
        keep(&sidecar, &mut app, &format!("s:{key}"));
    }
    assert_eq!(app.run("WAIT 2 60000"), "2");
    reads_during(&sidecar, &["GET"], || {
        let old = set.kill_primary();
        set.until_switched(old);
        wait::until_true("writes go on", || app.run("SET other v") == "OK");
        sidecar.until_hit(&mut app, "GET s:1");
    });
}

#[test]
fn s0_14_p6_no_read_of_a_cached_key_fails_while_a_replica_of_a_cluster_takes_over() {
    let mut cluster = ClusterSet::start(&ClusterOptions::of(Engine::Redis7).replicas(1));
    let upstream = json!({"mode": "Cluster"});
    let sidecar = forgiving_behind(&cluster.ports(), &upstream);
    let mut app = sidecar.connect();
    for key in 0..KEYS {
        keep(&sidecar, &mut app, &format!("s:{key}"));
        assert_eq!(app.run("WAIT 1 60000"), "1");
    }
    let slot = cluster.slot_of("s:1");
    let owner = cluster.owner_of(slot);
    reads_during(&sidecar, &["GET"], || {
        cluster.kill(owner);
        wait::until_true("another node owns its slots", || {
            cluster.owner_of(slot) != owner
        });
        wait::until_true("writes go on", || app.run("SET {s:1}other v") == "OK");
        sidecar.until_hit(&mut app, "GET s:1");
    });
}
