use super::*;
use crate::instance::{config::tests::server, passwords::tests::passwords};

fn identity() -> Identity {
    Identity {
        pod: "s1".to_owned(),
        address: "s1".to_owned(),
        ordinal: 1,
        only: None,
    }
}

fn conf(start: &Start, given: &[(&str, &str)]) -> String {
    let mut config = server();
    for (name, value) in given {
        config
            .config
            .insert((*name).to_owned(), (*value).to_owned());
    }
    server_conf(&config, &identity(), &passwords(true), start, 100)
}

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|one| one == line)
}

#[test]
fn a_primary_begins_frozen_where_sentinels_watch_it() {
    let text = conf(&Start::Primary, &[]);
    assert!(has(&text, "min-replicas-to-write 10000"), "{text}");
    assert!(!text.contains("replicaof"), "{text}");
    let text = conf(&Start::Replica("s0".to_owned()), &[]);
    assert!(has(&text, "min-replicas-to-write 1"), "{text}");
    assert!(has(&text, "replicaof s0 6379"), "{text}");
}

#[test]
fn a_standalone_server_is_neither_frozen_nor_announced() {
    let mut config = server();
    config.sentinels.clear();
    let text = server_conf(
        &config,
        &identity(),
        &passwords(false),
        &Start::Primary,
        100,
    );
    for word in ["min-replicas", "announce", "masterauth"] {
        assert!(!text.contains(word), "{text}");
    }
}

#[test]
fn the_tier_s_lines_are_taken_but_not_those_that_the_agent_owns() {
    let text = conf(
        &Start::Primary,
        &[
            ("save", ""),
            ("maxmemory", "100mb"),
            ("Bind", "6.6.6.6"),
            ("min-replicas-to-write", "0"),
            ("maxmemory-policy", "noeviction\nloadmodule /tmp/x.so"),
        ],
    );
    assert!(
        has(&text, "save \"\"") && has(&text, "maxmemory 100mb"),
        "{text}"
    );
    assert!(
        !text.contains("6.6.6.6") && !text.contains("loadmodule"),
        "{text}"
    );
    assert!(has(&text, "min-replicas-to-write 10000"), "{text}");
}

#[test]
fn a_lag_of_zero_would_switch_the_freeze_off_and_is_not_taken() {
    let mut config = server();
    config
        .config
        .insert("min-replicas-max-lag".to_owned(), "0".to_owned());
    config
        .config
        .insert("min-replicas-to-write".to_owned(), "0".to_owned());
    assert_eq!(wanted_guard(&config), (0, 5));
}

#[test]
fn a_password_may_hold_anything_that_a_line_can_hold() {
    assert_eq!(quoted("a\"b\\c d\u{e9}"), "\"a\\\"b\\\\c d\\xc3\\xa9\"");
}

#[test]
fn a_sentinel_s_memory_survives_the_rendering() {
    let memory = Memory {
        primary: "s2".to_owned(),
        config_epoch: 7,
        current_epoch: 9,
        leader_epoch: 9,
        known: vec![
            "sentinel known-replica cart-0 s0 6379".to_owned(),
            "sentinel known-sentinel cart-0 w1 26379 0123".to_owned(),
        ],
    };
    let mut config = server();
    config.kind = crate::instance::config::Kind::Sentinel;
    let text = sentinel_conf(&config, &identity(), &passwords(false), &memory);
    assert_eq!(Memory::read(&text, "cart-0"), Some(memory));
    assert_eq!(Memory::read(&text, "other"), None);
    assert!(has(&text, "sentinel monitor cart-0 s2 6379 2"), "{text}");
}

#[test]
fn a_sentinel_has_the_same_id_whenever_it_is_made_anew_and_each_its_own() {
    let line = |pod: &str| {
        let mut identity = identity();
        pod.clone_into(&mut identity.pod);
        let text = sentinel_conf(&server(), &identity, &passwords(false), &Memory::default());
        let line = text.lines().find(|line| line.starts_with("sentinel myid "));
        line.unwrap().to_owned()
    };
    assert_eq!(line("w0"), line("w0"));
    assert_ne!(line("w0"), line("w1"));
    assert_eq!(line("w0").len(), "sentinel myid ".len() + 40);
}
