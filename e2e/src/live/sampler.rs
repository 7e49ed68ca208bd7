//! Asks every server of a tier, all the time and each from within its own pod, whether it accepts
//! a write. No two may at the same time (I2); a cut node does not hide its server.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kube::ResourceExt as _;
use policy::names::REDIS_PORT;

use super::Tier;
use crate::{
    Wire,
    kubernetes::{PodNetwork, blocking},
};

/// Between two probes of a server, and between two looks for new pods.
const REST: Duration = Duration::from_millis(40);
const ANSWER: Duration = Duration::from_secs(1);

/// A running sampler.
pub struct Sampler {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    password: Mutex<String>,
    live: Mutex<BTreeSet<String>>,
    samples: Mutex<Samples>,
}

/// What the servers answered, by pod and UID.
#[derive(Clone, Debug, Default)]
pub struct Samples(BTreeMap<String, Vec<Probe>>);

#[derive(Clone, Copy, Debug)]
struct Probe {
    sent: Instant,
    answered: Instant,
    accepted: bool,
}

impl Sampler {
    /// Samples the servers of a tier, those that come later as well.
    pub fn start(tier: &Tier) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = {
            let (shared, tier) = (Arc::clone(&shared), tier.clone());
            thread::spawn(move || blocking(watch(&tier, &shared)))
        };
        Self { shared, thread }
    }

    /// Ends it.
    pub fn stop(self) -> Samples {
        self.shared.stop.store(true, Relaxed);
        self.thread.join().expect("the sampler does not fail");
        locked(&self.shared.samples).clone()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finds the pods, and starts a thread for each.
async fn watch(tier: &Tier, shared: &Arc<Shared>) {
    // A client belongs to the runtime it is made in.
    let tier = tier.here().await;
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut known = BTreeSet::new();
    while !shared.stop.load(Relaxed) {
        if let Some(password) = tier.password("default").await {
            *locked(&shared.password) = password;
        }
        let mut live = BTreeSet::new();
        for pod in tier.servers().await {
            let id = format!("{} {}", pod.name_any(), pod.uid().unwrap_or_default());
            if !known.contains(&id)
                && let Some(network) = tier.cluster.network_of(&pod, "redis")
            {
                known.insert(id.clone());
                let (shared, id) = (Arc::clone(shared), id.clone());
                threads.push(thread::spawn(move || probe(&network, &id, &shared)));
            }
            live.insert(id);
        }
        *locked(&shared.live) = live;
        tokio::time::sleep(REST * 5).await;
    }
    for thread in threads {
        thread.join().expect("a probe does not fail");
    }
}

/// Asks one pod until it is gone.
fn probe(network: &PodNetwork, id: &str, shared: &Shared) {
    let mut wire = None;
    let key = format!("probe:{}", id.split(' ').next().unwrap_or_default());
    while !shared.stop.load(Relaxed) {
        let sent = Instant::now();
        let accepted = match &mut wire {
            None => {
                wire = connect(network, shared).ok();
                false
            }
            Some(connected) => ask(connected, &key).unwrap_or_else(|_| {
                wire = None;
                false
            }),
        };
        locked(&shared.samples)
            .0
            .entry(id.to_owned())
            .or_default()
            .push(Probe {
                sent,
                answered: Instant::now(),
                accepted,
            });
        if wire.is_none() && !locked(&shared.live).contains(id) {
            return;
        }
        thread::sleep(REST);
    }
}

fn connect(network: &PodNetwork, shared: &Shared) -> io::Result<Wire> {
    let mut wire = Wire::of(network.dial(REDIS_PORT)?);
    wire.patience(ANSWER);
    let password = locked(&shared.password).clone();
    let reply = wire.try_call(&["AUTH", "default", &password])?;
    if reply == "OK" {
        Ok(wire)
    } else {
        Err(io::Error::other(reply.text()))
    }
}

fn ask(wire: &mut Wire, key: &str) -> io::Result<bool> {
    let reply = wire.try_call(&["SET", key, "1", "PX", "60000"])?;
    if reply.text().starts_with("NOAUTH") {
        return Err(io::Error::other("logged out"));
    }
    Ok(reply == "OK")
}

impl Samples {
    /// Pairs of servers that accepted writes at the same time, for certain: one was answered
    /// between two answers of the other, with no refusal in between.
    pub fn overlaps(&self) -> Vec<String> {
        let terms: Vec<(&str, Instant, Instant)> = self
            .0
            .iter()
            .flat_map(|(id, probes)| terms(probes).map(move |(from, to)| (id.as_str(), from, to)))
            .collect();
        let mut found = Vec::new();
        for (index, (one, from, to)) in terms.iter().enumerate() {
            for (other, since, until) in &terms[index + 1..] {
                let (begin, end) = (from.max(since), to.min(until));
                if one != other && begin < end {
                    found.push(format!("{one} and {other} for {:?}", *end - *begin));
                }
            }
        }
        found
    }

    /// Servers that accepted a write at some time, in the order of their first.
    pub fn primaries(&self) -> Vec<String> {
        let mut first: Vec<(Instant, &str)> = self
            .0
            .iter()
            .filter_map(|(id, probes)| Some((terms(probes).next()?.0, id.as_str())))
            .collect();
        first.sort();
        first.into_iter().map(|(_, id)| id.to_owned()).collect()
    }

    /// How many probes were answered.
    pub fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

/// Times for which a server is known to have accepted writes: from the first answer to the sending
/// of the last probe before a refusal.
fn terms(probes: &[Probe]) -> impl Iterator<Item = (Instant, Instant)> + '_ {
    probes
        .chunk_by(|one, other| one.accepted == other.accepted)
        .filter(|term| term[0].accepted)
        .map(|term| (term[0].answered, term[term.len() - 1].sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(of: &[(&str, &[(u64, bool)])]) -> Samples {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let probes = |all: &[(u64, bool)]| {
            let probe = |&(ms, accepted): &(u64, bool)| Probe {
                sent: at(ms),
                answered: at(ms + 1),
                accepted,
            };
            all.iter().map(probe).collect()
        };
        let all = of.iter().map(|(id, all)| ((*id).to_owned(), probes(all)));
        Samples(all.collect())
    }

    #[test]
    fn one_after_the_other_is_right_and_one_within_the_other_is_not() {
        let switched = samples(&[
            ("a", &[(0, true), (40, true), (80, false), (500, false)]),
            ("b", &[(0, false), (45, false), (90, true), (500, true)]),
        ]);
        assert!(switched.overlaps().is_empty());
        assert_eq!(switched.primaries(), ["a", "b"]);
        let both = samples(&[
            ("a", &[(0, true), (40, true), (80, true), (500, false)]),
            ("b", &[(0, false), (45, true), (90, true), (500, true)]),
        ]);
        assert_eq!(both.overlaps(), ["a and b for 34ms"]);
    }
}
