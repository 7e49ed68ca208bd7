//! A tier is deleted: everything of it goes, its volumes only where the tier says so, and what is made
//! again under the same name is a new tier.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde_json::Value as Json;

use super::super::{Live, SLOW, TIER, Tier, rest};
use crate::{
    environment::unusable,
    kubernetes::{eventually_within, until_gone},
};

const KEY: &str = "kept";

/// The volumes stay, and a tier of the same name begins with their data.
pub async fn volumes_stay(live: &Live, tier: &Tier, redis: &Json) {
    assert_eq!(tier.run(&["SET", KEY, "before"]).await, "OK");
    for server in tier.servers().await {
        eventually_within(SLOW, "every server has it", || async {
            let found = tier.run_on(&server, &["GET", KEY]).await?;
            (found.text() == "before").then_some(())
        })
        .await;
    }
    let (before, took) = deleted(tier).await;
    println!("measured: deleted, volumes stay: all gone after {took:.1?}");
    assert_eq!(claims(live).await.len(), 3, "the claims stay");
    tier.apply(redis.clone()).await;
    let took = tier.until_ready().await;
    println!("measured: made again on its volumes: Ready after {took:.1?}");
    let after = tier.api().get(TIER).await.map(|tier| tier.uid());
    assert_ne!(after.ok().flatten(), before, "it is another tier");
    let found = tier.run(&["GET", KEY]).await;
    assert_eq!(found.text(), "before");
}

/// The tier says that they go.
pub async fn volumes_go(live: &Live, tier: &Tier, redis: &Json) {
    tier.apply(redis.clone()).await;
    tier.until_ready().await;
    let (_, took) = deleted(tier).await;
    println!("measured: deleted with its volumes: all gone after {took:.1?}");
    eventually_within(SLOW, "the claims are gone", || async {
        claims(live).await.is_empty().then_some(())
    })
    .await;
}

/// The namespace with a tier in it ends, whatever the operator does.
pub async fn namespace(live: &Live, tier: &Tier, redis: &Json) {
    tier.apply(redis.clone()).await;
    tier.until_ready().await;
    let all: Api<Namespace> = Api::all(live.client.clone());
    let began = Instant::now();
    all.delete(&live.namespace, &DeleteParams::default())
        .await
        .unwrap_or_else(|error| unusable(&format!("the namespace stays: {error}")));
    until_gone(SLOW, &all, &live.namespace).await;
    println!(
        "measured: namespace of a tier gone {:.1?} after its deletion",
        began.elapsed()
    );
}

/// Deletes the tier, and waits until nothing of it is left; gives its UID and the time that took.
async fn deleted(tier: &Tier) -> (Option<String>, Duration) {
    let began = Instant::now();
    let before = tier.api().get(TIER).await.ok().and_then(|tier| tier.uid());
    tier.api()
        .delete(TIER, &DeleteParams::default())
        .await
        .unwrap_or_else(|error| unusable(&format!("the tier stays: {error}")));
    eventually_within(SLOW, "nothing of the tier is left", || async {
        let pods = tier.servers().await.len() + tier.sentinels().await.len();
        (pods == 0 && rest::objects(tier).await.is_empty()).then_some(())
    })
    .await;
    (before, began.elapsed())
}

async fn claims(live: &Live) -> Vec<PersistentVolumeClaim> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(live.client.clone(), &live.namespace);
    let listed = api.list(&ListParams::default()).await;
    listed
        .unwrap_or_else(|error| unusable(&format!("no claims: {error}")))
        .items
}
