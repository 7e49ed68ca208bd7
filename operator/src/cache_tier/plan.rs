//! Fourth step, pure: what may change now.
//!
//! Builders take their counts from here, never from the spec: a set that follows the spec at once
//! would lose its primary when replicas become fewer.

use super::validate::ValidatedTier;

/// What may change now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The shards, each with the pods that it has now.
    pub shards: Vec<ShardPlan>,
}

/// What one shard has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPlan {
    /// Its number.
    pub index: u32,
    /// Its pods.
    pub pods: u32,
}

/// What may change now.
pub fn plan(tier: &ValidatedTier) -> Plan {
    let Some(servers) = tier.servers() else {
        return Plan::default();
    };
    Plan {
        shards: (0..servers.shards)
            .map(|index| ShardPlan {
                index,
                pods: servers.pods_per_shard,
            })
            .collect(),
    }
}
