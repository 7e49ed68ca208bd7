//! Real client libraries through the sidecar, with their own handshakes: redis-rs, ioredis,
//! node-redis, redis-py and redis-cli, in front of Redis and Valkey and in memory mode; Socket.IO
//! with its streams adapter.
//!
//! Each scenario also runs directly against a plain server, which shows that the scenario is right.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use std::{net::SocketAddr, process::Command, time::Duration};

use e2e::{Engine, RedisServer, Sidecar, SidecarOptions, clients, environment::available};
use futures_util::StreamExt as _;
use redis::AsyncCommands as _;
use serde_json::json;

#[derive(Clone, Copy, PartialEq)]
enum Backend {
    Redis,
    Memory,
}

/// Runs a scenario against a plain server, the sidecar before both servers, and the sidecar alone.
fn everywhere(scenario: impl Fn(SocketAddr, Backend)) {
    let plain = RedisServer::new(Engine::Redis7);
    scenario(plain.address(), Backend::Redis);
    for engine in Engine::ALL {
        let server = RedisServer::new(engine);
        for prefix in ["", "app:test:"] {
            let options = SidecarOptions::before(&server)
                .rule("cached", "c:{id}", json!({}))
                .config(json!({"keyspace": {"prefix": prefix}}));
            let sidecar = Sidecar::start_coherent(&options);
            scenario(sidecar.address(), Backend::Redis);
        }
    }
    let options = SidecarOptions::memory().rule("cached", "c:{id}", json!({}));
    let sidecar = Sidecar::start(&options);
    scenario(sidecar.address(), Backend::Memory);
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

fn backend_name(backend: Backend) -> &'static str {
    if backend == Backend::Redis {
        "redis"
    } else {
        "memory"
    }
}

fn with_node(client: &str, protocols: &[&str]) {
    let Some(folder) = available(client, clients::node()) else {
        return;
    };
    everywhere(|address, backend| {
        for protocol in protocols {
            run(Command::new("node").arg(folder.join("scenario.js")).args([
                client,
                &address.port().to_string(),
                protocol,
                backend_name(backend),
            ]));
        }
    });
}

/// S1.10: Socket.IO goes on within the instance when there is no Redis.
#[test]
fn two_socket_io_servers_find_each_other_by_streams_also_in_memory_mode() {
    let Some(folder) = available("socket.io", clients::node()) else {
        return;
    };
    let plain = RedisServer::new(Engine::Redis7);
    let before = Sidecar::start_coherent(&SidecarOptions::before(&plain));
    let memory = SidecarOptions::memory().config(json!({"sidecar": {"threads": 2}}));
    let memory = Sidecar::start(&memory);
    for address in [plain.address(), before.address(), memory.address()] {
        for client in ["ioredis", "node-redis"] {
            let port = address.port().to_string();
            run(Command::new("node")
                .arg(folder.join("socketio.js"))
                .args([client, &port]));
        }
    }
}

#[test]
fn ioredis_works_unchanged() {
    with_node("ioredis", &["2"]);
}

#[test]
fn node_redis_works_unchanged_over_both_protocols() {
    with_node("node-redis", &["2", "3"]);
}

#[test]
fn redis_py_works_unchanged_over_both_protocols() {
    let Some((python, scripts)) = available("redis-py", clients::python()) else {
        return;
    };
    everywhere(|address, backend| {
        for protocol in ["2", "3"] {
            run(Command::new(&python)
                .arg(scripts.join("scenario.py"))
                .args([&address.port().to_string(), protocol, backend_name(backend)]));
        }
    });
}

#[test]
fn redis_rs_works_unchanged_over_both_protocols() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    everywhere(|address, backend| {
        for protocol in [2, 3] {
            let steps = redis_rs(address, protocol, backend);
            runtime
                .block_on(async { tokio::time::timeout(Duration::from_secs(20), steps).await })
                .expect("in time")
                .unwrap_or_else(|error| {
                    panic!("RESP{protocol}, {}: {error}", backend_name(backend))
                });
        }
    });
}

