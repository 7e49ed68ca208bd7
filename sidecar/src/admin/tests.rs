//! Probes and state.

use std::sync::atomic::Ordering::Release;

use http_body_util::BodyExt as _;
use policy::{Policy, SidecarConfig};
use serde_json::Value;

use super::*;
use crate::{
    config::{Credentials, Secret},
    state::{Active, CoherenceState, Connection},
};

fn shared(yaml: &str) -> Arc<Shared> {
    let config = SidecarConfig::from_yaml(yaml).unwrap();
    let policy = Policy::compile(&config).unwrap();
    let credentials = Credentials {
        username: Some("canary-user".to_owned()),
        password: Some(Secret::new("canary-password")),
        local_password: Some(Secret::new("canary-local")),
        ..Credentials::default()
    };
    Shared::new(
        Active {
            config,
            policy,
            prefix: None,
            credentials,
        },
        2,
    )
}

fn ask(method: &Method, path: &str, shared: &Arc<Shared>) -> (u16, String) {
    let exporter = Exporter::new(Arc::clone(shared));
    let answer = route(method, path, shared, &exporter).unwrap_or_else(Problem::answer);
    let status = answer.status().as_u16();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let body = runtime
        .block_on(answer.into_body().collect())
        .unwrap()
        .to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn get(path: &str, shared: &Arc<Shared>) -> (u16, Value) {
    let (status, body) = ask(&Method::GET, path, shared);
    (
        status,
        serde_json::from_str(&body).unwrap_or(Value::String(body)),
    )
}

const TIER: &str = "\
tier: shop/cache
generation: 7
upstream: {host: redis.example}
keyspace: {prefix: 'p:'}
rules:
  - {name: ghosts, match: 'ghosts:{id}', ttl: 5m, localTtl: 30s}
  - {name: never, match: 'ghosts:1'}
";

#[test]
fn readiness_follows_the_listeners_and_the_drain_and_not_redis() {
    let shared = shared(TIER);
    assert_eq!(get("/ready", &shared).0, 503);
    shared.ready.store(true, Release);
    shared
        .upstream
        .update(|facts| facts.connection = Connection::Unavailable("refused".to_owned()));
    assert_eq!(get("/ready", &shared).0, 200);
    shared.drain();
    let (status, body) = get("/ready", &shared);
    assert_eq!(status, 503);
    assert!(
        body["detail"].as_str().unwrap().contains("draining"),
        "{body}"
    );
    assert_eq!(get("/live", &shared).0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_silent_event_loop_is_not_live() {
    let shared = shared(TIER);
    tokio::time::advance(SILENCE * 2).await;
    shared.beat(1);
    assert_eq!(shared.stuck_loops(SILENCE), [0]);
    let problem = live(&shared).unwrap_err().answer();
    assert_eq!(problem.status().as_u16(), 503);
    shared.beat(0);
    assert!(live(&shared).is_ok());
}

#[test]
fn state_shows_rules_and_connection_in_words_and_no_secret() {
    let shared = shared(TIER);
    shared.upstream.update(|facts| {
        facts.connection = Connection::Ready;
        facts.coherence = CoherenceState::Degraded("NOPERM".to_owned());
        facts.server = "redis 7.0.15".to_owned();
    });
    shared.counters[1].rules[0].hits.add(2);
    shared.counters[0].rules[0].misses.add(1);
    let (status, state) = get("/state", &shared);
    assert_eq!(status, 200);
    assert_eq!(state["tier"], "shop/cache");
    assert_eq!(state["generation"], 7);
    assert_eq!(state["connection"]["words"], "connected and ready");
    assert_eq!(state["connection"]["server"], "redis 7.0.15");
    assert_eq!(state["coherence"]["state"], "Degraded");
    assert!(
        state["coherence"]["words"]
            .as_str()
            .unwrap()
            .ends_with("NOPERM")
    );
    let rule = &state["rules"][0];
    assert_eq!(
        (rule["name"].as_str(), rule["match"].as_str()),
        (Some("ghosts"), Some("ghosts:{id}"))
    );
    assert_eq!(
        (rule["ttl"].as_str(), rule["localTtl"].as_str()),
        (Some("5m"), Some("30s"))
    );
    assert_eq!(
        (&rule["hits"], &rule["hitRate"]),
        (&2.into(), &0.6666.into())
    );
    assert!(
        state["notes"][0]
            .as_str()
            .unwrap()
            .contains("never applies")
    );
    let (_, metrics) = ask(&Method::GET, "/metrics", &shared);
    for shown in [state.to_string(), metrics] {
        assert!(!shown.contains("canary"), "{shown}");
    }
}

#[test]
fn nothing_else_is_there_and_nothing_can_be_changed() {
    let shared = shared(TIER);
    let (status, problem) = get("/v1/cache/x", &shared);
    assert_eq!(status, 404);
    assert!(
        problem["detail"].as_str().unwrap().contains("/metrics"),
        "{problem}"
    );
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        assert_eq!(ask(&method, "/state", &shared).0, 405);
    }
    assert_eq!(ask(&Method::HEAD, "/live", &shared).0, 200);
}
