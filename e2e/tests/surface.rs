//! Everything around the Redis protocol: debugging commands, HTTP, probes, metrics, flags, exits,
//! and that no secret shows up in any of them (P10).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    os::unix::net::UnixStream,
    process::Command,
    time::Duration,
};

use e2e::{
    Engine, RedisServer, ServerOptions, Sidecar, SidecarOptions, Wire, http, ports,
    process::{Folder, Process},
    sidecar::program,
    wait,
};
use serde_json::{Value as Json, json};

const CANARY: &str = "canary-7f3a91c2";

fn start() -> (RedisServer, Sidecar) {
    let server = RedisServer::new(Engine::Redis7);
    let options = SidecarOptions::before(&server)
        .rule("cached", "c:{id}", json!({"ttl": "100s"}))
        .rule("bypassed", "b:{id}", json!({"cache": "Bypass"}));
    let sidecar = Sidecar::start_coherent(&options);
    (server, sidecar)
}

#[test]
fn s0_11_why_names_the_rule_and_the_tier() {
    let (_server, sidecar) = start();
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    let cold = app.run("PANNIER.WHY c:1").to_string().to_lowercase();
    assert!(cold.contains("cached"), "{cold}");
    sidecar.until_hit(&mut app, "GET c:1");
    let warm = app.run("PANNIER.WHY c:1").to_string().to_lowercase();
    assert!(
        warm.contains("cached") && warm.contains("local") && warm != cold,
        "{warm}"
    );
    let bypassed = app.run("PANNIER.WHY b:1").to_string().to_lowercase();
    assert!(bypassed.contains("bypass"), "{bypassed}");
    let unmatched = app.run("PANNIER.WHY other").to_string().to_lowercase();
    assert!(unmatched.contains("no rule"), "{unmatched}");
    assert!(app.run("PANNIER.WHY").is_error());
    assert!(app.run("PANNIER.NOSUCH").is_error());
}

#[test]
fn s4_6_stats_have_their_figures_in_both_protocols_and_over_http() {
    let (_server, sidecar) = start();
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    let figures = [
        "available",
        "hits",
        "misses",
        "hitrate",
        "memory",
        "evicted",
        "keys",
        "status",
        "timestamp",
    ];
    let old = app.run("PANNIER.STATS").to_string().to_lowercase();
    let new = Wire::connect_resp3(sidecar.address())
        .run("PANNIER.STATS")
        .to_string()
        .to_lowercase();
    let over_http = http::get(sidecar.http(), "/v1/stats").unwrap();
    assert_eq!(over_http.status, 200);
    let over_http = over_http.json().to_string().to_lowercase();
    for text in [old, new, over_http] {
        for figure in figures {
            assert!(text.contains(figure), "{figure} is missing: {text}");
        }
    }
}