async fn redis_rs(address: SocketAddr, protocol: u8, backend: Backend) -> redis::RedisResult<()> {
    let base = format!("c:rs-{protocol}");
    let key = |name: &str| format!("{base}-{name}");
    let url = if protocol == 3 {
        format!("redis://{address}/?protocol=resp3")
    } else {
        format!("redis://{address}/")
    };
    let client = redis::Client::open(url)?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    let () = redis.set_ex(key("s"), "v", 100).await?;
    for _ in 0..2 {
        assert_eq!(redis.get::<_, String>(key("s")).await?, "v");
    }
    let ttl: i64 = redis.ttl(key("s")).await?;
    assert!((91..=100).contains(&ttl), "ttl {ttl}");
    let () = redis
        .hset_multiple(key("h"), &[("a", "1"), ("b", "2")])
        .await?;
    let hash: std::collections::BTreeMap<String, u8> = redis.hgetall(key("h")).await?;
    assert_eq!(hash, [("a".to_owned(), 1), ("b".to_owned(), 2)].into());
    let many: (String, Option<String>) = redis.mget(&[key("s"), key("none")]).await?;
    assert_eq!(many, ("v".to_owned(), None));
    let piped: (String, i64, String) = redis::pipe()
        .set(key("p"), 1)
        .incr(key("p"), 1)
        .get(key("p"))
        .query_async(&mut redis)
        .await?;
    assert_eq!(piped, ("OK".to_owned(), 2, "2".to_owned()));
    let found: Vec<String> = redis
        .scan_match::<_, String>(format!("{base}-*"))
        .await?
        .map(|key| key.unwrap())
        .collect()
        .await;
    assert!(
        found.contains(&key("s")) && found.contains(&key("h")),
        "{found:?}"
    );
    let mut listener = client.get_async_pubsub().await?;
    listener.subscribe(key("news")).await?;
    assert_eq!(redis.publish::<_, _, i64>(key("news"), "hello").await?, 1);
    let message = listener.on_message().next().await.expect("a message");
    assert_eq!(message.get_payload::<String>()?, "hello");
    if backend == Backend::Redis {
        let both: (String, String) = redis::pipe()
            .atomic()
            .set(key("s"), "w")
            .get(key("s"))
            .query_async(&mut redis)
            .await?;
        assert_eq!(both, ("OK".to_owned(), "w".to_owned()));
        assert_eq!(redis.get::<_, String>(key("s")).await?, "w");
        let mut popper = client.get_multiplexed_async_connection().await?;
        let popping = async { popper.blpop::<_, (String, String)>(key("q"), 10.0).await };
        let pushing = async { redis.clone().rpush::<_, _, i64>(key("q"), "job").await };
        let (job, length) = tokio::join!(popping, pushing);
        assert_eq!((job?, length?), ((key("q"), "job".to_owned()), 1));
        let script = redis::Script::new(
            "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])",
        );
        let read: String = script
            .key(key("e"))
            .arg("x")
            .invoke_async(&mut redis)
            .await?;
        assert_eq!(read, "x");
    }
    let wrong = redis
        .hset::<_, _, _, i64>(key("s"), "f", "v")
        .await
        .expect_err("the wrong type");
    assert!(wrong.to_string().contains("WRONGTYPE"), "{wrong}");
    assert_eq!(redis.del::<_, i64>(key("s")).await?, 1);
    assert_eq!(redis.get::<_, Option<String>>(key("s")).await?, None);
    Ok(())
}

#[test]
fn redis_cli_works_unchanged_over_both_protocols() {
    let cli = Engine::Redis7.cli().unwrap();
    everywhere(|address, backend| {
        let ask = |words: &[&str]| {
            let port = address.port().to_string();
            let output = Command::new(&cli)
                .args(["-p", &port])
                .args(words)
                .output()
                .unwrap();
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        for protocol in ["-2", "-3"] {
            let key = format!("c:cli{protocol}");
            assert_eq!(ask(&[protocol, "SET", &key, "v", "EX", "100"]), "OK");
            assert_eq!(ask(&[protocol, "GET", &key]), "v");
            assert_eq!(ask(&[protocol, "GET", &key]), "v");
            assert_eq!(ask(&[protocol, "HSET", &format!("{key}-h"), "a", "1"]), "1");
            let hash = ask(&[protocol, "HGETALL", &format!("{key}-h")]);
            assert_eq!(hash.split_whitespace().collect::<Vec<_>>(), ["a", "1"]);
            assert_eq!(
                ask(&[protocol, "--scan", "--pattern", &format!("{key}-*")]),
                format!("{key}-h")
            );
            assert_eq!(ask(&[protocol, "DEL", &key, &format!("{key}-h")]), "2");
            assert_eq!(ask(&[protocol, "-n", "1", "GET", &key]), "");
            if backend == Backend::Redis {
                assert_eq!(ask(&[protocol, "EVAL", "return {1,2}", "0"]), "1\n2");
            }
            assert!(ask(&[protocol, "INFO", "server"]).contains("redis_version:"));
        }
    });
}
