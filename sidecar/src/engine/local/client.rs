//! `CLIENT`: the app's connections to the sidecar, not the sidecar's to Redis.

use super::{
    super::{Flow, Turn, refuse},
    say,
};
use crate::{
    client::{
        ClientHandle,
        session::{ReplyMode, Session},
    },
    command::unknown_subcommand,
};

const HELP: [&str; 14] = [
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GETNAME",
    "    Return the name of the current connection.",
    "ID",
    "    Return the ID of the current connection.",
    "INFO",
    "    Return information about the current client connection.",
    "KILL <ip:port> | <option> <value> [<option> <value> [...]]",
    "    Kill connections to the sidecar: ADDR, LADDR, ID, SKIPME, TYPE, USER.",
    "LIST [ID <id> [<id> ...]]",
    "    Return information about connections to the sidecar.",
    "REPLY (ON|OFF|SKIP), SETINFO, SETNAME, UNBLOCK <id> [TIMEOUT|ERROR], NO-EVICT, NO-TOUCH",
    "HELP",
    "    Print this help.",
];

/// Answers a `CLIENT` subcommand.
pub fn client(turn: &Turn<'_>, session: &mut Session, args: &[&[u8]]) -> Flow {
    let me = &turn.client.handle;
    let rest = args.get(2..).unwrap_or_default();
    match (args[1].to_ascii_lowercase().as_slice(), rest) {
        (b"id", []) => say(session, |reply| reply.integer(signed(me.id))),
        (b"getname", []) => {
            let name = me.info().name;
            say(session, |reply| {
                if name.is_empty() {
                    reply.null();
                } else {
                    reply.bulk(name.as_bytes());
                }
            })
        }
        (b"setname", [name]) => match set_name(turn, name) {
            Ok(()) => say(session, |reply| reply.ok()),
            Err(error) => refuse(turn, session, error),
        },
        (b"setinfo", [field, value]) => set_info(turn, session, field, value),
        (b"info", []) => {
            let line = format!("{}\n", me.line());
            say(session, |reply| reply.verbatim(&line))
        }
        (b"list", filter) => list(turn, session, filter),
        (b"kill", filter) if !filter.is_empty() => kill(turn, session, filter),
        (b"reply", [mode]) => reply_mode(turn, session, mode),
        (b"unblock", [id, how @ ..]) => unblock(turn, session, id, how),
        (b"no-evict" | b"no-touch", [switch]) if is_switch(switch) => {
            say(session, |reply| reply.ok())
        }
        (b"getredir", []) => say(session, |reply| reply.integer(-1)),
        (b"trackinginfo", []) => say(session, |reply| {
            reply.map(3);
            reply.bulk(b"flags");
            reply.set(1);
            reply.bulk(b"off");
            reply.bulk(b"redirect");
            reply.integer(-1);
            reply.bulk(b"prefixes");
            reply.array(0);
        }),
        (b"tracking" | b"caching", _) => refuse(
            turn,
            session,
            "ERR CLIENT TRACKING is not available through Pannier: its local tier is kept coherent for you",
        ),
        (b"help", []) => say(session, |reply| {
            reply.array(HELP.len());
            for line in HELP {
                reply.simple(line);
            }
        }),
        (
            b"id" | b"getname" | b"setname" | b"setinfo" | b"info" | b"kill" | b"reply"
            | b"unblock" | b"no-evict" | b"no-touch" | b"getredir" | b"trackinginfo" | b"help",
            _,
        ) => {
            let name = String::from_utf8_lossy(args[1]).to_lowercase();
            refuse(
                turn,
                session,
                format!("ERR wrong number of arguments for 'client|{name}' command"),
            )
        }
        _ => refuse(turn, session, unknown_subcommand(args)),
    }
}

fn signed(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

fn is_switch(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"on") || word.eq_ignore_ascii_case(b"off")
}

