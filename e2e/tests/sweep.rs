//! A killed run of a whole cluster leaves nothing on the machine. A file of its own: the cluster that
//! other tests share would take this one's turn.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic is the report; clippy.toml covers only functions marked #[test]"
)]

use std::{path::Path, process::Command, time::Duration};

use e2e::{
    Engine,
    environment::available,
    kubernetes::{Cluster, Unavailable, blocking, eventually_within, new_namespace, sweep},
    process::{Folder, Process},
    wait,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use serde_json::json;

const TOLD: &str = "PANNIER_TEST_FOLDER_FILE";

async fn with_a_running_pod(cluster: &Cluster) {
    let client = cluster.client().await;
    let namespace = new_namespace(&client, "left").await;
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "r"},
        "spec": {"containers": [{
            "name": "r",
            "image": cluster.load_engine(Engine::Redis7),
            "imagePullPolicy": "Never",
        }]},
    }));
    pods.create(&PostParams::default(), &pod.unwrap())
        .await
        .unwrap();
    eventually_within(Duration::from_mins(1), "the pod runs", || async {
        let status = pods.get("r").await.unwrap().status?;
        (status.phase.as_deref() == Some("Running")).then_some(())
    })
    .await;
}

/// In a process of its own, started by the test below, which kills it.
#[test]
fn a_process_that_waits_to_be_killed() {
    let Some(told) = std::env::var_os(TOLD) else {
        return;
    };
    let cluster = match Cluster::start(1) {
        Ok(cluster) => cluster,
        Err(reason) => {
            std::fs::write(&told, format!("unavailable: {reason}")).unwrap();
            return;
        }
    };
    blocking(with_a_running_pod(&cluster));
    let partial = Path::new(&told).with_extension("partial");
    std::fs::write(&partial, cluster.plane().folder().display().to_string()).unwrap();
    std::fs::rename(partial, told).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn nothing_is_left_of_a_killed_cluster() {
    let told = std::env::temp_dir().join(format!("pannier-cluster-{}", std::process::id()));
    let files = Folder::new("sweep");
    let mut child = Process::start(
        "the process that is killed",
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_process_that_waits_to_be_killed"])
            .env(TOLD, &told),
        &files.path().join("log"),
    );
    // Long enough for its turn after another cluster.
    let folder = wait::within(
        Duration::from_mins(10),
        || "it has started".into(),
        || {
            assert!(child.ended().is_none() || told.exists(), "{}", child.log());
            std::fs::read_to_string(&told).ok()
        },
    );
    std::fs::remove_file(&told).unwrap();
    if let Some(reason) = folder.strip_prefix("unavailable: ") {
        let missing: Result<(), Unavailable> = Err(Unavailable::NotPermitted(reason.to_owned()));
        available("nothing_is_left_of_a_killed_cluster", missing);
        return;
    }
    let folder = Path::new(&folder);
    let before = sweep::left(folder);
    for part in [
        "process",
        "/run/netns/",
        "/sys/fs/cgroup/",
        "/rootfs",
        "/run/containerd/s/",
    ] {
        let found = before.iter().any(|left| left.contains(part));
        assert!(found, "no {part} in {before:#?}");
    }
    child.kill();
    wait::until("everything is swept", || {
        sweep::left(folder).is_empty().then_some(())
    });
}
