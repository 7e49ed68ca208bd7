//! The memory store against redis-server 7.0: random command sequences, replies byte for byte.
//!
//! `PANNIER_TEST_REDIS` names the server's binary, or `PANNIER_TEST_SERVERS` a folder that holds
//! `redis-7.0/redis-server`; without them the one that `make test` unpacks is used. Compared otherwise: the order of members and fields (sorted), random choices (their
//! shape), pages of scans (whole scans), remaining times (within a few seconds).

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use sidecar::resp::{Proto, write};
use sidecar::store::{Call, Done, Store};
use std::fmt::{self, Display};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const COMMANDS: usize = 40_000;
/// Differences after which a run ends.
const ENOUGH: usize = 12;

#[test]
fn the_store_answers_as_redis_does_over_resp2() {
    Duel::new(Proto::Resp2, 2).fight();
}

#[test]
fn the_store_answers_as_redis_does_over_resp3() {
    Duel::new(Proto::Resp3, 3).fight();
}

/// A reply: its first line, or for a bulk string its content too, and what is nested in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    head: Vec<u8>,
    children: Vec<Node>,
}

impl Node {
    fn read(from: &mut impl BufRead) -> Node {
        let mut head = Vec::new();
        from.read_until(b'\n', &mut head).expect("a reply arrives");
        assert!(
            head.ends_with(b"\r\n"),
            "a truncated reply: {}",
            String::from_utf8_lossy(&head)
        );
        let len = || {
            String::from_utf8_lossy(&head[1..head.len() - 2])
                .parse::<i64>()
                .unwrap_or(0)
                .max(0)
        };
        let children = match head[0] {
            b'*' | b'~' | b'>' => len(),
            b'%' => len() * 2,
            b'$' | b'=' if head[1] != b'-' => {
                let mut body = vec![0; usize::try_from(len()).unwrap() + 2];
                from.read_exact(&mut body).expect("the rest arrives");
                head.extend(body);
                0
            }
            _ => 0,
        };
        Node {
            children: (0..children).map(|_| Node::read(from)).collect(),
            head,
        }
    }

    /// The content of a bulk string.
    fn text(&self) -> Vec<u8> {
        let start = self.head.iter().position(|b| *b == b'\n').unwrap() + 1;
        self.head[start..self.head.len().max(start + 2) - 2].to_vec()
    }

    fn number(&self) -> Option<i64> {
        let text = self.head.strip_prefix(b":")?;
        String::from_utf8_lossy(text).trim_end().parse().ok()
    }

    /// The same with children in order; `width` of them belong together.
    fn sorted(mut self, width: usize) -> Node {
        let mut groups: Vec<Vec<Node>> =
            self.children.chunks(width).map(<[Node]>::to_vec).collect();
        groups.sort();
        self.children = groups.concat();
        self
    }

    /// Kinds and lengths without content.
    fn shape(&self) -> (u8, usize, Vec<u8>) {
        (
            self.head[0],
            self.children.len(),
            self.children.iter().map(|child| child.head[0]).collect(),
        )
    }
}

impl Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.head.escape_ascii())?;
        self.children.iter().try_for_each(|child| child.fmt(f))
    }
}

/// A server of its own on a UNIX socket, gone when dropped.
struct Server {
    process: Child,
    folder: PathBuf,
}

