//! Changes of a tier under load.

use std::time::Instant;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, ResourceExt, api::DeleteParams};
use policy::names::ROTATE_PASSWORDS;
use serde_json::{Value as Json, json};

use super::{
    super::{App, Live, SLOW, TIER, Tier, Trial, tier::is_ready},
    UNPLANNED,
};
use crate::{environment::unusable, kubernetes::eventually_within};

/// A setting that servers take over while they run: every one of them shows it, none restarts.
pub async fn live_setting(tier: &Tier, app: &App, redis: &Json) {
    let trial = Trial::begin(tier, app, "a live setting changed").await;
    let mut changed = redis.clone();
    changed["config"] = json!({"slowlog-max-len": "77"});
    tier.apply(changed).await;
    every_server_shows(tier, "slowlog-max-len", "77").await;
    tier.until("ConfigApplied", "True", "Verified").await;
    trial.end().await.was_planned().changed_only(&[]);
}

/// A declared setting that somebody changed by hand on one server is set back. What a tier does not declare
/// is not the operator's.
pub async fn drift(tier: &Tier, app: &App) {
    let trial = Trial::begin(tier, app, "a setting changed by hand on a server").await;
    let server = tier.servers().await.remove(0);
    let before = shown(tier, &server, "maxmemory-policy").await;
    let set = ["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"];
    let done = tier.ask(&server, &set).await;
    assert_eq!(done.map(|reply| reply.text()).as_deref(), Some("OK"));
    let began = Instant::now();
    eventually_within(SLOW, "the setting is as it was", || async {
        (shown(tier, &server, "maxmemory-policy").await == before).then_some(())
    })
    .await;
    println!("measured: set back after {:.1?}", began.elapsed());
    trial.end().await.was_planned().changed_only(&[]);
}

async fn shown(tier: &Tier, server: &Pod, name: &str) -> Option<String> {
    let reply = tier.ask(server, &["CONFIG", "GET", name]).await?;
    (!reply.is_error()).then(|| reply.items().get(1).map(|value| value.text()))?
}

async fn every_server_shows(tier: &Tier, name: &str, value: &str) {
    eventually_within(
        SLOW,
        &format!("every server shows {name} {value}"),
        || async {
            for server in tier.servers().await {
                if shown(tier, &server, name).await.as_deref() != Some(value) {
                    return None;
                }
            }
            Some(())
        },
    )
    .await;
}

/// A change that needs new pods: replicas first, then the primary hands over, the old primary last.
pub async fn rolled(tier: &Tier, app: &App, name: &str, redis: Json) {
    let before = tier.servers().await;
    let primary = tier.primary().await;
    let trial = Trial::begin(tier, app, name).await;
    tier.apply(redis).await;
    for pod in &before {
        tier.until_replaced(pod).await;
    }
    let outcome = trial.end().await;
    outcome.was_planned();
    let names: Vec<String> = before.iter().map(|pod| pod.name_any()).collect();
    let changed = outcome
        .changed
        .iter()
        .filter(|pod| !pod.contains("sentinel"));
    assert_eq!(changed.cloned().collect::<Vec<_>>(), names, "{name}");
    let after = tier.servers().await;
    let newest = after.iter().max_by_key(|pod| pod.creation_timestamp());
    let newest = newest.map(|pod| pod.name_any());
    assert_eq!(
        newest,
        Some(primary.name_any()),
        "the old primary goes last"
    );
}

/// Less memory than is used is refused with a sentence, and nothing restarts.
pub async fn too_little_memory(tier: &Tier, app: &App, redis: &Json) {
    fill(app);
    let trial = Trial::begin(tier, app, "less memory than is used").await;
    let mut less = redis.clone();
    less["memory"] = json!("32Mi");
    tier.apply(less).await;
    let message = tier.until("Stalled", "True", "MemoryInUse").await;
    assert!(message.contains("spec.redis.memory"), "{message}");
    tier.apply(redis.clone()).await;
    trial.end().await.was_planned().changed_only(&[]);
    empty(app);
}

