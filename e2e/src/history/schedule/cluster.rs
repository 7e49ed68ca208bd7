//! Schedules for a cluster of three primaries with a replica each. Keys lie in three slots, one on
//! every shard; sidecars split commands on several of them. Where links are disturbed each node has a
//! proxy, and announces its port (`cluster-announce-port`).

use super::{Schedule, schedule, shards};
use crate::history::{
    servers::Way,
    stage::{Stage, StageOptions},
    workload::Mix,
};

/// All of them.
pub const SCHEDULES: &[Schedule] = &[
    on(schedule("health", |stage| stage.pass(60_000, 60_000))),
    schedule("health, two event loops", |stage| {
        stage.pass(60_000, 60_000);
    })
    .on(|options| {
        cluster(options);
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
    on(schedule("slots move and come back", moved).with(|mix| mix.expiry = false)).times(3),
    on(schedule("slots are half moved for a while", half_moved).with(|mix| mix.expiry = false))
        .times(3),
    on(schedule("planned failovers", planned)).times(3),
    proxied(schedule(
        "invalidations of one shard are late",
        shards::late_pushes,
    )),
    proxied(schedule(
        "the tracked links to one shard stall beyond maxStaleness",
        shards::stalled_pushes,
    )),
    proxied(schedule(
        "the tracked links to one shard are half open",
        shards::half_open,
    )),
    proxied(schedule("links to one shard are reset", shards::resets)),
    proxied(
        schedule(
            "slots move while invalidations of one shard are late or stall",
            moved_in_trouble,
        )
        .with(|mix| mix.expiry = false),
    )
    .times(2),
    proxied(schedule(
        "planned failovers while a tracked link stalls",
        planned_in_trouble,
    ))
    .times(2),
    on(schedule("a primary is killed", killed).with(no_counters)).times(5),
];

const fn on(schedule: Schedule) -> Schedule {
    schedule.on(cluster)
}

fn cluster(options: &mut StageOptions) {
    options.way = Way::Cluster;
}

const fn proxied(schedule: Schedule) -> Schedule {
    schedule.on(|options| {
        cluster(options);
        options.proxied = true;
    })
}

fn no_counters(mix: &mut Mix) {
    mix.counters = false;
}

/// A slot that holds keys, and a primary that does not own it. The last tag's slot stays: it holds
/// the key whose name is no UTF-8.
fn somewhere_else(stage: &mut Stage) -> (u16, usize) {
    let tag = Way::Cluster.tags()[stage.random.below(2)];
    let away = stage.random.below(2);
    let cluster = stage.servers.cluster();
    let slot = cluster.slot_of(tag);
    let owner = cluster.owner_of(slot);
    let others = (0..cluster.nodes().len()).filter(|node| *node != owner);
    let primaries: Vec<usize> = others.filter(|node| cluster.is_primary(*node)).collect();
    (slot, primaries[away % primaries.len()])
}

fn moved(stage: &mut Stage) {
    while stage.goes_on() {
        let (slot, to) = somewhere_else(stage);
        stage.servers.cluster().migrate_slot(slot, to);
        stage.pass(100, 400);
    }
}

fn moved_in_trouble(stage: &mut Stage) {
    while stage.goes_on() {
        shards::trouble(stage);
        let (slot, to) = somewhere_else(stage);
        stage.servers.cluster().migrate_slot(slot, to);
        stage.pass(50, 300);
        stage.heal_shards();
        stage.pass(20, 100);
    }
}

fn planned_in_trouble(stage: &mut Stage) {
    while stage.goes_on() {
        shards::trouble(stage);
        fail_over(stage);
        stage.pass(100, 400);
        stage.heal_shards();
        stage.pass(100, 300);
    }
}

fn half_moved(stage: &mut Stage) {
    while stage.goes_on() {
        let (slot, to) = somewhere_else(stage);
        let migration = stage.servers.cluster().begin_migration(slot, to);
        let keys = migration.left();
        for key in keys.iter().take(keys.len() / 2) {
            migration.move_key(key);
        }
        std::thread::sleep(std::time::Duration::from_millis(150));
        migration.move_all();
        migration.finish();
        stage.pass(100, 300);
    }
}

/// `CLUSTER FAILOVER` loses nothing: writes wait until the replica has caught up.
fn planned(stage: &mut Stage) {
    while stage.goes_on() {
        fail_over(stage);
        stage.pass(300, 700);
    }
}

fn fail_over(stage: &mut Stage) {
    let tag = Way::Cluster.tags()[stage.random.below(3)];
    let cluster = stage.servers.cluster();
    let owner = cluster.owner_of(cluster.slot_of(tag));
    if let Some(replica) = cluster.replica_of(owner) {
        cluster.failover(replica);
    }
}

fn killed(stage: &mut Stage) {
    while stage.goes_on() {
        let tag = Way::Cluster.tags()[stage.random.below(3)];
        stage.losing(|stage| {
            let cluster = stage.servers.cluster();
            let slot = cluster.slot_of(tag);
            let owner = cluster.owner_of(slot);
            cluster.kill(owner);
            crate::wait::until_true("another node owns the slot", || {
                cluster.owner_of(slot) != owner
            });
            cluster.restart(owner);
            cluster.until_agreed();
        });
        stage.pass(1_000, 1_500);
    }
}
