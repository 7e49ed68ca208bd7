//! The Markdown that the bench prints: tables, goals with what was measured beside them, machine.

use std::fmt::Write as _;

use crate::guards::{Guards, Pair, STARTS};
use crate::probes::{Entry, Idle};
use crate::rounds::{Row, Spread};

/// Everything one call measured. What was not asked for is `None`, what failed says why.
#[derive(Debug, Default)]
pub struct Results {
    /// Whether everything was asked for, so that what is missing has to be named.
    pub complete: bool,
    /// Machine, versions and settings, one line each.
    pub setting: Vec<String>,
    /// Targets that could not be started, with the reason.
    pub absent: Vec<String>,
    /// Random keys.
    pub random: Vec<Row>,
    /// One hot key.
    pub hot: Vec<Row>,
    /// 10 and 1,000 rules.
    pub matcher: Option<Result<Vec<Row>, String>>,
    /// Hits with and without guards.
    pub guards: Option<Result<Guards, String>>,
    /// Idle memory.
    pub idle: Option<Result<Idle, String>>,
    /// Start to ready, ms.
    pub start: Option<Result<Spread, String>>,
    /// Bytes per entry.
    pub entry: Option<Result<Entry, String>>,
}

const MIB: f64 = 1024.0 * 1024.0;
const FLOOR: &str = "floor";
const REDIS: &str = "redis-server";
const HIT: &str = "pannier hit";
const PASS: &str = "pannier pass-through";
const CLUSTER: &str = "pannier pass-through, 3 shards";
const TWEMPROXY: &str = "twemproxy";

/// The whole report.
pub fn markdown(results: &Results) -> String {
    let mut text = String::new();
    for line in &results.setting {
        let _ = writeln!(text, "- {line}");
    }
    for line in &results.absent {
        let _ = writeln!(text, "- Not measured: {line}");
    }
    if !results.random.is_empty() {
        text.push_str("\n**GET of random keys**\n\n");
        table(&mut text, &results.random);
    }
    if !results.hot.is_empty() {
        text.push_str("\n**GET of one hot key**\n\n");
        table(&mut text, &results.hot);
    }
    match &results.matcher {
        Some(Ok(rows)) => {
            text.push_str("\n**Number of rules**\n\n");
            table(&mut text, rows);
        }
        Some(Err(reason)) => drop(writeln!(text, "\nNumber of rules: not measured, {reason}")),
        None => {}
    }
    match &results.guards {
        Some(Ok(guards)) => {
            text.push_str("\n**Guards of coherence**\n\n");
            guards_table(&mut text, guards);
        }
        Some(Err(reason)) => drop(writeln!(text, "\nGuards: not measured, {reason}")),
        None => {}
    }
    text.push_str("\n**Goals**\n\n");
    goals(&mut text, results);
    text
}

fn find<'a>(rows: &'a [Row], label: &str, pipeline: u32) -> Option<&'a Row> {
    rows.iter()
        .find(|row| row.label == label && row.pipeline == pipeline)
}

/// CPU of a row over that of another at the same depth: the median of the ratios within a round,
/// because the two runs of a round met the same machine.
fn ratio(rows: &[Row], label: &str, over: &str, pipeline: u32) -> Option<f64> {
    let (row, over) = (find(rows, label, pipeline)?, find(rows, over, pipeline)?);
    let rounds = row.samples.iter().zip(&over.samples);
    Spread::of(rounds.map(|(sample, over)| sample.cpu / over.cpu)).map(|spread| spread.median)
}