/// More memory than any node has: the new pod waits, and the tier says what the scheduler says. The
/// others serve on, and a revert heals.
pub async fn fits_nowhere(tier: &Tier, app: &App, redis: &Json) {
    let trial = Trial::begin(tier, app, "more memory than any node has, then a revert").await;
    let mut vast = redis.clone();
    vast["memory"] = json!("900Gi");
    tier.apply(vast).await;
    let what = "one pod cannot be scheduled, and the tier says so";
    eventually_within(SLOW, what, || async {
        let (status, _, message) = tier.condition("Ready").await?;
        let said = message.contains("Unschedulable: ") && message.contains("Insufficient memory");
        (said && status == "False").then_some(())
    })
    .await;
    let unready = unready(tier).await;
    tier.apply(redis.clone()).await;
    trial.end().await.was_planned().changed_only(&unready);
}

/// 30 MiB in 30 keys.
fn fill(app: &App) {
    let mut wire = app.connect(SLOW).expect("the sidecar runs");
    let value = "x".repeat(1 << 20);
    for number in 0..30 {
        let reply = wire.call(&["SET", &format!("fill:{number}"), &value]);
        assert_eq!(reply.text(), "OK");
    }
}

fn empty(app: &App) {
    let mut wire = app.connect(SLOW).expect("the sidecar runs");
    for number in 0..30 {
        wire.call(&["DEL", &format!("fill:{number}")]);
    }
}

/// An image that does not exist stops at the first pod, a Sentinel where there are some; a revert heals
/// that pod and touches no other.
pub async fn bad_image(tier: &Tier, app: &App, redis: &Json) {
    let trial = Trial::begin(tier, app, "an image that does not exist, then a revert").await;
    let mut bad = redis.clone();
    bad["image"] = json!("localhost/none:dev");
    tier.apply(bad).await;
    let what = "one pod does not come up, and the tier says so";
    let stuck = eventually_within(SLOW, what, || async {
        let (_, _, message) = tier.condition("Reconciling").await?;
        let unready = unready(tier).await;
        let stuck = unready.first()?;
        let why = "the image localhost/none:dev cannot be pulled";
        let said = message.contains(&format!("{stuck} does not come up")) && message.contains(why);
        said.then(|| stuck.clone())
    })
    .await;
    trial.writer.until_written(1000);
    assert_eq!(
        unready(tier).await,
        std::slice::from_ref(&stuck),
        "nothing else is replaced"
    );
    tier.apply(redis.clone()).await;
    trial.end().await.was_planned().changed_only(&[stuck]);
}

/// An image whose container begins and ends, then a revert: the only server comes back with its data.
pub async fn crashing_image(tier: &Tier, app: &App, redis: &Json, image: &str) {
    let name = "an image without a server in it, then a revert; Standalone";
    let trial = Trial::begin(tier, app, name).await;
    let mut bad = redis.clone();
    bad["image"] = json!(image);
    tier.apply(bad).await;
    let what = "its container begins and ends, and the tier says so";
    eventually_within(SLOW, what, || async {
        let (_, _, message) = tier.condition("Ready").await?;
        message.contains("CrashLoopBackOff").then_some(())
    })
    .await;
    let server = tier.servers().await;
    tier.apply(redis.clone()).await;
    for pod in &server {
        tier.until_replaced(pod).await;
    }
    let outcome = trial.end().await;
    assert_eq!(outcome.record.lost, [], "{name}");
}

async fn unready(tier: &Tier) -> Vec<String> {
    let pods = [tier.servers().await, tier.sentinels().await].concat();
    let unready = pods.iter().filter(|pod| !is_ready(pod));
    unready.map(ResourceExt::name_any).collect()
}