impl Server {
    fn binary() -> PathBuf {
        if let Some(path) = std::env::var_os("PANNIER_TEST_REDIS") {
            return path.into();
        }
        if let Some(folder) = std::env::var_os("PANNIER_TEST_SERVERS") {
            return PathBuf::from(folder).join("redis-7.0/redis-server");
        }
        let cache = std::env::var_os("PANNIER_CACHE").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/pannier"),
            PathBuf::from,
        );
        let path = cache.join("servers/redis-7.0/bin/redis-server");
        assert!(
            path.exists(),
            "no redis-server 7.0 at {}; `make test` unpacks one there, or set PANNIER_TEST_REDIS to the binary",
            path.display()
        );
        path
    }

    fn start(name: &str) -> Server {
        let folder =
            std::env::temp_dir().join(format!("pannier-store-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut process = Command::new(Self::binary())
            .args(["--port", "0", "--save", "", "--dir"])
            .arg(&folder)
            .arg("--unixsocket")
            .arg(folder.join("s"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("PANNIER_TEST_REDIS names a redis-server that starts");
        let mut log = BufReader::new(process.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        assert!(
            log.any(|line| line.contains("ready to accept connections")),
            "redis-server did not start"
        );
        // Somebody has to read on, or the server blocks on a full pipe.
        std::thread::spawn(move || log.for_each(drop));
        Server { process, folder }
    }

    fn connect(&self) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(self.folder.join("s")).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

type Words = Vec<Vec<u8>>;

/// Both sides, and the random sequence that drives them.
struct Duel {
    redis: BufReader<UnixStream>,
    store: Store,
    call: Call,
    proto: Proto,
    started: Instant,
    seed: u64,
    history: Vec<String>,
    mismatches: Vec<String>,
    _server: Server,
}

impl Duel {
    fn new(proto: Proto, seed: u64) -> Duel {
        let server = Server::start(&format!("{proto:?}"));
        let call = Call {
            db: 0,
            databases: 16,
            now: std::time::Duration::ZERO,
            unix_now: std::time::Duration::ZERO,
            random: 0,
            max_value: 512 << 20,
        };
        let mut duel = Duel {
            redis: server.connect(),
            store: Store::new(1 << 30),
            call,
            proto,
            started: Instant::now(),
            seed,
            history: Vec::new(),
            mismatches: Vec::new(),
            _server: server,
        };
        if proto == Proto::Resp3 {
            duel.ask_redis(&words("HELLO 3"));
        }
        duel
    }

    fn fight(&mut self) {
        let names: std::collections::BTreeSet<&str> = COMMAND_FORMS
            .iter()
            .map(|form| form.split(' ').next().unwrap())
            .collect();
        for name in Store::COMMANDS.iter().filter(|name| **name != "time") {
            assert!(
                names.contains(name.to_uppercase().as_str()),
                "no form exercises {name}"
            );
        }
        for round in 0..COMMANDS {
            if self.mismatches.len() >= ENOUGH {
                break;
            }
            if round % 500 == 499 {
                self.compare_everything();
                self.history.clear();
            }
            let command = self.generate();
            self.history.push(shown(&command));
            self.step(&command);
            if command.iter().any(|word| word == b"EXAT") {
                // Redis counts a key that is stored expired until somebody looks.
                self.step(&vec![b"EXISTS".to_vec(), command[1].clone()]);
            }
        }
        self.compare_everything();
        assert!(
            self.mismatches.is_empty(),
            "{}",
            self.mismatches.join("\n\n")
        );
    }

    /// Notes a difference and goes on with both sides empty, so that one run shows several.
    fn expect(&mut self, same: bool, command: &Words, ours: &impl Display, theirs: &impl Display) {
        if same {
            return;
        }
        self.mismatches.push(format!(
            "{}\nstore: {ours}\nredis: {theirs}",
            self.context(command)
        ));
        self.ask_redis(&words("FLUSHALL"));
        self.ask_store(&words("FLUSHALL"));
    }

    fn step(&mut self, command: &Words) {
        let name = String::from_utf8_lossy(&command[0]).to_uppercase();
        match name.as_str() {
            "SELECT" => {
                self.call.db = String::from_utf8_lossy(&command[1]).parse().unwrap();
                self.ask_redis(command);
            }
            "SCAN" | "SSCAN" | "HSCAN" => self.compare_scans(&name, command),
            "SPOP" => self.compare_pops(command),
            _ => {
                let (ours, theirs) = (self.ask_store(command), self.ask_redis(command));
                self.compare(&name, command, ours, theirs);
            }
        }
    }

    fn compare(&mut self, name: &str, command: &Words, ours: Node, theirs: Node) {
        let (ours, theirs) = match name {
            "HGETALL" => (ours.sorted(2), theirs.sorted(2)),
            "SMEMBERS" | "SUNION" | "SINTER" | "SDIFF" | "KEYS" | "HKEYS" | "HVALS" => {
                (ours.sorted(1), theirs.sorted(1))
            }
            _ => (ours, theirs),
        };
        let same = match (name, ours.number(), theirs.number()) {
            ("HRANDFIELD" | "SRANDMEMBER" | "RANDOMKEY", ..) if theirs.head[0] != b'-' => {
                ours.shape() == theirs.shape()
            }
            ("TTL" | "EXPIRETIME", Some(a @ 0..), Some(b @ 0..)) => (a - b).abs() <= 5,
            ("PTTL" | "PEXPIRETIME", Some(a @ 0..), Some(b @ 0..)) => (a - b).abs() <= 5_000,
            _ => ours == theirs,
        };
        self.expect(same, command, &ours, &theirs);
    }

    /// Whole scans must find the same, whatever the pages.
    fn compare_scans(&mut self, name: &str, command: &Words) {
        let at = if name == "SCAN" { 1 } else { 2 };
        let whole = |ask: &mut dyn FnMut(&Words) -> Node| {
            let mut command = command.clone();
            let mut found = Vec::new();
            loop {
                let reply = ask(&command);
                if reply.head[0] != b'*' {
                    return vec![reply];
                }
                let page = &reply.children[1].children;
                let width = if name == "HSCAN" { 2 } else { 1 };
                found.extend(page.chunks(width).map(|group| Node {
                    head: vec![],
                    children: group.to_vec(),
                }));
                command[at] = reply.children[0].text();
                if command[at] == b"0" {
                    found.sort();
                    found.dedup();
                    return found;
                }
            }
        };
        let ours = whole(&mut |command| self.ask_store(command));
        let theirs = whole(&mut |command| self.ask_redis(command));
        let page = |found: &[Node]| Node {
            head: b"all".to_vec(),
            children: found.to_vec(),
        };
        self.expect(ours == theirs, command, &page(&ours), &page(&theirs));
    }

    /// Compares shapes on a copy, then takes from the store what Redis took.
    fn compare_pops(&mut self, command: &Words) {
        let theirs = self.ask_redis(command);
        if theirs.head[0] == b'-' || command.len() < 2 {
            let ours = self.ask_store(command);
            self.expect(ours == theirs, command, &ours, &theirs);
            return;
        }
        let mut on_copy = command.clone();
        on_copy[1] = b"a copy".to_vec();
        self.ask_store(&vec![
            b"COPY".to_vec(),
            command[1].clone(),
            b"a copy".to_vec(),
        ]);
        let ours = self.ask_store(&on_copy);
        self.expect(ours.shape() == theirs.shape(), command, &ours, &theirs);
        self.ask_store(&vec![b"DEL".to_vec(), b"a copy".to_vec()]);
        let popped = if theirs.children.is_empty() {
            vec![theirs]
        } else {
            theirs.children
        };
        for member in popped
            .iter()
            .filter(|member| member.head[0] == b'$' && member.head[1] != b'-')
        {
            self.ask_store(&vec![b"SREM".to_vec(), command[1].clone(), member.text()]);
        }
    }

    fn compare_everything(&mut self) {
        let db = self.call.db;
        for number in 0..3 {
            self.step(&words(&format!("SELECT {number}")));
            self.step(&words("DBSIZE"));
            self.step(&words("KEYS *"));
            let keys = self.ask_redis(&words("KEYS *"));
            for key in keys.children.iter().map(Node::text) {
                let with = |line: &str| [words(line), vec![key.clone()]].concat();
                let kind = self.ask_redis(&with("TYPE"));
                self.step(&with("PTTL"));
                match kind.head.as_slice() {
                    b"+string\r\n" => self.step(&with("GET")),
                    b"+hash\r\n" => self.step(&with("HGETALL")),
                    b"+set\r\n" => self.step(&with("SMEMBERS")),
                    _ => self.step(&[with("LRANGE"), words("0 -1")].concat()),
                }
            }
        }
        self.step(&words(&format!("SELECT {db}")));
    }

    fn ask_redis(&mut self, command: &Words) -> Node {
        let mut out = Vec::new();
        write::command(
            &mut out,
            &command.iter().map(Vec::as_slice).collect::<Vec<_>>(),
        );
        self.redis.get_mut().write_all(&out).unwrap();
        Node::read(&mut self.redis)
    }

    fn ask_store(&mut self, command: &Words) -> Node {
        self.call.now = self.started.elapsed();
        self.call.unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        self.call.random += 1;
        let mut out = Vec::new();
        let args: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        let done = self.store.execute(
            &self.call,
            &args,
            &mut write::Reply::new(&mut out, self.proto),
        );
        assert_ne!(done, Done::NotAvailable, "{}", self.context(command));
        let mut rest = out.as_slice();
        let node = Node::read(&mut rest);
        assert!(
            rest.is_empty(),
            "bytes behind the reply: {}",
            self.context(command)
        );
        node
    }

    fn context(&self, command: &Words) -> String {
        let from = self.history.len().saturating_sub(500);
        let key = command
            .get(1)
            .map(|key| String::from_utf8_lossy(key).into_owned())
            .unwrap_or_default();
        let related: Vec<&str> = self.history[from..]
            .iter()
            .map(String::as_str)
            .filter(|line| line.contains(&key))
            .collect();
        let related = &related[related.len().saturating_sub(25)..];
        format!(
            "{:?} {}\nbefore:\n{}",
            self.proto,
            shown(command),
            related.join("\n")
        )
    }

    fn below(&mut self, bound: usize) -> usize {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.seed >> 33).unwrap() % bound
    }

    /// From `-bound` to below `bound`.
    fn around(&mut self, bound: i64) -> i64 {
        i64::try_from(self.below(usize::try_from(bound * 2).unwrap())).unwrap() - bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn generate(&mut self) -> Words {
        let form = self.pick(COMMAND_FORMS);
        let mut command: Words = Vec::new();
        for word in form.split(' ') {
            if let Some(repeated) = word.strip_suffix("...") {
                for _ in 0..=self.below(3) {
                    command.extend(repeated.split(',').map(|word| self.fill(word)));
                }
            } else {
                command.push(self.fill(word));
            }
        }
        match self.below(40) {
            0 if command.len() > 1 => {
                command.pop();
            }
            1 => command.push(self.fill("v")),
            2 => command[0].make_ascii_lowercase(),
            _ => {}
        }
        // These would do something else without or with other arguments.
        if command[0].eq_ignore_ascii_case(b"SELECT")
            || command[0].eq_ignore_ascii_case(b"SWAPDB") && command.len() < 3
        {
            return words(&format!("SELECT {}", self.below(3)));
        }
        command
    }

    fn fill(&mut self, word: &str) -> Vec<u8> {
        let text = match word {
            "k" => return format!("key{}", self.below(9)).into_bytes(),
            "f" => return self.pick(&["f1", "f2", "f3", "f4", "", "7"]).into(),
            "db" => self.pick(&["0", "1", "2", "1", "2", "16", "-1", "x", "99999999999"]),
            "v" => match self.below(12) {
                0 => return vec![0, 255, b'\r', b'\n', 128],
                1 => return vec![b'z'; self.below(200)],
                2 | 3 => return self.around(1000).to_string().into_bytes(),
                _ => self.pick(VALUES),
            },
            "i" => match self.below(6) {
                0 => self.pick(ODD_INTEGERS),
                _ => return self.around(6).to_string().into_bytes(),
            },
            // Never a very negative count: Redis would answer with so many elements.
            "cnt" => self.pick(&[
                "0",
                "1",
                "2",
                "100",
                "-1",
                "-7",
                "x",
                "9223372036854775807",
                "-9223372036854775808",
                "4611686018427387904",
            ]),
            "fl" => self.pick(FLOATS),
            "o" => self.pick(&[
                "0",
                "1",
                "5",
                "20",
                "-1",
                "600000000",
                "9223372036854775807",
                "x",
                "3",
            ]),
            "b" => self.pick(&[
                "0",
                "1",
                "7",
                "9",
                "100",
                "-1",
                "4294967296",
                "9223372036854775807",
                "x",
                "33",
            ]),
            "bit" => self.pick(&["0", "1", "1", "2", "x"]),
            "sec" => return (100 + 20 * self.below(1_000_000)).to_string().into_bytes(),
            "ms" => {
                return ((100 + 20 * self.below(1_000_000)) * 1000)
                    .to_string()
                    .into_bytes();
            }
            "at" => {
                return (unix_seconds() + 100 + 20 * self.below(1_000_000) as u64)
                    .to_string()
                    .into_bytes();
            }
            "atms" => {
                return ((unix_seconds() + 100 + 20 * self.below(1_000_000) as u64) * 1000)
                    .to_string()
                    .into_bytes();
            }
            "odd" => self.pick(&[
                "0",
                "-1",
                "x",
                "9223372036854775807",
                "-9223372036854775808",
                "9223372036854775",
                "1.5",
            ]),
            "cond" => self.pick(&["NX", "XX", "GT", "LT", "nx", "what"]),
            "end" => self.pick(&["LEFT", "RIGHT", "left", "LEFT", "RIGHT", "up"]),
            "glob" => self.pick(&[
                "*", "k*", "key[1-4]", "key?", "*[^3]", "f*", "nothing", "\\k*", "1*", "*e*5",
            ]),
            "type" => self.pick(&["string", "hash", "set", "list", "HASH", "zset"]),
            "n" => self.pick(&["1", "2", "5", "100", "0", "-1", "x"]),
            "c" => self.pick(&["0", "0", "0", "x", "-", ""]),
            other => other,
        };
        text.as_bytes().to_vec()
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn words(line: &str) -> Words {
    line.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

fn shown(command: &Words) -> String {
    command
        .iter()
        .map(|word| word.escape_ascii().to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

const VALUES: &[&str] = &[
    "a",
    "b",
    "c",
    "",
    "hello world",
    "1",
    "2",
    "3",
    "10",
    "-5",
    "007",
    "+1",
    " 1",
    "1 ",
    "-0",
    "0",
    "1.5",
    "3.0e3",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "inf",
];
const ODD_INTEGERS: &[&str] = &[
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "x",
    "",
    "1.0",
    "01",
    "-0",
    "4611686018427387904",
    "2147483648",
    "-9223372036854775807",
];
const FLOATS: &[&str] = &[
    "0.1",
    "0.2",
    "1",
    "-1.5",
    "3.0e3",
    "1e-5",
    "-0.3",
    "100.25",
    "x",
    "",
    " 1",
    "1 ",
    "nan",
    "inf",
    "-inf",
    "+2",
    ".5",
    "5.",
    "12345678901234567890.5",
    "0.00000000000000001",
    "1e17",
    "-1e17",
    "5e-18",
    "1e3.5",
    "1e5000",
];

/// `x...` repeats; a comma joins words that repeat together.
const COMMAND_FORMS: &[&str] = &[
    "SELECT db",
    "GET k",
    "SET k v",
    "SET k v",
    "SET k v",
    "SET k v EX sec",
    "SET k v PX ms",
    "SET k v EXAT at",
    "SET k v PXAT atms",
    "SET k v KEEPTTL",
    "SET k v NX",
    "SET k v XX",
    "SET k v GET",
    "SET k v NX GET",
    "SET k v XX GET KEEPTTL",
    "SET k v NX XX",
    "SET k v EX sec PX ms",
    "SET k v EX odd",
    "SET k v PX odd",
    "SET k v KEEPTTL EX sec",
    "SET k v EX",
    "SET k v PERSIST",
    "SET k v EX sec NX",
    "SET k v EXAT 1",
    "SET k v GET EX odd",
    "SET k v NX NX",
    "SET k v KEEPTTL KEEPTTL",
    "SETNX k v",
    "SETEX k sec v",
    "SETEX k odd v",
    "PSETEX k ms v",
    "PSETEX k odd v",
    "GETSET k v",
    "GETDEL k",
    "GETEX k",
    "GETEX k EX sec",
    "GETEX k PERSIST",
    "GETEX k PX odd",
    "GETEX k PXAT 1",
    "GETEX k KEEPTTL",
    "GETEX k PERSIST EX sec",
    "GETEX k PERSIST PERSIST",
    "GETEX k EXAT odd",
    "GETEX k EX sec PERSIST",
    "MGET k...",
    "MSET k,v...",
    "MSETNX k,v...",
    "APPEND k v",
    "STRLEN k",
    "GETRANGE k i i",
    "SUBSTR k i i",
    "SETRANGE k o v",
    "INCR k",
    "DECR k",
    "INCRBY k i",
    "DECRBY k i",
    "INCRBYFLOAT k fl",
    "INCRBYFLOAT k fl",
    "SET k fl",
    "SETBIT k b bit",
    "GETBIT k b",
    "BITCOUNT k",
    "BITCOUNT k i i",
    "BITCOUNT k i i BIT",
    "BITCOUNT k i i byte",
    "BITCOUNT k i",
    "BITCOUNT k i i x",
    "DEL k",
    "DEL k...",
    "UNLINK k",
    "EXISTS k...",
    "TOUCH k...",
    "TYPE k",
    "RENAME k k",
    "RENAMENX k k",
    "COPY k k",
    "COPY k k REPLACE",
    "COPY k k DB db",
    "COPY k k DB db REPLACE",
    "COPY k k DB",
    "COPY k k x",
    "PERSIST k",
    "EXPIRE k sec",
    "EXPIRE k sec cond",
    "EXPIRE k sec cond cond",
    "EXPIRE k odd",
    "PEXPIRE k ms",
    "PEXPIRE k ms cond",
    "PEXPIRE k odd cond",
    "EXPIREAT k at",
    "EXPIREAT k at cond",
    "EXPIREAT k odd",
    "PEXPIREAT k atms",
    "PEXPIREAT k atms cond",
    "PEXPIREAT k odd",
    "TTL k",
    "PTTL k",
    "EXPIRETIME k",
    "PEXPIRETIME k",
    "KEYS glob",
    "SCAN c",
    "SCAN c COUNT n",
    "SCAN c MATCH glob COUNT n",
    "SCAN c TYPE type",
    "SCAN c x",
    "SCAN c MATCH",
    "RANDOMKEY",
    "DBSIZE",
    "SWAPDB db db",
    "MOVE k db",
    "FLUSHDB ASYNC",
    "FLUSHDB x",
    "FLUSHALL x",
    "FLUSHALL SYNC x",
    "FLUSHALL",
    "HSET k f,v...",
    "HSET k f,v...",
    "HSETNX k f v",
    "HMSET k f,v...",
    "HGET k f",
    "HMGET k f...",
    "HGETALL k",
    "HDEL k f...",
    "HLEN k",
    "HEXISTS k f",
    "HKEYS k",
    "HVALS k",
    "HINCRBY k f i",
    "HINCRBYFLOAT k f fl",
    "HSTRLEN k f",
    "HRANDFIELD k",
    "HRANDFIELD k cnt",
    "HRANDFIELD k cnt WITHVALUES",
    "HRANDFIELD k n x",
    "HSCAN k c",
    "HSCAN k c MATCH glob",
    "HSCAN k c COUNT n",
    "HSCAN k c x",
    "HSCAN k c TYPE type",
    "SADD k v...",
    "SADD k v...",
    "SREM k v...",
    "SMEMBERS k",
    "SISMEMBER k v",
    "SMISMEMBER k v...",
    "SCARD k",
    "SPOP k",
    "SPOP k n",
    "SPOP k odd",
    "SRANDMEMBER k",
    "SRANDMEMBER k cnt",
    "SMOVE k k v",
    "SUNION k...",
    "SINTER k...",
    "SDIFF k...",
    "SUNIONSTORE k k...",
    "SINTERSTORE k k...",
    "SDIFFSTORE k k...",
    "SINTERCARD 1 k",
    "SINTERCARD 2 k k LIMIT i",
    "SINTERCARD odd k",
    "SINTERCARD 3 k k",
    "SINTERCARD 1 k LIMIT",
    "SINTERCARD 1 k x 1",
    "SSCAN k c",
    "SSCAN k c COUNT n MATCH glob",
    "LPUSH k v...",
    "RPUSH k v...",
    "RPUSH k v...",
    "LPUSHX k v...",
    "RPUSHX k v",
    "LPOP k",
    "RPOP k",
    "LPOP k n",
    "RPOP k odd",
    "LPOP k n x",
    "LLEN k",
    "LRANGE k i i",
    "LINDEX k i",
    "LSET k i v",
    "LINSERT k BEFORE v v",
    "LINSERT k after v v",
    "LINSERT k x v v",
    "LREM k i v",
    "LTRIM k i i",
    "RPOPLPUSH k k",
    "LMOVE k k end end",
    "LPOS k v",
    "LPOS k v RANK i",
    "LPOS k v COUNT i",
    "LPOS k v RANK i COUNT n MAXLEN i",
    "LPOS k v MAXLEN odd",
    "LPOS k v COUNT",
    "LPOS k v RANK odd",
    "LPOS k v x 1",
];
