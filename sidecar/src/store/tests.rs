//! The store from outside: the limit, deadlines, scans, clocks.

use super::*;
use crate::resp::Proto;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap, VecDeque};

const UNIX: u64 = 1_700_000_000_000;

struct Bench {
    store: Store,
    call: Call,
}

impl Bench {
    fn new(limit: u64) -> Self {
        let call = Call {
            db: 0,
            databases: 16,
            now: Duration::ZERO,
            unix_now: Duration::from_millis(UNIX),
            random: 1,
            max_value: 1 << 20,
        };
        Self {
            store: Store::new(limit),
            call,
        }
    }

    fn pass(&mut self, milliseconds: u64) {
        self.call.now += Duration::from_millis(milliseconds);
        self.call.unix_now += Duration::from_millis(milliseconds);
    }

    fn done(&mut self, args: &[&[u8]]) -> (Done, String) {
        self.call.random += 1;
        let mut out = Vec::new();
        let done = self
            .store
            .execute(&self.call, args, &mut Reply::new(&mut out, Proto::Resp2));
        (done, String::from_utf8_lossy(&out).into_owned())
    }

    fn bytes(&mut self, args: &[&[u8]]) -> String {
        self.done(args).1
    }

    /// The reply to a command of words, line breaks as blanks.
    fn ask(&mut self, line: &str) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.bytes(&args).replace("\r\n", " ").trim_end().to_owned()
    }
}

#[test]
fn a_command_of_redis_that_memory_mode_lacks_is_left_to_the_caller() {
    let mut bench = Bench::new(1 << 20);
    assert_eq!(
        bench.done(&[b"EVAL", b"return 1", b"0"]),
        (Done::NotAvailable, String::new())
    );
}

#[test]
fn a_key_is_gone_at_its_deadline_without_a_sweep() {
    let mut bench = Bench::new(1 << 20);
    bench.ask("SET a 1 PX 100");
    bench.pass(99);
    assert_eq!(bench.ask("GET a"), "$1 1");
    bench.pass(1);
    assert_eq!(bench.ask("GET a"), "$-1");
    assert_eq!(
        (
            bench.store.stats().keys,
            bench.store.stats().bytes,
            bench.store.stats().expired
        ),
        (0, 0, 1)
    );
}

#[test]
fn sweeps_free_expired_keys_within_their_budget() {
    let mut bench = Bench::new(1 << 20);
    for key in 0..100 {
        bench.ask(&format!(
            "SET k{key} v PX {}",
            if key % 2 == 0 { 10 } else { 100_000 }
        ));
    }
    bench.pass(50);
    assert!(bench.store.sweep(bench.call.now, 20) <= 20);
    assert!(bench.store.stats().keys >= 80);
    for _ in 0..10 {
        bench.store.sweep(bench.call.now, 20);
    }
    let expected = DatabaseStats {
        number: 0,
        keys: 50,
        expiring: 50,
    };
    assert_eq!(bench.store.stats().databases, [expected]);
}

#[test]
fn an_absolute_deadline_is_answered_exactly_although_clocks_are_read_apart() {
    let mut bench = Bench::new(1 << 20);
    bench.ask("SET a 1 PXAT 1700000100123");
    for jitter in [1, 3, 7] {
        bench.call.unix_now += Duration::from_millis(jitter);
        assert_eq!(bench.ask("PEXPIRETIME a"), ":1700000100123");
    }
    // A wall clock that is set moves the deadline with it, as the app counts from the epoch.
    bench.call.unix_now += Duration::from_mins(1);
    bench.ask("SET b 1 PXAT 1700000100123");
    assert_eq!(bench.ask("TTL b"), ":40");
}

#[test]
fn the_key_used_last_survives_and_the_limit_holds() {
    let mut bench = Bench::new(100_000);
    bench.ask("SET kept 1");
    for key in 0..5_000 {
        bench.ask(&format!("SET k{key} some-value"));
        assert_eq!(bench.ask("GET kept"), "$1 1");
        assert!(bench.store.stats().bytes <= 100_000);
    }
    assert!(bench.store.stats().evicted > 4_000);
}

