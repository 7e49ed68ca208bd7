//! etcd, API server and controllers without nodes.

use std::{path::Path, process::Command, time::Duration};

use e2e::{
    environment::available,
    kubernetes::{
        ApiServer, ControlPlane, Target, apply_crds, eventually, new_namespace,
        service_account_token, sweep, sweep_borrowed, until_gone,
    },
    process::{Folder, Process},
    until,
    wait::PATIENCE,
};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, PostParams, PropagationPolicy},
};
use serde_json::json;

#[tokio::test]
async fn our_definitions_are_served_with_columns_that_a_person_wants() {
    let test = "our_definitions_are_served_with_columns_that_a_person_wants";
    let Some(plane) = available(test, ControlPlane::shared()) else {
        return;
    };
    let namespace = new_namespace(&plane.client().await, "columns").await;
    let manifest = "apiVersion: pannier.dev/v1alpha1\nkind: CacheTier\n\
                    metadata: {name: carts}\nspec: {redis: {topology: None}}\n";
    let file = std::env::temp_dir().join(format!("{namespace}.yaml"));
    std::fs::write(&file, manifest).unwrap();
    let run = |arguments: &[&str]| {
        let mut kubectl = plane.kubectl();
        let output = kubectl.args(["-n", &namespace]).args(arguments).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let file = file.display().to_string();
    assert!(run(&["apply", "-f", &file]).contains("cachetier.pannier.dev/carts created"));
    let table = run(&["get", "ct"]);
    let (columns, row) = table.split_once('\n').unwrap();
    for column in ["NAME", "TOPOLOGY", "READY", "AGE"] {
        assert!(columns.contains(column), "{table}");
    }
    assert!(row.starts_with("carts"), "{table}");
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn a_service_account_may_do_what_it_was_granted_and_no_more() {
    let test = "a_service_account_may_do_what_it_was_granted_and_no_more";
    let Some(plane) = available(test, ControlPlane::shared()) else {
        return;
    };
    let admin = plane.client().await;
    let namespace = new_namespace(&admin, "account").await;
    let token = service_account_token(&admin, &namespace, "default").await;
    let client = plane.access().clone().with_token(token).client().await;
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let refused = maps.list(&kube::api::ListParams::default()).await;
    let kube::Error::Api(status) = refused.unwrap_err() else {
        panic!("an answer of the API server is expected");
    };
    assert_eq!(status.code, 403, "{status:?}");
    let user = format!("system:serviceaccount:{namespace}:default");
    assert!(status.message.contains(&user), "{status:?}");
}

#[tokio::test]
async fn controllers_create_pods_and_collect_what_has_no_owner_any_more() {
    let test = "controllers_create_pods_and_collect_what_has_no_owner_any_more";
    let Some(plane) = available(test, ControlPlane::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "owner").await;
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let set: StatefulSet = serde_json::from_value(json!({
        "metadata": {"name": "s"},
        "spec": {
            "serviceName": "s",
            "selector": {"matchLabels": {"app": "s"}},
            "template": {
                "metadata": {"labels": {"app": "s"}},
                "spec": {"containers": [{"name": "c", "image": "none"}]},
            },
        },
    }))
    .unwrap();
    sets.create(&PostParams::default(), &set).await.unwrap();
    let pod = eventually("the pod of the set", || async {
        pods.get_opt("s-0").await.unwrap()
    });
    assert_eq!(pod.await.owner_references().len(), 1);
    let background = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    sets.delete("s", &background).await.unwrap();
    until_gone(PATIENCE, &pods, "s-0").await;
}

#[tokio::test]
async fn a_killed_api_server_comes_back_with_what_was_stored() {
    let test = "a_killed_api_server_comes_back_with_what_was_stored";
    let Some(plane) = available(test, ControlPlane::start()) else {
        return;
    };
    let client = plane.client().await;
    apply_crds(&client).await;
    let namespace = new_namespace(&client, "stored").await;
    plane.pause_api_server();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let all = kube::api::ListParams::default();
    let answer = tokio::time::timeout(Duration::from_millis(300), maps.list(&all));
    assert!(answer.await.is_err(), "a paused server does not answer");
    plane.resume_api_server();
    plane.kill_api_server();
    assert!(client.apiserver_version().await.is_err());
    plane.start_api_server();
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(plane.client().await);
    assert!(namespaces.get_opt(&namespace).await.unwrap().is_some());
}

#[tokio::test]
async fn a_cluster_that_the_user_names_is_used_and_its_nodes_are_left_alone() {
    let test = "a_cluster_that_the_user_names_is_used_and_its_nodes_are_left_alone";
    let Some(plane) = available(test, ControlPlane::shared()) else {
        return;
    };
    let target = Target::Borrowed(plane.kubeconfig().clone());
    let namespace = new_namespace(&target.client().await, "borrowed").await;
    let mut kubectl = target.kubectl().unwrap();
    let output = kubectl.args(["get", "namespaces", "-o", "name"]).output();
    let output = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(output.contains(&namespace), "{output}");
    let refused = target.own().err().map(|error| error.to_string());
    assert!(refused.unwrap().contains("PANNIER_E2E_KUBECONFIG"));
}

#[tokio::test]
async fn a_borrowed_api_server_is_reached_by_an_account_of_its_own_and_swept_in_the_end() {
    let test = "a_borrowed_api_server_is_reached_by_an_account_of_its_own_and_swept_in_the_end";
    // One of its own: namespaces of other tests would be swept too.
    let Some(plane) = available(test, ControlPlane::start()) else {
        return;
    };
    let borrowed = ApiServer::borrow(plane.kubeconfig()).unwrap();
    assert_ne!(borrowed.access().token, plane.access().token);
    let client = borrowed.client().await;
    let namespace = new_namespace(&client, "borrowed").await;
    let mut kubectl = borrowed.kubectl();
    let tiers = kubectl.args(["get", "cachetiers", "-A"]).output().unwrap();
    assert!(tiers.status.success(), "{tiers:?}");
    let removed = sweep_borrowed(plane.kubeconfig()).await.unwrap();
    assert!(
        removed.contains(&format!("namespace {namespace}")),
        "{removed:?}"
    );
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(plane.client().await);
    for name in [namespace.as_str(), "pannier-e2e"] {
        until_gone(PATIENCE, &namespaces, name).await;
    }
    until("the account has no rights any longer", || {
        let tiers = borrowed
            .kubectl()
            .args(["get", "cachetiers", "-A"])
            .output();
        (!tiers.unwrap().status.success()).then_some(())
    });
}

#[test]
fn nothing_is_left_of_a_dropped_control_plane() {
    let test = "nothing_is_left_of_a_dropped_control_plane";
    let Some(plane) = available(test, ControlPlane::start()) else {
        return;
    };
    let folder = plane.folder().to_owned();
    assert!(
        sweep::left(&folder).len() > 3,
        "three processes, the folder"
    );
    drop(plane);
    assert_eq!(sweep::left(&folder), [""; 0]);
}

/// The other half of the next test: in a process of its own, which is killed.
#[test]
fn a_process_that_waits_to_be_killed() {
    let Some(told) = std::env::var_os("PANNIER_TEST_FOLDER_FILE") else {
        return;
    };
    let plane = ControlPlane::start().unwrap();
    let partial = Path::new(&told).with_extension("partial");
    std::fs::write(&partial, plane.folder().display().to_string()).unwrap();
    std::fs::rename(partial, told).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn nothing_is_left_of_a_killed_run() {
    let test = "nothing_is_left_of_a_killed_run";
    if available(test, e2e::kubernetes::Binaries::get()).is_none() {
        return;
    }
    let told = std::env::temp_dir().join(format!("pannier-killed-{}", std::process::id()));
    let files = Folder::new("killed");
    let name = "control_plane::a_process_that_waits_to_be_killed";
    let mut child = Process::start(
        "the process that is killed",
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env_remove("PANNIER_E2E_KUBECONFIG")
            .env("PANNIER_TEST_FOLDER_FILE", &told),
        &files.path().join("log"),
    );
    let folder = e2e::wait::within(
        PATIENCE * 5,
        || "it has started".into(),
        || std::fs::read_to_string(&told).ok(),
    );
    std::fs::remove_file(&told).unwrap();
    let folder = Path::new(&folder);
    assert!(sweep::left(folder).len() > 3);
    child.kill();
    until("everything is swept", || {
        sweep::left(folder).is_empty().then_some(())
    });
}
