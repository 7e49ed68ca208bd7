//! Writes `docs/compatibility.md`: how each command of the table is treated.
//!
//! The page is made of the same decisions that the engine takes, so it cannot say anything else.

use std::fmt::Write;

use super::{
    Allowed, BeginSearch, Class, CommandId, CommandSpec, CommandTable, FindKeys, KeyFlags, Local,
    Pin, Refused, ReplyRewrite, class,
};

const HEAD: &str = "\
# Commands: how each is treated

<!-- Written by the test in sidecar/tests/compatibility.rs; change the code, not this page. -->

Every command and subcommand of redis 7.0, redis 8.0 and valkey 8.1. A command that is not listed, such
as one of a module, is forwarded; its keys come from the server's own `COMMAND` table.

**Treatment**
- *local tier*: served from the local tier where a rule allows it, forwarded otherwise. Of EXISTS only
  the form with one key, of ZRANGE only `ZRANGE key start stop [WITHSCORES]` are.
- *forwarded*: runs on a shared connection to the server, its reply unchanged.
- *pinned*: runs on a connection of the client's own, for as long as the reason in brackets lasts.
- *sidecar*: answered by the sidecar.
- *refused*: answered with an error. Where it says *unless allowed*, the configuration can permit it.

**With a key prefix**
- *keys*: the prefix goes on every key; *reply*: it comes off the keys in the reply.
- *pattern*: the prefix goes on the pattern with its glob characters escaped.
- *own keys only*: counts or picks among the keys of the prefix, by a read-only script that takes as
  long as KEYS. The server user needs the right to EVAL_RO.
- *keyspace channels*: the prefix goes on the key in `__keyspace@<db>__:<key>` and comes off the key in
  keyspace and keyevent messages; messages about keys outside the prefix are left out. Other channels
  stay as they are.
- *declared keys*: the prefix goes on KEYS; keys that a script makes up itself are not prefixed.
- *refused*: answered with an error while a prefix is set. SORT with BY or GET is refused only if the
  prefix contains an asterisk.
- `–`: nothing to do. MONITOR, SLOWLOG, COMMANDLOG and ACL show the server's own key names, with the
  prefix. Replies of modules are not changed.

**Cluster clients** see one node, the sidecar at the address they are connected to, which owns all 16384
slots; READONLY, READWRITE and ASKING are answered `OK`. Libraries that ask every server for its topology and
would limit themselves when they got one (they say `SE.Redis`, `rueidis` or `valkey` in CLIENT SETINFO) are
told `cluster support disabled`, as by a plain server. StackExchange.Redis before 2.7 does not say its name:
put `$CLUSTER=` into its connection string. INFO says `cluster_enabled:0`, HELLO `standalone`.

**Memory mode** says whether the command works while there is no server; the others are then refused,
most with `-ERR <COMMAND> is not available in memory mode`.

";

/// The page. `memory_mode` names the commands that work without a server, in lower case.
pub fn compatibility_page(memory_mode: &[&str]) -> String {
    let table = CommandTable::builtin();
    let mut specs: Vec<&CommandSpec> = table.iter().filter(|spec| !spec.is_container()).collect();
    specs.sort_unstable_by_key(|spec| spec.name());
    let mut page = HEAD.to_owned();
    page.push_str("| command | since | servers | treatment | with a key prefix | memory mode |\n");
    page.push_str("|---|---|---|---|---|---|\n");
    for spec in specs {
        let container = spec.name().split('|').next().unwrap_or_default();
        let in_memory = memory_mode.contains(&spec.name())
            || memory_mode.contains(&container)
            || answered_without_server(spec);
        let name = spec.name().to_ascii_uppercase().replace('|', " ");
        let since = &spec.documentation.since;
        writeln!(
            page,
            "| {name} | {} | {} | {} | {} | {} |",
            if since.is_empty() { "–" } else { since },
            servers(spec),
            treatment(spec),
            under_prefix(spec),
            if in_memory { "yes" } else { "no" },
        )
        .expect("writing to a string does not fail");
    }
    page
}

fn servers(spec: &CommandSpec) -> &'static str {
    match &*spec.documentation.servers {
        "r7,v8,r8" => "all",
        "v8,r8" => "valkey 8.1, redis 8.0",
        "r7,r8" => "redis",
        "r7,v8" => "redis 7.0, valkey 8.1",
        "r7" => "redis 7.0",
        "r8" => "redis 8.0",
        "v8" => "valkey 8.1",
        "pannier" => "Pannier",
        _ => "server",
    }
}

fn plain_class(spec: &CommandSpec, allowed: Allowed) -> Class {
    let words: Vec<&[u8]> = spec.name().split('|').map(str::as_bytes).collect();
    class(spec, &words, allowed)
}

fn answered_without_server(spec: &CommandSpec) -> bool {
    matches!(plain_class(spec, Allowed::default()), Class::Local(_))
        && !unsupported_client(spec)
        && (spec.id() != CommandId::Cluster || of_one_node(spec))
}

