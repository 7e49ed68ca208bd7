//! Nodes that nobody reaches any longer, and nodes that are drained. These need the cluster alone.

use super::{
    super::{App, Live, TIER, Tier, Trial},
    UNPLANNED,
};
use crate::environment::unusable;
use kube::ResourceExt as _;

/// The node of the primary: another server takes over, and the old one follows it when it is back.
pub async fn primarys_link_down(tier: &Tier, app: &App) {
    let primary = tier.primary().await;
    let node = tier.cluster.node_of(&primary);
    let dns = if node.name() == "node1" {
        ", the one with the DNS,"
    } else {
        ""
    };
    tier.until_watched().await;
    let trial = Trial::begin(tier, app, &format!("link of the primary's node{dns} down")).await;
    node.cut();
    trial.writer.until_written(500);
    node.join();
    let outcome = trial.end().await;
    outcome.compare(UNPLANNED).changed_only(&[]);
    assert_ne!(
        tier.primary().await.uid(),
        primary.uid(),
        "another is the primary"
    );
}

/// Makes the server on a node the primary, by deleting primaries in good order.
pub async fn move_primary_to(tier: &Tier, node: &str) {
    for _ in 0..20 {
        let primary = tier.primary().await;
        if tier.cluster.node_of(&primary).name() == node {
            return;
        }
        tier.until_watched().await;
        tier.delete(&primary, false).await;
        tier.until_replaced(&primary).await;
        tier.until_ready().await;
    }
    unusable(&format!(
        "the primary of {} does not get to {node}",
        tier.namespace
    ));
}

/// `kubectl drain` of every node in turn.
pub async fn drains(live: &Live, tier: &Tier, app: &App) {
    let trial = Trial::begin(tier, app, "every node drained in turn").await;
    for node in live.cluster.nodes() {
        let name = node.name();
        let selector = format!("--pod-selector=pannier.dev/tier={TIER}");
        let drained = live.kubectl(&[
            "drain",
            &name,
            "--delete-emptydir-data",
            "--timeout=180s",
            &selector,
        ]);
        let uncordoned = live.kubectl(&["uncordon", &name]);
        assert!(drained.status.success(), "{drained:?}");
        assert!(uncordoned.status.success(), "{uncordoned:?}");
        tier.until_ready().await;
    }
    trial.end().await.was_planned();
}
