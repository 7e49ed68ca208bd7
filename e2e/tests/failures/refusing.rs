//! Redis answers, and not what was hoped for.

use std::{fs, thread, time::Duration};

use e2e::{
    Engine, RedisServer, ServerOptions, Sidecar, SidecarOptions,
    liar::{Liar, Lie},
    wait,
};
use serde_json::json;

use super::{NOT_EXECUTED, before, count, limited, log_says, until_says, until_works};

fn degraded(sidecar: &Sidecar) {
    wait::until_true("the local tier is off", || {
        count(sidecar, "pannier_coherence_state", "degraded") > 0.0
    });
}

#[test]
fn f20_redis_is_out_of_memory() {
    let server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&before(&server));
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    assert_eq!(server.connect().run("CONFIG SET maxmemory 1"), "OK");
    until_says(&mut app, "SET c:2 v", "-OOM command not allowed");
    assert_eq!(app.run("GET c:1"), "v");
    assert!(
        count(
            &sidecar,
            "pannier_commands_total",
            "cmd=\"set\",outcome=\"error\""
        ) > 0.0
    );
}

#[test]
fn f21_redis_is_loading() {
    let server = RedisServer::new(Engine::Redis7);
    let liar = Liar::before(&server);
    let sidecar = Sidecar::start_coherent(&limited(SidecarOptions::before_port(liar.port())));
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    liar.answer(
        "",
        Lie::Say(b"-LOADING Redis is loading the dataset in memory\r\n".to_vec()),
    );
    until_says(&mut app, "GET c:1", "-LOADING Redis is loading");
    until_says(&mut app, "SET c:1 w", "-LOADING Redis is loading");
    log_says(&sidecar, "redis is in doubt; the local tier was flushed");
    assert!(count(&sidecar, "pannier_cache_flushes_total", "doubt") > 0.0);
    liar.repent();
    until_works(&mut app);
}

