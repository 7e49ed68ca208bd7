//! Faults of a single server's and the sidecars' wall clocks: they step by seconds, minutes or hours.
//! What the sidecar promises it promises by monotonic clocks.

use super::{STALL, Stage};
use crate::{
    Engine,
    history::{Action, NEVER, stage::StageOptions},
    proxy::{Direction::ToClient, Which},
};

/// Clocks can be stepped. With the C library's memory Valkey does not start.
pub(super) fn may_step(options: &mut StageOptions) {
    options.clocks = true;
    options.engine = Engine::Redis7;
}

/// While no invalidation arrives only time ends what is kept.
pub(super) fn of_sidecars(stage: &mut Stage) {
    while stage.goes_on() {
        stage.disturb_all(Which::Tracked, ToClient, STALL);
        for _ in 0..4 {
            stage.pass(60, 120);
            stage.step_sidecars();
        }
        for pod in &stage.pods {
            pod.proxy.heal();
        }
        stage.pass(50, 150);
    }
}

pub(super) fn of_all(stage: &mut Stage) {
    while stage.goes_on() {
        if stage.random.chance(50) {
            stage.disturb_all(Which::Tracked, ToClient, STALL);
        }
        for _ in 0..3 {
            stage.step_server();
            stage.step_sidecars();
            stage.pass(30, 150);
        }
        for pod in &stage.pods {
            pod.proxy.heal();
        }
    }
}

/// Whether a key is gone already nobody but the server knows; none lives longer.
pub(super) fn forward(stage: &mut Stage) {
    stage.note_all("clock", 0, NEVER, Action::MayVanish);
    let mut ahead = 0;
    while stage.goes_on() {
        ahead += 1 + i64::try_from(stage.random.below(60)).unwrap_or(0);
        if let Some(clock) = &stage.clock_of_server {
            clock.step(ahead);
        }
        stage.pass(20, 200);
    }
}
