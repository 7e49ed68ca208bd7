//! One run: a schedule is played while clients work, then the history is judged.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    History, Op, Via,
    check::{Terms, Verdict, check},
    client::{Client, Common, Identity, Log},
    keys::{Key, Keyspace},
    report,
    schedule::Schedule,
    servers::Directory,
    stage::{MAX_STALENESS, Stage, StageOptions},
    workload::{self, Mix},
};
use crate::{Engine, random::Random};

/// How a schedule is run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Decides what is left to chance.
    pub seed: u64,
    /// Which server, unless the schedule needs a certain one.
    pub engine: Engine,
    /// How long faults happen.
    pub span: Duration,
    /// Another sidecar program than the usual one.
    pub program: Option<PathBuf>,
    /// Environment of the sidecars.
    pub environment: Vec<(String, String)>,
}

/// What a run brought.
pub struct Outcome {
    /// The schedule's name.
    pub schedule: &'static str,
    /// Which server it was.
    pub engine: Engine,
    /// The seed.
    pub seed: u64,
    /// What was logged.
    pub history: History,
    /// The judgement.
    pub verdict: Verdict,
    /// Errors that clients were answered with, by their first words.
    pub errors: BTreeMap<String, u64>,
    /// Reads that local tiers answered, of those sidecars that live.
    pub hits: u64,
    /// How long faults happened.
    pub span: Duration,
    /// How long it took, from starting servers to the judgement.
    pub took: Duration,
}

/// Runs one schedule.
pub fn run(schedule: &Schedule, options: &RunOptions) -> Outcome {
    let begun = Instant::now();
    let mut mix = Mix::default();
    (schedule.mix)(&mut mix);
    let mut stage_options = StageOptions {
        pods: 3,
        threads: 1,
        engine: options.engine,
        program: options.program.clone(),
        environment: options.environment.clone(),
        seed: options.seed,
        ..StageOptions::default()
    };
    (schedule.options)(&mut stage_options);
    let way = stage_options.way;
    let space = Keyspace::new(&way.tags());
    let mut stage = Stage::start(&stage_options, &space);
    let common = Common::new(space, Directory::of(way, &stage.servers));
    let span = options.span * schedule.times;
    stage.begin(&common, span);
    let cast = Cast::begin(&stage, &common, mix, options.seed);
    (schedule.faults)(&mut stage);
    stage.heal();
    let Log { mut ops, errors } = cast.end(&common);
    ops.extend(final_reads(&stage, &common, &mix));
    ops.append(&mut stage.log);
    let hits = stage
        .pods
        .iter()
        .map(|pod| pod.count("pannier_cache_requests_total", "result=\"hit\""))
        .sum();
    let history = History {
        registers: common.space.registers.clone(),
        ops,
        lossy: std::mem::take(&mut stage.lossy),
    };
    drop(stage);
    let terms = Terms {
        bound: u64::try_from(MAX_STALENESS.as_nanos()).unwrap_or(u64::MAX),
        ..Terms::default()
    };
    let verdict = check(&history, terms);
    Outcome {
        schedule: schedule.name,
        engine: stage_options.engine,
        seed: options.seed,
        history,
        verdict,
        errors,
        hits,
        span,
        took: begun.elapsed(),
    }
}

/// The clients of a run.
struct Cast {
    writers: Vec<JoinHandle<Log>>,
    readers: Vec<JoinHandle<Log>>,
}

impl Cast {
    /// Per sidecar two readers, a writer and a watcher for some keys; directly two writers and a
    /// reader.
    fn begin(stage: &Stage, common: &Arc<Common>, mix: Mix, seed: u64) -> Self {
        let mut number = 0;
        let mut seeds = Random::new(seed);
        let mut client = |via, address, resp3| {
            number += 1;
            let identity = Identity {
                client: number,
                via,
                address,
                resp3,
            };
            Client::new(identity, common, seeds.number())
        };
        let mut cast = Self {
            writers: Vec::new(),
            readers: Vec::new(),
        };
        for pod in &stage.pods {
            let via = Via::Pod(pod.number);
            let address = Some(pod.address());
            cast.reader(client(via, address, false), 16, mix);
            cast.reader(client(via, address, true), 4, mix);
            cast.writer(client(via, address, pod.number % 2 == 0), mix);
            // Who waits for one key reads no other: these go on while a link stalls.
            for key in workload::watched(&common.space, &mix) {
                cast.watcher(client(via, address, false), key);
            }
        }
        for _ in 0..2 {
            cast.writer(client(Via::Direct, None, false), mix);
        }
        cast.reader(client(Via::Direct, None, true), 2, mix);
        cast
    }

