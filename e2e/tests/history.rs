//! The history checker's short form: every fault schedule for a second or some. `make soak` is the long
//! one; docs/checker.md says what is checked.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use e2e::{
    history::{
        check::Verdict,
        report,
        run::{RunOptions, percent, run},
        schedule::{STANDALONE, Schedule, cluster, engine, sentinel},
        stage::MAX_STALENESS,
    },
    random::Random,
};

/// Reads that the short form judges at least.
const READS: u64 = 200_000;

#[test]
fn p1_p2_p3_no_schedule_of_faults_breaks_a_promise_with_one_server() {
    judge(STANDALONE);
}

#[test]
fn p1_p2_p3_no_schedule_of_faults_breaks_a_promise_with_sentinels() {
    judge(sentinel::SCHEDULES);
}

#[test]
fn p1_p2_p3_no_schedule_of_faults_breaks_a_promise_in_a_cluster() {
    judge(cluster::SCHEDULES);
}

/// One after the other: each has dozens of clients.
static TURN: Mutex<()> = Mutex::new(());

fn judge(schedules: &[Schedule]) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = Random::seed("PANNIER_SEED");
    let only = std::env::var("PANNIER_SCHEDULE").unwrap_or_default();
    let span = std::env::var("PANNIER_SPAN_MS").map_or(1_000, |text| text.parse().unwrap());
    println!("PANNIER_SEED={seed}");
    let (mut sum, mut health) = (Verdict::default(), Verdict::default());
    let mut broken = String::new();
    let places = schedules.iter().enumerate();
    for (place, schedule) in places.filter(|(_, one)| one.name.contains(&only)) {
        let options = RunOptions {
            seed,
            engine: engine(place, seed),
            span: Duration::from_millis(span),
            ..RunOptions::default()
        };
        let outcome = run(schedule, &options);
        println!("{}", outcome.line());
        assert!(
            outcome.hits > 0,
            "{}: the local tier never answered; errors: {:?}",
            schedule.name,
            outcome.errors
        );
        if !outcome.verdict.is_clean() {
            broken += &outcome.evidence();
        }
        sum.add(&outcome.verdict);
        if schedule.name.starts_with("health") {
            health.add(&outcome.verdict);
        }
    }
    println!(
        "{} reads, {} % during a write; staleness p99 {:.3} ms in health, {:.3} ms under faults, at most {:.3} ms of {} ms",
        sum.reads,
        percent(sum.concurrent, sum.reads),
        report::as_millis(health.staleness.percentile(99)),
        report::as_millis(sum.staleness.percentile(99)),
        report::as_millis(sum.staleness.highest()),
        MAX_STALENESS.as_millis(),
    );
    assert!(sum.is_clean(), "{}\n{broken}", report::counts(&sum));
    if only.is_empty() {
        assert!(sum.reads >= READS, "only {} reads were judged", sum.reads);
        let concurrent = percent(sum.concurrent, sum.reads);
        assert!(concurrent >= 10, "{concurrent} % of them during a write");
    }
}
