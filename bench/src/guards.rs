//! What the guards of coherence cost a hit: the sidecar beside a build without them.
//!
//! The two differ by a few instructions, far less than what two starts of the *same* build differ
//! by: where the kernel puts the heap, and whether in huge pages, is drawn anew for each process. So
//! both are started many times, in pairs, and the ratio is that of the medians of all starts. It
//! settles nothing below a few per cent; the instructions per hit, counted by valgrind, do.

use std::path::Path;
use std::time::Duration;

use crate::failure::{Failure, Outcome};
use crate::load::{Keys, Load};
use crate::redis::Client;
use crate::rounds::{Spread, calibrate, load, measure};
use crate::sidecar::{Settings, Sidecar};
use crate::target::{Kind, Lab, MATCHED, Target};

/// The depth of the goal.
const PIPELINE: u32 = 50;
/// Starts of each build.
pub const STARTS: usize = 10;
/// Rounds of each process.
const ROUNDS: usize = 3;
/// Length of a round.
const LENGTH: Duration = Duration::from_millis(300);
/// How long all of it takes.
pub const SECONDS: f64 = 110.0;
/// Hits between two counts of instructions.
const COUNTED: u64 = 100_000;

/// A figure of the sidecar as it ships, and of the build without guards.
#[derive(Clone, Copy, Debug)]
pub struct Pair<T> {
    /// With guards.
    pub with: T,
    /// Without.
    pub without: T,
}

/// What was measured.
#[derive(Debug)]
pub struct Guards {
    /// µs of CPU per hit of one hot key; the spread is that of the starts.
    pub hot: Pair<Spread>,
    /// The same for random keys.
    pub random: Pair<Spread>,
    /// Instructions of the process per hit of one hot key, or why they were not counted.
    pub instructions: Result<Pair<f64>, String>,
}

impl Pair<Spread> {
    /// The median of the starts over that of the other build.
    pub fn ratio(&self) -> f64 {
        self.with.median / self.without.median
    }
}

/// Measures both builds.
pub fn guards(lab: &Lab) -> Outcome<Guards> {
    let mut redis = Client::connect(lab.backend)?;
    let mut hot = Starts::default();
    let mut random = Starts::default();
    for start in 0..STARTS {
        let pair = Pair {
            with: lab.start(Kind::Hit)?,
            without: lab.start(Kind::Unguarded)?,
        };
        for (keys, starts) in [(Keys::Hot, &mut hot), (Keys::Random, &mut random)] {
            let cpu = rounds(lab, &pair, keys, start % 2 == 0, &mut redis)?;
            starts.with.push(cpu.with);
            starts.without.push(cpu.without);
        }
    }
    let instructions = instructions(lab).map_err(|failure| failure.to_string());
    Ok(Guards {
        hot: hot.spread()?,
        random: random.spread()?,
        instructions,
    })
}

/// One figure per start.
#[derive(Default)]
struct Starts {
    with: Vec<f64>,
    without: Vec<f64>,
}

impl Starts {
    fn spread(self) -> Outcome<Pair<Spread>> {
        let none = || Failure::Missing("no start of the sidecar was measured".to_owned());
        Ok(Pair {
            with: Spread::of(self.with).ok_or_else(none)?,
            without: Spread::of(self.without).ok_or_else(none)?,
        })
    }
}

/// The median CPU of each of two processes in alternating rounds, µs per hit.
fn rounds(
    lab: &Lab,
    pair: &Pair<Target>,
    keys: Keys,
    with_first: bool,
    redis: &mut Client,
) -> Outcome<Pair<f64>> {
    let requests = calibrate(lab, &pair.with, keys, PIPELINE, LENGTH)?;
    calibrate(lab, &pair.without, keys, PIPELINE, LENGTH)?;
    let mut run = |target: &Target| {
        let load = load(lab, target, keys, PIPELINE, requests);
        let sample = measure(lab, target, &load, redis)?;
        if sample.hits < 0.99 {
            return Err(Failure::Missing(format!(
                "{}: only {:.1} % hits",
                target.label,
                sample.hits * 100.0
            )));
        }
        Ok(sample.cpu)
    };
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        if with_first {
            with.push(run(&pair.with)?);
        }
        without.push(run(&pair.without)?);
        if !with_first {
            with.push(run(&pair.with)?);
        }
    }
    let none = || Failure::Missing("no rounds".to_owned());
    Ok(Pair {
        with: Spread::of(with).ok_or_else(none)?.median,
        without: Spread::of(without).ok_or_else(none)?.median,
    })
}

// === instructions ===

/// Instructions per hit of both builds.
fn instructions(lab: &Lab) -> Outcome<Pair<f64>> {
    let unguarded = lab.unguarded.clone().map_err(Failure::Missing)?;
    Ok(Pair {
        with: per_hit(lab, "with guards", lab.binary()?)?,
        without: per_hit(lab, "without guards", &unguarded)?,
    })
}

/// Two lives of one build that differ only in how many hits they serve: what their instructions
/// differ by is the hits'.
fn per_hit(lab: &Lab, what: &str, binary: &Path) -> Outcome<f64> {
    let fewer = life(lab, what, binary, COUNTED)?;
    let more = life(lab, what, binary, 3 * COUNTED)?;
    Ok((more - fewer) / (2 * COUNTED) as f64)
}

/// Instructions of a sidecar under valgrind from its start to its end, with so many hits between.
fn life(lab: &Lab, what: &str, binary: &Path, hits: u64) -> Outcome<f64> {
    let settings = Settings::new(lab.backend, lab.target_core);
    let name = format!("instructions-{}-{hits}", what.replace(' ', "-"));
    let mut launch = lab.tools.counting()?;
    launch.args.push(binary.display().to_string());
    let mut sidecar = Sidecar::launch(&name, launch, &settings, &lab.folder)?;
    let mut client = Client::connect(sidecar.port)?;
    client.read_all(MATCHED, 2)?;
    let load = Load {
        port: sidecar.port,
        prefix: MATCHED,
        keys: Keys::Hot,
        pipeline: PIPELINE,
        requests: hits,
        core: lab.load_core,
    };
    load.run(&lab.tools)?;
    let log = sidecar.process.finish()?;
    instructions_in(&log).ok_or_else(|| Failure::Answer {
        request: format!("{name} under valgrind"),
        answer: log.lines().next_back().unwrap_or_default().to_owned(),
    })
}

/// Reads `==pid== I   refs:      1,234,567`.
fn instructions_in(log: &str) -> Option<f64> {
    log.lines().find_map(|line| {
        let (head, count) = line.split_once("refs:")?;
        let is_total = head.trim_end().ends_with(" I");
        let digits: String = count.chars().filter(char::is_ascii_digit).collect();
        is_total.then(|| digits.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_what_valgrind_says_at_the_end() {
        let log = "==7== \n==7== I   refs:      3,146,072\n==7== LL refs: 5\n";
        assert_eq!(instructions_in(log), Some(3_146_072.0));
        assert_eq!(instructions_in("{\"level\":\"info\"}\n"), None);
    }
}
