//! `pannier-bench`: CPU time per command of the sidecar, Redis and other proxies, side by side.
//!
//! It measures and prints; it asserts nothing about time. Method and limits: `bench/README.md`.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of commands and bytes lie far below 2^52, and rates are positive"
)]

mod cluster;
mod failure;
mod guards;
mod load;
mod machine;
mod probes;
mod process;
mod redis;
mod report;
mod rounds;
mod sidecar;
mod target;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use failure::{Failure, Outcome};
use load::Keys;
use process::{Core, Folder};
use report::Results;
use rounds::{Plan, alternate};
use target::{Kind, Lab, Target};
use tools::Tools;

const README: &str = "README.md";
const LATEST: &str = "bench/results/latest.md";

/// Measures CPU time per command of the sidecar, Redis and other proxies, side by side.
#[derive(Debug, Parser)]
struct Options {
    /// Two rounds of half a second: a look, not a result.
    #[arg(long)]
    quick: bool,
    /// Rounds per target and pipeline: many short ones, because what else a machine does comes and goes.
    #[arg(long, default_value_t = 13)]
    rounds: usize,
    /// Length of a round in seconds.
    #[arg(long, default_value_t = 0.8)]
    seconds: f64,
    /// Pipeline depths.
    #[arg(long, value_delimiter = ',', default_value = "1,16,50")]
    pipeline: Vec<u32>,
    /// Only these targets and parts.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Part>,
    /// The sidecar to measure instead of the one built beside the bench.
    #[arg(long)]
    sidecar: Option<PathBuf>,
    /// A sidecar built with `--features without-guards`, to measure what the guards of a hit cost.
    #[arg(long, default_value = "target/without-guards/release/pannier-sidecar")]
    unguarded: PathBuf,
    /// Pins no process; otherwise the process under test has core 0 and everything else core 1.
    #[arg(long)]
    no_pin: bool,
    /// Replaces the table in README.md; complete runs only.
    #[arg(long)]
    write_readme: bool,
}

/// What `--only` can name: a target of the rounds, or another part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Floor,
    Redis,
    Hit,
    Pass,
    Cluster,
    Prefix,
    Miss,
    Twemproxy,
    Envoy,
    /// One hot key, with the targets of the rounds that have one.
    Hot,
    /// 10 and 1,000 rules.
    Matcher,
    /// A hit beside one of a build without the guards of coherence.
    Guards,
    /// Memory without and with 10,000 connections.
    Idle,
    /// Start to ready.
    Start,
    /// Bytes per entry.
    Entry,
}

impl Part {
    fn kind(self) -> Option<Kind> {
        Some(match self {
            Self::Floor => Kind::Floor,
            Self::Redis => Kind::Redis,
            Self::Hit => Kind::Hit,
            Self::Pass => Kind::Pass,
            Self::Cluster => Kind::Cluster,
            Self::Prefix => Kind::Prefix,
            Self::Miss => Kind::Miss,
            Self::Twemproxy => Kind::Twemproxy,
            Self::Envoy => Kind::Envoy,
            Self::Hot | Self::Matcher | Self::Guards | Self::Idle | Self::Start | Self::Entry => {
                return None;
            }
        })
    }
}

