//! Three nodes that run containers.

use std::{collections::BTreeSet, net::SocketAddr, path::Path, time::Duration};

use e2e::{
    Engine, Wire,
    environment::available,
    http,
    kubernetes::{Cluster, eventually, eventually_within, is_ready, new_namespace},
};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Node, PersistentVolumeClaim, Pod, Service},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

const SLOW: Duration = Duration::from_mins(1);

/// A pod with one Redis, of restricted rights.
fn redis(name: &str, image: &str, more: &Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "labels": {"app": "redis"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": true, "fsGroup": 999},
            "containers": [{
                "name": "redis",
                "image": image,
                "imagePullPolicy": "Never",
                "command": ["redis-server"],
                "args": ["--protected-mode", "no", "--save", "", "--dir", "/tmp"],
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            }],
        },
    });
    for (field, value) in more.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    pod
}

async fn create(client: &Client, namespace: &str, pod: Value) -> Pod {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod: Pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    running(client, namespace, &pod.name_any()).await
}

/// Waits until all its containers are ready.
async fn running(client: &Client, namespace: &str, name: &str) -> Pod {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    eventually_within(SLOW, &format!("{namespace}/{name} runs"), || async {
        let pod = pods.get_opt(name).await.unwrap()?;
        let status = pod.status.as_ref()?;
        let containers = status.container_statuses.as_ref()?;
        containers.iter().all(|one| one.ready).then_some(pod)
    })
    .await
}

fn address(pod: &Pod, port: u16) -> SocketAddr {
    let status = pod.status.as_ref().unwrap();
    let ip = status.pod_ip.as_ref().unwrap().parse().unwrap();
    SocketAddr::new(ip, port)
}

fn restarts(pod: &Pod) -> i32 {
    pod.status
        .as_ref()
        .unwrap()
        .container_statuses
        .as_ref()
        .unwrap()[0]
        .restart_count
}

fn on(node: &str) -> Value {
    json!({"nodeSelector": {"kubernetes.io/hostname": node}})
}

#[tokio::test]
async fn three_nodes_are_ready_each_in_a_zone_of_its_own() {
    let test = "three_nodes_are_ready_each_in_a_zone_of_its_own";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _quiet = cluster.undisturbed().await;
    let nodes: Api<Node> = Api::all(cluster.client().await);
    let nodes = nodes.list(&ListParams::default()).await.unwrap();
    assert_eq!(nodes.iter().filter(|node| is_ready(node)).count(), 3);
    let zones: BTreeSet<&String> = nodes
        .iter()
        .map(|node| &node.labels()["topology.kubernetes.io/zone"])
        .collect();
    assert_eq!(zones.len(), 3);
}

#[tokio::test]
async fn a_server_of_each_engine_answers_from_its_pod() {
    let test = "a_server_of_each_engine_answers_from_its_pod";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _quiet = cluster.undisturbed().await;
    let client = cluster.client().await;
    let namespace = new_namespace(&client, "engines").await;
    for (engine, server, cli) in [
        (Engine::Redis7, "redis-server", "redis-cli"),
        (Engine::Valkey8, "valkey-server", "valkey-cli"),
    ] {
        let image = cluster.load_engine(engine);
        let mut pod = redis(server, &image, &json!({}));
        pod["spec"]["containers"][0]["command"] = json!([server]);
        let pod = create(&client, &namespace, pod).await;
        let there = address(&pod, 6379);
        eventually("it listens", || async { cluster.dial(there).ok() }).await;
        let inside = cluster.exec(&namespace, server, "redis", &[cli, "PING"]);
        assert_eq!(inside.stdout, b"PONG\n", "{inside:?}");
        let forward = cluster.forward(there);
        assert_eq!(Wire::connect(forward.address()).run("PING"), "PONG");
        let log = cluster.logs(&namespace, server, "redis");
        assert!(log.contains("Ready to accept connections"), "{log}");
    }
}

