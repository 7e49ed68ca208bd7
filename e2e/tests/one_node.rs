//! An app that brings a cluster client works unchanged (S0.16): the sidecar shows itself as a
//! cluster of one node. ioredis `Cluster`, node-redis `createCluster` and redis-py `RedisCluster`
//! run before both servers and in memory mode; the replies are compared with those of a real
//! cluster of one node.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use std::{net::SocketAddr, process::Command};

use e2e::{
    ClusterOptions, ClusterSet, Engine, RedisServer, ServerOptions, Sidecar, SidecarOptions, Value,
    Wire, clients, environment::available, ports, wait,
};
use serde_json::json;

/// A real cluster that is one node and owns every slot.
fn real_cluster() -> RedisServer {
    // By itself it would take its port plus 10,000, which another test may have.
    let options = ServerOptions::of(Engine::Redis7)
        .with("cluster-enabled yes")
        .with(&format!("cluster-port {}", ports::free()));
    let server = RedisServer::start(options);
    let mut direct = server.connect();
    assert_eq!(direct.run("CLUSTER ADDSLOTSRANGE 0 16383"), "OK");
    let address = "CONFIG SET cluster-announce-ip 127.0.0.1";
    assert_eq!(direct.run(address), "OK");
    wait::until_true("the cluster is up", || {
        direct
            .run("CLUSTER INFO")
            .text()
            .contains("cluster_state:ok")
    });
    server
}

/// Runs a scenario against a real cluster of one node, which shows that the scenario is right; the
/// sidecar before both servers; and the sidecar alone.
fn everywhere(mut scenario: impl FnMut(SocketAddr, &str)) {
    scenario(real_cluster().address(), "cluster");
    let hits = |sidecar: &Sidecar| assert!(sidecar.hits() > 0.0, "{}", sidecar.metrics());
    for engine in Engine::ALL {
        let server = RedisServer::new(engine);
        for prefix in ["", "app:test:"] {
            let options = SidecarOptions::before(&server)
                .rule("cached", "c:{id}", json!({}))
                .config(json!({"keyspace": {"prefix": prefix}}));
            let sidecar = Sidecar::start_coherent(&options);
            scenario(sidecar.address(), "redis");
            hits(&sidecar);
        }
    }
    let options = SidecarOptions::memory().rule("cached", "c:{id}", json!({}));
    scenario(Sidecar::start(&options).address(), "memory");
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("all steps done"),
        "{command:?}\n{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn with_node(client: &str, protocols: &[&str]) {
    let Some(folder) = available(client, clients::node()) else {
        return;
    };
    everywhere(|address, backend| {
        for protocol in protocols {
            run(Command::new("node").arg(folder.join("cluster.js")).args([
                client,
                &address.port().to_string(),
                protocol,
                backend,
            ]));
        }
    });
}

#[test]
fn s0_16_ioredis_cluster_works_unchanged() {
    with_node("ioredis", &["2"]);
}

#[test]
fn s0_16_node_redis_cluster_works_unchanged_over_both_protocols() {
    with_node("node-redis", &["2", "3"]);
}

#[test]
fn s0_16_redis_py_cluster_works_unchanged_over_both_protocols() {
    let Some((python, scripts)) = available("redis-py", clients::python()) else {
        return;
    };
    everywhere(|address, backend| {
        for protocol in ["2", "3"] {
            run(Command::new(&python).arg(scripts.join("cluster.py")).args([
                &address.port().to_string(),
                protocol,
                backend,
            ]));
        }
    });
}

/// A sidecar in front of a cluster of three shards: its clients still see one node.
fn before_three_shards(mut scenario: impl FnMut(SocketAddr)) {
    let cluster = ClusterSet::start(&ClusterOptions::of(Engine::Redis7));
    let options = SidecarOptions::before_port(cluster.ports()[0])
        .rule("cached", "c:{id}", json!({}))
        .config(json!({"upstream": {"mode": "Cluster"}}));
    let sidecar = Sidecar::start_coherent(&options);
    scenario(sidecar.address());
}

#[test]
fn s0_16_cluster_clients_of_node_listen_to_channels_of_every_shard() {
    let Some(folder) = available("ioredis", clients::node()) else {
        return;
    };
    before_three_shards(|address| {
        for (client, protocol) in [("ioredis", "2"), ("node-redis", "2"), ("node-redis", "3")] {
            run(Command::new("node").arg(folder.join("cluster.js")).args([
                client,
                &address.port().to_string(),
                protocol,
                "redis",
            ]));
        }
    });
}

#[test]
fn s0_16_redis_py_cluster_listens_to_channels_of_every_shard() {
    let Some((python, scripts)) = available("redis-py", clients::python()) else {
        return;
    };
    before_three_shards(|address| {
        for protocol in ["2", "3"] {
            run(Command::new(&python).arg(scripts.join("cluster.py")).args([
                &address.port().to_string(),
                protocol,
                "redis",
            ]));
        }
    });
}

