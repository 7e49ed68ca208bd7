//! The command table against real servers, and the page written from it.
//!
//! The servers are those that `make test` unpacks into the cache folder, or those in the folder that
//! `PANNIER_TEST_SERVERS` names (`redis-7.0`, `valkey-8`, `redis-8.0`).

#![expect(clippy::panic, reason = "a test says what is wrong by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sidecar::command::{
    BeginSearch, CommandSpec, CommandTable, FindKeys, KeyFlags, KeyPositions, Prefix, Resolved,
    ServerCommand, ServerKeySpec, apply_prefix, compatibility_page, strip_reply,
};
use sidecar::store::Store;

/// What `engine/memory.rs` answers without a server beside the store's commands; those of class
/// `Local` are known to work anyway.
const WITHOUT_STORE: [&str; 18] = [
    "publish",
    "spublish",
    "subscribe",
    "psubscribe",
    "ssubscribe",
    "unsubscribe",
    "punsubscribe",
    "sunsubscribe",
    "pubsub|channels",
    "pubsub|numpat",
    "pubsub|numsub",
    "pubsub|shardchannels",
    "pubsub|shardnumsub",
    "multi",
    "exec",
    "discard",
    "watch",
    "unwatch",
];

const SERVERS: [(&str, &str); 3] = [
    ("redis-7.0", "redis-server"),
    ("valkey-8", "valkey-server"),
    ("redis-8.0", "redis-server"),
];

fn page() -> String {
    compatibility_page(&[Store::COMMANDS, &WITHOUT_STORE].concat())
}

/// The program of a server.
fn program(version: &str, name: &str) -> PathBuf {
    let cache = || {
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
        let cache = std::env::var_os("PANNIER_CACHE");
        cache
            .map_or_else(|| home().join(".cache/pannier"), PathBuf::from)
            .join("servers")
    };
    let servers = std::env::var_os("PANNIER_TEST_SERVERS").map_or_else(cache, PathBuf::from);
    let folder = servers.join(version);
    [folder.join(name), folder.join("bin").join(name)]
        .into_iter()
        .find(|program| program.exists())
        .unwrap_or_else(|| {
            panic!(
                "no {name} in {}; `make test` unpacks one there, or set PANNIER_TEST_SERVERS to a folder that has it",
                folder.display()
            )
        })
}

/// Starts the servers, one after the other.
fn servers() -> impl Iterator<Item = (&'static str, Server)> {
    SERVERS
        .iter()
        .map(|(version, name)| (*version, Server::start(version, &program(version, name))))
}

#[test]
fn the_page_about_compatibility_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let expected = page();
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, &expected).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/compatibility.md is stale; run `UPDATE=1 cargo test -p pannier-sidecar --test compatibility the_page`"
    );
}

#[test]
fn every_command_of_the_table_has_a_row() {
    let page = page();
    for spec in CommandTable::builtin()
        .iter()
        .filter(|spec| !spec.is_container())
    {
        let name = spec.name().to_ascii_uppercase().replace('|', " ");
        let rows = page
            .lines()
            .filter(|line| line.starts_with(&format!("| {name} |")))
            .count();
        assert_eq!(rows, 1, "{name}");
    }
}

#[test]
fn the_built_in_table_is_that_of_the_servers() {
    let builtin = CommandTable::builtin();
    let mut claimed: BTreeMap<String, KeySpecs> = BTreeMap::new();
    for (folder, server) in servers() {
        let rows = server.commands();
        assert!(
            rows.len() > 200,
            "{folder} has only {} commands",
            rows.len()
        );
        for row in rows
            .iter()
            .flat_map(|row| std::iter::once(row).chain(&row.subcommands))
        {
            let spec = builtin
                .by_full_name(row.name.as_bytes())
                .unwrap_or_else(|| panic!("{folder} has {}, the table has not", row.name));
            let server_flags: Vec<&str> = row.flags.iter().map(String::as_str).collect();
            for flag in ["write", "readonly", "blocking", "movablekeys"] {
                let own = spec.flags().names().any(|own| own == flag);
                let theirs = server_flags.contains(&flag);
                // WAIT became a blocking command only after redis 7.0.
                let agreed = own == theirs || (row.name == "wait" && own);
                assert!(agreed, "{folder}: {} {flag}", row.name);
            }
            let specs: KeySpecs = row
                .key_specs
                .iter()
                .map(|spec| {
                    let flags: KeyFlags = spec.flags.iter().map(String::as_str).collect();
                    (
                        spec.begin.clone(),
                        spec.find.clone(),
                        flags.has(KeyFlags::RO),
                    )
                })
                .collect();
            let own: KeySpecs = spec
                .key_specs()
                .iter()
                .map(|spec| {
                    (
                        spec.begin.clone(),
                        spec.find.clone(),
                        spec.flags.has(KeyFlags::RO),
                    )
                })
                .collect();
            assert_eq!(own, specs, "{folder}: {}", row.name);
            claimed.insert(row.name.to_ascii_lowercase(), specs);
        }
    }
    let own = |spec: &&CommandSpec| spec.name().starts_with("pannier.");
    for spec in builtin.iter().filter(|spec| !own(spec)) {
        assert!(
            claimed.contains_key(spec.name()),
            "no server has {}",
            spec.name()
        );
    }
}

