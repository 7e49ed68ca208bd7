//! The sidecar is killed, by a signal and for want of memory: it alone starts again, the app goes on.

use std::time::Duration;

use e2e::{kubernetes::eventually_within, wire::encode};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use policy::names::{REDIS_PORT, SIDECAR};

use super::{
    rules::Seen,
    space::{Space, end_of, status},
    world::{SLOW, world},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sidecar_restarts_alone_and_the_app_goes_on() {
    let Some(world) = world("a_killed_sidecar_restarts_alone_and_the_app_goes_on") else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let space = Space::standalone(world, "restarts").await;
    let made = space.create(&space.pod("app", &["run"])).await;
    let pod = space.ready("app").await;
    assert_eq!(pod.uid(), made.uid());
    space.until_served(&pod).await;

    space.begin(std::slice::from_ref(&pod));
    world.cluster.kill_container(&pod, SIDECAR);
    let pod = restarted(&space, &made, 1, "Error").await;
    judge(&space, &pod, "sidecar killed with -9").await;

    space.begin(std::slice::from_ref(&pod));
    world.cluster.squeeze_memory(&pod, SIDECAR);
    fill(&space, &pod);
    let pod = restarted(&space, &made, 2, "OOMKilled").await;
    judge(&space, &pod, "sidecar out of memory").await;
    space.end().await;
}

/// Waits until the sidecar has been started so many times anew, after an end with that reason.
async fn restarted(space: &Space, made: &Pod, times: i32, reason: &str) -> Pod {
    eventually_within(
        SLOW,
        &format!("the sidecar runs again, {reason}"),
        || async {
            let pod = space.pods().get("app").await.unwrap();
            assert_eq!(pod.uid(), made.uid(), "the pod was replaced");
            assert_eq!(
                status(&pod, "app").restart_count,
                0,
                "the app was restarted"
            );
            let sidecar = status(&pod, SIDECAR);
            let runs = sidecar.state.as_ref()?.running.is_some() && sidecar.started == Some(true);
            if sidecar.restart_count < times || !runs {
                return None;
            }
            assert_eq!(sidecar.restart_count, times);
            let ended = end_of(sidecar.last_state.as_ref()).unwrap();
            assert_eq!((ended.code, ended.reason.as_str()), (137, reason));
            super::space::is_ready(&pod).then_some(pod)
        },
    )
    .await
}

async fn judge(space: &Space, pod: &Pod, what: &str) {
    let seen = Seen::once_served(space, std::slice::from_ref(pod)).await;
    println!("measured: {what}: {}", seen.line());
    // The kubelet waits ten seconds before it starts a container again that has failed before.
    seen.resumed_within(what, Duration::from_secs(15));
    let restarts = status(&space.pods().get("app").await.unwrap(), "app").restart_count;
    assert_eq!(restarts, 0);
}

/// A value that needs more memory than is left: the sidecar is killed while it arrives.
fn fill(space: &Space, pod: &Pod) {
    let network = space.world.cluster.network_of(pod, SIDECAR).unwrap();
    let mut wire = e2e::Wire::of(network.dial(REDIS_PORT).unwrap());
    wire.patience(Duration::from_secs(15));
    let value = "x".repeat(24 << 20);
    let answer = wire
        .send(&encode(&["SET", "fill", &value]))
        .and_then(|()| wire.read());
    assert!(answer.is_err(), "there was memory for it: {answer:?}");
}
