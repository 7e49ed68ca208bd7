//! How each server behind the sidecar fares: its circuit, and how many connect to it at a time
//! (S2.9).
//!
//! Failures in a row (timeouts, broken connections, connections that do not come about) open the
//! circuit: nothing is sent, so commands fail at once, wait, or are answered from memory, as
//! declared. When `openFor` is over, one link sends a keyed read of the sidecar's own, never an
//! app's command: an answer closes the circuit, anything else opens it again. One per process and
//! server, shared by the links of all event loops.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{
            AtomicU8, AtomicU32, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use parking_lot::Mutex;
use policy::config::CircuitBreaker;
use tokio::sync::Semaphore;

use crate::clock::Tick;

/// Connections that one process opens to one server at the same time: after a restart of the
/// server, the first commands matter more than having all links at once.
const ATTEMPTS: usize = 4;

/// Whether commands are sent to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// They are.
    Closed = 0,
    /// They are not.
    Open = 1,
    /// They are not, and a probe is on its way.
    HalfOpen = 2,
}

/// Words for metrics, in the order of [`Circuit`].
pub const CIRCUITS: [&str; 3] = ["closed", "open", "half_open"];

/// How one server fares.
#[derive(Debug)]
pub struct Health {
    /// `host:port`
    pub address: Box<str>,
    circuit: AtomicU8,
    failures: AtomicU32,
    opened: AtomicU64,
    cold: Mutex<Cold>,
    /// Whoever connects holds one.
    pub attempts: Semaphore,
}

#[derive(Debug, Default)]
struct Cold {
    /// End of `openFor`, or of the patience with a probe.
    until: Tick,
    why: String,
}

/// Whether a link may connect now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Yes.
    Go,
    /// Yes, to send the probe.
    Probe,
    /// Not for so long.
    Wait(Duration),
}

/// Those of all servers that have links, by address.
#[derive(Debug, Default)]
pub struct Healths {
    by_address: Mutex<BTreeMap<Box<str>, Weak<Health>>>,
    /// Circuits of servers that are gone have opened so often.
    opened_before: AtomicU64,
}

// === impl Health ===

impl Health {
    fn new(address: &str) -> Self {
        Self {
            address: address.into(),
            circuit: AtomicU8::new(Circuit::Closed as u8),
            failures: AtomicU32::new(0),
            opened: AtomicU64::new(0),
            cold: Mutex::default(),
            attempts: Semaphore::new(ATTEMPTS),
        }
    }

    /// The state of the circuit.
    pub fn circuit(&self) -> Circuit {
        match self.circuit.load(Acquire) {
            0 => Circuit::Closed,
            1 => Circuit::Open,
            _ => Circuit::HalfOpen,
        }
    }

    /// Whether nothing may be sent.
    #[inline]
    pub fn is_cut_off(&self) -> bool {
        self.circuit.load(Acquire) != Circuit::Closed as u8
    }

    /// Times the circuit has opened.
    pub fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// The server has answered a command.
    #[inline]
    pub fn answered(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// A command timed out, a connection broke or did not come about.
    pub fn failed(&self, limits: Option<CircuitBreaker>, why: &str, random: u32) {
        let Some(limits) = limits else { return };
        let mut cold = self.cold.lock();
        let failures = self.failures.fetch_add(1, AcqRel) + 1;
        if self.circuit() == Circuit::Closed && failures >= limits.failures {
            let open_for = self.open(&mut cold, limits, why, random);
            tracing::warn!(
                redis = &*self.address,
                failures,
                why,
                "the circuit opened: nothing is sent to redis for {open_for:?}"
            );
        }
    }

    fn open(&self, cold: &mut Cold, limits: CircuitBreaker, why: &str, random: u32) -> Duration {
        // Longer by up to a quarter, so that the probes of many pods do not come in step.
        let open_for = limits.open_for.0;
        let open_for = open_for + (open_for / 4).mul_f64(f64::from(random) / f64::from(u32::MAX));
        cold.until = Tick::now() + open_for;
        why.clone_into(&mut cold.why);
        self.circuit.store(Circuit::Open as u8, Release);
        self.opened.fetch_add(1, Relaxed);
        open_for
    }

    /// Whether a link may connect now; who gets [`Permit::Probe`] says how it went. Another link
    /// takes its place if it does not within `patience`.
    pub fn permit(&self, limits: Option<CircuitBreaker>, patience: Duration) -> Permit {
        if !self.is_cut_off() {
            return Permit::Go;
        }
        let mut cold = self.cold.lock();
        if limits.is_none() {
            self.close();
        }
        if self.circuit() == Circuit::Closed {
            return Permit::Go;
        }
        let now = Tick::now();
        if now < cold.until {
            return Permit::Wait(cold.until.since(now));
        }
        cold.until = now + patience;
        self.circuit.store(Circuit::HalfOpen as u8, Release);
        tracing::info!(
            redis = &*self.address,
            "the circuit is half open: one probe is sent"
        );
        Permit::Probe
    }

    /// The probe was answered, or was not and why.
    pub fn probed(&self, limits: Option<CircuitBreaker>, result: Result<(), &str>, random: u32) {
        let mut cold = self.cold.lock();
        match (result, limits) {
            (Ok(()), _) | (_, None) => {
                self.close();
                tracing::info!(redis = &*self.address, "the circuit closed");
            }
            (Err(why), Some(limits)) => {
                let open_for = self.open(&mut cold, limits, why, random);
                tracing::warn!(
                    redis = &*self.address,
                    why,
                    "the circuit opened again: the probe failed; nothing is sent to redis for {open_for:?}"
                );
            }
        }
    }

    fn close(&self) {
        self.failures.store(0, Relaxed);
        self.circuit.store(Circuit::Closed as u8, Release);
    }

    /// Its state in a sentence.
    pub fn words(&self) -> String {
        let cold = self.cold.lock();
        match self.circuit() {
            Circuit::Closed => "closed: commands are sent".to_owned(),
            Circuit::Open => {
                // A clock that shows nanoseconds tells nobody anything.
                let left = cold.until.since(Tick::now()).as_millis();
                format!(
                    "the circuit is open: nothing is sent for another {left} ms; the last failure: {}",
                    cold.why
                )
            }
            Circuit::HalfOpen => format!(
                "the circuit is half open: a probe is on its way; the last failure: {}",
                cold.why
            ),
        }
    }
}

// === impl Healths ===

impl Healths {
    /// The server of that address.
    pub fn get(&self, address: &str) -> Arc<Health> {
        let mut all = self.by_address.lock();
        if let Some(server) = all.get(address).and_then(Weak::upgrade) {
            return server;
        }
        all.retain(|_, server| server.strong_count() > 0);
        let server = Arc::new(Health::new(address));
        all.insert(address.into(), Arc::downgrade(&server));
        server
    }

