//! Numbers of an injected pod: how much later it is Ready than the same pod with an idle sidecar, what
//! admission costs, and what the sidecar takes.

use std::time::{Duration, Instant};

use e2e::{environment::unusable, kubernetes::until_gone};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::DeleteParams};
use policy::names::SIDECAR;
use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::{
    space::{Space, is_injected},
    world::{SLOW, world},
};

/// How much later an injected pod may be Ready.
const LATER: Duration = Duration::from_millis(300);
const ROUNDS: usize = 15;
/// Admission at so many pods a second.
const RATE: u32 = 50;
const SECONDS: u32 = 5;
/// Goals for admission and memory.
const ADMISSION: Duration = Duration::from_millis(50);
const MEMORY: u64 = 15 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_injected_pod_is_ready_as_soon_as_one_with_an_idle_sidecar() {
    let Some(world) = world("an_injected_pod_is_ready_as_soon_as_one_with_an_idle_sidecar") else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let space = Space::standalone(world, "ready").await;
    let mut with_ours = Vec::new();
    let mut with_idle = Vec::new();
    for round in 0..ROUNDS {
        // In turn, and on each node: whatever else the machine does hits both.
        let node = world.cluster.node(1 + round % 3).name();
        let mut pod = space.pod(&format!("ours-{round}"), &["idle", "0.0.0.0:8000"]);
        pod["spec"]["nodeName"] = json!(node);
        with_ours.push(until_ready(&space, &pod, true).await);
        let mut pod = space.pod(&format!("idle-{round}"), &["idle", "0.0.0.0:8000"]);
        pod["metadata"]["labels"] = json!({"app": "idle"});
        pod["spec"]["nodeName"] = json!(node);
        pod["spec"]["initContainers"] = json!([idle(&space)]);
        with_idle.push(until_ready(&space, &pod, false).await);
    }
    let (ours, idle) = (median(&with_ours), median(&with_idle));
    let later = ours.saturating_sub(idle);
    let goal = if later <= LATER { "met" } else { "missed" };
    println!(
        "measured: Ready after creation: injected {ours:.0?} (median of {ROUNDS}; {:.0?} to {:.0?}), with an idle sidecar \
         of the same probes {idle:.0?} ({:.0?} to {:.0?}): {later:.0?} later, goal {LATER:?} {goal}",
        with_ours.iter().min().unwrap(),
        with_ours.iter().max().unwrap(),
        with_idle.iter().min().unwrap(),
        with_idle.iter().max().unwrap(),
    );
    assert!(later < LATER * 5, "{later:?}");
    space.end().await;
}

/// A native sidecar that does nothing, probed as ours is.
fn idle(space: &Space) -> Json {
    let mut sidecar = space.world.container(&["idle", "0.0.0.0:9464"]);
    sidecar["name"] = json!("idle");
    sidecar["restartPolicy"] = json!("Always");
    sidecar["ports"] = json!([{"name": "admin", "containerPort": 9464}]);
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": "admin"},
            "periodSeconds": period, "timeoutSeconds": 2, "failureThreshold": failures,
        })
    };
    sidecar["startupProbe"] = probe("/ready", 1, 60);
    sidecar["livenessProbe"] = probe("/live", 10, 3);
    sidecar
}

/// Creates a pod; how long until it is Ready. Removes it again.
async fn until_ready(space: &Space, pod: &Json, injected: bool) -> Duration {
    let begun = Instant::now();
    let made = space.create(pod).await;
    assert_eq!(is_injected(&made), injected);
    space.ready(&made.name_any()).await;
    let took = begun.elapsed();
    let params = DeleteParams::default().grace_period(1);
    space
        .pods()
        .delete(&made.name_any(), &params)
        .await
        .unwrap();
    until_gone(SLOW, &space.pods(), &made.name_any()).await;
    took
}

fn median(spans: &[Duration]) -> Duration {
    let mut spans = spans.to_vec();
    spans.sort_unstable();
    spans[spans.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_sidecar_takes_little_memory() {
    let Some(world) = world("an_idle_sidecar_takes_little_memory") else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let space = Space::standalone(world, "memory").await;
    space
        .create(&space.pod("app", &["idle", "0.0.0.0:8000"]))
        .await;
    let pod = space.ready("app").await;
    sleep(Duration::from_secs(10)).await;
    let resident = world.cluster.resident(&pod, SIDECAR);
    let goal = if resident <= MEMORY { "met" } else { "missed" };
    let mebibytes = |bytes: u64| bytes >> 20;
    println!(
        "measured: idle sidecar in its pod: {} MiB resident ({} KiB), goal {} MiB {goal}",
        mebibytes(resident),
        resident >> 10,
        mebibytes(MEMORY)
    );
    assert!(resident < 2 * MEMORY, "{resident}");
    space.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_takes_milliseconds_at_fifty_pods_a_second() {
    let Some(world) = world("admission_takes_milliseconds_at_fifty_pods_a_second") else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let space = Space::standalone(world, "admission").await;
    let labelled = space.pod("labelled", &["idle", "0.0.0.0:8000"]);
    let mut plain = labelled.clone();
    plain["metadata"]["labels"] = json!({});
    let without = rate(&space, &plain, false).await;
    let with = rate(&space, &labelled, true).await;
    let goal = if with.1 <= ADMISSION { "met" } else { "missed" };
    println!(
        "measured: dry-run creates at {RATE} a second for {SECONDS} s: with injection median {:.1?}, p99 {:.1?}; without \
         {:.1?}, {:.1?} (goal p99 {ADMISSION:?} {goal})",
        with.0, with.1, without.0, without.1
    );
    assert!(with.1 < Duration::from_secs(1), "{with:?}");
    space.end().await;
}

/// Creates, for trial only, at a fixed rate whether or not the one before was answered; median and
/// p99.
async fn rate(space: &Space, pod: &Json, injected: bool) -> (Duration, Duration) {
    let object: Pod = serde_json::from_value(pod.clone()).unwrap();
    let params = kube::api::PostParams {
        dry_run: true,
        field_manager: None,
    };
    let mut pause = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut under_way = Vec::new();
    for _ in 0..RATE * SECONDS {
        pause.tick().await;
        let (pods, object, params) = (space.pods(), object.clone(), params.clone());
        under_way.push(tokio::spawn(async move {
            let begun = Instant::now();
            let made = pods.create(&params, &object).await.unwrap();
            (is_injected(&made), begun.elapsed())
        }));
    }
    let mut spans = Vec::new();
    for one in under_way {
        let (is, took) = one.await.unwrap();
        if is != injected {
            unusable("a pod missed its sidecar");
        }
        spans.push(took);
    }
    spans.sort_unstable();
    (spans[spans.len() / 2], spans[spans.len() * 99 / 100])
}
