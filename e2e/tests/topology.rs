//! The sidecar finds the nodes of a cluster, follows fail-overs and slots, and does not believe
//! what cannot be.

use e2e::{
    ClusterOptions, ClusterSet, Engine, Liar, Lie, RedisServer, Sidecar, SidecarOptions, wait,
};
use serde_json::{Value as Json, json};

fn before(ports: &[u16]) -> SidecarOptions {
    SidecarOptions::before_several(ports, &json!({"mode": "Cluster"}))
}

fn topology(sidecar: &Sidecar) -> Json {
    sidecar.state()["topology"].clone()
}

/// Ports of the primaries that the sidecar knows.
fn primaries(sidecar: &Sidecar) -> Vec<u16> {
    let state = topology(sidecar);
    let nodes = state["nodes"].as_array().expect("nodes are a list");
    let port = |node: &Json| {
        let address = node["primary"].as_str()?;
        address.rsplit_once(':')?.1.parse().ok()
    };
    let mut ports: Vec<u16> = nodes.iter().filter_map(port).collect();
    ports.sort_unstable();
    ports
}

fn until_covered(sidecar: &Sidecar, slots: u64) {
    wait::until_true("the sidecar knows the owners of the slots", || {
        topology(sidecar)["slotsCovered"] == slots
    });
}

fn sorted(cluster: &ClusterSet, nodes: &[usize]) -> Vec<u16> {
    let mut ports: Vec<u16> = nodes
        .iter()
        .map(|node| cluster.node(*node).port())
        .collect();
    ports.sort_unstable();
    ports
}

#[test]
fn every_node_of_a_cluster_is_found_from_one_and_followed_through_failovers() {
    for engine in [Engine::Redis7, Engine::Valkey8] {
        let mut cluster = ClusterSet::start(&ClusterOptions::of(engine).replicas(1));
        let sidecar = Sidecar::start(&before(&cluster.ports()[..1]));
        until_covered(&sidecar, 16_384);
        assert_eq!(primaries(&sidecar), sorted(&cluster, &[0, 1, 2]));
        wait::until_true("replicas are counted", || {
            let metrics = sidecar.metrics();
            let says = |role| format!("pannier_upstream_nodes{{role=\"{role}\"}} 3");
            metrics.contains(&says("primary")) && metrics.contains(&says("replica"))
        });
        // The only node that the configuration names.
        cluster.failover(3);
        wait::until_true("the sidecar knows of the planned fail-over", || {
            primaries(&sidecar) == sorted(&cluster, &[1, 2, 3])
        });
        cluster.kill(0);
        cluster.kill(1);
        wait::until_true("a replica takes over", || cluster.is_primary(4));
        wait::until_true("the sidecar knows of the other fail-over", || {
            primaries(&sidecar) == sorted(&cluster, &[2, 3, 4])
        });
        until_covered(&sidecar, 16_384);
        assert!(sidecar.metric("pannier_topology_changes_total", "") >= 3.0);
        assert!(sidecar.metric("pannier_topology_refused_total", "").abs() < f64::EPSILON);
    }
}

