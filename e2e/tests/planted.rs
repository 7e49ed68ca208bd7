//! The history checker finds bugs: with each rule of coherence off in turn it objects.
//! `sidecar/src/planted.rs` has the bugs, docs/checker.md the rules.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use std::time::Duration;

use e2e::{
    Engine,
    history::{
        report,
        run::{Outcome, RunOptions, run},
        schedule::{STANDALONE, Schedule},
    },
    random::Random,
    sidecar,
};

/// A bug, the rule that it breaks, and what provokes it best.
struct Plant {
    rule: u8,
    name: &'static str,
    first: &'static str,
}

const fn plant(rule: u8, name: &'static str, first: &'static str) -> Plant {
    Plant { rule, name, first }
}

/// Rule 10 is the checker itself.
const PLANTS: &[Plant] = &[
    plant(1, "late-fill", "health"),
    plant(2, "expiry", "does not notice"),
    plant(3, "epoch", "tracked links are reset"),
    plant(4, "write-marks", "transactions and scripts while"),
    plant(5, "proof", "stalls beyond"),
    plant(5, "proof-date", "very late, then"),
    plant(6, "null-push", "FLUSHALL"),
    plant(6, "text-keys", "health"),
    plant(7, "transaction-keys", "transactions and scripts while"),
    plant(7, "script-keys", "transactions and scripts while"),
    plant(8, "replica", "replica lags"),
    plant(9, "bound", "stalls beyond"),
];

/// Beside the rules: a read joins one that a write has overtaken; time is the wall clock's.
const OTHERS: &[Plant] = &[
    plant(0, "join", "invalidations and replies"),
    plant(0, "wall-clock", "wall clocks of sidecars"),
];

#[test]
fn the_checker_objects_to_every_rule_that_is_off() {
    let seed = Random::seed("PANNIER_SEED");
    let only = std::env::var("PANNIER_PLANT_ONLY").unwrap_or_default();
    println!("PANNIER_SEED={seed}");
    let mut missed = Vec::new();
    for plant in PLANTS.iter().chain(OTHERS) {
        if !plant.name.contains(&only) {
            continue;
        }
        let (mut reads, mut seconds) = (0, 0.0);
        let found = order(plant).find_map(|schedule| {
            let outcome = run(schedule, &options(plant, seed));
            reads += outcome.verdict.reads;
            seconds += outcome.took.as_secs_f64();
            (!outcome.verdict.is_clean()).then_some(outcome)
        });
        if let Some(outcome) = found {
            println!("{}", line(plant, &outcome, reads, seconds));
        } else {
            println!("rule {}: {} was not found", plant.rule, plant.name);
            missed.push(plant.name);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

fn line(plant: &Plant, outcome: &Outcome, reads: u64, seconds: f64) -> String {
    format!(
        "rule {}: {:<16} found after {reads:>7} reads, {seconds:>5.1} s, in {:?}: {}",
        plant.rule,
        plant.name,
        outcome.schedule,
        report::counts(&outcome.verdict)
    )
}

/// The short form, with what was made for that rule first.
fn order(plant: &Plant) -> impl Iterator<Item = &'static Schedule> {
    let fits = |schedule: &&Schedule| schedule.name.contains(plant.first);
    let first = STANDALONE.iter().filter(move |one| fits(one));
    first.chain(STANDALONE.iter().filter(move |one| !fits(one)))
}

fn options(plant: &Plant, seed: u64) -> RunOptions {
    RunOptions {
        seed,
        engine: Engine::Redis7,
        span: Duration::from_secs(2),
        program: Some(sidecar::planted_program().to_owned()),
        environment: vec![("PANNIER_PLANT".to_owned(), plant.name.to_owned())],
    }
}

/// What is shipped has no such switch.
#[test]
fn the_usual_program_knows_nothing_of_planted_bugs() {
    let program = std::fs::read(sidecar::program()).unwrap();
    let planted = std::fs::read(sidecar::planted_program()).unwrap();
    let has_switch = |bytes: &[u8]| bytes.windows(13).any(|word| word == b"PANNIER_PLANT");
    assert!(has_switch(&planted), "the search does not find the switch");
    assert!(!has_switch(&program), "the switch is in the usual program");
}
