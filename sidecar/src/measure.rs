//! What the sidecar measures about its own coherence, beside the data path.
//!
//! `probe` writes a key of its own over one connection and times the invalidation on another;
//! `recent` keeps the figures of the last minute for people. Nothing here answers an app, and
//! nothing an app waits for waits for it.

pub mod probe;
pub mod recent;

use std::collections::BTreeSet;

use parking_lot::Mutex;

pub use self::{probe::Probes, recent::Recent};
use crate::{upstream::Link, worker::Worker};

/// What the loops have measured, for everyone to read.
pub struct Measured {
    /// Names this process among the sidecars of a tier; another one after a restart.
    pub id: String,
    /// From sending a write to the arrival of its invalidation.
    pub staleness: Mutex<Recent>,
    /// Why no staleness is measured; `None` while it is, or while nothing was tried.
    pub probe_refused: Mutex<Option<String>>,
    /// Refusals that were logged.
    said: Mutex<BTreeSet<String>>,
}

/// A question of a measurement, on its way to Redis.
pub enum Step {
    /// One of a probe.
    Probe(probe::Step),
}

// === impl Measured ===

impl Default for Measured {
    fn default() -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        Self {
            id: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
            staleness: Mutex::default(),
            probe_refused: Mutex::default(),
            said: Mutex::default(),
        }
    }
}

impl Measured {
    /// Redis refuses to have staleness measured; said once in the log.
    fn refused(&self, why: &str) {
        *self.probe_refused.lock() = Some(why.to_owned());
        let mut said = self.said.lock();
        // A server that answers differently each time is not listened to for ever.
        if said.len() < 16 && said.insert(why.to_owned()) {
            tracing::warn!(
                why,
                "the staleness of the local tier is not measured: it refuses to GET or SET the keys pannier:probe:*; apps are not concerned"
            );
        }
    }
}

/// A measurement's question was answered.
pub fn answered(link: &Link, step: &Step, frame: &[u8]) {
    match step {
        Step::Probe(step) => probe::answered(link, *step, frame),
    }
}

/// It will not be answered.
pub fn lost(worker: &Worker, step: &Step) {
    match step {
        Step::Probe(step) => probe::lost(worker, *step),
    }
}
