//! `CLUSTER`, `READONLY`, `READWRITE`, `ASKING`: the sidecar as a cluster of one node.
//!
//! A cluster client asks for the topology before anything else. It is told of one node, at the
//! address it is connected to, that owns every slot; whatever runs behind the sidecar, the client
//! routes everything here (S0.16, ADR 0008). `INFO` and `HELLO` still say `standalone`: nothing a
//! cluster client needs, and what others look at to find out what they talk to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use foldhash::fast::FixedState;

use super::{
    super::{Flow, Turn, count, refuse},
    say,
};
use crate::{
    client::session::Session,
    command::{CommandSpec, unknown_subcommand},
    metrics::Outcome,
    resp::write::Reply,
    upstream::topology::key_slot,
};

/// The last of 16384 slots.
const LAST_SLOT: i64 = 16383;

const DISABLED: &str = "ERR This instance has cluster support disabled";

/// Libraries that ask every server for its topology and turn into cluster clients when they get
/// one. As such they refuse several keys of different slots, and databases beside 0, before
/// anything is sent; told what a plain Redis tells them, they work without these limits.
const ASK_EVERYONE: [&str; 3] = ["SE.Redis", "rueidis", "valkey"];

const HELP: [&str; 9] = [
    "CLUSTER <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "INFO, LINKS, MYID, MYSHARDID, NODES, SHARDS, SLOTS",
    "    Return information about the cluster of one node that the sidecar is.",
    "KEYSLOT <key>",
    "    Return the hash slot for <key>.",
    "REPLICAS <node-id>, COUNT-FAILURE-REPORTS <node-id>",
    "    There are none.",
    "HELP",
    "    Print this help.",
];

/// Answers `CLUSTER …`.
pub fn cluster(turn: &Turn<'_>, session: &mut Session, spec: &CommandSpec, args: &[&[u8]]) -> Flow {
    if asks_everyone(turn) {
        return refuse(turn, session, DISABLED);
    }
    let me = Node::of(turn);
    match spec.subcommand().unwrap_or_default() {
        "slots" => tell(turn, session, |reply| me.slots(reply)),
        "shards" => tell(turn, session, |reply| me.shards(reply)),
        "nodes" => tell(turn, session, |reply| reply.verbatim(&me.line())),
        "info" => tell(turn, session, |reply| reply.verbatim(INFO)),
        "myid" => tell(turn, session, |reply| reply.bulk(me.id.as_bytes())),
        "myshardid" => tell(turn, session, |reply| reply.bulk(me.shard.as_bytes())),
        "keyslot" => tell(turn, session, |reply| {
            reply.integer(i64::from(key_slot(args[2])));
        }),
        "links" => tell(turn, session, |reply| reply.array(0)),
        "replicas" | "slaves" if args[2] == me.id.as_bytes() => {
            tell(turn, session, |reply| reply.array(0))
        }
        "count-failure-reports" if args[2] == me.id.as_bytes() => {
            tell(turn, session, |reply| reply.integer(0))
        }
        "replicas" | "slaves" | "count-failure-reports" => {
            let error = [b"ERR Unknown node ", args[2]].concat();
            refuse(turn, session, error)
        }
        "help" => tell(turn, session, |reply| {
            reply.array(HELP.len());
            for line in HELP {
                reply.simple(line);
            }
        }),
        "countkeysinslot" | "getkeysinslot" | "slot-stats" => refuse(
            turn,
            session,
            format!(
                "ERR {} is not available through Pannier: it would read the whole key space; use SCAN",
                shown(spec)
            ),
        ),
        "" => refuse(turn, session, unknown_subcommand(args)),
        _ => refuse(
            turn,
            session,
            format!(
                "ERR {} is not available through Pannier: it shows itself as a cluster of one node; send it to the server itself",
                shown(spec)
            ),
        ),
    }
}

/// Answers `READONLY`, `READWRITE` and `ASKING`: there is no replica and no move to ask about.
pub fn mode(turn: &Turn<'_>, session: &mut Session) -> Flow {
    if asks_everyone(turn) {
        return refuse(turn, session, DISABLED);
    }
    tell(turn, session, |reply| reply.ok())
}

