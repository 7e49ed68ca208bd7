//! All pods at once: with volumes the data is there again, without them the tier says what is lost.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, ResourceExt as _, api::DeleteParams};

use super::{
    super::{App, Outcome, Tier, Trial},
    UNPLANNED,
};
use crate::environment::unusable;

/// Goal for the time until a tier whose pods are all deleted serves again.
const ALL_BACK: Duration = Duration::from_mins(1);

/// Every pod of a tier is deleted at once, Sentinels too; gives how it went.
pub async fn all_deleted(tier: &Tier, app: &App, name: &str) -> Outcome {
    let pods = [tier.servers().await, tier.sentinels().await].concat();
    let trial = Trial::begin(tier, app, name).await;
    let began = Instant::now();
    for pod in &pods {
        tier.delete(pod, false).await;
    }
    for pod in &pods {
        tier.until_replaced(pod).await;
    }
    tier.until_ready().await;
    let took = began.elapsed();
    println!("measured: {name}: Ready again {took:.1?} after the deletion");
    let outcome = trial.end().await;
    outcome.compare(ALL_BACK);
    outcome
}

/// The same for a tier that keeps nothing: what was written is lost, and the tier says so.
pub async fn all_deleted_without_volumes(tier: &Tier, app: &App) {
    let outcome = all_deleted(tier, app, "all pods deleted at once, without volumes").await;
    assert!(!outcome.record.lost.is_empty(), "nothing kept it");
    let message = tier.until("DataLost", "True", "DataLost").await;
    println!("measured: DataLost: {message}");
}

/// The primary's pod and its volume are gone; made anew, it is a replica and gets the data back.
pub async fn primary_and_volume_deleted(tier: &Tier, app: &App) {
    let primary = tier.primary().await;
    let trial = Trial::begin(tier, app, "primary's pod and its volume deleted").await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(tier.client.clone(), &tier.namespace);
    claims
        .delete(
            &format!("data-{}", primary.name_any()),
            &DeleteParams::default(),
        )
        .await
        .unwrap_or_else(|error| unusable(&format!("the volume stays: {error}")));
    tier.delete(&primary, true).await;
    tier.until_replaced(&primary).await;
    let outcome = trial.end().await;
    outcome
        .compare(UNPLANNED)
        .changed_only(&[primary.name_any()]);
}
