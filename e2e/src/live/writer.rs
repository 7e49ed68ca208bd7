//! A writer as an app is one: it knows `redis://localhost:6379`, keeps its connection until that breaks,
//! and remembers every write that was acknowledged.

use std::{
    collections::HashSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{App, Record};
use crate::{Value, wait};

/// Between two writes: the machine has other things to do as well.
const REST: Duration = Duration::from_millis(1);
/// No command of an app takes longer.
const ANSWER: Duration = Duration::from_secs(15);

/// A running writer.
pub struct Writer {
    app: App,
    prefix: String,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: JoinHandle<Record>,
}

impl Writer {
    /// Writes by way of the app's sidecar; waits for the first acknowledged writes.
    pub fn start(app: &App) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let prefix = format!("w{}", NEXT.fetch_add(1, Relaxed));
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let thread = {
            let (app, prefix) = (app.clone(), prefix.clone());
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            thread::spawn(move || write(&app, &prefix, &stop, &count))
        };
        let writer = Self {
            app: app.clone(),
            prefix,
            stop,
            count,
            thread,
        };
        writer.until_written(100);
        writer
    }

    /// Number of the last acknowledged write.
    pub fn written(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Waits until so many more writes were acknowledged.
    pub fn until_written(&self, more: u64) {
        let goal = self.count.load(Relaxed) + more;
        wait::until_true(&format!("{more} more writes are acknowledged"), || {
            thread::sleep(Duration::from_millis(10));
            self.count.load(Relaxed) >= goal
        });
    }

    /// Ends it and looks for everything that was acknowledged.
    pub fn stop(self) -> Record {
        self.stop.store(true, Relaxed);
        let mut record = self.thread.join().expect("the writer does not fail");
        record.lost = lost(&self.app, &self.prefix, &record);
        record
    }
}

fn write(app: &App, prefix: &str, stop: &AtomicBool, count: &AtomicU64) -> Record {
    let mut record = Record::default();
    let mut number = 0;
    let mut wire = None;
    while !stop.load(Relaxed) {
        let Some(connected) = &mut wire else {
            wire = app.connect(ANSWER).ok();
            thread::sleep(REST);
            continue;
        };
        number += 1;
        let told = match connected.try_call(&["SET", &key(prefix, number), &number.to_string()]) {
            Ok(reply) if reply == "OK" => {
                record.acknowledged.push((number, Instant::now()));
                count.store(number, Relaxed);
                None
            }
            Ok(refused) => Some(refused.text().chars().take(60).collect()),
            // Whether it was written is not known: it was not acknowledged.
            Err(error) => {
                wire = None;
                Some(error.kind().to_string())
            }
        };
        if let Some(error) = told {
            *record.errors.entry(error).or_default() += 1;
        }
        thread::sleep(REST);
    }
    record
}

fn key(prefix: &str, number: u64) -> String {
    format!("{prefix}:{number}")
}

/// Acknowledged writes that are not there.
fn lost(app: &App, prefix: &str, record: &Record) -> Vec<(u64, Instant)> {
    let mut there = HashSet::new();
    for some in record.acknowledged.chunks(1000) {
        let values = wait::until("everything can be read", || {
            thread::sleep(Duration::from_millis(20));
            read(app, prefix, some).ok()
        });
        let found = some.iter().zip(values);
        let is = |number: u64| Value::Bulk(number.to_string().into_bytes());
        let found = found.filter(|((number, _), value)| *value == is(*number));
        there.extend(found.map(|((number, _), _)| *number));
    }
    let all = record.acknowledged.iter();
    all.filter(|(number, _)| !there.contains(number))
        .copied()
        .collect()
}

fn read(app: &App, prefix: &str, some: &[(u64, Instant)]) -> io::Result<Vec<Value>> {
    let keys = some.iter().map(|(number, _)| key(prefix, *number));
    let words: Vec<String> = std::iter::once("MGET".to_owned()).chain(keys).collect();
    match app.connect(ANSWER)?.try_call(&words)? {
        Value::Array(values) => Ok(values),
        refused => Err(io::Error::other(refused.text())),
    }
}
