//! Both sides are asked the same, and what they answer is compared.

use std::{
    fmt::Display,
    io::{BufReader, Write as _},
    os::unix::net::UnixStream,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use sidecar::{
    resp::{Proto, write},
    store::{Call, Done, Store},
};

use super::{Words, commands::Commands, reply::Node, server::Server, words};

/// Differences after which a run ends.
const ENOUGH: usize = 12;

/// Both sides, and the random sequence that drives them.
pub(super) struct Duel {
    redis: BufReader<UnixStream>,
    store: Store,
    call: Call,
    proto: Proto,
    commands: Commands,
    started: Instant,
    history: Vec<String>,
    mismatches: Vec<String>,
    _server: Server,
}

impl Duel {
    pub(super) fn new(proto: Proto, seed: u64, forms: &'static [&'static str]) -> Duel {
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
            commands: Commands::new(forms, seed),
            started: Instant::now(),
            history: Vec::new(),
            mismatches: Vec::new(),
            _server: server,
        };
        if proto == Proto::Resp3 {
            duel.ask_redis(&words("HELLO 3"));
        }
        duel
    }

    pub(super) fn fight(&mut self, commands: usize) {
        for round in 0..commands {
            if self.mismatches.len() >= ENOUGH {
                break;
            }
            if round % 500 == 499 {
                self.compare_everything();
                self.history.clear();
            }
            let command = self.commands.next();
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
}

fn shown(command: &Words) -> String {
    command
        .iter()
        .map(|word| word.escape_ascii().to_string())
        .collect::<Vec<_>>()
        .join(" ")
}
