//! Faults of the links between sidecars and one of several primaries, whoever manages those. Replicas
//! and Sentinels take the announced way as well; the proxy leaves their connections in peace.

use super::{LOSE, STALL, Stage, late};
use crate::proxy::{
    Direction::{ToClient, ToServer},
    Which,
};

pub(super) fn late_pushes(stage: &mut Stage) {
    while stage.goes_on() {
        let delay = 2 + stage.random.number() % 60;
        stage.disturb_shard(Which::Tracked, ToClient, late(delay, delay));
        stage.pass(200, 600);
        stage.heal_shards();
        stage.pass(10, 100);
    }
}

pub(super) fn stalled_pushes(stage: &mut Stage) {
    while stage.goes_on() {
        stage.disturb_shard(Which::Tracked, ToClient, STALL);
        stage.pass(150, 750);
        stage.heal_shards();
        stage.pass(50, 200);
    }
}

pub(super) fn half_open(stage: &mut Stage) {
    while stage.goes_on() {
        let direction = if stage.random.chance(50) {
            ToClient
        } else {
            ToServer
        };
        stage.disturb_shard(Which::Tracked, direction, LOSE);
        stage.pass(300, 700);
        stage.heal_shards();
        stage.pass(50, 200);
    }
}

pub(super) fn resets(stage: &mut Stage) {
    while stage.goes_on() {
        let which = [Which::All, Which::Tracked, Which::Plain][stage.random.below(3)];
        stage.cut_shard(which);
        stage.pass(20, 200);
    }
}

/// What goes on while something else happens.
pub(super) fn trouble(stage: &mut Stage) {
    match stage.random.below(3) {
        0 => stage.disturb_shard(Which::Tracked, ToClient, late(30, 60)),
        1 => stage.disturb_shard(Which::Tracked, ToClient, STALL),
        _ => stage.disturb_shard(Which::SomeTracked, ToClient, STALL),
    }
}
