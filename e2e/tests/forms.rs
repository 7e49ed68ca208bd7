//! Every form of read that the local tier answers, as a miss and as a hit: the reply is the one
//! that Redis gives, in both protocol versions, with and without a prefix (S0.1).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

use std::collections::BTreeMap;

use e2e::{Engine, RedisServer, Sidecar, SidecarOptions, Value, Wire, random::Random, wait};
use serde_json::json;

const PREFIX: &str = "app:";

/// What is there, before each form is read.
const DATA: &[&str] = &[
    "SET c:s text",
    "HSET c:h f 1 g 2 empty",
    "SADD c:t a b c 17",
    "RPUSH c:l a b c d 5 f g",
    "ZADD c:z 1 a 1.5 b 0.1 c 3 d -7 e inf f -inf g 1e300 h 12345678901234567 i 1e-7 j",
];

/// Every form, of keys that are there, are not there, and are of another type.
const READS: &[&str] = &[
    "GET c:s",
    "GET c:none",
    "GET c:h",
    "STRLEN c:s",
    "EXISTS c:s",
    "TYPE c:z",
    "TTL c:l",
    "PTTL c:none",
    "HGET c:h f",
    "HGET c:h nosuch",
    "HGETALL c:h",
    "HGETALL c:none",
    "HMGET c:h f nosuch g f",
    "HMGET c:none f g",
    "HMGET c:s f",
    "HLEN c:h",
    "HLEN c:none",
    "HLEN c:t",
    "HEXISTS c:h f",
    "HEXISTS c:h nosuch",
    "HEXISTS c:none f",
    "HEXISTS c:s f",
    "SMEMBERS c:t",
    "SMEMBERS c:none",
    "SMEMBERS c:h",
    "SISMEMBER c:t a",
    "SISMEMBER c:t 17",
    "SISMEMBER c:t nosuch",
    "SISMEMBER c:none a",
    "SISMEMBER c:z a",
    "SCARD c:t",
    "SCARD c:none",
    "SCARD c:l",
    "LRANGE c:l 0 -1",
    "LRANGE c:l 1 3",
    "LRANGE c:l -3 -2",
    "LRANGE c:l 4 100",
    "LRANGE c:l 5 2",
    "LRANGE c:none 0 -1",
    "LRANGE c:s 0 -1",
    "LLEN c:l",
    "LLEN c:none",
    "LLEN c:t",
    "ZRANGE c:z 0 -1",
    "ZRANGE c:z 0 -1 WITHSCORES",
    "ZRANGE c:z 2 4 withscores",
    "ZRANGE c:z -2 -1",
    "ZRANGE c:z 100 200 WITHSCORES",
    "ZRANGE c:none 0 -1 WITHSCORES",
    "ZRANGE c:l 0 -1",
    "ZSCORE c:z a",
    "ZSCORE c:z c",
    "ZSCORE c:z f",
    "ZSCORE c:z g",
    "ZSCORE c:z h",
    "ZSCORE c:z i",
    "ZSCORE c:z j",
    "ZSCORE c:z nosuch",
    "ZSCORE c:none a",
    "ZSCORE c:s a",
    "ZCARD c:z",
    "ZCARD c:none",
    "ZCARD c:h",
];

struct Stage {
    server: RedisServer,
    sidecar: Sidecar,
    prefix: &'static str,
    resp3: bool,
    hits: f64,
}

impl Stage {
    fn new(engine: Engine, prefix: bool, resp3: bool) -> Self {
        let server = RedisServer::new(engine);
        let mut options = SidecarOptions::before(&server)
            .rule("cached", "c:{id}", json!({"negativeTtl": "60s"}))
            .rule("barrier", "barrier:{id}", json!({}));
        if prefix {
            options = options.config(json!({"keyspace": {"prefix": PREFIX}}));
        }
        let sidecar = Sidecar::start_coherent(&options);
        Self {
            server,
            sidecar,
            prefix: if prefix { PREFIX } else { "" },
            resp3,
            hits: 0.0,
        }
    }

    fn connect(&self) -> (Wire, Wire) {
        let (app, direct) = (self.sidecar.address(), self.server.address());
        if self.resp3 {
            (Wire::connect_resp3(app), Wire::connect_resp3(direct))
        } else {
            (Wire::connect(app), Wire::connect(direct))
        }
    }

