//! Behind Sentinels: the sidecar finds the primary, follows it through fail-overs, serves no old
//! value afterwards, and believes no Sentinel that names a server which is no primary.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use e2e::{
    Engine, Liar, Lie, RedisServer, SentinelOptions, SentinelSet, ServerOptions, Sidecar,
    SidecarOptions, Wire, wait, wire::encode,
};
use serde_json::json;

/// What is asked for is 500 ms; a test machine may be busy with other things.
const GENEROUS: Duration = Duration::from_secs(5);

fn before(ports: &[u16]) -> SidecarOptions {
    let upstream = json!({"mode": "Sentinel", "sentinel": {"masterName": "mymaster"}});
    SidecarOptions::before_several(ports, &upstream).rule("cached", "k:{id}", json!({"ttl": "10m"}))
}

/// The primary in `/state`.
fn primary(sidecar: &Sidecar) -> Option<u16> {
    let state = sidecar.state();
    let address = state["topology"]["nodes"][0]["primary"]
        .as_str()?
        .to_owned();
    address.rsplit_once(':')?.1.parse().ok()
}

fn words(sidecar: &Sidecar) -> String {
    let state = sidecar.state();
    state["topology"]["words"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn write(wire: &mut Wire, key: &str, value: &str) -> bool {
    wire.try_call(&["SET", key, value])
        .is_ok_and(|reply| reply == "OK")
}

/// One writer without a pause; the moments of the writes that were accepted.
struct Load {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<Instant>>,
}

impl Load {
    fn on(sidecar: &Sidecar) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, stopped) = (sidecar.address(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut wire = Wire::connect(address);
            let mut accepted = Vec::new();
            let mut number = 0_u64;
            while !stopped.load(Relaxed) {
                number += 1;
                if write(&mut wire, "load", &number.to_string()) {
                    accepted.push(Instant::now());
                } else {
                    // As an app would: not at once again.
                    thread::sleep(Duration::from_millis(1));
                }
            }
            accepted
        });
        Self { stop, thread }
    }

    fn end(self) -> Vec<Instant> {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("the writer does not panic")
    }
}

#[test]
fn writes_resume_after_the_primary_is_killed_and_no_old_value_is_served() {
    for engine in [Engine::Redis7, Engine::Valkey8] {
        let mut set = SentinelSet::new(engine);
        let sidecar = Sidecar::start_coherent(&before(&set.sentinel_ports()));
        let mut wire = sidecar.connect();
        assert!(write(&mut wire, "k:1", "old"));
        sidecar.until_hit(&mut wire, "GET k:1");
        let load = Load::on(&sidecar);
        wait::until_true("the writer works", || wire.run("GET load") != "(nil)");

        let old = set.kill_primary();
        let (new, direct) = set.until_switched(old);
        assert_eq!(Wire::connect(new).run("SET k:1 new"), "OK");
        let mut probe = sidecar.connect();
        let resumed = wait::until("a write through the sidecar is accepted", || {
            write(&mut probe, "probe", "1").then(Instant::now)
        });
        assert_eq!(
            probe.run("GET k:1"),
            "new",
            "{engine:?}: the value before the switch is gone"
        );
        assert_eq!(primary(&sidecar), Some(new.port()));
        let accepted = load.end();
        let first = accepted.iter().find(|at| **at >= direct).copied();
        let took = first.unwrap_or(resumed).min(resumed) - direct;
        println!("{engine:?}: writes resume {took:?} after the new primary takes a direct write");
        assert!(took < GENEROUS, "{took:?}");
        sidecar.until_hit(&mut probe, "GET k:1");
        assert_eq!(probe.run("GET k:1"), "new");
        // What the sidecar acknowledges goes to the new primary.
        assert!(write(&mut probe, "k:2", "there"));
        assert_eq!(Wire::connect(new).run("GET k:2"), "there");
    }
}

#[test]
fn a_planned_failover_moves_writes_to_the_new_primary() {
    let set = SentinelSet::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&before(&set.sentinel_ports()));
    let mut wire = sidecar.connect();
    assert!(write(&mut wire, "k:1", "old"));
    sidecar.until_hit(&mut wire, "GET k:1");
    let first = set.primary().port();
    assert_eq!(primary(&sidecar), Some(first));
    let second = set.failover();
    assert_ne!(first, second);
    // The old primary goes on as one for seconds: nothing but the Sentinels tells of the switch.
    wait::until_true("the sidecar has followed", || {
        primary(&sidecar) == Some(second)
    });
    wait::until_true("a write is accepted", || write(&mut wire, "k:1", "new"));
    assert_eq!(set.server(second).ask("GET k:1"), "new");
    assert_eq!(wire.run("GET k:1"), "new");
    assert!(sidecar.metric("pannier_topology_changes_total", "") >= 2.0);
    // It does not go back while the old one still calls itself a primary.
    for _ in 0..3 {
        let confirmed = sidecar.state()["topology"]["confirmedSecondsAgo"].clone();
        wait::until_true("another look", || {
            let now = sidecar.state()["topology"]["confirmedSecondsAgo"].clone();
            now.as_f64() < confirmed.as_f64() || now.as_f64().is_some_and(|age| age < 0.05)
        });
        assert_eq!(primary(&sidecar), Some(second));
    }
}

