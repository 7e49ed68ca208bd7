//! Single figures beside the rounds: the cost of many rules, memory, and the time until ready.

use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use crate::failure::{Failure, Outcome};
use crate::load::{KEYS, Keys, VALUE_BYTES};
use crate::process::{Process, free_port, raise_file_limit};
use crate::redis::{Client, Reply, key};
use crate::rounds::{Plan, Row, Spread, alternate};
use crate::sidecar::{Settings, Sidecar};
use crate::target::{Lab, MATCHED, UNMATCHED, start_redis};

/// Connections of the idle measurement.
const IDLE_CONNECTIONS: usize = 10_000;
/// Starts of the start measurement.
const STARTS: usize = 21;

/// Hit and pass-through with few and with many rules, at a depth where the matcher shows.
pub fn matcher(lab: &Lab, plan: Plan) -> Outcome<Vec<Row>> {
    let mut targets = Vec::new();
    for (verb, prefix) in [("hit", MATCHED), ("pass-through", UNMATCHED)] {
        for rules in [10, 1000] {
            let settings = Settings {
                rules,
                ..Settings::new(lab.backend, lab.target_core)
            };
            let label = format!("pannier {verb}, {rules} rules");
            targets.push(lab.start_sidecar(&label, &settings, prefix)?);
        }
    }
    alternate(lab, &targets, Keys::Random, 50, plan)
}

/// Resident bytes without and with idle connections.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// One second after the start, no connection from any app.
    pub alone: u64,
    /// With 10,000 connections that have each been served one command.
    pub crowded: u64,
    /// redis-server, the same two figures.
    pub redis: (u64, u64),
}

/// Measures an idle sidecar and an idle redis-server.
pub fn idle(lab: &Lab) -> Outcome<Idle> {
    raise_file_limit(IDLE_CONNECTIONS as u64 + 2_100)?;
    let settings = Settings::new(lab.backend, lab.target_core);
    let mut sidecar = Sidecar::start("idle", lab.binary()?, &settings, &lab.folder)?;
    let (alone, crowded) = crowd(&mut sidecar.process, sidecar.port)?;
    drop(sidecar);
    let (mut redis, port) = start_redis("idle-redis", &lab.tools, &lab.folder, lab.target_core)?;
    let redis = crowd(&mut redis, port)?;
    Ok(Idle {
        alone,
        crowded,
        redis,
    })
}

fn crowd(process: &mut Process, port: u16) -> Outcome<(u64, u64)> {
    settle();
    process.check_alive()?;
    let alone = process.resident()?;
    let mut clients = Vec::with_capacity(IDLE_CONNECTIONS);
    for n in 0..IDLE_CONNECTIONS {
        // A reply to a command on each shows that the server holds it, not only the kernel.
        let mut client = Client::connect(port)?;
        match client.call(&["GET", &key(MATCHED, n as u32)])? {
            Reply::Bulk(_) | Reply::Nothing => clients.push(client),
            Reply::Line(answer) => {
                let request = format!("GET on idle connection {n}");
                return Err(Failure::Answer { request, answer });
            }
        }
    }
    settle();
    Ok((alone, process.resident()?))
}

/// Memory is looked at a second after the last command: what a process gives back at once is not
/// counted, what it keeps is.
fn settle() {
    sleep(Duration::from_secs(1));
}

/// From start to the first 200 of `/ready`, ms, with nothing listening where Redis should be.
pub fn start(lab: &Lab) -> Outcome<Spread> {
    let nobody = free_port()?;
    if TcpStream::connect(("127.0.0.1", nobody)).is_ok() {
        return Err(Failure::Missing(format!("port {nobody} should be closed")));
    }
    let settings = Settings::new(nobody, lab.target_core);
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let sidecar = Sidecar::start("start", lab.binary()?, &settings, &lab.folder)?;
        times.push(sidecar.ready_after.as_secs_f64() * 1e3);
    }
    Spread::of(times).ok_or_else(|| Failure::Missing("no start succeeded".to_owned()))
}

/// Bytes per entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Growth of the sidecar's resident memory.
    pub resident: f64,
    /// What the sidecar itself counts, or why that could not be read.
    pub counted: Result<f64, String>,
    /// Entries it holds in the end, or why that could not be read.
    pub entries: Result<f64, String>,
    /// Growth of redis-server's resident memory.
    pub redis_resident: f64,
    /// Growth of redis-server's `used_memory`.
    pub redis_counted: f64,
}

/// Loads 100,000 entries into a sidecar and into a redis-server.
pub fn entry(lab: &Lab) -> Outcome<Entry> {
    let settings = Settings::new(lab.backend, lab.target_core);
    let sidecar = Sidecar::start("entry", lab.binary()?, &settings, &lab.folder)?;
    let mut client = Client::connect(sidecar.port)?;
    // Pass-through first: the buffers of the connection are not the entries' cost.
    client.read_all(UNMATCHED, KEYS)?;
    settle();
    let before = sidecar.process.resident()?;
    client.read_all(MATCHED, KEYS)?;
    client.read_all(MATCHED, KEYS)?;
    settle();
    let resident = per_key(sidecar.process.resident()?, before);
    let entries = sidecar.metric("pannier_cache_entries");
    let bytes = sidecar.metric("pannier_cache_memory_used_bytes");
    let counted = match (&entries, bytes) {
        (Ok(entries), Ok(bytes)) => Ok(bytes / entries.max(1.0)),
        (Err(failure), _) => Err(failure.to_string()),
        (_, Err(failure)) => Err(failure.to_string()),
    };
    drop(sidecar);

    let (redis, port) = start_redis("entry-redis", &lab.tools, &lab.folder, lab.target_core)?;
    let mut client = Client::connect(port)?;
    client.load(UNMATCHED, 1000, VALUE_BYTES)?;
    client.call(&["FLUSHALL", "SYNC"])?;
    settle();
    let (before, used) = (redis.resident()?, client.used_memory()?);
    client.load(MATCHED, KEYS, VALUE_BYTES)?;
    settle();
    Ok(Entry {
        resident,
        counted,
        entries: entries.map_err(|failure| failure.to_string()),
        redis_resident: per_key(redis.resident()?, before),
        redis_counted: per_key(client.used_memory()?, used),
    })
}

fn per_key(after: u64, before: u64) -> f64 {
    (after as f64 - before as f64) / f64::from(KEYS)
}