#[test]
fn a_write_beyond_the_limit_is_refused_and_changes_nothing() {
    let mut bench = Bench::new(2_000);
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    let big = vec![b'x'; 3_000];
    bench.ask("SET a 1");
    assert_eq!(bench.bytes(&[b"SET", b"a", &big]), oom);
    assert_eq!(bench.bytes(&[b"APPEND", b"a", &big]), oom);
    assert_eq!(bench.bytes(&[b"RPUSH", b"l", &big]), oom);
    assert_eq!(bench.bytes(&[b"SETRANGE", b"a", b"3000", b"x"]), oom);
    assert_eq!(bench.bytes(&[b"MSET", b"b", b"1", b"c", &big]), oom);
    assert_eq!(bench.ask("GET a"), "$1 1");
    assert_eq!(bench.ask("DBSIZE"), ":1");
}

#[test]
fn clearing_counts_what_was_acknowledged() {
    let mut bench = Bench::new(1 << 20);
    bench.ask("SET a 1");
    bench.ask("INCR a");
    bench.ask("GET a");
    bench.ask("LPOP missing");
    let discarded = bench.store.clear();
    assert_eq!((discarded.keys, discarded.writes), (1, 2));
    assert_eq!(
        bench.store.stats(),
        StoreStats {
            limit: 1 << 20,
            ..StoreStats::default()
        }
    );
}

#[test]
fn lists_that_got_elements_are_reported_to_blocked_clients() {
    let mut bench = Bench::new(1 << 20);
    let ready = |done: (Done, String)| match done.0 {
        Done::Answered { ready, .. } => ready
            .into_iter()
            .map(|(_, key)| String::from_utf8(key.into()).unwrap())
            .collect(),
        Done::NotAvailable => vec![],
    };
    assert_eq!(ready(bench.done(&[b"RPUSH", b"l", b"a"])), ["l"]);
    assert_eq!(ready(bench.done(&[b"RENAME", b"l", b"m"])), ["m"]);
    assert_eq!(
        ready(bench.done(&[b"LMOVE", b"m", b"n", b"LEFT", b"LEFT"])),
        ["n"]
    );
    assert_eq!(ready(bench.done(&[b"COPY", b"n", b"o"])), ["o"]);
    assert_eq!(ready(bench.done(&[b"LPOP", b"o"])), Vec::<String>::new());
}

#[test]
fn the_only_element_of_a_list_moves_within_it_without_losing_the_deadline() {
    let mut bench = Bench::new(1 << 20);
    bench.ask("RPUSH l a");
    bench.ask("PEXPIRE l 5000");
    assert_eq!(bench.ask("LMOVE l l LEFT RIGHT"), "$1 a");
    assert_eq!(bench.ask("PTTL l"), ":5000");
}

#[test]
fn ids_of_a_stream_rise_even_when_the_clock_goes_back() {
    let mut bench = Bench::new(1 << 20);
    let first = format!("${} {UNIX}-0", UNIX.to_string().len() + 2);
    assert_eq!(bench.ask("XADD s * f v"), first);
    assert_eq!(bench.ask("XADD s * f v"), first.replace("-0", "-1"));
    bench.call.unix_now -= Duration::from_mins(1);
    assert_eq!(bench.ask("XADD s * f v"), first.replace("-0", "-2"));
    assert_eq!(bench.ask("XDEL s 1-1"), ":0");
    assert_eq!(bench.ask("XTRIM s MAXLEN 0"), ":3");
    assert_eq!(bench.ask("XADD s * f v"), first.replace("-0", "-3"));
    assert_eq!(bench.ask("TYPE s"), "+stream");
}

