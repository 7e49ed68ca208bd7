//! What the findings of a reconcile mean as conditions. Pure.

use crds::condition::{Condition, ReplicaState, ReplicaStatus, SidecarsStatus};
use policy::names;

use super::topology;
use crate::{
    cache_tier::{
        Held, Progress, Visited,
        act::REFUSED,
        observe::{Observed, ObservedPod, volumes::Problem},
        validate::Behind,
    },
    conditions::{Fact, type_},
    instance::state::{Server, State},
    visits::Found,
};

/// A replica that is further behind is not in step.
const NEAR: i64 = 1 << 20;

/// The conditions of a tier whose objects were written. `before` is what the status says.
pub(super) fn facts(progress: &Progress, before: &[Condition]) -> Vec<Fact> {
    let mut facts = Vec::new();
    let topology = progress
        .tier
        .servers()
        .map(|servers| topology::fact(progress, servers));
    let waits = progress.waits();
    facts.push(ready(progress, waits.as_deref(), topology.as_ref()));
    facts.push(match &waits {
        Some(why) => Fact::holds(type_::RECONCILING, "UnderWay", why.clone()),
        None => Fact::fails(type_::RECONCILING, "Settled", ""),
    });
    facts.push(match refused(progress) {
        Some(why) => Fact::holds(type_::STALLED, REFUSED, why),
        None => Fact::fails(type_::STALLED, "NotStalled", ""),
    });
    if let Some(topology) = topology {
        facts.push(reachable(progress));
        facts.push(topology);
        facts.push(configured(progress));
        facts.extend(
            progress
                .credentials
                .as_ref()
                .map(|held| credentials(&progress.observed, held)),
        );
        facts.extend(storage(progress));
        facts.extend(lost(&progress.observed, before));
    }
    if matches!(progress.tier.behind, Behind::External(_)) {
        facts.extend(external(&progress.visited));
    }
    if let Visited::Now(found) = &progress.visited {
        facts.extend(found.sidecars.as_ref().and_then(coherence));
    }
    facts.push(rules(&progress.tier.warnings));
    facts.extend(progress.written.sharing.fact());
    facts.extend(unwatched(&progress.unwatched));
    facts
}

/// Only where something is in the way: being told is the rule.
fn unwatched(kinds: &[String]) -> Option<Fact> {
    (!kinds.is_empty()).then(|| {
        let message = format!(
            "changes of these are noticed only once a minute; give the operator the verbs list and watch on them: {}",
            kinds.join("; ")
        );
        Fact::fails(type_::WATCHED, "Forbidden", message)
    })
}

/// What no server will do before somebody changes the spec.
fn refused(progress: &Progress) -> Option<String> {
    let refused = &progress.refused;
    (!refused.is_empty()).then(|| refused.join("\n"))
}

fn ready(progress: &Progress, waits: Option<&str>, topology: Option<&Fact>) -> Fact {
    if let Some(topology) = topology
        && topology.status != crds::condition::ConditionStatus::True
    {
        let why = [waits.unwrap_or_default(), &topology.message];
        let why: Vec<&str> = why.into_iter().filter(|text| !text.is_empty()).collect();
        return Fact::fails(type_::READY, topology.reason, why.join("; "));
    }
    if let Some(why) = refused(progress) {
        return Fact::fails(type_::READY, REFUSED, why);
    }
    if let Some(why) = waits {
        return Fact::fails(type_::READY, "UnderWay", why);
    }
    match &progress.tier.behind {
        Behind::Memory => Fact::holds(
            type_::READY,
            "MemoryOnly",
            "sidecars are configured and answer from their own memory",
        ),
        Behind::External(_) => Fact::holds(
            type_::READY,
            "Configured",
            "sidecars are configured for the external Redis",
        ),
        Behind::Servers(_) => Fact::holds(
            type_::READY,
            "Serving",
            "all servers are ready and sidecars are configured",
        ),
    }
}

fn reachable(progress: &Progress) -> Fact {
    match primary(progress) {
        Some(pod) => Fact::holds(
            type_::UPSTREAM_REACHABLE,
            "PrimaryAnswers",
            format!("{pod} is the primary"),
        ),
        None => Fact::fails(
            type_::UPSTREAM_REACHABLE,
            "NoPrimary",
            topology::silent(progress).join("; "),
        ),
    }
}

