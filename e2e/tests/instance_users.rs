//! Users: passwords change while clients are connected, rights are what each needs and no more.

use e2e::{Engine, Shard, ShardOptions, Sidecar, SidecarOptions, Wire, wait};
use operator::user::{self, User};
use serde_json::json;

const ENGINES: [Engine; 2] = [Engine::Redis7, Engine::Valkey8];
const USERS: [&str; 4] = ["default", "operator", "replica", "sidecar"];

fn generation(shard: &Shard, number: usize) -> Option<String> {
    let state = shard.state(number)?;
    state["credentialGeneration"].as_str().map(str::to_owned)
}

/// Waits until every instance says what the operator says of a Secret with these passwords.
fn until_passwords(shard: &Shard, current: &str, previous: Option<&str>) {
    let wanted = word(current, previous);
    let all: Vec<usize> = shard.servers().chain(shard.sentinels()).collect();
    wait::until_true("every instance has the new passwords", || {
        all.iter()
            .all(|number| generation(shard, *number).as_ref() == Some(&wanted))
    });
}

/// The word that the operator makes of a Secret with these passwords.
fn word(current: &str, previous: Option<&str>) -> String {
    let password = |user: User, of: &str| format!("{}-{of}", user.name());
    let users = User::ALL.map(|user| {
        let previous = previous.map(|of| password(user, of));
        (user, password(user, current), previous)
    });
    let users = users
        .iter()
        .map(|(user, current, previous)| (*user, Some(current.as_str()), previous.as_deref()));
    user::generation(false, users)
}

fn may_log_in(shard: &Shard, number: usize, user: &str, password: &str) -> bool {
    shard.try_connect(number, user, password).is_some()
}

#[test]
fn passwords_rotate_through_two_slots_and_no_connection_is_dropped() {
    for engine in ENGINES {
        let mut shard = Shard::start(ShardOptions::of(engine));
        let mut clients: Vec<Wire> = ["default", "sidecar"]
            .map(|user| {
                shard
                    .try_connect(0, user, &format!("{user}-first"))
                    .expect("the shard answers")
            })
            .into_iter()
            .collect();
        let works = |clients: &mut Vec<Wire>| {
            for client in clients {
                assert_eq!(client.run("SET a 1"), "OK");
            }
        };
        for user in USERS {
            shard.set_password(user, "previous", Some(&format!("{user}-first")));
            shard.set_password(user, "current", Some(&format!("{user}-second")));
        }
        until_passwords(&shard, "second", Some("first"));
        works(&mut clients);
        for number in shard.servers().chain(shard.sentinels()) {
            for password in ["first", "second"] {
                let password = format!("default-{password}");
                assert!(
                    may_log_in(&shard, number, "default", &password),
                    "{number} {password}"
                );
            }
            assert!(!may_log_in(&shard, number, "default", "default-third"));
        }
        for user in USERS {
            shard.set_password(user, "previous", None);
        }
        until_passwords(&shard, "second", None);
        works(&mut clients);
        for number in shard.servers().chain(shard.sentinels()) {
            assert!(!may_log_in(&shard, number, "default", "default-first"));
            assert!(may_log_in(&shard, number, "default", "default-second"));
        }
        replication_and_failover_use_the_new_passwords(&mut shard);
    }
}

fn shard_links_come_up_again(shard: &Shard) {
    let operator = |number| shard.try_connect(number, "operator", "operator-second");
    // Links that break must come up again with what is valid now.
    operator(0)
        .expect("the shard answers")
        .run("CLIENT KILL TYPE replica");
    wait::until_true("the replicas are back", || {
        let state = shard.state(0).expect("the shard answers");
        let replicas = state["server"]["replicas"]
            .as_array()
            .expect("the shard answers");
        replicas
            .iter()
            .filter(|one| one["online"] == json!(true))
            .count()
            == 2
    });
    for sentinel in shard.sentinels() {
        operator(sentinel)
            .expect("the shard answers")
            .run("CLIENT KILL TYPE normal");
    }
}

fn replication_and_failover_use_the_new_passwords(shard: &mut Shard) {
    shard_links_come_up_again(shard);
    shard.kill(0);
    let operator = |number| shard.try_connect(number, "operator", "operator-second");
    let old = shard.known_as(0);
    wait::until("Sentinels choose another", || {
        let mut wire = operator(3)?;
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shard-0"];
        let reply = wire.try_call(&words).ok()?;
        (reply.items()[0].text() != old).then_some(())
    });
}

#[test]
fn a_secret_that_is_lost_and_made_anew_locks_nobody_out() {
    let shard = Shard::start(ShardOptions::of(Engine::Redis7));
    for user in USERS {
        shard.set_password(user, "current", None);
    }
    wait::until_true("the agents say what is missing", || {
        let error = shard.state(0).expect("the shard answers")["credentialError"].to_string();
        error.contains("default.current")
    });
    assert!(may_log_in(&shard, 0, "default", "default-first"));
    for user in USERS {
        shard.set_password(user, "current", Some(&format!("{user}-new")));
    }
    until_passwords(&shard, "new", None);
    assert!(may_log_in(&shard, 0, "default", "default-new"));
    assert!(!may_log_in(&shard, 0, "default", "default-first"));
    wait::until_true("the replicas follow", || {
        let state = shard.state(0).expect("the shard answers");
        let replicas = state["server"]["replicas"]
            .as_array()
            .expect("the shard answers");
        replicas.len() == 2 && state["frozen"].is_null()
    });
}

