//! What happens to data when containers, volumes and whole shards go: nothing that anyone still
//! holds is thrown away, and what is gone is said to be gone.

use std::time::{Duration, Instant};

use e2e::{Engine, Shard, ShardOptions, environment::available, shard::MASTER, wait};
use serde_json::json;

const ENGINES: [Engine; 2] = [Engine::Redis7, Engine::Valkey8];
const KEYS: i64 = 500;

fn fill(shard: &Shard, primary: usize) {
    let mut wire = shard
        .try_connect(primary, "default", "default-first")
        .expect("the shard answers");
    // A primary that has just begun refuses writes until it has seen others.
    wait::until_true("writes are accepted", || wire.run("SET k:0 v") == "OK");
    for key in 1..KEYS {
        assert_eq!(wire.call(&["SET", &format!("k:{key}"), "v"]), "OK");
    }
}

fn size(shard: &Shard, number: usize) -> i64 {
    shard.operator(number).run("DBSIZE").integer()
}

fn until_replicated(shard: &Shard) {
    wait::until_true("the replicas have it all", || {
        shard.servers().all(|number| size(shard, number) == KEYS)
    });
}

fn tell(engine: Engine, wiped: bool, back: Instant) {
    let took = back.elapsed();
    println!(
        "{}, wiped {wiped}: formed again after {took:?}",
        engine.name()
    );
}

fn data_lost(shard: &Shard, number: usize) -> bool {
    !shard.state(number).expect("the shard answers")["dataLost"].is_null()
}

#[test]
fn p8_a_primary_killed_and_back_empty_at_once_does_not_wipe_its_replicas() {
    for engine in ENGINES {
        for wiped in [false, true] {
            let mut shard = Shard::start(ShardOptions::of(engine));
            fill(&shard, 0);
            until_replicated(&shard);
            shard.kill(0);
            if wiped {
                shard.wipe(0);
            }
            let back = Instant::now();
            shard.start_pod(0);
            let primary = shard.until_formed();
            tell(engine, wiped, back);
            assert_ne!(primary, 0);
            for number in shard.servers() {
                assert_eq!(size(&shard, number), KEYS);
                assert!(!data_lost(&shard, number));
            }
        }
    }
}

#[test]
fn s2_19_all_killed_at_once_come_back_with_their_data() {
    for engine in ENGINES {
        let mut shard = Shard::start(ShardOptions::of(engine).appending());
        fill(&shard, 0);
        until_replicated(&shard);
        shard.kill_all();
        shard.start_all();
        let primary = shard.until_formed();
        assert_eq!(size(&shard, primary), KEYS);
        assert!(!data_lost(&shard, primary));
    }
}

#[test]
fn volumes_of_the_primary_and_of_all_sentinels_may_be_lost_while_a_replica_kept_its_own() {
    let mut shard = Shard::start(ShardOptions::of(Engine::Valkey8).appending());
    fill(&shard, 0);
    until_replicated(&shard);
    shard.kill_all();
    for lost in std::iter::once(0).chain(shard.sentinels()) {
        shard.wipe(lost);
    }
    shard.start_all();
    let primary = shard.until_formed();
    assert_ne!(primary, 0);
    assert_eq!(size(&shard, primary), KEYS);
    assert_eq!(size(&shard, 0), KEYS);
}

#[test]
fn a_primary_that_sentinels_remember_lost_its_volume_and_a_replica_is_promoted() {
    let mut shard = Shard::start(ShardOptions::of(Engine::Redis7).appending());
    fill(&shard, 0);
    until_replicated(&shard);
    shard.kill_all();
    shard.wipe(0);
    shard.start_all();
    let primary = shard.until_formed();
    assert_ne!(primary, 0);
    assert_eq!(size(&shard, primary), KEYS);
}

#[test]
fn all_killed_at_once_without_persistence_begin_empty_and_say_that_data_is_lost() {
    for engine in ENGINES {
        let mut shard = Shard::start(ShardOptions::of(engine));
        fill(&shard, 0);
        shard.kill_all();
        shard.start_all();
        let primary = shard.until_formed();
        assert_eq!(size(&shard, primary), 0);
        assert!(data_lost(&shard, primary));
    }
}

#[test]
fn all_pods_made_anew_say_that_data_is_lost_because_the_operator_knows_the_tier() {
    let mut shard = Shard::start(ShardOptions::of(Engine::Redis7));
    fill(&shard, 0);
    shard.change("formed", json!(true));
    shard.kill_all();
    for number in shard.servers().chain(shard.sentinels()) {
        shard.wipe(number);
    }
    shard.start_all();
    let primary = shard.until_formed();
    assert!(data_lost(&shard, primary));
}

