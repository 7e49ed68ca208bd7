//! Servers that lie: wrong RESP, pushes that cannot be read, replies to nobody, refusals of every
//! kind. Expected each time: a clear error, other connections unharmed, no stale value (P1, P4, P9).
//!
//! The liar stands before a real server and tells the truth otherwise.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use e2e::{Engine, Liar, Lie, RedisServer, Sidecar, SidecarOptions, Wire, http, wait};
use serde_json::json;

struct Stage {
    // Before the server: connections end before what they lead to.
    sidecar: Sidecar,
    liar: Liar,
    direct: Wire,
    app: Wire,
    _server: RedisServer,
}

fn say(bytes: &str) -> Lie {
    Lie::Say(bytes.as_bytes().to_vec())
}

fn options(liar: &Liar) -> SidecarOptions {
    SidecarOptions::before_port(liar.port()).rule("cached", "c:{id}", json!({}))
}

impl Stage {
    fn new() -> Self {
        let server = RedisServer::new(Engine::Redis7);
        let liar = Liar::before(&server);
        let sidecar = Sidecar::start_coherent(&options(&liar));
        Self {
            direct: server.connect(),
            app: sidecar.connect(),
            sidecar,
            liar,
            _server: server,
        }
    }

    fn log_says(&self, words: &str) {
        wait::until_true(&format!("the log says {words:?}"), || {
            self.sidecar.log().contains(words)
        });
    }

    fn flushes(&self) -> f64 {
        self.sidecar.metric("pannier_cache_flushes_total", "")
    }

    /// The truth is told again, and everything works as before.
    fn recovers(&mut self) {
        self.liar.repent();
        let mut app = self.sidecar.connect();
        wait::until_true("writes work again", || app.run("SET c:after v") == "OK");
        self.sidecar.until_hit(&mut app, "GET c:after");
        assert_eq!(app.run("GET c:after"), "v");
    }
}

/// Invalidations that cannot be read, each in place of a true one.
const UNREADABLE: [&[u8]; 12] = [
    b">2\r\n$10\r\ninvalidate\r\n*1\r\n:1\r\n",
    b">2\r\n$10\r\ninvalidate\r\n:1\r\n",
    b">2\r\n$10\r\ninvalidate\r\n$3\r\nc:1\r\n",
    b">2\r\n$10\r\ninvalidate\r\n%1\r\n$3\r\nc:1\r\n:1\r\n",
    b">2\r\n$10\r\ninvalidate\r\n*1\r\n*1\r\n$3\r\nc:1\r\n",
    b">2\r\n$10\r\ninvalidate\r\n*2\r\n$3\r\nc:2\r\n_\r\n",
    b">2\r\n$10\r\ninvalidate\r\n*0\r\n",
    b">2\r\n$10\r\ninvalidate\r\n-ERR no\r\n",
    b">1\r\n$10\r\ninvalidate\r\n",
    b">3\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nc:2\r\n:1\r\n",
    b">1\r\n$21\r\ntracking-redir-broken\r\n",
    b">0\r\n",
];

#[test]
fn p4_an_invalidation_that_cannot_be_read_flushes_and_reconnects() {
    let mut stage = Stage::new();
    for garbled in UNREADABLE {
        let shown = String::from_utf8_lossy(garbled).into_owned();
        assert_eq!(stage.direct.run("SET c:1 old"), "OK");
        wait::until_true("the old value is read", || {
            stage.app.run("GET c:1") == "old"
        });
        stage.sidecar.until_hit(&mut stage.app, "GET c:1");
        let before = stage
            .sidecar
            .metric("pannier_cache_flushes_total", "link_lost");
        stage.liar.garble(garbled);
        assert_eq!(stage.direct.run("SET c:1 new"), "OK");
        wait::until_true(&format!("the new value is seen after {shown:?}"), || {
            stage.app.run("GET c:1") == "new"
        });
        let after = stage
            .sidecar
            .metric("pannier_cache_flushes_total", "link_lost");
        assert!(after > before, "{shown:?} was taken for something");
        stage.liar.repent();
        stage.sidecar.until_hit(&mut stage.app, "GET c:1");
        assert_eq!(stage.app.run("GET c:1"), "new");
    }
    stage.log_says("an invalidation that cannot be read");
}

#[test]
fn pushes_of_unknown_kinds_change_nothing() {
    let mut stage = Stage::new();
    assert_eq!(stage.app.run("SET c:1 v"), "OK");
    stage.sidecar.until_hit(&mut stage.app, "GET c:1");
    let (flushes, connects) = (
        stage.flushes(),
        stage.sidecar.metric("pannier_upstream_connects_total", ""),
    );
    for push in [
        &b">2\r\n$6\r\ngossip\r\n:1\r\n"[..],
        b">1\r\n+MOVING\r\n",
        b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n",
    ] {
        assert!(stage.liar.say(true, push) > 0);
        assert!(stage.liar.say(false, push) > 0 || push.is_empty());
        // Behind the push, on the same connections.
        assert_eq!(stage.app.run("GET c:none"), "(nil)");
        assert_eq!(stage.app.run("GET u:none"), "(nil)");
        assert!(stage.sidecar.is_hit(&mut stage.app, "GET c:1"));
    }
    assert_eq!(stage.flushes().to_string(), flushes.to_string());
    let now = stage.sidecar.metric("pannier_upstream_connects_total", "");
    assert_eq!(now.to_string(), connects.to_string());
}

