//! More is lost than the topology was made for. What one server still holds is kept, by itself where it
//! is certain that nobody holds more; else the tier says which command a person may run. These need
//! the cluster alone.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::{
    super::{App, Live, SLOW, Tier, Trial},
    UNPLANNED, nodes,
};
use crate::{
    environment::unusable,
    kubernetes::{Node, eventually_within},
};

/// Most that an unplanned change of the primary may lose: writes that were acknowledged in this time.
const WINDOW: Duration = Duration::from_secs(1);
/// How long nothing may happen while nobody may do anything.
const WAITS: Duration = Duration::from_secs(15);

/// Two of three Sentinels are gone at once: the primary sees its replicas, and goes on.
pub async fn most_sentinels(tier: &Tier, app: &App) {
    let pods = tier.sentinels().await;
    let trial = Trial::begin(tier, app, "two Sentinels' pods deleted with --force").await;
    for lost in &pods[..2] {
        tier.delete(lost, true).await;
    }
    for lost in &pods[..2] {
        tier.until_replaced(lost).await;
    }
    let names = [pods[0].name_any(), pods[1].name_any()];
    trial.end().await.was_planned().changed_only(&names);
}

/// Two of three servers are gone at once, the primary with them: the last replica has the data.
pub async fn most_servers(tier: &Tier, app: &App) {
    let primary = tier.primary().await;
    let servers = tier.servers().await;
    let replica = servers.iter().find(|pod| pod.uid() != primary.uid());
    let replica = replica.unwrap_or_else(|| unusable("there are replicas"));
    let name = "primary's pod and a replica's deleted with --force";
    let trial = Trial::begin(tier, app, name).await;
    for lost in [&primary, replica] {
        tier.delete(lost, true).await;
    }
    for lost in [&primary, replica] {
        tier.until_replaced(lost).await;
    }
    let outcome = trial.end().await;
    let mut names = [primary.name_any(), replica.name_any()];
    names.sort();
    outcome
        .compare(UNPLANNED)
        .lost_within(WINDOW)
        .changed_only(&names);
}

/// Two of three nodes are cut off, the primary with them: no Sentinel is promoted by a minority, the
/// primary that is cut off refuses writes, and all is as before when the nodes are back.
pub async fn most_nodes(tier: &Tier, app: &App) {
    let apps = app.node().to_owned();
    let others: Vec<&Node> = tier.cluster.nodes().iter().collect();
    let others: Vec<&Node> = others
        .into_iter()
        .filter(|one| one.name() != apps)
        .collect();
    nodes::move_primary_to(tier, &others[1].name()).await;
    let trial = Trial::begin(tier, app, "links of two nodes down, the primary's too").await;
    for node in &others {
        node.cut();
    }
    let message = tier.until("TopologyHealthy", "False", "NoPrimary").await;
    println!("measured: TopologyHealthy: {message}");
    let before = trial.writer.written();
    let began = Instant::now();
    while began.elapsed() < WAITS {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(trial.writer.written(), before, "a minority decides nothing");
    }
    for node in &others {
        node.join();
    }
    let outcome = trial.end().await;
    outcome.lost_within(WINDOW).changed_only(&[]);
}

