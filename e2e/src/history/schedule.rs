//! The fault schedules: what happens while clients work. Times and choices come from the seed.

mod clocks;
pub mod cluster;
pub mod sentinel;
mod shards;

use std::time::Duration;

use super::{
    Action, NEVER,
    stage::{Stage, StageOptions},
    workload::Mix,
};
use crate::{
    Engine,
    proxy::{
        Direction::{ToClient, ToServer},
        Disturbance, Which,
    },
};

/// A schedule.
#[derive(Clone, Copy)]
pub struct Schedule {
    /// Its name.
    pub name: &'static str,
    /// What happens.
    pub faults: fn(&mut Stage),
    /// How the stage differs from the usual one.
    pub options: fn(&mut StageOptions),
    /// How the clients' work differs from the usual one.
    pub mix: fn(&mut Mix),
    /// How many times longer than others it takes to show anything.
    pub times: u32,
}

const fn schedule(name: &'static str, faults: fn(&mut Stage)) -> Schedule {
    Schedule {
        name,
        faults,
        options: |_| {},
        mix: |_| {},
        times: 1,
    }
}

impl Schedule {
    const fn on(mut self, options: fn(&mut StageOptions)) -> Self {
        self.options = options;
        self
    }

    const fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    const fn with(mut self, mix: fn(&mut Mix)) -> Self {
        self.mix = mix;
        self
    }
}

/// A way to run Redis, with the schedules for it.
pub struct Topology {
    /// Its name.
    pub name: &'static str,
    /// What may happen there.
    pub schedules: &'static [Schedule],
}

/// The servers take turns in the list of schedules, so that a topology's health and faults are seen
/// on each; the seed says which begins, and a schedule that is played alone has its own.
pub fn engine(place: usize, seed: u64) -> Engine {
    let turn = seed.wrapping_add(u64::try_from(place).unwrap_or(0));
    Engine::ALL[usize::from(!turn.is_multiple_of(2))]
}

/// All that are checked.
pub const TOPOLOGIES: &[Topology] = &[
    Topology {
        name: "standalone",
        schedules: STANDALONE,
    },
    Topology {
        name: "Sentinel",
        schedules: sentinel::SCHEDULES,
    },
    Topology {
        name: "Cluster",
        schedules: cluster::SCHEDULES,
    },
];

/// All schedules for a single server.
pub const STANDALONE: &[Schedule] = &[
    schedule("health", |stage| stage.pass(60_000, 60_000)),
    schedule("health, two event loops", |stage| {
        stage.pass(60_000, 60_000);
    })
    .on(two_loops),
    schedule(
        "invalidations and replies of the tracked link are late",
        late_pushes,
    ),
    schedule("commands on the tracked link are late", late_reads),
    schedule(
        "one event loop hears everything later than the other",
        late_loop,
    )
    .on(two_loops),
    schedule("everything in pieces of a few bytes", pieces),
    schedule(
        "the tracked link stalls beyond maxStaleness",
        stalled_pushes,
    ),
    schedule(
        "the tracked link is very late, then it stalls",
        late_then_stalled,
    )
    // With many writes hardly anything stays long enough to be served after its time.
    .with(|mix| {
        mix.direct_rest = 20_000;
        mix.pod_rest = 40_000;
    }),
    schedule("commands on the tracked link stall", stalled_reads),
    schedule(
        "the tracked link is half open: nothing comes back",
        |stage| {
            half_open(stage, ToClient);
        },
    ),
    schedule(
        "the tracked link is half open: nothing gets through",
        |stage| {
            half_open(stage, ToServer);
        },
    ),
    schedule("the plain links stall", stalled_writes),
    schedule("tracked links are reset", |stage| {
        resets(stage, Which::Tracked);
    }),
    schedule("all links are reset", |stage| resets(stage, Which::All)).on(two_loops),
    schedule("the server closes all connections", client_kill),
    schedule("sidecars are stopped and go on", paused_pods),
    schedule("sidecars are killed", killed_pods),
    schedule("the server is stopped and goes on", paused_server).with(|mix| mix.expiry = false),
    schedule("the server is killed and comes back empty", restarts).with(no_counters),
    schedule(
        "the server forgets whom to tell (tracking-table-max-keys 3)",
        |stage| {
            stage.pass(60_000, 60_000);
        },
    )
    .on(|options| options.server.push("tracking-table-max-keys 3".to_owned())),
    schedule("FLUSHALL and FLUSHDB while replies are late", late_pushes)
        .with(|mix| mix.flushes = true),
    schedule("the server sleeps", sleeps).with(|mix| mix.expiry = false),
    schedule(
        "keys expire and the server does not notice",
        unnoticed_expiry,
    ),
    schedule("the server evicts keys", eviction)
        .on(|options| {
            options
                .server
                .push("maxmemory-policy allkeys-random".to_owned());
        })
        .with(no_counters),
    schedule(
        "transactions and scripts while invalidations are late",
        late_pushes,
    )
    .with(|mix| mix.scripted = 90),
    schedule(
        "slow readers of invalidations are cut off by the server",
        output_limit,
    )
    .on(|options| {
        options
            .server
            .push("client-output-buffer-limit normal 20000 0 0".to_owned());
    }),
    schedule("SWAPDB through the only sidecar", swaps)
        .on(|options| options.pods = 1)
        .with(no_counters),
    schedule("a replica lags behind", lagging_replica).on(|options| options.replica = true),
    schedule("everything at once", mixture).on(two_loops),
    schedule(
        "wall clocks of sidecars step while the tracked link stalls",
        clocks::of_sidecars,
    )
    .on(clocks::may_step),
    schedule("wall clocks of all step, forward and back", clocks::of_all)
        .on(clocks::may_step)
        // Redis ends a time to live by its wall clock.
        .with(|mix| mix.expiry = false),
    schedule(
        "the server's wall clock steps forward, keys expire early",
        clocks::forward,
    )
    .on(clocks::may_step),
];

