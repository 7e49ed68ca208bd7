//! Commands on one key, on several, on none.

use std::collections::BTreeSet;

use e2e::{ClusterOptions, ClusterSet, Engine, Sidecar, Wire, wait, wire::encode};
use serde_json::json;

use super::{keys, options, start};

#[test]
fn each_key_is_read_and_written_at_its_owner_and_kept_locally() {
    let (cluster, sidecar) = start();
    for mut wire in [sidecar.connect(), sidecar.connect_resp3()] {
        for number in 0..60 {
            let key = format!("c:{number}");
            assert_eq!(wire.call(&["SET", &key, "first"]).to_string(), "OK");
            let owner = cluster.owner_of(cluster.slot_of(&key));
            assert_eq!(cluster.call(owner, &["GET", &key]).text(), "first");
            assert_eq!(wire.call(&["GET", &key]).text(), "first");
        }
        for key in keys(&cluster, "c:") {
            sidecar.until_hit(&mut wire, &format!("GET {key}"));
            let owner = cluster.owner_of(cluster.slot_of(&key));
            cluster.call(owner, &["SET", &key, "second"]);
            wait::until_true("the direct write is seen", || {
                wire.call(&["GET", &key]).text() == "second"
            });
            sidecar.until_hit(&mut wire, &format!("GET {key}"));
        }
    }
}

#[test]
fn commands_over_several_slots_are_split_where_redis_semantics_allow() {
    let (_cluster, sidecar) = start();
    for prefix in ["plain:", "c:"] {
        let mut wire = sidecar.connect();
        let key = |number: u32| format!("{prefix}{number}");
        let mut set = vec!["MSET".to_owned()];
        let mut get = vec!["MGET".to_owned()];
        for number in 0..20 {
            set.extend([key(number), format!("v{number}")]);
            get.push(key(number));
        }
        get.insert(7, format!("{prefix}missing"));
        assert_eq!(wire.call(&set).to_string(), "OK");
        let expected: Vec<String> = (0..20).map(|number| format!("v{number}")).collect();
        for _ in 0..3 {
            let reply = wire.call(&get);
            let mut values: Vec<String> = reply.items().iter().map(ToString::to_string).collect();
            let missing = values.remove(6);
            assert_eq!((missing.as_str(), &values), ("(nil)", &expected));
        }
        let names: Vec<String> = (0..20).map(key).collect();
        let call = |wire: &mut Wire, command: &str, names: &[String]| {
            let mut words = vec![command.to_owned()];
            words.extend_from_slice(names);
            wire.call(&words).integer()
        };
        assert_eq!(call(&mut wire, "EXISTS", &names), 20);
        assert_eq!(call(&mut wire, "TOUCH", &names), 20);
        assert_eq!(call(&mut wire, "UNLINK", &names[..5]), 5);
        assert_eq!(call(&mut wire, "DEL", &names), 15);
        assert_eq!(call(&mut wire, "EXISTS", &names), 0);
    }
}

#[test]
fn what_cannot_be_split_is_refused_in_redis_own_words() {
    let (_cluster, sidecar) = start();
    let mut wire = sidecar.connect();
    for command in [
        "SINTER a b",
        "RENAME a b",
        "MSETNX a 1 b 2",
        "EVAL x 2 a b",
        "BLPOP a b 1",
        "WATCH a b",
    ] {
        assert_eq!(
            wire.run(command).to_string(),
            "-CROSSSLOT Keys in request don't hash to the same slot",
            "{command}"
        );
    }
    assert_eq!(wire.run("SADD {t}a 1 2").integer(), 2);
    assert_eq!(wire.run("SADD {t}b 2 3").integer(), 2);
    assert_eq!(wire.run("SINTER {t}a {t}b").items()[0].text(), "2");
}

#[test]
fn a_pipeline_over_all_shards_is_answered_in_order() {
    let (_cluster, sidecar) = start();
    let mut wire = sidecar.connect();
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for round in 0..50 {
        for number in 0..9 {
            let (key, value) = (format!("c:{number}"), format!("{round}-{number}"));
            bytes.extend(e2e::wire::encode(&["SET", &key, &value]));
            expected.push("OK".to_owned());
            bytes.extend(e2e::wire::encode(&["GET", &key]));
            expected.push(value.clone());
            bytes.extend(e2e::wire::encode(&["MGET", &key, "c:none"]));
            expected.push(format!("[{value} (nil)]"));
        }
    }
    wire.send(&bytes).unwrap();
    for expected in expected {
        assert_eq!(wire.read().unwrap().to_string(), expected);
    }
}

