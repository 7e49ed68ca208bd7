//! Who is the primary, and whether it may write: planned switches, kills, isolation. A writer that
//! keeps its connection as long as it can remembers every acknowledged write.

use std::{
    thread,
    time::{Duration, Instant},
};

use e2e::{Engine, Shard, ShardOptions, http, shard::Writer, wait};
use serde_json::json;

const ENGINES: [Engine; 2] = [Engine::Redis7, Engine::Valkey8];

fn until_writing(shard: &Shard, primary: usize) {
    let mut wire = shard.operator(primary);
    wait::until_true("the writer writes", || wire.run("DBSIZE").integer() > 100);
}

#[test]
fn a_primary_that_is_asked_to_end_hands_over_and_no_acknowledged_write_is_lost() {
    for engine in ENGINES {
        let mut shard = Shard::start(ShardOptions::of(engine));
        for round in 0..2 {
            let old = shard.until_formed();
            let writer = Writer::start(&shard);
            until_writing(&shard, old);
            let began = Instant::now();
            shard.terminate(old);
            assert!(shard.until_ended(old).success());
            let ended = began.elapsed();
            let new = wait::until("Sentinels name another", || {
                shard.named().filter(|named| *named != old)
            });
            until_more(&shard, new);
            let record = writer.stop();
            println!(
                "{} round {round}: ended after {ended:?}; {}",
                engine.name(),
                record.summary()
            );
            assert_eq!(record.lost(&shard, new), []);
            assert!(record.longest_pause() < Duration::from_secs(5));
            shard.operator(new).run("FLUSHALL");
            shard.start_pod(old);
        }
    }
}

/// Waits until the writer has written something after this moment.
fn until_more(shard: &Shard, primary: usize) {
    let mut wire = shard.operator(primary);
    let now = wire.run("DBSIZE").integer();
    wait::until_true("the writer writes again", || {
        wire.run("DBSIZE").integer() > now + 10
    });
}

fn switch(shard: &Shard, number: usize, password: &str) -> http::Response {
    let bearer = format!("Bearer {password}");
    let headers = [("authorization", bearer.as_str())];
    let answer = http::request(shard.agent(number), "POST", "/switchover", &headers, b"");
    answer.expect("the agent answers")
}

#[test]
fn the_operator_may_ask_for_a_switch_and_nobody_else() {
    let shard = Shard::start(ShardOptions::of(Engine::Valkey8));
    assert_eq!(switch(&shard, 0, "wrong").status, 401);
    assert_eq!(switch(&shard, 0, "default-first").status, 401);
    assert_eq!(switch(&shard, 1, "operator-first").status, 409);
    assert_eq!(shard.named(), Some(0));
    let writer = Writer::start(&shard);
    until_writing(&shard, 0);
    let answer = switch(&shard, 0, "operator-first");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said = answer.json();
    assert_eq!(said["outcome"], "Switched");
    let new = shard.number_of(said["primary"].as_str().expect("the shard answers"));
    until_more(&shard, new);
    let record = writer.stop();
    println!("switch by command: {}; {said}", record.summary());
    assert_eq!(record.lost(&shard, new), []);
    assert_eq!(shard.until_formed(), new);
}

#[test]
fn a_switch_that_fails_leaves_a_primary_that_accepts_writes() {
    let shard = Shard::start(ShardOptions::of(Engine::Redis7));
    for sentinel in shard.sentinels() {
        shard.pause(sentinel);
    }
    let agent = shard.agent(0);
    // The agent tries until its own deadline, longer than one read of the harness takes.
    let asked = thread::spawn(move || {
        let headers = [("authorization", "Bearer operator-first")];
        let _ = http::request(agent, "POST", "/switchover", &headers, b"");
    });
    wait::until_true("the switch fails", || {
        let state = shard.state(0).unwrap_or_default();
        state["lastSwitchover"].to_string().contains("Failed")
    });
    asked.join().expect("the shard answers");
    wait::until_true("writes are accepted again", || {
        let mut wire = shard
            .try_connect(0, "default", "default-first")
            .expect("the shard answers");
        wire.run("SET after 1") == "OK"
    });
}