fn two_loops(options: &mut StageOptions) {
    options.threads = 2;
}

fn no_counters(mix: &mut Mix) {
    mix.counters = false;
}

fn late(delay: u64, jitter: u64) -> Disturbance {
    Disturbance {
        delay: Duration::from_millis(delay),
        jitter: Duration::from_millis(jitter),
        ..Disturbance::default()
    }
}

const STALL: Disturbance = Disturbance {
    delay: Duration::ZERO,
    jitter: Duration::ZERO,
    piece: 0,
    stall: true,
    lose: false,
};

const LOSE: Disturbance = Disturbance {
    stall: false,
    lose: true,
    ..STALL
};

fn late_pushes(stage: &mut Stage) {
    while stage.goes_on() {
        let delay = 2 + stage.random.number() % 60;
        stage.disturb_all(Which::Tracked, ToClient, late(delay, delay));
        stage.pass(200, 600);
        for pod in &stage.pods {
            pod.proxy.heal();
        }
        stage.pass(10, 100);
    }
}

fn late_reads(stage: &mut Stage) {
    while stage.goes_on() {
        let delay = 2 + stage.random.number() % 40;
        stage.disturb_all(Which::Tracked, ToServer, late(delay, delay));
        stage.pass(200, 600);
        for pod in &stage.pods {
            pod.proxy.heal();
        }
        stage.pass(10, 100);
    }
}

fn late_loop(stage: &mut Stage) {
    while stage.goes_on() {
        let delay = 2 + stage.random.number() % 60;
        stage.disturb_all(Which::SomeTracked, ToClient, late(delay, 2 * delay));
        stage.pass(200, 600);
        for pod in &stage.pods {
            pod.proxy.heal();
        }
        stage.pass(10, 100);
    }
}

fn pieces(stage: &mut Stage) {
    while stage.goes_on() {
        for direction in [ToServer, ToClient] {
            let piece = 1 + stage.random.below(7);
            let how = Disturbance {
                piece,
                ..Disturbance::default()
            };
            stage.disturb_all(Which::All, direction, how);
        }
        stage.pass(100, 300);
        for pod in &stage.pods {
            pod.proxy.heal();
        }
    }
}

fn stalled_pushes(stage: &mut Stage) {
    while stage.goes_on() {
        stage.disturb_one(Which::Tracked, ToClient, STALL, (150, 750));
        stage.pass(50, 200);
    }
}

/// A proof that is dated by its arrival would be believed for too long.
fn late_then_stalled(stage: &mut Stage) {
    while stage.goes_on() {
        let delay = 120 + stage.random.number() % 100;
        stage.disturb_all(Which::Tracked, ToClient, late(delay, 0));
        stage.pass(300, 500);
        stage.disturb_all(Which::Tracked, ToClient, STALL);
        stage.pass(300, 500);
        for pod in &stage.pods {
            pod.proxy.heal();
        }
        stage.pass(100, 200);
    }
}

fn stalled_reads(stage: &mut Stage) {
    while stage.goes_on() {
        stage.disturb_one(Which::Tracked, ToServer, STALL, (150, 750));
        stage.pass(50, 200);
    }
}

fn stalled_writes(stage: &mut Stage) {
    while stage.goes_on() {
        let direction = if stage.random.chance(50) {
            ToServer
        } else {
            ToClient
        };
        stage.disturb_one(Which::Plain, direction, STALL, (50, 1_000));
        stage.pass(50, 200);
    }
}

fn half_open(stage: &mut Stage, direction: crate::proxy::Direction) {
    while stage.goes_on() {
        stage.disturb_one(Which::Tracked, direction, LOSE, (300, 900));
        stage.pass(50, 300);
    }
}