#[test]
fn all_ended_in_good_order_at_once_do_not_wait_for_each_other() {
    let mut shard = Shard::start(
        ShardOptions::of(Engine::Redis7)
            .persistent()
            .with("save", "3600 1"),
    );
    fill(&shard, 0);
    until_replicated(&shard);
    let began = Instant::now();
    for number in shard.servers().chain(shard.sentinels()) {
        shard.terminate(number);
    }
    for number in shard.servers().chain(shard.sentinels()) {
        assert!(shard.until_ended(number).success());
    }
    println!("all ended after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(15));
    shard.start_all();
    let primary = shard.until_formed();
    assert_eq!(size(&shard, primary), KEYS);
}

#[test]
fn p8_an_empty_primary_waits_for_a_peer_that_does_not_answer_until_a_person_accepts_the_loss() {
    let mut shard = Shard::start(ShardOptions::of(Engine::Redis7));
    fill(&shard, 0);
    for number in shard.servers() {
        shard.kill(number);
    }
    shard.start_pod(0);
    shard.start_pod(1);
    let waits = |shard: &Shard| {
        let state = shard.state(0).unwrap_or_default();
        let guard = state["guard"].as_str().unwrap_or_default().to_owned();
        state["phase"] == "Guarding" && guard.contains("may hold the data and does not answer")
    };
    wait::until_true("the guard names whom it waits for", || waits(&shard));
    assert_eq!(shard.status(0, "/ready"), Some(503));
    assert_eq!(shard.status(0, "/live"), Some(200));
    let said = shard.accept_loss(0);
    assert!(said.status.success(), "{said:?}");
    let primary = shard.until_formed();
    assert_eq!(primary, 0);
    assert!(data_lost(&shard, 0));
    shard.start_pod(2);
    assert_eq!(shard.until_formed(), 0);
}

/// Ends a server in good order or at once, gives it other lines of `redis.conf`, and starts it.
fn restart_with(shard: &mut Shard, in_good_order: bool, config: &serde_json::Value) {
    if in_good_order {
        shard.terminate(0);
        shard.until_ended(0);
    } else {
        shard.kill(0);
    }
    shard.change("config", config.clone());
    shard.start_pod(0);
    shard.until_formed();
}

#[test]
fn s2_19_data_stays_when_persistence_changes_from_snapshots_to_an_append_only_file_and_back() {
    for engine in ENGINES {
        let snapshots = json!({"save": "3600 1"});
        let appends = json!({"save": "", "appendonly": "yes", "appendfsync": "always"});
        let options = ShardOptions::standalone(engine).persistent();
        let mut shard = Shard::start(options.field("config", snapshots.clone()));
        let has = |shard: &Shard, wanted: i64| {
            assert_eq!(size(shard, 0), wanted, "{}", engine.name());
            assert!(!data_lost(shard, 0), "{}", engine.name());
        };
        let add = |shard: &Shard, key: &str| {
            let mut wire = shard
                .try_connect(0, "default", "default-first")
                .expect("the server answers");
            assert_eq!(wire.call(&["SET", key, "v"]), "OK");
        };
        let files = shard.pod(0).data().join("appendonlydir");
        let has_list = || {
            let files = std::fs::read_dir(&files).into_iter().flatten().flatten();
            files.into_iter().any(|file| {
                let name = file.file_name();
                name.to_string_lossy().ends_with(".manifest")
            })
        };
        add(&shard, "a");
        restart_with(&mut shard, true, &appends);
        has(&shard, 1);
        wait::until_true("the append-only file is complete", has_list);
        add(&shard, "b");
        restart_with(&mut shard, false, &appends);
        has(&shard, 2);
        restart_with(&mut shard, true, &snapshots);
        has(&shard, 2);
        wait::until_true("a snapshot has replaced it", || !files.exists());
        add(&shard, "c");
        restart_with(&mut shard, true, &snapshots);
        has(&shard, 3);
        assert_eq!(
            shard.operator(0).run("CONFIG GET appendonly").items()[1],
            "no"
        );
        restart_with(&mut shard, true, &appends);
        has(&shard, 3);
    }
}

#[test]
fn a_sentinel_that_is_restarted_keeps_its_knowledge_and_one_made_anew_its_id() {
    let mut shard = Shard::start(ShardOptions::of(Engine::Valkey8));
    let id = |shard: &Shard, number| shard.operator(number).run("SENTINEL MYID").text();
    let [first, second] = [3, 4].map(|number| id(&shard, number));
    for wiped in [3, 4] {
        shard.kill(wiped);
    }
    shard.wipe(4);
    let conf = std::fs::read_to_string(shard.pod(3).data().join("sentinel.conf"))
        .expect("the shard answers");
    assert!(conf.contains("sentinel known-sentinel"), "{conf}");
    shard.start_all();
    shard.until_formed();
    assert_eq!([3, 4].map(|number| id(&shard, number)), [first, second]);
    // A lost Sentinel that still counted as a voter would make four.
    let known = shard.operator(5).run("SENTINEL SENTINELS shard-0");
    assert_eq!(known.items().len(), 2);
}

#[test]
fn all_addresses_change_at_once_and_everybody_is_found_again() {
    let test = "all_addresses_change_at_once_and_everybody_is_found_again";
    if available(test, Shard::can_be_named()).is_none() {
        return;
    }
    for engine in ENGINES {
        let mut options = ShardOptions::of(engine).appending();
        options.named = true;
        let mut shard = Shard::start(options);
        fill(&shard, 0);
        until_replicated(&shard);
        shard.kill_all();
        for number in shard.servers().chain(shard.sentinels()) {
            shard.move_pod(number);
        }
        shard.start_all();
        let primary = shard.until_formed();
        assert_eq!(size(&shard, primary), KEYS);
        // They do not only know each other by name: a failover works.
        shard.kill(primary);
        let next = wait::until("Sentinels name another", || {
            shard.named().filter(|named| *named != primary)
        });
        shard.move_pod(primary);
        shard.start_pod(primary);
        assert_eq!(shard.until_formed(), next);
        assert_eq!(size(&shard, primary), KEYS);
    }
}

/// After that Sentinels take a server for down; those that have just been started bear ten times as long a cut.
const DOWN_AFTER: i64 = 2000;
/// Longer than that, in seconds.
const TOO_LONG: i64 = 24;

fn until_links_are_down(shard: &Shard) {
    wait::until_true("replicas have been cut off for long", || {
        (1..3).all(|number| {
            let info = shard.operator(number).run("INFO replication").text();
            let since = info
                .lines()
                .find_map(|line| line.strip_prefix("master_link_down_since_seconds:"));
            since.is_some_and(|since| {
                since
                    .trim()
                    .parse()
                    .is_ok_and(|since: i64| since > TOO_LONG)
            })
        })
    });
}

/// A Sentinel that began after the primary ended takes all replicas for too far behind, for ever.
fn a_primary_without_data_comes_back_after_its_sentinels(engine: Engine, wiped: bool) {
    let options = ShardOptions::of(engine).field("downAfterMilliseconds", json!(DOWN_AFTER));
    let mut shard = Shard::start(options);
    fill(&shard, 0);
    until_replicated(&shard);
    shard.kill(0);
    for number in shard.sentinels() {
        shard.kill(number);
    }
    if wiped {
        shard.wipe(0);
    }
    until_links_are_down(&shard);
    let back = Instant::now();
    // The last Sentinel stays away.
    for number in std::iter::once(0).chain(shard.sentinels()).take(3) {
        shard.start_pod(number);
    }
    let primary = shard.until_formed();
    tell(engine, wiped, back);
    assert_ne!(primary, 0);
    assert!(
        shard.log(0).contains("too far behind"),
        "Sentinels chose one by themselves"
    );
    for number in shard.servers() {
        assert_eq!(size(&shard, number), KEYS);
    }
    // Its mark says that the replicas had everything; without one nobody knows.
    assert_eq!(data_lost(&shard, 0), wiped);
    for number in shard.sentinels().take(2) {
        let settings = shard.operator(number).call(&["SENTINEL", "MASTER", MASTER]);
        assert!(
            settings
                .to_string()
                .contains(&format!("down-after-milliseconds {DOWN_AFTER} ")),
            "{settings}"
        );
    }
}

#[test]
fn p8_a_primary_that_comes_back_empty_after_its_sentinels_gives_way_to_a_replica() {
    a_primary_without_data_comes_back_after_its_sentinels(Engine::Valkey8, false);
}

#[test]
fn p8_a_primary_made_anew_after_its_sentinels_gives_way_and_tells_what_may_be_lost() {
    a_primary_without_data_comes_back_after_its_sentinels(Engine::Redis7, true);
}

#[test]
fn p8_a_primary_with_its_data_does_not_wait_for_replicas_that_were_cut_off_from_it() {
    let options = ShardOptions::of(Engine::Valkey8)
        .persistent()
        .with("appendonly", "yes")
        .with("appendfsync", "everysec")
        .with("min-replicas-to-write", "0")
        .field("downAfterMilliseconds", json!(DOWN_AFTER));
    let mut shard = Shard::start(options);
    for number in 1..3 {
        shard.operator(number).run("CONFIG SET masterauth wrong");
    }
    shard.operator(0).run("CLIENT KILL TYPE replica");
    fill(&shard, 0);
    until_links_are_down(&shard);
    shard.kill(0);
    let back = Instant::now();
    shard.start_pod(0);
    wait::until_true("it begins with its data", || {
        shard
            .state(0)
            .is_some_and(|state| state["phase"] == "Running")
    });
    println!("began after {:?}", back.elapsed());
    assert_eq!(size(&shard, 0), KEYS);
    for number in 1..3 {
        shard
            .operator(number)
            .run("CONFIG SET masterauth replica-first");
    }
    assert_eq!(shard.until_formed(), 0);
    until_replicated(&shard);
}
