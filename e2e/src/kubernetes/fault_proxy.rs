//! Stands between a client and an API server, and makes calls fail: refused, answered with an
//! error, carried out with the answer lost, not answered at all; watches that break, fall silent,
//! or begin with a list of the past. Every call is written down with its time.
//!
//! It speaks plain HTTP to the client and passes the client's token on. It runs on a thread of its
//! own and needs no runtime in the test.

mod serve;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use http::Method;
use tokio::sync::{oneshot, watch};

use super::kubeconfig::Access;
use crate::{ports, random::Random, server::loopback};

/// Which calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// All.
    Any,
    /// Those that read one object or a list.
    Read,
    /// Those that change something.
    Write,
    /// Those that wait for changes.
    Watch,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status and not carried out.
    Answer(u16),
    /// As [`Fault::Answer`] 429, with so many seconds to wait.
    Busy(u32),
    /// It is carried out, and the answer is lost.
    Lost,
    /// It is never answered.
    Silence,
    /// A watch is accepted and says that its version is too old.
    Gone,
}

/// A call that was made.
#[derive(Clone, Debug)]
pub struct Call {
    /// When.
    pub at: Instant,
    /// What.
    pub verb: Verb,
    /// `PATCH`
    pub method: String,
    /// Without the query.
    pub path: String,
    /// What was done to it, if anything.
    pub fault: Option<Fault>,
}

#[derive(Debug)]
struct Rule {
    verb: Verb,
    path: String,
    fault: Fault,
    percent: usize,
    left: usize,
}

struct State {
    rules: Vec<Rule>,
    calls: Vec<Call>,
    random: Random,
    /// Watches of these paths are open and say nothing.
    mute: Vec<String>,
    /// Lists as they were, by path.
    past: Vec<(String, Vec<u8>)>,
    /// Paths of lists that are written down.
    remember: Vec<String>,
    /// Paths of lists that are answered from the past.
    replay: Vec<String>,
}

struct Shared {
    state: Mutex<State>,
    /// Counts the times that all open watches were broken.
    broken: watch::Sender<u64>,
}

/// A running proxy.
pub struct FaultProxy {
    shared: Arc<Shared>,
    access: Access,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || thread::panicking(),
                "the proxy of the API server failed"
            );
        }
    }
}

// === impl FaultProxy ===

impl FaultProxy {
    /// Stands before the API server of `access`.
    pub fn start(access: &Access) -> Self {
        let port = ports::free();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                rules: Vec::new(),
                calls: Vec::new(),
                random: Random::new(1),
                mute: Vec::new(),
                past: Vec::new(),
                remember: Vec::new(),
                replay: Vec::new(),
            }),
            broken: watch::Sender::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let (ready, listening) = std::sync::mpsc::channel();
        let (serving, server) = (Arc::clone(&shared), access.clone());
        let thread = thread::spawn(move || serve::run(port, &server, &serving, stopped, &ready));
        listening.recv().expect("the proxy listens");
        Self {
            shared,
            access: access
                .clone()
                .by(format!("http://{}", loopback(port)), Path::new("")),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The way through it, as the same user.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// From now on, `percent` of the calls whose path contains `path` fail, `times` at most.
    pub fn fail(&self, verb: Verb, path: &str, fault: Fault, percent: usize, times: usize) {
        self.state().rules.push(Rule {
            verb,
            path: path.to_owned(),
            fault,
            percent,
            left: times,
        });
    }

    /// No call fails any longer, no watch is silent, no list is of the past.
    pub fn heal(&self) {
        let mut state = self.state();
        state.rules.clear();
        state.mute.clear();
        state.replay.clear();
    }

    /// Breaks all open watches.
    pub fn break_watches(&self) {
        self.shared.broken.send_modify(|count| *count += 1);
    }

    /// Watches of paths that end like this stay open and lose what they had to say.
    pub fn mute(&self, path: &str) {
        self.state().mute.push(path.to_owned());
    }

    /// Writes down the next lists whose path ends like this.
    pub fn remember(&self, path: &str) {
        self.state().remember.push(path.to_owned());
    }

    /// Whether a list was written down.
    pub fn remembers(&self, path: &str) -> bool {
        let state = self.state();
        state.past.iter().any(|(known, _)| known.ends_with(path))
    }

    /// Lists whose path ends like this are answered as they were when they were written down.
    pub fn replay(&self, path: &str) {
        self.state().replay.push(path.to_owned());
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

// === impl Shared ===

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a call down and decides what happens to it.
    fn judge(&self, method: &Method, path: &str, query: &str) -> (Verb, Option<Fault>) {
        let verb = match *method {
            Method::GET if query.contains("watch=true") => Verb::Watch,
            Method::GET => Verb::Read,
            _ => Verb::Write,
        };
        let mut state = self.state();
        let State { rules, random, .. } = &mut *state;
        let rule = rules.iter_mut().find(|rule| {
            rule.left > 0
                && (rule.verb == Verb::Any || rule.verb == verb)
                && path.contains(&rule.path)
                && random.chance(rule.percent)
        });
        let fault = rule.map(|rule| {
            rule.left -= 1;
            rule.fault
        });
        state.calls.push(Call {
            at: Instant::now(),
            verb,
            method: method.to_string(),
            path: path.to_owned(),
            fault,
        });
        (verb, fault)
    }

    fn is_mute(&self, path: &str) -> bool {
        let state = self.state();
        state.mute.iter().any(|end| path.ends_with(end))
    }

    /// A list of the past, if this one is to be answered so.
    fn past(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.replay.iter().find(|end| path.ends_with(*end))?;
        let known = state.past.iter().find(|(known, _)| known == path)?;
        Some(known.1.clone())
    }

    /// Writes a list down if that was asked for.
    fn keep(&self, path: &str, body: &[u8]) {
        let mut state = self.state();
        if let Some(at) = state.remember.iter().position(|end| path.ends_with(end)) {
            state.remember.remove(at);
            state.past.push((path.to_owned(), body.to_vec()));
        }
    }
}
