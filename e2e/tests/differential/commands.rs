//! Random commands from templates: words in braces become keys, values, numbers. Most commands are
//! right; some have the wrong type, the wrong number of arguments, or an unknown option.

use e2e::random::Random;

/// One command, its arguments as bytes.
pub type Command = Vec<Vec<u8>>;

/// What is sent in one go and must not be torn apart.
pub enum Step {
    /// Commands with one reply each.
    Commands(Vec<Command>),
    /// A command of the SCAN family without its cursor: position of the cursor, and the rest.
    Scan(usize, Command),
}

/// Which commands may appear.
#[derive(Clone, Copy)]
pub struct Scope {
    /// Commands that reach beyond a prefix are refused under one; they are left out there.
    pub prefixed: bool,
}

const LUA_SET: &str =
    "redis.call('SET', KEYS[1], ARGV[1]); return {ARGV[1], redis.call('GET', KEYS[1]), 7, false}";
const SHA_OF_LUA_SET: &str = "53cfe36a4bba21cc7f060d31aaa053ba547c3b95";
const LUA_READ: &str = "return redis.call('EXISTS', KEYS[1], KEYS[2])";
const LUA_ERROR: &str = "return redis.error_reply('MINE this went wrong')";
const LIBRARY: &str = "#!lua name=probe\nredis.register_function('put', function(keys, args) \
    return redis.call('SET', keys[1], args[1]) end)\nredis.register_function{function_name='look', \
    callback=function(keys, args) return redis.call('TYPE', keys[1]) end, flags={'no-writes'}}";

