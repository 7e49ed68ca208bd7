//! How the sidecar treats a request: who answers it, on which connection, and what it may change.
//!
//! One decision per command, taken here and nowhere else; `docs/compatibility.md` is written from
//! it. The policy's rules (bypass, deny ...) come later and are not known here.

use super::keys::{KeyPositions, KeysUnknown};
use super::spec::CommandSpec;
use super::{CommandId, keys};

/// What the configuration permits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed {
    /// A key prefix is set.
    pub prefix: bool,
    /// SHUTDOWN, REPLICAOF, SLAVEOF, FAILOVER and DEBUG are forwarded.
    pub dangerous: bool,
}

/// The treatment of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Answered by the sidecar.
    Local(Local),
    Refused(Refused),
    /// Needs an upstream connection of the client's own.
    Pin(Pin),
    /// EXEC, DISCARD, UNWATCH: ends what MULTI and WATCH began; see the [`CommandId`].
    Unpin,
    /// UNSUBSCRIBE, PUNSUBSCRIBE, SUNSUBSCRIBE.
    Unsubscribe,
    /// WAIT, WAITAOF: runs on the connection that carried the client's writes.
    OnWriter,
    Read,
    Write,
    /// EVAL, EVALSHA, FCALL; `read_only` for their `_RO` forms.
    Script {
        read_only: bool,
    },
    /// KEYS, SCAN, RANDOMKEY: reads the whole key space.
    KeySpace,
    /// DBSIZE.
    CountKeys,
    /// FLUSHALL, FLUSHDB, SWAPDB: changes keys without naming them.
    WriteAll,
    /// PUBLISH, SPUBLISH.
    Publish,
    /// Talks to the server as such.
    Admin,
}

/// What the sidecar answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    Ping,
    Echo,
    Quit,
    Reset,
    Hello,
    Auth,
    Select,
    Client,
    Command,
    /// The upstream's text with a section of our own.
    Info,
    ConfigGet,
    Role,
    /// The sidecar as a cluster of one node.
    Cluster,
    /// READONLY, READWRITE, ASKING.
    ClusterMode,
    Why,
    Stats,
    /// `PANNIER.READ`: a value with where it came from, for the HTTP API.
    Read,
    /// `PANNIER.SIDECARS`
    Sidecars,
    /// `PANNIER.INVALIDATE`
    Invalidate,
}

/// Why an upstream connection of its own is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    Watch,
    Multi,
    Subscribe,
    /// Until the reply; no upstream timeout.
    Block,
    Monitor,
    /// For this one command, because the shared connection may be the one that hangs
    /// (SCRIPT KILL), or because the server may close it (SHUTDOWN, DEBUG).
    Once,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// SYNC, PSYNC, REPLCONF: a replica has to talk to the server itself.
    Replication,
    /// Not allowed by the configuration.
    Dangerous,
    /// SCRIPT DEBUG changes the protocol of the connection.
    ScriptDebug,
    /// Would touch keys outside the prefix.
    OutsidePrefix,
    /// A prefix is set and the keys of the command are not known.
    KeysUnknown,
    /// SORT with BY or GET under a prefix with an asterisk: the server would expand that one.
    PatternPrefix,
}

impl Refused {
    /// The error line without the leading minus, `name` being the command as the client wrote it.
    pub fn message(self, name: &[u8]) -> String {
        let name = super::errors::shown(name, 128);
        match self {
            Refused::Replication => {
                format!(
                    "ERR '{name}' is not available through Pannier: connect replicas to the server itself"
                )
            }
            Refused::Dangerous => {
                format!("ERR '{name}' is not allowed through Pannier: send it to the server itself")
            }
            Refused::ScriptDebug => format!(
                "ERR '{name}' is not available through Pannier: debug scripts on the server itself"
            ),
            Refused::OutsidePrefix => format!(
                "ERR '{name}' is not allowed while a key prefix is set: it would change keys outside the prefix"
            ),
            Refused::KeysUnknown => format!(
                "ERR '{name}' is not available while a key prefix is set: its keys are not known to Pannier"
            ),
            Refused::PatternPrefix => format!(
                "ERR '{name}' with BY or GET is not available while the key prefix contains an asterisk"
            ),
        }
    }

