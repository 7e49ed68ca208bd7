//! The flows that our network policies allow are the ones that the product needs: packet filters on the
//! nodes, made from the policies that are in the cluster, stand in for a network plugin that
//! enforces them.

#[path = "flows/enforce.rs"]
mod enforce;
#[path = "flows/policy.rs"]
mod policy_rules;

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use e2e::{kubernetes::eventually_within, live::spec};
use kube::{ResourceExt as _, api::DeleteParams};
use policy::names::{ROTATE_PASSWORDS, SIDECAR};
use serde_json::json;

use self::enforce::Enforcer;
use super::{
    rules::{FAILOVER, Seen},
    space::Space,
    topologies::other_redis,
    world::{SLOW, SYSTEM, world},
};

/// The API server, as pods reach it without a Service.
const API_SERVER: &str = "10.77.0.254:6443";

#[tokio::test(flavor = "multi_thread")]
async fn the_flows_that_the_policies_allow_are_the_only_ones_needed() {
    let Some(world) = world("the_flows_that_the_policies_allow_are_the_only_ones_needed") else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let enforcer = Enforcer::start(world);
    let redis = spec::replicated();
    let (space, tier) = Space::serving(world, "flows", redis.clone()).await;
    let apps = space.apps().await;
    space.begin(&apps);

    // What the product does: a planned switch, one that nobody planned, new passwords, another leader.
    let primary = tier.primary().await;
    tier.delete(&primary, false).await;
    tier.until_replaced(&primary).await;
    tier.until_ready().await;
    let primary = tier.primary().await;
    tier.delete(&primary, true).await;
    tier.until_replaced(&primary).await;
    tier.until_ready().await;
    let before = tier.password("sidecar").await;
    tier.annotate(ROTATE_PASSWORDS, "now").await;
    eventually_within(SLOW, "there are new passwords", || async {
        (tier.password("sidecar").await != before).then_some(())
    })
    .await;
    tier.until("CredentialsRotated", "False", "Overlap").await;
    for pod in world.operators(&space.client).await {
        let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
            kube::Api::namespaced(space.client.clone(), SYSTEM);
        pods.delete(&pod.name_any(), &DeleteParams::default())
            .await
            .unwrap();
        world.until_operators(&space.client, 2).await;
    }
    let mut more = redis;
    more["config"] = json!({"slowlog-max-len": "77"});
    space.apply_tier(more).await;
    tier.until("ConfigApplied", "True", "Verified").await;
    space.until_injecting().await;
    let seen = Seen::once_served(&space, &apps).await;
    println!("measured: policies enforced: {}", seen.line());
    seen.no_read_failed("policies enforced")
        .resumed_within("policies enforced", FAILOVER);
    let said = world.show.test().unwrap();
    assert!(said.contains("Succeeded"), "{said}");
    // A Redis that is no tier's server, visited by the operator.
    let outside = Space::new(world, "outside").await;
    other_redis(&outside).await;
    let external = outside.apply_tier(spec::external("other")).await;
    external.until("UpstreamReachable", "True", "").await;

    // The filters do filter: what no policy allows is dropped.
    let server = tier.servers().await.remove(0);
    let server = world.cluster.network_of(&server, "redis").unwrap();
    let app = world.cluster.network_of(&apps[0], SIDECAR).unwrap();
    let operator = world.operators(&space.client).await.remove(0);
    let operator = operator.status.unwrap().pod_ip.unwrap();
    let closed: SocketAddr = format!("{operator}:12345").parse().unwrap();
    let begun = Instant::now();
    assert!(timed_out(server.reach(API_SERVER.parse().unwrap())));
    assert!(timed_out(app.reach(closed)));
    assert!(begun.elapsed() > Duration::from_secs(2));
    let told = enforcer.stop();
    assert!(!timed_out(server.reach(API_SERVER.parse().unwrap())));
    assert!(!timed_out(app.reach(closed)));

    let (expected, others): (Vec<_>, Vec<_>) = told
        .dropped
        .iter()
        .partition(|flow| flow.port == 6443 || flow.port == 12345);
    println!(
        "measured: policies enforced by {} rule sets: {} flows passed, {} dropped that were not tried on purpose; \
         allowed and not used: {:?}",
        told.applied,
        told.passed.len(),
        others.len(),
        told.unused,
    );
    assert_eq!(expected.len(), 2, "{:#?}", told.dropped);
    assert!(others.is_empty(), "{others:#?}");
    outside.end().await;
    space.end().await;
}

fn timed_out(tried: io::Result<std::net::TcpStream>) -> bool {
    matches!(tried, Err(error) if error.kind() == io::ErrorKind::TimedOut)
}