#[test]
fn an_approximate_limit_of_a_stream_holds_within_what_one_call_may_remove() {
    let mut bench = Bench::new(1 << 24);
    for n in 1..=30 {
        bench.ask(&format!("XADD s MAXLEN ~ 20 {n} f v"));
    }
    assert_eq!(bench.ask("XLEN s"), ":20");
    assert_eq!(bench.ask("XTRIM s MAXLEN ~ 5 LIMIT 10"), ":10");
    assert_eq!(bench.ask("XTRIM s MINID ~ 26-0"), ":5");
    assert_eq!(bench.ask("XLEN s"), ":5");
}

#[test]
fn a_waiting_reader_keeps_the_last_id_of_when_it_began() {
    let mut bench = Bench::new(1 << 20);
    bench.ask("XADD s 5-1 f v");
    let words: [&[u8]; 7] = [b"XREAD", b"BLOCK", b"20", b"STREAMS", b"s", b"none", b"$"];
    assert_eq!(
        Store::patience(&words[..6]),
        Some(Duration::from_millis(20))
    );
    let words = [&words[..], &[b"$"]].concat();
    let words = [&words[..6], &words[6..8]].concat();
    let settled = bench.store.words_to_wait_with(&bench.call, &words);
    assert_eq!(&*settled[6], b"5-1");
    assert_eq!(&*settled[7], b"0-0");
    assert_eq!(Store::waits_for(&words), [b"s".as_slice(), b"none"]);
    assert_eq!(
        Store::patience(&[b"BLPOP", b"l", b"0"]),
        Some(Duration::MAX)
    );
    assert_eq!(Store::patience(&[b"XREAD", b"STREAMS", b"s", b"0"]), None);
}

#[test]
fn a_rank_is_answered_with_its_score_where_asked() {
    let mut bench = Bench::new(1 << 20);
    bench.ask("ZADD z 1 a 2.5 b 4 c");
    assert_eq!(bench.ask("ZRANK z b WITHSCORE"), "*2 :1 $3 2.5");
    assert_eq!(bench.ask("ZREVRANK z c withscore"), "*2 :0 $1 4");
    assert_eq!(bench.ask("ZRANK z missing WITHSCORE"), "*-1");
    assert_eq!(bench.ask("ZRANK z b SCORE"), "-ERR syntax error");
}

#[test]
fn a_large_sorted_set_is_read_from_both_ends_and_the_middle() {
    let mut bench = Bench::new(1 << 24);
    for n in 0..3_000 {
        bench.ask(&format!("ZADD z {} m{n}", n * 7 % 3_000));
    }
    assert_eq!(bench.ask("ZRANGE z 1500 1501"), "*2 $5 m1500 $4 m643");
    assert_eq!(
        bench.ask("ZRANGE z 0 0 REV WITHSCORES"),
        "*2 $4 m857 $4 2999"
    );
    assert_eq!(bench.ask("ZCOUNT z (100 200"), ":100");
    assert_eq!(bench.ask("ZRANK z m643"), ":1501");
    assert_eq!(bench.ask("ZREMRANGEBYSCORE z 10 2989"), ":2980");
    assert_eq!(bench.ask("ZCARD z"), ":20");
}

fn scanned(reply: &str) -> (String, Vec<String>) {
    let lines: Vec<&str> = reply.split("\r\n").collect();
    (
        lines[2].to_owned(),
        lines[4..]
            .iter()
            .skip(1)
            .step_by(2)
            .map(|line| (*line).to_owned())
            .collect(),
    )
}