/// A Redis that is not run here, as it answered the last visit.
fn external(visited: &Visited) -> Option<Fact> {
    let type_ = type_::UPSTREAM_REACHABLE;
    match visited {
        Visited::NotYet => None,
        Visited::Never => Some(Fact::unknown(
            type_,
            "NotVisited",
            "it wants TLS, which the operator does not speak to a Redis; the sidecars' /state tells whether they reach it",
        )),
        Visited::Now(Found { answer, .. }) => Some(match answer {
            Ok(who) => Fact::holds(type_, "Answers", format!("{who} answers")),
            Err(why) => Fact::fails(
                type_,
                "DoesNotAnswer",
                format!(
                    "the operator gets no answer: {why}; look at the URL and password in the Secret of spec.redis.external, and at what is between, such as networkPolicy.externalRedisPorts of the chart"
                ),
            ),
        }),
    }
}

/// Whether the sidecars are told of changes, as far as they say.
fn coherence(sidecars: &SidecarsStatus) -> Option<Fact> {
    let SidecarsStatus { live, degraded, .. } = sidecars;
    match (*live, *degraded) {
        (0, _) => None,
        (_, 0) => Some(Fact::fails(type_::COHERENCE_DEGRADED, "Coherent", "")),
        _ => Some(Fact::holds(
            type_::COHERENCE_DEGRADED,
            "SidecarsDegraded",
            format!(
                "{degraded} of {live} sidecars are not told of changes by Redis and keep local copies for a short time only; PANNIER.SIDECARS names them, their /state says why"
            ),
        )),
    }
}

/// The volumes, where servers have some.
fn storage(progress: &Progress) -> Option<Fact> {
    let volumes = match progress.observed.volumes.as_ref()? {
        Ok(volumes) => volumes,
        Err(why) => {
            let unknown = Fact::unknown(type_::STORAGE_HEALTHY, "NotKnown", why.clone());
            return Some(unknown);
        }
    };
    let with = |problem| -> Vec<&str> {
        let having = volumes.iter().filter(|one| one.problem == Some(problem));
        having.map(|one| one.claim.as_str()).collect()
    };
    let fails = |reason, claims: &[&str], why| {
        let message = format!("{}: {why}", claims.join(", "));
        Some(Fact::fails(type_::STORAGE_HEALTHY, reason, message))
    };
    for (problem, reason, why) in [
        (
            Problem::Lost,
            "VolumeLost",
            "its volume is gone, and the data with it; delete the claim, then the pod: a new one is filled by the primary",
        ),
        (
            Problem::Pending,
            "ClaimPending",
            "no volume yet; kubectl describe pvc says what it waits for, often a storage class that does not exist",
        ),
        (
            Problem::ResizePending,
            "FileSystemResizePending",
            "the volume has grown, its file system grows when the pod starts anew",
        ),
    ] {
        let claims = with(problem);
        if !claims.is_empty() {
            return fails(reason, &claims, why);
        }
    }
    Some(Fact::holds(type_::STORAGE_HEALTHY, "Bound", ""))
}

fn configured(progress: &Progress) -> Fact {
    let mut differs = Vec::new();
    for pod in &progress.observed.servers {
        match pod.state() {
            Some(state) if !state.config_mismatches.is_empty() => differs.push(format!(
                "{} shows other values of {}",
                pod.name,
                state.config_mismatches.join(", ")
            )),
            Some(state) if state.config_verified => {}
            _ => {
                return Fact::unknown(
                    type_::CONFIG_APPLIED,
                    "NotVerified",
                    format!("{} was not asked for its configuration yet", pod.name),
                );
            }
        }
    }
    if differs.is_empty() {
        Fact::holds(type_::CONFIG_APPLIED, "Verified", "")
    } else {
        Fact::fails(type_::CONFIG_APPLIED, "Differs", differs.join("; "))
    }
}

