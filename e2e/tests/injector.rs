//! The injector as a webhook of a real API server (no kubelet): which pods get a sidecar, what
//! happens when it is away, what it costs, and how its certificate changes.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic is the report; clippy.toml covers only functions marked #[test]"
)]

#[path = "injector/shared.rs"]
mod shared;
#[path = "injector/world.rs"]
mod world;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use e2e::{
    environment::available,
    kubernetes::{ControlPlane, eventually_within},
};
use kube::ResourceExt as _;
use operator::{
    settings::{Scope, UnknownTier},
    webhook::{census, fleet, rotation::Timing},
};
use serde_json::{Value, json};

use self::world::{SLOW, World, env, is_injected, labelled, p99, pod, post, until};

fn plane(test: &str) -> Option<&'static ControlPlane> {
    available(test, ControlPlane::shared())
}

#[tokio::test]
async fn labelled_pods_get_the_sidecar_with_an_event_and_others_do_not() {
    let Some(plane) = plane("labelled_pods_get_the_sidecar_with_an_event_and_others_do_not") else {
        return;
    };
    let world = World::start(plane, UnknownTier::Ignore).await;
    world.serves().await;
    // What restricted namespaces accept, they accept with a sidecar too.
    world
        .label_namespace(json!({"pod-security.kubernetes.io/enforce": "restricted"}))
        .await;
    let mut app = labelled("yes");
    app["spec"]["securityContext"] = json!({"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}});
    app["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let mut dry = app.clone();
    dry["metadata"]["name"] = json!("dry");
    assert!(is_injected(&world.create(&dry, true).await.unwrap()));
    let injected = world.create(&app, false).await.unwrap();
    assert!(is_injected(&injected));
    assert_eq!(injected.labels()["pannier.dev/injected"], "shop");
    assert_eq!(
        env(&injected, "app", "REDIS_URL"),
        Some("redis://localhost:6379")
    );
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    let spec = injected.spec.as_ref().unwrap();
    let mounted = |container: &k8s_openapi::api::core::v1::Container| {
        let mounts = container.volume_mounts.iter().flatten();
        let there = mounts.filter(|one| one.mount_path == token);
        there.map(|one| one.name.clone()).collect::<Vec<_>>()
    };
    let sidecar = &spec.init_containers.as_ref().unwrap()[0];
    assert_eq!(mounted(sidecar), ["pannier-no-token"]);
    assert!(mounted(&spec.containers[0])[0].starts_with("kube-api-access-"));

    let note = world.event("Pod", "yes", "Injected").await;
    assert!(
        note.contains("ConfigMap shop-sidecar, which is not there yet"),
        "{note}"
    );
    assert!(
        world.events("Pod", "dry").await.is_empty(),
        "a dry run has no effect"
    );

    let mut plain = app.clone();
    plain["metadata"] = json!({"name": "plain"});
    assert!(!is_injected(&world.create(&plain, false).await.unwrap()));
    world
        .label_namespace(json!({"pannier.dev/inject": "shop"}))
        .await;
    eventually_within(SLOW, "the label of the namespace counts", || async {
        let mut plain = plain.clone();
        plain["metadata"]["name"] = json!("by-namespace");
        let pod = world.create(&plain, true).await.unwrap();
        is_injected(&pod).then_some(())
    })
    .await;
    app["metadata"] = json!({"name": "no", "labels": {"pannier.dev/inject": "disabled"}});
    assert!(!is_injected(&world.create(&app, false).await.unwrap()));

    let scope = Scope::Namespaces(vec![world.namespace.clone()]);
    let missing = census::uninjected(&world.client, &scope, "elsewhere")
        .await
        .unwrap();
    assert_eq!(missing, [format!("{}/plain", world.namespace)]);
    world.end().await;
}

#[tokio::test]
async fn a_deployment_is_told_of_its_pods_and_of_urls_that_stay() {
    let Some(plane) = plane("a_deployment_is_told_of_its_pods_and_of_urls_that_stay") else {
        return;
    };
    let world = World::start(plane, UnknownTier::Ignore).await;
    world.serves().await;
    let template = json!({
        "metadata": {"labels": {"app": "web", "pannier.dev/inject": "shop"}},
        "spec": {"containers": [{"name": "app", "image": "app:1", "env": [{"name": "REDIS_URL", "value": "redis://elsewhere"}]}]},
    });
    let spec = json!({"spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}});
    world
        .apply("deployments", "apps/v1", "Deployment", "web", spec)
        .await;
    let set = eventually_within(SLOW, "the pods exist", || async {
        let pods = world
            .pods()
            .list(&kube::api::ListParams::default().labels("app=web"))
            .await
            .unwrap();
        if pods.items.len() < 2 {
            return None;
        }
        assert!(pods.iter().all(is_injected));
        assert!(
            pods.iter()
                .all(|pod| env(pod, "app", "REDIS_URL") == Some("redis://elsewhere"))
        );
        Some(pods.items[0].owner_references()[0].name.clone())
    })
    .await;
    world.event("ReplicaSet", &set, "Injected").await;
    let note = world.event("ReplicaSet", &set, "RedisUrlNotReplaced").await;
    assert!(note.contains("container app"), "{note}");
    world.end().await;
}

#[tokio::test]
async fn a_pod_that_comes_twice_has_one_sidecar() {
    let Some(plane) = plane("a_pod_that_comes_twice_has_one_sidecar") else {
        return;
    };
    let world = World::start(plane, UnknownTier::Ignore).await;
    world.serves().await;
    // By copying: what `kubectl get -o yaml | kubectl create` does.
    let first = world.create(&labelled("first"), false).await.unwrap();
    let mut copy = serde_json::to_value(&first).unwrap();
    copy["metadata"] = json!({"name": "copy", "labels": first.labels()});
    let copied = world.create(&copy, false).await.unwrap();
    assert!(is_injected(&copied));
    let volumes = |pod: &k8s_openapi::api::core::v1::Pod| {
        let volumes = pod.spec.as_ref().unwrap().volumes.iter().flatten();
        volumes.map(|one| one.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(volumes(&copied), volumes(&first));
    // By a second entry of the same webhook, which is called after the first and calls it again
    // should it change anything.
    let mut configuration = world.configurations().get(&world.namespace).await.unwrap();
    let mut second = configuration.webhooks.as_ref().unwrap()[1].clone();
    second.name = "again.inject.pannier.dev".to_owned();
    configuration.webhooks.as_mut().unwrap().push(second);
    world
        .configurations()
        .replace(
            &world.namespace,
            &kube::api::PostParams::default(),
            &configuration,
        )
        .await
        .unwrap();
    let metrics = &world.replicas[0].ctx.metrics;
    let reviews = || {
        metrics
            .injections
            .with_label_values(&["injected", ""])
            .get()
    };
    let pod = eventually_within(SLOW, "both entries are called", || async {
        let before = reviews();
        let pod = world.create(&labelled("twice"), true).await.unwrap();
        (reviews() >= before + 2).then_some(pod)
    })
    .await;
    assert!(is_injected(&pod));
    assert_eq!(volumes(&pod).len(), volumes(&first).len());
    world.end().await;
}

#[tokio::test]
async fn an_unknown_tier_is_told_and_refused_only_where_that_is_wanted() {
    let Some(plane) = plane("an_unknown_tier_is_told_and_refused_only_where_that_is_wanted") else {
        return;
    };
    for policy in [UnknownTier::Ignore, UnknownTier::Refuse] {
        let world = World::start(plane, policy).await;
        world.serves().await;
        let stranger = pod("stranger", &json!({"pannier.dev/inject": "nobody"}));
        let created = world.create(&stranger, false).await;
        match policy {
            UnknownTier::Ignore => assert!(!is_injected(&created.unwrap())),
            UnknownTier::Refuse => {
                let error = created.unwrap_err().to_string();
                assert!(error.contains("there is no CacheTier"), "{error}");
            }
        }
        let note = world.event("Pod", "stranger", "InjectionSkipped").await;
        assert!(note.contains("nobody; create the tier"), "{note}");
        // What other installations serve is never refused.
        let elsewhere =
            json!({"pannier.dev/inject": "shop", "pannier.dev/tier-namespace": "elsewhere"});
        let elsewhere = pod("elsewhere", &elsewhere);
        assert!(!is_injected(
            &world.create(&elsewhere, false).await.unwrap()
        ));
        let note = world.event("Pod", "elsewhere", "InjectionSkipped").await;
        assert!(
            note.contains("does not watch namespace elsewhere"),
            "{note}"
        );
        // As soon as it exists.
        world
            .tier("nobody", json!({"redis": {"topology": "None"}}))
            .await;
        let mut later = stranger;
        later["metadata"]["name"] = json!("later");
        assert!(is_injected(&world.create(&later, false).await.unwrap()));
        world.end().await;
    }
}

#[tokio::test]
async fn garbage_is_answered_and_pods_of_three_megabytes_are_injected() {
    let Some(plane) = plane("garbage_is_answered_and_pods_of_three_megabytes_are_injected") else {
        return;
    };
    let world = World::start(plane, UnknownTier::Ignore).await;
    world.serves().await;
    for (path, body, status) in [
        ("/inject", Vec::new(), 400),
        ("/inject", b"{\"kind\": 7".to_vec(), 400),
        ("/inject", vec![0xff; 4096], 400),
        ("/inject", vec![b'['; 4 << 20], 400),
        (
            "/inject",
            br#"{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}"#.to_vec(),
            400,
        ),
        ("/", b"{}".to_vec(), 404),
    ] {
        let bytes = body.len();
        let (found, text) = post(&world, path, body).await.unwrap();
        assert_eq!(found, status, "{path} with {bytes} bytes: {text}");
        assert!(text.ends_with('\n'), "{text}");
    }
    // Too much is not read to its end, so its sender may see a closed connection before the answer.
    if let Ok((status, text)) = post(&world, "/inject", vec![b' '; 9 << 20]).await {
        assert_eq!(status, 413, "{text}");
    }
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": world.namespace, "operation": "CREATE", "userInfo": {},
            "object": {"metadata": {}, "spec": {"containers": "none"}}, "oldObject": null,
        },
    });
    let (status, text) = post(&world, "/inject", review.to_string().into_bytes())
        .await
        .unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &answer["response"]["uid"]), (200, &json!("u")));
    assert_eq!(answer["response"]["allowed"], true);

    let mut large = labelled("large");
    let variables: Vec<Value> = (0..29)
        .map(|number| json!({"name": format!("V{number}"), "value": "v".repeat(100_000)}))
        .collect();
    large["spec"]["containers"][0]["env"] = json!(variables);
    let pod = world.create(&large, true).await.unwrap();
    assert!(is_injected(&pod));
    assert_eq!(
        env(&pod, "app", "REDIS_URL"),
        Some("redis://localhost:6379")
    );
    world.end().await;
}

#[tokio::test]
async fn without_a_webhook_pods_are_created_all_the_same() {
    let Some(plane) = plane("without_a_webhook_pods_are_created_all_the_same") else {
        return;
    };
    let world = World::start(plane, UnknownTier::Ignore).await;
    world.serves().await;
    // One that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let away = e2e::ports::free();
    for (what, port, least) in [
        ("away", away, Duration::ZERO),
        (
            "silent",
            silent.local_addr().unwrap().port(),
            Duration::from_secs(4),
        ),
    ] {
        let url = format!("https://127.0.0.1:{port}/inject");
        world.configure(&[url.clone(), url]).await;
        let took = eventually_within(SLOW, "pods go to the other address", || async {
            let started = Instant::now();
            let pod = world.create(&labelled(what), true).await.unwrap();
            let took = started.elapsed();
            (!is_injected(&pod) && took >= least).then_some(took)
        })
        .await;
        println!("admission with a webhook that is {what}: {took:?}");
    }
    // A certificate that the API server does not believe.
    let world = {
        world.configure(&world_urls(&world)).await;
        world.serves().await;
        world.replicas[0].ctx.metrics.leader.set(0);
        world
    };
    let patch = json!([
        {"op": "replace", "path": "/webhooks/1/clientConfig/caBundle", "value": other_authority()},
    ]);
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    world
        .configurations()
        .patch(
            &world.namespace,
            &kube::api::PatchParams::default(),
            &kube::api::Patch::<()>::Json(patch),
        )
        .await
        .unwrap();
    eventually_within(SLOW, "pods are created without a sidecar", || async {
        let pod = world.create(&labelled("unbelieved"), true).await.unwrap();
        (!is_injected(&pod)).then_some(())
    })
    .await;
    let readiness = &world.replicas[0].ctx.readiness;
    eventually_within(SLOW, "the replica is not ready", || async {
        (!readiness.missing().is_empty()).then_some(())
    })
    .await;
    // The leader sees to it.
    world.replicas[0].ctx.metrics.leader.set(1);
    world.serves().await;
    eventually_within(SLOW, "the replica is ready again", || async {
        readiness.missing().is_empty().then_some(())
    })
    .await;
    world.end().await;
}

fn world_urls(world: &World) -> [String; 2] {
    let url = format!("https://{}/inject", world.replicas[0].running.address);
    [url.clone(), url]
}

/// The bundle of somebody else, in base64.
fn other_authority() -> Value {
    let names = vec!["other".to_owned()];
    let pair =
        operator::webhook::certificate::make(&names, 1_700_000_000, Duration::from_hours(90_000));
    let authority = pair.unwrap().authority.into_bytes();
    json!(k8s_openapi::ByteString(authority))
}

/// Measured, not asserted: the aim is 50 ms.
#[tokio::test]
async fn admission_at_fifty_pods_a_second() {
    let Some(plane) = plane("admission_at_fifty_pods_a_second") else {
        return;
    };
    let world = World::start(plane, UnknownTier::Ignore).await;
    world.serves().await;
    let start = Instant::now();
    let rounds = 250;
    let create = |number: u32, name: &str, pod: Value| {
        let (world, name) = (&world, name.to_owned());
        async move {
            until(start + Duration::from_millis(20) * number).await;
            let mut pod = pod;
            pod["metadata"]["name"] = json!(format!("{name}-{number}"));
            let started = Instant::now();
            let pod = world.create(&pod, true).await.unwrap();
            (is_injected(&pod), started.elapsed())
        }
    };
    let all = futures_util::future::join_all(
        (0..rounds).map(|number| create(number, "with", labelled("x"))),
    );
    let found = all.await;
    assert!(found.iter().all(|(injected, _)| *injected));
    let with = found.into_iter().map(|(_, span)| span).collect();
    let metrics = &world.replicas[0].ctx.metrics;
    let (sum, count) = (
        metrics.admission.get_sample_sum(),
        metrics.admission.get_sample_count(),
    );
    println!(
        "admission at 50 dry-run creates a second, {rounds} of them: p99 of the whole create {:?}; the injector's own part {:.2} ms on average of {count}",
        p99(with),
        sum / f64::from(u32::try_from(count).unwrap()) * 1000.0,
    );
    world.end().await;
}

#[tokio::test]
async fn no_pod_misses_its_sidecar_while_the_certificate_changes() {
    let Some(plane) = plane("no_pod_misses_its_sidecar_while_the_certificate_changes") else {
        return;
    };
    // A new one is due after two thirds of its life.
    let timing = Timing {
        lifetime: Duration::from_secs(45),
        ..world::quick()
    };
    let world = World::start_with(plane, UnknownTier::Ignore, 2, timing).await;
    world.serves().await;
    world
        .label_namespace(json!({"pannier.dev/inject": "shop"}))
        .await;
    eventually_within(SLOW, "the label of the namespace counts", || async {
        let pod = world.create(&pod("probe", &json!({})), true).await.unwrap();
        is_injected(&pod).then_some(())
    })
    .await;
    let bundle = || async {
        let configuration = world.configurations().get(&world.namespace).await.unwrap();
        let webhook = configuration.webhooks.unwrap().swap_remove(0);
        webhook.client_config.ca_bundle.unwrap().0
    };
    let first = bundle().await;
    let mut bundles = BTreeSet::from([first.clone()]);
    let mut pods = 0;
    let started = Instant::now();
    // Old → old and new → new: then both replicas serve the new one.
    while bundles.len() < 3 {
        assert!(
            started.elapsed() < SLOW,
            "{} bundles in two minutes",
            bundles.len()
        );
        // By the first replica, and by the second.
        for labels in [json!({}), json!({"pannier.dev/inject": "shop"})] {
            let created = world.create(&pod("app", &labels), true).await.unwrap();
            assert!(
                is_injected(&created),
                "pod {pods}, {:?} after the start",
                started.elapsed()
            );
            pods += 1;
        }
        bundles.insert(bundle().await);
    }
    let last = bundle().await;
    assert_ne!(first, last);
    for replica in &world.replicas {
        assert_eq!(replica.ctx.readiness.missing(), [""; 0]);
    }
    println!("{pods} pods were created while the certificate changed, and each got its sidecar");
    world.end().await;
}

#[tokio::test]
async fn pods_are_told_when_their_configuration_changes() {
    let Some(plane) = plane("pods_are_told_when_their_configuration_changes") else {
        return;
    };
    let world = World::start(plane, UnknownTier::Ignore).await;
    world.serves().await;
    let ctx = world.replicas[0].ctx.clone();
    let following = {
        let ctx = ctx.clone();
        tokio::spawn(async move { fleet::follow(&ctx).await })
    };
    let reconciling = tokio::spawn(async move { operator::run::controllers(&ctx).await });
    world.create(&labelled("one"), false).await.unwrap();
    world.create(&labelled("two"), false).await.unwrap();
    world
        .create(&pod("stranger", &json!({"app": "x"})), false)
        .await
        .unwrap();
    let told = |name: &'static str| {
        let pods = world.pods();
        async move {
            let pod = pods.get(name).await.unwrap();
            pod.annotations()
                .get("pannier.dev/config-generation")
                .cloned()
        }
    };
    let mut before = Vec::new();
    for name in ["one", "two"] {
        let version = eventually_within(SLOW, "the pod is told", || told(name)).await;
        before.push(version);
    }
    let changed = Instant::now();
    let rules = json!([{"name": "a", "match": "a:*", "ttl": "1m"}]);
    world
        .tier(
            "shop",
            json!({"redis": {"topology": "None"}, "rules": rules}),
        )
        .await;
    for (name, before) in ["one", "two"].into_iter().zip(before) {
        eventually_within(SLOW, "the pod is told of the change", || async {
            told(name).await.filter(|version| *version != before)
        })
        .await;
    }
    println!(
        "from a changed tier to the annotation on its pods: {:?}",
        changed.elapsed()
    );
    assert_eq!(told("stranger").await, None);
    following.abort();
    reconciling.abort();
    world.end().await;
}
