//! The traffic: one connection writes a new key each time, another reads a few keys again and again.
//! Both do as a careful client does: a broken connection is made anew, a failed command is not
//! repeated, a value that is not there is written anew.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{Report, Tally, connect, millis};
use crate::{Value, Wire};

/// Between two writes.
const WRITE_REST: Duration = Duration::from_millis(10);
/// Between two reads.
const READ_REST: Duration = Duration::from_millis(5);
/// Before a connection is tried again.
const RECONNECT: Duration = Duration::from_millis(20);
/// Keys that are read.
const KEYS: u64 = 20;

/// Running traffic; it ends with the process.
#[derive(Clone)]
pub struct Traffic {
    address: String,
    name: String,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    report: Report,
    acknowledged: Vec<u64>,
    term: Option<Instant>,
}

enum Kind {
    Write,
    Read,
}

// === impl Traffic ===

impl Traffic {
    /// None yet. `name` is part of every key.
    pub fn new(address: &str, name: &str) -> Self {
        Self {
            address: address.to_owned(),
            name: name.to_owned(),
            shared: Arc::default(),
        }
    }

    /// Notes what became of the first command.
    pub fn note_first(&self, first: String, took: Duration) {
        let mut shared = self.shared();
        shared.report.first = first;
        shared.report.first_ms = millis(took);
    }

    /// Begins.
    pub fn start(&self) {
        let (writer, reader) = (self.clone(), self.clone());
        thread::spawn(move || writer.write());
        thread::spawn(move || reader.read());
    }

    /// From now on commands are counted as those after SIGTERM.
    pub fn terminate(&self) {
        self.shared().term = Some(Instant::now());
    }

    /// What was seen so far.
    pub fn report(&self) -> Report {
        let shared = self.shared();
        let mut report = shared.report.clone();
        report.writes = shared.report.writes.now();
        report.reads = shared.report.reads.now();
        report.farewell_ms = shared.term.map_or(0, |term| millis(term.elapsed()));
        report
    }

    /// Forgets what was counted.
    pub fn begin(&self) {
        let mut shared = self.shared();
        shared.acknowledged.clear();
        shared.report = Report {
            first: shared.report.first.clone(),
            first_ms: shared.report.first_ms,
            writes: Tally::begin(),
            reads: Tally::begin(),
            ..Report::default()
        };
    }

    /// How many acknowledged writes are not there.
    pub fn lost(&self) -> io::Result<usize> {
        let acknowledged = self.shared().acknowledged.clone();
        let mut wire = connect(&self.address)?;
        let mut lost = 0;
        for some in acknowledged.chunks(500) {
            let keys = some.iter().map(|number| self.written(*number));
            let words: Vec<String> = std::iter::once("MGET".to_owned()).chain(keys).collect();
            let Value::Array(values) = wire.try_call(&words)? else {
                return Err(io::Error::other("MGET was refused"));
            };
            let is = |number: u64| Value::Bulk(number.to_string().into_bytes());
            let pairs = some.iter().zip(values);
            let found = pairs.filter(|(number, value)| *value == is(**number));
            lost += some.len() - found.count();
        }
        Ok(lost)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self, number: u64) -> String {
        format!("w:{}:{number}", self.name)
    }

    fn write(&self) {
        let mut wire = None;
        for number in 1_u64.. {
            let text = number.to_string();
            let reply = self.call(&mut wire, &["SET", &self.written(number), &text]);
            let result = reply.and_then(|reply| expect(&reply, "OK"));
            if result.is_ok() {
                self.shared().acknowledged.push(number);
            }
            self.count(&Kind::Write, result);
            thread::sleep(WRITE_REST);
        }
    }

    fn read(&self) {
        let mut wire = None;
        for turn in 0_u64.. {
            let id = turn % KEYS;
            let (key, wanted) = (
                format!("product:{}-{id}", self.name),
                format!("number {id}"),
            );
            let result = match self.call(&mut wire, &["GET", &key]) {
                Ok(Value::NullBulk) => {
                    self.shared().report.missing += 1;
                    // A write: it may fail while Redis is away, and the read had its answer.
                    let _ = self.call(&mut wire, &["SET", &key, &wanted]);
                    Ok(())
                }
                Ok(reply) => expect(&reply, &wanted),
                Err(error) => Err(error),
            };
            self.count(&Kind::Read, result);
            thread::sleep(READ_REST);
        }
    }

    fn call(&self, wire: &mut Option<Wire>, words: &[&str]) -> Result<Value, String> {
        let connected = match wire {
            Some(connected) => connected,
            None => match connect(&self.address) {
                Ok(connected) => wire.insert(connected),
                Err(error) => {
                    thread::sleep(RECONNECT);
                    return Err(format!("connect: {}", error.kind()));
                }
            },
        };
        connected.try_call(words).map_err(|error| {
            *wire = None;
            format!("broken: {}", error.kind())
        })
    }

    fn count(&self, kind: &Kind, result: Result<(), String>) {
        let mut shared = self.shared();
        if shared.term.is_some() {
            shared.report.farewell.count(result.clone());
        }
        match kind {
            Kind::Write => shared.report.writes.count(result),
            Kind::Read => shared.report.reads.count(result),
        }
    }
}

fn expect(reply: &Value, wanted: &str) -> Result<(), String> {
    let text = reply.to_string();
    if text == wanted {
        return Ok(());
    }
    // Times and numbers would make each error one of its own.
    let text = text.chars().filter(|one| !one.is_ascii_digit());
    Err(text.take(120).collect())
}