const STRINGS: &[&str] = &[
    "SET {s} {v}",
    "SET {s} {v} EX {ttl}",
    "SET {s} {v} PX {ttl}000",
    "SET {s} {v} NX",
    "SET {s} {v} XX GET",
    "SET {s} {v} KEEPTTL",
    "SET {s} {v} EXAT 99999999999",
    "SET {s} {v} EX 0",
    "SET {s} {v} NX XX",
    "GET {s}",
    "GET {s}",
    "GET {s}",
    "GET {s}",
    "MGET {s} {s} {any}",
    "MGET {s} {s}",
    "STRLEN {s}",
    "STRLEN {s}",
    "SETNX {s} {v}",
    "SETEX {s} {ttl} {v}",
    "PSETEX {s} {ttl}000 {v}",
    "GETSET {s} {v}",
    "GETDEL {s}",
    "GETEX {s}",
    "GETEX {s} EX {ttl}",
    "GETEX {s} PERSIST",
    "APPEND {s} {v}",
    "SETRANGE {s} {n} {v}",
    "GETRANGE {s} {i} {i}",
    "SUBSTR {s} {i} {i}",
    "MSET {s} {v} {s} {v}",
    "MSETNX {s} {v} {s} {v}",
    "LCS {s} {s}",
    "LCS {s} {s} IDX",
    "INCR {c}",
    "DECR {c}",
    "INCRBY {c} {i}",
    "DECRBY {c} {i}",
    "INCRBYFLOAT {c} 0.5",
    "GET {c}",
    "GET {c}",
    "SET {c} {i}",
];
const KEYS: &[&str] = &[
    "DEL {any}",
    "DEL {any} {any} {s}",
    "UNLINK {any} {any}",
    "EXISTS {any}",
    "EXISTS {any} {any} {any}",
    "TOUCH {any} {any}",
    "TYPE {any}",
    "TYPE {any}",
    "RENAME {any} {s}",
    "RENAMENX {any} {any}",
    "COPY {any} {any}",
    "COPY {s} {s} REPLACE",
    "OBJECT ENCODING {any}",
    "OBJECT REFCOUNT {h}",
    "OBJECT HELP",
    "DUMP {nokey}",
    "DBSIZE",
    "EXPIRE {any} {ttl}",
    "EXPIRE {any} -1",
    "EXPIRE {any} {ttl} NX",
    "EXPIRE {any} {ttl} GT",
    "PEXPIRE {any} {ttl}000",
    "EXPIREAT {any} 99999999999",
    "PEXPIREAT {any} 1",
    "TTL {any}",
    "TTL {any}",
    "PTTL {any}",
    "EXPIRETIME {any}",
    "PEXPIRETIME {any}",
    "PERSIST {any}",
    "SORT {l} ALPHA",
    "SORT {l} BY nosort GET #",
    "SORT {c} LIMIT 0 2",
    "SORT {l} ALPHA STORE {l}",
    "SORT_RO {l} ALPHA DESC",
    "KEYS *",
    "KEYS [cu]:s:*",
    "KEYS ?:h:1",
    "PUBLISH news {v}",
    "ECHO {v}",
    "PING",
    "PING {v}",
    "MEMORY USAGE {nokey}",
    "WAIT 0 1",
    "LOLWUT VERSION 99",
];
const HASHES: &[&str] = &[
    "HSET {h} {f} {v}",
    "HSET {h} {f} {v} {f} {v}",
    "HSETNX {h} {f} {v}",
    "HMSET {h} {f} {v}",
    "HGET {h} {f}",
    "HGET {h} {f}",
    "HGET {h} {f}",
    "HMGET {h} {f} {f}",
    "HMGET {h} {f}",
    "HGETALL {h}",
    "HGETALL {h}",
    "HGETALL {h}",
    "HKEYS {h}",
    "HVALS {h}",
    "HLEN {h}",
    "HEXISTS {h} {f}",
    "HDEL {h} {f} {f}",
    "HSTRLEN {h} {f}",
    "HINCRBY {h} count {i}",
    "HINCRBYFLOAT {h} count 1.5",
    "HRANDFIELD {nokey}",
];
const LISTS: &[&str] = &[
    "LPUSH {l} {v} {m}",
    "RPUSH {l} {m} {m} {m}",
    "LPUSHX {l} {m}",
    "RPUSHX {l} {m}",
    "LRANGE {l} {i} {i}",
    "LRANGE {l} 0 -1",
    "LLEN {l}",
    "LINDEX {l} {i}",
    "LSET {l} {i} {m}",
    "LINSERT {l} BEFORE {m} {m}",
    "LREM {l} {i} {m}",
    "LTRIM {l} 0 20",
    "LPOP {l}",
    "RPOP {l} {n}",
    "LPOS {l} {m}",
    "LPOS {l} {m} COUNT 0",
    "RPOPLPUSH {l} {l}",
    "LMOVE {l} {l} LEFT RIGHT",
    "LMPOP 2 {l} {l} LEFT COUNT 2",
];
const SETS: &[&str] = &[
    "SADD {t} {m} {m} {m}",
    "SREM {t} {m}",
    "SMEMBERS {t}",
    "SISMEMBER {t} {m}",
    "SMISMEMBER {t} {m} {m}",
    "SCARD {t}",
    "SMOVE {t} {t} {m}",
    "SUNION {t} {t}",
    "SINTER {t} {t}",
    "SDIFF {t} {t}",
    "SINTERCARD 2 {t} {t}",
    "SUNIONSTORE {t} {t} {t}",
    "SINTERSTORE {t} {t} {t}",
    "SDIFFSTORE {t} {t} {t}",
    "SRANDMEMBER {nokey}",
    "SPOP {nokey}",
];
const SORTED_SETS: &[&str] = &[
    "ZADD {z} {i} {m} 1.5 {m}",
    "ZADD {z} XX GT CH {i} {m}",
    "ZADD {z} INCR {i} {m}",
    "ZINCRBY {z} {i} {m}",
    "ZSCORE {z} {m}",
    "ZMSCORE {z} {m} {m}",
    "ZRANK {z} {m}",
    "ZREVRANK {z} {m}",
    "ZCARD {z}",
    "ZCOUNT {z} -inf {i}",
    "ZRANGE {z} 0 -1",
    "ZRANGE {z} 0 -1 WITHSCORES",
    "ZRANGE {z} {i} {i} withscores",
    "ZRANGE {z} {i} {i}",
    "ZRANGE {z} 0 -1 REV",
    "ZRANGE {z} 01 -1",
    "ZADD {z} 0.1 {m} -1e300 {m} inf {m}",
    "ZRANGE {z} {i} +inf BYSCORE LIMIT 0 3 WITHSCORES",
    "ZRANGEBYSCORE {z} -inf ({i} WITHSCORES",
    "ZREVRANGE {z} 0 2 WITHSCORES",
    "ZRANGEBYLEX {z} - [m5",
    "ZLEXCOUNT {z} - +",
    "ZREM {z} {m}",
    "ZREMRANGEBYRANK {z} 5 -1",
    "ZREMRANGEBYSCORE {z} {i} {i}",
    "ZPOPMIN {z}",
    "ZPOPMAX {z} 2",
    "ZMPOP 2 {z} {z} MIN",
    "ZUNION 2 {z} {z} WITHSCORES",
    "ZINTER 2 {z} {z} WEIGHTS 2 3 WITHSCORES",
    "ZDIFF 2 {z} {z}",
    "ZUNIONSTORE {z} 2 {z} {t} AGGREGATE MAX",
    "ZINTERSTORE {z} 2 {z} {z}",
    "ZRANGESTORE {z} {z} 0 3",
    "ZINTERCARD 2 {z} {z}",
    "ZDIFFSTORE {z} 2 {z} {z}",
];
const STREAMS: &[&str] = &[
    "XADD {x} {xid} {f} {v}",
    "XADD {x} {xid} {f} {v} {f} {v}",
    "XADD {x} MAXLEN 10 {xid} {f} {v}",
    "XADD {x} NOMKSTREAM {xid} {f} {v}",
    "XLEN {x}",
    "XRANGE {x} - +",
    "XREVRANGE {x} + - COUNT 2",
    "XDEL {x} 3-1 5-1",
    "XTRIM {x} MAXLEN 8",
    "XREAD COUNT 3 STREAMS {x} {x} 0 0",
    "XGROUP CREATE {x} g 0 MKSTREAM",
    "XGROUP CREATE {x} g $",
    "XREADGROUP GROUP g one COUNT 2 STREAMS {x} >",
    "XREADGROUP GROUP g one STREAMS {x} 0",
    "XACK {x} g 1-1 2-1",
    "XPENDING {x} g",
    "XINFO STREAM {x}",
    "XINFO GROUPS {x}",
    "XGROUP DESTROY {x} g",
    "XAUTOCLAIM {x} g two 0 0 JUSTID",
    "XINFO HELP",
];
const OTHERS: &[&str] = &[
    "SETBIT {b} {n} 1",
    "GETBIT {b} {n}",
    "BITCOUNT {b}",
    "BITPOS {b} 1",
    "BITOP AND {b} {b} {s}",
    "BITOP NOT {b} {b}",
    "BITFIELD {b} SET u8 0 200 INCRBY u8 0 100 GET i4 4",
    "BITFIELD_RO {b} GET u8 0",
    "PFADD {p} {m} {m}",
    "PFCOUNT {p}",
    "PFCOUNT {p} {p}",
    "PFMERGE {p} {p} {p}",
    "GEOADD {g} 13.361389 38.115556 Palermo 15.087269 37.502669 Catania",
    "GEODIST {g} Palermo Catania km",
    "GEOPOS {g} Palermo Nowhere",
    "GEOHASH {g} Palermo",
    "GEOSEARCH {g} FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHDIST WITHCOORD",
    "GEOSEARCHSTORE {g} {g} FROMLONLAT 15 37 BYBOX 400 400 km ASC",
    "GEORADIUS {g} 15 37 200 km ASC STORE {g}",
    "EVAL {lua:set} 1 {s} {v}",
    "EVAL {lua:read} 2 {any} {any}",
    "EVAL_RO {lua:read} 2 {any} {any}",
    "EVAL {lua:error} 0",
    "EVAL {lua:set} 1",
    "SCRIPT LOAD {lua:set}",
    "SCRIPT EXISTS {sha:set} 0000000000000000000000000000000000000000",
    "EVALSHA {sha:set} 1 {s} {v}",
    "FUNCTION LOAD REPLACE {library}",
    "FCALL put 1 {s} {v}",
    "FCALL_RO look 1 {any}",
    "FCALL nosuch 0",
    "FUNCTION STATS",
    "PUBSUB NUMSUB news",
    "PUBSUB CHANNELS",
    "SELECT {db}",
    "SELECT 0",
    "MOVE {any} 1",
    "COPY {s} {s} DB 1 REPLACE",
    "SELECT 99",
    "NOSUCHOPTION",
    "HSET",
    "GET",
    "SET {s}",
    "SET {s} {v} BOGUS",
    "OBJECT BOGUS {s}",
    "XREAD STREAMS {x}",
    "ZUNION 5 {z}",
    "EVAL {lua:read} 9 {s}",
];
/// Rare, because each may wait for its timeout.
const BLOCKING: &[&str] = &[
    "BLPOP {l} {l} 0.01",
    "BRPOP {l} 0.01",
    "BLMOVE {l} {l} LEFT RIGHT 0.01",
    "BLMPOP 0.01 2 {l} {l} RIGHT",
    "BRPOPLPUSH {l} {l} 0.01",
    "BZPOPMIN {z} 0.01",
    "BZMPOP 0.01 1 {z} MAX",
    "XREAD BLOCK 5 STREAMS {x} 99999999-1",
    "XREAD BLOCK 5 COUNT 1 STREAMS {x} 0",
];
/// These reach beyond a prefix.
const UNPREFIXED: &[&str] = &[
    "FLUSHDB",
    "FLUSHALL",
    "SWAPDB 0 1",
    "NOSUCH {s} {v}",
    "RANDOMKEY NOSUCH",
];
const GROUPS: &[&[&str]] = &[
    STRINGS,
    STRINGS,
    STRINGS,
    KEYS,
    KEYS,
    HASHES,
    HASHES,
    LISTS,
    SETS,
    SORTED_SETS,
    STREAMS,
    OTHERS,
];
/// Not inside MULTI: their replies there tell of state that a queue does not have.
const NOT_QUEUED: &[&str] = &["SELECT", "MOVE", "SWAPDB", "FLUSHALL", "FLUSHDB"];

