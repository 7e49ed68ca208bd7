//! Commands that change a connection's state, in the middle of a pipeline: what stands before and
//! behind them is answered in order, as Redis does it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use std::time::{Duration, Instant};

use e2e::{Engine, RedisServer, Sidecar, SidecarOptions, Wire, wait, wire::encode};
use serde_json::json;

fn start() -> (RedisServer, Sidecar) {
    let server = RedisServer::new(Engine::Redis7);
    let options = SidecarOptions::before(&server).rule("cached", "c:{id}", json!({}));
    let sidecar = Sidecar::start_coherent(&options);
    (server, sidecar)
}

/// Commands as the bytes of one write.
fn pipeline(commands: &[&str]) -> Vec<u8> {
    commands
        .iter()
        .flat_map(|command| encode(&command.split_whitespace().collect::<Vec<_>>()))
        .collect()
}

/// Sends all in one write and compares every reply with what is expected.
#[track_caller]
fn expect(wire: &mut Wire, commands_and_replies: &[(&str, &str)]) {
    let commands: Vec<_> = commands_and_replies.iter().map(|pair| pair.0).collect();
    wire.send(&pipeline(&commands)).unwrap();
    for (command, reply) in commands_and_replies {
        match wire.read() {
            Ok(got) => assert_eq!(got.to_string(), *reply, "{command} in {commands:?}"),
            Err(error) => panic!("{command} in {commands:?}: {error}"),
        }
    }
}

