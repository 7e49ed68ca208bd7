//! How many pods of a shard, or of the Sentinels, a drain may take away at a time: one. None for
//! a shard of one pod, where a budget would only block the drain.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use crate::cache_tier::{
    object_names::Component,
    plan::Plan,
    validate::{Servers, ValidatedTier},
};

/// Those that are wanted, and the names of those that must not be.
pub(super) struct Budgets {
    pub wanted: Vec<PodDisruptionBudget>,
    pub absent: Vec<String>,
}

pub(super) fn build(tier: &ValidatedTier, servers: &Servers, plan: &Plan) -> Budgets {
    let mut budgets = Budgets {
        wanted: Vec::new(),
        absent: Vec::new(),
    };
    for shard in &plan.shards {
        let name = tier.names.shard(shard.index);
        if shard.pods > 1 {
            let budget = budget(tier, name, Component::Redis, Some(shard.index));
            budgets.wanted.push(budget);
        } else {
            budgets.absent.push(name);
        }
    }
    if servers.sentinels > 0 {
        let name = tier.names.sentinel();
        budgets
            .wanted
            .push(budget(tier, name, Component::Sentinel, None));
    }
    budgets
}

fn budget(
    tier: &ValidatedTier,
    name: String,
    component: Component,
    shard: Option<u32>,
) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: tier.names.meta(name, component, shard),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(tier.names.selector(component, shard)),
                ..LabelSelector::default()
            }),
            // A pod that does not come up must not be held on a node that is drained.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