/// Reads that the local tier may answer.
const CACHEABLE: &[&str] = &[
    "GET",
    "MGET",
    "STRLEN",
    "EXISTS",
    "TYPE",
    "TTL",
    "PTTL",
    "HGET",
    "HGETALL",
    "HMGET",
    "HEXISTS",
    "HLEN",
    "SMEMBERS",
    "SISMEMBER",
    "SCARD",
    "LRANGE",
    "LLEN",
    "ZRANGE",
    "ZSCORE",
    "ZCARD",
];

/// Makes the steps of one run.
pub struct Generator {
    random: Random,
    scope: Scope,
    stream_id: u64,
    last_read: Option<Command>,
}

impl Generator {
    pub fn new(seed: u64, scope: Scope) -> Self {
        Self {
            random: Random::new(seed),
            scope,
            stream_id: 0,
            last_read: None,
        }
    }

    pub const fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    pub fn step(&mut self) -> Step {
        match self.random.below(100) {
            0..=2 => Step::Commands(self.transaction()),
            3 => Step::Commands(self.watched()),
            4..=5 => self.scan(),
            // What was read just now is read again: the second answer may be a local one.
            6..=20 => {
                let again = self.last_read.clone();
                Step::Commands(vec![again.unwrap_or_else(|| self.command())])
            }
            _ => {
                let command = self.command();
                if CACHEABLE.iter().any(|name| name.as_bytes() == command[0]) {
                    self.last_read = Some(command.clone());
                }
                Step::Commands(vec![command])
            }
        }
    }