#[test]
fn http_shows_a_miss_then_a_hit() {
    let (server, sidecar) = start();
    let tier = |response: &http::Response| -> String {
        let head = response
            .head
            .iter()
            .filter(|(name, _)| name.contains("pannier"));
        head.flat_map(|(name, value)| {
            [
                name, ": ", value, "
",
            ]
        })
        .collect::<String>()
        .to_lowercase()
    };
    // A key of no rule, which is read past the local tier.
    assert_eq!(sidecar.connect().run("SET plain v"), "OK");
    let plain = http::get(sidecar.http(), "/v1/cache/plain").unwrap();
    assert_eq!((plain.status, plain.text()), (200, "v".to_owned()));
    let missing = http::get(sidecar.http(), "/v1/cache/c:1").unwrap();
    assert_eq!(missing.status, 404);
    assert!(
        missing
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("application/problem+json"))
    );
    let put = http::request(
        sidecar.http(),
        "PUT",
        "/v1/cache/c:1",
        &[],
        b"binary \0 value",
    )
    .unwrap();
    assert!((200..300).contains(&put.status), "{put:?}");
    assert_eq!(server.connect().run("STRLEN c:1"), "14");
    assert!(server.connect().run("TTL c:1").integer() > 90);
    let hit = wait::until("a hit over HTTP", || {
        let response = http::get(sidecar.http(), "/v1/cache/c:1").unwrap();
        assert_eq!(
            (response.status, &response.body[..]),
            (200, &b"binary \0 value"[..])
        );
        tier(&response).contains("hit").then_some(response)
    });
    assert!(
        tier(&hit).contains("local") && tier(&hit).contains("cached"),
        "{}",
        tier(&hit)
    );
    let escaped = http::request(sidecar.http(), "PUT", "/v1/cache/c%3A2%20x", &[], b"v").unwrap();
    assert!((200..300).contains(&escaped.status), "{escaped:?}");
    assert_eq!(server.connect().call(&["GET", "c:2 x"]), "v");
    let gone = http::request(sidecar.http(), "DELETE", "/v1/cache/c:1", &[], b"").unwrap();
    assert!((200..300).contains(&gone.status), "{gone:?}");
    assert_eq!(
        http::get(sidecar.http(), "/v1/cache/c:1").unwrap().status,
        404
    );
    for (method, path, status) in [("GET", "/v1/nosuch", 404), ("PATCH", "/v1/cache/c:1", 405)] {
        let response = http::request(sidecar.http(), method, path, &[], b"").unwrap();
        assert_eq!(response.status, status, "{method} {path}");
        assert!(response.json()["title"].is_string(), "{response:?}");
    }
}

#[test]
fn probes_metrics_and_state_answer_and_nothing_else_does() {
    let (_server, sidecar) = start();
    assert_eq!(sidecar.connect().run("SET c:one-key some-value"), "OK");
    for path in ["/live", "/ready", "/metrics", "/state"] {
        assert_eq!(
            http::get(sidecar.admin(), path).unwrap().status,
            200,
            "{path}"
        );
    }
    assert_eq!(
        http::get(sidecar.admin(), "/v1/cache/c:one-key")
            .unwrap()
            .status,
        404
    );
    let change = http::request(sidecar.admin(), "POST", "/state", &[], b"").unwrap();
    assert!((400..500).contains(&change.status), "{change:?}");
    let metrics = sidecar.metrics();
    for name in [
        "pannier_cache_requests_total",
        "pannier_cache_evictions_total",
        "pannier_cache_entries",
        "pannier_cache_memory_used_bytes",
        "pannier_cache_memory_max_bytes",
        "pannier_commands_total",
        "pannier_command_duration_seconds",
        "pannier_upstream_request_duration_seconds",
        "pannier_upstream_up",
        "pannier_invalidations_received_total",
        "pannier_cache_flushes_total",
        "pannier_connected_clients",
        "pannier_protocol_errors_total",
        "pannier_rejected_connections_total",
        "pannier_build_info",
    ] {
        assert!(
            metrics.contains(&format!("# TYPE {name} ")),
            "{name} is missing"
        );
    }
    let state = sidecar.state().to_string();
    for shown in [metrics, state] {
        assert!(
            !shown.contains("one-key") && !shown.contains("some-value"),
            "{shown}"
        );
    }
}

