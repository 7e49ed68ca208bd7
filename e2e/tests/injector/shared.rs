//! Pods in a namespace that a tier is shared with: they are told of changes and counted like those
//! beside the tier, with the rights that the operator has there and no others.

use std::{path::Path, sync::Arc};

use e2e::kubernetes::{ControlPlane, eventually_within, new_namespace, service_account_token};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::PostParams};
use operator::{
    context::Ctx,
    settings::{Settings, UnknownTier},
    webhook::{census, fleet},
};
use policy::names::{ALLOW_TIERS_FROM, CONFIG_GENERATION, INJECT, INJECTED, TIER_NAMESPACE};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    plane,
    world::{SLOW, World, pod},
};

/// The operator of a world, by an account with the rights of the manifests.
async fn with_rights(
    plane: &ControlPlane,
    world: &World,
    apps: &str,
    stop: mpsc::Sender<String>,
) -> Arc<Ctx> {
    let kubectl = |line: &str| {
        let done = plane.kubectl().args(line.split_whitespace()).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{line}: {done:?}");
    };
    let rbac = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/rbac");
    kubectl(&format!("apply -f {}", rbac.display()));
    let own = &world.namespace;
    world
        .apply("serviceaccounts", "v1", "ServiceAccount", "op", json!({}))
        .await;
    for (namespace, role) in [
        (own.as_str(), "pannier-operator"),
        (apps, "pannier-operator-copies"),
        (apps, "pannier-operator-injector"),
    ] {
        kubectl(&format!(
            "create rolebinding {role} -n {namespace} --clusterrole={role} --serviceaccount={own}:op"
        ));
    }
    kubectl(&format!(
        "create clusterrolebinding {own} --clusterrole=pannier-operator-namespaces --serviceaccount={own}:op"
    ));
    let token = service_account_token(&world.client, own, "op").await;
    let client = plane.access().clone().with_token(token).client().await;
    let settings = Settings {
        shared: vec![apps.to_owned()],
        ..world.replicas[0].ctx.settings.clone()
    };
    Ctx::new(client, settings, stop)
}

#[tokio::test]
async fn pods_are_told_and_counted_where_their_tier_is_shared_with_the_rights_of_the_manifests() {
    let name =
        "pods_are_told_and_counted_where_their_tier_is_shared_with_the_rights_of_the_manifests";
    let Some(plane) = plane(name) else {
        return;
    };
    let world = World::start(plane, UnknownTier::Ignore).await;
    let apps = new_namespace(&world.client, "apps").await;
    let consent = format!("{ALLOW_TIERS_FROM}/{}", world.namespace);
    world.label(&apps, json!({consent: "allow"})).await;
    let (stop, _stopped) = mpsc::channel(1);
    let ctx = with_rights(plane, &world, &apps, stop).await;
    let following = {
        let ctx = ctx.clone();
        tokio::spawn(async move { fleet::follow(&ctx).await })
    };
    let reconciling = {
        let ctx = ctx.clone();
        tokio::spawn(async move { operator::run::controllers(&ctx).await })
    };
    // No webhook looks at this namespace: one pod is as if it had its sidecar, the other has none.
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), &apps);
    let asks = json!({INJECT: "shop", TIER_NAMESPACE: world.namespace});
    let mut has = asks.clone();
    has[INJECTED] = json!("shop");
    for (name, labels) in [("bare", asks), ("one", has)] {
        let made = serde_json::from_value(pod(name, &labels)).unwrap();
        pods.create(&PostParams::default(), &made).await.unwrap();
    }
    let shared = |ttl: &str| {
        json!({
            "redis": {"topology": "None"},
            "allowedNamespaces": [apps],
            "rules": [{"name": "a", "match": "a:*", "ttl": ttl}],
        })
    };
    let told = || async {
        let pod = pods.get("one").await.unwrap();
        pod.annotations().get(CONFIG_GENERATION).cloned()
    };
    world.tier("shop", shared("1m")).await;
    let before = eventually_within(SLOW, "the pod is told", told).await;
    world.tier("shop", shared("2m")).await;
    eventually_within(SLOW, "the pod is told of the change", || async {
        told().await.filter(|version| *version != before)
    })
    .await;
    let places = ctx.settings.places_of_pods();
    let missing = census::uninjected(&ctx.client, &places, "elsewhere").await;
    assert_eq!(missing.unwrap(), [format!("{apps}/bare")]);
    following.abort();
    reconciling.abort();
    world.end().await;
}
