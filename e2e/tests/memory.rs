//! Memory mode beyond single commands: transactions, and what becomes of them when Redis goes or
//! comes back (S0.14, S1.10).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use e2e::{Engine, RedisServer, Sidecar, SidecarOptions, Wire, wait};
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