/// The reply without what names a node: ids, ports and epochs.
fn shape(reply: &Value) -> String {
    let text = format!("{reply:?}");
    let mut shape = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let name = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let stays = name
            .parse::<u64>()
            .map_or(name.len() != 40, |number| number == 16383);
        shape.push_str(if stays { word } else { &word[name.len()..] });
    }
    shape
}

#[test]
fn s0_16_replies_have_the_shape_of_a_real_cluster_of_one_node() {
    let cluster = real_cluster();
    let server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&SidecarOptions::before(&server));
    for hello in ["HELLO 2", "HELLO 3"] {
        let (mut app, mut direct) = (sidecar.connect(), cluster.connect());
        app.run(hello);
        direct.run(hello);
        for line in [
            "CLUSTER SLOTS",
            "CLUSTER SHARDS",
            "CLUSTER NODES",
            "CLUSTER INFO",
            "CLUSTER MYID",
            "CLUSTER LINKS",
            "READONLY",
            "READWRITE",
            "ASKING",
        ] {
            assert_eq!(shape(&app.run(line)), shape(&direct.run(line)), "{line}");
        }
        for line in [
            "CLUSTER KEYSLOT foo",
            "CLUSTER KEYSLOT {user1000}.following",
            "CLUSTER KEYSLOT foo{}{bar}",
            "CLUSTER KEYSLOT foo{{bar}}zap",
            "CLUSTER KEYSLOT foo{bar}{zap}",
            "CLUSTER KEYSLOT foo{bar",
            "CLUSTER KEYSLOT",
            "CLUSTER REPLICAS nobody",
            "CLUSTER COUNT-FAILURE-REPORTS nobody",
            "CLUSTER NOSUCH",
            "CLUSTER",
        ] {
            assert_eq!(app.run(line), direct.run(line), "{line}");
        }
        let me = app.run("CLUSTER MYID").text();
        assert_eq!(app.run(&format!("CLUSTER REPLICAS {me}")), "[]");
    }
}

#[test]
fn s0_16_the_node_is_where_the_client_is_connected() {
    let options = SidecarOptions::memory()
        .flag("--unix-socket")
        .flag("{folder}/redis.sock");
    let sidecar = Sidecar::start(&options);
    let port = sidecar.address().port();
    let node = |wire: &mut Wire| {
        let slots = wire.run("CLUSTER SLOTS");
        let node = slots.items()[0].items()[2].items().to_vec();
        (node[0].text(), node[1].integer())
    };
    assert_eq!(
        node(&mut sidecar.connect()),
        ("127.0.0.1".to_owned(), i64::from(port))
    );
    let mut six = Wire::connect(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)));
    assert_eq!(node(&mut six), ("::1".to_owned(), i64::from(port)));
    let mut socket =
        std::os::unix::net::UnixStream::connect(sidecar.folder().join("redis.sock")).unwrap();
    std::io::Write::write_all(&mut socket, b"CLUSTER NODES\r\nQUIT\r\n").unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut socket, &mut text).unwrap();
    assert!(
        text.contains(&format!(" 127.0.0.1:{port}@0 myself,master ")),
        "{text}"
    );
}

/// ADR 0008: these libraries ask every server, and would refuse keys of different slots.
#[test]
fn s0_16_libraries_that_look_for_a_cluster_by_themselves_find_a_plain_server() {
    let server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&SidecarOptions::before(&server));
    let mut direct = server.connect();
    for (library, sees_a_cluster) in [
        ("SE.Redis", false),
        ("SE.Redis-Extensions", false),
        ("rueidis", false),
        ("valkey", false),
        ("valkey-py", true),
        ("redis-py", true),
    ] {
        let mut app = sidecar.connect();
        assert_eq!(app.run(&format!("CLIENT SETINFO LIB-NAME {library}")), "OK");
        for line in ["CLUSTER NODES", "CLUSTER SLOTS", "READONLY"] {
            let reply = app.run(line);
            if sees_a_cluster {
                assert!(!reply.is_error(), "{library}: {line}: {reply}");
            } else {
                assert_eq!(reply, direct.run(line), "{library}: {line}");
            }
        }
    }
    let mut app = sidecar.connect();
    assert!(app.run("INFO cluster").text().contains("cluster_enabled:0"));
    for line in [
        "CLUSTER MEET 127.0.0.1 7000",
        "CLUSTER FAILOVER",
        "CLUSTER COUNTKEYSINSLOT 1",
        "CLUSTER GETKEYSINSLOT 1 10",
    ] {
        let refusal = app.run(line).to_string();
        assert!(
            refusal.contains("is not available through Pannier"),
            "{line}: {refusal}"
        );
    }
}
