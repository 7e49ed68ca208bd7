//! Another release of chart and images, and the end of the operator, while apps work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use e2e::{
    Engine,
    kubernetes::{eventually_within, product::Product},
    live::spec,
};
use policy::names::SIDECAR;
use tokio::time::sleep;

use super::{
    rules::{Seen, nothing_restarted},
    space::Space,
    world::{SLOW, SYSTEM, World, world},
};

/// Tag of the images of the other release.
const NEXT: &str = "next";

#[tokio::test(flavor = "multi_thread")]
async fn chart_and_images_are_upgraded_under_traffic() {
    let Some(world) = world("chart_and_images_are_upgraded_under_traffic") else {
        return;
    };
    let _alone = world.cluster.alone().await;
    for product in Product::ALL {
        world.cluster.load_tagged(product, NEXT);
    }
    let (space, tier) = Space::serving(world, "upgrade", spec::replicated()).await;
    let apps = space.apps().await;
    let before = tier.snapshot().await;

    space.begin(&apps);
    let stop = Arc::new(AtomicBool::new(false));
    let creating = tokio::spawn(create_pods(space.name.clone(), world, Arc::clone(&stop)));
    let begun = Instant::now();
    let operator = &*format!("image.tag={NEXT}");
    let sidecar = &*format!("sidecar.image.tag={NEXT}");
    world.show.upgrade(&[operator, sidecar]).unwrap();
    let upgraded = begun.elapsed();
    tier.until_ready().await;
    stop.store(true, Relaxed);
    let (created, missed) = creating.await.unwrap();
    let seen = Seen::once_served(&space, &apps).await;
    println!(
        "measured: chart and images upgraded in {upgraded:.1?}: {}; {created} pods were created meanwhile, {} without a \
         sidecar",
        seen.line(),
        missed.len()
    );
    seen.nothing_failed("upgrade");
    assert!(missed.is_empty(), "{missed:?}");
    let changed = tier.snapshot().await.since(&before);
    assert_eq!(
        changed, [""; 0],
        "pods of the tier were replaced or restarted"
    );
    nothing_restarted(&space, &apps).await;
    let image = |pod: &k8s_openapi::api::core::v1::Pod| {
        let init = pod.spec.as_ref().unwrap().init_containers.clone();
        let mut all = init.unwrap().into_iter();
        all.find(|one| one.name == SIDECAR).unwrap().image.unwrap()
    };
    // A replica of the old release answers until it has ended.
    let later = space.pod("later", &["run"]);
    eventually_within(SLOW, "new pods get the new sidecar", || async {
        let would_be = space.try_create(&later, true).await.unwrap();
        image(&would_be)
            .ends_with(&format!(":{NEXT}"))
            .then_some(())
    })
    .await;
    space.create(&later).await;
    space.ready("later").await;

    // And another Valkey: replicas first, then the primary hands over.
    space.begin(&apps);
    let newer = world.cluster.load_engine(Engine::Valkey9);
    let servers = tier.servers().await;
    let begun = Instant::now();
    let valkey = format!("serverImages.valkey={newer}");
    world.show.upgrade(&[operator, sidecar, &valkey]).unwrap();
    for server in &servers {
        tier.until_replaced(server).await;
    }
    tier.until_ready().await;
    let took = begun.elapsed();
    let seen = Seen::once_served(&space, &apps).await;
    let lost = space.lost(&apps);
    println!(
        "measured: Valkey 8 to 9 by way of the chart in {took:.1?}: {}, {lost} lost",
        seen.line()
    );
    seen.no_read_failed("another Valkey")
        .resumed_within("another Valkey", Duration::from_secs(2));
    assert_eq!(lost, 0);
    space.end().await;
    world.show.install().unwrap();
}

/// Creates pods that ask for a sidecar until it is told to stop: how many, and when one got none.
async fn create_pods(
    namespace: String,
    world: &'static World,
    stop: Arc<AtomicBool>,
) -> (u32, Vec<Duration>) {
    let client = world.cluster.client().await;
    let begun = Instant::now();
    let (mut created, mut missed) = (0, Vec::new());
    let space = Space {
        world,
        client,
        name: namespace,
    };
    while !stop.load(Relaxed) {
        if !space.injects().await {
            missed.push(begun.elapsed());
        }
        created += 1;
        sleep(Duration::from_millis(100)).await;
    }
    (created, missed)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uninstall_leaves_tiers_apps_and_definitions_and_nothing_of_the_operator() {
    let Some(world) =
        world("an_uninstall_leaves_tiers_apps_and_definitions_and_nothing_of_the_operator")
    else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let (space, tier) = Space::serving(world, "uninstall", spec::replicated()).await;
    let apps = space.apps().await;
    let before = tier.snapshot().await;
    space.begin(&apps);
    world.show.uninstall().unwrap();
    let left = left(world);
    sleep(Duration::from_secs(10)).await;
    let seen = Seen::by(&space, &apps);
    println!("measured: uninstalled: {}; left: {left:?}", seen.line());
    seen.nothing_failed("uninstall");
    let expected = [
        "customresourcedefinition.apiextensions.k8s.io/cachetiers.pannier.dev",
        "customresourcedefinition.apiextensions.k8s.io/sessionpolicies.pannier.dev",
        "namespace/pannier-system",
    ];
    assert_eq!(left, expected);
    let inside = "deployments,pods,services,serviceaccounts,roles,rolebindings,pdb,networkpolicies,secrets,leases";
    let inside = || world.kubectl(&["-n", SYSTEM, "get", inside, "-o", "name"]);
    eventually_within(SLOW, "the operator's namespace is empty", || async {
        (inside().trim() == "serviceaccount/default").then_some(())
    })
    .await;

    // A new installation takes over what is there.
    world.show.install().unwrap();
    tier.until_ready().await;
    space.until_injecting().await;
    let changed = tier.snapshot().await.since(&before);
    assert_eq!(
        changed, [""; 0],
        "pods of the tier were replaced or restarted"
    );
    let seen = Seen::by(&space, &apps);
    println!("measured: installed again: {}", seen.line());
    seen.nothing_failed("installed again");
    nothing_restarted(&space, &apps).await;
    space.end().await;
}

/// Everything outside namespaces that carries our name, but the namespaces of tests.
fn left(world: &World) -> Vec<String> {
    let kinds = "crd,clusterroles,clusterrolebindings,mutatingwebhookconfigurations,namespaces,priorityclasses";
    let all = world.kubectl(&["get", kinds, "-o", "name"]);
    let ours = all.lines().filter(|name| name.contains("pannier"));
    ours.map(str::to_owned).collect()
}
