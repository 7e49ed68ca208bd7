use proptest::prelude::*;

use super::*;
use crate::resp::reply::Scanner;

macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("../recorded/", $name)).as_slice()
    };
}

/// Of three primaries with one replica each.
const SHARDS: [(&str, &[u8]); 6] = [
    ("redis 7.0, RESP2", recorded!("redis-7.0.shards.resp2")),
    ("redis 7.0, RESP3", recorded!("redis-7.0.shards.resp3")),
    ("valkey 8, RESP2", recorded!("valkey-8.shards.resp2")),
    ("valkey 8, RESP3", recorded!("valkey-8.shards.resp3")),
    ("valkey 9, RESP2", recorded!("valkey-9.shards.resp2")),
    ("valkey 9, RESP3", recorded!("valkey-9.shards.resp3")),
];
/// The same after the first primary was killed and its replica took over.
const SHARDS_FAILED_OVER: [(&str, &[u8]); 6] = [
    (
        "redis 7.0, RESP2",
        recorded!("redis-7.0-failed-over.shards.resp2"),
    ),
    (
        "redis 7.0, RESP3",
        recorded!("redis-7.0-failed-over.shards.resp3"),
    ),
    (
        "valkey 8, RESP2",
        recorded!("valkey-8-failed-over.shards.resp2"),
    ),
    (
        "valkey 8, RESP3",
        recorded!("valkey-8-failed-over.shards.resp3"),
    ),
    (
        "valkey 9, RESP2",
        recorded!("valkey-9-failed-over.shards.resp2"),
    ),
    (
        "valkey 9, RESP3",
        recorded!("valkey-9-failed-over.shards.resp3"),
    ),
];
const ROWS: [(&str, &[u8]); 4] = [
    ("redis 7.0, RESP2", recorded!("redis-7.0.slots.resp2")),
    ("redis 7.0, RESP3", recorded!("redis-7.0.slots.resp3")),
    ("valkey 8, RESP2", recorded!("valkey-8.slots.resp2")),
    ("valkey 8, RESP3", recorded!("valkey-8.slots.resp3")),
];

fn shards_of(frame: &[u8]) -> Result<Topology, Untrusted> {
    shards(&Value::read(frame).unwrap(), "asked", false)
}

fn slots_of(frame: &[u8]) -> Result<Topology, Untrusted> {
    slots(&Value::read(frame).unwrap(), "asked")
}

/// RESP2 from a short notation: `[a b 1]`, numbers are integers, `nil` is null, `''` is empty.
fn resp(text: &str) -> Vec<u8> {
    let text = text.replace('[', " [ ").replace(']', " ] ");
    let mut levels: Vec<(usize, Vec<u8>)> = vec![(0, Vec::new())];
    for word in text.split_whitespace() {
        let mut item = Vec::new();
        match word {
            "[" => {
                levels.push((0, Vec::new()));
                continue;
            }
            "]" => {
                let (count, inside) = levels.pop().unwrap();
                item.extend(format!("*{count}\r\n").into_bytes());
                item.extend(inside);
            }
            "nil" => item.extend(b"$-1\r\n"),
            word if word.parse::<i64>().is_ok() => item.extend(format!(":{word}\r\n").into_bytes()),
            word => {
                let word = word.trim_matches('\'');
                item.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
            }
        }
        let (count, inside) = levels.last_mut().unwrap();
        *count += 1;
        inside.extend(item);
    }
    levels.pop().unwrap().1
}

/// One shard with the given slots and nodes, each `id host port role health`.
fn shard(slots: &str, nodes: &[&str]) -> String {
    let node = |text: &&str| {
        let words: Vec<&str> = text.split(' ').collect();
        let [id, host, port, role, health] = words.as_slice() else {
            panic!("five words")
        };
        format!(
            "[id {id} port {port} ip 10.0.0.9 endpoint {host} role {role} replication-offset 0 health {health}]"
        )
    };
    let nodes: Vec<String> = nodes.iter().map(node).collect();
    format!("[slots [{slots}] nodes [{}]]", nodes.join(" "))
}

fn refused(shards: &[String]) -> String {
    let frame = resp(&format!("[{}]", shards.join(" ")));
    shards_of(&frame).unwrap_err().to_string()
}

