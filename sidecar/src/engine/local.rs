//! Commands that the sidecar answers itself, as Redis would answer them.

mod client;
mod cluster;
mod hello;

use super::{
    Flow, Request, Turn, count, forward, introspect,
    pinned::Pinned,
    refuse,
    reply::{After, ReplyChange},
};
use crate::{
    client::session::Session,
    command::{
        self, CommandReply, Local, unknown_subcommand, write_count, write_docs, write_getkeys,
        write_help, write_info, write_list, wrong_arity,
    },
    metrics::Outcome,
    resp::{Proto, reply::Value, write::Reply},
    state::Connection,
    upstream::Status,
    worker::Worker,
};

/// Answers a command of class `Local`.
pub fn answer(turn: &Turn<'_>, session: &mut Session, which: Local, request: Request<'_>) -> Flow {
    let Request { spec, args, .. } = request;
    if !spec.arity_matches(args.len()) {
        return refuse(turn, session, wrong_arity(spec));
    }
    let flow = match which {
        Local::Ping => ping(session, args),
        Local::Echo => say(session, |reply| reply.bulk(args[1])),
        Local::Quit => quit(session),
        Local::Reset => hello::reset(turn, session),
        Local::Hello => return hello::hello(turn, session, args),
        Local::Auth => return hello::auth(turn, session, args),
        Local::Select => return hello::select(turn, session, args),
        Local::Client => return client::client(turn, session, args),
        Local::Command => return command(turn, session, args),
        Local::ConfigGet => return config_get(turn, session, request),
        Local::Role => say(session, |reply| {
            reply.array(3);
            reply.bulk(b"master");
            reply.integer(0);
            reply.array(0);
        }),
        Local::Cluster => return cluster::cluster(turn, session, spec, args),
        Local::ClusterMode => return cluster::mode(turn, session),
        Local::Info => return info(turn, session, request),
        Local::Why => introspect::why(turn, session, args[1]),
        Local::Stats => introspect::stats(turn, session),
        Local::Read => return introspect::read(turn, session, args[1]),
        Local::Sidecars => return super::fleet::sidecars(turn, session),
        Local::Invalidate => return super::fleet::invalidate(turn, session, &args[1..]),
    };
    if flow == Flow::Done {
        count(turn.worker, session.command, Outcome::Ok);
    }
    flow
}

fn say(session: &mut Session, write: impl FnOnce(&mut Reply<'_>)) -> Flow {
    session.reply(write);
    Flow::Done
}

fn ping(session: &mut Session, args: &[&[u8]]) -> Flow {
    if args.len() > 2 {
        return say(session, |reply| {
            reply.error("ERR wrong number of arguments for 'ping' command");
        });
    }
    let held = session.in_memory.as_ref();
    let pinned = session.pinned.as_ref();
    let subscribed =
        held.is_some_and(|held| held.is_subscribed()) || pinned.is_some_and(Pinned::is_subscribed);
    let subscribed = subscribed && session.proto == Proto::Resp2;
    say(session, |reply| match args.get(1) {
        _ if subscribed => {
            reply.array(2);
            reply.bulk(b"pong");
            reply.bulk(args.get(1).copied().unwrap_or_default());
        }
        Some(text) => reply.bulk(text),
        None => reply.simple("PONG"),
    })
}

fn quit(session: &mut Session) -> Flow {
    session.closing = true;
    say(session, |reply| reply.ok())
}

// === COMMAND ===

fn command(turn: &Turn<'_>, session: &mut Session, args: &[&[u8]]) -> Flow {
    let table = &turn.commands;
    let Some(subcommand) = args.get(1) else {
        return say(session, |reply| write_info(table, &[], reply));
    };
    let rest = &args[2..];
    match subcommand.to_ascii_lowercase().as_slice() {
        b"count" if rest.is_empty() => say(session, |reply| write_count(table, reply)),
        b"info" => say(session, |reply| write_info(table, rest, reply)),
        b"docs" => say(session, |reply| write_docs(table, rest, reply)),
        b"list" => say(session, |reply| write_list(table, rest, reply)),
        b"getkeys" => say(session, |reply| write_getkeys(table, rest, false, reply)),
        b"getkeysandflags" => say(session, |reply| write_getkeys(table, rest, true, reply)),
        b"help" => say(session, |reply| write_help(reply)),
        b"count" => refuse(
            turn,
            session,
            "ERR wrong number of arguments for 'command|count' command",
        ),
        _ => refuse(turn, session, unknown_subcommand(args)),
    }
}

impl CommandReply for Reply<'_> {
    fn array(&mut self, len: usize) {
        self.array(len);
    }
    fn map(&mut self, len: usize) {
        self.map(len);
    }
    fn set(&mut self, len: usize) {
        self.set(len);
    }
    fn bulk(&mut self, bytes: &[u8]) {
        self.bulk(bytes);
    }
    fn simple(&mut self, text: &str) {
        self.simple(text);
    }
    fn integer(&mut self, number: i64) {
        self.integer(number);
    }
    fn null(&mut self) {
        self.null();
    }
    fn error(&mut self, text: &str) {
        self.error(text);
    }
}

