//! Discovery over TLS: Sentinels and nodes tell the servers' TLS ports to who asks over TLS; the
//! sidecar follows them there, verifies each, and says nothing in the clear.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use e2e::{
    ClusterOptions, ClusterSet, Engine, RedisServer, SentinelOptions, SentinelSet, Sidecar,
    SidecarOptions, Wire, sentinel::MASTER, wait,
};
use serde_json::{Value as Json, json};

fn before(ports: &[u16], upstream: &Json, authority: &str) -> SidecarOptions {
    SidecarOptions::before_several(ports, upstream)
        .rule("cached", "k:*", json!({}))
        .config(json!({"upstream": {"tls": {"caFile": authority}}}))
}

fn sentinel() -> Json {
    json!({"mode": "Sentinel", "sentinel": {"masterName": MASTER}})
}

fn cluster() -> Json {
    json!({"mode": "Cluster"})
}

/// Ports of the primaries that the sidecar knows.
fn primaries(sidecar: &Sidecar) -> Vec<u16> {
    let state = sidecar.state();
    let nodes = state["topology"]["nodes"].as_array().unwrap().clone();
    let port = |node: &Json| node["primary"].as_str()?.rsplit_once(':')?.1.parse().ok();
    let mut ports: Vec<u16> = nodes.iter().filter_map(port).collect();
    ports.sort_unstable();
    ports
}

fn until_primaries(sidecar: &Sidecar, servers: &[&RedisServer]) {
    let mut wanted: Vec<u16> = servers.iter().map(|server| server.tls_port()).collect();
    wanted.sort_unstable();
    wait::until_true("the sidecar knows the primaries by their TLS ports", || {
        primaries(sidecar) == wanted
    });
}

/// Every connection of the sidecar to that server came in at the TLS port.
fn only_tls(server: &RedisServer) {
    let clients = server.connect().run("CLIENT LIST").text();
    let port = format!(":{} ", server.tls_port());
    let mut ours = clients
        .lines()
        .filter(|line| line.contains("name=pannier-sidecar"))
        .peekable();
    assert!(ours.peek().is_some(), "{clients}");
    for line in ours {
        let local = line.split_once(" laddr=").unwrap().1;
        assert!(
            local.split_inclusive(' ').next().unwrap().ends_with(&port),
            "{line}"
        );
    }
}

/// What is written, here or directly, is read here.
fn works(sidecar: &Sidecar, app: &mut Wire, direct: &mut Wire, key: &str, value: &str) {
    wait::until_true("a write is accepted", || {
        app.call(&["SET", key, value]) == "OK"
    });
    let read = format!("GET {key}");
    sidecar.until_hit(app, &read);
    assert_eq!(app.run(&read), value);
    let others = format!("{value}-by-others");
    assert_eq!(direct.call(&["SET", key, &others]), "OK");
    wait::until_true("the invalidation has come", || {
        app.run(&read) == others.as_str()
    });
}

#[test]
fn behind_sentinels_that_speak_tls_the_primary_is_found_and_followed() {
    for engine in Engine::ALL {
        let mut set = SentinelSet::start(&SentinelOptions {
            tls: true,
            ..SentinelOptions::of(engine)
        });
        let authority = set.certificates().authority.clone();
        let sidecar =
            Sidecar::start_coherent(&before(&set.sentinel_tls_ports(), &sentinel(), &authority));
        let mut app = sidecar.connect();
        until_primaries(&sidecar, &[set.primary()]);
        works(
            &sidecar,
            &mut app,
            &mut set.primary().connect(),
            "k:1",
            "first",
        );
        only_tls(set.primary());

        let new = set.failover();
        until_primaries(&sidecar, &[set.server(new)]);
        works(
            &sidecar,
            &mut app,
            &mut set.server(new).connect(),
            "k:1",
            "second",
        );
        only_tls(set.server(new));

        set.until_watched();
        let old = set.kill_primary();
        let (address, _) = set.until_switched(old);
        let server = set.server(address.port());
        until_primaries(&sidecar, &[server]);
        works(&sidecar, &mut app, &mut server.connect(), "k:1", "third");
    }
}

#[test]
fn a_cluster_that_speaks_tls_is_found_and_its_redirects_are_followed() {
    for engine in Engine::ALL {
        let mut cluster = ClusterSet::start(&ClusterOptions {
            tls: true,
            ..ClusterOptions::of(engine).replicas(1)
        });
        let authority = cluster.certificates().authority.clone();
        let options = before(&cluster.tls_ports()[..1], &self::cluster(), &authority);
        let sidecar = Sidecar::start_coherent(&options);
        let mut app = sidecar.connect();
        let nodes = |all: [usize; 3]| all.map(|node| cluster.node(node));
        until_primaries(&sidecar, &nodes([0, 1, 2]));
        for node in 0..3 {
            let key = cluster.key_on(node, "k:");
            works(
                &sidecar,
                &mut app,
                &mut cluster.connect(node),
                &key,
                "first",
            );
            only_tls(cluster.node(node));
        }
        // MOVED and ASK name TLS ports as well.
        let key = cluster.key_on(0, "k:");
        let slot = cluster.slot_of(&key);
        let migration = cluster.begin_migration(slot, 1);
        assert_eq!(app.run(&format!("GET {key}")), "first-by-others");
        migration.move_all();
        assert_eq!(app.run(&format!("APPEND {key} !")).integer(), 16);
        migration.finish();
        works(&sidecar, &mut app, &mut cluster.connect(1), &key, "moved");

        cluster.failover(4);
        until_primaries(
            &sidecar,
            &[cluster.node(0), cluster.node(2), cluster.node(4)],
        );
        works(&sidecar, &mut app, &mut cluster.connect(4), &key, "second");
        only_tls(cluster.node(4));
        cluster.kill(4);
        wait::until_true("the old primary takes over", || cluster.owner_of(slot) == 1);
        works(&sidecar, &mut app, &mut cluster.connect(1), &key, "third");
    }
}

#[test]
fn who_is_signed_by_somebody_else_is_not_asked() {
    let set = SentinelSet::start(&SentinelOptions {
        tls: true,
        ..SentinelOptions::default()
    });
    let nodes = ClusterSet::start(&ClusterOptions {
        tls: true,
        ..ClusterOptions::default()
    });
    // Each trusts the other's authority.
    for (ports, upstream, authority) in [
        (set.sentinel_tls_ports(), sentinel(), nodes.certificates()),
        (nodes.tls_ports(), cluster(), set.certificates()),
    ] {
        let sidecar = Sidecar::start(&before(&ports, &upstream, &authority.authority));
        wait::until_true("it is said why", || {
            let state = sidecar.state();
            let words = state["topology"]["words"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            words.contains("certificate")
        });
        let mut app = sidecar.connect();
        assert!(app.run("SET k:1 v").is_error());
        assert!(primaries(&sidecar).is_empty());
    }
}
