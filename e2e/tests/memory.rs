//! Memory mode beyond single commands: transactions, waiting, and what becomes of both when Redis goes or
//! comes back (S0.14, S1.10).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use e2e::{Engine, RedisServer, Sidecar, SidecarOptions, Wire, wait, wire::encode};
use serde_json::json;

const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.";

/// Two event loops, so that connections of different ones meet.
fn memory() -> SidecarOptions {
    SidecarOptions::memory().config(json!({"sidecar": {"threads": 2}}))
}

/// Runs lines of several connections, `A:` and `B:` before each, on both sides; the replies must
/// be the same.
fn both_answer_the_same(connect: impl Fn(std::net::SocketAddr) -> Wire, script: &[&str]) {
    let server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start(&memory());
    let mut ours = [connect(sidecar.address()), connect(sidecar.address())];
    let mut theirs = [connect(server.address()), connect(server.address())];
    for line in script {
        let (who, line) = line.split_once(": ").unwrap();
        let who = usize::from(who == "B");
        assert_eq!(
            ours[who].run(line).to_string(),
            theirs[who].run(line).to_string(),
            "{line}"
        );
    }
}

const TRANSACTIONS: &[&str] = &[
    "A: EXEC",
    "A: DISCARD",
    "A: UNWATCH",
    "A: MULTI",
    "A: SET k 1",
    "A: INCR k",
    "A: GET k",
    "A: PING",
    "A: ECHO hi",
    "B: GET k",
    "A: EXEC",
    "B: GET k",
    // What fails when it runs does not stop the others.
    "A: MULTI",
    "A: LPUSH k x",
    "A: INCR k",
    "A: EXEC",
    // What cannot be queued does.
    "A: MULTI",
    "A: SET k 9",
    "A: GET",
    "A: SET k 10",
    "A: EXEC",
    "A: GET k",
    "A: MULTI",
    "A: NOSUCHCOMMAND",
    "A: EXEC",
    "A: MULTI",
    "A: EXEC x",
    "A: EXEC",
    // Errors that leave the transaction open.
    "A: MULTI",
    "A: MULTI",
    "A: WATCH k",
    "A: UNWATCH",
    "A: INCR k",
    "A: EXEC",
    "A: MULTI",
    "A: SET k 77",
    "A: DISCARD",
    "A: GET k",
    "A: MULTI",
    "A: EXEC",
    "A: WATCH",
    // Another database.
    "A: MULTI",
    "A: SELECT 1",
    "A: SET other v",
    "A: SELECT 99",
    "A: SELECT x",
    "A: EXEC",
    "A: GET other",
    "A: SELECT 0",
    "A: GET other",
    // WATCH: changed by another, by itself, not at all.
    "A: WATCH k",
    "B: SET k 5",
    "A: MULTI",
    "A: SET k 6",
    "A: EXEC",
    "A: GET k",
    "A: WATCH k",
    "A: SET k 7",
    "A: MULTI",
    "A: EXEC",
    "A: WATCH k",
    "B: GET k",
    "A: MULTI",
    "A: INCR k",
    "A: EXEC",
    "A: WATCH k none",
    "B: SET none 1",
    "B: DEL none",
    "A: MULTI",
    "A: GET k",
    "A: EXEC",
    "A: WATCH k",
    "B: SET k 8",
    "A: UNWATCH",
    "A: MULTI",
    "A: GET k",
    "A: EXEC",
    "A: WATCH k",
    "B: SET k 8",
    "A: MULTI",
    "A: DISCARD",
    "A: MULTI",
    "A: GET k",
    "A: EXEC",
    // Writes that change nothing.
    "B: SADD set a",
    "A: WATCH set",
    "B: SADD set a",
    "B: SREM set b",
    "A: MULTI",
    "A: SCARD set",
    "A: EXEC",
    "A: WATCH set",
    "B: EXPIRE set 100",
    "A: MULTI",
    "A: SCARD set",
    "A: EXEC",
    "A: WATCH set",
    "B: SREM set a",
    "A: MULTI",
    "A: SCARD set",
    "A: EXEC",
    // Everything at once.
    "A: WATCH nokey",
    "B: FLUSHALL",
    "A: MULTI",
    "A: PING",
    "A: EXEC",
    "B: SET k v",
    "A: WATCH k",
    "B: FLUSHDB",
    "A: MULTI",
    "A: PING",
    "A: EXEC",
    "A: WATCH k",
    "B: SELECT 1",
    "B: SET k in-one",
    "B: SWAPDB 0 1",
    "A: MULTI",
    "A: PING",
    "A: EXEC",
    "B: SELECT 0",
    "A: WATCH k",
    "B: RENAME k l",
    "A: MULTI",
    "A: PING",
    "A: EXEC",
    // A database is watched, not only a name.
    "A: WATCH k",
    "B: SELECT 2",
    "B: SET k v",
    "A: MULTI",
    "A: PING",
    "A: EXEC",
    "B: SELECT 0",
    // Nobody listens.
    "A: MULTI",
    "A: PUBLISH news hi",
    "A: ZADD z 1 a 2.5 b",
    "A: ZRANGE z 0 -1 WITHSCORES",
    "A: HGETALL none",
    "A: EXEC",
    "A: MULTI",
    "A: RESET",
    "A: EXEC",
];

