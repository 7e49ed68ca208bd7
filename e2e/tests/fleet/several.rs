//! The same behind Sentinels and in front of a cluster, through fail-overs and moves.

use e2e::{
    ClusterOptions, ClusterSet, Engine, SentinelSet, Sidecar, SidecarOptions, Wire,
    sentinel::MASTER, wait,
};
use serde_json::{Value as Json, json};

use super::{applied, live, until_all_are_known};

/// Begins the names by which the sidecars of the tier know each other.
const TAG: &str = "{shop/main}";

fn options(ports: &[u16], upstream: &Json) -> SidecarOptions {
    SidecarOptions::before_several(ports, upstream)
        .rule("cached", "c:{id}", json!({}))
        .config(json!({
            "tier": "shop/main",
            "keyspace": {"prefix": "shop:"},
            "sidecar": {"heartbeat": "1s"},
        }))
}

struct Fleet {
    sidecars: [Sidecar; 3],
    apps: [Wire; 3],
}

impl Fleet {
    fn start(options: &SidecarOptions) -> Self {
        let sidecars = [(); 3].map(|()| Sidecar::start_coherent(options));
        let mut apps = [0, 1, 2].map(|index: usize| sidecars[index].connect());
        until_all_are_known(&mut apps);
        Self { sidecars, apps }
    }

    /// All know each other, and drop what one of them asks for. A key per shard.
    fn agrees(&mut self, when: &str) {
        wait::until_true(&format!("all are announced {when}"), || {
            let mut all = self.sidecars.iter();
            all.all(|one| one.state()["sidecars"]["state"] == "Announced")
        });
        until_all_are_known(&mut self.apps);
        for key in ["c:1", "c:2", "c:3", "c:4"] {
            assert_eq!(self.apps[0].run(&format!("SET {key} {}", when.len())), "OK");
            let read = format!("GET {key}");
            for (sidecar, app) in self.sidecars.iter().zip(&mut self.apps) {
                sidecar.until_hit(app, &read);
            }
            // Somebody may be between two connections: then fewer have applied it, and it says so.
            wait::until_true(&format!("all apply an invalidation {when}"), || {
                let answer = self.apps[1].run(&format!("PANNIER.INVALIDATE {key}"));
                !answer.is_error() && applied(&answer) == (3, 3)
            });
            for (sidecar, app) in self.sidecars.iter().zip(&mut self.apps) {
                assert!(!sidecar.is_hit(app, &read), "{key} was dropped {when}");
            }
        }
    }

    /// That a server is no primary any longer is no refusal.
    fn nobody_was_refused(&self) {
        for sidecar in &self.sidecars {
            let log = sidecar.log();
            assert!(!log.contains("refuses its announcement"), "{log}");
        }
    }
}

#[test]
fn p5_behind_sentinels_sidecars_know_each_other_again_after_failovers() {
    for engine in Engine::ALL {
        let mut set = SentinelSet::new(engine);
        let upstream = json!({"mode": "Sentinel", "sentinel": {"masterName": MASTER}});
        let mut fleet = Fleet::start(&options(&set.sentinel_ports(), &upstream));
        fleet.agrees("in health");
        set.failover();
        fleet.agrees("after a planned failover");
        fleet.nobody_was_refused();
        set.until_watched();
        let old = set.kill_primary();
        set.until_switched(old);
        set.until_renamed(old);
        fleet.agrees("after the primary was killed");
        fleet.nobody_was_refused();
    }
}

#[test]
fn p5_in_front_of_a_cluster_sidecars_know_each_other_wherever_their_slot_is() {
    for engine in Engine::ALL {
        let mut cluster = ClusterSet::start(&ClusterOptions::of(engine).replicas(1));
        let mut fleet = Fleet::start(&options(&cluster.ports(), &json!({"mode": "Cluster"})));
        fleet.agrees("in health");

        let slot = cluster.slot_of(TAG);
        let owner = cluster.owner_of(slot);
        let replica = cluster.replica_of(owner).unwrap();
        cluster.failover(replica);
        fleet.agrees("after a planned failover of the slot's owner");

        let elsewhere = (0..6)
            .find(|node| *node != replica && cluster.is_primary(*node))
            .unwrap();
        cluster.migrate_slot(slot, elsewhere);
        fleet.agrees("after the slot has moved");
        fleet.nobody_was_refused();

        cluster.kill(elsewhere);
        wait::until_true("another node owns the slot", || {
            cluster.owner_of(slot) != elsewhere
        });
        fleet.agrees("after the slot's owner was killed");
        fleet.nobody_was_refused();
        assert_eq!(live(&mut fleet.apps[0]), 3);
    }
}