#[test]
fn a_killed_primary_is_replaced_and_the_window_of_loss_is_as_stated() {
    for engine in ENGINES {
        let mut shard = Shard::start(ShardOptions::of(engine));
        let writer = Writer::start(&shard);
        until_writing(&shard, 0);
        let killed = Instant::now();
        shard.kill(0);
        let new = wait::until("Sentinels name another", || {
            shard.named().filter(|named| *named != 0)
        });
        until_more(&shard, new);
        let resumed = killed.elapsed();
        let record = writer.stop();
        let lost = record.lost(&shard, new);
        println!(
            "{}: killed; writes resumed after {resumed:?}; lost {}; {}",
            engine.name(),
            lost.len(),
            record.summary()
        );
        // Replication lags by what was on its way: all that is lost was written just before.
        let window = lost.iter().map(|(_, at)| killed.duration_since(*at)).max();
        assert!(
            window.unwrap_or_default() < Duration::from_secs(1),
            "{window:?}"
        );
        shard.start_pod(0);
        assert_eq!(shard.until_formed(), new);
    }
}

#[test]
fn p8_an_isolated_primary_refuses_writes_before_another_can_have_been_chosen() {
    for engine in ENGINES {
        let shard = Shard::start(ShardOptions::of(engine));
        let mut wire = shard
            .try_connect(0, "default", "default-first")
            .expect("the shard answers");
        assert_eq!(wire.run("SET a 1"), "OK");
        // One replica and one Sentinel are on its side of the partition.
        for number in [1, 3, 4] {
            shard.pause(number);
        }
        let cut = Instant::now();
        wait::until_true("writes are refused", || {
            wire.run("SET a 2").to_string().starts_with("-NOREPLICAS")
        });
        println!(
            "{}: isolated, refused after {:?}",
            engine.name(),
            cut.elapsed()
        );
        assert!(cut.elapsed() < Duration::from_secs(5));
        assert!(!wire.run("GET a").is_error());
        for number in [1, 3, 4] {
            shard.resume(number);
        }
        wait::until_true("writes are accepted again", || wire.run("SET a 3") == "OK");
    }
}

#[test]
fn a_primary_with_all_replicas_goes_on_when_all_sentinels_are_gone() {
    let mut shard = Shard::start(ShardOptions::of(Engine::Redis7));
    for sentinel in shard.sentinels() {
        shard.kill(sentinel);
    }
    let mut wire = shard
        .try_connect(0, "default", "default-first")
        .expect("the shard answers");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        assert_eq!(wire.run("SET a 1"), "OK");
        // Not a wait: the load of a calm writer.
        thread::sleep(Duration::from_millis(20));
    }
    assert!(shard.state(0).expect("the shard answers")["frozen"].is_null());
}

#[test]
fn an_old_primary_that_comes_to_itself_follows_the_new_one_at_once() {
    for engine in ENGINES {
        let shard = Shard::start(ShardOptions::of(engine));
        let mut stubborn = shard
            .try_connect(0, "default", "default-first")
            .expect("the shard answers");
        assert_eq!(stubborn.run("SET a 1"), "OK");
        shard.pause(0);
        let new = wait::until("Sentinels name another", || {
            shard.named().filter(|named| *named != 0)
        });
        shard.resume(0);
        let back = Instant::now();
        wait::until_true("the old primary is a replica", || {
            let state = shard.state(0).unwrap_or_default();
            state["server"]["role"] == "Replica" && state["server"]["linkUp"] == json!(true)
        });
        println!(
            "{}: demoted {:?} after it came back",
            engine.name(),
            back.elapsed()
        );
        assert_eq!(shard.until_formed(), new);
        let reply = stubborn.try_call(&["SET", "a", "2"]);
        assert!(
            !reply.is_ok_and(|reply| reply == "OK"),
            "it is no primary any more"
        );
    }
}
