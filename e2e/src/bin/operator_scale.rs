//! `operator-scale`: 1000 tiers on a real API server without nodes, reconciled by the operator as
//! users run it, and what that takes. Fails where a goal is missed.

use std::{process::ExitCode, time::Duration};

use e2e::{
    kubernetes::{ControlPlane, apply_crds},
    scale::{Amount, Figures, measure},
};

const AMOUNT: Amount = Amount {
    none: 500,
    external: 300,
    standalone: 200,
};
/// Goals: until all are settled; most resident memory; until one change has arrived.
const SETTLED: Duration = Duration::from_mins(2);
const RESIDENT: u64 = 96 << 20;
const CHANGE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let plane = match ControlPlane::start() {
        Ok(plane) => plane,
        Err(why) => {
            println!("operator-scale cannot run: {why}");
            return ExitCode::FAILURE;
        }
    };
    println!("{AMOUNT:?}, about three minutes");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let figures = runtime.block_on(async {
        apply_crds(&plane.client().await).await;
        measure(&plane, AMOUNT, None).await
    });
    let Figures {
        settled,
        resident,
        cpu,
        change,
    } = figures;
    let mut met = true;
    let mut line = |what: &str, measured: String, goal: String, good: bool| {
        met &= good;
        let verdict = if good { "met" } else { "missed" };
        println!("| {what} | {measured} | {goal} | {verdict} |");
    };
    println!("| what | measured | goal | |\n|---|--:|--:|---|");
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    line(
        "all tiers settled",
        seconds(settled),
        seconds(SETTLED),
        settled <= SETTLED,
    );
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    line(
        "most resident memory of the operator",
        mib(resident),
        mib(RESIDENT),
        resident <= RESIDENT,
    );
    line(
        "one change, the slowest of 20",
        seconds(change),
        seconds(CHANGE),
        change <= CHANGE,
    );
    println!(
        "then nothing was written for 30 s; CPU time of the operator until all were settled: {}",
        seconds(cpu)
    );
    if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