    /// A fixed label for metrics.
    pub fn category(self) -> &'static str {
        match self {
            Refused::Replication => "replication",
            Refused::Dangerous => "dangerous",
            Refused::ScriptDebug => "script_debug",
            Refused::OutsidePrefix => "outside_prefix",
            Refused::KeysUnknown => "keys_unknown",
            Refused::PatternPrefix => "pattern_prefix",
        }
    }
}

/// Which local entries a request may make stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Nothing,
    /// The keys with [`Access::Write`](super::Access::Write).
    NamedKeys,
    /// The same, in every database: MOVE and `COPY ... DB n`.
    NamedKeysInAnyDatabase,
    /// Any key of the client's database, or of all.
    Everything,
}

/// The treatment of a known command.
pub fn class(spec: &CommandSpec, args: &[&[u8]], allowed: Allowed) -> Class {
    use CommandId as Id;
    let local = match spec.id {
        Id::Ping => Local::Ping,
        Id::Echo => Local::Echo,
        Id::Quit => Local::Quit,
        Id::Reset => Local::Reset,
        Id::Hello => Local::Hello,
        Id::Auth => Local::Auth,
        Id::Select => Local::Select,
        Id::Client => Local::Client,
        Id::Command => Local::Command,
        Id::Info => Local::Info,
        Id::Role => Local::Role,
        Id::Cluster => Local::Cluster,
        Id::Readonly | Id::Readwrite | Id::Asking => Local::ClusterMode,
        Id::Config if spec.subcommand() == Some("get") => Local::ConfigGet,
        Id::PannierWhy => Local::Why,
        Id::PannierStats => Local::Stats,
        Id::PannierRead => Local::Read,
        Id::PannierSidecars => Local::Sidecars,
        Id::PannierInvalidate => Local::Invalidate,
        _ => return remote(spec, args, allowed),
    };
    Class::Local(local)
}

fn remote(spec: &CommandSpec, args: &[&[u8]], allowed: Allowed) -> Class {
    use CommandId as Id;
    match spec.id {
        Id::Sync | Id::Psync | Id::Replconf => Class::Refused(Refused::Replication),
        Id::Debug if allowed.dangerous && allowed.prefix => Class::Refused(Refused::KeysUnknown),
        Id::Shutdown | Id::Replicaof | Id::Slaveof | Id::Failover | Id::Debug => {
            if allowed.dangerous {
                Class::Pin(Pin::Once)
            } else {
                Class::Refused(Refused::Dangerous)
            }
        }
        Id::Flushall | Id::Flushdb | Id::Swapdb => {
            if allowed.prefix {
                Class::Refused(Refused::OutsidePrefix)
            } else {
                Class::WriteAll
            }
        }
        Id::Script if spec.subcommand() == Some("debug") => Class::Refused(Refused::ScriptDebug),
        Id::Script | Id::Function if spec.subcommand() == Some("kill") => Class::Pin(Pin::Once),
        Id::Watch => Class::Pin(Pin::Watch),
        Id::Multi => Class::Pin(Pin::Multi),
        Id::Subscribe | Id::Psubscribe | Id::Ssubscribe => Class::Pin(Pin::Subscribe),
        Id::Monitor => Class::Pin(Pin::Monitor),
        Id::Exec | Id::Discard | Id::Unwatch => Class::Unpin,
        Id::Unsubscribe | Id::Punsubscribe | Id::Sunsubscribe => Class::Unsubscribe,
        Id::Wait | Id::Waitaof => Class::OnWriter,
        Id::Xread | Id::Xreadgroup => {
            if blocks(args) {
                Class::Pin(Pin::Block)
            } else {
                read_or_write(spec)
            }
        }
        _ if spec.flags.has(super::CommandFlags::BLOCKING) => Class::Pin(Pin::Block),
        Id::Eval | Id::Evalsha | Id::Fcall => Class::Script { read_only: false },
        Id::EvalRo | Id::EvalshaRo | Id::FcallRo => Class::Script { read_only: true },
        Id::Keys | Id::Scan | Id::Randomkey => Class::KeySpace,
        Id::Dbsize => Class::CountKeys,
        Id::Publish | Id::Spublish => Class::Publish,
        _ => read_or_write(spec),
    }
}