#[test]
fn shards_of_real_servers_are_read_in_both_protocol_versions() {
    for (server, frame) in SHARDS {
        let topology = shards_of(frame).unwrap_or_else(|error| panic!("{server}: {error}"));
        assert_eq!(topology.nodes.len(), 3, "{server}");
        assert_eq!(topology.covered(), SLOTS, "{server}");
        for node in &topology.nodes {
            assert_eq!(
                (&*node.primary.host, node.id.len()),
                ("127.0.0.1", 40),
                "{server}"
            );
            assert_eq!(node.replicas.len(), 1, "{server}");
        }
        // 5460 and 5461 are the first border of three equal shares.
        assert_ne!(topology.node_of(5460), topology.node_of(5461), "{server}");
        assert_eq!(topology.node_of(0), topology.node_of(5460), "{server}");
    }
    for pair in SHARDS.chunks(2) {
        assert_eq!(shards_of(pair[0].1), shards_of(pair[1].1), "{}", pair[0].0);
    }
}

#[test]
fn after_a_failover_the_living_primary_owns_the_slots_of_the_dead_one() {
    for ((server, frame), (_, before)) in SHARDS_FAILED_OVER.iter().zip(SHARDS) {
        let (topology, before) = (shards_of(frame).unwrap(), shards_of(before).unwrap());
        assert_eq!(
            (topology.nodes.len(), topology.covered()),
            (3, SLOTS),
            "{server}"
        );
        let primary = |topology: &Topology| topology.nodes[topology.node_of(0).unwrap()].clone();
        assert_eq!(
            primary(&topology).primary,
            primary(&before).replicas[0],
            "{server}"
        );
        assert!(primary(&topology).replicas.is_empty(), "{server}");
        assert!(topology.moves_ownership(&before), "{server}");
    }
}

#[test]
fn the_older_command_describes_the_same_cluster() {
    for ((server, frame), (_, newer)) in ROWS.iter().zip(SHARDS) {
        let (topology, newer) = (slots_of(frame).unwrap(), shards_of(newer).unwrap());
        assert_eq!(topology.slots, newer.slots, "{server}");
        let primaries = |topology: &Topology| -> Vec<Address> {
            topology
                .nodes
                .iter()
                .map(|node| node.primary.clone())
                .collect()
        };
        assert_eq!(primaries(&topology), primaries(&newer), "{server}");
    }
}

#[test]
fn slots_may_be_nobodys_and_nodes_without_slots_do_not_count() {
    let frame = resp(&format!(
        "[{} {}]",
        shard("0 99 200 16383", &["a h 1 master online"]),
        shard("", &["b h 2 master online"]),
    ));
    let topology = shards_of(&frame).unwrap();
    assert_eq!(topology.nodes.len(), 1);
    assert_eq!(topology.covered(), SLOTS - 100);
    assert_eq!(
        (topology.node_of(99), topology.node_of(100)),
        (Some(0), None)
    );
}

#[test]
fn a_node_that_does_not_name_its_host_is_at_the_one_that_was_asked() {
    for (endpoint, host) in [
        ("nil", "asked"),
        ("''", "asked"),
        ("?", "10.0.0.9"),
        ("name", "name"),
    ] {
        let node = format!("a {endpoint} 1 master online");
        let topology = shards_of(&resp(&format!("[{}]", shard("0 1", &[&node])))).unwrap();
        assert_eq!(&*topology.nodes[0].primary.host, host, "{endpoint}");
        let row = format!("[[0 1 [{endpoint} 7000 a [ip 10.0.0.9]]]]");
        let topology = slots_of(&resp(&row)).unwrap();
        assert_eq!(&*topology.nodes[0].primary.host, host, "{endpoint}");
    }
    // Redis 3 to 6.
    let topology = slots_of(&resp("[[0 1 ['' 7000]]]")).unwrap();
    assert_eq!(topology.nodes[0].primary.to_string(), "asked:7000");
}

#[test]
fn with_tls_its_own_port_is_taken() {
    let frame = resp(
        "[[slots [0 1] nodes [[id a port 1 tls-port 2 endpoint h role master health online]]]]",
    );
    let value = Value::read(&frame).unwrap();
    let port = |tls| shards(&value, "asked", tls).unwrap().nodes[0].primary.port;
    assert_eq!((port(false), port(true)), (1, 2));
}

