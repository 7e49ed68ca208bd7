//! Tiers on three real nodes, with real servers, a real sidecar and an operator process: what heals,
//! how fast, and what is lost. One test at a time: each measures pauses. The long form is `scenarios.rs` (`make e2e`).

use std::time::Duration;

use e2e::{
    environment::available,
    kubernetes::Cluster,
    live::{
        Live,
        cases::{change, data, nodes, pods},
        spec::{kept, replicated, standalone},
        until_at_rest,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn writes_resume_and_nothing_planned_is_lost_whatever_happens_to_the_primary() {
    let test = "writes_resume_and_nothing_planned_is_lost_whatever_happens_to_the_primary";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _alone = cluster.alone().await;
    let live = Live::start(cluster, "healing").await;
    let (tier, app) = live.serving(&replicated()).await;
    pods::primary_deleted(&tier, &app).await;
    pods::primary_killed(&tier, &app).await;
    pods::primary_deleted_at_once(&tier, &app).await;
    pods::sentinel_deleted_at_once(&tier, &app).await;
    until_at_rest(&tier, Duration::from_secs(30)).await;
    assert_eq!(live.leaks(&tier).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_resume_when_the_primarys_node_is_cut_off_also_the_one_with_the_dns() {
    let test = "writes_resume_when_the_primarys_node_is_cut_off_also_the_one_with_the_dns";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _alone = cluster.alone().await;
    let live = Live::start(cluster, "nodes").await;
    let (tier, app) = live.serving(&replicated()).await;
    nodes::primarys_link_down(&tier, &app).await;
    nodes::move_primary_to(&tier, "node1").await;
    nodes::primarys_link_down(&tier, &app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_deleted_at_once_come_back_with_what_their_volumes_kept() {
    let test = "all_pods_deleted_at_once_come_back_with_what_their_volumes_kept";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _alone = cluster.alone().await;
    for (prefix, redis) in [("kept-one", standalone()), ("kept", replicated())] {
        let live = Live::start(cluster, prefix).await;
        cluster
            .add_volumes(&live.client, &live.namespace, 2, "64Mi")
            .await;
        let (tier, app) = live.serving(&kept(redis)).await;
        let name = format!("{prefix}: all pods deleted at once, with volumes");
        let outcome = data::all_deleted(&tier, &app, &name).await;
        assert_eq!(outcome.record.lost, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_deleted_at_once_without_volumes_are_a_loss_that_is_told() {
    let test = "all_pods_deleted_at_once_without_volumes_are_a_loss_that_is_told";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _alone = cluster.alone().await;
    let live = Live::start(cluster, "lost").await;
    let (tier, app) = live.serving(&standalone()).await;
    data::all_deleted_without_volumes(&tier, &app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_setting_reaches_every_server_without_a_restart() {
    let test = "a_live_setting_reaches_every_server_without_a_restart";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _alone = cluster.alone().await;
    let live = Live::start(cluster, "setting").await;
    let redis = replicated();
    let (tier, app) = live.serving(&redis).await;
    change::live_setting(&tier, &app, &redis).await;
}