/// The node of the primary is lost: another takes over, and the tier names the command that gives the
/// node up. Before a person runs it no pod of the node is taken for ended; after it the pods are made
/// anew elsewhere.
pub async fn node_for_good(live: &Live, tier: &Tier, app: &App) {
    let apps = app.node().to_owned();
    // Not the one with the DNS either: what starts elsewhere needs it.
    let away = if apps == "node2" { "node3" } else { "node2" };
    nodes::move_primary_to(tier, away).await;
    let primary = tier.primary().await;
    let node = tier.cluster.node_of(&primary);
    let there = |pods: Vec<Pod>| -> Vec<Pod> {
        let on = |pod: &Pod| tier.cluster.node_of(pod).name() == node.name();
        pods.into_iter().filter(on).collect()
    };
    let stay = there([tier.servers().await, tier.sentinels().await].concat());
    let trial = Trial::begin(tier, app, "primary's node lost for good").await;
    let began = Instant::now();
    node.cut();
    trial.writer.until_written(500);
    let command = format!(
        "kubectl taint nodes {away} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
    );
    told(tier, "TopologyHealthy", &command).await;
    println!("measured: told {:.1?} after the loss", began.elapsed());
    for pod in &stay {
        let now = tier.pods().get_opt(&pod.name_any()).await;
        let now = now.unwrap_or_else(|error| unusable(&format!("the API server: {error}")));
        let same = now.is_some_and(|now| now.uid() == pod.uid());
        assert!(same, "{} is not taken for ended", pod.name_any());
    }
    let began = Instant::now();
    run(live, &command);
    for pod in &stay {
        tier.until_replaced(pod).await;
    }
    tier.until_ready().await;
    println!(
        "measured: whole on two nodes {:.1?} after the command",
        began.elapsed()
    );
    node.join();
    run(
        live,
        &format!("kubectl taint nodes {away} node.kubernetes.io/out-of-service-"),
    );
    tier.cluster.wait_until_ready(&tier.client, 3).await;
    let outcome = trial.end().await;
    let mut names: Vec<String> = stay.iter().map(ResourceExt::name_any).collect();
    names.sort();
    outcome
        .compare(UNPLANNED)
        .lost_within(WINDOW)
        .changed_only(&names);
}

/// One replica is cut off, and all others end at once: it may hold the data. The tier waits for it, and
/// names the command with which a person gives it up.
pub async fn accepted_by_a_person(live: &Live, tier: &Tier, app: &App) {
    let apps = app.node().to_owned();
    let away = if apps == "node2" { "node3" } else { "node2" };
    while tier.cluster.node_of(&tier.primary().await).name() == away {
        nodes::move_primary_to(tier, &apps).await;
    }
    let cut = tier.cluster.nodes().iter().find(|one| one.name() == away);
    let cut = cut.unwrap_or_else(|| unusable("there is such a node"));
    let trial = Trial::begin(tier, app, "all but a cut-off replica gone, loss accepted").await;
    cut.cut();
    let pods = [tier.servers().await, tier.sentinels().await].concat();
    let reached = |pod: &&Pod| tier.cluster.node_of(pod).name() != away;
    for pod in pods.iter().filter(reached) {
        tier.delete(pod, true).await;
    }
    let began = Instant::now();
    let message = told(tier, "TopologyHealthy", "accept-loss").await;
    println!("measured: told after {:.1?}: {message}", began.elapsed());
    let before = trial.writer.written();
    let command = message.split("; ").find_map(|part| {
        let from = part.find("kubectl exec")?;
        Some(part[from..].to_owned())
    });
    let command = command.unwrap_or_else(|| unusable(&message));
    assert_eq!(trial.writer.written(), before, "nobody begins by itself");
    run(live, &command);
    trial.writer.until_written(100);
    cut.join();
    let outcome = trial.end().await;
    assert!(!outcome.record.lost.is_empty(), "nobody kept it");
    let message = tier.until("DataLost", "True", "DataLost").await;
    println!("measured: DataLost: {message}");
}

/// Waits until a condition is false and its message has those words; gives the message.
async fn told(tier: &Tier, condition: &str, words: &str) -> String {
    let what = format!("{condition} says {words:?}");
    eventually_within(SLOW, &what, || async {
        let (status, _, message) = tier.condition(condition).await?;
        (status == "False" && message.contains(words)).then_some(message)
    })
    .await
}

/// Runs a command as a person would who copied it.
fn run(live: &Live, command: &str) {
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let done = live.kubectl(&words);
    assert!(done.status.success(), "{command}: {done:?}");
}