#[test]
fn transactions_in_memory_mode_answer_as_those_of_redis() {
    both_answer_the_same(Wire::connect, TRANSACTIONS);
    let without_reset = &TRANSACTIONS[..TRANSACTIONS.len() - 2];
    both_answer_the_same(Wire::connect_resp3, without_reset);
}

#[test]
fn a_watched_key_that_expires_fails_the_transaction() {
    let sidecar = Sidecar::start(&memory());
    let (mut app, mut other) = (sidecar.connect(), sidecar.connect());
    assert_eq!(app.run("SET k v PX 30"), "OK");
    assert_eq!(app.run("WATCH k"), "OK");
    wait::until_true("the key expires", || other.run("EXISTS k") == "0");
    assert_eq!(app.run("MULTI"), "OK");
    assert_eq!(app.run("PING"), "QUEUED");
    assert_eq!(app.run("EXEC"), "(nil)");
}

#[test]
fn a_transaction_is_seen_whole_or_not_at_all_by_clients_of_other_event_loops() {
    let sidecar = Sidecar::start(&memory());
    let mut writers = Vec::new();
    for _ in 0..3 {
        let mut wire = sidecar.connect();
        writers.push(std::thread::spawn(move || {
            for _ in 0..300 {
                wire.run("MULTI");
                wire.run("INCR a");
                wire.run("RPUSH b x");
                wire.run("EXEC");
            }
        }));
    }
    let mut reader = sidecar.connect();
    while !writers.iter().all(std::thread::JoinHandle::is_finished) {
        reader.run("MULTI");
        reader.run("INCRBY a 0");
        reader.run("LLEN b");
        let seen = reader.run("EXEC").to_string();
        let (a, b) = seen.trim_matches(['[', ']']).split_once(' ').unwrap();
        assert_eq!(a, b);
    }
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(reader.run("GET a"), "900");
}

#[test]
fn a_transaction_may_not_grow_without_bound() {
    let sidecar = Sidecar::start(&memory());
    let mut app = sidecar.connect();
    assert_eq!(app.run("MULTI"), "OK");
    let large = "x".repeat(9 << 20);
    for _ in 0..7 {
        assert_eq!(app.call(&["SET", "k", &large]), "QUEUED");
    }
    let refused = app.call(&["SET", "k", &large]).to_string();
    assert!(
        refused.starts_with("-ERR the transaction is too large"),
        "{refused}"
    );
    assert_eq!(app.run("EXEC").to_string(), ABORTED);
    assert_eq!(app.run("EXISTS k"), "0");
}

#[test]
fn what_memory_mode_cannot_do_aborts_the_transaction() {
    let sidecar = Sidecar::start(&memory());
    let mut app = sidecar.connect();
    for line in ["PFADD p a", "EVAL x 0", "SUBSCRIBE c", "CLIENT ID"] {
        assert_eq!(app.run("MULTI"), "OK");
        let refused = app.run(line).to_string();
        assert!(refused.contains("in memory mode"), "{line}: {refused}");
        assert_eq!(app.run("EXEC").to_string(), ABORTED);
    }
}

fn away_and_back() -> (RedisServer, Sidecar) {
    let server = RedisServer::new(Engine::Redis7);
    let options = SidecarOptions::before(&server)
        .config(json!({"resilience": {"whenUnavailable": "Memory"}}));
    let sidecar = Sidecar::start_coherent(&options);
    (server, sidecar)
}

#[test]
fn s0_14_a_transaction_begun_in_memory_fails_when_redis_is_back() {
    let (mut server, sidecar) = away_and_back();
    let (mut queues, mut watches, mut probe) =
        (sidecar.connect(), sidecar.connect(), sidecar.connect());
    server.kill();
    wait::until_true("memory answers", || {
        probe.run("SET other v") == "OK" && probe.run("PFADD p a").is_error()
    });
    assert_eq!(queues.run("MULTI"), "OK");
    assert_eq!(queues.run("SET k memory"), "QUEUED");
    assert_eq!(watches.run("WATCH k"), "OK");
    server.restart();
    wait::until_true("Redis is used again", || probe.run("PFADD p a") == "1");
    assert_eq!(queues.run("SET l memory"), "QUEUED");
    assert_eq!(queues.run("EXEC").to_string(), ABORTED);
    // Who watches is told to begin again, and finds Redis then.
    assert_eq!(watches.run("MULTI"), "OK");
    assert_eq!(watches.run("SET k watched"), "QUEUED");
    assert_eq!(watches.run("EXEC"), "(nil)");
    assert_eq!(server.connect().run("EXISTS k l"), "0");
    for app in [&mut queues, &mut watches] {
        assert_eq!(app.run("MULTI"), "OK");
        assert_eq!(app.run("SET k redis"), "QUEUED");
        assert_eq!(app.run("EXEC"), "[OK]");
    }
    assert_eq!(server.connect().run("GET k"), "redis");
}

