//! Values change where the sidecar does not see it at once.

use std::time::Instant;

use e2e::{Engine, RedisServer, Sidecar, wait};
use serde_json::json;

use super::{before, count};

#[test]
fn f40_everything_is_flushed_directly() {
    let server = RedisServer::new(Engine::Redis7);
    let options = before(&server).rule("stale", "s:{id}", json!({"stale": {"ifError": "1m"}}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    for key in ["c:1", "s:1"] {
        assert_eq!(app.run(&format!("SET {key} v")), "OK");
        sidecar.until_hit(&mut app, &format!("GET {key}"));
    }
    assert_eq!(server.connect().run("FLUSHALL"), "OK");
    for key in ["c:1", "s:1"] {
        wait::until_true("the value is gone", || {
            app.run(&format!("GET {key}")) == "(nil)"
        });
    }
    assert!(count(&sidecar, "pannier_cache_flushes_total", "server_flush") > 0.0);
}

#[test]
fn f41_databases_are_swapped_directly() {
    let server = RedisServer::new(Engine::Redis7);
    let options = before(&server).rule("short", "t:{id}", json!({"localTtl": "300ms"}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    for key in ["c:1", "t:1"] {
        assert_eq!(app.run(&format!("SET {key} v")), "OK");
        sidecar.until_hit(&mut app, &format!("GET {key}"));
    }
    assert_eq!(server.connect().run("SWAPDB 0 1"), "OK");
    // Redis sends no invalidation: only the local TTL ends it.
    wait::until_true("the local TTL ends", || app.run("GET t:1") == "(nil)");
    assert_eq!(app.run("GET c:1"), "v", "no sign of it came");
    // Through the sidecar it flushes.
    assert_eq!(app.run("SWAPDB 0 1"), "OK");
    assert!(count(&sidecar, "pannier_cache_flushes_total", "unknown_write") > 0.0);
    assert_eq!(app.run("GET t:1"), "v");
}

#[test]
fn f42_a_message_overtakes_an_invalidation() {
    const ROUNDS: u32 = 500;
    let server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&before(&server));
    let (mut app, mut listener) = (sidecar.connect(), sidecar.connect());
    let mut direct = server.connect();
    assert_eq!(app.run("SET c:1 0"), "OK");
    listener.run("SUBSCRIBE news");
    let mut overtaken = 0;
    for round in 1..=ROUNDS {
        sidecar_reads(&mut app);
        direct
            .send(format!("SET c:1 {round}\r\nPUBLISH news {round}\r\n").as_bytes())
            .unwrap();
        let message = listener.read().unwrap().to_string();
        assert!(message.contains(&format!(" {round}")), "{message}");
        let begun = Instant::now();
        if app.run("GET c:1") != round.to_string().as_str() {
            overtaken += 1;
            wait::until_true("the invalidation comes", || {
                app.run("GET c:1") == round.to_string().as_str()
            });
            assert!(begun.elapsed().as_millis() <= 1000, "within maxStaleness");
        }
        assert_eq!(direct.read().unwrap(), "OK");
        assert_eq!(direct.read().unwrap(), "1");
    }
    println!("{overtaken} of {ROUNDS} messages overtook the invalidation of the write before them");
}

/// Twice: the second one is a hit.
fn sidecar_reads(app: &mut e2e::Wire) {
    app.run("GET c:1");
    app.run("GET c:1");
}
