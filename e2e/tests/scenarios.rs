//! The long form of `live.rs`, run by `make e2e` and not by `make test`: further topologies and engines, and
//! what takes minutes.

use std::time::Duration;

use e2e::{
    Engine,
    environment::available,
    kubernetes::Cluster,
    live::{
        Live,
        cases::{change, data, loss, nodes, pods, removal},
        spec::{kept, replicated, standalone},
        until_at_rest,
    },
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn redis_7_and_8_are_installed_and_failed_over_as_valkey_is() {
    let test = "redis_7_and_8_are_installed_and_failed_over_as_valkey_is";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _quiet = cluster.undisturbed().await;
    for (prefix, engine) in [("redis7", Engine::Redis7), ("redis8", Engine::Redis8)] {
        let live = Live::start(cluster, prefix).await;
        let mut redis = replicated();
        redis["engine"] = json!("Redis");
        redis["image"] = json!(cluster.load_engine(engine));
        let (tier, app) = live.serving(&redis).await;
        pods::primary_deleted(&tier, &app).await;
        pods::primary_killed(&tier, &app).await;
        change::live_setting(&tier, &app, &redis).await;
        assert_eq!(live.leaks(&tier).await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_rotated_and_recovered_without_a_failed_command() {
    let test = "passwords_are_rotated_and_recovered_without_a_failed_command";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _quiet = cluster.undisturbed().await;
    let live = Live::start(cluster, "passwords").await;
    let (tier, app) = live.serving(&replicated()).await;
    change::secret_deleted(&tier, &app).await;
    change::rotation(&tier, &app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn further_changes_lose_nothing() {
    let test = "further_changes_lose_nothing";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _quiet = cluster.undisturbed().await;
    let mut live = Live::start(cluster, "further").await;
    let mut redis = replicated();
    let (tier, app) = live.serving(&redis).await;
    pods::primary_out_of_memory(&tier, &app).await;
    change::bad_image(&tier, &app, &redis).await;
    change::drift(&tier, &app).await;
    change::operator_killed(&mut live, &tier, &app).await;
    change::changed_without_operator(&mut live, &tier, &app, &redis).await;
    redis["memory"] = json!("96Mi");
    change::rolled(&tier, &app, "memory up", redis.clone()).await;
    change::fits_nowhere(&tier, &app, &redis).await;
    change::too_little_memory(&tier, &app, &redis).await;
    redis["memory"] = json!("64Mi");
    change::rolled(&tier, &app, "memory down", redis.clone()).await;
    change::replicas(&tier, &app, &redis).await;
    redis["image"] = json!(cluster.load_engine(Engine::Valkey9));
    change::rolled(&tier, &app, "Valkey 8 to 9", redis).await;
    until_at_rest(&tier, Duration::from_mins(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_tier_keeps_its_data_through_changes_of_persistence_and_a_bad_image() {
    let test = "a_standalone_tier_keeps_its_data_through_changes_of_persistence_and_a_bad_image";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _quiet = cluster.undisturbed().await;
    let live = Live::start(cluster, "alone").await;
    cluster
        .add_volumes(&live.client, &live.namespace, 1, "64Mi")
        .await;
    let mut redis = kept(standalone());
    redis["persistence"]["mode"] = json!("Rdb");
    let (tier, app) = live.serving(&redis).await;
    for mode in ["Aof", "Rdb", "Aof"] {
        redis["persistence"]["mode"] = json!(mode);
        let name = format!("persistence changed to {mode}; Standalone");
        change::rolled(&tier, &app, &name, redis.clone()).await;
    }
    change::crashing_image(&tier, &app, &redis, &live.images().operator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replicated_tier_without_volumes_tells_the_loss_of_all_its_pods() {
    let test = "a_replicated_tier_without_volumes_tells_the_loss_of_all_its_pods";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _quiet = cluster.undisturbed().await;
    let live = Live::start(cluster, "lost").await;
    let (tier, app) = live.serving(&replicated()).await;
    data::all_deleted_without_volumes(&tier, &app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_is_drained_in_turn_and_no_write_is_lost() {
    let test = "every_node_is_drained_in_turn_and_no_write_is_lost";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _alone = cluster.alone().await;
    let live = Live::start(cluster, "drain").await;
    let (tier, app) = live.serving(&replicated()).await;
    nodes::drains(&live, &tier, &app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_volume_is_gone_gets_the_data_back_as_a_replica() {
    let test = "a_primary_whose_volume_is_gone_gets_the_data_back_as_a_replica";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _quiet = cluster.undisturbed().await;
    let live = Live::start(cluster, "volume").await;
    cluster
        .add_volumes(&live.client, &live.namespace, 3, "64Mi")
        .await;
    let (tier, app) = live.serving(&kept(replicated())).await;
    data::primary_and_volume_deleted(&tier, &app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_most_sentinels_or_servers_heals_by_itself_where_one_has_the_data() {
    let test = "the_loss_of_most_sentinels_or_servers_heals_by_itself_where_one_has_the_data";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _alone = cluster.alone().await;
    let live = Live::start(cluster, "majority").await;
    let (tier, app) = live.serving(&replicated()).await;
    loss::most_sentinels(&tier, &app).await;
    loss::most_servers(&tier, &app).await;
    loss::most_nodes(&tier, &app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_is_given_up_only_when_a_person_says_that_it_is_off() {
    let test = "a_lost_node_is_given_up_only_when_a_person_says_that_it_is_off";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _alone = cluster.alone().await;
    let live = Live::start(cluster, "taint").await;
    let (tier, app) = live.serving(&replicated()).await;
    loss::node_for_good(&live, &tier, &app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_cut_off_replica_may_hold_is_given_up_by_a_person_alone() {
    let test = "what_only_a_cut_off_replica_may_hold_is_given_up_by_a_person_alone";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _alone = cluster.alone().await;
    let live = Live::start(cluster, "accept").await;
    let (tier, app) = live.serving(&replicated()).await;
    loss::accepted_by_a_person(&live, &tier, &app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tier_leaves_its_volumes_alone_unless_they_are_to_go_too() {
    let test = "a_deleted_tier_leaves_its_volumes_alone_unless_they_are_to_go_too";
    let Some(cluster) = available(test, Cluster::shared()) else {
        return;
    };
    let _quiet = cluster.undisturbed().await;
    let live = Live::start(cluster, "removal").await;
    cluster
        .add_volumes(&live.client, &live.namespace, 2, "64Mi")
        .await;
    let mut redis = kept(replicated());
    let tier = live.apply(redis.clone()).await;
    tier.until_ready().await;
    removal::volumes_stay(&live, &tier, &redis).await;
    redis["persistence"]["onDelete"] = json!("Delete");
    removal::volumes_go(&live, &tier, &redis).await;
    removal::namespace(&live, &tier, &replicated()).await;
}