fn read_or_write(spec: &CommandSpec) -> Class {
    let keyed = !spec.key_specs.is_empty() || spec.legacy.0 > 0;
    if spec.id != CommandId::Other && !keyed {
        Class::Admin
    } else if spec.may_write() {
        Class::Write
    } else {
        Class::Read
    }
}

/// Whether an XREAD or XREADGROUP waits; its options end at STREAMS.
fn blocks(args: &[&[u8]]) -> bool {
    let mut index = 1;
    while let Some(word) = args.get(index) {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is("streams") {
            return false;
        } else if is("block") {
            return true;
        } else if is("count") || is("claim") {
            index += 1;
        } else if is("group") {
            index += 2;
        }
        index += 1;
    }
    false
}

/// Which local entries are to be dropped on a forwarded request. `found` receives the keys.
pub fn effect(spec: &CommandSpec, args: &[&[u8]], found: &mut KeyPositions) -> Effect {
    use CommandId as Id;
    let known = keys(spec, args, found);
    match spec.id {
        // REPLICAOF and its kind make the server load another data set.
        Id::Flushall
        | Id::Flushdb
        | Id::Swapdb
        | Id::Debug
        | Id::Replicaof
        | Id::Slaveof
        | Id::Failover
        | Id::Shutdown => Effect::Everything,
        // A script that declares no key may still change some.
        Id::Eval | Id::Evalsha | Id::Fcall if found.is_empty() => Effect::Everything,
        // Keeps the computed count in the value itself, although it is called a read.
        Id::Pfcount => Effect::NamedKeys,
        _ if !spec.may_write() => Effect::Nothing,
        Id::Move => Effect::NamedKeysInAnyDatabase,
        Id::Copy if args.len() > 3 => Effect::NamedKeysInAnyDatabase,
        _ if known == Err(KeysUnknown) => Effect::Everything,
        Id::Other if found.is_empty() => Effect::Everything,
        _ => Effect::NamedKeys,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{CommandTable, Resolved};

    fn of(request: &str, allowed: Allowed) -> Class {
        let table = CommandTable::builtin();
        let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let Resolved::Command(spec) = table.resolve(&args) else {
            panic!("{request} is unknown")
        };
        class(spec, &args, allowed)
    }

    #[test]
    fn requests_fall_into_the_expected_classes() {
        let cases = [
            ("GET k", Class::Read),
            ("SET k v", Class::Write),
            ("PING", Class::Local(Local::Ping)),
            ("CONFIG GET x", Class::Local(Local::ConfigGet)),
            ("CONFIG SET x y", Class::Admin),
            ("CLIENT ID", Class::Local(Local::Client)),
            ("CLUSTER SLOTS", Class::Local(Local::Cluster)),
            ("PSYNC ? -1", Class::Refused(Refused::Replication)),
            ("SHUTDOWN", Class::Refused(Refused::Dangerous)),
            ("DEBUG SLEEP 0", Class::Refused(Refused::Dangerous)),
            ("SCRIPT DEBUG YES", Class::Refused(Refused::ScriptDebug)),
            ("SCRIPT KILL", Class::Pin(Pin::Once)),
            ("SCRIPT LOAD x", Class::Admin),
            ("FLUSHALL", Class::WriteAll),
            ("WATCH k", Class::Pin(Pin::Watch)),
            ("MULTI", Class::Pin(Pin::Multi)),
            ("EXEC", Class::Unpin),
            ("SSUBSCRIBE c", Class::Pin(Pin::Subscribe)),
            ("UNSUBSCRIBE", Class::Unsubscribe),
            ("MONITOR", Class::Pin(Pin::Monitor)),
            ("BLMOVE a b LEFT LEFT 0", Class::Pin(Pin::Block)),
            ("BZPOPMIN a 0", Class::Pin(Pin::Block)),
            ("XREAD STREAMS block 0", Class::Read),
            ("XREAD COUNT 2 BLOCK 0 STREAMS s $", Class::Pin(Pin::Block)),
            ("XREADGROUP GROUP block block STREAMS s >", Class::Write),
            (
                "XREADGROUP GROUP g c BLOCK 0 STREAMS s >",
                Class::Pin(Pin::Block),
            ),
            ("WAIT 1 0", Class::OnWriter),
            ("EVAL s 0", Class::Script { read_only: false }),
            ("FCALL_RO f 0", Class::Script { read_only: true }),
            ("DBSIZE", Class::CountKeys),
            ("SCAN 0", Class::KeySpace),
            ("PUBLISH c m", Class::Publish),
            ("SAVE", Class::Admin),
            ("OBJECT ENCODING k", Class::Read),
            ("MEMORY USAGE k", Class::Read),
            ("MEMORY STATS", Class::Admin),
            ("PFCOUNT a", Class::Read),
            ("VSIM k ELE e", Class::Read),
        ];
        for (request, expected) in cases {
            assert_eq!(of(request, Allowed::default()), expected, "{request}");
        }
    }

    #[test]
    fn a_prefix_refuses_what_would_reach_beyond_it() {
        let prefix = Allowed {
            prefix: true,
            dangerous: true,
        };
        for request in ["FLUSHALL", "FLUSHDB ASYNC", "SWAPDB 0 1"] {
            assert_eq!(
                of(request, prefix),
                Class::Refused(Refused::OutsidePrefix),
                "{request}"
            );
        }
        assert_eq!(
            of("DEBUG SLEEP 0", prefix),
            Class::Refused(Refused::KeysUnknown)
        );
        assert_eq!(of("SHUTDOWN", prefix), Class::Pin(Pin::Once));
    }

    #[test]
    fn only_commands_that_change_nothing_are_sent_again() {
        let table = CommandTable::builtin();
        let idempotent = |name: &str| table.lookup(name.as_bytes()).expect(name).is_idempotent();
        for name in [
            "get", "mget", "ttl", "hgetall", "scan", "eval_ro", "zrange", "dbsize",
        ] {
            assert!(idempotent(name), "{name}");
        }
        for name in [
            "set",
            "del",
            "incr",
            "eval",
            "evalsha",
            "fcall",
            "getex",
            "publish",
            "exec",
            "multi",
            "config",
            "function",
            "pfdebug",
            "wait",
            "subscribe",
        ] {
            assert!(!idempotent(name), "{name}");
        }
        assert!(
            table
                .iter()
                .all(|spec| !(spec.is_idempotent() && spec.may_write()))
        );
    }

    #[test]
    fn what_a_request_may_make_stale_is_known() {
        let table = CommandTable::builtin();
        let mut found = KeyPositions::new();
        let mut of = |request: &str| {
            let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            let Resolved::Command(spec) = table.resolve(&args) else {
                panic!("{request}")
            };
            effect(spec, &args, &mut found)
        };
        assert_eq!(of("GET k"), Effect::Nothing);
        assert_eq!(of("SET k v"), Effect::NamedKeys);
        assert_eq!(of("EVAL s 1 k"), Effect::NamedKeys);
        assert_eq!(of("EVAL s 0"), Effect::Everything);
        assert_eq!(of("EVAL_RO s 0"), Effect::Nothing);
        assert_eq!(of("FLUSHDB"), Effect::Everything);
        assert_eq!(of("PFCOUNT k"), Effect::NamedKeys);
        assert_eq!(of("COPY a b"), Effect::NamedKeys);
        assert_eq!(of("COPY a b DB 2"), Effect::NamedKeysInAnyDatabase);
        assert_eq!(of("PUBLISH c m"), Effect::Nothing);
        assert_eq!(of("GEORADIUS k 0 0 1 m STORE d"), Effect::NamedKeys);
    }
}
