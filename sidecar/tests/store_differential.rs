//! The memory store against redis-server 7.0: random command sequences, replies byte for byte.
//!
//! `PANNIER_TEST_REDIS` names the server's binary, or `PANNIER_TEST_SERVERS` a folder that holds
//! `redis-7.0/redis-server`; without them the one that `make test` unpacks is used. Compared otherwise: the order of members and fields (sorted), random choices (their
//! shape), pages of scans (whole scans), remaining times (within a few seconds).

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "store_differential/commands.rs"]
mod commands;
#[path = "store_differential/duel.rs"]
mod duel;
#[path = "store_differential/first_types.rs"]
mod first_types;
#[path = "store_differential/reply.rs"]
mod reply;
#[path = "store_differential/server.rs"]
mod server;
#[path = "store_differential/sorted_sets.rs"]
mod sorted_sets;
#[path = "store_differential/streams.rs"]
mod streams;

use duel::Duel;
use sidecar::{resp::Proto, store::Store};

const COMMANDS: usize = 40_000;
/// Where the server waits now and then.
const FEW: usize = 8_000;

/// A command with its arguments.
type Words = Vec<Vec<u8>>;

#[test]
fn the_store_answers_as_redis_does_over_resp2() {
    Duel::new(Proto::Resp2, 2, first_types::FORMS).fight(COMMANDS);
}

#[test]
fn the_store_answers_as_redis_does_over_resp3() {
    Duel::new(Proto::Resp3, 3, first_types::FORMS).fight(COMMANDS);
}

#[test]
fn sorted_sets_answer_as_those_of_redis_over_resp2() {
    Duel::new(Proto::Resp2, 2, sorted_sets::FORMS).fight(COMMANDS);
}

#[test]
fn sorted_sets_answer_as_those_of_redis_over_resp3() {
    Duel::new(Proto::Resp3, 3, sorted_sets::FORMS).fight(COMMANDS);
}

#[test]
fn streams_and_blocking_pops_answer_as_those_of_redis_over_resp2() {
    Duel::new(Proto::Resp2, 2, streams::FORMS).fight(FEW);
}

#[test]
fn streams_and_blocking_pops_answer_as_those_of_redis_over_resp3() {
    Duel::new(Proto::Resp3, 3, streams::FORMS).fight(FEW);
}

#[test]
fn some_form_exercises_every_command() {
    let names: std::collections::BTreeSet<&str> =
        [first_types::FORMS, sorted_sets::FORMS, streams::FORMS]
            .concat()
            .iter()
            .map(|form| form.split(' ').next().unwrap())
            .collect();
    for name in Store::COMMANDS.iter().filter(|name| **name != "time") {
        assert!(
            names.contains(name.to_uppercase().as_str()),
            "no form exercises {name}"
        );
    }
}

fn words(line: &str) -> Words {
    line.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}