#[test]
fn s0_14_a_transaction_begun_at_redis_is_closed_when_redis_goes() {
    let (mut server, sidecar) = away_and_back();
    let mut app = sidecar.connect();
    assert_eq!(app.run("MULTI"), "OK");
    assert_eq!(app.run("SET k v"), "QUEUED");
    server.kill();
    assert!(app.is_closed());
    let mut app = sidecar.connect();
    wait::until_true("memory answers", || app.run("GET k") == "(nil)");
    assert_eq!(app.run("MULTI"), "OK");
    assert_eq!(app.run("SET k memory"), "QUEUED");
    assert_eq!(app.run("EXEC"), "[OK]");
    assert_eq!(app.run("GET k"), "memory");
    assert!(sidecar.metric("pannier_memory_discarded_writes_total", "") < 1.0);
    server.restart();
    wait::until_true("the write in memory is counted as discarded", || {
        sidecar.metric("pannier_memory_discarded_writes_total", "") >= 1.0
    });
}

/// Sends a command that waits, and waits until the sidecar says that its client does.
fn blocks(sidecar: &Sidecar, wire: &mut Wire, line: &str) -> i64 {
    let id = wire.run("CLIENT ID").integer();
    let words: Vec<&str> = line.split(' ').collect();
    wire.send(&encode(&words)).unwrap();
    let mut watcher = sidecar.connect();
    wait::until_true(&format!("{line} waits"), || {
        let list = watcher.run(&format!("CLIENT LIST ID {id}")).text();
        list.contains(" flags=b ")
    });
    id
}

#[test]
fn who_waits_is_served_in_order_by_whatever_event_loop() {
    let sidecar = Sidecar::start(&memory());
    let mut waiting: Vec<Wire> = (0..4).map(|_| sidecar.connect()).collect();
    for wire in &mut waiting {
        blocks(&sidecar, wire, "BLPOP none queue 0");
    }
    let mut pushes = sidecar.connect();
    assert_eq!(pushes.run("RPUSH queue a b"), "2");
    assert_eq!(pushes.run("LLEN queue"), "0");
    assert_eq!(pushes.run("RPUSH queue c d e"), "3");
    let got: Vec<String> = waiting
        .iter_mut()
        .map(|wire| wire.read().unwrap().to_string())
        .collect();
    assert_eq!(got, ["[queue a]", "[queue b]", "[queue c]", "[queue d]"]);
    assert_eq!(pushes.run("LRANGE queue 0 -1"), "[e]");
    // A client that was served goes on, also with what it sent meanwhile.
    let mut eager = sidecar.connect();
    blocks(&sidecar, &mut eager, "BLMOVE empty target LEFT RIGHT 0");
    eager.send(&encode(&["GET", "k"])).unwrap();
    let mut chained = sidecar.connect();
    blocks(&sidecar, &mut chained, "BRPOP target 0");
    assert_eq!(pushes.run("SET k v"), "OK");
    assert_eq!(pushes.run("RPUSH empty x"), "1");
    assert_eq!(eager.read().unwrap(), "x");
    assert_eq!(eager.read().unwrap(), "v");
    assert_eq!(chained.read().unwrap(), "[target x]");
    let mut scored = Wire::connect_resp3(sidecar.address());
    blocks(&sidecar, &mut scored, "BZPOPMIN z 0");
    assert_eq!(pushes.run("ZADD z 2 b 1 a"), "2");
    assert_eq!(scored.read().unwrap(), "[z a 1]");
}