type KeySpecs = Vec<(BeginSearch, FindKeys, bool)>;

#[test]
fn merging_a_servers_own_table_adds_nothing_to_the_built_in_one() {
    for (folder, server) in servers() {
        let mut table = CommandTable::builtin();
        let rows = server.commands();
        assert_eq!(table.merge_server(rows), 0, "{folder}");
    }
}

/// S2.1: an app under a prefix sees its own keys only, under their short names.
#[test]
fn an_app_under_a_prefix_sees_only_its_own_keys() {
    for (folder, server) in servers() {
        let mut connection = server.connect();
        // The prefix is a glob pattern that would match the foreign keys as well.
        for index in 0..300 {
            connection.ask_under("appX:", &format!("SET foreign{index} v"));
        }
        let cases = [
            ("RANDOMKEY", "$-1"),
            ("DBSIZE", ":0"),
            ("SET k v", "+OK"),
            ("GET k", "$1 v"),
            ("DBSIZE", ":1"),
            ("RANDOMKEY", "$1 k"),
            ("KEYS *", "*1 $1 k"),
            ("SCAN 0 COUNT 1000", "*2 $1 0 *1 $1 k"),
            ("SCAN 0 MATCH x* COUNT 1000", "*2 $1 0 *0"),
            ("RPUSH l a b", ":2"),
            ("BLPOP none l 0", "*2 $1 l $1 a"),
            ("LMPOP 2 none l LEFT", "*2 $1 l *1 $1 b"),
            ("ZADD z 1 m", ":1"),
            ("BZMPOP 0 1 z MIN", "*2 $1 z *1 *2 $1 m $1 1"),
            ("XADD s 1-1 f v", "$3 1-1"),
            ("XREAD STREAMS s 0", "*1 *2 $1 s *1 *2 $3 1-1 *2 $1 f $1 v"),
            (
                "XREADGROUP GROUP g c STREAMS s >",
                "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option",
            ),
            (
                "XPENDING s g",
                "-NOGROUP No such key 's' or consumer group 'g'",
            ),
            (
                "XINFO CONSUMERS s g",
                "-NOGROUP No such consumer group 'g' for key name 's'",
            ),
            (
                "XGROUP SETID s g 0",
                "-NOGROUP No such consumer group 'g' for key name 's'",
            ),
            (
                "EVAL x 2 k",
                "-ERR Number of keys can't be greater than number of args",
            ),
            ("COPY k copy", ":1"),
        ];
        for (request, expected) in [
            ("RPUSH l 2 1", ":2"),
            ("SET w1 9", "+OK"),
            ("SET w2 5", "+OK"),
            ("SORT l BY w* GET # GET w*", "*4 $1 2 $1 5 $1 1 $1 9"),
        ] {
            assert_eq!(
                connection.ask_under("sort:", request),
                expected,
                "{folder}: {request}"
            );
        }
        for (request, expected) in cases {
            assert_eq!(
                connection.ask_under("app*:", request),
                expected,
                "{folder}: {request}"
            );
        }
    }
}

/// A server on a UNIX socket in a folder of its own, stopped and removed at the end.
struct Server {
    process: Child,
    folder: PathBuf,
}

impl Server {
    fn start(version: &str, binary: &Path) -> Server {
        let thread = format!("{:?}", std::thread::current().id());
        let digits: String = thread.chars().filter(char::is_ascii_digit).collect();
        let folder = std::env::temp_dir().join(format!(
            "pannier-compat-{}-{digits}-{version}",
            std::process::id()
        ));
        std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
        let process = Command::new(binary)
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(folder.join("s"))
            .arg("--dir")
            .arg(&folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", binary.display()));
        let mut server = Server { process, folder };
        let output = server.process.stdout.as_mut().expect("stdout is piped");
        let mut said = String::new();
        let ready = BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .any(|line| {
                said.push_str(&line);
                said.push('\n');
                line.to_lowercase().contains("ready to accept connections")
            });
        assert!(ready, "{} did not become ready:\n{said}", binary.display());
        server
    }

    fn commands(&self) -> Vec<ServerCommand> {
        let reply = self.connect().ask(b"*1\r\n$7\r\nCOMMAND\r\n");
        read(&mut reply.as_slice())
            .list()
            .iter()
            .map(command)
            .collect()
    }

    fn connect(&self) -> Connection {
        let stream = UnixStream::connect(self.folder.join("s")).expect("the server listens");
        Connection(BufReader::new(stream))
    }
}

struct Connection(BufReader<UnixStream>);

impl Connection {
    /// Sends one request and returns the bytes of its reply.
    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.0
            .get_mut()
            .write_all(request)
            .expect("the server reads");
        let mut reply = Vec::new();
        let mut open = 1;
        while open > 0 {
            let start = reply.len();
            self.0
                .read_until(b'\n', &mut reply)
                .expect("the server answers");
            let line = String::from_utf8_lossy(&reply[start..])
                .trim_end()
                .to_owned();
            let length = line[1..].parse::<i64>().unwrap_or(0);
            open -= 1;
            if line.starts_with('*') {
                open += length.max(0);
            } else if line.starts_with('$') && length >= 0 {
                let end = reply.len() + usize::try_from(length).expect("a length") + 2;
                let start = reply.len();
                reply.resize(end, 0);
                self.0
                    .read_exact(&mut reply[start..])
                    .expect("the server answers");
            }
        }
        reply
    }

