//! Fourth step, pure: what may change now.
//!
//! Builders take their counts from here, never from the spec: a set that follows the spec at once
//! would lose its primary when replicas become fewer. Every destructive step needs positive
//! knowledge: `Unknown` stops it and says what it waits for.

mod roll;

use super::{
    build::Workload,
    observe::{Observed, ObservedPod, View},
    validate::{Refusals, ValidatedTier},
};
use std::fmt;

/// What may change now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The shards, each with the pods that it has now.
    pub shards: Vec<ShardPlan>,
    /// What the shards wait for before their counts may change.
    pub waits: Vec<String>,
    /// What is done before the counts change.
    pub steps: Vec<Step>,
}

/// What one shard has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPlan {
    /// Its number.
    pub index: u32,
    /// Its pods.
    pub pods: u32,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The primary in this pod hands over to a replica.
    SwitchOver {
        /// The pod.
        pod: String,
        /// Its address.
        address: String,
    },
    /// This pod is taken down, to be made anew by its set.
    Replace {
        /// The pod.
        pod: String,
        /// That very pod.
        uid: String,
    },
    /// These settings are given to the server in this pod.
    Configure {
        /// The pod.
        pod: String,
        /// Its address.
        address: String,
        /// Their names.
        settings: Vec<String>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SwitchOver { pod, .. } => write!(f, "{pod} hands over"),
            Self::Replace { pod, .. } => write!(f, "{pod} is made anew"),
            Self::Configure { pod, settings, .. } => {
                write!(f, "{pod} is given {}", settings.join(", "))
            }
        }
    }
}

/// Refuses less memory than is used: the server would remove data, or refuse writes, at once.
pub fn refuse(tier: &ValidatedTier, observed: &Observed) -> Result<(), Refusals> {
    let Some(servers) = tier.servers() else {
        return Ok(());
    };
    let limit = servers.maxmemory();
    let full = observed.servers.iter().find_map(|pod| {
        let server = pod.server()?;
        let shrinks = server.max_memory > limit;
        (shrinks && server.used_memory > limit).then_some((pod, server.used_memory))
    });
    match full {
        None => Ok(()),
        Some((pod, used)) => Err(Refusals::one(
            "MemoryInUse",
            format!(
                "spec.redis.memory: {} leaves {} for data, and {} uses {used} bytes; give more, or delete keys first",
                servers.memory,
                policy::ByteSize(limit),
                pod.name
            ),
        )),
    }
}

/// The counts that may hold now.
pub fn plan(tier: &ValidatedTier, observed: &Observed, live: &[(u32, u32)]) -> Plan {
    let Some(servers) = tier.servers() else {
        return Plan::default();
    };
    let mut plan = Plan::default();
    for index in 0..servers.shards {
        let wanted = servers.pods_per_shard;
        let has = live
            .iter()
            .find(|(shard, _)| *shard == index)
            .map(|(_, pods)| *pods);
        let pods = match has {
            Some(has) if has > wanted => shrink(index, has, wanted, observed, &mut plan),
            _ => wanted,
        };
        plan.shards.push(ShardPlan { index, pods });
    }
    plan
}

/// Fewer pods: the last ones go, and none of them may be the primary. Who the only primary is must be
/// known: one that does not answer may be another.
fn shrink(index: u32, has: u32, wanted: u32, observed: &Observed, plan: &mut Plan) -> u32 {
    let pods = observed.servers.iter().filter(|pod| pod.shard == index);
    let pods: Vec<&ObservedPod> = pods.collect();
    // What does not run is nobody's primary; it may be what is to go.
    let mut running = pods.iter().copied().filter(|pod| !pod.is_down());
    if let Some(why) = running.find_map(unknown) {
        let wait = format!("no pod of shard {index} is taken away while one is not known: {why}");
        plan.waits.push(wait);
        return has;
    }
    let primaries: Vec<&&ObservedPod> = pods.iter().filter(|pod| pod.is_primary()).collect();
    let [primary] = primaries.as_slice() else {
        plan.waits.push(format!(
            "shard {index} has {} primaries; no pod is taken away",
            primaries.len()
        ));
        return has;
    };
    if primary.ordinal < wanted {
        return wanted;
    }
    let mut stay = pods.iter().filter(|pod| pod.ordinal < wanted);
    if stay.any(|pod| pod.is_in_sync()) {
        plan.waits.push(format!(
            "{} is the primary and would go: it hands over first",
            primary.name
        ));
        plan.steps.extend(roll::switch_over(primary));
    } else {
        plan.waits.push(format!(
            "{} is the primary and would go: no replica that stays is in step with it",
            primary.name
        ));
    }
    has
}

/// What is to be done about running pods, once the objects are written: at most one pod is taken
/// down at a time. `sentinels` and `shards` are the pods that there should be.
pub fn steps(
    (sentinels, shards): (u32, &[ShardPlan]),
    workload: &Workload,
    observed: &Observed,
) -> (Vec<Step>, Vec<String>) {
    let mut steps = configure(workload, observed);
    let mut waits = Vec::new();
    let (step, wait) = roll::sentinels(sentinels, workload, observed);
    let rolled = step.is_some() || wait.is_some();
    steps.extend(step);
    waits.extend(wait);
    if !rolled {
        for shard in shards {
            let (step, wait) = roll::shard(shard, workload, observed);
            let busy = step.is_some() || wait.is_some();
            steps.extend(step);
            waits.extend(wait);
            // One shard at a time.
            if busy {
                break;
            }
        }
    }
    (steps, waits)
}

/// Settings that a server shows differently and that it can take over. One that is about to be
/// made anew reads them when it starts: its container may be too small for a larger maxmemory.
fn configure(workload: &Workload, observed: &Observed) -> Vec<Step> {
    let current = |pod: &&ObservedPod| pod.workload.as_deref() == Some(&workload.server);
    observed
        .servers
        .iter()
        .filter(current)
        .filter_map(|pod| {
            let state = pod.state().filter(|state| state.config_verified)?;
            let settings: Vec<String> = state
                .config_mismatches
                .iter()
                .filter(|name| super::build::is_settable(name))
                .cloned()
                .collect();
            (!settings.is_empty()).then(|| Step::Configure {
                pod: pod.name.clone(),
                address: pod.address.clone().unwrap_or_default(),
                settings,
            })
        })
        .collect()
}

/// Why a pod cannot be judged.
fn unknown(pod: &ObservedPod) -> Option<String> {
    match &pod.view {
        View::Unknown(why) => Some(format!("{}: {why}", pod.name)),
        View::Known(state) if state.server.is_none() => {
            Some(format!("{}: {}", pod.name, state.guard))
        }
        View::Known(_) => None,
    }
}

#[cfg(test)]
mod tests;