// === INFO and CONFIG GET: the upstream's word where there is one ===

/// Whether Redis can be asked now.
fn upstream_answers(turn: &Turn<'_>, session: &Session) -> bool {
    turn.worker.has_upstream()
        && turn.worker.links(session.db).is_some_and(|set| {
            let link = set.plain(turn.worker, session.proto);
            matches!(link.status(), Status::Up | Status::Connecting)
        })
}

fn config_get(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    if upstream_answers(turn, session) {
        let after = After {
            change: ReplyChange::Secrets,
            ..After::default()
        };
        return forward::as_is(turn, session, request, after);
    }
    let memory = turn.active.config.local.memory.0.to_string();
    let settings = [
        ("appendonly", "no"),
        ("databases", "16"),
        ("maxmemory", memory.as_str()),
        ("maxmemory-policy", "allkeys-lru"),
        ("notify-keyspace-events", ""),
        ("proto-max-bulk-len", "536870912"),
        ("save", ""),
        ("timeout", "0"),
    ];
    let wanted: Vec<_> = settings
        .iter()
        .filter(|(name, _)| {
            let name = name.as_bytes();
            request.args[2..]
                .iter()
                .any(|glob| command::glob_match(glob, name, true))
        })
        .collect();
    say(session, |reply| {
        reply.map(wanted.len());
        for (name, value) in wanted {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
    })
}

/// `INFO`: the upstream's text with our section, or our own text without an upstream.
pub fn info(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let args = request.args;
    let asks = |name: &[u8]| args[1..].iter().any(|arg| arg.eq_ignore_ascii_case(name));
    if args.len() == 2 && asks(b"pannier") {
        let text = introspect::info_section(turn.worker);
        return say(session, |reply| reply.verbatim(&text));
    }
    if !upstream_answers(turn, session) {
        let text = introspect::info_text(turn.worker, &args[1..]);
        return say(session, |reply| reply.verbatim(&text));
    }
    let everything = args.len() == 1
        || asks(b"all")
        || asks(b"everything")
        || asks(b"default")
        || asks(b"pannier");
    let change = if everything {
        ReplyChange::Info
    } else {
        ReplyChange::None
    };
    let after = After {
        change,
        ..After::default()
    };
    forward::as_is(turn, session, request, after)
}

/// Appends our section to the upstream's text.
pub fn append_info(worker: &Worker, proto: Proto, frame: &[u8], out: &mut Vec<u8>) {
    let text = match Value::read(frame) {
        Ok(Value::Text(text)) => String::from_utf8_lossy(text).into_owned(),
        _ => return out.extend_from_slice(frame),
    };
    let text = format!(
        "{}\r\n\r\n{}",
        text.trim_end(),
        introspect::info_section(worker)
    );
    Reply::new(out, proto).verbatim(&text);
}

/// Settings of Redis that are secrets: what the sidecar logs in with is not for apps (P10).
const SECRETS: [&[u8]; 5] = [
    b"requirepass",
    b"masterauth",
    b"masteruser",
    b"tls-key-file-pass",
    b"tls-client-key-file-pass",
];

/// The answer to `CONFIG GET` with secrets left empty.
pub fn without_secrets(proto: Proto, frame: &[u8], out: &mut Vec<u8>) {
    let Ok(value) = Value::read(frame) else {
        return out.extend_from_slice(frame);
    };
    let pairs: Vec<(&Value<'_>, &Value<'_>)> = match &value {
        Value::Map(pairs) => pairs
            .iter()
            .map(|(name, setting)| (name, setting))
            .collect(),
        Value::List(items) => items
            .chunks_exact(2)
            .map(|pair| (&pair[0], &pair[1]))
            .collect(),
        _ => return out.extend_from_slice(frame),
    };
    let mut reply = Reply::new(out, proto);
    reply.map(pairs.len());
    for (name, setting) in pairs {
        let name = name.text().unwrap_or_default();
        let secret = SECRETS
            .iter()
            .any(|secret| name.eq_ignore_ascii_case(secret));
        reply.bulk(name);
        reply.bulk(if secret {
            b""
        } else {
            setting.text().unwrap_or_default()
        });
    }
}

/// In plain words, for `INFO` and `/state`.
pub fn connection_words(connection: &Connection) -> String {
    match connection {
        Connection::None => "memory only".to_owned(),
        Connection::Connecting => "connecting".to_owned(),
        Connection::Ready => "connected and ready".to_owned(),
        Connection::Unavailable(why) => format!("unavailable: {why}"),
    }
}
