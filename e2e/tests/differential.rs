//! The same random commands through the sidecar and directly to a second server of the same kind:
//! every reply must be the same, byte by byte.
//!
//! Only what differs by nature is allowed for: the order of unordered collections and the
//! milliseconds in remaining times. `PANNIER_SEED` repeats a run, `PANNIER_STEPS` changes its length.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

#[path = "differential/commands.rs"]
mod commands;

use std::{collections::BTreeSet, net::SocketAddr};

use commands::{Command, Generator, Scope, Step};
use e2e::{
    Engine, RedisServer, Sidecar, SidecarOptions, Value, Wire, random::Random, wire::encode,
};
use serde_json::json;

const STEPS: usize = 300;
const CONNECTIONS: usize = 2;
/// A run ends after so many differences: later ones follow from the first.
const ENOUGH: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Setting {
    engine: Engine,
    resp3: bool,
    prefix: bool,
    rules: bool,
}

/// Two sides that get the same commands on the same number of connections.
struct Pair {
    subject: Vec<Wire>,
    reference: Vec<Wire>,
    history: Vec<String>,
    differences: Vec<String>,
}

#[test]
fn replies_over_resp2_are_those_of_redis_7() {
    through_the_sidecar(Engine::Redis7, false);
}

#[test]
fn replies_over_resp3_are_those_of_redis_7() {
    through_the_sidecar(Engine::Redis7, true);
}

#[test]
fn replies_over_resp2_are_those_of_valkey_8() {
    through_the_sidecar(Engine::Valkey8, false);
}

#[test]
fn replies_over_resp3_are_those_of_valkey_8() {
    through_the_sidecar(Engine::Valkey8, true);
}

