//! Schedules for a primary, two replicas and three Sentinels. Sidecars find the servers themselves,
//! so faults happen to processes, connections and roles. Where links are disturbed each server has a
//! proxy, and announces its port (`replica-announce-port`).

use super::{Schedule, schedule, shards};
use crate::{
    history::{
        servers::Way,
        stage::{Stage, StageOptions},
        workload::Mix,
    },
    server::loopback,
    wait,
    wire::Wire,
};

/// All of them.
pub const SCHEDULES: &[Schedule] = &[
    on(schedule("health", |stage| stage.pass(60_000, 60_000))),
    schedule("health, two event loops", |stage| {
        stage.pass(60_000, 60_000);
    })
    .on(|options| {
        sentinel(options);
        super::two_loops(options);
    }),
    on(schedule(
        "all connections of sidecars are closed",
        super::sidecar_kill,
    )),
    on(schedule(
        "sidecars are stopped and go on",
        super::paused_pods,
    )),
    on(schedule("sidecars are killed", super::killed_pods)),
    on(schedule(
        "Sentinels are killed and come back",
        killed_sentinels,
    )),
    proxied(schedule(
        "invalidations of the primary are late",
        shards::late_pushes,
    )),
    proxied(schedule(
        "the tracked links stall beyond maxStaleness",
        shards::stalled_pushes,
    )),
    proxied(schedule(
        "the tracked links are half open",
        shards::half_open,
    )),
    proxied(schedule("links to the primary are reset", shards::resets)),
    proxied(
        schedule(
            "planned failovers while the tracked links stall",
            planned_in_trouble,
        )
        .with(no_counters),
    )
    .times(2),
    on(schedule("planned failovers", planned).with(no_counters)).times(3),
    on(schedule("the primary is killed", killed).with(no_counters)).times(4),
    on(schedule("the primary is stopped until another took over", stopped).with(no_counters))
        .times(4),
];

/// Sentinels do not replace a primary again within twice their `failover-timeout` of 3 s.
const BETWEEN: u64 = 6_500;

const fn on(schedule: Schedule) -> Schedule {
    schedule.on(sentinel)
}

fn sentinel(options: &mut StageOptions) {
    options.way = Way::Sentinel;
}

const fn proxied(schedule: Schedule) -> Schedule {
    schedule.on(|options| {
        sentinel(options);
        options.proxied = true;
    })
}

/// A failover may lose additions, and sums are told twice.
fn no_counters(mix: &mut Mix) {
    mix.counters = false;
}

fn killed_sentinels(stage: &mut Stage) {
    while stage.goes_on() {
        stage.servers.sentinel().kill_sentinel(0);
        stage.pass(100, 300);
        stage.servers.sentinel().restart_sentinels();
        stage.pass(100, 300);
    }
}

fn planned(stage: &mut Stage) {
    while stage.goes_on() {
        stage.losing(|stage| {
            let set = stage.servers.sentinel();
            let old = set.primary().port();
            set.failover();
            until_follower(stage, old);
        });
        stage.pass(1_000, 1_500);
        stage.servers.sentinel().until_watched();
    }
}

fn planned_in_trouble(stage: &mut Stage) {
    while stage.goes_on() {
        shards::trouble(stage);
        stage.losing(|stage| {
            let set = stage.servers.sentinel();
            let old = set.primary().port();
            set.failover();
            stage.heal_shards();
            until_follower(stage, old);
        });
        stage.pass(800, 1_200);
        stage.servers.sentinel().until_watched();
    }
}

fn killed(stage: &mut Stage) {
    stage.pass(300, 500);
    while stage.goes_on() {
        stage.losing(|stage| {
            let set = stage.servers.sentinel();
            let old = set.kill_primary();
            set.until_switched(old);
            set.until_renamed(old);
            set.restart(old);
            until_follower(stage, old);
        });
        stage.pass(BETWEEN, BETWEEN + 500);
        stage.servers.sentinel().until_watched();
    }
}

fn stopped(stage: &mut Stage) {
    stage.pass(300, 500);
    while stage.goes_on() {
        stage.losing(|stage| {
            let set = stage.servers.sentinel();
            let old = set.primary().port();
            set.pause(old);
            set.until_switched(old);
            set.until_renamed(old);
            set.resume(old);
            until_follower(stage, old);
        });
        stage.pass(BETWEEN, BETWEEN + 500);
        stage.servers.sentinel().until_watched();
    }
}

/// Until then it may take writes that are lost.
fn until_follower(stage: &mut Stage, port: u16) {
    let set = stage.servers.sentinel();
    wait::until_true("the old primary follows the new one", || {
        // Sentinels have changed their mind; `Stage::heal` notices.
        if set.primary().port() == port {
            return true;
        }
        // Its connections are closed when it changes its role.
        let wire = Wire::try_connect(loopback(port)).ok();
        let info = wire.and_then(|mut wire| wire.try_call(&["INFO", "replication"]).ok());
        info.is_some_and(|info| {
            let info = info.to_string();
            info.contains("role:slave") && info.contains("master_link_status:up")
        })
    });
    for pod in &stage.pods {
        pod.until_coherent();
    }
}