#[test]
fn f22_the_primary_is_demoted() {
    let server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&before(&server));
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    let other = RedisServer::new(Engine::Redis7);
    let port = other.port().to_string();
    let mut direct = server.connect();
    assert_eq!(direct.call(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    until_says(&mut app, "SET c:1 w", "-READONLY You can't write");
    degraded(&sidecar);
    log_says(&sidecar, "the server is a replica");
    assert_eq!(direct.call(&["REPLICAOF", "NO", "ONE"]), "OK");
    until_works(&mut app);
}

#[test]
fn f23_the_password_is_changed() {
    let server = RedisServer::start(ServerOptions {
        password: Some("first".to_owned()),
        ..ServerOptions::default()
    });
    let options = before(&server)
        .file("password", "first")
        .config(json!({"upstream": {"passwordFile": "{folder}/password"}}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    until_works(&mut app);
    let mut direct = server.connect();
    assert_eq!(direct.run("CONFIG SET requirepass second"), "OK");
    // Connections that are open stay logged in.
    until_works(&mut app);
    direct.run("CLIENT KILL TYPE normal SKIPME yes");
    until_says(
        &mut app,
        "GET c:1",
        &format!("{NOT_EXECUTED}AUTH was refused: WRONGPASS "),
    );
    log_says(&sidecar, "was refused: WRONGPASS");
    assert!(!sidecar.log().contains("first"), "no secret in the log");
    fs::write(sidecar.folder().join("password"), "second").unwrap();
    until_works(&mut app);
}

#[test]
fn f24_the_user_loses_rights() {
    let server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&before(&server));
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET k v"), "OK");
    assert_eq!(server.connect().run("ACL SETUSER default -set"), "OK");
    until_says(&mut app, "SET k w", "-NOPERM ");
    assert_eq!(app.run("GET k"), "v");
}

#[test]
fn f25_the_user_loses_the_right_to_track() {
    let server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&before(&server));
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    sidecar.until_hit(&mut app, "GET c:1");
    let mut direct = server.connect();
    assert_eq!(direct.run("ACL SETUSER default -client|tracking"), "OK");
    direct.run("CLIENT KILL TYPE normal SKIPME yes");
    degraded(&sidecar);
    log_says(
        &sidecar,
        "the local tier is off: redis sends no invalidations",
    );
    wait::until_true("reads pass through", || app.run("GET c:1") == "v");
    assert!(!sidecar.is_hit(&mut app, "GET c:1"));
}

#[test]
fn f26_the_certificate_is_not_trusted_any_longer() {
    let mut server = RedisServer::start(ServerOptions {
        tls: true,
        ..ServerOptions::default()
    });
    let authority = server.certificates().authority.clone();
    let options = limited(SidecarOptions::before_port(server.tls_port()))
        .config(json!({"upstream": {"tls": {"caFile": authority, "serverName": "localhost"}}}));
    let sidecar = Sidecar::start_coherent(&options);
    let mut app = sidecar.connect();
    until_works(&mut app);
    // Another authority signs, on the same port.
    let tls_port = server.tls_port();
    server.kill();
    let next = RedisServer::start(ServerOptions {
        tls: true,
        ..ServerOptions::default()
    });
    let mut direct = next.connect();
    assert_eq!(
        direct.call(&["CONFIG", "SET", "tls-port", &tls_port.to_string()]),
        "OK"
    );
    until_says(
        &mut app,
        "GET c:1",
        &format!("{NOT_EXECUTED}failed to encrypt the connection to "),
    );
    let reply = app.run("GET c:1").to_string();
    assert!(reply.contains("invalid peer certificate"), "{reply}");
    let words = sidecar.state()["connection"]["words"].to_string();
    assert!(
        words.contains("failed to encrypt the connection to "),
        "{words}"
    );
}

#[test]
fn f27_redis_has_no_room_for_another_connection() {
    let server = RedisServer::new(Engine::Redis7);
    let sidecar = Sidecar::start_coherent(&before(&server));
    let mut app = sidecar.connect();
    until_works(&mut app);
    let mut direct = server.connect();
    assert_eq!(direct.run("CONFIG SET maxclients 1"), "OK");
    // What is connected goes on; what needs a connection of its own does not get it.
    until_works(&mut app);
    let reply = app.run("MULTI").to_string();
    assert!(
        reply.starts_with(NOT_EXECUTED) && reply.contains("max number of clients reached"),
        "{reply}"
    );
    assert_eq!(direct.run("CONFIG SET maxclients 100"), "OK");
    assert_eq!(app.run("MULTI"), "OK");
}

#[test]
fn f28_the_tracking_table_of_redis_is_full() {
    let server =
        RedisServer::start(ServerOptions::of(Engine::Redis7).with("tracking-table-max-keys 10"));
    let sidecar = Sidecar::start_coherent(&before(&server));
    let mut app = sidecar.connect();
    for key in 0..100 {
        assert_eq!(app.run(&format!("SET c:{key} v")), "OK");
    }
    wait::until_true("entries are invalidated that nobody wrote", || {
        for key in 0..100 {
            assert_eq!(app.run(&format!("GET c:{key}")), "v");
        }
        count(&sidecar, "pannier_invalidations_received_total", "") > 50.0
    });
    assert!(count(&sidecar, "pannier_cache_entries", "") < 50.0);
}

#[test]
fn f29_redis_does_not_know_tracking() {
    let server = RedisServer::new(Engine::Redis7);
    let liar = Liar::before(&server);
    liar.answer(
        "HELLO",
        Lie::Say(b"-ERR unknown command 'HELLO'\r\n".to_vec()),
    );
    let options = limited(SidecarOptions::before_port(liar.port()));
    let sidecar = Sidecar::start(&options);
    let mut app = sidecar.connect();
    until_works(&mut app);
    assert_eq!(app.run("SET c:1 v"), "OK");
    assert_eq!(app.run("GET c:1"), "v");
    degraded(&sidecar);
    log_says(&sidecar, "the local tier is off");
    sidecar.until_connected();
    assert!(!sidecar.is_hit(&mut app, "GET c:1"));
}

#[test]
fn f30_redis_cannot_write_to_its_disk() {
    let server = RedisServer::start(
        ServerOptions::of(Engine::Redis7)
            .with("save 3600 100000")
            .with("enable-protected-configs yes"),
    );
    let sidecar = Sidecar::start_coherent(&before(&server));
    let mut app = sidecar.connect();
    assert_eq!(app.run("SET c:1 v"), "OK");
    let mut direct = server.connect();
    // A folder has the name of the dump.
    let folder = direct.run("CONFIG GET dir").to_string();
    let folder = folder.trim_matches(['[', ']']).replace("dir ", "");
    fs::create_dir_all(format!("{folder}/occupied/by")).unwrap();
    assert_eq!(direct.run("CONFIG SET dbfilename occupied"), "OK");
    wait::until_true("Redis fails to save", || {
        direct.run("BGSAVE");
        thread::sleep(Duration::from_millis(20));
        direct
            .run("INFO persistence")
            .to_string()
            .contains("rdb_last_bgsave_status:err")
    });
    until_says(&mut app, "SET c:1 w", "-MISCONF ");
    assert_eq!(app.run("GET c:1"), "v");
    assert!(
        count(
            &sidecar,
            "pannier_commands_total",
            "cmd=\"set\",outcome=\"error\""
        ) > 0.0
    );
}