/// Sends all in one write and nothing after it, to Redis and to the sidecar: same bytes back.
fn same_bytes_to_the_end(commands: &[&str], half_close: bool) {
    let (server, sidecar) = start();
    let answer = |mut wire: Wire| {
        wire.send(&pipeline(commands)).unwrap();
        if half_close {
            wire.finish();
        }
        let bytes = wire.read_to_end().unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let expected = answer(server.connect());
    for round in 0..20 {
        assert_eq!(
            answer(sidecar.connect()),
            expected,
            "round {round}: {commands:?}"
        );
    }
}

#[test]
fn a_skipped_reply_stays_the_skipped_one_behind_a_read_that_waits() {
    let (server, sidecar) = start();
    let mut app = sidecar.connect();
    assert_eq!(app.run("GET u:1"), "(nil)");
    for _ in 0..10 {
        server.pause();
        app.send(&pipeline(&[
            "GET u:1",
            "CLIENT REPLY SKIP",
            "MULTI",
            "PING",
            "EXEC",
            "ECHO end",
        ]))
        .unwrap();
        // By its answer the sidecar has read what came before on another connection, or soon will.
        assert_eq!(sidecar.connect().run("PING"), "PONG");
        server.resume();
        for expected in ["(nil)", "QUEUED", "[PONG]", "end"] {
            assert_eq!(app.read().unwrap(), expected);
        }
    }
}

#[test]
fn a_half_closed_connection_gets_all_of_its_replies() {
    for commands in [
        &["MULTI", "SET u:1 v", "EXEC"][..],
        &["MULTI", "SET c:1 v", "GET c:1", "EXEC", "GET c:1"],
        &["SET c:1 v", "GET c:1", "GET u:1"],
        &["WATCH u:1", "MULTI", "SET u:1 v", "EXEC", "GET u:1"],
    ] {
        same_bytes_to_the_end(commands, true);
    }
}

#[test]
fn quit_ends_the_connection_behind_everything_before_it() {
    for commands in [
        &["SUBSCRIBE a", "QUIT"][..],
        &["GET u:1", "QUIT"],
        &["MULTI", "SET u:1 v", "EXEC", "QUIT"],
        &["MULTI", "QUIT"],
        &["SUBSCRIBE a", "PING", "UNSUBSCRIBE a", "GET u:1", "QUIT"],
    ] {
        same_bytes_to_the_end(commands, false);
    }
}

#[test]
fn reset_in_a_transaction_is_answered_behind_it() {
    let (server, sidecar) = start();
    for mut wire in [server.connect(), sidecar.connect()] {
        for _ in 0..20 {
            expect(
                &mut wire,
                &[
                    ("MULTI", "OK"),
                    ("SET u:1 v", "QUEUED"),
                    ("RESET", "RESET"),
                    ("GET u:1", "(nil)"),
                ],
            );
        }
    }
}

#[test]
fn a_command_refused_while_subscribed_is_answered_behind_the_subscription() {
    let refused = "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context";
    let (server, sidecar) = start();
    for mut wire in [server.connect(), sidecar.connect()] {
        for _ in 0..20 {
            expect(
                &mut wire,
                &[
                    ("SUBSCRIBE a", "[subscribe a 1]"),
                    ("GET u:1", refused),
                    ("UNSUBSCRIBE a", "[unsubscribe a 0]"),
                    ("GET u:1", "(nil)"),
                ],
            );
        }
    }
}

#[test]
fn with_resp3_a_subscription_and_a_transaction_fit_in_one_write() {
    let (server, sidecar) = start();
    for address in [server.address(), sidecar.address()] {
        let mut wire = Wire::connect_resp3(address);
        for _ in 0..20 {
            expect(
                &mut wire,
                &[
                    ("SUBSCRIBE a", ">[subscribe a 1]"),
                    ("UNSUBSCRIBE a", ">[unsubscribe a 0]"),
                    ("MULTI", "OK"),
                    ("SET u:1 v", "QUEUED"),
                    ("EXEC", "[OK]"),
                    ("GET u:1", "v"),
                ],
            );
        }
    }
}

#[test]
fn a_database_chosen_in_a_transaction_is_the_one_used_afterwards() {
    let (server, sidecar) = start();
    for mut wire in [server.connect(), sidecar.connect()] {
        expect(
            &mut wire,
            &[
                ("SET u:k zero", "OK"),
                ("MULTI", "OK"),
                ("SELECT 1", "QUEUED"),
                ("SET u:k one", "QUEUED"),
                ("EXEC", "[OK OK]"),
                ("GET u:k", "one"),
                ("SELECT 0", "OK"),
                ("GET u:k", "zero"),
                ("MULTI", "OK"),
                ("SET u:k other", "QUEUED"),
                ("DISCARD", "OK"),
                ("SELECT 1", "OK"),
                ("GET u:k", "one"),
                ("MULTI", "OK"),
                ("SELECT 0", "QUEUED"),
                ("DISCARD", "OK"),
                ("GET u:k", "one"),
                ("FLUSHALL", "OK"),
            ],
        );
    }
}

#[test]
fn transactions_one_behind_the_other_do_not_mix() {
    let (server, sidecar) = start();
    for mut wire in [server.connect(), sidecar.connect()] {
        for _ in 0..20 {
            expect(
                &mut wire,
                &[
                    ("DEL u:n", "0"),
                    ("MULTI", "OK"),
                    (
                        "NOSUCH",
                        "-ERR unknown command 'NOSUCH', with args beginning with: ",
                    ),
                    (
                        "EXEC",
                        "-EXECABORT Transaction discarded because of previous errors.",
                    ),
                    ("MULTI", "OK"),
                    ("INCR u:n", "QUEUED"),
                    ("EXEC", "[1]"),
                    ("MULTI", "OK"),
                    ("INCR u:n", "QUEUED"),
                    ("DISCARD", "OK"),
                    ("GET u:n", "1"),
                    ("MULTI", "OK"),
                    ("DEL u:n", "QUEUED"),
                    ("EXEC", "[1]"),
                ],
            );
        }
    }
}

#[test]
fn unblocking_a_client_whose_transaction_runs_changes_nothing() {
    let (server, sidecar) = start();
    let (mut app, mut other) = (sidecar.connect(), sidecar.connect());
    let id = app.run("CLIENT ID").integer();
    let busy = "local function now() local t = redis.call('TIME') return t[1] * 1000 + t[2] / 1000 end \
        local e = now() + 700 while now() < e do end return redis.call('INCR', 'u:n')";
    assert_eq!(app.run("MULTI"), "OK");
    assert_eq!(app.call(&["EVAL", busy, "0"]), "QUEUED");
    app.send(b"EXEC\r\n").unwrap();
    // Asked on a connection that Redis has accepted before: no answer in time means that it is busy.
    let mut probe = server.connect();
    probe.patience(Duration::from_millis(100));
    wait::until_true("Redis is busy with the transaction", || {
        probe.try_call(&["PING"]).is_err()
    });
    assert_eq!(other.run(&format!("CLIENT UNBLOCK {id}")), "0");
    assert_eq!(app.read().unwrap(), "[1]");
    assert_eq!(app.run("GET u:n"), "1");
    assert_eq!(server.connect().run("GET u:n"), "1");
}

#[test]
fn a_monitor_or_subscription_that_redis_refuses_leaves_the_connection_usable() {
    let (server, sidecar) = start();
    let mut direct = server.connect();
    assert_eq!(
        direct.run("ACL SETUSER default -monitor -subscribe -psubscribe"),
        "OK"
    );
    let mut two = sidecar.connect();
    let mut three = Wire::connect_resp3(sidecar.address());
    for app in [&mut two, &mut three] {
        for refused in ["MONITOR", "SUBSCRIBE a", "PSUBSCRIBE a*"] {
            app.send(&pipeline(&[refused, "GET u:1", "SET c:1 v", "GET c:1"]))
                .unwrap();
            let reply = app.read().unwrap().to_string();
            assert!(reply.starts_with("-NOPERM"), "{refused}: {reply}");
            for expected in ["(nil)", "OK", "v"] {
                assert_eq!(app.read().unwrap(), expected, "after {refused}");
            }
        }
        expect(
            app,
            &[("MULTI", "OK"), ("SET c:1 w", "QUEUED"), ("EXEC", "[OK]")],
        );
    }
}

#[test]
fn replies_held_behind_a_read_that_waits_are_bounded() {
    const READS: usize = 400;
    let server = RedisServer::new(Engine::Redis7);
    let options = SidecarOptions::before(&server)
        .rule("cached", "c:{id}", json!({}))
        .config(json!({"sidecar": {"outputLimit": "8Mi"}}));
    let mut sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    let value = "x".repeat(500_000);
    assert_eq!(app.call(&["SET", "c:big", &value]), "OK");
    sidecar.until_hit(&mut app, "GET c:big");
    let before = sidecar.process().resident();
    // 200 MB of local answers stand behind one that only Redis has.
    server.pause();
    let mut commands = vec!["GET u:1"];
    commands.extend(
        [READS, 1]
            .into_iter()
            .zip(["GET c:big", "ECHO end"])
            .flat_map(|(times, command)| std::iter::repeat_n(command, times)),
    );
    app.send(&pipeline(&commands)).unwrap();
    let begun = Instant::now();
    let mut most = before;
    wait::until_true("it has had time to answer all of them", || {
        most = most.max(sidecar.process().resident());
        begun.elapsed() > Duration::from_millis(500)
    });
    server.resume();
    assert!(
        most - before < 60_000_000,
        "{before} bytes became {most} while replies were held"
    );
    assert_eq!(app.read().unwrap(), "(nil)");
    for number in 0..READS {
        let reply = app.read().unwrap();
        assert_eq!(reply.bytes().len(), value.len(), "reply {number}");
    }
    assert_eq!(app.read().unwrap(), "end");
}

#[test]
fn a_pipeline_with_many_large_local_answers_is_answered_to_its_end() {
    let (_server, sidecar) = start();
    let mut app = sidecar.connect();
    let value = "x".repeat(500_000);
    assert_eq!(app.call(&["SET", "c:big", &value]), "OK");
    sidecar.until_hit(&mut app, "GET c:big");
    app.send(&pipeline(&[&["GET c:big"; 10][..], &["ECHO end"]].concat()))
        .unwrap();
    for number in 0..10 {
        let reply = app
            .read()
            .unwrap_or_else(|error| panic!("reply {number}: {error}"));
        assert_eq!(reply.bytes().len(), value.len(), "reply {number}");
    }
    assert_eq!(app.read().unwrap(), "end");
}