/// Sets the name; as in Redis it must be printable and without blanks.
pub fn set_name(turn: &Turn<'_>, name: &[u8]) -> Result<(), &'static str> {
    let name = shown(name)
        .ok_or("ERR Client names cannot contain spaces, newlines or special characters.")?;
    turn.client.handle.update(|info| info.name = name);
    Ok(())
}

fn shown(text: &[u8]) -> Option<String> {
    text.iter()
        .all(|byte| (b'!'..=b'~').contains(byte))
        .then(|| String::from_utf8_lossy(text).into_owned())
}

fn set_info(turn: &Turn<'_>, session: &mut Session, field: &[u8], value: &[u8]) -> Flow {
    let Some(value) = shown(value) else {
        let field = String::from_utf8_lossy(field).to_lowercase();
        let error = format!("ERR {field} cannot contain spaces, newlines or special characters.");
        return refuse(turn, session, &error);
    };
    if field.eq_ignore_ascii_case(b"lib-name") {
        turn.client.handle.update(|info| info.lib_name = value);
    } else if field.eq_ignore_ascii_case(b"lib-ver") {
        turn.client.handle.update(|info| info.lib_ver = value);
    } else {
        let field = String::from_utf8_lossy(field).into_owned();
        return refuse(turn, session, format!("ERR Unrecognized option '{field}'"));
    }
    say(session, |reply| reply.ok())
}

fn list(turn: &Turn<'_>, session: &mut Session, filter: &[&[u8]]) -> Flow {
    let clients = &turn.worker.shared.clients;
    let wanted: Vec<_> = match filter {
        [] => clients.all(),
        [word, ids @ ..] if word.eq_ignore_ascii_case(b"ID") && !ids.is_empty() => {
            let ids: Option<Vec<u64>> = ids.iter().map(|id| number(id)).collect();
            let Some(ids) = ids else {
                return refuse(turn, session, "ERR Invalid client ID");
            };
            ids.into_iter().filter_map(|id| clients.get(id)).collect()
        }
        [word, kind] if word.eq_ignore_ascii_case(b"TYPE") => {
            match kind.to_ascii_lowercase().as_slice() {
                b"normal" => clients
                    .all()
                    .into_iter()
                    .filter(|client| !is_subscriber(client))
                    .collect(),
                b"pubsub" => clients
                    .all()
                    .into_iter()
                    .filter(|client| is_subscriber(client))
                    .collect(),
                b"master" | b"replica" | b"slave" => Vec::new(),
                _ => {
                    let kind = String::from_utf8_lossy(kind).into_owned();
                    return refuse(turn, session, format!("ERR Unknown client type '{kind}'"));
                }
            }
        }
        _ => return refuse(turn, session, "ERR syntax error"),
    };
    let text = wanted
        .iter()
        .fold(String::new(), |text, client| text + &client.line() + "\n");
    say(session, |reply| reply.verbatim(&text))
}

fn is_subscriber(client: &ClientHandle) -> bool {
    client.info().flags.contains('P')
}

fn kill(turn: &Turn<'_>, session: &mut Session, filter: &[&[u8]]) -> Flow {
    let all = turn.worker.shared.clients.all();
    let me = turn.client.handle.id;
    if let [addr] = filter {
        let Some(victim) = all.iter().find(|client| client.addr.as_bytes() == *addr) else {
            return refuse(turn, session, "ERR No such client");
        };
        end(session, victim, me);
        return say(session, |reply| reply.ok());
    }
    let mut victims = all;
    let mut skip_me = true;
    for pair in filter.chunks(2) {
        let [option, value] = pair else {
            return refuse(turn, session, "ERR syntax error");
        };
        match option.to_ascii_lowercase().as_slice() {
            b"id" => match number(value) {
                Some(id) => victims.retain(|client| client.id == id),
                None => return refuse(turn, session, "ERR client-id should be greater than 0"),
            },
            b"addr" => victims.retain(|client| client.addr.as_bytes() == *value),
            b"laddr" => victims.retain(|client| client.laddr.as_bytes() == *value),
            b"user" => victims.retain(|_| *value == b"default"),
            b"type" => match value.to_ascii_lowercase().as_slice() {
                b"normal" => victims.retain(|client| !is_subscriber(client)),
                b"pubsub" => victims.retain(|client| is_subscriber(client)),
                b"master" | b"replica" | b"slave" => victims.clear(),
                _ => {
                    let kind = String::from_utf8_lossy(value).into_owned();
                    return refuse(turn, session, format!("ERR Unknown client type '{kind}'"));
                }
            },
            b"skipme" if value.eq_ignore_ascii_case(b"yes") => skip_me = true,
            b"skipme" if value.eq_ignore_ascii_case(b"no") => skip_me = false,
            _ => return refuse(turn, session, "ERR syntax error"),
        }
    }
    victims.retain(|client| !skip_me || client.id != me);
    for victim in &victims {
        end(session, victim, me);
    }
    say(session, |reply| {
        reply.integer(i64::try_from(victims.len()).unwrap_or(i64::MAX));
    })
}

fn end(session: &mut Session, victim: &ClientHandle, me: u64) {
    if victim.id == me {
        // The reply first.
        session.closing = true;
    } else {
        victim.kill();
    }
}

fn reply_mode(turn: &Turn<'_>, session: &mut Session, mode: &[u8]) -> Flow {
    match mode.to_ascii_lowercase().as_slice() {
        b"on" => {
            session.replies = ReplyMode::On;
            say(session, |reply| reply.ok())
        }
        b"off" => {
            session.replies = ReplyMode::Off;
            Flow::Done
        }
        b"skip" => {
            if session.replies != ReplyMode::Off {
                session.replies = ReplyMode::SkipNext;
            }
            Flow::Done
        }
        _ => refuse(turn, session, "ERR syntax error"),
    }
}

fn unblock(turn: &Turn<'_>, session: &mut Session, id: &[u8], how: &[&[u8]]) -> Flow {
    let error = match how {
        [] => false,
        [how] if how.eq_ignore_ascii_case(b"TIMEOUT") => false,
        [how] if how.eq_ignore_ascii_case(b"ERROR") => true,
        _ => {
            return refuse(
                turn,
                session,
                "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
            );
        }
    };
    let Some(id) = number(id) else {
        return refuse(turn, session, "ERR value is not an integer or out of range");
    };
    let target = turn
        .worker
        .shared
        .clients
        .get(id)
        .filter(|client| client.info().flags.contains('b'));
    if let Some(target) = &target {
        target.unblock(error);
    }
    say(session, |reply| reply.integer(i64::from(target.is_some())))
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
