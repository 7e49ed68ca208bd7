//! A server of a few lines stands in for Redis; the real ones are in the end-to-end tests.

use policy::{Policy, SidecarConfig};
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream,
};

use super::*;
use crate::{
    command::{BeginSearch, FindKeys, Resolved},
    config::Credentials,
};

fn shared() -> Arc<Shared> {
    let config = SidecarConfig::from_yaml("upstream: {host: h}").unwrap();
    let policy = Policy::compile(&config).unwrap();
    Shared::new(
        Active {
            config,
            policy,
            prefix: None,
            credentials: Credentials::default(),
        },
        1,
    )
}

/// RESP2, as redis-server 7.0 writes it, of a module's command with a subcommand.
const COMMAND: &str = "\
*2\r\n\
*10\r\n$8\r\njson.foo\r\n:-2\r\n*2\r\n+write\r\n+module\r\n:1\r\n:1\r\n:1\r\n*1\r\n+@json\r\n*0\r\n\
*1\r\n*6\r\n$5\r\nflags\r\n*2\r\n+RW\r\n+UPDATE\r\n\
$12\r\nbegin_search\r\n*4\r\n$4\r\ntype\r\n$5\r\nindex\r\n$4\r\nspec\r\n*2\r\n$5\r\nindex\r\n:1\r\n\
$9\r\nfind_keys\r\n*4\r\n$4\r\ntype\r\n$6\r\nkeynum\r\n$4\r\nspec\r\n*6\r\n$9\r\nkeynumidx\r\n:0\r\n$8\r\nfirstkey\r\n:1\r\n$7\r\nkeystep\r\n:2\r\n\
*1\r\n*10\r\n$12\r\njson.foo|bar\r\n:3\r\n*0\r\n:0\r\n:0\r\n:0\r\n*0\r\n*0\r\n*0\r\n*0\r\n\
*10\r\n$7\r\nhexpire\r\n:-6\r\n*1\r\n+write\r\n:1\r\n:1\r\n:1\r\n*0\r\n*0\r\n*0\r\n*0\r\n";

const SERVER: &str =
    "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\n";
const MEMORY: &str =
    "# Memory\r\nused_memory:1\r\nmaxmemory:1000\r\nmaxmemory_policy:allkeys-lru\r\n";

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// Reads one request of bulk strings; its words joined by blanks.
async fn request(from: &mut BufReader<DuplexStream>) -> Option<String> {
    let mut line = String::new();
    from.read_line(&mut line).await.ok()?;
    let count: usize = line.trim_end().strip_prefix('*')?.parse().ok()?;
    let mut words = Vec::new();
    for _ in 0..count {
        line.clear();
        from.read_line(&mut line).await.ok()?;
        let len: usize = line.trim_end().strip_prefix('$')?.parse().ok()?;
        let mut word = vec![0; len + 2];
        from.read_exact(&mut word).await.ok()?;
        words.push(String::from_utf8_lossy(&word[..len]).into_owned());
    }
    Some(words.join(" "))
}

/// Answers what `reply` says, until a question that it does not know.
fn server(reply: impl Fn(&str) -> Option<String> + Send + 'static) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move {
        let mut ours = BufReader::new(ours);
        while let Some(question) = request(&mut ours).await {
            let Some(answer) = reply(&question) else {
                return;
            };
            if ours.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    });
    theirs
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let patience = tokio::time::timeout(Duration::from_mins(10), async {
        while !is() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(patience.await.is_ok(), "{what} did not happen");
}

#[tokio::test(start_paused = true)]
async fn what_the_server_says_becomes_known_and_is_asked_again_after_a_break() {
    let shared = shared();
    let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let dial = move |_: Arc<Active>| {
        let call = counted.fetch_add(1, Relaxed);
        async move {
            match call {
                0 => Err("refused".to_owned()),
                // Breaks at the first question.
                1 => Ok(server(|_| None)),
                _ => Ok(server(|question| match question {
                    "COMMAND" => Some(COMMAND.to_owned()),
                    "INFO server" => Some(bulk(SERVER)),
                    "INFO memory" => Some(bulk(MEMORY)),
                    _ => None,
                })),
            }
        }
    };
    let running = tokio::spawn(run(Arc::clone(&shared), dial));
    until("the server is known", || {
        !shared.upstream.facts().server.is_empty()
    })
    .await;
    let facts = shared.upstream.facts();
    assert_eq!(
        (facts.server.as_str(), facts.maxmemory_policy.as_str()),
        ("valkey 8.1.1", "allkeys-lru")
    );
    assert!(shared.upstream.evicts_by_use.load(Relaxed));
    assert!(shared.upstream.expires_fields.load(Relaxed));
    let commands = shared.commands.load_full();
    let Resolved::Command(spec) = commands.resolve(&[b"JSON.FOO", b"bar", b"x"]) else {
        panic!("json.foo is not known")
    };
    assert_eq!(spec.name(), "json.foo|bar");
    assert_eq!(calls.load(Relaxed), 3);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_questions_is_no_reason_to_stop() {
    let shared = shared();
    let before = shared.commands.load_full();
    let dial = |_: Arc<Active>| async {
        Ok::<_, String>(server(|question| {
            Some(match question {
                "INFO server" => bulk("redis_version:6.2.0\r\n"),
                _ => "-NOPERM this user has no permissions\r\n".to_owned(),
            })
        }))
    };
    let running = tokio::spawn(run(Arc::clone(&shared), dial));
    until("the version is known", || {
        shared.upstream.facts().server == "redis 6.2.0"
    })
    .await;
    assert!(Arc::ptr_eq(&before, &shared.commands.load_full()));
    assert!(!shared.upstream.evicts_by_use.load(Relaxed));
    running.abort();
}

#[test]
fn a_command_reply_is_read_with_its_key_specifications() {
    let reply = redis::parse_redis_value(COMMAND.as_bytes()).unwrap();
    let rows = command::rows(&reply);
    assert_eq!(rows.len(), 2);
    let row = &rows[0];
    assert_eq!((row.name.as_str(), row.arity), ("json.foo", -2));
    assert_eq!(row.flags, ["write", "module"]);
    assert_eq!(row.key_specs[0].flags, ["RW", "UPDATE"]);
    assert_eq!(row.key_specs[0].begin, BeginSearch::Index(1));
    assert_eq!(
        row.key_specs[0].find,
        FindKeys::KeyNum {
            count_at: 0,
            first: 1,
            step: 2
        }
    );
    assert_eq!(row.subcommands[0].name, "json.foo|bar");
    let nonsense = redis::parse_redis_value(b"*3\r\n:1\r\n*1\r\n$3\r\nget\r\n$-1\r\n").unwrap();
    assert!(command::rows(&nonsense).is_empty());
}

#[test]
fn a_server_without_a_limit_evicts_nothing() {
    let shared = shared();
    let inquiry = Inquiry {
        shared,
        commands: None,
        shards: Shards::default(),
        complained: BTreeMap::new(),
    };
    for (memory, by_use) in [
        ("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n", false),
        ("maxmemory:1\r\nmaxmemory_policy:volatile-lfu\r\n", true),
        ("maxmemory:1\r\nmaxmemory_policy:noeviction\r\n", false),
        ("maxmemory:1\r\nmaxmemory_policy:volatile-ttl\r\n", false),
        ("", false),
    ] {
        inquiry.take_info("", memory);
        assert_eq!(
            inquiry.shared.upstream.evicts_by_use.load(Relaxed),
            by_use,
            "{memory}"
        );
    }
}