#[tokio::test]
async fn names_of_pods_and_of_services_resolve_and_lead_to_the_pods() {
    let test = "names_of_pods_and_of_services_resolve_and_lead_to_the_pods";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _quiet = cluster.undisturbed().await;
    let client = cluster.client().await;
    let namespace = new_namespace(&client, "names").await;
    let image = cluster.load_engine(Engine::Redis7);
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    for (name, address) in [("r", json!("None")), ("clients", Value::Null)] {
        let service = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "clusterIP": address,
                "publishNotReadyAddresses": true,
                "selector": {"app": "redis"},
                "ports": [{"port": 6379}],
            },
        }));
        services
            .create(&PostParams::default(), &service.unwrap())
            .await
            .unwrap();
    }
    let pod = redis("unused", &image, &json!({}));
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let set = serde_json::from_value(json!({
        "metadata": {"name": "r"},
        "spec": {
            "serviceName": "r",
            "replicas": 2,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "redis"}},
            "template": {"metadata": {"labels": {"app": "redis"}}, "spec": pod["spec"]},
        },
    }));
    sets.create(&PostParams::default(), &set.unwrap())
        .await
        .unwrap();
    for pod in ["r-0", "r-1"] {
        running(&client, &namespace, pod).await;
    }
    for host in [
        format!("r-0.r.{namespace}.svc.cluster.local"),
        format!("clients.{namespace}.svc.cluster.local"),
        "r-1.r".to_owned(),
    ] {
        eventually_within(SLOW, &format!("{host} answers"), || async {
            let call = ["redis-cli", "-h", &host, "PING"];
            let answer = cluster.exec(&namespace, "r-1", "redis", &call);
            (answer.stdout == b"PONG\n").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_node_is_cut_off_and_joined_again() {
    let test = "a_node_is_cut_off_and_joined_again";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _alone = cluster.alone().await;
    let client = cluster.client().await;
    let namespace = new_namespace(&client, "cut").await;
    let image = cluster.load_engine(Engine::Redis7);
    let pod = create(&client, &namespace, redis("far", &image, &on("node3"))).await;
    let there = address(&pod, 6379);
    let reached = || async { cluster.dial(there).ok() };
    eventually("the pod is reached", reached).await;
    cluster.node(3).cut();
    assert!(cluster.dial(there).is_err(), "nobody reaches a cut node");
    cluster.node(3).join();
    eventually("the pod is reached again", reached).await;
}

#[tokio::test]
async fn a_killed_container_is_started_again_in_the_same_pod() {
    let test = "a_killed_container_is_started_again_in_the_same_pod";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _quiet = cluster.undisturbed().await;
    let client = cluster.client().await;
    let namespace = new_namespace(&client, "killed").await;
    let image = cluster.load_engine(Engine::Redis7);
    let pod = create(&client, &namespace, redis("r", &image, &json!({}))).await;
    assert_eq!(restarts(&pod), 0);
    cluster.kill_container(&pod, "redis");
    let again = eventually_within(SLOW, "it is started again", || async {
        let pod = running(&client, &namespace, "r").await;
        (restarts(&pod) == 1).then_some(pod)
    })
    .await;
    assert_eq!(again.uid(), pod.uid());
}

#[tokio::test]
async fn a_container_that_takes_more_than_its_memory_is_killed() {
    let test = "a_container_that_takes_more_than_its_memory_is_killed";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _quiet = cluster.undisturbed().await;
    let client = cluster.client().await;
    let namespace = new_namespace(&client, "memory").await;
    let image = cluster.load_engine(Engine::Redis7);
    let mut pod = redis("r", &image, &json!({}));
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "32Mi"}});
    create(&client, &namespace, pod).await;
    let fill = [
        "redis-cli",
        "EVAL",
        "return #string.rep('x', 100000000)",
        "0",
    ];
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    eventually_within(SLOW, "it is reported as OOMKilled", || async {
        let pod = pods.get("r").await.unwrap();
        let status = &pod.status?.container_statuses?[0];
        let Some(last) = status
            .last_state
            .as_ref()
            .and_then(|one| one.terminated.as_ref())
        else {
            cluster.exec(&namespace, "r", "redis", &fill);
            return None;
        };
        (last.reason.as_deref() == Some("OOMKilled")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_volume_keeps_its_data_when_its_pod_is_deleted() {
    let test = "a_volume_keeps_its_data_when_its_pod_is_deleted";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _quiet = cluster.undisturbed().await;
    let client = cluster.client().await;
    let namespace = new_namespace(&client, "volume").await;
    let image = cluster.load_engine(Engine::Redis7);
    cluster.add_volumes(&client, &namespace, 1, "1Gi").await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let claim = serde_json::from_value(json!({
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }));
    claims
        .create(&PostParams::default(), &claim.unwrap())
        .await
        .unwrap();
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    let mut pod = redis("r", &image, &json!({"volumes": volumes}));
    let container = &mut pod["spec"]["containers"][0];
    container["args"] = json!(["--appendonly", "yes", "--dir", "/data", "--save", ""]);
    container["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    create(&client, &namespace, pod.clone()).await;
    let says = |words: &'static [&str], answer: &'static [u8]| {
        let output = cluster.exec(&namespace, "r", "redis", words);
        async move { (output.stdout == answer).then_some(()) }
    };
    let set = || says(&["redis-cli", "SET", "k", "v"], b"OK\n");
    eventually("it is written", set).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    pods.delete("r", &DeleteParams::default()).await.unwrap();
    eventually_within(SLOW, "it is gone", || async {
        let gone = pods.get_opt("r").await.unwrap().is_none();
        gone.then_some(())
    })
    .await;
    create(&client, &namespace, pod).await;
    let get = || says(&["redis-cli", "GET", "k"], b"v\n");
    eventually("it is read", get).await;
}

#[tokio::test]
async fn a_program_of_ours_runs_in_a_container_without_any_library() {
    let test = "a_program_of_ours_runs_in_a_container_without_any_library";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _quiet = cluster.undisturbed().await;
    let client = cluster.client().await;
    let namespace = new_namespace(&client, "ours").await;
    let image = cluster.load_own("pannier-sidecar", "pannier-sidecar");
    let mut pod = redis("sidecar", &image, &json!({}));
    let container = &mut pod["spec"]["containers"][0];
    container["command"] = Value::Null;
    container["args"] = Value::Null;
    container["readinessProbe"] = json!({
        "periodSeconds": 1,
        "httpGet": {"path": "/ready", "port": 9464},
    });
    let pod = create(&client, &namespace, pod).await;
    let admin = cluster.forward(address(&pod, 9464));
    assert_eq!(http::get(admin.address(), "/live").unwrap().status, 200);
}

#[tokio::test]
async fn a_program_of_this_machine_runs_in_a_container_and_in_the_clusters_network() {
    let test = "a_program_of_this_machine_runs_in_a_container_and_in_the_clusters_network";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _quiet = cluster.undisturbed().await;
    let client = cluster.client().await;
    let namespace = new_namespace(&client, "program").await;
    cluster.load_program("localhost/sleep:dev", Path::new("/usr/bin/sleep"));
    let mut pod = redis("sleeper", "localhost/sleep:dev", &json!({}));
    pod["spec"]["containers"][0]["command"] = json!(["sleep"]);
    pod["spec"]["containers"][0]["args"] = json!(["1000"]);
    let pod = create(&client, &namespace, pod).await;
    let address = pod.status.unwrap().host_ip.unwrap();
    let mut command = cluster.command(Path::new("sh"));
    let port = format!("exec 3<>/dev/tcp/{address}/10250 && echo reached");
    let output = command.args(["-c", &format!("bash -c '{port}'")]).output();
    assert_eq!(output.unwrap().stdout, b"reached\n");
}