    fn reader(&mut self, mut client: Client, most: usize, mix: Mix) {
        self.readers.push(thread::spawn(move || {
            client.work(
                |common| &common.no_more_reads,
                |client| workload::read(client, most, &mix),
            );
            client.into_log()
        }));
    }

    fn watcher(&mut self, mut client: Client, key: Key) {
        self.readers.push(thread::spawn(move || {
            client.work(
                |common| &common.no_more_reads,
                |client| workload::watch(client, &key),
            );
            client.into_log()
        }));
    }

    fn writer(&mut self, mut client: Client, mix: Mix) {
        self.writers.push(thread::spawn(move || {
            client.work(
                |common| &common.no_more_writes,
                |client| workload::write(client, &mix),
            );
            client.into_log()
        }));
    }

    /// Writers end first. Whatever is stale then stays so for long enough to be seen.
    fn end(self, common: &Common) -> Log {
        let mut all = Log::default();
        common.no_more_writes.store(true, Relaxed);
        collect(self.writers, &mut all);
        thread::sleep(MAX_STALENESS + Duration::from_millis(100));
        common.no_more_reads.store(true, Relaxed);
        collect(self.readers, &mut all);
        all
    }
}

fn collect(clients: Vec<JoinHandle<Log>>, all: &mut Log) {
    for client in clients {
        let log = client.join().expect("a client ends without a panic");
        all.ops.extend(log.ops);
        for (error, count) in log.errors {
            *all.errors.entry(error).or_default() += count;
        }
    }
}

/// When all is over every sidecar shows what the server holds.
fn final_reads(stage: &Stage, common: &Arc<Common>, mix: &Mix) -> Vec<Op> {
    let mut ops = Vec::new();
    let pods = stage
        .pods
        .iter()
        .map(|pod| (Via::Pod(pod.number), Some(pod.address())));
    for ((via, address), client) in pods.chain([(Via::Direct, None)]).zip(900_u16..) {
        let identity = Identity {
            client,
            via,
            address,
            resp3: false,
        };
        let mut client = Client::new(identity, common, 0);
        let requests = workload::read_everything(&client, mix);
        assert!(client.ask(&requests), "{via} answers when all is over");
        ops.extend(client.into_log().ops);
    }
    ops
}

// === impl Outcome ===

impl Outcome {
    /// One line for a table.
    pub fn line(&self) -> String {
        let verdict = &self.verdict;
        format!(
            "{:<62} {:<9} {:>7} reads, {:>2} % during a write, {:>2} % local, {:>6} writes, staleness p99 {:>7.3} ms, most {:>7.3} ms, {:>4.1} s: {}",
            self.schedule,
            self.engine.name(),
            verdict.reads,
            percent(verdict.concurrent, verdict.reads),
            percent(self.hits, verdict.reads),
            verdict.writes,
            report::as_millis(verdict.staleness.percentile(99)),
            report::as_millis(verdict.staleness.highest()),
            self.took.as_secs_f64(),
            report::counts(verdict),
        )
    }

    /// The evidence, and how to see it again.
    pub fn evidence(&self) -> String {
        let mut text = format!(
            "schedule {:?} on {}, PANNIER_SEED={}, {} ms of faults\n",
            self.schedule,
            self.engine.name(),
            self.seed,
            self.span.as_millis()
        );
        for violation in &self.verdict.violations {
            text += &report::excerpt(&self.history, violation);
        }
        text
    }
}

/// `part` of `whole` in percent.
pub fn percent(part: u64, whole: u64) -> u64 {
    (part * 100).checked_div(whole).unwrap_or(0)
}