    /// The command as it has to be sent to the server itself.
    fn in_redis(&self, command: &str) -> String {
        command
            .split(' ')
            .map(|word| {
                if word.starts_with("c:") {
                    format!("{}{word}", self.prefix)
                } else {
                    word.to_owned()
                }
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Whether the local tier has answered since the last call.
    fn was_hit(&mut self) -> bool {
        let hits = self.sidecar.hits();
        let more = hits > self.hits;
        self.hits = hits;
        more
    }
}

fn every_setting(test: impl Fn(Stage)) {
    for engine in Engine::ALL {
        for (prefix, resp3) in [(false, false), (true, true)] {
            test(Stage::new(engine, prefix, resp3));
        }
    }
    for (prefix, resp3) in [(false, true), (true, false)] {
        test(Stage::new(Engine::Redis7, prefix, resp3));
    }
}

#[test]
fn every_form_is_answered_locally_with_the_reply_of_redis() {
    every_setting(|mut stage| {
        let (mut app, mut direct) = stage.connect();
        for write in DATA {
            let write = write.replace(" empty", "");
            assert!(!direct.run(&stage.in_redis(&write)).is_error(), "{write}");
        }
        assert!(
            !direct
                .call(&["HSET", &stage.in_redis("c:h"), "", ""])
                .is_error()
        );
        for read in READS {
            let expected = direct.run(&stage.in_redis(read));
            // A write through the sidecar leaves nothing of an earlier read.
            let key = read.split(' ').nth(1).unwrap();
            app.run(&format!("PERSIST {key}"));
            stage.was_hit();
            assert_eq!(app.run(read), expected, "{read} as a miss");
            assert!(!stage.was_hit(), "{read} was not a miss");
            if expected.is_error() {
                for _ in 0..3 {
                    assert_eq!(app.run(read), expected, "{read}");
                }
                assert!(!stage.was_hit(), "an error was kept: {read}");
                continue;
            }
            wait::until_true(&format!("{read} is answered locally"), || {
                assert_eq!(app.run(read), expected, "{read} as a hit");
                stage.was_hit()
            });
        }
    });
}

/// Writes and reads of a few keys, the writes by turns through the sidecar and past it.
const WRITES: &[&str] = &[
    "HSET c:h {f} {n}",
    "HDEL c:h {f}",
    "HSET c:h {f} {n} {f} {n}",
    "SADD c:t {f} {f}",
    "SREM c:t {f}",
    "RPUSH c:l {n} {n}",
    "LPOP c:l",
    "LSET c:l 0 {n}",
    "LTRIM c:l 0 9",
    "ZADD c:z {n} {f}",
    "ZADD c:z 0.{n} {f} -1e{n} {f}",
    "ZREM c:z {f}",
    "DEL c:{k}",
    "PEXPIRE c:{k} 600000",
    "RENAME c:{k} c:{k}",
];
const RANDOM_READS: &[&str] = &[
    "HGET c:{h} {f}",
    "HGETALL c:{h}",
    "HMGET c:{h} {f} {f}",
    "HEXISTS c:{h} {f}",
    "HLEN c:{h}",
    "SMEMBERS c:{t}",
    "SISMEMBER c:{t} {f}",
    "SCARD c:{t}",
    "LRANGE c:{l} {i} {i}",
    "LRANGE c:{l} 0 -1",
    "LLEN c:{l}",
    "ZRANGE c:{z} {i} {i}",
    "ZRANGE c:{z} 0 -1 WITHSCORES",
    "ZSCORE c:{z} {f}",
    "ZCARD c:{z}",
    "TYPE c:{k}",
    "EXISTS c:{k}",
];
const ROUNDS: usize = 1_200;

fn fill(random: &mut Random, template: &str) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let (name, after) = after.split_once('}').unwrap();
        rest = after;
        let word = match name {
            "f" => format!("f{}", random.below(5)),
            "n" => random.below(50).to_string(),
            "i" => (i64::try_from(random.below(8)).unwrap() - 4).to_string(),
            // Mostly a key of the right type.
            kind => {
                let other = kind == "k" || random.chance(5);
                let kinds = ["h", "t", "l", "z", "none"];
                if other { random.pick(&kinds) } else { kind }.to_owned()
            }
        };
        text.push_str(&word);
    }
    text + rest
}

#[test]
fn random_reads_between_writes_of_all_sides_are_those_of_redis() {
    let seed = Random::seed("PANNIER_SEED");
    let counts = std::cell::RefCell::new(BTreeMap::<String, (u32, u32)>::new());
    every_setting(|mut stage| {
        println!(
            "prefix {:?}, RESP3 {}: PANNIER_SEED={seed}",
            stage.prefix, stage.resp3
        );
        let mut random = Random::new(seed);
        let (mut app, mut direct) = stage.connect();
        let mut history = Vec::new();
        for round in 0..ROUNDS {
            if random.chance(25) {
                let template = random.pick(WRITES);
                let write = fill(&mut random, template);
                if random.chance(50) {
                    app.run(&write);
                    history.push(write);
                } else {
                    direct.run(&stage.in_redis(&write));
                    // A miss travels behind the pushes.
                    assert_eq!(app.run(&format!("GET barrier:{round}")), "(nil)");
                    history.push(format!("{write} (directly)"));
                }
                continue;
            }
            let template = random.pick(RANDOM_READS);
            let read = fill(&mut random, template);
            let expected = sorted(&read, direct.run(&stage.in_redis(&read)));
            stage.was_hit();
            let got = sorted(&read, app.run(&read));
            let hit = stage.was_hit();
            let recent = &history[history.len().saturating_sub(20)..];
            assert_eq!(
                got, expected,
                "{read}, locally: {hit}; PANNIER_SEED={seed}, before it:\n{recent:#?}"
            );
            let name = read.split(' ').next().unwrap().to_owned();
            let mut counts = counts.borrow_mut();
            let (misses, hits) = counts.entry(name).or_default();
            *(if hit { hits } else { misses }) += 1;
            history.push(format!("{read} (locally: {hit})"));
        }
    });
    let counts = counts.into_inner();
    assert_eq!(counts.len(), 15, "{counts:?}");
    for (name, (misses, hits)) in &counts {
        assert!(*misses >= 10 && *hits >= 10, "{name}: {counts:?}");
    }
}

/// A set has no order, and two reads of one may differ in it.
fn sorted(read: &str, value: Value) -> Value {
    match value {
        Value::Set(mut items) => {
            items.sort();
            Value::Set(items)
        }
        Value::Array(mut items) if read.starts_with("SMEMBERS") => {
            items.sort();
            Value::Array(items)
        }
        other => other,
    }
}
