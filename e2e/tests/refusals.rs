//! Servers that refuse: RESP2 only, an error to every command, rights taken away while connected,
//! certificates that expire. The app gets the server's own error or a clear one of ours, nothing
//! stale, and everything works again once the server does.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use std::time::{Duration, SystemTime};

use e2e::{
    Engine, Liar, Lie, RedisServer, ServerOptions, Sidecar, SidecarOptions, Wire, ports,
    process::Folder, wait,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;

fn before_liar(liar: &Liar) -> SidecarOptions {
    SidecarOptions::before_port(liar.port()).rule("cached", "c:{id}", json!({}))
}

fn log_says(sidecar: &Sidecar, words: &str) {
    wait::until_true(&format!("the log says {words:?}"), || {
        sidecar.log().contains(words)
    });
}

fn is_degraded(sidecar: &Sidecar) -> bool {
    sidecar.metric("pannier_coherence_state", "state=\"degraded\"") > 0.0
}

#[test]
fn a_server_that_speaks_resp2_only_is_passed_through() {
    let server = RedisServer::new(Engine::Redis7);
    let liar = Liar::before(&server);
    liar.answer(
        "HELLO",
        Lie::Say(b"-ERR unknown command 'HELLO'\r\n".to_vec()),
    );
    let sidecar = Sidecar::start(&before_liar(&liar));
    let (mut app, mut direct) = (sidecar.connect(), server.connect());
    wait::until_true("commands work", || app.run("SET c:1 0") == "OK");
    wait::until_true("it is said", || is_degraded(&sidecar));
    for round in 0..50 {
        assert_eq!(app.run("GET c:1").to_string(), round.to_string());
        let next = (round + 1).to_string();
        assert_eq!(direct.call(&["SET", "c:1", &next]), "OK");
        // The refused attempts go on, and Redis is not called away because of them.
        assert_eq!(sidecar.metric("pannier_upstream_up", "").to_string(), "1");
    }
    assert_eq!(sidecar.hits().to_string(), "0");
    assert!(is_degraded(&sidecar));
    let shown = sidecar.state().to_string();
    assert!(shown.contains("HELLO 3: ERR unknown command"), "{shown}");
    // An app that asks for RESP3 is told why it cannot have it; the others go on.
    let mut modern = Wire::connect_resp3(sidecar.address());
    let refused = modern.run("GET c:1").to_string();
    assert!(refused.contains("HELLO was refused"), "{refused}");
    assert_eq!(app.run("GET c:1"), "50");
    // The server learns RESP3: an upgrade.
    liar.repent();
    sidecar.until_hit(&mut app, "GET c:1");
    assert!(!is_degraded(&sidecar));
}

/// An error as a server sends it to every command in that state.
const STATES: [&str; 9] = [
    "LOADING Redis is loading the dataset in memory",
    "READONLY You can't write against a read only replica.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "CLUSTERDOWN The cluster is down",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "BUSY Redis is busy running a script.",
];

#[test]
fn p4_a_server_that_answers_every_command_with_an_error_is_a_doubt() {
    let server = RedisServer::new(Engine::Redis7);
    let liar = Liar::before(&server);
    let sidecar = Sidecar::start_coherent(&before_liar(&liar));
    let (mut app, mut direct) = (sidecar.connect(), server.connect());
    for error in STATES {
        assert_eq!(direct.run("SET c:1 old"), "OK");
        sidecar.until_hit(&mut app, "GET c:1");
        let doubts = sidecar.metric("pannier_cache_flushes_total", "doubt");
        liar.answer("", Lie::Say(format!("-{error}\r\n").into_bytes()));
        // Also what would have been a hit: the proofs are answered like that.
        wait::until_true(&format!("reads say {error}"), || {
            app.run("GET c:1").to_string() == format!("-{error}")
        });
        assert_eq!(app.run("SET c:1 v").to_string(), format!("-{error}"));
        assert_eq!(app.run("GET u:1").to_string(), format!("-{error}"));
        assert!(
            sidecar.metric("pannier_cache_flushes_total", "doubt") > doubts,
            "{error}"
        );
        assert_eq!(direct.run("SET c:1 new"), "OK");
        liar.repent();
        wait::until_true("the new value is read", || app.run("GET c:1") == "new");
        sidecar.until_hit(&mut app, "GET c:1");
        assert_eq!(app.run("GET c:1"), "new");
    }
    log_says(&sidecar, "redis is in doubt; the local tier was flushed");
}

#[test]
fn p7_a_server_that_refuses_everything_at_start_is_used_once_it_does_not() {
    for error in STATES {
        let server = RedisServer::new(Engine::Redis7);
        let liar = Liar::before(&server);
        liar.answer("", Lie::Say(format!("-{error}\r\n").into_bytes()));
        let sidecar = Sidecar::start(&before_liar(&liar));
        let mut app = sidecar.connect();
        let code = error.split(' ').next().unwrap();
        let refused = app.run("GET c:1").to_string();
        assert!(
            refused.starts_with('-') && refused.contains(code),
            "{refused}"
        );
        liar.repent();
        wait::until_true("commands work", || app.run("SET c:1 v") == "OK");
        sidecar.until_hit(&mut app, "GET c:1");
    }
}

fn restricted() -> (RedisServer, SidecarOptions) {
    let server = RedisServer::start(ServerOptions {
        users: vec!["user app on >secret ~* &* +@all".to_owned()],
        ..ServerOptions::default()
    });
    let options = SidecarOptions::before(&server)
        .rule("cached", "c:{id}", json!({}))
        .file("user", "app")
        .file("password", "secret")
        .config(json!({"upstream": {"usernameFile": "{folder}/user", "passwordFile": "{folder}/password"}}));
    (server, options)
}

#[test]
fn the_right_to_track_that_is_taken_away_while_connected_costs_the_local_tier_later() {
    let (server, options) = restricted();
    let sidecar = Sidecar::start_coherent(&options);
    let (mut app, mut direct) = (sidecar.connect(), server.connect());
    assert_eq!(app.run("SET c:1 old"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    assert_eq!(direct.run("ACL SETUSER app -client|tracking"), "OK");
    // Redis goes on tracking the connections that asked before.
    assert_eq!(direct.run("SET c:1 new"), "OK");
    wait::until_true("the new value is seen", || app.run("GET c:1") == "new");
    sidecar.until_hit(&mut app, "GET c:1");
    assert!(direct.run("CLIENT KILL USER app").integer() > 0);
    wait::until_true("the local tier is off", || is_degraded(&sidecar));
    for round in 0..20 {
        assert_eq!(direct.run(&format!("SET c:1 {round}")), "OK");
        wait::until_true("the value is read", || {
            app.run("GET c:1").to_string() == round.to_string()
        });
    }
    assert!(!sidecar.is_hit(&mut app, "GET c:1"));
    let shown = sidecar.state().to_string();
    assert!(shown.contains("CLIENT TRACKING: NOPERM"), "{shown}");
    // Given back, it is used at the next connect.
    assert_eq!(direct.run("ACL SETUSER app +client|tracking"), "OK");
    assert!(direct.run("CLIENT KILL USER app").integer() > 0);
    sidecar.until_hit(&mut app, "GET c:1");
}

#[test]
fn a_user_that_is_switched_off_while_connected_ends_local_answers_at_the_reconnect() {
    let (server, options) = restricted();
    let sidecar = Sidecar::start_coherent(&options);
    let (mut app, mut direct) = (sidecar.connect(), server.connect());
    assert_eq!(app.run("SET c:1 old"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    // Redis closes the connections of a user that is deleted.
    assert_eq!(direct.run("ACL DELUSER app"), "1");
    wait::until_true("reads fail", || app.run("GET c:1").is_error());
    let refused = app.run("GET c:1").to_string();
    assert!(refused.contains("WRONGPASS"), "{refused}");
    assert!(!sidecar.log().contains("secret"));
    assert_eq!(direct.run("SET c:1 new"), "OK");
    assert_eq!(direct.run("ACL SETUSER app on >secret ~* &* +@all"), "OK");
    wait::until_true("the new value is read", || app.run("GET c:1") == "new");
    sidecar.until_hit(&mut app, "GET c:1");
}

/// An authority that signs for the test's server.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    fn new(folder: &Folder, file: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        folder.write(file, &pem);
        Self { params, key }
    }

    /// A certificate that ends then; the paths of certificate and key.
    fn issue(&self, folder: &Folder, name: &str, end: SystemTime) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_after = end.into();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (
            folder.write(&format!("{name}.pem"), &certificate.pem()),
            folder.write(&format!("{name}-key.pem"), &key.serialize_pem()),
        )
    }
}

#[test]
fn a_certificate_that_expires_while_connected_fails_the_next_connect_until_it_is_renewed() {
    let folder = Folder::new("certificates");
    let old = Authority::new(&folder, "trusted.pem");
    let trusted = folder.path().join("trusted.pem");
    let end = SystemTime::now() + Duration::from_secs(8);
    let (certificate, key) = old.issue(&folder, "short", end);
    let tls_port = ports::free();
    let server = RedisServer::start(
        ServerOptions::default()
            .with(&format!("tls-port {tls_port}"))
            .with(&format!("tls-cert-file {certificate}"))
            .with(&format!("tls-key-file {key}"))
            .with(&format!("tls-ca-cert-file {}", trusted.display()))
            .with("tls-auth-clients no"),
    );
    let options = SidecarOptions::before(&server)
        .rule("cached", "c:{id}", json!({}))
        .config(json!({"upstream": {"port": tls_port, "tls": {"caFile": trusted}}}));
    let sidecar = Sidecar::start_coherent(&options);
    let (mut app, mut direct) = (sidecar.connect(), server.connect());
    assert_eq!(app.run("SET c:1 old"), "OK");
    // It ends with a full second.
    wait::until_true("the certificate has expired", || {
        SystemTime::now() > end + Duration::from_secs(1)
    });
    // A connection lives on; certificates are looked at when it is made.
    sidecar.until_hit(&mut app, "GET c:1");
    assert_eq!(direct.run("SET c:1 new"), "OK");
    wait::until_true("the new value is seen", || app.run("GET c:1") == "new");

    assert!(direct.run("CLIENT KILL TYPE normal SKIPME yes").integer() > 0);
    wait::until_true("reads fail and say why", || {
        let reply = app.run("GET c:1").to_string();
        reply.starts_with("-ERR redis is unavailable")
            && reply.contains("certificate: certificate expired")
    });
    assert!(sidecar.state().to_string().contains("certificate expired"));
    assert_eq!(direct.run("SET c:1 newer"), "OK");

    // Renewed by another authority: trusted once its file is replaced, without a restart.
    let authority = Authority::new(&folder, "next.pem");
    let later = SystemTime::now() + Duration::from_hours(1);
    let (certificate, key) = authority.issue(&folder, "long", later);
    let renewed = [
        "CONFIG",
        "SET",
        "tls-cert-file",
        &certificate,
        "tls-key-file",
        &key,
    ];
    assert_eq!(direct.call(&renewed), "OK");
    wait::until_true("the new authority is not trusted", || {
        let reply = app.run("GET c:1").to_string();
        reply.contains("invalid peer certificate") && !reply.contains("expired")
    });
    std::fs::rename(folder.path().join("next.pem"), &trusted).unwrap();
    wait::until_true("the newest value is read", || app.run("GET c:1") == "newer");
    sidecar.until_hit(&mut app, "GET c:1");
}