fn tell(turn: &Turn<'_>, session: &mut Session, write: impl FnOnce(&mut Reply<'_>)) -> Flow {
    count(turn.worker, session.command, Outcome::Ok);
    say(session, write)
}

fn asks_everyone(turn: &Turn<'_>) -> bool {
    // `SE.Redis-StackExchange.Redis.Extensions`, `rueidis(OTel)`: wrappers add their names.
    let name = turn.client.handle.info().lib_name;
    ASK_EVERYONE.iter().any(|library| {
        name.strip_prefix(library).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with(['-', '(']) && *library != "valkey"
        })
    })
}

fn shown(spec: &CommandSpec) -> String {
    spec.name().to_ascii_uppercase().replace('|', " ")
}

/// The only node.
struct Node {
    ip: String,
    port: i64,
    id: String,
    shard: String,
}

impl Node {
    fn of(turn: &Turn<'_>) -> Self {
        let port = turn.active.config.sidecar.redis_port;
        // Over a UNIX socket there is no address; a client can only follow one.
        let here: SocketAddr = turn
            .client
            .handle
            .laddr
            .parse()
            .unwrap_or((IpAddr::V4(Ipv4Addr::LOCALHOST), port).into());
        Self {
            ip: here.ip().to_string(),
            port: i64::from(here.port()),
            id: name("node", port),
            shard: name("shard", port),
        }
    }

    /// `[[0, 16383, [ip, port, id, {}]]]`
    fn slots(&self, reply: &mut Reply<'_>) {
        reply.array(1);
        reply.array(3);
        reply.integer(0);
        reply.integer(LAST_SLOT);
        reply.array(4);
        reply.bulk(self.ip.as_bytes());
        reply.integer(self.port);
        reply.bulk(self.id.as_bytes());
        reply.map(0);
    }

    fn shards(&self, reply: &mut Reply<'_>) {
        reply.array(1);
        reply.map(2);
        reply.bulk(b"slots");
        reply.array(2);
        reply.integer(0);
        reply.integer(LAST_SLOT);
        reply.bulk(b"nodes");
        reply.array(1);
        reply.map(7);
        reply.bulk(b"id");
        reply.bulk(self.id.as_bytes());
        reply.bulk(b"port");
        reply.integer(self.port);
        for (field, value) in [
            ("ip", self.ip.as_str()),
            ("endpoint", &self.ip),
            ("role", "master"),
        ] {
            reply.bulk(field.as_bytes());
            reply.bulk(value.as_bytes());
        }
        reply.bulk(b"replication-offset");
        reply.integer(0);
        reply.bulk(b"health");
        reply.bulk(b"online");
    }

    /// The line of `CLUSTER NODES`. There is no cluster bus: its port is 0.
    fn line(&self) -> String {
        let Self { ip, port, id, .. } = self;
        format!("{id} {ip}:{port}@0 myself,master - 0 0 1 connected 0-{LAST_SLOT}\n")
    }
}

/// 40 hexadecimal digits, the same for everyone who asks this sidecar, also after a restart.
fn name(kind: &str, port: u16) -> String {
    use std::hash::BuildHasher as _;
    let host = std::env::var("HOSTNAME").unwrap_or_default();
    let digits = |seed| FixedState::with_seed(seed).hash_one((kind, &host, port));
    let text = format!("{:016x}{:016x}{:016x}", digits(1), digits(2), digits(3));
    text[..40].to_owned()
}

const INFO: &str = "cluster_state:ok\r\n\
    cluster_slots_assigned:16384\r\n\
    cluster_slots_ok:16384\r\n\
    cluster_slots_pfail:0\r\n\
    cluster_slots_fail:0\r\n\
    cluster_known_nodes:1\r\n\
    cluster_size:1\r\n\
    cluster_current_epoch:1\r\n\
    cluster_my_epoch:1\r\n\
    cluster_stats_messages_sent:0\r\n\
    cluster_stats_messages_received:0\r\n\
    total_cluster_links_buffer_limit_exceeded:0\r\n";