#[test]
fn scan_walks_all_shards_with_one_cursor() {
    let (_cluster, sidecar) = start();
    let mut wire = sidecar.connect();
    let mut all = BTreeSet::new();
    for number in 0..300 {
        let key = format!("scan:{number}");
        wire.call(&["SET", &key, "v"]);
        all.insert(key);
    }
    let mut found = BTreeSet::new();
    let mut cursor = "0".to_owned();
    for _ in 0..1000 {
        let reply = wire.call(&["SCAN", &cursor, "MATCH", "scan:*", "COUNT", "20"]);
        cursor = reply.items()[0].text();
        found.extend(reply.items()[1].items().iter().map(|key| key.text()));
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(cursor, "0", "the scan ends");
    assert_eq!(found, all);
    assert_eq!(wire.run("DBSIZE").integer(), 300);
    let keys = wire.run("KEYS scan:*");
    assert_eq!(keys.items().len(), 300);
    assert!(wire.run("RANDOMKEY").text().starts_with("scan:"));
    assert_eq!(wire.run("SCAN nonsense").to_string(), "-ERR invalid cursor");
}

#[test]
fn scripts_are_loaded_and_everything_is_flushed_on_every_shard() {
    let (cluster, sidecar) = start();
    let mut wire = sidecar.connect();
    let digest = wire.call(&["SCRIPT", "LOAD", "return redis.call('GET', KEYS[1])"]);
    let digest = digest.text();
    for key in keys(&cluster, "c:") {
        wire.call(&["SET", &key, &key]);
        assert_eq!(wire.call(&["EVALSHA", &digest, "1", &key]).text(), key);
        sidecar.until_hit(&mut wire, &format!("GET {key}"));
    }
    assert_eq!(
        wire.call(&["SCRIPT", "EXISTS", &digest, "0000"])
            .to_string(),
        "[1 0]"
    );
    assert_eq!(wire.run("FLUSHALL").to_string(), "OK");
    for key in keys(&cluster, "c:") {
        assert_eq!(wire.call(&["GET", &key]).to_string(), "(nil)");
    }
    assert_eq!(wire.run("DBSIZE").integer(), 0);
}

#[test]
fn mset_with_a_key_without_a_value_writes_nothing() {
    let (cluster, sidecar) = start();
    let mut wire = sidecar.connect();
    let keys = keys(&cluster, "plain:");
    assert_eq!(
        wire.call(&["MSET", &keys[0], "v", &keys[1]]).to_string(),
        "-ERR wrong number of arguments for 'mset' command"
    );
    for key in &keys {
        assert_eq!(wire.call(&["GET", key]).to_string(), "(nil)");
    }
}

#[test]
fn a_silent_shard_does_not_keep_back_the_replies_of_others_in_a_pipeline() {
    let mut cluster = ClusterSet::start(&ClusterOptions::of(Engine::Redis7));
    // Nothing but the end of the sidecar's patience sends the first replies before the app loses its own.
    let sidecar = Sidecar::start_coherent(
        &options(&cluster).config(json!({"resilience": {"commandTimeout": "2m"}})),
    );
    let keys = keys(&cluster, "p:silent");
    let mut wire = sidecar.connect();
    for key in &keys {
        assert_eq!(wire.call(&["SET", key, key]), "OK");
    }
    cluster.pause(2);
    let mut pipeline = Vec::new();
    for key in [&keys[0], &keys[1], &keys[2], &keys[0]] {
        pipeline.extend(encode(&["GET", key]));
    }
    wire.send(&pipeline).unwrap();
    // The third has no answer, so the fourth must wait as well; the first two must not.
    assert_eq!(wire.read().unwrap(), keys[0].as_str());
    assert_eq!(wire.read().unwrap(), keys[1].as_str());
    cluster.resume(2);
    assert_eq!(wire.read().unwrap(), keys[2].as_str());
    assert_eq!(wire.read().unwrap(), keys[0].as_str());
}