impl Options {
    /// Whether the result may replace a published one.
    fn complete(&self) -> bool {
        let depths = [1, 16, 50]
            .iter()
            .all(|depth| self.pipeline.contains(depth));
        let long = !self.quick && self.rounds >= 9 && self.seconds >= 0.7;
        long && depths && self.only.is_empty()
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn pins(&self) -> bool {
        !self.no_pin && std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
    }

    fn kinds(&self) -> Vec<Kind> {
        let named: Vec<Kind> = self.only.iter().filter_map(|part| part.kind()).collect();
        Kind::ALL
            .into_iter()
            .filter(|kind| self.only.is_empty() || named.contains(kind))
            .collect()
    }

    fn plan(&self) -> Plan {
        if self.quick {
            Plan {
                rounds: 2,
                length: Duration::from_millis(500),
            }
        } else {
            Plan {
                rounds: self.rounds,
                length: Duration::from_secs_f64(self.seconds),
            }
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("pannier-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Outcome<()> {
    if options.write_readme && !options.complete() {
        let reason = "--write-readme needs a complete run: at least 9 rounds of 0.7 s, \
                      pipelines 1, 16 and 50, without --quick and --only";
        return Err(Failure::Missing(reason.to_owned()));
    }
    println!(
        "about {} minutes; parts can be chosen with --only",
        minutes(options)
    );
    let machine = machine::describe();
    let lab = open_lab(options)?;
    let mut results = Results {
        complete: options.complete(),
        ..Results::default()
    };
    measure_rounds(options, &lab, &mut results)?;
    measure_parts(options, &lab, &mut results);
    results.setting = setting(options, &lab, machine);

    let text = report::markdown(&results);
    println!("\n{text}");
    if options.complete() {
        fs::create_dir_all("bench/results").map_err(Failure::io("create bench/results"))?;
        fs::write(LATEST, &text).map_err(Failure::io(format!("write {LATEST}")))?;
        println!("written to {LATEST}");
    }
    if options.write_readme {
        write_readme(Path::new(README), &text)?;
        println!("written to {README}");
    }
    Ok(())
}

fn minutes(options: &Options) -> u64 {
    let plan = options.plan();
    let depths = options.pipeline.len() as f64;
    let targets = options.kinds().len() as f64;
    let round = plan.length.as_secs_f64() + 0.1;
    let all = plan.rounds as f64 * round + 0.5;
    let mut seconds = 5.0 + targets * (1.0 + depths * all);
    for (part, cost) in [
        (Part::Hot, targets.min(5.0) * depths * all),
        (Part::Matcher, 4.0 * (all + 1.0)),
        (Part::Guards, guards::SECONDS),
        (Part::Idle, 10.0),
        (Part::Start, 2.0),
        (Part::Entry, 7.0),
    ] {
        if options.wants(part) {
            seconds += cost;
        }
    }
    (seconds / 60.0).ceil() as u64
}

fn open_lab(options: &Options) -> Outcome<Lab> {
    let (target_core, load_core) = if options.pins() {
        (Core::Target, Core::Load)
    } else {
        (Core::Any, Core::Any)
    };
    let folder = Folder::create()?;
    let tools = Tools::prepare(folder.path())?;
    let (process, backend) = target::start_redis("backend", &tools, &folder, load_core)?;
    target::load_backend(backend)?;
    let sidecar = sidecar::binary(options.sidecar.clone()).map_err(|failure| failure.to_string());
    Ok(Lab {
        tools,
        folder,
        sidecar,
        unguarded: sidecar::binary(Some(options.unguarded.clone()))
            .map_err(|failure| failure.to_string()),
        target_core,
        load_core,
        backend,
        _backend: process,
    })
}

/// For the reader of the tables; after the rounds, because targets are fetched on first use.
fn setting(options: &Options, lab: &Lab, machine: String) -> Vec<String> {
    let plan = options.plan();
    let pinned = if options.pins() {
        "process under test on core 0, load generator and the Redis behind it on core 1"
    } else {
        "no process pinned to a core"
    };
    let mut lines = vec![
        machine,
        lab.tools.versions(),
        format!(
            "{} rounds of about {:.1} s, {pinned}; {} connections, {} keys of 21 B, values of {} B",
            plan.rounds,
            plan.length.as_secs_f64(),
            load::CONNECTIONS,
            load::KEYS,
            load::VALUE_BYTES,
        ),
    ];
    if let Ok(binary) = &lab.sidecar {
        lines.push(format!(
            "{}; 50 rules, tracking and metrics on",
            sidecar::version(binary)
        ));
    }
    lines
}

fn measure_rounds(options: &Options, lab: &Lab, results: &mut Results) -> Outcome<()> {
    let mut targets: Vec<(Kind, Target)> = Vec::new();
    for kind in options.kinds() {
        match lab.start(kind) {
            Ok(target) => targets.push((kind, target)),
            Err(failure) => {
                println!("  {}: {failure}", kind.label());
                results.absent.push(format!("{}: {failure}", kind.label()));
            }
        }
    }
    if targets.is_empty() {
        return Ok(());
    }
    let (kinds, mut targets): (Vec<Kind>, Vec<Target>) = targets.into_iter().unzip();
    for depth in &options.pipeline {
        println!("random keys, pipeline {depth}");
        results.random.extend(alternate(
            lab,
            &targets,
            Keys::Random,
            *depth,
            options.plan(),
        )?);
    }
    if !options.wants(Part::Hot) {
        return Ok(());
    }
    let hot = [
        Kind::Floor,
        Kind::Redis,
        Kind::Hit,
        Kind::Pass,
        Kind::Twemproxy,
    ];
    let mut wanted = kinds.iter().map(|kind| hot.contains(kind));
    targets.retain(|_| wanted.next().unwrap_or(false));
    for depth in &options.pipeline {
        println!("one hot key, pipeline {depth}");
        results
            .hot
            .extend(alternate(lab, &targets, Keys::Hot, *depth, options.plan())?);
    }
    Ok(())
}

/// The parts beside the rounds; a part that fails says why and the next one goes on.
fn measure_parts(options: &Options, lab: &Lab, results: &mut Results) {
    let say = |failure: Failure| failure.to_string();
    if options.wants(Part::Matcher) {
        println!("number of rules");
        results.matcher = Some(probes::matcher(lab, options.plan()).map_err(say));
    }
    if options.wants(Part::Guards) {
        println!("hits with and without the guards of coherence");
        results.guards = Some(guards::guards(lab).map_err(say));
    }
    if options.wants(Part::Idle) {
        println!("memory of an idle sidecar, without and with 10,000 connections");
        results.idle = Some(probes::idle(lab).map_err(say));
    }
    if options.wants(Part::Start) {
        println!("start to ready with Redis down");
        results.start = Some(probes::start(lab).map_err(say));
    }
    if options.wants(Part::Entry) {
        println!("bytes per entry");
        results.entry = Some(probes::entry(lab).map_err(say));
    }
}

fn write_readme(path: &Path, report: &str) -> Outcome<()> {
    let name = path.display();
    let page = fs::read_to_string(path).map_err(Failure::io(format!("read {name}")))?;
    let page = report::insert(&page, report).ok_or_else(|| {
        Failure::Missing(format!(
            "{name} has no <!-- bench:begin --> and <!-- bench:end -->"
        ))
    })?;
    fs::write(path, page).map_err(Failure::io(format!("write {name}")))
}