#[test]
fn p4_half_an_invalidation_is_no_invalidation() {
    let mut stage = Stage::new();
    assert_eq!(stage.app.run("SET c:1 old"), "OK");
    stage.sidecar.until_hit(&mut stage.app, "GET c:1");
    assert!(stage.liar.say(true, b">2\r\n$10\r\ninval") > 0);
    assert_eq!(stage.direct.run("SET c:1 new"), "OK");
    wait::until_true("the new value is seen", || {
        stage.app.run("GET c:1") == "new"
    });
    stage.log_says("no line end where one was due");
    stage.recovers();
}

#[test]
fn a_reply_to_nobody_ends_the_connection_and_reaches_no_client() {
    for tracked in [true, false] {
        let mut stage = Stage::new();
        for key in ["c:1", "u:1"] {
            assert_eq!(stage.app.run(&format!("SET {key} right")), "OK");
        }
        stage.sidecar.until_hit(&mut stage.app, "GET c:1");
        assert!(stage.liar.say(tracked, b"$5\r\nwrong\r\n") > 0);
        stage.log_says(" reconnecting");
        for _ in 0..20 {
            let mut other = stage.sidecar.connect();
            for key in ["c:1", "u:1"] {
                assert_eq!(other.run(&format!("GET {key}")), "right", "{key}");
            }
        }
        stage.recovers();
    }
}

#[test]
fn two_replies_to_one_command_shift_none_into_the_local_tier() {
    let mut stage = Stage::new();
    assert_eq!(stage.app.run("SET c:1 right"), "OK");
    // The TTL is answered twice: what follows is one reply late.
    stage.liar.answer("PTTL C:1", say(":-1\r\n:-1\r\n"));
    let first = stage.app.run("GET c:1");
    stage.liar.repent();
    // The integer came where the string was due; nobody can tell that it is wrong. What comes
    // next is the string where an integer is due, and that can.
    assert!(first == "right" || first == "-1", "{first}");
    wait::until_true("the right value is read", || {
        stage.app.run("GET c:1") == "right"
    });
    stage.sidecar.until_hit(&mut stage.app, "GET c:1");
    assert_eq!(stage.app.run("GET c:1"), "right");
}

#[test]
fn replies_that_are_no_resp_are_errors_and_harm_nobody_else() {
    let mut stage = Stage::new();
    let mut other = stage.sidecar.connect();
    assert_eq!(other.run("SET u:1 right"), "OK");
    let long = "+".to_owned() + &"x".repeat(2 << 20);
    for (wrong, words) in [
        ("?what\r\n", "0x3f where a reply should begin"),
        (
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            "0x48 where a reply should begin",
        ),
        ("$-7\r\n", "a length that cannot be"),
        ("*-2\r\n", "a length that cannot be"),
        ("$abc\r\n", "a length that cannot be"),
        ("$99999999999999999999\r\n", "a length that cannot be"),
        ("$3\r\nabcde\r\n", "no line end where one was due"),
        ("+OK\r+OK\r\n", "no line end where one was due"),
        (long.as_str(), "a line longer than"),
    ] {
        for key in ["u:bad", "c:bad"] {
            stage.liar.answer(&format!("GET {key}"), say(wrong));
            let reply = stage.app.run(&format!("GET {key}")).to_string();
            assert!(
                reply.starts_with("-ERR") && reply.contains(words),
                "{key}: {reply}"
            );
            wait::until_true("others are unharmed", || other.run("GET u:1") == "right");
        }
    }
    stage.recovers();
}

#[test]
fn a_server_that_closes_in_the_middle_of_a_reply_is_an_error() {
    let mut stage = Stage::new();
    let cut = Lie::SayAndClose(b"$10\r\nabc".to_vec());
    for (command, words) in [
        ("GET u:bad", "closed by the server"),
        ("GET c:bad", "closed by the server"),
        ("SET u:bad v", "it may or may not have been executed"),
    ] {
        stage.liar.answer(command, cut.clone());
        let reply = stage.app.run(command).to_string();
        assert!(
            reply.starts_with("-ERR") && reply.contains(words),
            "{command}: {reply}"
        );
    }
    stage.recovers();
}

