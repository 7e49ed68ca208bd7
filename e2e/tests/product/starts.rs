//! Startup order: the cache is there before the app sends its first command (S0.7), also while Redis
//! is away (P7).

use std::time::{Duration, Instant};

use e2e::{kubernetes::Cluster, live::spec};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::DeleteParams};
use serde_json::json;

use super::{
    space::{Space, end_of, is_injected, last_words, status},
    world::world,
};

const STARTS: usize = 100;
/// At once; three nodes on two cores bear no more.
const BATCH: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_apps_are_served_from_their_first_command_on() {
    let Some(world) = world("a_hundred_apps_are_served_from_their_first_command_on") else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let space = Space::standalone(world, "starts").await;
    start(&space, "with Redis").await;
    space.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_apps_are_served_from_their_first_command_on_with_redis_down() {
    let Some(world) =
        world("a_hundred_apps_are_served_from_their_first_command_on_with_redis_down")
    else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let space = Space::new(world, "starts-down").await;
    // A Service without endpoints, as a Redis that is gone leaves it.
    world.apply(&json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "gone", "namespace": space.name},
        "spec": {"selector": {"app": "nobody"}, "ports": [{"port": 6379}]},
    }));
    world.apply(&json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "gone", "namespace": space.name},
        "stringData": {"url": format!("redis://gone.{}.svc:6379", space.name)},
    }));
    let tier = space.apply_tier(spec::external("gone")).await;
    println!("the tier says {:?}", tier.condition("Ready").await);
    space.until_injecting().await;
    start(&space, "with Redis down").await;
    space.end().await;
}

/// Starts pods of an app that sends one command at once, on a connection that it tries once, and
/// ends with its result.
async fn start(space: &Space, what: &str) {
    let nodes = space.world.cluster.nodes().iter().cycle();
    let nodes: Vec<String> = nodes.take(STARTS).map(|node| node.name()).collect();
    let begun = Instant::now();
    let mut firsts = Vec::new();
    let mut refused = Vec::new();
    for (batch, nodes) in nodes.chunks(BATCH).enumerate() {
        for (number, node) in nodes.iter().enumerate() {
            let mut pod = space.pod(&format!("first-{batch}-{number}"), &["first"]);
            pod["spec"]["nodeName"] = json!(node);
            pod["spec"]["restartPolicy"] = json!("Never");
            assert!(is_injected(&space.create(&pod).await));
        }
        for number in 0..nodes.len() {
            let pod = space.ended(&format!("first-{batch}-{number}")).await;
            match served(space.world.cluster, &pod) {
                Ok(took) => firsts.push(took),
                Err(error) => refused.push(error),
            }
            let params = DeleteParams::default();
            space.pods().delete(&pod.name_any(), &params).await.unwrap();
        }
    }
    firsts.sort_unstable();
    println!(
        "measured: {STARTS} pod starts {what}: {} refused or failed; first answer after {:.1?} (median), {:.1?} (longest) \
         of the app's life; {:.0?} in all",
        refused.len(),
        firsts.get(firsts.len() / 2).copied().unwrap_or_default(),
        firsts.last().copied().unwrap_or_default(),
        begun.elapsed(),
    );
    assert!(refused.is_empty(), "{refused:#?}");
    assert_eq!(firsts.len(), STARTS);
}

/// How long the first command took, or what became of it.
fn served(cluster: &Cluster, pod: &Pod) -> Result<Duration, String> {
    let ended = end_of(status(pod, "app").state.as_ref()).map(|ended| ended.code);
    if ended == Some(0) {
        let report = last_words(pod);
        assert_eq!(report.first, "PONG");
        return Ok(Duration::from_millis(report.first_ms));
    }
    let namespace = pod.namespace().unwrap_or_default();
    let log = cluster.logs(&namespace, &pod.name_any(), "app");
    Err(format!("{}: exit code {ended:?}: {log}", pod.name_any()))
}
