//! The whole product on a real cluster, as a user has it: the chart, a tier, an app with a label; an
//! upgrade, and what an uninstall leaves.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic is the report; clippy.toml covers only functions marked #[test]"
)]

use std::time::{Duration, Instant};

use e2e::{
    Engine,
    environment::available,
    kubernetes::{Cluster, product::Product},
    process::Folder,
    trial::Show,
};

/// From `helm install` to the first hit of an injected pod, with the images present. The aim is 30 s;
/// the limit leaves room for a busy machine.
const LIMIT: Duration = Duration::from_mins(3);

fn kubectl(show: &Show, arguments: &[&str]) -> String {
    let output = show.kubectl().args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Restarts of all containers of the app's pod, and its name.
fn app(show: &Show) -> String {
    let columns = "jsonpath={.items[*].metadata.name} {.items[*].status.containerStatuses[*].restartCount} \
                   {.items[*].status.initContainerStatuses[*].restartCount}";
    kubectl(
        show,
        &[
            "-n",
            "pannier-demo",
            "get",
            "pods",
            "-l",
            "app=demo",
            "-o",
            columns,
        ],
    )
}

#[test]
fn install_to_hit_upgrade_and_uninstall() {
    let test = "install_to_hit_upgrade_and_uninstall";
    let Some(cluster) = available(test, Cluster::start(3)) else {
        return;
    };
    for product in Product::ALL {
        cluster.load_released(product);
    }
    let valkey = cluster.load_engine(Engine::Valkey8);
    // The chart brings the definitions.
    let folder = Folder::new("install");
    let show = Show::on(cluster.plane().kubeconfig(), folder.path())
        .unwrap()
        .valkey(&valkey);
    kubectl(
        &show,
        &[
            "delete",
            "crd",
            "cachetiers.pannier.dev",
            "sessionpolicies.pannier.dev",
        ],
    );

    let begun = Instant::now();
    show.install().unwrap();
    let installed = begun.elapsed();
    show.apply_demo().unwrap();
    show.wait_for_tier().unwrap();
    let ready = begun.elapsed();
    let ratio = show.wait_for_hits().unwrap();
    let hit = begun.elapsed();
    println!(
        "installed {installed:.1?}, tier ready {ready:.1?}, first hits {hit:.1?} after helm install: {ratio}"
    );
    assert!(hit < LIMIT, "{hit:?}");
    let containers = kubectl(
        &show,
        &[
            "-n",
            "pannier-demo",
            "get",
            "pods",
            "-l",
            "app=demo",
            "-o",
            "jsonpath={.items[0].spec.initContainers[*].name}",
        ],
    );
    assert_eq!(containers, "pannier-sidecar", "it was injected");

    let said = show.test().unwrap();
    assert!(said.contains("Succeeded"), "{said}");

    // An upgrade rolls the operator and nothing else.
    let before = app(&show);
    let server = [
        "-n",
        "pannier-demo",
        "get",
        "pod",
        "shop-shard-0-0",
        "-o",
        "jsonpath={.metadata.uid}",
    ];
    let server_before = kubectl(&show, &server);
    show.upgrade(&["podAnnotations.upgraded=yes"]).unwrap();
    assert_eq!(app(&show), before);
    assert_eq!(kubectl(&show, &server), server_before);
    show.wait_for_tier().unwrap();

    // The tier and its servers stay with their definitions; nothing of the operator does.
    show.uninstall().unwrap();
    assert_eq!(app(&show), before);
    assert_eq!(kubectl(&show, &server), server_before);
    let tiers = kubectl(
        &show,
        &["-n", "pannier-demo", "get", "cachetiers", "-o", "name"],
    );
    assert_eq!(tiers.trim(), "cachetier.pannier.dev/shop");
    let all = "deployments,services,serviceaccounts,roles,rolebindings,pdb,networkpolicies,secrets,leases";
    let left = kubectl(&show, &["-n", "pannier-system", "get", all, "-o", "name"]);
    assert_eq!(left.trim(), "serviceaccount/default");
    let all = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,namespaces";
    let left = kubectl(&show, &["get", all, "-o", "name"]);
    let left: Vec<&str> = left
        .lines()
        .filter(|name| name.contains("pannier"))
        .collect();
    assert_eq!(left, ["namespace/pannier-demo", "namespace/pannier-system"]);
}
