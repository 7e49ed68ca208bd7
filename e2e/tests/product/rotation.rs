//! The webhook's certificate is changed in good time, by two replicas, while pods are created: none
//! misses its sidecar.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::sleep;

use super::{
    space::Space,
    world::{SLOW, SYSTEM, WEBHOOK, world},
};

/// Where the certificate lies.
const SECRET: &str = "pannier-operator-webhook";

#[tokio::test(flavor = "multi_thread")]
async fn no_pod_misses_its_sidecar_while_the_certificate_changes() {
    let Some(world) = world("no_pod_misses_its_sidecar_while_the_certificate_changes") else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let space = Space::standalone(world, "rotation").await;
    let first = bundle(&space.client).await;
    due(&space.client).await;

    let begun = Instant::now();
    let mut bundles = BTreeSet::new();
    let mut missed = Vec::new();
    let mut created = 0;
    // Old → both → new.
    loop {
        assert!(begun.elapsed() < SLOW, "{} bundles so far", bundles.len());
        if !space.injects().await {
            missed.push(begun.elapsed());
        }
        created += 1;
        let now = bundle(&space.client).await;
        let done = now != first && certificates(&now) == 1;
        bundles.insert(now);
        if done {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    println!(
        "measured: certificate changed within {:.0?}: {created} pods were created meanwhile, {} without a sidecar",
        begun.elapsed(),
        missed.len()
    );
    assert!(missed.is_empty(), "{missed:?}");
    assert!(
        bundles.iter().any(|one| certificates(one) == 2),
        "both were believed for a while"
    );
    let operators = world.operators(&space.client).await;
    assert!(operators.iter().all(super::space::is_ready));
    space.end().await;
}

/// Makes the operator believe that the certificate ends tomorrow: a new one is due. Former replicas, of
/// which other tests leave some, are forgotten: the operator does that after three hours.
async fn due(client: &Client) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let tomorrow = (now + Duration::from_hours(24)).as_secs().to_string();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM);
    let secret = secrets.get(SECRET).await.unwrap();
    let served = secret.annotations().keys();
    let served = served.filter(|name| name.starts_with("serves.pannier.dev/"));
    let forgotten: BTreeMap<&String, Option<()>> = served.map(|name| (name, None)).collect();
    let patch = json!({
        "metadata": {"annotations": forgotten},
        "stringData": {"expires": tomorrow},
    });
    secrets
        .patch(SECRET, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

async fn bundle(client: &Client) -> Vec<u8> {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let mut configuration = configurations.get(WEBHOOK).await.unwrap();
    let webhook = configuration.webhooks.as_mut().unwrap().remove(0);
    webhook.client_config.ca_bundle.unwrap().0
}

fn certificates(bundle: &[u8]) -> usize {
    String::from_utf8_lossy(bundle)
        .matches("BEGIN CERTIFICATE")
        .count()
}
