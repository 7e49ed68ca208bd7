//! Redis pods go away, one by one, all at once, with their nodes: what injected apps see of it.

use e2e::live::{
    Tier,
    spec::{kept, replicated},
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::Value as Json;

use super::{
    rules::{FAILOVER, Seen, nothing_restarted},
    space::Space,
    world::{World, world},
};

async fn serving(world: &'static World, prefix: &str, redis: Json) -> (Space, Tier, Vec<Pod>) {
    let (space, tier) = Space::serving(world, prefix, redis).await;
    let apps = space.apps().await;
    (space, tier, apps)
}

/// Waits until every app is served again; gives what they have seen.
async fn seen(space: &Space, apps: &[Pod], what: &str) -> Seen {
    let seen = Seen::once_served(space, apps).await;
    println!("measured: {what}: {}", seen.line());
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_is_drained_in_turn_under_load() {
    let Some(world) = world("every_node_is_drained_in_turn_under_load") else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let (space, tier, apps) = serving(world, "drains", replicated()).await;
    for node in world.cluster.nodes() {
        let name = node.name();
        space.begin(&apps);
        let drained = world.try_kubectl(&[
            "drain",
            &name,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--timeout=180s",
        ]);
        world.kubectl(&["uncordon", &name]);
        assert!(drained.status.success(), "{drained:?}");
        tier.until_ready().await;
        world.until_operators(&space.client, 2).await;
        let what = format!("{name} drained");
        seen(&space, &apps, &what)
            .await
            .no_read_failed(&what)
            .resumed_within(&what, FAILOVER);
        let lost = space.lost(&apps);
        assert_eq!(lost, 0, "{what}: acknowledged writes that are not there");
    }
    nothing_restarted(&space, &apps).await;
    space.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_redis_pod_is_killed_and_then_all_at_once() {
    let Some(world) = world("each_redis_pod_is_killed_and_then_all_at_once") else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let (space, tier, apps) = serving(world, "kills", replicated()).await;
    for pod in [tier.servers().await, tier.sentinels().await].concat() {
        let primary = tier.primary().await.uid() == pod.uid();
        let role = if primary { " (the primary)" } else { "" };
        let what = format!("{}{role} killed", pod.name_any());
        space.begin(&apps);
        tier.delete(&pod, true).await;
        tier.until_replaced(&pod).await;
        tier.until_ready().await;
        seen(&space, &apps, &what)
            .await
            .no_read_failed(&what)
            .resumed_within(&what, FAILOVER);
    }
    all_at_once(&space, &tier, &apps, "all Redis pods killed, nothing kept").await;
    nothing_restarted(&space, &apps).await;
    space.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_redis_pods_are_killed_at_once_and_their_volumes_keep_the_data() {
    let Some(world) = world("all_redis_pods_are_killed_at_once_and_their_volumes_keep_the_data")
    else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let (space, tier, apps) = serving(world, "kills-kept", kept(replicated())).await;
    all_at_once(&space, &tier, &apps, "all Redis pods killed, with volumes").await;
    let lost = space.lost(&apps);
    println!("measured: all Redis pods killed, with volumes: {lost} acknowledged writes lost");
    nothing_restarted(&space, &apps).await;
    space.end().await;
}

/// Every pod of the tier at once, without a grace period.
async fn all_at_once(space: &Space, tier: &Tier, apps: &[Pod], what: &str) {
    let pods = [tier.servers().await, tier.sentinels().await].concat();
    space.begin(apps);
    for pod in &pods {
        tier.delete(pod, true).await;
    }
    for pod in &pods {
        tier.until_replaced(pod).await;
    }
    tier.until_ready().await;
    let seen = seen(space, apps, what).await;
    seen.no_read_failed(what);
}
