//! Alternating rounds: every target gets one run per round, in an order that shifts from round to
//! round, so that a slow moment of the machine meets all of them.

use std::time::Duration;

use crate::failure::Outcome;
use crate::load::{CONNECTIONS, Keys, Load, Seen};
use crate::redis::Client;
use crate::target::{Lab, Target};

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds per target and pipeline.
    pub rounds: usize,
    /// Length of a round.
    pub length: Duration,
}

/// One round of one target.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// CPU of the process under test per command, µs.
    pub cpu: f64,
    /// What the load generator saw.
    pub seen: Seen,
    /// Share of commands for which Redis saw no `GET`.
    pub hits: f64,
}

/// All rounds of one target at one pipeline depth.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name of the target.
    pub label: String,
    /// Commands per write.
    pub pipeline: u32,
    /// The rounds.
    pub samples: Vec<Sample>,
    /// Whether the share of hits is worth reporting.
    pub caches: bool,
    /// Resident bytes after the last round.
    pub resident: u64,
    /// Why the rounds ended early.
    pub failure: Option<String>,
}

/// Median with its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Smallest.
    pub low: f64,
    /// Median.
    pub median: f64,
    /// Largest.
    pub high: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self { low, median, high })
    }
}

impl Row {
    /// A figure of all rounds.
    pub fn spread(&self, figure: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.iter().map(figure))
    }
}

/// Runs all rounds of all targets at one pipeline depth.
pub fn alternate(
    lab: &Lab,
    targets: &[Target],
    keys: Keys,
    pipeline: u32,
    plan: Plan,
) -> Outcome<Vec<Row>> {
    let mut redis = Client::connect(lab.backend)?;
    let mut requests = Vec::new();
    let mut rows = Vec::new();
    for target in targets {
        let found = calibrate(lab, target, keys, pipeline, plan.length);
        requests.push(*found.as_ref().unwrap_or(&0));
        rows.push(Row {
            label: target.label.clone(),
            pipeline,
            samples: Vec::new(),
            caches: target.caches,
            resident: 0,
            failure: found.err().map(|failure| failure.to_string()),
        });
    }
    for round in 0..plan.rounds {
        for turn in 0..targets.len() {
            let index = (turn + round) % targets.len();
            if rows[index].failure.is_some() {
                continue;
            }
            let load = load(lab, &targets[index], keys, pipeline, requests[index]);
            match measure(lab, &targets[index], &load, &mut redis) {
                Ok(sample) => rows[index].samples.push(sample),
                Err(failure) => rows[index].failure = Some(failure.to_string()),
            }
        }
    }
    for (row, target) in rows.iter_mut().zip(targets) {
        match target.process.resident() {
            Ok(bytes) => row.resident = bytes,
            Err(failure) => row.failure = Some(failure.to_string()),
        }
        announce(row);
    }
    Ok(rows)
}

fn announce(row: &Row) {
    let place = format!("  {:<32} pipeline {:<3}", row.label, row.pipeline);
    match (&row.failure, row.spread(|sample| sample.cpu)) {
        (None, Some(Spread { low, median, high })) => {
            println!("{place} {median:7.3} µs per command ({low:.3}–{high:.3})");
        }
        (Some(failure), _) => println!("{place} failed: {failure}"),
        (None, None) => println!("{place} no rounds"),
    }
}

/// So many commands for a target.
pub fn load(lab: &Lab, target: &Target, keys: Keys, pipeline: u32, requests: u64) -> Load {
    let (port, prefix, core) = (target.port, target.prefix, lab.load_core);
    Load {
        port,
        prefix,
        keys,
        pipeline,
        requests,
        core,
    }
}

/// A short run, not counted: finds how many commands fill a round, and warms the target up.
pub fn calibrate(
    lab: &Lab,
    target: &Target,
    keys: Keys,
    pipeline: u32,
    length: Duration,
) -> Outcome<u64> {
    let step = u64::from(CONNECTIONS * pipeline);
    let first = step * 400u64.div_ceil(u64::from(pipeline.min(8)));
    let seen = load(lab, target, keys, pipeline, first).run(&lab.tools)?;
    let wanted = (seen.rate * length.as_secs_f64()) as u64;
    // Whole writes on every connection, so that exactly this many commands are sent.
    Ok(wanted.div_ceil(step) * step)
}

/// One run with what it cost.
pub fn measure(lab: &Lab, target: &Target, load: &Load, redis: &mut Client) -> Outcome<Sample> {
    let (gets, cpu) = (redis.gets()?, target.process.cpu()?);
    let seen = load.run(&lab.tools)?;
    // A thread that ended in between takes its time with it; there is none in a steady state.
    let cpu = target.process.cpu()?.saturating_sub(cpu);
    let gets = redis.gets()? - gets;
    let requests = load.requests as f64;
    Ok(Sample {
        cpu: cpu.as_secs_f64() * 1e6 / requests,
        seen,
        hits: (1.0 - gets as f64 / requests).max(0.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_rounds_lies_between_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!(
            spread,
            Some(Spread {
                low: 1.0,
                median: 2.5,
                high: 4.0
            })
        );
        assert_eq!(
            Spread::of([7.0, 1.0, 2.0]).map(|spread| spread.median),
            Some(2.0)
        );
        assert_eq!(Spread::of([]), None);
    }
}
