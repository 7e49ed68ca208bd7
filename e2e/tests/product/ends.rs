//! The end of pods: the cache is there until the app has ended, and keeps no Job from completing.

use std::time::{Duration, Instant};

use e2e::kubernetes::eventually_within;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use policy::names::{INJECT, SIDECAR};
use serde_json::json;

use super::{
    space::{Space, end_of, is_injected, last_words, status},
    world::{SLOW, world},
};
use e2e::live::TIER;

/// How long the app's handler of SIGTERM works.
const HANDLER: Duration = Duration::from_secs(20);
/// Goal for a Job after its app has ended.
const JOB: Duration = Duration::from_secs(10);
/// Keeps a deleted pod readable until its last words are read.
const KEEP: &str = "e2e.pannier.dev/read";

#[tokio::test(flavor = "multi_thread")]
async fn the_apps_own_handler_of_sigterm_reaches_the_cache_for_twenty_seconds() {
    let Some(world) = world("the_apps_own_handler_of_sigterm_reaches_the_cache_for_twenty_seconds")
    else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let space = Space::standalone(world, "sigterm").await;
    let linger = HANDLER.as_secs().to_string();
    let mut pod = space.pod("app", &["run", "--linger", &linger]);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(60);
    pod["metadata"]["finalizers"] = json!([KEEP]);
    assert!(is_injected(&space.create(&pod).await));
    let running = space.ready("app").await;
    space.until_served(&running).await;
    let begun = Instant::now();
    let params = DeleteParams::default();
    space.pods().delete("app", &params).await.unwrap();
    let ended = eventually_within(SLOW, "both containers have ended", || async {
        let pod = space.pods().get("app").await.unwrap();
        let both = ["app", SIDECAR].map(|one| end_of(status(&pod, one).state.as_ref()));
        both.iter().all(Option::is_some).then_some(pod)
    })
    .await;
    let took = begun.elapsed();
    let kept = json!({"metadata": {"finalizers": null}});
    let params = PatchParams::default();
    space
        .pods()
        .patch("app", &params, &Patch::Merge(kept))
        .await
        .unwrap();
    let report = last_words(&ended);
    let [app, sidecar] =
        ["app", SIDECAR].map(|one| end_of(status(&ended, one).state.as_ref()).unwrap());
    println!(
        "measured: SIGTERM: the app went on for {:.1} s, {} commands answered, {} failed; the sidecar ended {} s after \
         it with code {}; all ended {took:.1?} after the deletion",
        Duration::from_millis(report.farewell_ms).as_secs_f32(),
        report.farewell.answered,
        report.farewell.failed,
        sidecar.at - app.at,
        sidecar.code,
    );
    assert_eq!(report.farewell.failed, 0, "{report:#?}");
    assert!(report.farewell.answered > 1000, "{report:#?}");
    assert!(Duration::from_millis(report.farewell_ms) >= HANDLER);
    assert_eq!((app.code, sidecar.code), (0, 0));
    assert!(sidecar.at >= app.at);
    space.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_complete_when_their_app_has_ended() {
    let Some(world) = world("jobs_complete_when_their_app_has_ended") else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let space = Space::standalone(world, "jobs").await;
    let names: Vec<String> = (0..5).map(|number| format!("job-{number}")).collect();
    for name in &names {
        let mut template = world.spec(&["run", "--for", "3"]);
        template["restartPolicy"] = json!("Never");
        world.apply(&json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": name, "namespace": space.name},
            "spec": {"backoffLimit": 0, "template": {
                "metadata": {"labels": {"app": name, INJECT: TIER}}, "spec": template,
            }},
        }));
    }
    let jobs: Api<Job> = Api::namespaced(space.client.clone(), &space.name);
    let mut spans = Vec::new();
    for name in &names {
        let completed = eventually_within(SLOW, &format!("{name} is complete"), || async {
            let job = jobs.get(name).await.unwrap();
            let status = job.status?;
            assert!(status.failed.is_none(), "{name}: {status:#?}");
            status.completion_time
        })
        .await;
        let pod = pod_of(&space, name).await;
        assert!(is_injected(&pod));
        let report = last_words(&pod);
        let failed = report.writes.failed + report.reads.failed;
        assert_eq!((report.first.as_str(), failed), ("PONG", 0), "{report:#?}");
        let app = end_of(status(&pod, "app").state.as_ref()).unwrap();
        spans.push(completed.0.as_second() - app.at);
    }
    println!(
        "measured: Jobs complete so many seconds after their app has ended: {spans:?} (goal {JOB:?})"
    );
    let longest = spans.into_iter().max().unwrap_or_default();
    assert!(longest <= 10, "{longest} s");
    space.end().await;
}

async fn pod_of(space: &Space, job: &str) -> Pod {
    let params = ListParams::default().labels(&format!("job-name={job}"));
    let mut pods = space.pods().list(&params).await.unwrap().items;
    let names: Vec<String> = pods.iter().map(|pod| pod.name_any()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    pods.remove(0)
}
