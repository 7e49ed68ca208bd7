//! The harness itself: servers start, die, pause and come back; encodings are told apart.

use e2e::{Engine, RedisServer, ServerOptions, Value, wire::parse};

#[test]
fn every_engine_starts_and_reports_its_version() {
    for (engine, version) in [
        (Engine::Redis7, "redis_version:7.0."),
        (Engine::Valkey8, "valkey_version:8."),
    ] {
        let server = RedisServer::new(engine);
        let info = server.connect().run("INFO server").text();
        assert!(info.contains(version), "{engine:?}: {info}");
    }
}

#[test]
fn a_killed_server_comes_back_empty_on_the_same_port() {
    let mut server = RedisServer::new(Engine::Redis7);
    assert_eq!(server.connect().run("SET k v"), "OK");
    server.restart();
    assert_eq!(server.connect().run("GET k"), "(nil)");
}

#[test]
fn users_passwords_and_tls_reach_the_server() {
    let server = RedisServer::start(ServerOptions {
        tls: true,
        password: Some("sesame".to_owned()),
        users: vec!["user app on >secret ~* +get".to_owned()],
        ..ServerOptions::default()
    });
    let mut wire = server.connect();
    assert_eq!(wire.run("SET k v"), "OK");
    assert_eq!(wire.run("AUTH app secret"), "OK");
    assert_eq!(wire.run("GET k"), "v");
    assert!(wire.run("SET k v").to_string().starts_with("-NOPERM"));
    std::net::TcpStream::connect(("127.0.0.1", server.tls_port())).expect("the TLS port is open");
}

#[test]
fn a_reply_is_read_only_when_it_is_complete() {
    let whole = b"%1\r\n$1\r\na\r\n*2\r\n:1\r\n_\r\n";
    for cut in 0..whole.len() {
        assert!(parse(&whole[..cut]).expect("no error").is_none(), "{cut}");
    }
    let (value, used) = parse(whole).expect("no error").expect("complete");
    assert_eq!(used, whole.len());
    assert_eq!(value, "{a [1 (nil)]}");
    let (null, _) = parse(b"$-1\r\n").expect("no error").expect("complete");
    assert_ne!(null, Value::NullArray);
}