/// One replica (none is topology Standalone), then as many as before: nothing is lost, and the primary stays or
/// hands over.
pub async fn replicas(tier: &Tier, app: &App, redis: &Json) {
    let trial = Trial::begin(tier, app, "replicas 2, 1, 2").await;
    let mut fewer = redis.clone();
    fewer["replicasPerShard"] = json!(1);
    tier.apply(fewer).await;
    tier.until_servers(2).await;
    tier.until_ready().await;
    trial.writer.until_written(200);
    tier.apply(redis.clone()).await;
    tier.until_servers(3).await;
    trial.end().await.was_planned();
}

/// New passwords while an old client stays connected: no command fails.
pub async fn rotation(tier: &Tier, app: &App) {
    let before = tier.password("sidecar").await;
    let trial = Trial::begin(tier, app, "passwords rotated").await;
    tier.annotate(ROTATE_PASSWORDS, &format!("{:?}", Instant::now()))
        .await;
    eventually_within(SLOW, "there are new passwords", || async {
        (tier.password("sidecar").await != before).then_some(())
    })
    .await;
    let began = Instant::now();
    tier.until("CredentialsRotated", "False", "Overlap").await;
    println!(
        "measured: every server has the new passwords {:.1?} after they were made",
        began.elapsed()
    );
    trial.writer.until_written(1000);
    let outcome = trial.end().await;
    outcome.was_planned().changed_only(&[]);
    assert!(
        outcome.record.errors.is_empty(),
        "{:?}",
        outcome.record.errors
    );
}

/// The Secret with the passwords is deleted: nobody is locked out.
pub async fn secret_deleted(tier: &Tier, app: &App) {
    let trial = Trial::begin(tier, app, "the Secret with the passwords deleted").await;
    let apps = tier.password("sidecar").await;
    let operator = tier.password("operator").await;
    let secrets: Api<Secret> = Api::namespaced(tier.client.clone(), &tier.namespace);
    secrets
        .delete(&format!("{TIER}-auth"), &DeleteParams::default())
        .await
        .unwrap_or_else(|error| unusable(&format!("the Secret stays: {error}")));
    eventually_within(SLOW, "the Secret is there again", || async {
        let now = tier.password("operator").await?;
        (Some(now) != operator).then_some(())
    })
    .await;
    assert_eq!(
        tier.password("sidecar").await,
        apps,
        "apps keep their password"
    );
    tier.until("CredentialsRotated", "True", "Current").await;
    let outcome = trial.end().await;
    outcome.was_planned().changed_only(&[]);
    assert!(
        outcome.record.errors.is_empty(),
        "{:?}",
        outcome.record.errors
    );
}

/// The operator is killed while a primary is replaced: agents and Sentinels need no operator.
pub async fn operator_killed(live: &mut Live, tier: &Tier, app: &App) {
    let primary = tier.primary().await;
    let trial = Trial::begin(tier, app, "primary's container killed, no operator runs").await;
    live.kill_operator();
    tier.cluster.kill_container(&primary, "redis");
    tier.until_another(&primary).await;
    trial.writer.until_written(200);
    live.start_operator();
    let outcome = trial.end().await;
    outcome
        .compare(UNPLANNED)
        .changed_only(&[primary.name_any()]);
}

/// A change while no operator runs is made as soon as one does.
pub async fn changed_without_operator(live: &mut Live, tier: &Tier, app: &App, redis: &Json) {
    let trial = Trial::begin(tier, app, "a setting changed while no operator ran").await;
    live.kill_operator();
    let mut changed = redis.clone();
    changed["config"] = json!({"slowlog-max-len": "78"});
    tier.apply(changed).await;
    trial.writer.until_written(1000);
    let began = Instant::now();
    live.start_operator();
    every_server_shows(tier, "slowlog-max-len", "78").await;
    println!(
        "measured: done {:.1?} after the operator was started",
        began.elapsed()
    );
    let outcome = trial.end().await;
    outcome.was_planned().changed_only(&[]);
}
