//! Asks the nodes of a cluster who owns which slot.
//!
//! A few nodes are asked at a time: one alone may be cut off from the others and not know it. Of
//! the descriptions that can be true, the one of the highest epoch counts. Connections are kept
//! from look to look.

mod view;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use policy::config::Upstream;
use tokio::{
    task::JoinSet,
    time::{Duration, Instant, timeout_at},
};

use self::view::Untrusted;
use super::{
    PATIENCE, Pace,
    ask::{Conn, refusal, shown},
};
use crate::{
    metrics::Flush,
    resp::reply::Value,
    state::Shared,
    upstream::{
        Endpoint,
        topology::{Address, Topology},
    },
};

/// Nodes that are asked in one look.
const ASKED: usize = 3;
/// How long descriptions of an older epoch are refused; a cluster that was made anew begins at
/// the lowest again.
const OLDER: Duration = Duration::from_secs(15);
/// Failures that are told of one look.
const TOLD: usize = 3;

/// Looks for as long as the process lives.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut looker = Looker {
        shared,
        conns: BTreeMap::new(),
        epoch: 0,
        older_since: None,
        pace: Pace::new(),
    };
    loop {
        looker.pace.look_begins();
        let found = looker.look().await;
        let known = looker.shared.topology.load().covered() > 0;
        looker.pace.next(&looker.shared, found, known).await;
    }
}

struct Looker {
    shared: Arc<Shared>,
    conns: BTreeMap<Address, Conn>,
    /// Epoch of the description in force.
    epoch: u64,
    /// Since when nobody knows of that epoch.
    older_since: Option<Instant>,
    pace: Pace,
}

/// What a node said.
struct View {
    /// `cluster_current_epoch`, where the node tells it.
    epoch: Option<u64>,
    /// `cluster_state:ok`
    ok: bool,
    described: Result<Topology, Untrusted>,
}

/// A node's answer, with the connection for the next question.
struct Asked {
    address: Address,
    result: Result<(Conn, View), String>,
}

impl Looker {
    /// Asks until enough nodes have answered; the answer is whether something changed.
    async fn look(&mut self) -> bool {
        let Some(endpoint) = super::endpoint(&self.shared) else {
            return false;
        };
        let endpoint = Arc::new(endpoint);
        let mut candidates = self.candidates();
        let mut asking = JoinSet::new();
        let mut failures = Vec::new();
        let mut refused = Vec::new();
        let mut views = Vec::new();
        let mut changed = false;
        let deadline = Instant::now() + PATIENCE * 2;
        loop {
            while asking.len() + views.len() < ASKED
                && let Some(address) = candidates.pop_front()
            {
                let conn = self.conns.remove(&address);
                asking.spawn(ask(Arc::clone(&endpoint), address, conn));
            }
            let Ok(Some(joined)) = timeout_at(deadline, asking.join_next()).await else {
                break;
            };
            let Ok(Asked { address, result }) = joined else {
                continue;
            };
            let (conn, view) = match result {
                Ok(answer) => answer,
                Err(why) => {
                    failures.push(format!("{address}: {why}"));
                    continue;
                }
            };
            self.conns.insert(address.clone(), conn);
            match view.described {
                Err(why) => refused.push(format!("{address}: {why}")),
                Ok(found) if found.covered() == 0 => {
                    failures.push(format!("{address} knows of no slot that has an owner"));
                }
                Ok(found) => {
                    let epoch = view.epoch.unwrap_or(self.epoch);
                    // News need not wait for those who answer late.
                    if epoch > self.epoch {
                        changed |= self.adopt(epoch, found.clone());
                    }
                    views.push((epoch, view.ok, found));
                }
            }
        }
        let sane = !views.is_empty();
        changed |= self.choose(views);
        self.conclude(sane, &refused, &failures);
        changed
    }

    /// Whom to ask: those that answered before, then the others in any order, then the seeds.
    fn candidates(&mut self) -> VecDeque<Address> {
        let topology = self.shared.topology.current();
        let mut others: Vec<Address> = topology
            .nodes
            .iter()
            .map(|node| node.primary.clone())
            .collect();
        let replicas = topology.nodes.iter().flat_map(|node| &node.replicas);
        shuffle(&mut others, &mut self.pace);
        let mut spare: Vec<Address> = replicas.cloned().collect();
        shuffle(&mut spare, &mut self.pace);
        let active = self.shared.active();
        let upstream = active.config.upstream.as_ref();
        let mut seeds: Vec<Address> = upstream
            .into_iter()
            .flat_map(Upstream::addresses)
            .map(|(host, port)| Address::new(host, port))
            .collect();
        shuffle(&mut seeds, &mut self.pace);
        // One that left the cluster goes on describing it as it was.
        self.conns.retain(|address, _| {
            [&others, &spare, &seeds]
                .iter()
                .any(|all| all.contains(address))
        });
        let mut candidates: VecDeque<Address> = self.conns.keys().cloned().collect();
        for address in others.into_iter().chain(spare).chain(seeds) {
            if !candidates.contains(&address) {
                candidates.push_back(address);
            }
        }
        candidates
    }

