//! An app as users of Pannier write them, small enough to be looked into: it knows nothing but what
//! injection sets (`REDIS_URL`), writes and reads all the time, and counts what becomes of every
//! command. `e2e-app` is the program; tests read its [`Report`] over HTTP while it runs, and from
//! the pod's termination message when it has ended.

mod endpoint;
mod traffic;

use std::{
    collections::BTreeMap,
    io,
    net::{TcpStream, ToSocketAddrs as _},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::Wire;

pub use self::{endpoint::serve, traffic::Traffic};

/// Port of the report.
pub const PORT: u16 = 8000;
/// No command of an app takes longer.
const ANSWER: Duration = Duration::from_secs(15);
/// Variables that injection sets.
const REDIS_URL: &str = "REDIS_URL";

/// What an app has seen.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Report {
    /// What became of its very first command, sent as soon as the process ran; empty before it.
    pub first: String,
    /// How long that took, in milliseconds.
    pub first_ms: u64,
    /// Writes, each of a key of its own.
    pub writes: Tally,
    /// Reads of a few keys, which the sidecar keeps.
    pub reads: Tally,
    /// Reads that found nothing; the value was written anew.
    pub missing: u64,
    /// Writes and reads since SIGTERM.
    pub farewell: Tally,
    /// How long the app went on after SIGTERM, in milliseconds.
    pub farewell_ms: u64,
}

/// What became of commands of one kind.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Tally {
    /// How many had the right answer.
    pub answered: u64,
    /// How many had not.
    pub failed: u64,
    /// Their errors, with how often.
    pub errors: BTreeMap<String, u64>,
    /// Longest time between two right answers, in milliseconds.
    pub longest_gap_ms: u64,
    #[serde(skip)]
    last: Option<Instant>,
}

// === impl Tally ===

impl Tally {
    /// None yet; a gap may begin now.
    fn begin() -> Self {
        Self {
            last: Some(Instant::now()),
            ..Self::default()
        }
    }

    fn count(&mut self, result: Result<(), String>) {
        match result {
            Ok(()) => {
                let now = Instant::now();
                if let Some(last) = self.last.replace(now) {
                    self.longest_gap_ms = self.longest_gap_ms.max(millis(now - last));
                }
                self.answered += 1;
            }
            Err(error) => {
                self.failed += 1;
                *self.errors.entry(error).or_default() += 1;
            }
        }
    }

    /// As it is now: a gap that has not ended is a gap.
    fn now(&self) -> Self {
        let mut now = self.clone();
        if let Some(last) = self.last {
            now.longest_gap_ms = now.longest_gap_ms.max(millis(last.elapsed()));
        }
        now
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Where the cache is, as `host:port`.
pub fn cache() -> Result<String, String> {
    let url = std::env::var(REDIS_URL).map_err(|_| format!("{REDIS_URL} is not set"))?;
    let address = url.strip_prefix("redis://").unwrap_or(&url);
    Ok(address.trim_end_matches('/').to_owned())
}

/// One command on a connection of its own, tried once: the first that an app sends.
pub fn first(address: &str) -> Result<(), String> {
    let mut wire = connect(address).map_err(|error| error.to_string())?;
    let reply = wire
        .try_call(&["PING"])
        .map_err(|error| error.to_string())?;
    if reply == "PONG" {
        Ok(())
    } else {
        Err(reply.to_string())
    }
}

fn connect(address: &str) -> io::Result<Wire> {
    let mut last = io::Error::other(format!("{address} has no address"));
    for one in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&one, Duration::from_secs(5)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                let mut wire = Wire::of(stream);
                wire.patience(ANSWER);
                return Ok(wire);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
