//! The agent starts servers and Sentinels by itself, answers its probes, ends in good order.

use std::collections::BTreeSet;

use crds::cache_tier;
use e2e::{Engine, RedisServer, Shard, ShardOptions, http, wait};
use operator::cache_tier::validate::settings;
use serde_json::json;

const ENGINES: [Engine; 2] = [Engine::Redis7, Engine::Valkey8];

#[test]
fn a_standalone_server_starts_with_its_configuration_and_ends_with_code_0() {
    for engine in ENGINES {
        let options = ShardOptions::standalone(engine)
            .with("maxmemory", "64mb")
            .with("maxmemory-policy", "allkeys-lfu");
        let mut shard = Shard::start(options);
        let mut wire = shard.try_connect(0, "default", "default-first").unwrap();
        assert_eq!(wire.run("SET a 1"), "OK");
        let mut operator = shard.operator(0);
        let policy = operator.run("CONFIG GET maxmemory-policy");
        assert_eq!(policy.items()[1].text(), "allkeys-lfu");
        wait::until_true("the configuration is verified", || {
            shard.state(0).is_some_and(|state| {
                state["configVerified"] == json!(true) && state["configMismatches"] == json!([])
            })
        });
        assert_eq!(shard.status(0, "/live"), Some(200));
        assert_eq!(shard.status(0, "/startup"), Some(200));
        assert_eq!(shard.status(0, "/nothing"), Some(404));
        let metrics = http::get(shard.agent(0), "/metrics").unwrap().text();
        assert!(metrics.contains("pannier_instance_primary 1"), "{metrics}");
        operator.run("CONFIG SET maxmemory 1mb");
        wait::until_true("drift is shown", || {
            let state = shard.state(0).unwrap();
            state["configMismatches"] == json!(["maxmemory"])
        });
        shard.terminate(0);
        assert!(shard.until_ended(0).success());
    }
}

#[test]
fn p10_no_password_is_in_arguments_environment_state_metrics_or_logs() {
    let shard = Shard::start(ShardOptions::standalone(Engine::Redis7));
    let secrets = [
        "default-first",
        "operator-first",
        "replica-first",
        "sidecar-first",
    ];
    let id = shard.pod(0).id();
    let mut shown = shard.log(0) + &shard.state(0).unwrap().to_string();
    shown += &http::get(shard.agent(0), "/metrics").unwrap().text();
    for file in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("/proc/{id}/{file}")).unwrap();
        shown += &String::from_utf8_lossy(&bytes);
    }
    shown += &std::fs::read_to_string(shard.pod(0).data().join("users.acl")).unwrap();
    for secret in secrets {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}

#[test]
fn b11_a_first_start_forms_a_primary_two_replicas_and_three_sentinels_by_itself() {
    for engine in ENGINES {
        let began = std::time::Instant::now();
        let shard = Shard::start(ShardOptions::of(engine));
        println!("{}: formed after {:?}", engine.name(), began.elapsed());
        assert_eq!(shard.named(), Some(0));
        let mut wire = shard.try_connect(0, "default", "default-first").unwrap();
        assert_eq!(wire.run("SET a 1"), "OK");
        assert!(shard.state(0).unwrap()["dataLost"].is_null());
        for number in 1..3 {
            let state = shard.state(number).unwrap();
            assert_eq!(state["server"]["role"], "Replica", "{state}");
            assert_eq!(state["server"]["linkUp"], json!(true), "{state}");
        }
    }
}

#[test]
fn p8_a_first_start_without_its_third_pod_has_one_primary() {
    let mut shard = Shard::new(ShardOptions::of(Engine::Valkey8));
    // The one that is not to begin has waited for longer.
    for number in [1, 0].into_iter().chain(shard.sentinels()) {
        shard.start_pod(number);
    }
    assert_eq!(shard.until_formed(), 0);
    let state = shard.state(1).unwrap();
    assert_eq!(state["server"]["role"], "Replica", "{state}");
    assert_eq!(state["followed"], json!(0), "{state}");
}

#[test]
fn a_server_that_dies_ends_its_container_with_its_code_and_says_what_is_lost_when_it_is_back() {
    let mut shard = Shard::start(ShardOptions::standalone(Engine::Redis7));
    shard.pod(0).kill_server();
    assert_eq!(shard.until_ended(0).code(), Some(128 + 9));
    shard.start_pod(0);
    shard.until_formed();
    assert!(!shard.state(0).unwrap()["dataLost"].is_null());
}

#[test]
fn a_copy_of_the_binary_is_installed_for_the_main_container() {
    let folder = e2e::process::Folder::new("install");
    let to = folder.path().join("bin/pannier-operator");
    let done = std::process::Command::new(e2e::shard::program())
        .args(["install", "--to"])
        .arg(&to)
        .status()
        .unwrap();
    assert!(done.success());
    let version = std::process::Command::new(&to)
        .arg("--version")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("pannier-operator "));
}

#[test]
fn the_settings_that_a_tier_may_name_are_those_that_servers_have() {
    let mut had = [BTreeSet::new(), BTreeSet::new()];
    for engine in [
        Engine::Redis7,
        Engine::Redis8,
        Engine::Valkey8,
        Engine::Valkey9,
    ] {
        let kind = usize::from(matches!(engine, Engine::Valkey8 | Engine::Valkey9));
        let server = RedisServer::new(engine);
        let mut wire = server.connect();
        let shown = wire.run("CONFIG GET *");
        let names = shown.items().iter().step_by(2).map(e2e::Value::text);
        // Some have a second name, for configurations of old.
        had[kind].extend(names.filter(|name| !name.contains('_')));
    }
    for (engine, had) in [cache_tier::Engine::Redis, cache_tier::Engine::Valkey]
        .into_iter()
        .zip(had)
    {
        let known: BTreeSet<String> = settings::names(engine).map(str::to_owned).collect();
        assert_eq!(known, had, "{engine:?}");
    }
}

#[test]
fn a_loss_can_only_be_accepted_where_a_guard_waits() {
    let shard = Shard::start(ShardOptions::standalone(Engine::Valkey8));
    let said = shard.accept_loss(0);
    let error = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(2), "{error}");
    assert!(error.contains("no server waits in this pod"), "{error}");
}
