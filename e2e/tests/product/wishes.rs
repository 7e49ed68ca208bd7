//! Wishes that cannot be granted: a tier that does not exist, a port that the app needs itself, a tier
//! with a name that means something else. The pod starts, and an event says what to do.

use serde_json::json;

use super::{
    space::{Space, is_injected},
    world::world,
};

#[tokio::test(flavor = "multi_thread")]
async fn bad_wishes_are_told_and_pods_start_all_the_same() {
    let Some(world) = world("bad_wishes_are_told_and_pods_start_all_the_same") else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let space = Space::standalone(world, "wishes").await;

    let mut pod = space.pod("stranger", &["idle", "0.0.0.0:8000"]);
    pod["metadata"]["labels"]["pannier.dev/inject"] = json!("nobody");
    assert!(!is_injected(&space.create(&pod).await));
    space.ready("stranger").await;
    let note = space.event("stranger", "InjectionSkipped").await;
    assert!(note.contains("nobody; create the tier"), "{note}");
    println!("measured: a tier that does not exist: the pod is ready without a sidecar; {note:?}");

    let mut pod = space.pod("taken", &["idle", "0.0.0.0:6379"]);
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 6379}]);
    assert!(!is_injected(&space.create(&pod).await));
    space.ready("taken").await;
    let note = space.event("taken", "InjectionSkipped").await;
    assert!(note.contains("pannier.dev/port"), "{note}");
    println!("measured: port 6379 used by the app: the pod is ready without a sidecar; {note:?}");

    let mut pod = space.pod("elsewhere", &["run"]);
    pod["metadata"]["annotations"] = json!({"pannier.dev/port": "6390"});
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 6379}]);
    assert!(is_injected(&space.create(&pod).await));
    let running = space.ready("elsewhere").await;
    space.until_served(&running).await;
    println!(
        "measured: with the annotation pannier.dev/port the same app is served at the other port"
    );

    let named = json!({
        "apiVersion": "pannier.dev/v1alpha1", "kind": "CacheTier",
        "metadata": {"name": "disabled", "namespace": space.name},
        "spec": {"redis": {"topology": "None"}},
    });
    let file = std::env::temp_dir().join(format!("{}.json", space.name));
    std::fs::write(&file, named.to_string()).unwrap();
    let told = world.try_kubectl(&["apply", "-f", &file.display().to_string()]);
    std::fs::remove_file(&file).unwrap();
    let told = format!("{} {}", told.status, String::from_utf8_lossy(&told.stderr));
    assert!(
        told.contains("disabled") && !told.contains("exit status: 0"),
        "{told}"
    );
    println!("measured: a tier named disabled: {told:?}");
    space.end().await;
}