    /// Puts the best of several descriptions in force.
    fn choose(&mut self, views: Vec<(u64, bool, Topology)>) -> bool {
        let known = self.shared.topology.current();
        let best = views
            .into_iter()
            .max_by_key(|(epoch, ok, found)| (*epoch, *ok, found.covered(), found.is_same(&known)));
        match best {
            None => false,
            Some((epoch, _, found)) if epoch >= self.epoch => self.adopt(epoch, found),
            Some((epoch, _, found)) => {
                let since = *self.older_since.get_or_insert_with(Instant::now);
                since.elapsed() >= OLDER && self.adopt(epoch, found)
            }
        }
    }

    fn adopt(&mut self, epoch: u64, found: Topology) -> bool {
        self.epoch = epoch;
        self.older_since = None;
        super::publish(&self.shared, found)
    }

    /// Tells how the look went. Where nobody's description can be true nothing is known any
    /// longer about what was kept locally (P4).
    fn conclude(&self, sane: bool, refused: &[String], failures: &[String]) {
        if !refused.is_empty() {
            let count = u64::try_from(refused.len()).unwrap_or(u64::MAX);
            self.shared.topology.note(|facts| facts.refused += count);
        }
        if !refused.is_empty() && !sane {
            self.shared.tier.flush();
            self.shared.counters_of_listener.flushes[Flush::Doubt as usize].inc();
        }
        let result = if sane && refused.is_empty() {
            Ok(())
        } else if !refused.is_empty() {
            let shown = refused.iter().take(TOLD).cloned().collect::<Vec<_>>();
            Err(format!(
                "a description of the cluster contradicts itself and is refused: {}",
                shown.join("; ")
            ))
        } else {
            let shown = failures.iter().take(TOLD).cloned().collect::<Vec<_>>();
            Err(format!(
                "no node of the cluster answered: {}",
                shown.join("; ")
            ))
        };
        super::note(&self.shared, result);
    }
}

/// Asks one node.
async fn ask(endpoint: Arc<Endpoint>, address: Address, conn: Option<Conn>) -> Asked {
    let result = match conn {
        // One that was kept may be dead without having said so.
        Some(mut conn) => match view(&mut conn, &endpoint, &address).await {
            Ok(view) => Ok((conn, view)),
            Err(_) => fresh(&endpoint, &address).await,
        },
        None => fresh(&endpoint, &address).await,
    };
    Asked { address, result }
}

async fn fresh(endpoint: &Endpoint, address: &Address) -> Result<(Conn, View), String> {
    let mut conn = Conn::open(&endpoint.at(address))
        .await
        .map_err(|error| error.to_string())?;
    let view = view(&mut conn, endpoint, address).await?;
    Ok((conn, view))
}

async fn view(conn: &mut Conn, endpoint: &Endpoint, address: &Address) -> Result<View, String> {
    let info = answer(conn, &["CLUSTER", "INFO"]).await?;
    let (epoch, ok) = match Value::read(&info) {
        Ok(Value::Text(text)) => (field(text, b"cluster_current_epoch:"), is_ok(text)),
        _ => (None, true),
    };
    let frame = answer(conn, &["CLUSTER", "SHARDS"]).await?;
    let reply = Value::read(&frame).map_err(|error| error.to_string())?;
    let described = if matches!(reply, Value::Error(_)) {
        Err(None)
    } else {
        view::shards(&reply, &address.host, endpoint.tls.is_some()).map_err(Some)
    };
    // Servers before 7.0 have no SHARDS; and during a fail-over it may leave open which of two
    // primaries owns the slots.
    let described = match described {
        Ok(topology) => Ok(topology),
        Err(Some(why)) if !why.is_ambiguous() => Err(why),
        Err(_) => {
            let frame = answer(conn, &["CLUSTER", "SLOTS"]).await?;
            let reply = Value::read(&frame).map_err(|error| error.to_string())?;
            if let Some(why) = refusal(&reply) {
                return Err(format!("CLUSTER SLOTS was refused: {why}"));
            }
            view::slots(&reply, &address.host)
        }
    };
    Ok(View {
        epoch,
        ok,
        described,
    })
}

async fn answer(conn: &mut Conn, question: &[&str]) -> Result<Vec<u8>, String> {
    conn.ask(question, PATIENCE)
        .await
        .map_err(|error| format!("{}: {error}", question.join(" ")))
}

fn field(info: &[u8], name: &[u8]) -> Option<u64> {
    let line = info
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(name))?;
    shown(line.trim_ascii()).parse().ok()
}

fn is_ok(info: &[u8]) -> bool {
    let mut lines = info.split(|byte| *byte == b'\n');
    lines.any(|line| line.trim_ascii() == b"cluster_state:ok")
}

fn shuffle(addresses: &mut [Address], pace: &mut Pace) {
    for last in (1..addresses.len()).rev() {
        addresses.swap(last, pace.pick(last + 1));
    }
}