    fn command(&mut self) -> Command {
        if !self.scope.prefixed && self.random.below(300) == 0 {
            let template = self.random.pick(UNPREFIXED);
            return self.expand(template);
        }
        if self.random.below(150) == 0 {
            let template = self.random.pick(BLOCKING);
            return self.expand(template);
        }
        let group = GROUPS[self.random.below(GROUPS.len())];
        let template = self.random.pick(group);
        let mut command = self.expand(template);
        match self.random.below(100) {
            0 if command.len() > 1 => drop(command.pop()),
            1 => command.push(b"extra".to_vec()),
            2 => command[0].make_ascii_lowercase(),
            _ => {}
        }
        command
    }

    fn queueable(&mut self) -> Command {
        loop {
            let command = self.command();
            let name = command[0].to_ascii_uppercase();
            if !NOT_QUEUED.iter().any(|refused| refused.as_bytes() == name) {
                return command;
            }
        }
    }

    fn transaction(&mut self) -> Vec<Command> {
        let mut steps = vec![self.expand("MULTI")];
        for _ in 0..=self.random.below(5) {
            steps.push(self.queueable());
        }
        let end = if self.random.chance(85) {
            "EXEC"
        } else {
            "DISCARD"
        };
        steps.push(self.expand(end));
        steps
    }