/// What an app does, with few keys so that types collide.
fn operation() -> impl Strategy<Value = String> {
    let key = 0..12_u8;
    let words = prop::sample::select(vec![
        "SET {k} v",
        "SET {k} v EX 5",
        "APPEND {k} 12345678901234567890",
        "INCR {k}",
        "DEL {k}",
        "HSET {k} f{n} value",
        "HDEL {k} f{n}",
        "SADD {k} m{n}",
        "SREM {k} m{n}",
        "SPOP {k}",
        "RPUSH {k} i{n} j",
        "LPOP {k}",
        "LTRIM {k} 1 5",
        "LINSERT {k} BEFORE j x",
        "LREM {k} 0 j",
        "LSET {k} 0 a-longer-element",
        "RENAME {k} k{n}",
        "COPY {k} k{n} REPLACE",
        "SUNIONSTORE {k} k{n} k1",
        "LMOVE {k} k{n} LEFT RIGHT",
        "SMOVE {k} k{n} m1",
        "SETRANGE {k} {n} abc",
        "EXPIRE {k} 3",
        "PERSIST {k}",
        "MOVE {k} 1",
        "SWAPDB 0 1",
        "FLUSHDB",
        "SETBIT {k} 300 1",
        "GETSET {k} y",
        "MSET {k} 1 k{n} 2",
        "XADD {k} * f{n} a-value",
        "XADD {k} MAXLEN 3 * f v g w",
        "XTRIM {k} MAXLEN {n}",
        "BLMOVE {k} k{n} LEFT LEFT 0",
        "BLPOP k{n} {k} 0",
        "BZPOPMAX {k} 0",
        "ZADD {k} {n} m{n} 1.5 m1",
        "ZADD {k} {n} a-longer-member{n}",
        "ZINCRBY {k} -2.5 m{n}",
        "ZREM {k} m{n}",
        "ZPOPMIN {k} 2",
        "ZREMRANGEBYRANK {k} 3 5",
        "ZUNIONSTORE {k} 2 k{n} k1",
        "ZRANGESTORE {k} k{n} 0 2",
        "PASS",
    ]);
    (words, key, 0..12_u8).prop_map(|(words, key, n)| {
        words
            .replace("{k}", &format!("k{key}"))
            .replace("{n}", &n.to_string())
    })
}

#[test]
fn it_may_be_shared_behind_a_lock() {
    fn may_be_sent<T: Send>(_: &T) {}
    may_be_sent(&Store::new(1));
}

