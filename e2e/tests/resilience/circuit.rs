//! The circuit breaker.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use e2e::{Engine, RedisServer, ServerOptions, Sidecar, SidecarOptions, wait};
use serde_json::json;

/// Accepts connections and closes them at once.
struct Refuser {
    port: u16,
    accepted: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Refuser {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::<AtomicU64>::default();
        let stop = Arc::<AtomicBool>::default();
        let (count, end) = (Arc::clone(&accepted), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(SeqCst) {
                    return;
                }
                drop(stream);
                count.fetch_add(1, SeqCst);
            }
        });
        Self {
            port,
            accepted,
            stop,
            thread: Some(thread),
        }
    }

    fn accepted(&self) -> u64 {
        self.accepted.load(SeqCst)
    }
}

impl Drop for Refuser {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        let _ = std::net::TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn breaking(port: u16, open_for: &str) -> SidecarOptions {
    SidecarOptions::before_port(port)
        .rule("cached", "c:{id}", json!({}))
        .config(json!({"resilience": {
            "circuitBreaker": {"failures": 3, "openFor": open_for},
            "commandTimeout": "300ms",
            "maxRetries": 0,
        }}))
}

fn until_circuit(sidecar: &Sidecar, state: &str) {
    let label = format!("state=\"{state}\"");
    wait::until_true(&format!("the circuit is {state}"), || {
        sidecar.metric("pannier_circuit_state", &label) > 0.0
    });
}

#[test]
fn s2_9_an_open_circuit_sends_nothing_and_one_probe_closes_it() {
    let refuser = Refuser::start();
    let sidecar = Sidecar::start(&breaking(refuser.port, "3s"));
    until_circuit(&sidecar, "open");
    let mut app = sidecar.connect();
    let reply = app.run("SET k v").to_string();
    assert!(
        reply.starts_with(
            "-ERR redis is unavailable, the command was not executed: the circuit is open: nothing is sent for another "
        ),
        "{reply}"
    );
    // Those that were under way when it opened are over; from here on nobody connects.
    wait::until_true("connecting has ended", || {
        let before = refuser.accepted();
        thread::sleep(Duration::from_millis(50));
        refuser.accepted() == before
    });
    let before = refuser.accepted();
    for command in ["GET c:1", "SET k v", "MULTI", "BLPOP l 0", "SUBSCRIBE s"] {
        assert!(app.run(command).is_error(), "{command}");
    }
    let state = sidecar.state();
    assert_eq!(state["circuits"][0]["state"], "Open", "{state}");
    assert_eq!(refuser.accepted(), before);
    // Three seconds later one connection is made, and it opens again.
    let opened = || sidecar.metric("pannier_circuit_opened_total", "");
    wait::until_true("the probe fails", || opened() > 1.0);
    assert_eq!(refuser.accepted(), before + 1);
    let port = refuser.port;
    drop(refuser);
    let _server = RedisServer::start_on(port, ServerOptions::default());
    until_circuit(&sidecar, "closed");
    wait::until_true("commands work", || app.run("SET k v") == "OK");
    assert_eq!(sidecar.state()["circuits"][0]["state"], "Closed");
    let log = sidecar.log();
    for line in [
        "the circuit opened: nothing is sent to redis for",
        "the circuit is half open: one probe is sent",
        "the circuit opened again: the probe failed",
        "the circuit closed",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
}

#[test]
fn s2_9_timeouts_open_the_circuit_and_commands_fail_at_once_from_then_on() {
    let server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&breaking(server.port(), "2s"));
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET k v"), "OK");
    server.pause();
    wait::until_true("the circuit is open", || {
        let reply = app.run("GET k").to_string();
        reply.contains("the circuit is open")
    });
    // None of them waits for a timeout, let alone all.
    let begun = Instant::now();
    for _ in 0..50 {
        assert!(app.run("GET k").is_error());
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
    server.resume();
    until_circuit(&sidecar, "closed");
    wait::until_true("commands work", || app.run("GET k") == "v");
}

#[test]
fn s2_9_with_an_offline_queue_commands_wait_for_the_circuit_to_close() {
    let mut server = RedisServer::new(Engine::Redis7);
    let options = breaking(server.port(), "500ms")
        .config(json!({"resilience": {"offlineQueue": {"maxWait": "20s"}}}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    server.kill();
    until_circuit(&sidecar, "open");
    app.send(b"SET k v\r\nGET k\r\n").unwrap();
    wait::until_true("they wait", || {
        sidecar.metric("pannier_offline_queue_commands", "") > 1.0
    });
    server.restart();
    assert_eq!(app.read().unwrap(), "OK");
    assert_eq!(app.read().unwrap(), "v");
}
