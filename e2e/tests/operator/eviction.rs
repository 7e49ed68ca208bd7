//! A pod is taken down as the one that was meant, or not at all.

use e2e::{
    environment::available,
    kubernetes::{ApiServer, eventually, new_namespace},
};
use kube::ResourceExt as _;
use operator::cache_tier::act::evict;
use serde_json::json;

use crate::{
    ALL,
    world::{Operator, api, tier},
};

#[tokio::test]
async fn a_pod_that_took_the_name_of_the_one_that_was_meant_stays() {
    let name = "a_pod_that_took_the_name_of_the_one_that_was_meant_stays";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "evicted").await;
    let _operator = Operator::start(plane.access(), &namespace, ALL).await;
    tier(&client, &namespace, "t", json!({"topology": "Standalone"})).await;
    let pods = api(&client, "Pod", &namespace);
    let pod = "t-shard-0-0";
    let uid = eventually("the pod exists", || async {
        pods.get_opt(pod).await.unwrap()?.uid()
    })
    .await;
    let refused = evict(&client, &namespace, pod, "another").await;
    let Err(kube::Error::Api(status)) = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(status.code, 409, "{status}");
    let stays = pods.get(pod).await.unwrap();
    assert_eq!(stays.uid().as_ref(), Some(&uid));
    assert_eq!(stays.metadata.deletion_timestamp, None);

    evict(&client, &namespace, pod, &uid).await.unwrap();
    eventually("its set has made another", || async {
        let now = pods.get_opt(pod).await.unwrap()?.uid()?;
        (now != uid).then_some(())
    })
    .await;
}