fn any_argument() -> impl Strategy<Value = Vec<u8>> {
    let numbers = prop::sample::select(vec![
        i64::MIN,
        i64::MIN + 1,
        -1,
        0,
        1,
        2,
        1 << 31,
        i64::MAX - 1,
        i64::MAX,
    ]);
    let words = prop::sample::select(vec![
        "k1",
        "k1",
        "k2",
        "EX",
        "COUNT",
        "LEFT",
        "MATCH",
        "*",
        "WITHVALUES",
        "BIT",
        "1e300",
    ]);
    prop_oneof![
        numbers.prop_map(|n| n.to_string().into_bytes()),
        words.prop_map(|word| word.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ]
}

/// How long the reply at the start of `bytes` is.
fn reply_len(bytes: &[u8]) -> usize {
    let line = bytes
        .windows(2)
        .position(|pair| pair == b"\r\n")
        .expect("a reply has a first line");
    let number = || {
        std::str::from_utf8(&bytes[1..line])
            .unwrap()
            .parse::<usize>()
            .unwrap_or(0)
    };
    match bytes[0] {
        b'$' if bytes[1] != b'-' => line + 4 + number(),
        b'*' => (0..number()).fold(line + 2, |end, _| end + reply_len(&bytes[end..])),
        _ => line + 2,
    }
}

proptest! {
    #[test]
    fn whatever_the_arguments_are_there_is_exactly_one_reply(
        calls in prop::collection::vec((0..Store::COMMANDS.len(), prop::collection::vec(any_argument(), 0..7)), 1..60),
    ) {
        let mut bench = Bench::new(50_000);
        for (command, args) in calls {
            let mut whole = vec![Store::COMMANDS[command].as_bytes()];
            whole.extend(args.iter().map(Vec::as_slice));
            let mut out = Vec::new();
            bench.store.execute(&bench.call, &whole, &mut Reply::new(&mut out, Proto::Resp2));
            prop_assert_eq!(reply_len(&out), out.len(), "{:?}", whole);
        }
    }

    #[test]
    fn the_books_agree_with_the_keys_and_the_limit_holds(
        limit in 900_u64..20_000,
        operations in prop::collection::vec(operation(), 1..300),
    ) {
        let mut bench = Bench::new(limit);
        for operation in operations {
            if operation == "PASS" {
                bench.pass(1_000);
                bench.store.sweep(bench.call.now, 5);
            } else {
                bench.ask(&operation);
            }
            let stats = bench.store.stats();
            prop_assert!(stats.bytes as u64 <= limit, "{} > {limit} after {operation}", stats.bytes);
            let keys = &bench.store.keys;
            let counted = |(key, object): (&[u8], &keyspace::Object)| KEY_OVERHEAD + key.len() + object.value.bytes();
            let bytes: usize = keys.databases.values().flat_map(|d| d.table.iter().map(counted)).sum();
            prop_assert_eq!(stats.bytes, bytes, "after {}", operation);
            for database in keys.databases.values() {
                let expiring = database.table.iter().filter(|(_, object)| object.deadline != keyspace::NEVER).count();
                prop_assert_eq!(database.expiring, expiring, "after {}", operation);
                prop_assert!(database.table.iter().all(|(_, object)| !object.value.is_drained()));
            }
        }
        bench.ask("FLUSHALL");
        prop_assert_eq!(bench.store.stats().bytes, 0);
    }

    #[test]
    fn a_scan_returns_every_key_that_is_there_all_the_time(
        stable in 1_usize..200,
        count in 1_usize..20,
        changes in prop::collection::vec((any::<bool>(), 0_u16..300), 0..200),
    ) {
        let mut bench = Bench::new(1 << 24);
        for key in 0..stable {
            bench.ask(&format!("SET passing{key} 1"));
            bench.ask(&format!("SET stable{key} 1"));
        }
        let mut seen = BTreeSet::new();
        let mut cursor = "0".to_owned();
        let mut changes = changes.into_iter();
        loop {
            let (next, found) =
                scanned(&bench.bytes(&[b"SCAN", cursor.as_bytes(), b"COUNT", count.to_string().as_bytes(), b"MATCH", b"stable*"]));
            seen.extend(found);
            for (add, key) in changes.by_ref().take(7) {
                bench.ask(&if add { format!("SET passing{key} 1") } else { format!("DEL passing{key}") });
            }
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
        prop_assert_eq!(seen, (0..stable).map(|key| format!("stable{key}")).collect::<BTreeSet<_>>());
    }

    #[test]
    fn counters_lists_and_sets_do_what_plain_ones_do(
        operations in prop::collection::vec((0_u8..8, 0_u8..4, 0_i64..6), 0..300),
    ) {
        let mut bench = Bench::new(1 << 24);
        let mut counters: HashMap<u8, i64> = HashMap::new();
        let mut lists: HashMap<u8, VecDeque<i64>> = HashMap::new();
        let mut sets: HashMap<u8, BTreeSet<i64>> = HashMap::new();
        for (operation, key, n) in operations {
            let list = lists.entry(key).or_default();
            let set = sets.entry(key).or_default();
            let bulk = |n: Option<i64>| n.map_or("$-1".to_owned(), |n| format!("$1 {n}"));
            let (asked, expected) = match operation {
                0 | 1 => {
                    let by = if operation == 0 { n } else { -n };
                    *counters.entry(key).or_default() += by;
                    (format!("INCRBY c{key} {by}"), format!(":{}", counters[&key]))
                }
                2 => { list.push_front(n); (format!("LPUSH l{key} {n}"), format!(":{}", list.len())) }
                3 => { list.push_back(n); (format!("RPUSH l{key} {n}"), format!(":{}", list.len())) }
                4 => (format!("LPOP l{key}"), bulk(list.pop_front())),
                5 => (format!("LINDEX l{key} {n}"), bulk(usize::try_from(n).ok().and_then(|at| list.get(at).copied()))),
                6 => (format!("SADD s{key} {n}"), format!(":{}", u8::from(set.insert(n)))),
                _ => (format!("SREM s{key} {n}"), format!(":{}", u8::from(set.remove(&n)))),
            };
            prop_assert_eq!(bench.ask(&asked), expected, "{}", asked);
            prop_assert_eq!(bench.ask(&format!("SCARD s{key}")), format!(":{}", sets[&key].len()));
        }
    }
}
