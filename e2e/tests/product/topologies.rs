//! Install → each topology → an injected app → a hit, all in namespaces that enforce Pod Security
//! `restricted`.

use std::time::Instant;

use e2e::{kubernetes::eventually_within, live::spec};
use serde_json::{Value as Json, json};

use super::{
    space::{Space, is_injected},
    world::{SLOW, World, world},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_injected_app_has_hits_in_front_of_each_topology_under_restricted_pod_security() {
    let Some(world) =
        world("an_injected_app_has_hits_in_front_of_each_topology_under_restricted_pod_security")
    else {
        return;
    };
    let _alone = world.cluster.alone().await;
    for (prefix, redis) in [
        ("none", json!({"topology": "None"})),
        ("standalone", spec::standalone()),
        ("replicated", spec::replicated()),
        ("external", spec::external("other")),
    ] {
        hits(world, prefix, redis).await;
    }
}

async fn hits(world: &'static World, prefix: &str, redis: Json) {
    let space = Space::new(world, prefix).await;
    // The namespace refuses what is not restricted: who gets in is.
    let mut loose = space.pod("loose", &["idle", "0.0.0.0:8000"]);
    loose["spec"]["securityContext"] = json!({});
    let refused = space
        .try_create(&loose, true)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("violates PodSecurity \"restricted"),
        "{refused}"
    );

    if redis["topology"] == "External" {
        other_redis(&space).await;
    }
    let begun = Instant::now();
    let tier = space.apply_tier(redis).await;
    tier.until("Ready", "True", "").await;
    let ready = begun.elapsed();
    space.until_injecting().await;
    assert!(is_injected(
        &space.create(&space.pod("app", &["run"])).await
    ));
    let pod = space.ready("app").await;
    let hit = eventually_within(SLOW, "the app has hits", || async {
        (space.hits(&pod) > 0).then(|| begun.elapsed())
    })
    .await;
    space.until_served(&pod).await;
    let report = space.report(&pod);
    assert_eq!(report.first, "PONG");
    assert_eq!(report.writes.failed + report.reads.failed, 0, "{report:#?}");
    println!(
        "measured: {prefix}: the tier is Ready {ready:.1?} after it was applied, the injected app has its first hit after \
         {hit:.1?}; restricted enforced"
    );
    space.end().await;
}

/// A Redis that somebody else runs, and the Secret that leads to it.
pub async fn other_redis(space: &Space) {
    let image = space.world.cluster.load_engine(e2e::Engine::Redis7);
    let mut pod = space.pod("other", &["--save", "", "--protected-mode", "no"]);
    pod["metadata"]["labels"] = json!({"app": "other"});
    pod["spec"]["containers"][0]["image"] = json!(image);
    pod["spec"]["containers"][0]["readinessProbe"] =
        json!({"tcpSocket": {"port": 6379}, "periodSeconds": 1});
    space.create(&pod).await;
    space.world.apply(&json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "other", "namespace": space.name},
        "spec": {"selector": {"app": "other"}, "ports": [{"port": 6379}]},
    }));
    space.world.apply(&json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "other", "namespace": space.name},
        "stringData": {"url": format!("redis://other.{}.svc:6379", space.name)},
    }));
    space.ready("other").await;
}
