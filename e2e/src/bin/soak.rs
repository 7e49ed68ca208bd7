//! `make soak`: the history checker for as long as it takes to judge a million reads of each
//! topology, with a table that can be pasted into docs/checker.md.
//!
//! `PANNIER_SEED` replays a run, `PANNIER_TOPOLOGY` and `PANNIER_SCHEDULE` pick by name,
//! `PANNIER_SPAN_MS` is how long each schedule's faults happen, `PANNIER_SOAK_READS` how many reads
//! are wanted.

use std::{
    fmt::Write as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use e2e::{
    history::{
        check::Verdict,
        report::{as_millis, counts},
        run::{RunOptions, percent, run},
        schedule::{TOPOLOGIES, Topology, engine},
    },
    random::Random,
};

/// Faults of one schedule, in milliseconds.
const SPAN: u64 = 8_000;
/// Reads per topology.
const READS: u64 = 1_000_000;

/// What a topology has brought so far.
#[derive(Default)]
struct Sum {
    verdict: Verdict,
    /// Without faults.
    health: Verdict,
    runs: u64,
}

fn main() -> ExitCode {
    let seed = Random::seed("PANNIER_SEED");
    let span = number("PANNIER_SPAN_MS", SPAN);
    let wanted = number("PANNIER_SOAK_READS", READS);
    let only = std::env::var("PANNIER_SCHEDULE").unwrap_or_default();
    let begun = Instant::now();
    for topology in topologies() {
        let rounds = u64::try_from(topology.schedules.len()).unwrap_or(0) * (span + 1_500) / 60_000;
        println!(
            "{}: {} schedules, about {} min per round, rounds until {wanted} reads are judged; PANNIER_SEED={seed}",
            topology.name,
            topology.schedules.len(),
            rounds + 1,
        );
    }
    let mut table = String::from(
        "| topology | schedules run | reads judged | during a write of the same key | staleness p99 in health | p99 of all | highest | violations |\n|---|---|---|---|---|---|---|---|\n",
    );
    let mut clean = true;
    for topology in topologies() {
        let sum = soak(topology, seed, Duration::from_millis(span), wanted, &only);
        clean &= sum.verdict.is_clean();
        let _ = writeln!(table, "{}", row(topology, &sum));
    }
    println!("\n{table}");
    println!(
        "seed {seed}, {:.0} min",
        begun.elapsed().as_secs_f64() / 60.0
    );
    if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn topologies() -> impl Iterator<Item = &'static Topology> {
    let only = std::env::var("PANNIER_TOPOLOGY").unwrap_or_default();
    TOPOLOGIES
        .iter()
        .filter(move |topology| topology.name.contains(&only))
}

/// Plays all schedules again and again, each time with another seed.
fn soak(topology: &Topology, seed: u64, span: Duration, wanted: u64, only: &str) -> Sum {
    let mut sum = Sum::default();
    let mut round = 0;
    let chosen = || {
        topology
            .schedules
            .iter()
            .enumerate()
            .filter(|(_, one)| one.name.contains(only))
    };
    while chosen().count() > 0 && (round == 0 || sum.verdict.reads < wanted) {
        for (place, schedule) in chosen() {
            // With another seed each server has another half of the schedules.
            let seed = seed.wrapping_add(round);
            let options = RunOptions {
                seed,
                engine: engine(place, seed),
                span,
                ..RunOptions::default()
            };
            let outcome = run(schedule, &options);
            println!("{}", outcome.line());
            if !outcome.verdict.is_clean() {
                print!("{}", outcome.evidence());
            }
            sum.runs += 1;
            sum.verdict.add(&outcome.verdict);
            if schedule.name.starts_with("health") {
                sum.health.add(&outcome.verdict);
            }
        }
        round += 1;
    }
    sum
}

fn row(topology: &Topology, sum: &Sum) -> String {
    let verdict = &sum.verdict;
    format!(
        "| {} | {} | {} | {} % | {:.3} ms | {:.3} ms | {:.3} ms | {} |",
        topology.name,
        sum.runs,
        verdict.reads,
        percent(verdict.concurrent, verdict.reads),
        as_millis(sum.health.staleness.percentile(99)),
        as_millis(verdict.staleness.percentile(99)),
        as_millis(verdict.staleness.highest()),
        counts(verdict)
    )
}

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| {
        text.parse().unwrap_or_else(|_| {
            e2e::environment::unusable(&format!("{variable} is no number: {text}"))
        })
    })
}