/// Each server's word for the passwords that it was seen to accept is compared with that of the
/// tier's Secret: servers that agree with each other may all be behind.
fn credentials(observed: &Observed, held: &Held) -> Fact {
    let states: Vec<&State> = observed
        .servers
        .iter()
        .chain(&observed.sentinels)
        .filter_map(ObservedPod::state)
        .collect();
    let wrong: Vec<String> = states
        .iter()
        .filter_map(|state| {
            Some(format!(
                "{}: {}",
                state.pod,
                state.credential_error.as_ref()?
            ))
        })
        .collect();
    if !wrong.is_empty() {
        return Fact::fails(type_::CREDENTIALS_ROTATED, "Failed", wrong.join("; "));
    }
    let behind = observed.without(&held.generation);
    let behind: Vec<&str> = behind.map(|pod| pod.name.as_str()).collect();
    if observed.servers.is_empty() || !behind.is_empty() {
        let who = if behind.is_empty() {
            "any server".to_owned()
        } else {
            behind.join(", ")
        };
        let further = if held.postponed {
            "; the change that was asked for since waits for that, or the passwords before these would end while they are used"
        } else {
            ""
        };
        return Fact::unknown(
            type_::CREDENTIALS_ROTATED,
            "UnderWay",
            format!("not known yet to have the current passwords: {who}{further}"),
        );
    }
    if held.overlap {
        let message = format!(
            "every server accepts the current passwords, and the previous ones still; these end when you rotate once more, after every app has moved on: give the annotation {} a new value",
            names::ROTATE_PASSWORDS
        );
        return Fact::fails(type_::CREDENTIALS_ROTATED, "Overlap", message);
    }
    Fact::holds(type_::CREDENTIALS_ROTATED, "Current", "")
}

/// Losses of which agents tell, if one is new. Else what was told stands: neither a pod that does
/// not answer for a moment nor one that started anew takes it back.
fn lost(observed: &Observed, before: &[Condition]) -> Option<Fact> {
    let told = before.iter().find(|old| old.type_ == type_::DATA_LOST);
    let told = told.map_or("", |told| told.message.as_str());
    let pods = observed.servers.iter();
    let losses: Vec<String> = pods
        .filter_map(|pod| {
            let why = pod.state()?.data_lost.as_ref()?;
            Some(format!("{}: {why}", pod.name))
        })
        .collect();
    let message = if losses.iter().all(|loss| told.contains(loss.as_str())) {
        told.to_owned()
    } else {
        losses.join("; ")
    };
    (!message.is_empty()).then(|| Fact::holds(type_::DATA_LOST, "DataLost", message))
}

fn rules(warnings: &[String]) -> Fact {
    if warnings.is_empty() {
        Fact::holds(type_::RULES_EFFECTIVE, "AllApply", "")
    } else {
        Fact::fails(type_::RULES_EFFECTIVE, "Shadowed", warnings.join("; "))
    }
}

// === figures ===

/// Ready of wanted servers.
pub(super) fn servers(progress: &Progress) -> Option<String> {
    let _ = progress.tier.servers()?;
    Some(format!(
        "{}/{}",
        progress.ready_pods(),
        progress.wanted_pods
    ))
}

/// The one pod that is known to be the primary.
pub(super) fn primary(progress: &Progress) -> Option<String> {
    let mut primaries = progress
        .observed
        .servers
        .iter()
        .filter(|pod| pod.is_primary());
    let primary = primaries.next()?;
    primaries.next().is_none().then(|| primary.name.clone())
}

/// The other pods, and how they follow. `before` is what the status says of them.
pub(super) fn replicas(progress: &Progress, before: &[ReplicaStatus]) -> Vec<ReplicaStatus> {
    let pods = &progress.observed.servers;
    let newest = pods
        .iter()
        .find(|pod| pod.is_primary())
        .and_then(ObservedPod::server)
        .map(|server| server.offset);
    pods.iter()
        .filter(|pod| !pod.is_primary())
        .map(|pod| {
            let server = pod.server();
            let told = before.iter().find(|told| told.pod == pod.name);
            let measured = server
                .zip(newest)
                .map(|(server, newest)| newest - server.offset);
            ReplicaStatus {
                pod: pod.name.clone(),
                state: server.map_or(ReplicaState::Unknown, |server| follows(server, newest)),
                lag_bytes: measured
                    .map(|measured| lag(measured, told.and_then(|told| told.lag_bytes))),
            }
        })
        .collect()
}

/// What is told of a lag. Under load it is another one at every look, and each write of the status
/// leads to the next look: what was told stands until it is wrong by more than a factor of two.
fn lag(measured: i64, told: Option<i64>) -> i64 {
    match told {
        Some(told) if told > 0 && (told / 2..=told.saturating_mul(2)).contains(&measured) => told,
        _ if measured < NEAR => 0,
        _ => measured,
    }
}

fn follows(server: &Server, newest: Option<i64>) -> ReplicaState {
    if !server.link_up {
        ReplicaState::Disconnected
    } else if !server.synced || server.loading {
        ReplicaState::Syncing
    } else if newest.is_some_and(|newest| newest - server.offset > NEAR) {
        ReplicaState::Behind
    } else {
        ReplicaState::InSync
    }
}

#[cfg(test)]
mod tests;
