//! P3, no late fill: one direct writer against readers of the same key through the sidecar.
//!
//! A round writes the key twice, directly, while every reader has a read on its way, all at random
//! moments. Then comes a barrier: a read of a key that is in no cache, through the same tracked link,
//! whose reply comes after every invalidation sent before. Whoever reads the key from then on must
//! see the last write: an older value was filled late and would stay.
//! `PANNIER_SEED` repeats the moments.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

#[path = "race/naive.rs"]
mod naive;

use std::{
    hint,
    net::SocketAddr,
    time::{Duration, Instant},
};

use e2e::{Engine, RedisServer, Sidecar, SidecarOptions, Wire, random::Random, wire::encode};
use serde_json::{Value as Json, json};

const ROUNDS: u64 = 100_000;
const KEY: &str = "race:one";

/// What a run found.
#[derive(Debug, Default)]
struct Outcome {
    stale: u64,
    went_back: u64,
    first: Option<String>,
}

#[test]
fn one_reader_never_sees_a_late_fill() {
    race_through_the_sidecar(Engine::Redis7, 1, ROUNDS, json!({}));
}

#[test]
fn four_readers_never_see_a_late_fill() {
    race_through_the_sidecar(Engine::Valkey8, 4, ROUNDS, json!({}));
}

#[test]
fn readers_on_two_event_loops_never_see_a_late_fill() {
    let threads = json!({"sidecar": {"threads": 2}});
    race_through_the_sidecar(Engine::Redis7, 4, ROUNDS / 10, threads);
}

#[test]
fn readers_never_see_a_late_fill_in_broadcast_mode() {
    let broadcast = json!({"local": {"coherence": "Broadcast"}});
    race_through_the_sidecar(Engine::Redis7, 4, ROUNDS / 5, broadcast.clone());
    race_through_the_sidecar(Engine::Valkey8, 1, ROUNDS / 5, broadcast.clone());
    let two = json!({"local": {"coherence": "Broadcast"}, "sidecar": {"threads": 2}});
    race_through_the_sidecar(Engine::Redis7, 4, ROUNDS / 10, two);
}

/// P2 and P3 together: the writer is an app of the same pod.
#[test]
fn readers_never_see_a_value_older_than_what_the_pod_wrote() {
    let server = RedisServer::new(Engine::Redis7);
    let options = SidecarOptions::before(&server).rule("race", "race:{key}", json!({}));
    let sidecar = Sidecar::start_coherent(&options);
    let outcome = race(sidecar.connect(), sidecar.address(), 4, ROUNDS / 10);
    let first = outcome.first.as_deref().unwrap_or("");
    assert_eq!((outcome.stale, outcome.went_back), (0, 0), "{first}");
    assert!(sidecar.hits() > 0.0);
}

#[test]
fn the_method_itself_finds_nothing_on_a_plain_server() {
    let server = RedisServer::new(Engine::Redis7);
    let outcome = race(server.connect(), server.address(), 4, 2_000);
    assert_eq!(
        (outcome.stale, outcome.went_back),
        (0, 0),
        "{:?}",
        outcome.first
    );
}

#[test]
fn the_method_itself_finds_a_reader_that_is_never_told() {
    let written = RedisServer::new(Engine::Redis7);
    let read = RedisServer::new(Engine::Redis7);
    assert_eq!(read.connect().run("SET race:one 1"), "OK");
    let outcome = race(written.connect(), read.address(), 1, 50);
    assert_eq!(outcome.stale, 50);
}

#[test]
fn the_method_itself_finds_the_late_fills_of_a_naive_cache() {
    let server = RedisServer::new(Engine::Redis7);
    for readers in [1, 4] {
        // How often differs from run to run, that it happens does not.
        let found = (0..20).any(|_| {
            let outcome = race(
                server.connect(),
                naive::start(server.address()),
                readers,
                1_000,
            );
            println!("{readers} readers: {} of 1000 rounds stale", outcome.stale);
            outcome.stale > 0
        });
        assert!(found);
    }
}