#[test]
fn what_cannot_be_true_at_once_is_refused() {
    let a = "a h 1 master online";
    let b = "b h 2 master online";
    for (shards, says) in [
        (
            vec![shard("0 5", &[a]), shard("5 9", &[b])],
            "slot 5 has two owners, h:1 and h:2",
        ),
        (vec![shard("0 5 3 4", &[a])], "slot 3 has two owners"),
        (vec![shard("0 16384", &[a])], "slots from 0 to 16384"),
        (vec![shard("-1 5", &[a])], "slots from -1 to 5"),
        (vec![shard("9 5", &[a])], "slots from 9 to 5"),
        (vec![shard("0 5 7", &[a])], "the form of CLUSTER SHARDS"),
        (vec![shard("0 x", &[a])], "the form of CLUSTER SHARDS"),
        (vec![shard("0 5", &[])], "no primary"),
        (vec![shard("0 5", &["c h 3 replica online"])], "no primary"),
        (vec![shard("0 5", &[a, b])], "2 primaries that live"),
        (
            vec![shard("0 5", &[a]), shard("6 9", &["b h 1 master online"])],
            "h:1 is two nodes, a and b",
        ),
        (
            vec![shard("0 5", &["a h 0 master online"])],
            "node a has no port",
        ),
        (
            vec![shard("0 5", &["a h 70000 master online"])],
            "node a has no port",
        ),
        (
            vec![shard("0 5", &["a h/x 1 master online"])],
            "node a has a host that is none",
        ),
        (
            vec![shard("0 5", &["a user@h 1 master online"])],
            "node a has a host that is none",
        ),
        (vec!["x".to_owned()], "the form of CLUSTER SHARDS"),
    ] {
        let error = refused(&shards);
        assert!(error.contains(says), "{shards:?}: {error}");
    }
    for (rows, says) in [
        ("[[0 5 [h 1 a]] [5 9 [h 2 b]]]", "slot 5 has two owners"),
        ("[[0 16384 [h 1 a]]]", "a cluster has 0 to 16383"),
        ("[[0 5 [h 1 a]] [6 9 [h 1 b]]]", "is two nodes"),
        ("[[0 5]]", "the form of CLUSTER SLOTS"),
        ("[[0 5 [h]]]", "the form of CLUSTER SLOTS"),
        ("[0]", "the form of CLUSTER SLOTS"),
        ("x", "the form of CLUSTER SLOTS"),
    ] {
        let error = slots_of(&resp(rows)).unwrap_err().to_string();
        assert!(error.contains(says), "{rows}: {error}");
    }
}

#[test]
fn a_dead_primary_keeps_its_slots_while_nobody_has_taken_over() {
    let nodes = [
        "a h 1 master fail",
        "b h 2 replica online",
        "c h 3 replica fail",
    ];
    let topology = shards_of(&resp(&format!("[{}]", shard("0 5", &nodes)))).unwrap();
    assert_eq!(topology.nodes[0].primary.port, 1);
    assert_eq!(topology.nodes[0].replicas, [Address::new("h", 2)]);
}

#[test]
fn absurd_numbers_of_nodes_are_refused() {
    let node = "a h 1 replica online";
    let crowd = vec![node; MAX_NODES + 1];
    assert!(refused(&[shard("0 5", &crowd)]).contains("more than 4096 nodes"));
    let rows = ["[0 0 [h 1 a]]"; 10].join(" ");
    let error = slots_of(&resp(&format!("[{rows}]"))).unwrap_err();
    assert!(matches!(error, Untrusted::TwoOwners { .. }));
}

#[test]
fn only_an_answer_that_leaves_the_owner_open_is_worth_a_second_question() {
    assert!(Untrusted::NoPrimary.is_ambiguous() && Untrusted::SeveralPrimaries(2).is_ambiguous());
    assert!(!Untrusted::Range(0, 16_384).is_ambiguous());
}

fn never_panics(bytes: &[u8]) {
    // As bytes reach the reader: only what the scanner found to be complete.
    if let Ok(Some(len)) = Scanner::default().step(bytes)
        && let Ok(value) = Value::read(&bytes[..len])
    {
        let _ = shards(&value, "asked", false);
        let _ = slots(&value, "asked");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        never_panics(&bytes);
    }

    /// Real answers with a few bytes changed come further than noise does.
    #[test]
    fn damaged_answers_never_panic(
        which in 0_usize..16,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let recorded: Vec<&[u8]> = SHARDS
            .iter()
            .chain(&SHARDS_FAILED_OVER)
            .chain(&ROWS)
            .map(|(_, frame)| *frame)
            .collect();
        let mut bytes = recorded[which].to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        never_panics(&bytes);
    }

    /// Whatever is accepted keeps what the type promises.
    #[test]
    fn every_accepted_range_has_an_owner_that_exists(
        ranges in prop::collection::vec((0_i64..17_000, 0_i64..17_000, 1_u16..5), 0..8),
    ) {
        let rows: Vec<String> = ranges
            .iter()
            .map(|(first, last, port)| format!("[{first} {last} [h {port} n{port}]]"))
            .collect();
        if let Ok(topology) = slots_of(&resp(&format!("[{}]", rows.join(" ")))) {
            for (first, last, port) in ranges {
                for slot in [first, last] {
                    let owner = topology.node_of(u16::try_from(slot).unwrap()).unwrap();
                    prop_assert_eq!(topology.nodes[owner].primary.port, port);
                }
            }
        }
    }
}