#[test]
fn p10_no_secret_in_any_output() {
    let server = RedisServer::start(ServerOptions {
        password: Some(CANARY.to_owned()),
        ..ServerOptions::default()
    });
    let local = "canary-local-55d0";
    for log in ["plain", "json"] {
        let options = SidecarOptions::before(&server)
            .file("password", CANARY)
            .file("local", local)
            .rule("cached", "c:{id}", json!({}))
            .config(json!({
                "upstream": {"passwordFile": "{folder}/password"},
                "sidecar": {"localPasswordFile": "{folder}/local"},
                "slowLogThreshold": "1ms",
            }))
            .flag("--log")
            .flag(log);
        let mut sidecar = Sidecar::start_coherent(&options);
        let mut app = sidecar.connect();
        assert!(app.run("GET c:1").to_string().starts_with("-NOAUTH"));
        assert!(
            app.run("AUTH nonsense")
                .to_string()
                .starts_with("-WRONGPASS")
        );
        assert_eq!(app.call(&["AUTH", local]), "OK");
        assert_eq!(app.run("SET c:1 v"), "OK");
        let mut shown = vec![
            app.run("CONFIG GET *").to_string(),
            app.run("CLIENT LIST").to_string(),
            app.run("INFO").to_string(),
            app.run("PANNIER.STATS").to_string(),
            app.run("PANNIER.WHY c:1").to_string(),
            sidecar.metrics(),
            sidecar.state().to_string(),
            http::get(sidecar.http(), "/v1/stats").unwrap().text(),
        ];
        let id = sidecar.process().id();
        for file in ["cmdline", "environ"] {
            shown.push(std::fs::read_to_string(format!("/proc/{id}/{file}")).unwrap());
        }
        sidecar.terminate();
        shown.push(sidecar.log());
        for text in shown {
            assert!(!text.contains(CANARY) && !text.contains(local), "{text}");
        }
    }
}

#[test]
fn logs_are_json_when_asked_for() {
    let mut sidecar = Sidecar::start(&SidecarOptions::memory().flag("--log").flag("json"));
    sidecar.terminate();
    let log = sidecar.log();
    assert!(log.lines().count() > 0);
    for line in log.lines() {
        assert!(
            serde_json::from_str::<Json>(line).is_ok_and(|line| line.is_object()),
            "{line}"
        );
    }
}

#[test]
fn s2_11_slow_commands_are_logged_without_their_values() {
    let server = RedisServer::new(Engine::Redis7);
    let options = SidecarOptions::before(&server).config(json!({"slowLogThreshold": "30ms"}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET fast v"), "OK");
    assert!(
        !sidecar.log().to_lowercase().contains("slow"),
        "{}",
        sidecar.log()
    );
    // A blocking command waits because it was asked to; a script is slow by itself.
    assert_eq!(app.run("BLPOP nothing 0.1"), "(nil)");
    assert!(!sidecar.log().to_lowercase().contains("slow"));
    app.call(&[
        "EVAL",
        "for i = 1, 3e7 do end return 1",
        "0",
        "secret-value",
    ]);
    wait::until_true("the slow command is logged", || {
        sidecar.log().to_lowercase().contains("slow")
    });
    assert!(!sidecar.log().contains("secret-value"));
}

#[test]
fn a_busy_port_is_named_with_the_flag_that_changes_it() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    for flag in ["--listen", "--http", "--admin"] {
        let options = SidecarOptions::memory().flag(flag).flag(&address);
        let mut sidecar = Sidecar::spawn(&options);
        let status = sidecar.process().wait(Duration::from_secs(10));
        assert!(!status.success(), "{flag}");
        let log = sidecar.log();
        assert!(log.contains(flag) && log.contains(&address), "{log}");
    }
}

#[test]
fn check_validates_and_tells_what_is_wrong() {
    let check = |options: SidecarOptions| Sidecar::run_to_end(&options.flag("--check"));
    let good = SidecarOptions::memory().rule("a", "a:{id}", json!({}));
    let (status, output) = check(good.clone());
    assert!(status.success(), "{output}");
    for (bad, words) in [
        (
            good.clone().config(json!({"keyspcae": {}})),
            ["keyspcae", "keyspace"],
        ),
        (good.clone().rule("b", "b:{id", json!({})), ["b:{id", "b"]),
        (good.clone().rule("a", "c:{id}", json!({})), ["a", "name"]),
        (
            good.clone()
                .config(json!({"ttl": {"default": "5 minutes"}})),
            ["5 minutes", "ttl"],
        ),
        (
            good.clone()
                .config(json!({"upstream": {"host": "h", "passwordFile": "/nonexistent/pw"}})),
            ["/nonexistent/pw", "passwordFile"],
        ),
    ] {
        let (status, output) = check(bad);
        assert_eq!(status.code().map(|code| code > 0), Some(true), "{output}");
        for word in words {
            assert!(output.contains(word), "{word:?} is not in: {output}");
        }
    }
    let missing = SidecarOptions::memory()
        .without_config()
        .flag("--config")
        .flag("/nonexistent.yaml");
    let (status, output) = check(missing);
    assert!(
        !status.success() && output.contains("/nonexistent.yaml"),
        "{output}"
    );
    let (status, output) =
        Sidecar::run_to_end(&SidecarOptions::memory().without_config().flag("--nosuch"));
    assert!(!status.success() && output.contains("--nosuch"), "{output}");
}

#[test]
fn version_is_printed() {
    let output = std::process::Command::new(program())
        .arg("--version")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains(env!("CARGO_PKG_VERSION")),
        "{text}"
    );
}

