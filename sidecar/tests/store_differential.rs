//! The memory store against redis-server 7.0: random command sequences, replies byte for byte.
//!
//! `PANNIER_TEST_REDIS` names the server's binary, or `PANNIER_TEST_SERVERS` a folder that holds
//! `redis-7.0/redis-server`; without them the one that `make test` unpacks is used. Compared otherwise: the order of members and fields (sorted), random choices (their
//! shape), pages of scans (whole scans), remaining times (within a few seconds).

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "store_differential/first_types.rs"]
mod first_types;
#[path = "store_differential/sorted_sets.rs"]
mod sorted_sets;
#[path = "store_differential/streams.rs"]
mod streams;

use sidecar::resp::{Proto, write};
use sidecar::store::{Call, Done, Store};
use std::fmt::{self, Display};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const COMMANDS: usize = 40_000;
/// Where the server waits now and then.
const FEW: usize = 8_000;
/// Differences after which a run ends.
const ENOUGH: usize = 12;

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

    /// The same with scores in one form. How redis-server happens to encode a set decides whether
    /// zero keeps its sign, and how `ZSCAN` (`rounded`) writes large integers.
    fn with_plain_scores(mut self, rounded: bool) -> Node {
        let text = String::from_utf8_lossy(&self.head).into_owned();
        let content = text.split_once("\r\n").map_or("", |(_, rest)| rest);
        let number = text.strip_prefix(',').unwrap_or(content).trim_end();
        let score = number.parse::<f64>().ok();
        if let Some(score) = score.filter(|score| rounded || *score == 0.0) {
            self.head = format!("{}{:?}", char::from(self.head[0]), score + 0.0).into_bytes();
        }
        let children = self.children.into_iter();
        self.children = children
            .map(|child| child.with_plain_scores(rounded))
            .collect();
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
    /// What commands are made of: `x...` repeats, a comma joins words that repeat together.
    forms: &'static [&'static str],
    started: Instant,
    seed: u64,
    history: Vec<String>,
    mismatches: Vec<String>,
    _server: Server,
}