#[test]
fn a_cluster_with_a_hole_is_served_and_the_hole_is_told() {
    let cluster = ClusterSet::start(&ClusterOptions {
        hole: 100..200,
        config: vec!["cluster-require-full-coverage no".to_owned()],
        ..ClusterOptions::default()
    });
    let sidecar = Sidecar::start(&before(&cluster.ports()));
    until_covered(&sidecar, 16_284);
    let words = topology(&sidecar)["words"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert_eq!(words, "3 primaries; nobody owns 100 slots");
}

#[test]
fn a_server_that_is_no_cluster_is_told_in_words() {
    let server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start(&before(&[server.port()]));
    wait::until_true("/state says what is wrong", || {
        let words = topology(&sidecar)["words"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        words.contains("cluster support disabled") && words.contains("no primary is known")
    });
}

/// From now on the server describes its cluster like this.
fn describe(liar: &Liar, shards: &str) {
    liar.answer("CLUSTER SHARDS", Lie::Say(shards.as_bytes().to_vec()));
}

/// One shard, as `CLUSTER SHARDS` writes it.
fn shard(first: u16, last: u16, id: &str, port: u16) -> String {
    let [slots, nodes, id_, port_, endpoint, role, health] =
        ["slots", "nodes", "id", "port", "endpoint", "role", "health"].map(bulk);
    let (id, host, master, online) = (bulk(id), bulk("127.0.0.1"), bulk("master"), bulk("online"));
    format!(
        "*4\r\n{slots}*2\r\n:{first}\r\n:{last}\r\n{nodes}*1\r\n*10\r\n{id_}{id}{port_}:{port}\r\n{endpoint}{host}{role}{master}{health}{online}"
    )
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

#[test]
fn a_description_that_contradicts_itself_is_refused_and_the_known_one_stays() {
    let real = RedisServer::new(Engine::Redis7);
    let server = Liar::before(&real);
    let port = server.port();
    let good = format!("*1\r\n{}", shard(0, 16_383, "a", port));
    let info = bulk("cluster_state:ok\r\ncluster_current_epoch:9\r\n");
    server.answer("CLUSTER INFO", Lie::Say(info.into_bytes()));
    describe(&server, &good);
    let sidecar = Sidecar::start(&before(&[port]));
    until_covered(&sidecar, 16_384);
    let version = topology(&sidecar)["version"].clone();
    let refused = || sidecar.metric("pannier_topology_refused_total", "");
    let lies = [
        (
            "slot 50 has two owners",
            format!("*2\r\n{}{}", shard(0, 50, "a", port), shard(50, 99, "b", 1)),
        ),
        (
            "a cluster has 0 to 16383",
            format!("*1\r\n{}", shard(0, 16_384, "a", port)),
        ),
        (
            "is two nodes",
            format!("*2\r\n{}{}", shard(0, 5, "a", port), shard(6, 9, "b", port)),
        ),
        ("the form of CLUSTER SHARDS", "*1\r\n+no\r\n".to_owned()),
    ];
    for (says, lie) in lies {
        let before = refused();
        let emptied = || sidecar.metric("pannier_cache_flushes_total", "doubt");
        let before_it = emptied();
        describe(&server, &lie);
        wait::until_true(says, || {
            let failure = topology(&sidecar)["failure"].to_string();
            refused() > before && failure.contains(says)
        });
        assert!(
            emptied() > before_it,
            "{says}: the local tier is emptied (P4)"
        );
        let known = topology(&sidecar);
        assert_eq!(
            (&known["version"], &known["slotsCovered"]),
            (&version, &json!(16_384)),
            "{says}"
        );
    }
    assert!(sidecar.log().contains("contradicts itself and is refused"));
    describe(&server, &good);
    wait::until_true("the truth is believed again", || {
        topology(&sidecar)["failure"].is_null()
    });
}

#[test]
fn a_server_that_sends_rubbish_or_nothing_costs_nothing_but_the_topology() {
    let real = RedisServer::new(Engine::Redis7);
    let server = Liar::before(&real);
    server.answer("CLUSTER", Lie::Say(b"*1000000000\r\n".to_vec()));
    let sidecar = Sidecar::start(&before(&[server.port()]));
    wait::until_true("the look gives up", || {
        let failure = topology(&sidecar)["failure"].to_string();
        failure.contains("no answer within")
    });
    server.answer("CLUSTER", Lie::Say(b"?junk\r\n".to_vec()));
    wait::until_true("rubbish is told", || {
        let failure = topology(&sidecar)["failure"].to_string();
        failure.contains("where a reply should begin")
    });
    let mut wire = sidecar.connect();
    assert_eq!(wire.run("PING"), "PONG");
}
