//! Pods and containers that go away.

use kube::ResourceExt as _;

use super::{
    super::{App, Tier, Trial},
    UNPLANNED,
};

/// `kubectl delete pod` of the primary: its agent hands over first.
pub async fn primary_deleted(tier: &Tier, app: &App) {
    let primary = tier.primary().await;
    let trial = Trial::begin(tier, app, "primary's pod deleted").await;
    tier.delete(&primary, false).await;
    tier.until_replaced(&primary).await;
    let outcome = trial.end().await;
    outcome.was_planned().changed_only(&[primary.name_any()]);
}

/// `kill -9` of process 1 of the primary's container, from the node.
pub async fn primary_killed(tier: &Tier, app: &App) {
    let primary = tier.primary().await;
    let trial = Trial::begin(tier, app, "primary's container killed").await;
    tier.cluster.kill_container(&primary, "redis");
    tier.until_another(&primary).await;
    let outcome = trial.end().await;
    outcome
        .compare(UNPLANNED)
        .changed_only(&[primary.name_any()]);
}

/// A value for which the primary's container has too little memory: the kernel kills the server.
pub async fn primary_out_of_memory(tier: &Tier, app: &App) {
    let primary = tier.primary().await;
    let trial = Trial::begin(tier, app, "primary's container out of memory").await;
    tier.cluster.squeeze_memory(&primary, "redis");
    let value = "x".repeat(24 << 20);
    let answer = tier.run_on(&primary, &["SET", "big", &value]).await;
    assert_eq!(answer, None, "there was memory for it");
    tier.until_another(&primary).await;
    let outcome = trial.end().await;
    outcome
        .compare(UNPLANNED)
        .changed_only(&[primary.name_any()]);
}

/// `kubectl delete pod --force --grace-period=0` of the primary.
pub async fn primary_deleted_at_once(tier: &Tier, app: &App) {
    let primary = tier.primary().await;
    let trial = Trial::begin(tier, app, "primary's pod deleted with --force").await;
    tier.delete(&primary, true).await;
    tier.until_replaced(&primary).await;
    let outcome = trial.end().await;
    outcome
        .compare(UNPLANNED)
        .changed_only(&[primary.name_any()]);
}

/// A Sentinel's pod is gone at once: nobody notices.
pub async fn sentinel_deleted_at_once(tier: &Tier, app: &App) {
    let lost = tier.sentinels().await.remove(0);
    let trial = Trial::begin(tier, app, "a Sentinel's pod deleted with --force").await;
    tier.delete(&lost, true).await;
    tier.until_replaced(&lost).await;
    let outcome = trial.end().await;
    outcome.was_planned().changed_only(&[lost.name_any()]);
}