#[test]
fn a_reader_of_streams_waits_for_what_comes_after_it() {
    let sidecar = Sidecar::start(&memory());
    let mut adds = sidecar.connect();
    assert_eq!(adds.run("XADD s 1-1 f old"), "1-1");
    let mut readers: Vec<Wire> = (0..3).map(|_| sidecar.connect()).collect();
    blocks(&sidecar, &mut readers[0], "XREAD BLOCK 0 STREAMS s $");
    blocks(
        &sidecar,
        &mut readers[1],
        "XREAD COUNT 5 BLOCK 60000 STREAMS other s $ 1-1",
    );
    blocks(&sidecar, &mut readers[2], "XREAD BLOCK 0 STREAMS s 3");
    assert_eq!(adds.run("XADD s 2-1 f new"), "2-1");
    assert_eq!(readers[0].read().unwrap(), "[[s [[2-1 [f new]]]]]");
    assert_eq!(readers[1].read().unwrap(), "[[s [[2-1 [f new]]]]]");
    assert_eq!(adds.run("XADD s 4-1 f newer"), "4-1");
    assert_eq!(readers[2].read().unwrap(), "[[s [[4-1 [f newer]]]]]");
    assert_eq!(
        readers[2].run("XREAD STREAMS s 4"),
        "[[s [[4-1 [f newer]]]]]"
    );
    assert_eq!(readers[2].run("XREAD BLOCK 5 STREAMS s $"), "(nil)");
    for line in [
        "XGROUP CREATE s g $",
        "XREADGROUP GROUP g c BLOCK 0 STREAMS s >",
    ] {
        let refused = adds.run(line).to_string();
        assert!(
            refused.ends_with("is not available in memory mode"),
            "{refused}"
        );
    }
}

#[test]
fn waiting_ends_by_time_by_others_and_with_the_connection() {
    let sidecar = Sidecar::start(&memory());
    let (mut app, mut other) = (sidecar.connect(), sidecar.connect());
    assert_eq!(app.run("BLPOP l 0.01"), "(nil)");
    assert_eq!(app.run("BZPOPMAX z 0.01"), "(nil)");
    assert_eq!(
        app.run("BLPOP l x").to_string(),
        "-ERR timeout is not a float or out of range"
    );
    let id = blocks(&sidecar, &mut app, "BLPOP l 0");
    assert_eq!(other.run(&format!("CLIENT UNBLOCK {id}")), "1");
    assert_eq!(app.read().unwrap(), "(nil)");
    blocks(&sidecar, &mut app, "XREAD BLOCK 0 STREAMS s $");
    assert_eq!(other.run(&format!("CLIENT UNBLOCK {id} ERROR")), "1");
    assert_eq!(
        app.read().unwrap().to_string(),
        "-UNBLOCKED client unblocked via CLIENT UNBLOCK"
    );
    assert_eq!(other.run(&format!("CLIENT UNBLOCK {id}")), "0");
    // What nobody waits for any longer stays in the list.
    blocks(&sidecar, &mut app, "BLPOP l 0");
    drop(app);
    wait::until_true("the client is gone", || {
        other.run(&format!("CLIENT LIST ID {id}")).text().is_empty()
    });
    assert_eq!(other.run("RPUSH l a"), "1");
    assert_eq!(other.run("LLEN l"), "1");
    let mut killed = sidecar.connect();
    let id = blocks(&sidecar, &mut killed, "BLPOP none 0");
    assert_eq!(other.run(&format!("CLIENT KILL ID {id}")), "1");
    assert!(killed.is_closed());
}

#[test]
fn a_transaction_serves_who_waits_when_it_is_over_and_never_waits_itself() {
    let sidecar = Sidecar::start(&memory());
    let (mut app, mut waiting) = (sidecar.connect(), sidecar.connect());
    blocks(&sidecar, &mut waiting, "BLPOP l 0");
    for line in [
        "RPUSH l a",
        "LPOP l",
        "BLPOP l 0",
        "BLMOVE l m LEFT LEFT 0",
        "RPUSH l b c",
    ] {
        if line == "RPUSH l a" {
            assert_eq!(app.run("MULTI"), "OK");
        }
        assert_eq!(app.run(line), "QUEUED");
    }
    assert_eq!(app.run("EXEC"), "[1 a (nil) (nil) 2]");
    assert_eq!(waiting.read().unwrap(), "[l b]");
    assert_eq!(app.run("LRANGE l 0 -1"), "[c]");
}

#[test]
fn s0_14_who_waits_in_memory_is_told_when_redis_is_back() {
    let (mut server, sidecar) = away_and_back();
    let (mut waiting, mut probe) = (sidecar.connect(), sidecar.connect());
    server.kill();
    wait::until_true("memory answers", || {
        probe.run("SET other v") == "OK" && probe.run("PFADD p a").is_error()
    });
    blocks(&sidecar, &mut waiting, "XREAD BLOCK 0 STREAMS s $");
    server.restart();
    let told = waiting.read().unwrap().to_string();
    assert!(told.starts_with("-UNBLOCKED "), "{told}");
    blocks(&sidecar, &mut waiting, "XREAD BLOCK 0 STREAMS s $");
    assert_eq!(server.connect().run("XADD s 1-1 f v"), "1-1");
    assert_eq!(waiting.read().unwrap(), "[[s [[1-1 [f v]]]]]");
}
