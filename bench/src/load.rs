//! One run of `redis-benchmark`, a process of its own, and what it saw.

use crate::failure::{Failure, Outcome};
use crate::process::Core;
use crate::tools::Tools;

/// Connections of the load generator.
pub const CONNECTIONS: u32 = 50;
/// Keys that random requests are drawn from.
pub const KEYS: u32 = 100_000;
/// Bytes of every value.
pub const VALUE_BYTES: usize = 100;

/// Which keys are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Uniformly from all of them.
    Random,
    /// Always the same one.
    Hot,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Port on loopback.
    pub port: u16,
    /// What stands before the 12 digits of a key.
    pub prefix: &'static str,
    /// Which keys.
    pub keys: Keys,
    /// Commands per write.
    pub pipeline: u32,
    /// Commands in all.
    pub requests: u64,
    /// Core to run on.
    pub core: Core,
}

/// What the load generator saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Commands per second.
    pub rate: f64,
    /// Median latency of a whole pipeline, ms.
    pub p50: f64,
    /// 99th percentile of it, ms.
    pub p99: f64,
}

impl Load {
    /// Runs it to its end. An error reply ends `redis-benchmark` with a failure, so every command
    /// that was counted was answered.
    pub fn run(&self, tools: &Tools) -> Outcome<Seen> {
        let key = match self.keys {
            Keys::Random => format!("{}__rand_int__", self.prefix),
            Keys::Hot => format!("{}{:012}", self.prefix, 1),
        };
        let text = |number: u64| number.to_string();
        let launch = tools.load(
            &[
                "-h",
                "127.0.0.1",
                "-p",
                &text(self.port.into()),
                "-c",
                &text(CONNECTIONS.into()),
                "-P",
                &text(self.pipeline.into()),
                "-n",
                &text(self.requests),
                "-r",
                &text(KEYS.into()),
                "--csv",
                "GET",
                &key,
            ],
            self.core,
        );
        let output = launch
            .command()
            .output()
            .map_err(Failure::io("run redis-benchmark"))?;
        let printed = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let detail = format!("{printed}{}", String::from_utf8_lossy(&output.stderr));
            return Err(Failure::Program {
                program: "redis-benchmark".to_owned(),
                detail: detail.trim().replace('\n', " / "),
            });
        }
        parse(&printed)
    }
}

/// Reads the last line: test, rate, then latencies avg, min, p50, p95, p99, max in ms.
fn parse(csv: &str) -> Outcome<Seen> {
    let row = csv.trim_end().lines().next_back().unwrap_or_default();
    let fields: Vec<f64> = row
        .split(',')
        .skip(1)
        .map_while(|field| field.trim_matches('"').parse().ok())
        .collect();
    match fields[..] {
        [rate, _, _, p50, _, p99, _] => Ok(Seen { rate, p50, p99 }),
        _ => Err(Failure::Answer {
            request: "redis-benchmark".to_owned(),
            answer: csv.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_csv_line_gives_rate_and_percentiles() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
                   \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
                   \"GET k\",\"90909.09\",\"0.3\",\"0.1\",\"0.271\",\"0.4\",\"0.511\",\"2.0\"\n";
        let seen = parse(csv).unwrap();
        assert_eq!(
            seen,
            Seen {
                rate: 90909.09,
                p50: 0.271,
                p99: 0.511
            }
        );
    }

    #[test]
    fn a_line_without_figures_is_a_failure() {
        assert!(parse("ERROR: connection refused\n").is_err());
    }
}