#[test]
fn s1_9_plain_variables_are_enough() {
    let server = RedisServer::start(ServerOptions {
        password: Some("secret".to_owned()),
        ..ServerOptions::default()
    });
    let port = server.port().to_string();
    let url = format!("redis://:secret@127.0.0.1:{port}/2");
    let plain = SidecarOptions::memory().without_config();
    let without_password = format!("redis://127.0.0.1:{port}/2");
    for options in [
        plain.clone().env("REDIS_URL", &url),
        plain.clone().env("PANNIER_REDIS_URL", &url),
        plain
            .clone()
            .env("REDIS_HOST", "127.0.0.1")
            .env("REDIS_PORT", &port)
            .env("REDIS_PASSWORD", "secret")
            .env("REDIS_DB", "2"),
        plain
            .clone()
            .flag("--redis-url")
            .flag(&without_password)
            .env("REDIS_PASSWORD", "secret"),
    ] {
        let sidecar = Sidecar::start_coherent(&options);
        assert!(!sidecar.connect().run("INCR n").is_error());
    }
    let mut direct = server.connect();
    direct.run("SELECT 2");
    assert_eq!(direct.run("GET n"), "4");
    let (status, output) =
        Sidecar::run_to_end(&plain.flag("--redis-url").flag(&url).flag("--check"));
    assert!(
        !status.success() && !output.contains("secret"),
        "a password in a flag is refused: {output}"
    );
}

#[test]
fn it_listens_on_both_loopback_addresses_and_a_unix_socket() {
    let sidecar = Sidecar::start(
        &SidecarOptions::memory()
            .flag("--unix-socket")
            .flag("{folder}/redis.sock"),
    );
    let port = sidecar.address().port();
    assert_eq!(Wire::connect(sidecar.address()).run("SET k v"), "OK");
    assert_eq!(
        Wire::connect(([0, 0, 0, 0, 0, 0, 0, 1], port).into()).run("GET k"),
        "v"
    );
    let mut unix = UnixStream::connect(sidecar.folder().join("redis.sock")).unwrap();
    unix.write_all(b"GET k\r\n").unwrap();
    let mut reply = [0; 7];
    unix.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"$1\r\nv\r\n");
}