fn table(text: &mut String, rows: &[Row]) {
    text.push_str(
        "| target | pipeline | µs of CPU per command, median (min–max) | × floor | × twemproxy \
         | commands/s | p50 ms | p99 ms | hits | resident MiB |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        let (label, pipeline) = (&row.label, row.pipeline);
        let Some(cpu) = row.spread(|sample| sample.cpu) else {
            let reason = row.failure.as_deref().unwrap_or("no rounds");
            let reason = reason.replace('|', "/");
            let _ = writeln!(
                text,
                "| {label} | {pipeline} | failed: {reason} | | | | | | | |"
            );
            continue;
        };
        let times = |over| {
            ratio(rows, label, over, pipeline).map_or(String::new(), |ratio| format!("{ratio:.2}"))
        };
        let median = |spread: Option<Spread>| spread.map_or(f64::NAN, |spread| spread.median);
        let hits = if row.caches {
            format!("{:.1} %", median(row.spread(|sample| sample.hits)) * 100.0)
        } else {
            String::new()
        };
        let _ = writeln!(
            text,
            "| {label} | {pipeline} | {} | {} | {} | {:.0} | {:.3} | {:.3} | {hits} | {:.1} |",
            spread(cpu),
            times(FLOOR),
            times(TWEMPROXY),
            median(row.spread(|sample| sample.seen.rate)),
            median(row.spread(|sample| sample.seen.p50)),
            median(row.spread(|sample| sample.seen.p99)),
            row.resident as f64 / MIB,
        );
    }
}

fn guards_table(text: &mut String, guards: &Guards) {
    text.push_str(
        "| a hit at pipeline 50 | with | without | ratio |\n\
         |---|--:|--:|--:|\n",
    );
    for (what, cpu) in [
        ("random keys", &guards.random),
        ("one hot key", &guards.hot),
    ] {
        let (with, without, ratio) = (spread(cpu.with), spread(cpu.without), cpu.ratio());
        let _ = writeln!(
            text,
            "| µs of CPU, {what}, median (min–max) of {STARTS} starts | {with} | {without} | {ratio:.2} |"
        );
    }
    match &guards.instructions {
        Ok(Pair { with, without }) => {
            let ratio = with / without;
            let _ = writeln!(
                text,
                "| instructions of the process, one hot key | {with:.0} | {without:.0} | {ratio:.2} |"
            );
        }
        Err(reason) => drop(writeln!(text, "\nInstructions: not counted, {reason}")),
    }
}

fn spread(Spread { low, median, high }: Spread) -> String {
    // Two figures that matter at any depth: 7.40 and 0.171.
    let digits = if median < 1.0 { 3 } else { 2 };
    format!("{median:.digits$} ({low:.digits$}–{high:.digits$})")
}

/// The goals' table.
struct Goals<'a> {
    text: &'a mut String,
    complete: bool,
}

impl Goals<'_> {
    /// One line: the goal, what was measured, and whether that meets it.
    fn line(&mut self, goal: &str, measured: Option<(String, bool)>) {
        let (measured, mark) = match measured {
            Some((measured, true)) => (measured, "met"),
            Some((measured, false)) => (measured, "**missed**"),
            None if self.complete => ("not measured".to_owned(), ""),
            None => return,
        };
        let _ = writeln!(self.text, "| {goal} | {measured} | {mark} |");
    }
}

