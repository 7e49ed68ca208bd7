//! Finds the servers behind the sidecar and publishes them as a [`Topology`].
//!
//! It runs on the control thread; the data path never waits for it. `sentinel` asks Sentinels for
//! their primary, `cluster` asks the nodes of a cluster for their slots, `ask` is the connection
//! that both use. A description that contradicts itself is refused, and what is known stays.

pub(crate) mod ask;
mod cluster;
mod sentinel;

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use policy::config::UpstreamMode;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    clock::Tick,
    state::Shared,
    upstream::{Endpoint, topology::Topology},
    worker,
};

/// Time between looks when nobody doubts: between half of it and all of it.
const INTERVAL: Duration = Duration::from_secs(2);
/// Shortest time between two looks; doubled for each doubt that turned out to be none.
const SHORTEST: Duration = Duration::from_millis(10);
/// Longest time that a doubt waits for its look.
const LONGEST: Duration = Duration::from_millis(500);
/// A reply to discovery takes no longer than this, whatever commands of apps may.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks for servers for as long as the process lives; with a fixed address there is nothing to
/// find.
pub async fn run(shared: Arc<Shared>) {
    let mode = match &shared.active().config.upstream {
        Some(upstream) => upstream.mode,
        None => return,
    };
    match mode {
        UpstreamMode::Standalone => {}
        UpstreamMode::Sentinel => sentinel::run(shared).await,
        UpstreamMode::Cluster => cluster::run(shared).await,
    }
}

/// The way to the configured server, to be pointed at others; `None` after a note of why.
fn endpoint(shared: &Shared) -> Option<Endpoint> {
    let active = shared.active();
    match worker::endpoint(&active) {
        Ok(Some(mut endpoint)) => {
            endpoint.timeout = endpoint.timeout.min(PATIENCE * 2);
            // Its role is what is asked.
            endpoint.refuses_replicas = false;
            Some(endpoint)
        }
        Ok(None) => None,
        Err(error) => {
            shared
                .topology
                .note(|facts| facts.failure = Some(error.to_string()));
            None
        }
    }
}

/// Says how a look went; a failure is logged when it is another one than before.
fn note(shared: &Shared, result: Result<(), String>) {
    let mut news = None;
    shared.topology.note(|facts| match result {
        Ok(()) => {
            facts.confirmed = Some(Tick::now());
            facts.failure = None;
        }
        Err(why) => {
            if facts.failure.as_ref() != Some(&why) {
                news = Some(why.clone());
            }
            facts.failure = Some(why);
        }
    });
    if let Some(why) = news {
        tracing::warn!(why, "the servers behind the sidecar cannot be looked up");
    }
}

/// Puts what was found in force if it is news; the answer is whether it was.
fn publish(shared: &Shared, found: Topology) -> bool {
    let known = shared.topology.current();
    if found.is_same(&known) {
        return false;
    }
    let published = shared.topology.publish(found);
    let primaries: Vec<String> = published
        .nodes
        .iter()
        .take(16)
        .map(|node| node.primary.to_string())
        .collect();
    tracing::info!(
        version = published.version,
        nodes = published.nodes.len(),
        primaries = primaries.join(", "),
        "the servers behind the sidecar are known"
    );
    true
}

/// When the next look is due.
struct Pace {
    begun: Instant,
    gap: Duration,
    random: RandomState,
    drawn: u64,
}

impl Pace {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            gap: SHORTEST,
            random: RandomState::new(),
            drawn: 0,
        }
    }

    fn draw(&mut self) -> u32 {
        self.drawn += 1;
        let [a, b, c, d, ..] = self.random.hash_one(self.drawn).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// Between half of `span` and all of it.
    fn jitter(&mut self, span: Duration) -> Duration {
        span.mul_f64(0.5 + f64::from(self.draw()) / f64::from(u32::MAX) / 2.0)
    }

    /// A number below `count`, which is not zero.
    fn pick(&mut self, count: usize) -> usize {
        self.draw() as usize % count
    }

    fn look_begins(&mut self) {
        self.begun = Instant::now();
    }

    /// Waits until a doubt, or the passing of time, makes another look due. `found`: the last
    /// look brought news; `known`: there is something to go on with meanwhile.
    async fn next(&mut self, shared: &Shared, found: bool, known: bool) {
        self.gap = if found {
            SHORTEST
        } else {
            (self.gap * 2).min(LONGEST)
        };
        let gap = self.jitter(self.gap);
        if !known {
            sleep(gap).await;
            return;
        }
        let pause = self.jitter(INTERVAL);
        tokio::select! {
            () = sleep(pause) => self.gap = SHORTEST,
            () = shared.topology.doubted() => sleep_until(self.begun + gap).await,
        }
    }
}