#[test]
fn a_reply_nested_10000_deep_passes_and_is_not_kept() {
    let mut stage = Stage::new();
    let deep = "*1\r\n".repeat(10_000) + ":1\r\n";
    for key in ["u:deep", "c:deep"] {
        stage.liar.answer(&format!("GET {key}"), say(&deep));
        for _ in 0..2 {
            let mut app = sidecar_socket(&stage.sidecar);
            std::io::Write::write_all(&mut app, format!("GET {key}\r\nQUIT\r\n").as_bytes())
                .unwrap();
            let mut reply = String::new();
            std::io::Read::read_to_string(&mut app, &mut reply).unwrap();
            assert_eq!(reply, format!("{deep}+OK\r\n"), "{key}");
        }
    }
    // As an invalidation it is a doubt, like all that cannot be read.
    assert_eq!(stage.app.run("SET c:1 old"), "OK");
    stage.sidecar.until_hit(&mut stage.app, "GET c:1");
    stage
        .liar
        .garble(format!(">2\r\n$10\r\ninvalidate\r\n{deep}").as_bytes());
    assert_eq!(stage.direct.run("SET c:1 new"), "OK");
    wait::until_true("the new value is seen", || {
        stage.app.run("GET c:1") == "new"
    });
    stage.log_says("an invalidation that cannot be read");
    stage.recovers();
}

fn sidecar_socket(sidecar: &Sidecar) -> std::net::TcpStream {
    std::net::TcpStream::connect(sidecar.address()).unwrap()
}

#[test]
fn a_server_that_closes_after_the_greeting_is_named() {
    let mut stage = Stage::new();
    stage
        .liar
        .answer("CLIENT SETNAME", Lie::SayAndClose(Vec::new()));
    assert!(stage.liar.say(false, b"?\r\n") > 0);
    assert!(stage.liar.say(true, b"?\r\n") > 0);
    wait::until_true("reads fail", || stage.app.run("GET c:1").is_error());
    let reply = stage.app.run("GET u:1").to_string();
    assert!(
        reply.contains("redis is unavailable, the command was not executed")
            && reply.contains("the connection broke during the handshake"),
        "{reply}"
    );
    let shown = stage.sidecar.state().to_string();
    assert!(
        shown.contains("the connection broke during the handshake"),
        "{shown}"
    );
    assert_eq!(
        http::get(stage.sidecar.admin(), "/ready").unwrap().status,
        200
    );
    stage.recovers();
}

#[test]
fn p9_a_reply_without_end_costs_a_bounded_amount_of_memory() {
    let server = RedisServer::new(Engine::Redis7);
    let liar = Liar::before(&server);
    let limit = json!({"sidecar": {"outputLimit": "8Mi"}});
    let mut sidecar = Sidecar::start_coherent(&options(&liar).config(limit));
    let (mut app, mut other) = (sidecar.connect(), sidecar.connect());
    assert_eq!(other.run("SET u:1 right"), "OK");
    let before = sidecar.process().resident();
    let mut largest = before;
    for (announced, command) in [
        ("$9999999999\r\n", "GET u:flood"),
        ("$9999999999\r\n", "GET c:flood"),
        ("*9999999999\r\n$9999999999\r\n", "LRANGE u:flood 0 -1"),
        ("*2\r\n$1\r\n0\r\n$9999999999\r\n", "SCAN 0 COUNT 77"),
        (
            ">2\r\n$10\r\ninvalidate\r\n*1\r\n$9999999999\r\n",
            "GET c:pushed",
        ),
    ] {
        let flood = Lie::SayForEver(announced.as_bytes().to_vec());
        liar.answer(command, flood);
        let reply = app.run(command).to_string();
        assert!(
            reply.starts_with("-ERR") && reply.contains("larger than sidecar.outputLimit"),
            "{command}: {reply}"
        );
        largest = largest.max(sidecar.process().resident());
        wait::until_true("others are unharmed", || other.run("GET u:1") == "right");
    }
    // 8 MiB per link, doubled by a growing buffer.
    let grown = (largest - before) >> 20;
    assert!(grown < 64, "{grown} MiB more after floods of 10 GB");
}

#[test]
fn p9_a_control_connection_that_is_flooded_is_given_up() {
    let server = RedisServer::new(Engine::Redis7);
    let liar = Liar::before(&server);
    for (command, announced) in [
        ("COMMAND", "*9999999999\r\n$9999999999\r\n"),
        ("COMMAND", "$9999999999\r\n"),
        ("INFO", "$9999999999\r\n"),
    ] {
        liar.repent();
        liar.answer(command, Lie::SayForEver(announced.as_bytes().to_vec()));
        let mut sidecar = Sidecar::start_coherent(&options(&liar));
        let mut app = sidecar.connect();
        let said = liar.lies_told();
        wait::until_true("the flood has come, and come again", || {
            assert_eq!(app.run("SET u:1 v"), "OK");
            liar.lies_told() >= said + 2
        });
        let resident = sidecar.process().resident() >> 20;
        assert!(resident < 128, "{resident} MiB after {announced:?}");
    }
}
