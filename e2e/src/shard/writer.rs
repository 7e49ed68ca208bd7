//! A writer that keeps its connection until it breaks, as a pooled client does, and remembers every
//! write that was acknowledged, and when.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{MASTER, Shard};
use crate::{Value, Wire, wait};

/// A running writer.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Record>,
}

/// What it wrote.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Numbers of the acknowledged writes, and when they were.
    pub acknowledged: Vec<(u64, Instant)>,
    /// Errors that the writer was told, by their first word.
    pub errors: Vec<String>,
}

impl Writer {
    /// Writes as `default` with its first password to whom the Sentinels name.
    pub fn start(shard: &Shard) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sentinels = shard.sentinels().map(|number| shard.address(number));
        let sentinels: Vec<SocketAddr> = sentinels.collect();
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || write(&sentinels, &stopped));
        Self { stop, thread }
    }

    /// Ends it.
    pub fn stop(self) -> Record {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("the writer does not fail")
    }
}

fn primary(sentinels: &[SocketAddr]) -> Option<Wire> {
    for sentinel in sentinels {
        let Some(mut wire) = log_in(*sentinel) else {
            continue;
        };
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
        let Ok(Value::Array(address)) = wire.try_call(&words) else {
            continue;
        };
        let [host, port] = address.as_slice() else {
            continue;
        };
        let address = format!("{}:{}", host.text(), port.text()).parse();
        if let Some(wire) = address.ok().and_then(log_in) {
            return Some(wire);
        }
    }
    None
}

fn log_in(address: SocketAddr) -> Option<Wire> {
    let mut wire = Wire::try_connect(address).ok()?;
    // As a client that gives a server up.
    wire.patience(Duration::from_secs(1));
    let reply = wire.try_call(&["AUTH", "default", "default-first"]).ok()?;
    (reply == "OK").then_some(wire)
}

fn write(sentinels: &[SocketAddr], stop: &AtomicBool) -> Record {
    let mut record = Record::default();
    let mut wire = None;
    let mut number = 0;
    while !stop.load(Relaxed) {
        let Some(connected) = &mut wire else {
            wire = primary(sentinels);
            if wire.is_none() {
                thread::sleep(Duration::from_millis(5));
            }
            continue;
        };
        match connected.try_call(&["SET", &format!("w:{number}"), &number.to_string()]) {
            Ok(reply) if reply == "OK" => {
                record.acknowledged.push((number, Instant::now()));
                number += 1;
            }
            Ok(refused) => {
                let text = refused.to_string();
                let word = text.split(' ').next().unwrap_or_default().to_owned();
                // Refused for the moment: the same connection, as a pooled client would.
                if !word.starts_with("-NOREPLICAS") {
                    wire = None;
                }
                record.errors.push(word);
                thread::sleep(Duration::from_millis(2));
            }
            // Whether it was written is not known: it was not acknowledged.
            Err(error) => {
                record.errors.push(error.kind().to_string());
                number += 1;
                wire = None;
            }
        }
    }
    record
}

impl Record {
    /// The longest time between two acknowledged writes.
    pub fn longest_pause(&self) -> Duration {
        let pairs = self.acknowledged.windows(2);
        pairs
            .map(|two| two[1].1 - two[0].1)
            .max()
            .unwrap_or_default()
    }

    /// Acknowledged writes that a server does not have.
    pub fn lost(&self, shard: &Shard, primary: usize) -> Vec<(u64, Instant)> {
        let mut wire = shard.operator(primary);
        wire.patience(wait::PATIENCE);
        let mut has = HashSet::new();
        for some in self.acknowledged.chunks(1000) {
            let keys = some.iter().map(|(number, _)| format!("w:{number}"));
            let words: Vec<String> = std::iter::once("MGET".to_owned()).chain(keys).collect();
            let values = wire.call(&words);
            let found = some.iter().zip(values.items());
            let found = found.filter(|(_, value)| **value != Value::NullBulk);
            has.extend(found.map(|((number, _), _)| *number));
        }
        let lost = self
            .acknowledged
            .iter()
            .filter(|(number, _)| !has.contains(number));
        lost.copied().collect()
    }

    /// One line about it.
    pub fn summary(&self) -> String {
        let mut errors = self.errors.clone();
        errors.sort_unstable();
        let total = errors.len();
        errors.dedup();
        format!(
            "{} writes acknowledged, longest pause {:?}, {total} errors {errors:?}",
            self.acknowledged.len(),
            self.longest_pause()
        )
    }
}