    /// Those that have links.
    pub fn all(&self) -> Vec<Arc<Health>> {
        let all = self.by_address.lock();
        all.values().filter_map(Weak::upgrade).collect()
    }

    /// Whether nothing may be sent to any of them.
    pub fn is_cut_off(&self) -> bool {
        let all = self.all();
        !all.is_empty() && all.iter().all(|server| server.is_cut_off())
    }

    /// Times that any circuit has opened.
    pub fn opened(&self) -> u64 {
        let now: u64 = self.all().iter().map(|server| server.opened()).sum();
        now + self.opened_before.load(Relaxed)
    }

    /// The last link to a server was dropped.
    pub fn forget(&self, server: &Arc<Health>) {
        if Arc::strong_count(server) == 1 {
            self.opened_before.fetch_add(server.opened(), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::Span;

    use super::*;

    const LIMITS: Option<CircuitBreaker> = Some(CircuitBreaker {
        failures: 3,
        open_for: Span::from_millis(20),
    });
    const PATIENCE: Duration = Duration::from_mins(1);

    fn opened() -> Arc<Health> {
        let server = Healths::default().get("redis:6379");
        for _ in 0..3 {
            assert_eq!(server.permit(LIMITS, PATIENCE), Permit::Go);
            server.failed(LIMITS, "gone", 0);
        }
        server
    }

    fn until_probe(server: &Health) {
        while let Permit::Wait(left) = server.permit(LIMITS, PATIENCE) {
            std::thread::sleep(left);
        }
        assert_eq!(server.circuit(), Circuit::HalfOpen);
    }

    #[test]
    fn only_failures_in_a_row_open_the_circuit() {
        let server = Healths::default().get("redis:6379");
        for _ in 0..2 {
            server.failed(LIMITS, "gone", 0);
            server.failed(LIMITS, "gone", 0);
            server.answered();
        }
        assert!(!server.is_cut_off());
        for _ in 0..100 {
            server.failed(None, "no breaker is declared", 0);
        }
        assert!(!server.is_cut_off());
        let server = opened();
        assert!(server.is_cut_off());
        assert!(matches!(server.permit(LIMITS, PATIENCE), Permit::Wait(_)));
        assert!(server.words().contains("gone"), "{}", server.words());
    }

    #[test]
    fn one_probe_is_let_through_and_its_answer_closes_the_circuit() {
        let server = opened();
        until_probe(&server);
        assert!(matches!(server.permit(LIMITS, PATIENCE), Permit::Wait(_)));
        assert!(server.is_cut_off(), "commands are not sent with the probe");
        server.probed(LIMITS, Ok(()), 0);
        assert_eq!(server.permit(LIMITS, PATIENCE), Permit::Go);
        server.failed(LIMITS, "once", 0);
        assert!(!server.is_cut_off(), "it counts from the start");
    }

    #[test]
    fn a_failed_probe_opens_it_again_and_a_lost_one_is_replaced() {
        let server = opened();
        until_probe(&server);
        server.probed(LIMITS, Err("still gone"), u32::MAX);
        assert_eq!((server.circuit(), server.opened()), (Circuit::Open, 2));
        while let Permit::Wait(left) = server.permit(LIMITS, Duration::ZERO) {
            std::thread::sleep(left);
        }
        // Whoever had the probe was dropped.
        assert_eq!(server.permit(LIMITS, Duration::ZERO), Permit::Probe);
    }

    #[test]
    fn a_breaker_that_is_not_declared_any_longer_lets_everyone_through() {
        let server = opened();
        assert_eq!(server.permit(None, PATIENCE), Permit::Go);
        assert!(!server.is_cut_off());
    }

    #[test]
    fn links_to_one_address_share_a_server_and_its_count_outlives_it() {
        let servers = Healths::default();
        let one = servers.get("a:1");
        assert!(Arc::ptr_eq(&one, &servers.get("a:1")));
        for _ in 0..3 {
            one.failed(LIMITS, "gone", 0);
        }
        assert_eq!((servers.opened(), servers.all().len()), (1, 1));
        servers.forget(&one);
        drop(one);
        assert_eq!((servers.opened(), servers.all().len()), (1, 0));
    }
}