    fn watched(&mut self) -> Vec<Command> {
        let mut steps = vec![self.expand("WATCH {s} {any}"), self.expand("GET {s}")];
        if self.random.chance(40) {
            steps.push(self.expand("SET {s} {v}"));
        }
        if self.random.chance(20) {
            steps.push(self.expand("UNWATCH"));
        }
        steps.extend(self.transaction());
        steps
    }

    fn scan(&mut self) -> Step {
        let template = self.random.pick(&[
            "SCAN",
            "SCAN MATCH c:*",
            "SCAN MATCH [cu]:s:? COUNT 3",
            "SCAN TYPE hash COUNT 100",
            "HSCAN {h}",
            "HSCAN {h} MATCH f1*",
            "SSCAN {t}",
            "ZSCAN {z} COUNT 2",
        ]);
        let command = self.expand(template);
        let cursor = if command[0] == b"SCAN" { 1 } else { 2 };
        Step::Scan(cursor, command)
    }

    fn expand(&mut self, template: &str) -> Command {
        template
            .split(' ')
            .map(|word| match word.find('{').zip(word.rfind('}')) {
                None => word.as_bytes().to_vec(),
                Some((open, close)) => {
                    let mut bytes = word.as_bytes()[..open].to_vec();
                    bytes.extend(self.fill(&word[open + 1..close]));
                    bytes.extend(&word.as_bytes()[close + 1..]);
                    bytes
                }
            })
            .collect()
    }

    fn fill(&mut self, name: &str) -> Vec<u8> {
        match name {
            "v" => self.value(),
            "n" => self.random.below(40).to_string().into_bytes(),
            "i" => {
                let number = i64::try_from(self.random.below(12)).unwrap() - 4;
                number.to_string().into_bytes()
            }
            "f" => format!("f{}", self.random.below(6)).into_bytes(),
            "m" => format!("m{}", self.random.below(10)).into_bytes(),
            "db" => self.random.below(3).to_string().into_bytes(),
            "ttl" => (1000 + self.random.below(5000)).to_string().into_bytes(),
            "xid" => {
                self.stream_id += 1;
                format!("{}-1", self.stream_id).into_bytes()
            }
            "lua:set" => LUA_SET.into(),
            "lua:read" => LUA_READ.into(),
            "lua:error" => LUA_ERROR.into(),
            "sha:set" => SHA_OF_LUA_SET.into(),
            "library" => LIBRARY.into(),
            "nokey" => b"c:none:1".to_vec(),
            "any" => {
                let kind = self
                    .random
                    .pick(&["s", "c", "h", "l", "t", "z", "x", "b", "p", "g"]);
                self.key(kind)
            }
            kind => {
                let other = self.random.chance(4);
                if other {
                    self.fill("any")
                } else {
                    self.key(kind)
                }
            }
        }
    }

    /// Half of the keys match the rules of a run that has some.
    fn key(&mut self, kind: &str) -> Vec<u8> {
        let side = self.random.pick(&["c", "u"]);
        format!("{side}:{kind}:{}", self.random.below(3)).into_bytes()
    }

    fn value(&mut self) -> Vec<u8> {
        match self.random.below(10) {
            0 => Vec::new(),
            1 => b"\r\n$-1\r\n*".to_vec(),
            2 => (0..=self.random.below(60))
                .map(|_| self.random.number().to_le_bytes()[0])
                .collect(),
            3 => vec![b'x'; self.random.below(3000)],
            4 => self.random.below(1000).to_string().into_bytes(),
            _ => format!("value {}", self.random.below(1000)).into_bytes(),
        }
    }
}
