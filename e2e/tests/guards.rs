//! The guards of the local tier, one write command at a time: whatever changes a key, by this
//! sidecar or by others, alone, in a transaction or in a script, the next read is the server's.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected fails"
)]

#[path = "guards/late.rs"]
mod late;

use e2e::{Engine, RedisServer, Sidecar, SidecarOptions, Wire, wait};
use serde_json::json;

/// Keys as they are before each write.
const BEGINNING: [&str; 7] = [
    "FLUSHALL",
    "SET c:1 old",
    "SET c:2 other",
    "HSET c:h f old",
    "RPUSH c:l 3 1 2",
    "ZADD c:z 1 a",
    "GEOADD c:g 13.36 38.11 p",
];

const READS: [&str; 9] = [
    "GET c:1",
    "GET c:2",
    "HGETALL c:h",
    "TTL c:1",
    "TYPE c:1",
    "EXISTS c:1",
    "LRANGE c:l 0 -1",
    "ZRANGE c:z 0 -1",
    "STRLEN c:2",
];

const WRITES: [&str; 30] = [
    "SET c:1 new",
    "APPEND c:1 er",
    "GETEX c:1 EX 100",
    "GETEX c:1 PERSIST",
    "GETDEL c:1",
    "EXPIRE c:1 1000",
    "PERSIST c:1",
    "COPY c:2 c:1 REPLACE",
    "RENAME c:2 c:1",
    "RENAMENX c:1 c:3",
    "SORT c:l STORE c:2",
    "GEORADIUS c:g 13 38 200 km STORE c:1",
    "GEOSEARCHSTORE c:1 c:g FROMMEMBER p BYRADIUS 1 km",
    "ZUNIONSTORE c:1 1 c:z",
    "BITOP NOT c:1 c:2",
    "SETRANGE c:1 1 x",
    "MSETNX c:1 a c:2 b",
    "LMPOP 1 c:l LEFT",
    "LMOVE c:l c:2 LEFT LEFT",
    "OBJECT FREQ c:1",
    "MOVE c:1 1",
    "FLUSHDB",
    "FLUSHALL",
    "SWAPDB 0 1",
    "DEL c:1 c:2",
    "TOUCH c:1",
    "PFADD c:1 x",
    "HINCRBY c:h n 1",
    "XADD c:1 * f v",
    "LPUSH c:l x",
];

struct Stage {
    sidecar: Sidecar,
    app: Wire,
    direct: Wire,
    barriers: u32,
    _server: RedisServer,
}

impl Stage {
    fn new() -> Self {
        let server = RedisServer::new(Engine::Redis7);
        let options =
            SidecarOptions::before(&server).rule("cached", "c:{id}", json!({"negativeTtl": "60s"}));
        let sidecar = Sidecar::start_coherent(&options);
        Self {
            app: sidecar.connect(),
            direct: server.connect(),
            sidecar,
            barriers: 0,
            _server: server,
        }
    }

    /// Everything is as in the beginning, and kept locally.
    fn warm(&mut self) {
        for line in BEGINNING {
            assert!(!self.direct.run(line).is_error(), "{line}");
        }
        self.barrier();
        for read in READS {
            self.app.run(read);
        }
        self.sidecar.until_hit(&mut self.app, "GET c:1");
    }

    /// A miss travels on the tracked connection, behind the invalidations sent before.
    fn barrier(&mut self) {
        self.barriers += 1;
        self.app.run(&format!("GET c:barrier{}", self.barriers));
    }

    fn agrees(&mut self, after: &str) {
        for read in READS {
            assert_eq!(
                self.app.run(read),
                self.direct.run(read),
                "{read} after {after}"
            );
        }
    }
}

/// The write, and the same inside a transaction and inside scripts.
fn forms(write: &str) -> Vec<Vec<Vec<String>>> {
    let words: Vec<String> = write.split(' ').map(str::to_owned).collect();
    let one = |line: &str| vec![line.to_owned()];
    let call = |keys: &[&str]| {
        let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
        let script = format!("return redis.call({})", quoted.join(","));
        let mut eval = vec!["EVAL".to_owned(), script, keys.len().to_string()];
        eval.extend(keys.iter().map(|key| (*key).to_owned()));
        vec![eval]
    };
    vec![
        vec![words.clone()],
        vec![one("MULTI"), words.clone(), one("EXEC")],
        call(&[]),
    ]
}

#[test]
fn p2_whatever_this_sidecar_writes_the_next_read_is_the_servers() {
    let mut stage = Stage::new();
    for write in WRITES {
        for form in forms(write) {
            stage.warm();
            for line in &form {
                stage.app.call(line);
            }
            stage.agrees(&format!("{form:?}"));
        }
    }
}

#[test]
fn p1_whatever_others_write_is_seen_behind_its_invalidation() {
    let mut stage = Stage::new();
    // Redis sends no invalidation for SWAPDB: documented.
    for write in WRITES
        .into_iter()
        .filter(|write| !write.starts_with("SWAPDB"))
    {
        for form in forms(write) {
            stage.warm();
            for line in &form {
                stage.direct.call(line);
            }
            stage.barrier();
            stage.agrees(&format!("{form:?} by others"));
        }
    }
}

#[test]
fn p1_a_script_that_writes_a_key_it_does_not_declare_is_seen_behind_its_invalidation() {
    let mut stage = Stage::new();
    for round in 0..50 {
        stage.warm();
        let script = format!("return redis.call('SET', 'c:1', '{round}')");
        stage.app.call(&["EVAL", &script, "1", "c:2"]);
        stage.barrier();
        stage.agrees("a script with another key declared");
    }
}

#[test]
fn p4_keys_that_are_no_text_are_invalidated_as_well() {
    let mut stage = Stage::new();
    let key: &[u8] = b"c:\xff\x00\r\n\xc3";
    for value in [&b"one"[..], b"two", b"\xff\xfe"] {
        stage.direct.call(&[b"SET", key, value]);
        wait::until_true("the value is read", || {
            stage.app.call(&[b"GET", key]).bytes() == value
        });
        let hits = stage.sidecar.hits();
        assert_eq!(stage.app.call(&[b"GET", key]).bytes(), value);
        assert!(stage.sidecar.hits() > hits, "{value:?} is not kept");
    }
}