    /// Sends a request as the sidecar does under this prefix; the reply as the client sees it,
    /// in words.
    fn ask_under(&mut self, prefix: &str, request: &str) -> String {
        let table = CommandTable::builtin();
        let prefix = Prefix::new(prefix.as_bytes()).expect("a prefix");
        let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let Resolved::Command(spec) = table.resolve(&args) else {
            panic!("{request} is unknown")
        };
        let (mut found, mut out, mut reply) = (KeyPositions::new(), Vec::new(), Vec::new());
        let rewrite = apply_prefix(&prefix, spec, &args, &mut found, &mut out).expect("allowed");
        strip_reply(rewrite, &prefix, &self.ask(&out), &mut reply).expect("a whole reply");
        String::from_utf8_lossy(&reply)
            .replace("\r\n", " ")
            .trim_end()
            .to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A RESP2 reply.
#[derive(Debug)]
enum Value {
    Text(String),
    Number(i64),
    List(Vec<Value>),
}

impl Value {
    fn list(&self) -> &[Value] {
        if let Value::List(list) = self {
            list
        } else {
            panic!("{self:?} is no list")
        }
    }

    fn text(&self) -> &str {
        if let Value::Text(text) = self {
            text
        } else {
            panic!("{self:?} is no text")
        }
    }

    fn number(&self) -> i64 {
        if let Value::Number(number) = self {
            *number
        } else {
            panic!("{self:?} is no number")
        }
    }

    fn texts(&self) -> Vec<String> {
        self.list()
            .iter()
            .map(|value| value.text().to_owned())
            .collect()
    }

    /// A value of a map, which RESP2 writes as a flat list.
    fn field(&self, name: &str) -> &Value {
        let mut pairs = self.list().chunks_exact(2);
        &pairs
            .find(|pair| pair[0].text() == name)
            .unwrap_or_else(|| panic!("no {name}"))[1]
    }
}

fn read(reader: &mut impl BufRead) -> Value {
    let mut line = String::new();
    reader.read_line(&mut line).expect("the server answers");
    let (kind, rest) = line.trim_end().split_at(1);
    match kind {
        "+" => Value::Text(rest.to_owned()),
        ":" => Value::Number(rest.parse().expect("a number")),
        "$" => {
            let length: usize = rest.parse().expect("a length");
            let mut bytes = vec![0; length + 2];
            reader.read_exact(&mut bytes).expect("the server answers");
            bytes.truncate(length);
            Value::Text(String::from_utf8(bytes).expect("text"))
        }
        "*" => {
            let length: usize = rest.parse().expect("a length");
            Value::List((0..length).map(|_| read(reader)).collect())
        }
        _ => panic!("unexpected reply {line}"),
    }
}

fn command(row: &Value) -> ServerCommand {
    let row = row.list();
    ServerCommand {
        name: row[0].text().to_owned(),
        arity: row[1].number(),
        flags: row[2].texts(),
        first_key: row[3].number(),
        last_key: row[4].number(),
        step: row[5].number(),
        categories: row[6].texts(),
        tips: row[7].texts(),
        key_specs: row[8].list().iter().map(key_spec).collect(),
        subcommands: row[9].list().iter().map(command).collect(),
    }
}

fn key_spec(value: &Value) -> ServerKeySpec {
    let (begin, find) = (value.field("begin_search"), value.field("find_keys"));
    let number = |map: &Value, name: &str| {
        i32::try_from(map.field("spec").field(name).number()).expect("a small number")
    };
    ServerKeySpec {
        flags: value.field("flags").texts(),
        begin: match begin.field("type").text() {
            "index" => BeginSearch::Index(number(begin, "index")),
            "keyword" => BeginSearch::Keyword {
                word: begin
                    .field("spec")
                    .field("keyword")
                    .text()
                    .to_owned()
                    .into(),
                start: number(begin, "startfrom"),
            },
            _ => BeginSearch::Unknown,
        },
        find: match find.field("type").text() {
            "range" => FindKeys::Range {
                last: number(find, "lastkey"),
                step: number(find, "keystep"),
                limit: number(find, "limit"),
            },
            "keynum" => FindKeys::KeyNum {
                count_at: number(find, "keynumidx"),
                first: number(find, "firstkey"),
                step: number(find, "keystep"),
            },
            _ => FindKeys::Unknown,
        },
    }
}