fn goals(text: &mut String, results: &Results) {
    text.push_str("| goal | measured | |\n|---|---|---|\n");
    let mut goals = Goals {
        text,
        complete: results.complete,
    };
    let at_most = |label, over, pipeline, most: f64| {
        let random = ratio(&results.random, label, over, pipeline)?;
        let hot = ratio(&results.hot, label, over, pipeline);
        let hot = hot.map_or(String::new(), |hot| format!(" (one hot key {hot:.2} ×)"));
        let row = find(&results.random, label, pipeline)?;
        let hits = row.spread(|sample| sample.hits)?.median;
        // What is cheap because it is not a hit does not meet a goal for hits.
        if row.caches && hits < 0.99 {
            return Some((
                format!("{random:.2} ×, but {:.1} % hits", hits * 100.0),
                false,
            ));
        }
        Some((format!("{random:.2} ×{hot}"), random <= most))
    };
    goals.line(
        "hit ≤ 1.15 × floor at pipeline 1 (aim 1.10)",
        at_most(HIT, FLOOR, 1, 1.15),
    );
    goals.line(
        "hit ≤ redis-server at pipeline 1",
        at_most(HIT, REDIS, 1, 1.0),
    );
    goals.line(
        "hit ≤ 1.5 × floor at pipeline 16",
        at_most(HIT, FLOOR, 16, 1.5),
    );
    goals.line(
        "hit ≤ 2.5 × floor at pipeline 50",
        at_most(HIT, FLOOR, 50, 2.5),
    );
    goals.line(
        "pass-through ≤ 0.9 × twemproxy at pipeline 1",
        at_most(PASS, TWEMPROXY, 1, 0.9),
    );
    goals.line(
        "pass-through ≤ 0.6 × twemproxy at pipeline 16",
        at_most(PASS, TWEMPROXY, 16, 0.6),
    );
    for depth in [1, 16] {
        goals.line(
            &format!(
                "pass-through over a cluster of 3 shards ≤ 1.3 × standalone at pipeline {depth}"
            ),
            at_most(CLUSTER, PASS, depth, 1.3),
        );
    }
    let guards = results.guards.as_ref().and_then(|one| one.as_ref().ok());
    goals.line(
        "guards of coherence ≤ 5 % of a hit at pipeline 50",
        guards.map(guards_line),
    );
    for verb in ["hit", "pass-through"] {
        let same =
            matcher_ratio(results, verb).map(|ratio| (format!("{ratio:.2} ×"), ratio <= 1.05));
        goals.line(
            &format!("{verb} with 1,000 rules costs what it costs with 10 (≤ 1.05 ×)"),
            same,
        );
    }
    memory_and_start(&mut goals, results);
}

fn memory_and_start(goals: &mut Goals, results: &Results) {
    let idle = results.idle.as_ref().and_then(|idle| idle.as_ref().ok());
    let memory = |bytes: u64, redis: u64, most: f64| {
        let (bytes, redis) = (bytes as f64 / MIB, redis as f64 / MIB);
        (
            format!("{bytes:.1} MiB (redis-server {redis:.1})"),
            bytes <= most,
        )
    };
    goals.line(
        "idle ≤ 12 MiB resident",
        idle.map(|i| memory(i.alone, i.redis.0, 12.0)),
    );
    goals.line(
        "10,000 idle connections ≤ 60 MiB resident",
        idle.map(|i| memory(i.crowded, i.redis.1, 60.0)),
    );
    let start = results.start.as_ref().and_then(|start| start.as_ref().ok());
    goals.line(
        "start to ready ≤ 30 ms with Redis down",
        start.map(|s| (format!("{} ms", spread(*s)), s.median <= 30.0)),
    );
    let entry = results.entry.as_ref().and_then(|entry| entry.as_ref().ok());
    goals.line(
        "≤ 240 B per entry, 21 B key and 100 B value (aim 202)",
        entry.map(entry_line),
    );
    for (what, reason) in [
        (
            "idle memory",
            results.idle.as_ref().and_then(|idle| idle.as_ref().err()),
        ),
        (
            "start",
            results
                .start
                .as_ref()
                .and_then(|start| start.as_ref().err()),
        ),
        (
            "bytes per entry",
            results
                .entry
                .as_ref()
                .and_then(|entry| entry.as_ref().err()),
        ),
    ] {
        if let Some(reason) = reason {
            let _ = writeln!(goals.text, "\nFailed: {what}: {reason}");
        }
    }
}

/// The goal is one of CPU; the instructions say what part of it is the guards' own.
fn guards_line(guards: &Guards) -> (String, bool) {
    let (random, hot) = (guards.random.ratio(), guards.hot.ratio());
    let line = format!("{random:.2} × (one hot key {hot:.2} ×)");
    (line, random <= 1.05 && hot <= 1.05)
}