fn race_through_the_sidecar(engine: Engine, readers: usize, rounds: u64, config: Json) {
    let server = RedisServer::new(engine);
    let options = SidecarOptions::before(&server)
        .rule("race", "race:{key}", json!({}))
        .config(config);
    let sidecar = Sidecar::start_coherent(&options);
    let outcome = race(server.connect(), sidecar.address(), readers, rounds);
    let first = outcome.first.as_deref().unwrap_or("");
    assert_eq!(
        (outcome.stale, outcome.went_back),
        (0, 0),
        "of {rounds} rounds; {first}"
    );
    // Without local answers and an invalidation in every round the race was never run.
    let pushes = sidecar.metric("pannier_invalidations_received_total", "");
    let least = f64::from(u32::try_from(rounds).unwrap());
    assert!(
        sidecar.hits() > 0.0 && pushes >= least,
        "{pushes} invalidations"
    );
}

fn race(mut writer: Wire, read_from: SocketAddr, readers: usize, rounds: u64) -> Outcome {
    let seed = Random::seed("PANNIER_SEED");
    println!("{readers} readers, PANNIER_SEED={seed}");
    let mut random = Random::new(seed);
    let mut readers: Vec<Wire> = (0..readers).map(|_| Wire::connect(read_from)).collect();
    let mut latest = vec![0; readers.len()];
    let mut outcome = Outcome::default();
    let get = encode(&["GET", KEY]);
    for round in 1..=rounds {
        let newest = 2 * round;
        let start = random.below(readers.len());
        writer
            .send(&encode(&["SET", KEY, &(newest - 1).to_string()]))
            .unwrap();
        // The second write goes out before, between or after the reads.
        let place = random.below(readers.len() + 1);
        for turn in 0..=readers.len() {
            wait_a_moment(&mut random);
            if turn == place {
                writer
                    .send(&encode(&["SET", KEY, &newest.to_string()]))
                    .unwrap();
            }
            if turn < readers.len() {
                let reader = (start + turn) % readers.len();
                readers[reader].send(&get).unwrap();
            }
        }
        for (reader, seen) in readers.iter_mut().zip(&mut latest) {
            observe(reader, seen, round, &mut outcome);
        }
        for _ in 0..2 {
            assert_eq!(writer.read().unwrap(), "OK");
        }
        // One barrier per reader: each event loop has a tracked link of its own.
        let barrier = encode(&["GET", &format!("race:barrier-{round}")]);
        for reader in &mut readers {
            reader.send(&barrier).unwrap();
        }
        for reader in &mut readers {
            assert_eq!(reader.read().unwrap(), "(nil)");
        }
        for reader in &mut readers {
            reader.send(&get).unwrap();
        }
        let mut stale = false;
        for (reader, seen) in readers.iter_mut().zip(&mut latest) {
            let value = observe(reader, seen, round, &mut outcome);
            if value != newest {
                stale = true;
                outcome.first.get_or_insert_with(|| {
                    format!(
                        "round {round}: {value} after {newest} was written; PANNIER_SEED={seed}"
                    )
                });
            }
        }
        outcome.stale += u64::from(stale);
    }
    outcome
}

/// Reads one reply; what one connection sees never goes back (P2).
fn observe(reader: &mut Wire, seen: &mut u64, round: u64, outcome: &mut Outcome) -> u64 {
    let reply = reader.read().unwrap();
    // Before the first write there is nothing.
    let value = if reply == "(nil)" {
        0
    } else {
        reply.text().parse().unwrap()
    };
    if value < *seen {
        outcome.went_back += 1;
        outcome
            .first
            .get_or_insert_with(|| format!("round {round}: {value} after {seen}"));
    }
    *seen = value;
    value
}

/// Up to the time of one trip over loopback.
fn wait_a_moment(random: &mut Random) {
    if random.chance(50) {
        let length = Duration::from_micros(random.number() % 20);
        let begun = Instant::now();
        while begun.elapsed() < length {
            hint::spin_loop();
        }
    }
}