fn resets(stage: &mut Stage, which: Which) {
    while stage.goes_on() {
        stage.any_pod().proxy.cut(which);
        stage.pass(20, 200);
    }
}

fn client_kill(stage: &mut Stage) {
    while stage.goes_on() {
        stage.direct("CLIENT KILL TYPE normal SKIPME yes");
        stage.pass(50, 300);
    }
}

/// As [`client_kill`], but the connections of the test itself stay.
fn sidecar_kill(stage: &mut Stage) {
    while stage.goes_on() {
        for server in stage.servers.primaries() {
            let mut wire = server.connect();
            let clients = wire.run("CLIENT LIST").text();
            let sidecars = clients
                .lines()
                .filter(|line| line.contains(" name=pannier-sidecar "));
            for line in sidecars {
                let id = line.split_whitespace().next().unwrap_or_default();
                wire.run(&format!("CLIENT KILL ID {}", id.trim_start_matches("id=")));
            }
        }
        stage.pass(50, 300);
    }
}

fn paused_pods(stage: &mut Stage) {
    while stage.goes_on() {
        let place = stage.random.below(stage.pods.len());
        stage.pods[place].pause();
        stage.pass(50, 700);
        stage.pods[place].resume();
        stage.pass(50, 300);
    }
}

fn killed_pods(stage: &mut Stage) {
    while stage.goes_on() {
        stage.any_pod().restart();
        stage.pass(200, 600);
    }
}

fn paused_server(stage: &mut Stage) {
    while stage.goes_on() {
        stage.servers.one().pause();
        stage.pass(50, 700);
        stage.servers.one().resume();
        stage.pass(100, 300);
    }
}

fn restarts(stage: &mut Stage) {
    while stage.goes_on() {
        stage.pass(300, 700);
        stage.restart_server();
    }
}

fn sleeps(stage: &mut Stage) {
    while stage.goes_on() {
        let tenths = 1 + stage.random.below(4);
        stage.direct(&format!("DEBUG SLEEP 0.{tenths}"));
        stage.pass(50, 300);
    }
}

fn unnoticed_expiry(stage: &mut Stage) {
    stage.direct("DEBUG SET-ACTIVE-EXPIRE 0");
    stage.pass(60_000, 60_000);
}

fn eviction(stage: &mut Stage) {
    stage.note_all("maxmemory", 0, NEVER, Action::MayVanish);
    while stage.goes_on() {
        // Below what an empty server needs: every write evicts what is there, and then fails.
        stage.direct("CONFIG SET maxmemory 500kb");
        stage.pass(5, 40);
        stage.direct("CONFIG SET maxmemory 0");
        stage.pass(50, 300);
    }
}

fn output_limit(stage: &mut Stage) {
    while stage.goes_on() {
        stage.disturb_one(Which::Tracked, ToClient, STALL, (100, 600));
        stage.pass(50, 200);
    }
}

fn swaps(stage: &mut Stage) {
    while stage.goes_on() {
        stage.disturb_all(Which::Tracked, ToClient, late(20, 20));
        stage.pass(100, 200);
        stage.swap_databases(0);
        // A flush of database 1 would be heard, and hide what went wrong.
        stage.pass(300, 400);
        stage.empty_other_database();
    }
}

fn lagging_replica(stage: &mut Stage) {
    while stage.goes_on() {
        if let Some((_, proxy)) = &stage.replica {
            proxy.disturb(Which::All, ToClient, STALL);
        }
        stage.pass(300, 900);
        if let Some((_, proxy)) = &stage.replica {
            proxy.heal();
        }
        stage.pass(50, 200);
    }
}

fn mixture(stage: &mut Stage) {
    while stage.goes_on() {
        let delay = stage.random.number() % 30;
        let piece = stage.random.below(40);
        let how = Disturbance {
            piece,
            ..late(delay, delay)
        };
        let whiches = [Which::All, Which::Tracked, Which::Plain, Which::SomeTracked];
        let which = whiches[stage.random.below(whiches.len())];
        let direction = if stage.random.chance(50) {
            ToServer
        } else {
            ToClient
        };
        stage.any_pod().proxy.disturb(which, direction, how);
        match stage.random.below(6) {
            0 => drop(stage.any_pod().proxy.cut(which)),
            1 => stage.any_pod().proxy.disturb(which, direction, STALL),
            2 => stage.any_pod().proxy.disturb(which, direction, LOSE),
            3 => drop(stage.direct("CLIENT KILL TYPE normal SKIPME yes")),
            4 => stage.any_pod().pause(),
            _ => {}
        }
        stage.pass(50, 400);
        for pod in &mut stage.pods {
            pod.resume();
            pod.proxy.heal();
        }
        stage.pass(10, 100);
    }
}