fn matcher_ratio(results: &Results, verb: &str) -> Option<f64> {
    let rows = results.matcher.as_ref()?.as_ref().ok()?;
    let many = format!("pannier {verb}, 1000 rules");
    ratio(rows, &many, &format!("pannier {verb}, 10 rules"), 50)
}

fn entry_line(entry: &Entry) -> (String, bool) {
    let own = |figure: &Result<f64, String>| match figure {
        Ok(number) => format!("{number:.0}"),
        Err(reason) => format!("unknown ({reason})"),
    };
    let line = format!(
        "{:.0} B resident, {} counted by itself, {} entries (redis-server {:.0} resident, {:.0} counted)",
        entry.resident,
        own(&entry.counted),
        own(&entry.entries),
        entry.redis_resident,
        entry.redis_counted,
    );
    // An entry that was not kept costs nothing: the figure counts only if all of them are there.
    let complete = entry
        .entries
        .as_ref()
        .is_ok_and(|entries| *entries >= 99_000.0);
    (line, complete && entry.resident <= 240.0)
}

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// Replaces what stands between the two markers of a page.
pub fn insert(page: &str, report: &str) -> Option<String> {
    let begin = page.find(BEGIN)? + BEGIN.len();
    let end = begin + page[begin..].find(END)?;
    Some(format!(
        "{}\n{}\n{}",
        &page[..begin],
        report.trim_end(),
        &page[end..]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Seen;
    use crate::rounds::Sample;

    fn row(label: &str, pipeline: u32, cpu: f64) -> Row {
        let seen = Seen {
            rate: 1000.0,
            p50: 0.1,
            p99: 0.2,
        };
        Row {
            label: label.to_owned(),
            pipeline,
            samples: vec![Sample {
                cpu,
                seen,
                hits: 1.0,
            }],
            caches: label == HIT,
            resident: 1 << 20,
            failure: None,
        }
    }

    #[test]
    fn a_goal_is_marked_met_missed_or_not_measured() {
        let random = vec![
            row(FLOOR, 1, 10.0),
            row(HIT, 1, 11.0),
            row(FLOOR, 16, 1.0),
            row(HIT, 16, 1.6),
        ];
        let text = markdown(&Results {
            complete: true,
            random,
            ..Results::default()
        });
        assert!(text.contains("| hit ≤ 1.15 × floor at pipeline 1 (aim 1.10) | 1.10 × | met |"));
        assert!(text.contains("| hit ≤ 1.5 × floor at pipeline 16 | 1.60 × | **missed** |"));
        assert!(text.contains("| hit ≤ 2.5 × floor at pipeline 50 | not measured |  |"));
    }

    #[test]
    fn a_hit_row_that_is_not_all_hits_meets_no_goal() {
        let mut hit = row(HIT, 1, 5.0);
        hit.samples[0].hits = 0.5;
        let random = vec![row(FLOOR, 1, 10.0), hit];
        let text = markdown(&Results {
            random,
            ..Results::default()
        });
        assert!(text.contains("(aim 1.10) | 0.50 ×, but 50.0 % hits | **missed** |"));
    }

    #[test]
    fn a_ratio_is_the_median_of_the_ratios_within_a_round() {
        let mut floor = row(FLOOR, 1, 1.0);
        let mut redis = row(REDIS, 1, 2.0);
        for (one, other) in [(10.0, 50.0), (20.0, 60.0)] {
            floor.samples.push(Sample {
                cpu: one,
                ..floor.samples[0]
            });
            redis.samples.push(Sample {
                cpu: other,
                ..redis.samples[0]
            });
        }
        assert_eq!(ratio(&[floor, redis], REDIS, FLOOR, 1), Some(3.0));
    }

    #[test]
    fn only_the_text_between_the_markers_is_replaced() {
        let page = "a\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nb\n";
        let new = insert(page, "new\n").unwrap();
        assert_eq!(new, "a\n<!-- bench:begin -->\nnew\n<!-- bench:end -->\nb\n");
        assert_eq!(insert("no markers", "new"), None);
    }
}
