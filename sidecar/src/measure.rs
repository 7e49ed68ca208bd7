//! What the sidecar measures about its own coherence, beside the data path.
//!
//! `probe` writes a key of its own over one connection and times the invalidation on another;
//! `recent` keeps the figures of the last minute for people. `sample` chooses hits, `audit` compares
//! them, and the would-be hits of keys in shadow, with Redis; `serving` says which keys those are.
//! Nothing here answers an app, and nothing an app waits for waits for it.

pub mod audit;
pub mod probe;
pub mod recent;
pub mod sample;
pub mod serving;
pub mod unfounded;

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use parking_lot::Mutex;

pub use self::{
    audit::{Audit, Suspect, Verdict, Watch},
    probe::Probes,
    recent::Recent,
    sample::Sampler,
    serving::{Mode, Serving},
    unfounded::Unfounded,
};
use crate::{clock::Tick, upstream::Link, worker::Worker};

/// Stale values found in this time after one that was logged are only counted.
const STALE_PAUSE: Duration = Duration::from_secs(10);

/// What the loops have measured, for everyone to read.
pub struct Measured {
    /// Names this process among the sidecars of a tier; another one after a restart.
    pub id: String,
    /// From sending a write to the arrival of its invalidation.
    pub staleness: Mutex<Recent>,
    /// Why no staleness is measured; `None` while it is, or while nothing was tried.
    pub probe_refused: Mutex<Option<String>>,
    /// When a stale value was last logged.
    stale_said: Mutex<Option<Tick>>,
    /// Refusals that were logged.
    said: Mutex<BTreeSet<String>>,
}

/// A question of a measurement, on its way to Redis.
pub enum Step {
    /// One of a probe.
    Probe(probe::Step),
    /// The barrier behind a reply that differs from the local entry.
    Audit(Rc<Suspect>),
    /// A value that was announced to have changed.
    Unfounded(unfounded::Step),
}

// === impl Measured ===

impl Default for Measured {
    fn default() -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        Self {
            id: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
            staleness: Mutex::default(),
            probe_refused: Mutex::default(),
            stale_said: Mutex::default(),
            said: Mutex::default(),
        }
    }
}

impl Measured {
    /// Whether a stale value is to be logged; a line per key would be a flood.
    fn may_say_stale(&self) -> bool {
        let now = Tick::now();
        let mut said = self.stale_said.lock();
        let may = said.is_none_or(|last| now.since(last) > STALE_PAUSE);
        if may {
            *said = Some(now);
        }
        may
    }

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
        Step::Audit(suspect) => audit::after_barrier(link.worker(), suspect),
        Step::Unfounded(step) => unfounded::answered(link.worker(), *step, frame),
    }
}

/// It will not be answered.
pub fn lost(worker: &Worker, step: &Step) {
    match step {
        Step::Probe(step) => probe::lost(worker, *step),
        Step::Audit(suspect) => audit::lost(worker, suspect),
        Step::Unfounded(_) => {}
    }
}