fn treatment(spec: &CommandSpec) -> &'static str {
    match plain_class(spec, Allowed::default()) {
        Class::Local(Local::Info) => "sidecar, with the server's text",
        Class::Local(Local::Client) if unsupported_client(spec) => "refused",
        Class::Local(Local::Cluster) if !of_one_node(spec) => "refused",
        Class::Local(Local::Cluster | Local::ClusterMode) => "sidecar, as a cluster of one node",
        Class::Local(_) => "sidecar",
        Class::Refused(Refused::Dangerous) => "refused unless allowed",
        Class::Refused(_) => "refused",
        Class::Pin(Pin::Watch) => "pinned (until EXEC, DISCARD or UNWATCH)",
        Class::Pin(Pin::Multi) => "pinned (until EXEC or DISCARD)",
        Class::Pin(Pin::Subscribe) => "pinned (while subscribed)",
        Class::Pin(Pin::Block) => "pinned (while blocked)",
        Class::Pin(Pin::Monitor) => "pinned (until the client goes)",
        Class::Pin(Pin::Once) => "pinned (for this command)",
        Class::Unpin => "forwarded, ends the pin",
        Class::Unsubscribe => "forwarded, the last one ends the pin",
        Class::OnWriter => {
            "pinned (while blocked), at every shard of a cluster; covers the client's earlier writes"
        }
        Class::Read | Class::Write
            if matches!(spec.id(), CommandId::Xread | CommandId::Xreadgroup) =>
        {
            "forwarded; with BLOCK pinned (while blocked)"
        }
        Class::Read if spec.has_cached_form() => "local tier",
        Class::WriteAll => "forwarded, empties the local tier",
        Class::Script { read_only: false } => {
            "forwarded; the keys it declares leave the local tier, all keys if it declares none"
        }
        Class::Script { read_only: true }
        | Class::Read
        | Class::Write
        | Class::KeySpace
        | Class::CountKeys
        | Class::Publish
        | Class::Admin => "forwarded",
    }
}

/// What can be said of a cluster that is one node without asking Redis.
fn of_one_node(spec: &CommandSpec) -> bool {
    matches!(
        spec.subcommand(),
        Some(
            "count-failure-reports"
                | "help"
                | "info"
                | "keyslot"
                | "links"
                | "myid"
                | "myshardid"
                | "nodes"
                | "replicas"
                | "shards"
                | "slaves"
                | "slots"
        )
    )
}

/// Would put the state of one client on a connection shared by many.
fn unsupported_client(spec: &CommandSpec) -> bool {
    spec.id() == CommandId::Client && matches!(spec.subcommand(), Some("tracking" | "caching"))
}

fn under_prefix(spec: &CommandSpec) -> String {
    let plain = Allowed::default();
    let prefixed = Allowed {
        prefix: true,
        dangerous: true,
    };
    let mut parts = Vec::new();
    match (plain_class(spec, plain), plain_class(spec, prefixed)) {
        (Class::Refused(reason), _) if reason != Refused::Dangerous => return "–".to_owned(),
        (_, Class::Refused(_)) => return "refused".to_owned(),
        (Class::Script { .. }, _) => return "declared keys".to_owned(),
        (Class::Local(local), _) if !matches!(local, Local::Why | Local::Invalidate) => {
            return "–".to_owned();
        }
        _ => {}
    }
    match spec.id() {
        CommandId::Keys | CommandId::Scan => parts.push("pattern"),
        CommandId::Dbsize | CommandId::Randomkey => parts.push("own keys only"),
        CommandId::Psubscribe
        | CommandId::Subscribe
        | CommandId::Unsubscribe
        | CommandId::Punsubscribe
        | CommandId::Publish => parts.push("keyspace channels"),
        CommandId::Pubsub if matches!(spec.subcommand(), Some("channels" | "numsub")) => {
            parts.push("keyspace channels");
        }
        // Rules match the key as the app writes it.
        CommandId::PannierWhy | CommandId::PannierInvalidate => {}
        _ if has_keys(spec) => parts.push("keys"),
        _ => {}
    }
    match ReplyRewrite::of(spec) {
        ReplyRewrite::KeyArray
        | ReplyRewrite::ScanReply
        | ReplyRewrite::FirstElement
        | ReplyRewrite::StreamNames => parts.push("reply"),
        ReplyRewrite::None
        | ReplyRewrite::SingleKey
        | ReplyRewrite::Channels
        | ReplyRewrite::Message
        | ReplyRewrite::GroupError => {}
    }
    if parts.is_empty() {
        "–".to_owned()
    } else {
        parts.join(", ")
    }
}

fn has_keys(spec: &CommandSpec) -> bool {
    spec.key_specs().iter().any(|key_spec| {
        let placed = key_spec.begin != BeginSearch::Unknown && key_spec.find != FindKeys::Unknown;
        placed && !key_spec.flags.has(KeyFlags::NOT_KEY)
    })
}