#[test]
fn rights_are_what_each_user_needs() {
    for engine in ENGINES {
        let shard = Shard::start(ShardOptions::of(engine));
        let as_user = |user: &str, command: &str| {
            let mut wire = shard
                .try_connect(0, user, &format!("{user}-first"))
                .expect("the shard answers");
            wire.run(command).to_string()
        };
        for user in ["default", "sidecar"] {
            for allowed in [
                "SET a 1",
                "KEYS *",
                "INFO server",
                "EVAL return(1) 0",
                "FLUSHALL",
                "CLIENT LIST",
                "COMMAND COUNT",
                "PUBLISH pannier:wait x",
                "WAIT 0 0",
                "SCRIPT FLUSH",
                "XADD s * a 1",
                "OBJECT HELP",
                "MEMORY USAGE a",
                "ROLE",
                "SORT l",
                "CLIENT NO-TOUCH OFF",
            ] {
                let reply = as_user(user, allowed);
                assert!(!reply.starts_with("-NOPERM"), "{user}: {allowed}: {reply}");
            }
            for refused in [
                "CONFIG SET maxmemory 1",
                "REPLICAOF NO ONE",
                "SHUTDOWN",
                "ACL LIST",
                "MODULE LIST",
                "CLIENT KILL TYPE normal",
                "BGSAVE",
                "FAILOVER",
                "MIGRATE h 1 k 0 1",
                "MONITOR",
                "CLIENT PAUSE 1",
                "CONFIG REWRITE",
            ] {
                let reply = as_user(user, refused);
                assert!(reply.starts_with("-NOPERM"), "{user}: {refused}: {reply}");
            }
        }
        assert!(as_user("default", "CONFIG GET maxmemory").starts_with("-NOPERM"));
        for refused in ["GET a", "CONFIG GET maxmemory", "INFO", "REPLICAOF NO ONE"] {
            assert!(
                as_user("replica", refused).starts_with("-NOPERM"),
                "{refused}"
            );
        }
        let mut sentinel = shard
            .try_connect(3, "sidecar", "sidecar-first")
            .expect("the shard answers");
        let address = sentinel.run("SENTINEL GET-MASTER-ADDR-BY-NAME shard-0");
        assert_eq!(address.items().len(), 2);
        for refused in [
            "SENTINEL FAILOVER shard-0",
            "SENTINEL REMOVE shard-0",
            "ACL LIST",
        ] {
            assert!(
                sentinel.run(refused).to_string().starts_with("-NOPERM"),
                "{refused}"
            );
        }
    }
}

#[test]
fn a_sidecar_works_behind_the_agents_with_its_user_and_is_refused_nothing() {
    for engine in ENGINES {
        let shard = Shard::start(ShardOptions::of(engine));
        let seeds: Vec<String> = shard
            .sentinels()
            .map(|number| shard.address(number).to_string())
            .collect();
        let options = SidecarOptions::memory()
            .config(json!({
                "upstream": {
                    "mode": "Sentinel",
                    "host": shard.address(3).ip().to_string(),
                    "port": shard.address(3).port(),
                    "seeds": seeds,
                    "usernameFile": "{folder}/user",
                    "passwordFile": "{folder}/password",
                    "sentinel": {
                        "masterName": e2e::shard::MASTER,
                        "usernameFile": "{folder}/user",
                        "passwordFile": "{folder}/password",
                    },
                },
            }))
            .file("user", "sidecar")
            .file("password", "sidecar-first")
            .rule("cached", "k:{id}", json!({"ttl": "10m"}));
        let sidecar = Sidecar::start_coherent(&options);
        let mut wire = sidecar.connect();
        assert_eq!(wire.run("SET k:1 v"), "OK");
        sidecar.until_hit(&mut wire, "GET k:1");
        assert!(!sidecar.log().contains("NOPERM"), "{}", sidecar.log());
        let mut operator = shard.operator(0);
        let denied = operator.run("ACL LOG").to_string();
        assert!(!denied.contains("sidecar"), "{denied}");
    }
}

#[test]
fn an_open_tier_lets_apps_in_without_a_password() {
    let shard = Shard::start(ShardOptions::standalone(Engine::Valkey8).field("open", json!(true)));
    let mut wire = Wire::connect(shard.address(0));
    assert_eq!(wire.run("SET a 1"), "OK");
    assert!(
        wire.run("CONFIG GET maxmemory")
            .to_string()
            .starts_with("-NOPERM")
    );
    assert!(!may_log_in(&shard, 0, "sidecar", "wrong"));
}
