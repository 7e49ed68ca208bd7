//! The fuzz target's body over random and mutated inputs, so that every `cargo test` runs it
//! without nightly and cargo-fuzz.

use policy::{Policy, SidecarConfig};
use proptest::prelude::*;

#[path = "../fuzz/body.rs"]
mod body;

const SEED: &str = "\
tier: default/demo
keyspace: {prefix: 'app:', database: 0}
upstream: {host: redis, port: 6379, tls: {serverName: r}}
local: {memory: 8Mi, coherence: Tracking, maxStaleness: 1s}
ttl: {default: 5m, max: 1h, jitterPercent: 10}
rules:
- {name: ghosts, match: 'analytics:ghosts:{guildId}:{since}', ttl: 5m, localTtl: 1m}
- {name: all, match: 'analytics:*', cache: RemoteOnly}
- {name: tenant, match: '{tenant}:x:y', cache: LocalOnly, maxValueSize: 64Ki}
- {name: no, match: secret, cache: Deny}
sidecar: {threads: 2, unixSocket: /run/x.sock}
";

const PIECES: [&str; 30] = [
    "rules:\n",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "*",
    ":",
    ": ",
    ",",
    "'",
    "\"",
    "\n",
    "  ",
    "&a ",
    "*a",
    "ttl: 0s",
    "match: ",
    "name: a",
    "{id}",
    "\\",
    "99999999999999999999",
    "-1",
    "null",
    "~",
    "cache: Deny",
    "\u{0}",
    "é",
    "<<: ",
    "!!binary ",
];

#[test]
fn the_seed_is_a_policy_so_that_mutants_reach_the_matcher() {
    let config = SidecarConfig::from_yaml(SEED).unwrap();
    let policy = Policy::compile(&config).unwrap();
    let rule = policy
        .find(b"analytics:ghosts:1:2")
        .map(|id| &policy.rule(id).name);
    assert_eq!(rule.map(|name| &**name), Some("ghosts"));
    body::config(SEED.as_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
        body::config(&data);
    }

    #[test]
    fn random_pieces_of_configuration_never_panic(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40)
    ) {
        body::config(pieces.concat().as_bytes());
    }

    #[test]
    fn mutants_of_a_configuration_never_panic(
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..6_usize, prop::sample::select(&PIECES[..])),
            1..4,
        )
    ) {
        let mut data = SEED.as_bytes().to_vec();
        for (at, cut, piece) in edits {
            let at = at.index(data.len());
            let end = data.len().min(at + cut);
            data.splice(at..end, piece.bytes());
        }
        body::config(&data);
    }

    #[test]
    fn random_patterns_in_a_configuration_never_panic(
        patterns in prop::collection::vec("[ab:{}*x\\\\]{1,10}", 1..12)
    ) {
        let mut config = SidecarConfig::default();
        for (index, pattern) in patterns.into_iter().enumerate() {
            let name = format!("r{index}");
            config.rules.push(policy::config::Rule { name, pattern, ..Default::default() });
        }
        body::config(serde_yaml::to_string(&config).unwrap().as_bytes());
    }
}