#[test]
fn without_any_sentinel_the_known_primary_is_kept() {
    let mut set = SentinelSet::start(&SentinelOptions {
        sentinels: 1,
        replicas: 1,
        ..SentinelOptions::default()
    });
    let sidecar = Sidecar::start_coherent(&before(&set.sentinel_ports()));
    let mut wire = sidecar.connect();
    set.kill_sentinels();
    wait::until_true("/state says that nobody confirms the primary", || {
        words(&sidecar).contains("nobody confirms that")
    });
    assert!(write(&mut wire, "k:1", "v"));
    sidecar.until_hit(&mut wire, "GET k:1");
    assert_eq!(wire.run("GET k:1"), "v");
    set.restart_sentinels();
    wait::until_true("the primary is confirmed again", || {
        !words(&sidecar).contains("nobody confirms")
    });
}

/// From now on it answers as a Sentinel that names a server of this machine, or nobody.
fn name(liar: &Liar, port: Option<u16>) {
    let answer = match port {
        None => b"*-1\r\n".to_vec(),
        Some(port) => encode(&["127.0.0.1", &port.to_string()]),
    };
    liar.answer("SENTINEL GET-MASTER-ADDR-BY-NAME", Lie::Say(answer));
}

#[test]
fn a_sentinel_that_lies_is_not_believed() {
    let server = RedisServer::new(Engine::Redis7);
    let follow = format!("replicaof 127.0.0.1 {}", server.port());
    let replica = RedisServer::start(ServerOptions::of(Engine::Redis7).with(&follow));
    let sentinel = Liar::before(&server);
    sentinel.answer("SENTINEL", Lie::Say(b"*0\r\n".to_vec()));
    name(&sentinel, Some(replica.port()));
    let sidecar = Sidecar::start(&before(&[sentinel.port()]));
    let mut wire = sidecar.connect();
    wait::until_true("the replica is found out", || {
        let words = words(&sidecar);
        words.contains("no primary is known") && words.contains("which is a replica")
    });
    let refused = wire.run("SET k:1 v").to_string();
    assert!(refused.contains("no primary"), "{refused}");
    name(&sentinel, None);
    wait::until_true("nobody is found out", || {
        words(&sidecar).contains("it knows no primary of that name")
    });
    // The truth, at last: no restart is needed.
    name(&sentinel, Some(server.port()));
    sidecar.until_connected();
    wait::until_true("a write is accepted", || write(&mut wire, "k:1", "v"));
    for lie in [Some(replica.port()), None, Some(1)] {
        name(&sentinel, lie);
        wait::until_true("the lie is found out", || {
            words(&sidecar).contains("nobody confirms")
        });
        assert_eq!(primary(&sidecar), Some(server.port()), "{lie:?}");
        assert!(write(&mut wire, "k:1", "v"), "{lie:?}");
        name(&sentinel, Some(server.port()));
        wait::until_true("the truth is confirmed", || {
            !words(&sidecar).contains("nobody")
        });
    }
}

#[test]
fn a_url_with_passwords_for_servers_and_sentinels_is_enough() {
    let mut set = SentinelSet::start(&SentinelOptions {
        replicas: 1,
        password: Some("sesame".to_owned()),
        sentinel_password: Some("watch".to_owned()),
        ..SentinelOptions::default()
    });
    let hosts: Vec<String> = set
        .sentinel_ports()
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    let url = format!("redis-sentinel://:sesame@{}/0#mymaster", hosts.join(","));
    let sidecar = Sidecar::start(
        &SidecarOptions::memory()
            .without_config()
            .env("REDIS_URL", &url)
            .env("REDIS_SENTINEL_PASSWORD", "watch"),
    );
    sidecar.until_connected();
    let mut wire = sidecar.connect();
    assert!(write(&mut wire, "k", "v"));
    let old = set.kill_primary();
    let new = set.until_renamed(old);
    wait::until_true("writes resume", || write(&mut wire, "k", "w"));
    assert_eq!(primary(&sidecar), Some(new));
    let shown = format!("{}{}", sidecar.log(), sidecar.state());
    assert!(
        !shown.contains("sesame") && !shown.contains("watch"),
        "{shown}"
    );
}