/// Runs a program that is told of every socket of IPv6 that there is no such kind, as on a node that was
/// booted with `ipv6.disable=1`: a seccomp filter on `socket(AF_INET6, …)` with `EAFNOSUPPORT`.
const WITHOUT_IPV6: &str = r#"
import ctypes, os, struct, sys
number = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
load, equal, answer = 0x20, 0x15, 0x06
steps = [(load, 0, 0, 0), (equal, 0, 3, number), (load, 0, 0, 16), (equal, 0, 1, 10),
         (answer, 0, 0, 0x00050000 | 97), (answer, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
    sys.exit("no filter: " + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn s0_7_the_pods_address_is_served_for_both_families_and_on_a_node_without_ipv6() {
    for has_ipv6 in [true, false] {
        let folder = Folder::new("families");
        let [redis, http, admin] = [(); 3].map(|()| ports::free());
        let mut command = if has_ipv6 {
            Command::new(program())
        } else {
            let mut python = Command::new("python3");
            python.args(["-c", WITHOUT_IPV6]).arg(program());
            python
        };
        command.args([
            format!("--listen=127.0.0.1:{redis}"),
            format!("--http=127.0.0.1:{http}"),
            format!("--admin=[::]:{admin}"),
        ]);
        let process = Process::start("sidecar", &mut command, &folder.path().join("log"));
        let answers = |host: IpAddr| {
            http::get((host, admin).into(), "/ready").is_ok_and(|answer| answer.status == 200)
        };
        wait::until_true("it is ready", || answers(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(answers(Ipv6Addr::LOCALHOST.into()), has_ipv6);
        let mut app = Wire::connect((Ipv4Addr::LOCALHOST, redis).into());
        assert_eq!(app.run("PING").to_string(), "PONG");
        assert_eq!(process.log().contains("not served"), !has_ipv6);
    }
}

#[test]
fn a_term_signal_drains_and_ends_with_success() {
    let (_server, mut sidecar) = start();
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    let (status, _) = (sidecar.terminate(), app);
    assert_eq!(status.code(), Some(0), "{}", sidecar.log());
    assert!(Wire::try_connect(sidecar.address()).is_err());
}

#[test]
fn b_9_the_example_manifests_run_without_a_cluster() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/analytics.yaml");
    let options = SidecarOptions::memory()
        .without_config()
        .flag("--manifests")
        .flag(examples);
    let sidecar = Sidecar::start(&options);
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET analytics:ghosts:42:7d none"), "OK");
    let ttl = app.run("TTL analytics:ghosts:42:7d").integer();
    assert!(
        (1..=300).contains(&ttl),
        "S4.2 gives ghosts 5 minutes: {ttl}"
    );
    assert_eq!(app.run("TTL unmatched"), "-2");
    // What it prints lets somebody see a miss and then a hit.
    let printed = sidecar.log().to_lowercase();
    for words in ["ready", "memory only", "heatmap", "curl", "redis-cli"] {
        assert!(printed.contains(words), "{words} is not in: {printed}");
    }
}

#[test]
fn p10_a_server_without_hello_does_not_make_the_password_public() {
    let server = RedisServer::start(ServerOptions {
        password: Some(CANARY.to_owned()),
        ..ServerOptions::default().with("rename-command HELLO \"\"")
    });
    let options = SidecarOptions::before(&server)
        .file("password", CANARY)
        .config(json!({
            "upstream": {"passwordFile": "{folder}/password"},
            "local": {"coherence": "TtlOnly"},
        }));
    let sidecar = Sidecar::start(&options);
    let mut seen = String::new();
    for mut app in [sidecar.connect(), Wire::connect_resp3(sidecar.address())] {
        for command in ["SET k v", "GET k", "SUBSCRIBE a", "UNSUBSCRIBE a", "MULTI"] {
            let reply = app.run(command);
            seen.extend([command, ": ", &reply.to_string(), "\n"]);
        }
    }
    seen.push_str(&sidecar.state().to_string());
    seen.push_str(&sidecar.metrics());
    seen.push_str(&http::get(sidecar.http(), "/v1/stats").unwrap().text());
    seen.push_str(&sidecar.log());
    assert!(!seen.contains(CANARY), "{seen}");
}

#[test]
fn a_term_signal_ends_it_while_an_http_connection_is_kept_alive() {
    let (_server, mut sidecar) = start();
    let mut kept: Vec<_> = [sidecar.http(), sidecar.admin()]
        .map(|address| std::net::TcpStream::connect(address).unwrap())
        .into();
    for (stream, path) in kept.iter_mut().zip(["/v1/stats", "/ready"]) {
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    let begun = std::time::Instant::now();
    let status = sidecar.terminate();
    let took = begun.elapsed();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    drop(kept);
}