impl Duel {
    fn new(proto: Proto, seed: u64, forms: &'static [&'static str]) -> Duel {
        let server = Server::start(&format!("{proto:?}-{}", forms.len()));
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
            forms,
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

    fn fight(&mut self, commands: usize) {
        for round in 0..commands {
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
            "SCAN" | "SSCAN" | "HSCAN" | "ZSCAN" => self.compare_scans(&name, command),
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
            name if name.starts_with('Z') => (
                ours.with_plain_scores(false),
                theirs.with_plain_scores(false),
            ),
            "SMEMBERS" | "SUNION" | "SINTER" | "SDIFF" | "KEYS" | "HKEYS" | "HVALS" => {
                (ours.sorted(1), theirs.sorted(1))
            }
            _ => (ours, theirs),
        };
        let same = match (name, ours.number(), theirs.number()) {
            ("HRANDFIELD" | "SRANDMEMBER" | "ZRANDMEMBER" | "RANDOMKEY", ..)
                if theirs.head[0] != b'-' =>
            {
                ours.shape() == theirs.shape()
            }
            ("TTL" | "EXPIRETIME", Some(a @ 0..), Some(b @ 0..)) => (a - b).abs() <= 5,
            ("PTTL" | "PEXPIRETIME", Some(a @ 0..), Some(b @ 0..)) => (a - b).abs() <= 5_000,
            // The server waited in vain, the store was asked once.
            ("BLMOVE" | "BRPOPLPUSH", ..) if theirs.head.starts_with(b"*-1") => {
                ours.head == b"$-1\r\n"
            }
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
                let cursor = reply.children[0].text();
                let page = reply.children.into_iter().nth(1).unwrap();
                let page = if name == "ZSCAN" {
                    page.with_plain_scores(true)
                } else {
                    page
                };
                let page = &page.children;
                let width = if matches!(name, "HSCAN" | "ZSCAN") {
                    2
                } else {
                    1
                };
                found.extend(page.chunks(width).map(|group| Node {
                    head: vec![],
                    children: group.to_vec(),
                }));
                command[at] = cursor;
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
                    b"+stream\r\n" => self.step(&[with("XRANGE"), words("- +")].concat()),
                    b"+zset\r\n" => self.step(&[with("ZRANGE"), words("0 -1 WITHSCORES")].concat()),
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
        let form = self.pick(self.forms);
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
            // The last word of a blocking command is how long it waits.
            1 if command[0][0] != b'B' => command.push(self.fill("v")),
            2 => command[0].make_ascii_lowercase(),
            _ => {}
        }
        // `WITHSCORE` and its arity came after redis 7.0.
        if command[0].to_ascii_uppercase().ends_with(b"RANK") && command.len() > 3 {
            command.truncate(3);
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
            "id" | "end-id" | "new-id" | "timeout" | "trim" => return self.fill_stream(word),
            "n" => self.pick(&["1", "2", "5", "100", "0", "-1", "x"]),
            "c" => self.pick(&["0", "0", "0", "x", "-", ""]),
            other => return self.fill_sorted(other),
        };
        text.as_bytes().to_vec()
    }

    fn fill_stream(&mut self, word: &str) -> Vec<u8> {
        let text = match (word, self.below(8)) {
            ("trim", _) => self.pick(&["0", "1", "2", "3", "5", "-1", "x", "100"]),
            ("timeout", _) => self.pick(&["0.001", "0.001", "1e-3", "x", "-1", "", "nan", ".005"]),
            (_, 0) => self.pick(ODD_IDS),
            ("end-id", 1) => "-",
            ("end-id", 2) => "+",
            ("end-id", 3) => return format!("({}-{}", self.below(12), self.below(4)).into_bytes(),
            ("new-id", 1) => return format!("{}-*", self.below(40)).into_bytes(),
            ("new-id", _) => {
                return format!("{}-{}", self.below(40), self.below(4)).into_bytes();
            }
            (_, 4) => return self.below(12).to_string().into_bytes(),
            _ => return format!("{}-{}", self.below(40), self.below(4)).into_bytes(),
        };
        text.as_bytes().to_vec()
    }

    fn fill_sorted(&mut self, word: &str) -> Vec<u8> {
        let text = match word {
            "zopt" => self.pick(&["NX", "XX", "GT", "LT", "CH", "gt", "INCR"]),
            "agg" => self.pick(&["SUM", "MIN", "MAX", "sum", "AVG"]),
            "lex" => self.pick(&["lex1", "lex2"]),
            "sc" => match self.below(4) {
                0 => self.pick(ODD_SCORES),
                _ => return self.around(5).to_string().into_bytes(),
            },
            "sb" => match self.below(4) {
                0 => self.pick(SCORE_BOUNDS),
                1 => return format!("({}", self.around(5)).into_bytes(),
                _ => return self.around(5).to_string().into_bytes(),
            },
            "lb" => self.pick(&[
                "-", "+", "[a", "(a", "[b", "(c", "[", "(", "[z", "(1", "[3", "x", "", "-a",
                "[hello",
            ]),
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
const ODD_SCORES: &[&str] = &[
    "0.1",
    "0.2",
    "-0",
    "inf",
    "-inf",
    "+inf",
    "1e17",
    "1.5",
    "3.0e3",
    "1e-5",
    "x",
    "",
    " 1",
    "1 ",
    "nan",
    "1e400",
    "1e-400",
    "1e308",
    "-1e308",
    "123456789012345678",
    "0.30000000000000004",
    ".5",
    "5.",
    "infinity",
    "1e300",
    "-2.5",
    "12345.678",
    "1e16",
    "0e-400",
    "4.9e-324",
];
const SCORE_BOUNDS: &[&str] = &[
    "-inf", "+inf", "inf", "(inf", "(-inf", "x", "", "(", "1e400", " 1", "1 ", "nan", "0.1",
    "(0.1", "-0", "1.5", "((1", "0.5", "-inf", "+inf", "-inf", "+inf",
];
const ODD_IDS: &[&str] = &[
    "0",
    "0-0",
    "-",
    "+",
    "x",
    "",
    "1-",
    "-1",
    "1-x",
    "0-*",
    "5-*",
    " 3-1",
    "007-01",
    "+2-0",
    "1-1-1",
    "18446744073709551615-18446744073709551615",
    "18446744073709551616-0",
    "(",
    "(1-1",
    "1--1",
    "$",
    ">",
    "*-1",
    "18446744073709551615",
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
