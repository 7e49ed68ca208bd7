//! The webhook is away, silent, or not believed: pods start all the same, without a sidecar and in
//! time, and get sidecars again as soon as it is well.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use e2e::{http, kubernetes::eventually_within};
use k8s_openapi::{ByteString, api::admissionregistration::v1::MutatingWebhookConfiguration};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    space::{Space, is_injected},
    world::{SLOW, WEBHOOK, World, world},
};

/// `timeoutSeconds` of the webhook, as the chart sets it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What everything else about the creation of a pod may take here.
const REST: Duration = Duration::from_secs(2);

/// Creates a pod and waits until it is ready; gives how long its creation took, and whether it has
/// a sidecar.
async fn started(space: &Space, name: &str) -> (Duration, bool) {
    let pod = space.pod(name, &["idle", "0.0.0.0:8000"]);
    let begun = Instant::now();
    let injected = is_injected(&space.create(&pod).await);
    let took = begun.elapsed();
    space.ready(name).await;
    (took, injected)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_start_while_the_webhook_is_away_and_those_without_a_sidecar_are_counted() {
    let Some(world) =
        world("pods_start_while_the_webhook_is_away_and_those_without_a_sidecar_are_counted")
    else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let space = Space::standalone(world, "hook-away").await;
    let away = world.without_operator(&space.client).await;
    let (took, injected) = started(&space, "away").await;
    drop(away);
    world.until_operators(&space.client, 2).await;
    assert!(!injected);
    let began = Instant::now();
    space.until_injecting().await;
    println!(
        "measured: webhook away: a pod was created within {took:.1?}, without a sidecar; pods get sidecars again \
         {:.1?} after both replicas were ready",
        began.elapsed()
    );
    assert!(took < TIMEOUT + REST, "{took:?}");
    let counted = eventually_within(SLOW, "the pod without its sidecar is counted", || async {
        let counted = uninjected(&space).await;
        (counted >= 1).then_some(counted)
    })
    .await;
    println!(
        "measured: pannier_uninjected_pods says {counted} {:.1?} later",
        began.elapsed()
    );
    let (_, injected) = started(&space, "again").await;
    assert!(injected);
    space.end().await;
}

/// The highest count that a pod of the operator gives: only the leader counts.
async fn uninjected(space: &Space) -> i64 {
    let mut highest = 0;
    for pod in space.world.operators(&space.client).await {
        let Some(ip) = pod.status.as_ref().and_then(|one| one.pod_ip.clone()) else {
            continue;
        };
        let address = SocketAddr::new(ip.parse().unwrap(), 8080);
        let admin = space.world.cluster.forward(address);
        let Ok(metrics) = http::get(admin.address(), "/metrics") else {
            continue;
        };
        let metrics = metrics.text();
        let lines = metrics
            .lines()
            .filter(|line| line.starts_with("pannier_uninjected_pods"));
        let numbers = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok());
        highest = highest.max(numbers.sum());
    }
    highest
}

/// Every packet to the webhook vanishes as long as it lives.
struct BlackHole(&'static World);

impl BlackHole {
    fn open(world: &'static World) -> Self {
        world.nft(
            "table inet pannier_hole {\n  chain forward {\n    type filter hook forward priority -1;\n    tcp dport \
             8443 counter drop\n  }\n}\n",
        );
        Self(world)
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        self.0.nft("delete table inet pannier_hole\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_start_within_the_timeout_while_the_webhook_is_a_black_hole() {
    let Some(world) = world("pods_start_within_the_timeout_while_the_webhook_is_a_black_hole")
    else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let space = Space::standalone(world, "hook-hole").await;
    let hole = BlackHole::open(world);
    let mut spans = Vec::new();
    for number in 0..3 {
        let (took, injected) = started(&space, &format!("hole-{number}")).await;
        assert!(!injected);
        assert!(took < TIMEOUT + REST, "{took:?}");
        spans.push(took);
    }
    assert!(spans[0] + REST > TIMEOUT, "it was a black hole: {spans:?}");
    drop(hole);
    let began = Instant::now();
    space.until_injecting().await;
    println!(
        "measured: webhook a black hole: pods were created within {spans:.1?} (timeout {TIMEOUT:?}), without a sidecar; \
         pods get sidecars again {:.1?} after it",
        began.elapsed()
    );
    space.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_start_while_the_webhooks_certificate_is_not_believed_and_the_operator_mends_it() {
    let Some(world) = world(
        "pods_start_while_the_webhooks_certificate_is_not_believed_and_the_operator_mends_it",
    ) else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let space = Space::standalone(world, "hook-bad").await;
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(space.client.clone());
    let stranger = vec!["other".to_owned()];
    let lifetime = Duration::from_hours(90_000);
    let stranger =
        operator::webhook::certificate::make(&stranger, 1_700_000_000, lifetime).unwrap();
    let stranger = json!(ByteString(stranger.authority.into_bytes()));
    let mut configuration = configurations.get(WEBHOOK).await.unwrap();
    configuration.metadata.managed_fields = None;
    for webhook in configuration.webhooks.iter_mut().flatten() {
        webhook.client_config.ca_bundle = serde_json::from_value(stranger.clone()).unwrap();
    }
    let params = PatchParams::default();
    let patch = json!({"webhooks": configuration.webhooks});
    configurations
        .patch(WEBHOOK, &params, &Patch::Merge(patch))
        .await
        .unwrap();
    let begun = Instant::now();
    let mut spans = Vec::new();
    let missed = eventually_within(
        Duration::from_secs(4),
        "a pod misses its sidecar",
        || async {
            let before = Instant::now();
            let pod = space.pod(
                &format!("bad-{}", begun.elapsed().as_millis()),
                &["idle", "0.0.0.0:8000"],
            );
            let made = space.create(&pod).await;
            let took = before.elapsed();
            (!is_injected(&made)).then(|| (made.name_any(), took))
        },
    )
    .await;
    spans.push(missed.1);
    space.ready(&missed.0).await;
    space.until_injecting().await;
    let mended = begun.elapsed();
    println!(
        "measured: webhook not believed: a pod was created within {:.1?}, without a sidecar; mended by the operator \
         after {mended:.1?}",
        spans[0]
    );
    assert!(spans[0] < TIMEOUT + REST, "{spans:?}");
    space.end().await;
}
