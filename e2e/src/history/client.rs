//! One client: sends requests, alone or pipelined, and logs what became of each.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Action, MILLI, Nanos, Op, Via,
    keys::{self, Keyspace},
    request::{Request, Touch},
    servers::Directory,
};
use crate::{
    random::Random,
    wire::{Value, Wire},
};

/// How long a client waits for a reply; above every time limit of the sidecar.
const PATIENCE: Duration = Duration::from_secs(4);

/// Where the one clock of a history begins.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

/// What all clients of a run share.
#[derive(Debug)]
pub struct Common {
    /// The clock.
    pub clock: Clock,
    /// The keys.
    pub space: Keyspace,
    /// Where direct clients find them.
    pub directory: Directory,
    /// Writers end.
    pub no_more_writes: AtomicBool,
    /// Readers end.
    pub no_more_reads: AtomicBool,
}

/// Who a client is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Its number; also the upper half of its marks.
    pub client: u16,
    /// Which way it goes.
    pub via: Via,
    /// Where its sidecar is; `None`: it goes where the keys are.
    pub address: Option<SocketAddr>,
    /// RESP3 instead of RESP2.
    pub resp3: bool,
}

/// A client.
pub struct Client {
    /// Who it is.
    pub identity: Identity,
    /// What it shares.
    pub common: Arc<Common>,
    /// Its dice.
    pub random: Random,
    wires: HashMap<SocketAddr, Wire>,
    marks: u32,
    log: Log,
}

/// What a client brings home.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// What it did.
    pub ops: Vec<Op>,
    /// Errors that it was answered with, by their first words.
    pub errors: BTreeMap<String, u64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock {
    /// Time since the beginning.
    pub fn now(self) -> Nanos {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(super::NEVER)
    }
}

impl Common {
    /// Of a run that begins now.
    pub fn new(space: Keyspace, directory: Directory) -> Arc<Self> {
        Arc::new(Self {
            clock: Clock::default(),
            space,
            directory,
            no_more_writes: AtomicBool::new(false),
            no_more_reads: AtomicBool::new(false),
        })
    }
}

impl Client {
    /// A client that is not connected yet.
    pub fn new(identity: Identity, common: &Arc<Common>, seed: u64) -> Self {
        Self {
            identity,
            common: Arc::clone(common),
            random: Random::new(seed ^ (u64::from(identity.client) << 40)),
            wires: HashMap::new(),
            marks: 0,
            log: Log::default(),
        }
    }

    /// A mark that was never used before.
    pub fn next_mark(&mut self) -> super::Mark {
        self.marks += 1;
        keys::mark(self.identity.client, self.marks)
    }

    /// The tag to which a command on several keys must keep: sidecars split such commands, servers
    /// refuse them.
    pub fn one_tag(&mut self) -> Option<usize> {
        let tags = self.common.directory.tags.len();
        (self.identity.address.is_none()).then(|| self.random.below(tags))
    }

    /// What it has logged.
    pub fn into_log(self) -> Log {
        self.log
    }

    /// Runs `step` again and again until `end` is set.
    pub fn work(&mut self, end: impl Fn(&Common) -> &AtomicBool, step: impl Fn(&mut Self)) {
        while !end(&self.common).load(Relaxed) {
            step(self);
        }
    }

    /// Lets others work: up to `micros`.
    pub fn rest(&mut self, micros: usize) {
        let micros = u64::try_from(self.random.below(micros)).unwrap_or(0);
        thread::sleep(Duration::from_micros(micros));
    }

    /// Sends requests, those to one address in one go, and logs what came back; whether all were
    /// answered.
    pub fn ask(&mut self, requests: &[Request]) -> bool {
        let mut works = true;
        let addressed: Vec<SocketAddr> = requests.iter().map(|one| self.address(one)).collect();
        let mut rest = requests;
        for same in addressed.chunk_by(|one, other| one == other) {
            let (together, later) = rest.split_at(same.len());
            works &= self.ask_one(same[0], together);
            rest = later;
        }
        works
    }

    fn address(&self, request: &Request) -> SocketAddr {
        let there = || self.common.directory.find(request.tag);
        self.identity.address.unwrap_or_else(there)
    }

    fn ask_one(&mut self, address: SocketAddr, requests: &[Request]) -> bool {
        let Some(mut wire) = self.connect(address) else {
            thread::sleep(Duration::from_millis(2));
            return false;
        };
        let bytes: Vec<u8> = requests
            .iter()
            .flat_map(|request| request.bytes.iter().copied())
            .collect();
        let begun = self.common.clock.now();
        let mut works = wire.send(&bytes).is_ok();
        for request in requests {
            let mut reply = None;
            for _ in 0..=request.before {
                reply = if works { wire.read().ok() } else { None };
                works = reply.is_some();
            }
            let ended = self.common.clock.now();
            if let Some(Value::Error(error)) = &reply {
                let error = String::from_utf8_lossy(error);
                if self.identity.address.is_none() {
                    self.common.directory.moved(request.tag, &error);
                }
                let first: String = error.chars().take(60).collect();
                *self.log.errors.entry(first).or_default() += 1;
            }
            let actions = request.actions(reply.as_ref());
            self.note(begun, ended, request.verb, &request.touches, actions);
        }
        if works {
            self.wires.insert(address, wire);
        }
        works
    }

    fn note(
        &mut self,
        begun: Nanos,
        ended: Nanos,
        verb: &'static str,
        touches: &[(u16, Touch)],
        actions: Vec<(u16, Action)>,
    ) {
        for (register, action) in actions {
            let (mut begun, mut ended) = (begun, ended);
            if action == Action::MayVanish {
                let end = touches.iter().find_map(|(of, touch)| match touch {
                    Touch::End(millis) if *of == register => Some(Nanos::from(*millis) * MILLI),
                    _ => None,
                });
                // The clocks of two processes, and a command that may come late.
                begun = (begun + end.unwrap_or(0)).saturating_sub(50 * MILLI);
                ended = super::NEVER;
            }
            self.log.ops.push(Op {
                begun,
                ended,
                client: self.identity.client,
                via: self.identity.via,
                register,
                action,
                verb,
            });
        }
    }

    fn connect(&mut self, address: SocketAddr) -> Option<Wire> {
        if let Some(wire) = self.wires.remove(&address) {
            return Some(wire);
        }
        let mut wire = Wire::try_connect(address).ok()?;
        wire.patience(PATIENCE);
        if self.identity.resp3 {
            wire.try_call(&["HELLO", "3"]).ok()?;
        }
        Some(wire)
    }
}