#[test]
fn two_plain_servers_show_no_difference() {
    for resp3 in [false, true] {
        let (one, other) = (
            RedisServer::new(Engine::Redis7),
            RedisServer::new(Engine::Redis7),
        );
        let setting = Setting {
            engine: Engine::Redis7,
            resp3,
            prefix: false,
            rules: false,
        };
        let differences = compare(setting, one.address(), other.address());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}

#[test]
fn a_single_wrong_byte_is_seen() {
    let server = RedisServer::new(Engine::Redis7);
    let other = RedisServer::new(Engine::Redis7);
    let mut pair = Pair::new(server.address(), other.address(), false);
    assert_eq!(server.connect().run("SET c:s:0 right"), "OK");
    assert_eq!(other.connect().run("SET c:s:0 wrong"), "OK");
    pair.exchange(0, &[vec![b"GET".to_vec(), b"c:s:0".to_vec()]], usize::MAX);
    assert_eq!(pair.differences.len(), 1);
}

fn through_the_sidecar(engine: Engine, resp3: bool) {
    for (prefix, rules) in [(false, false), (false, true), (true, false), (true, true)] {
        let setting = Setting {
            engine,
            resp3,
            prefix,
            rules,
        };
        let (behind, reference) = (RedisServer::new(engine), RedisServer::new(engine));
        // LCS of two long values takes Redis seconds on a busy machine.
        let mut options =
            SidecarOptions::before(&behind).config(json!({"resilience": {"commandTimeout": "2m"}}));
        if rules {
            options = options.rule("cached", "c:{kind}:{id}", json!({"negativeTtl": "60s"}));
        }
        if prefix {
            options = options.config(json!({"keyspace": {"prefix": "app.1:test:"}}));
        }
        let sidecar = Sidecar::start_coherent(&options);
        let differences = compare(setting, sidecar.address(), reference.address());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        if rules {
            let hits = sidecar.metric("pannier_cache_requests_total", "result=\"hit\"");
            assert!(
                hits > 0.0,
                "the local tier answered nothing: {}",
                sidecar.metrics()
            );
        }
    }
}

fn compare(setting: Setting, subject: SocketAddr, reference: SocketAddr) -> Vec<String> {
    let Setting {
        engine,
        resp3,
        prefix,
        rules,
    } = setting;
    let seed = Random::seed("PANNIER_SEED");
    let steps = std::env::var("PANNIER_STEPS").map_or(STEPS, |text| text.parse().unwrap());
    println!("{engine:?}, RESP3 {resp3}, prefix {prefix}, rules {rules}: PANNIER_SEED={seed}");
    let mut generator = Generator::new(seed, Scope { prefixed: prefix });
    let mut pair = Pair::new(subject, reference, resp3);
    let mut batch: Vec<Command> = Vec::new();
    for _ in 0..steps {
        let connection = generator.random().below(CONNECTIONS);
        let size = generator.random().below(20);
        let mut scans = Vec::new();
        for _ in 0..=size {
            match generator.step() {
                Step::Commands(commands) => batch.extend(commands),
                Step::Scan(cursor, command) => scans.push((cursor, command)),
            }
        }
        let cut = generator.random().below(4000);
        pair.exchange(connection, &batch, cut);
        batch.clear();
        for (cursor, command) in scans {
            pair.scan(connection, cursor, &command);
        }
        if pair.differences.len() >= ENOUGH {
            break;
        }
    }
    if !pair.differences.is_empty() {
        pair.differences
            .push(format!("{setting:?}; run again with PANNIER_SEED={seed}"));
    }
    pair.differences
}

impl Pair {
    fn new(subject: SocketAddr, reference: SocketAddr, resp3: bool) -> Self {
        let connect = |address| -> Vec<Wire> {
            let open = |_| {
                if resp3 {
                    Wire::connect_resp3(address)
                } else {
                    Wire::connect(address)
                }
            };
            (0..CONNECTIONS).map(open).collect()
        };
        Self {
            subject: connect(subject),
            reference: connect(reference),
            history: Vec::new(),
            differences: Vec::new(),
        }
    }

    /// Sends one pipeline to both sides, to the subject in two pieces, and compares the replies.
    fn exchange(&mut self, connection: usize, batch: &[Command], cut: usize) {
        if batch.is_empty() {
            return;
        }
        let bytes: Vec<u8> = batch.iter().flat_map(|command| encode(command)).collect();
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        self.subject[connection].send(first).unwrap();
        self.subject[connection].send(second).unwrap();
        self.reference[connection].send(&bytes).unwrap();
        let mut queued: Option<Vec<String>> = None;
        for (position, command) in batch.iter().enumerate() {
            let name = name_of(command);
            self.history
                .push(format!("[{connection}] {}", show(command)));
            let expected = self.reference[connection].read().unwrap();
            let got = self.subject[connection].read().unwrap_or_else(|error| {
                panic!(
                    "no reply to command {position} of {} in its pipeline: {}\n{error}\nbefore it:\n{}",
                    batch.len(), show(command), self.recent()
                )
            });
            let names = if name == "EXEC" { queued.take() } else { None };
            let (left, right) = match &names {
                Some(names) => (
                    calm_all(expected.clone(), names),
                    calm_all(got.clone(), names),
                ),
                None => (calm(expected.clone(), &name), calm(got.clone(), &name)),
            };
            if name == "MULTI" {
                queued = Some(Vec::new());
            } else if let Some(names) = &mut queued
                && expected == "QUEUED"
            {
                names.push(name);
            }
            if !alike(&left, &right) {
                self.differ(command, &expected, &got);
            }
        }
    }

    /// Walks both sides to the end; cursors and order are each server's own.
    fn scan(&mut self, connection: usize, cursor: usize, command: &Command) {
        let walk = |wire: &mut Wire| {
            let mut found = BTreeSet::new();
            let mut at = b"0".to_vec();
            let grouped = command[0] == b"HSCAN" || command[0] == b"ZSCAN";
            for _ in 0..10_000 {
                let mut call = command.clone();
                call.insert(cursor, at);
                let reply = wire.call(&call);
                if reply.is_error() {
                    return Err(reply);
                }
                let [next, items] = reply.items() else {
                    panic!("{reply}")
                };
                for group in items.items().chunks(if grouped { 2 } else { 1 }) {
                    found.insert(group.to_vec());
                }
                at = next.bytes().to_vec();
                if at == b"0" {
                    return Ok(found);
                }
            }
            panic!("{} does not end", show(command));
        };
        let expected = walk(&mut self.reference[connection]);
        let got = walk(&mut self.subject[connection]);
        self.history
            .push(format!("[{connection}] {} (whole walk)", show(command)));
        if expected != got {
            let text = |found| Value::Bulk(format!("{found:?}").into_bytes());
            self.differ(command, &text(expected), &text(got));
        }
    }

    fn differ(&mut self, command: &Command, expected: &Value, got: &Value) {
        self.differences.push(format!(
            "{}\n  expected {expected:?}\n  got      {got:?}\n  before it:\n{}",
            show(command),
            self.recent()
        ));
    }

    fn recent(&self) -> String {
        let start = self.history.len().saturating_sub(25);
        self.history[start..]
            .iter()
            .flat_map(|line| {
                [
                    "    ", line, "
",
                ]
            })
            .collect()
    }
}

fn name_of(command: &Command) -> String {
    String::from_utf8_lossy(&command[0]).to_ascii_uppercase()
}

fn show(command: &Command) -> String {
    let words: Vec<String> = command
        .iter()
        .map(|word| word[..word.len().min(60)].escape_ascii().to_string())
        .collect();
    words.join(" ")
}

fn calm_all(reply: Value, names: &[String]) -> Value {
    match reply {
        Value::Array(items) if items.len() == names.len() => Value::Array(
            items
                .into_iter()
                .zip(names)
                .map(|(item, name)| calm(item, name))
                .collect(),
        ),
        other => other,
    }
}

/// Puts what has no order of its own in order.
fn calm(reply: Value, name: &str) -> Value {
    let reply = match reply {
        Value::Set(mut items) => {
            items.sort();
            return Value::Set(items);
        }
        other => other,
    };
    match (name, reply) {
        // Valkey embeds the key in the object, so a prefix makes short strings too long to embed.
        ("OBJECT", Value::Bulk(encoding)) if encoding == b"raw" => Value::Bulk(b"embstr".to_vec()),
        (
            "SMEMBERS" | "SUNION" | "SINTER" | "SDIFF" | "HKEYS" | "HVALS" | "KEYS" | "SORT",
            Value::Array(mut items),
        ) => {
            items.sort();
            Value::Array(items)
        }
        ("HGETALL", Value::Array(items)) => Value::Array(in_pairs(&items)),
        ("HGETALL", Value::Map(items)) => Value::Map(in_pairs(&items)),
        ("TTL" | "PTTL" | "EXPIRETIME" | "PEXPIRETIME", Value::Integer(digits)) => {
            let number: i64 = String::from_utf8(digits).unwrap().parse().unwrap();
            let slack = if name.starts_with('P') { 5000 } else { 5 };
            // Marked as inexact by its type; -1 and -2 are exact.
            if number < 0 {
                Value::Integer(number.to_string().into_bytes())
            } else {
                about(number, slack)
            }
        }
        (_, reply) => reply,
    }
}

fn in_pairs(items: &[Value]) -> Vec<Value> {
    let mut pairs: Vec<Vec<Value>> = items.chunks(2).map(<[Value]>::to_vec).collect();
    pairs.sort();
    pairs.concat()
}

fn about(number: i64, slack: i64) -> Value {
    Value::BigNumber(format!("{number} ±{slack}").into_bytes())
}

fn alike(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::BigNumber(left), Value::BigNumber(right)) => {
            let read = |text: &[u8]| -> Option<(i64, i64)> {
                let (number, slack) = std::str::from_utf8(text).ok()?.split_once(" ±")?;
                Some((number.parse().ok()?, slack.parse().ok()?))
            };
            match (read(left), read(right)) {
                (Some((left, slack)), Some((right, _))) => (left - right).abs() <= slack,
                _ => left == right,
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => left
            .iter()
            .zip(right)
            .all(|(left, right)| alike(left, right)),
        _ => left == right,
    }
}
