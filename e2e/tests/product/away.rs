//! Redis is away, the operator is away: apps go on as if nothing had happened (P6, P7).

use std::time::{Duration, Instant};

use e2e::{kubernetes::eventually_within, live::spec};
use kube::ResourceExt as _;
use tokio::time::sleep;

use super::{
    rules::{FAILOVER, Seen, nothing_restarted},
    space::{Space, is_ready},
    world::{SLOW, World, world},
};

/// Ten minutes when `PANNIER_LONG` is set.
fn outage() -> Duration {
    if std::env::var_os("PANNIER_LONG").is_some() {
        Duration::from_mins(10)
    } else {
        Duration::from_mins(1)
    }
}

/// No pod is scheduled as long as it lives: what is deleted stays away.
struct Cordoned(&'static World);

impl Cordoned {
    fn all(world: &'static World) -> Self {
        let cordoned = Self(world);
        cordoned.each("cordon");
        cordoned
    }

    fn each(&self, verb: &str) {
        for node in self.0.cluster.nodes() {
            let done = self.0.try_kubectl(&[verb, &node.name()]);
            // Also while a test fails.
            if !done.status.success() {
                eprintln!("kubectl {verb} {}: {done:?}", node.name());
            }
        }
    }
}

impl Drop for Cordoned {
    fn drop(&mut self) {
        self.each("uncordon");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_stay_ready_and_cached_reads_are_answered_while_redis_is_down() {
    let Some(world) = world("pods_stay_ready_and_cached_reads_are_answered_while_redis_is_down")
    else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let (space, tier) = Space::serving(world, "redis-down", spec::standalone()).await;
    let apps = space.apps().await;
    space.begin(&apps);

    let cordoned = Cordoned::all(world);
    for server in tier.servers().await {
        tier.delete(&server, true).await;
    }
    let begun = Instant::now();
    let mut looks = 0;
    while begun.elapsed() < outage() {
        sleep(Duration::from_secs(2)).await;
        for pod in space.traffic().await {
            assert!(is_ready(&pod), "{} is not ready", pod.name_any());
        }
        let servers = tier.servers().await;
        let any = servers.iter().any(is_ready);
        assert!(!any, "Redis came back by itself");
        looks += 1;
    }
    let seen = Seen::by(&space, &apps);
    let what = format!("Redis down for {:.0?}", begun.elapsed());
    println!(
        "measured: {what}: ready at each of {looks} looks, {}",
        seen.line()
    );
    seen.no_read_failed(&what);
    assert!(
        seen.pause() + Duration::from_secs(2) >= outage(),
        "Redis was away"
    );

    drop(cordoned);
    let possible = Instant::now();
    let back = eventually_within(SLOW, "Redis is back", || async {
        let servers = tier.servers().await;
        let ready = !servers.is_empty() && servers.iter().all(is_ready);
        ready.then(|| possible.elapsed())
    })
    .await;
    let since = Instant::now();
    space.until_all_served(&apps).await;
    println!(
        "measured: Redis back {back:.1?} after it could be scheduled, every app served again within {:.1?} more",
        since.elapsed()
    );
    nothing_restarted(&space, &apps).await;
    space.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_fails_while_there_is_no_operator_not_even_when_the_primary_dies() {
    let Some(world) =
        world("nothing_fails_while_there_is_no_operator_not_even_when_the_primary_dies")
    else {
        return;
    };
    let _alone = world.cluster.alone().await;
    let (space, tier) = Space::serving(world, "no-operator", spec::replicated()).await;
    let apps = space.apps().await;
    space.begin(&apps);

    let away = world.without_operator(&space.client).await;
    let begun = Instant::now();
    sleep(Duration::from_secs(30)).await;
    let seen = Seen::by(&space, &apps);
    println!(
        "measured: no operator for {:.0?}: {}",
        begun.elapsed(),
        seen.line()
    );
    seen.nothing_failed("no operator");

    // Agents and Sentinels need none.
    space.begin(&apps);
    let primary = tier.primary().await;
    world.cluster.kill_container(&primary, "redis");
    tier.until_another(&primary).await;
    let seen = Seen::once_served(&space, &apps).await;
    println!("measured: primary killed, no operator: {}", seen.line());
    seen.no_read_failed("primary killed, no operator")
        .resumed_within("primary killed, no operator", FAILOVER);

    drop(away);
    world.until_operators(&space.client, 2).await;
    tier.until_ready().await;
    space.until_injecting().await;
    nothing_restarted(&space, &apps).await;
    space.end().await;
}
