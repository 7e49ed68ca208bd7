//! What a connection negotiates: protocol version, authentication, database.

use subtle::ConstantTimeEq as _;

use super::super::{Flow, Turn, memory, pinned, refuse};
use crate::{
    client::session::{ReplyMode, Session},
    resp::{Proto, request::Limits},
    upstream::Status,
};

/// `HELLO [protover [AUTH username password] [SETNAME clientname]]`
pub fn hello(turn: &Turn<'_>, session: &mut Session, args: &[&[u8]]) -> Flow {
    let proto = match args
        .get(1)
        .map(|version| std::str::from_utf8(version).map(str::parse::<u32>))
    {
        None => session.proto,
        Some(Ok(Ok(2))) => Proto::Resp2,
        Some(Ok(Ok(3))) => Proto::Resp3,
        Some(Ok(Ok(_))) => return refuse(turn, session, "NOPROTO unsupported protocol version"),
        Some(_) => {
            return refuse(
                turn,
                session,
                "ERR Protocol version is not an integer or out of range",
            );
        }
    };
    // Replies in the old version must be out before the new one begins.
    if session.unanswered() > 0 {
        return Flow::Wait;
    }
    if session.pinned.is_some() && proto != session.proto {
        return refuse(
            turn,
            session,
            "ERR HELLO cannot change the protocol version while subscribed",
        );
    }
    let mut at = 2;
    let mut name = None;
    while let Some(option) = args.get(at) {
        let left = args.len() - at - 1;
        if option.eq_ignore_ascii_case(b"AUTH") && left >= 2 {
            if !log_in(turn, session, Some(args[at + 1]), args[at + 2]) {
                return refuse(turn, session, WRONG_PASSWORD);
            }
            at += 3;
        } else if option.eq_ignore_ascii_case(b"SETNAME") && left >= 1 {
            name = Some(args[at + 1]);
            at += 2;
        } else {
            let option = String::from_utf8_lossy(option).into_owned();
            return refuse(
                turn,
                session,
                format!("ERR Syntax error in HELLO option '{option}'"),
            );
        }
    }
    if !session.authenticated {
        return refuse(
            turn,
            session,
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        );
    }
    if let Some(name) = name
        && let Err(error) = super::client::set_name(turn, name)
    {
        return refuse(turn, session, error);
    }
    session.proto = proto;
    turn.client.handle.update(|info| info.proto = proto);
    memory::protocol_changed(session);
    greet(turn, session);
    Flow::Done
}

fn greet(turn: &Turn<'_>, session: &mut Session) {
    let version = turn.worker.server_version();
    let id = i64::try_from(turn.client.handle.id).unwrap_or(i64::MAX);
    session.reply(|reply| {
        reply.map(7);
        reply.bulk(b"server");
        reply.bulk(b"redis");
        reply.bulk(b"version");
        reply.bulk(version.as_bytes());
        reply.bulk(b"proto");
        reply.integer(if reply.proto == Proto::Resp3 { 3 } else { 2 });
        reply.bulk(b"id");
        reply.integer(id);
        reply.bulk(b"mode");
        reply.bulk(b"standalone");
        reply.bulk(b"role");
        reply.bulk(b"master");
        reply.bulk(b"modules");
        reply.array(0);
    });
}

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// `AUTH [username] password`: what the app says stays here, it is never forwarded.
pub fn auth(turn: &Turn<'_>, session: &mut Session, args: &[&[u8]]) -> Flow {
    let (user, password) = match args {
        [_, password] => (None, *password),
        [_, user, password] => (Some(*user), *password),
        _ => return refuse(turn, session, "ERR syntax error"),
    };
    if log_in(turn, session, user, password) {
        session.reply(|reply| reply.ok());
        return Flow::Done;
    }
    refuse(turn, session, WRONG_PASSWORD)
}

fn log_in(turn: &Turn<'_>, session: &mut Session, user: Option<&[u8]>, password: &[u8]) -> bool {
    // Without a local password everything is welcome: apps keep the password they always had.
    if let Some(secret) = &turn.active.credentials.local_password {
        let user_is_known = user.is_none_or(|user| user == b"default");
        let matches = bool::from(secret.expose().as_bytes().ct_eq(password));
        if !user_is_known || !matches {
            return false;
        }
    }
    session.authenticated = true;
    let max = turn.active.config.sidecar.max_bulk_size.0;
    session.limits = Limits::new(usize::try_from(max).unwrap_or(usize::MAX));
    true
}

/// `SELECT index`: from now on the links of another database.
pub fn select(turn: &Turn<'_>, session: &mut Session, args: &[&[u8]]) -> Flow {
    let Some(index) = std::str::from_utf8(args[1])
        .ok()
        .and_then(|text| text.parse::<i64>().ok())
    else {
        return refuse(turn, session, "ERR value is not an integer or out of range");
    };
    let Ok(db) = u16::try_from(index) else {
        return refuse(turn, session, OUT_OF_RANGE);
    };
    if session.unanswered() > 0 {
        return Flow::Wait;
    }
    if session.pinned.is_some() && db != session.db {
        return refuse(
            turn,
            session,
            "ERR SELECT is not possible while subscribed or watching",
        );
    }
    let known = if turn.worker.has_upstream() {
        match exists_upstream(turn, session, db) {
            Known::Yes => true,
            Known::No => false,
            Known::Later => return Flow::Wait,
        }
    } else {
        db < memory::DATABASES
    };
    if !known {
        return refuse(turn, session, OUT_OF_RANGE);
    }
    session.db = db;
    turn.client.handle.update(|info| info.db = db);
    session.reply(|reply| reply.ok());
    Flow::Done
}

const OUT_OF_RANGE: &str = "ERR DB index is out of range";

enum Known {
    Yes,
    No,
    Later,
}

/// Whether the server has that database: a link that selects it in its handshake tells.
fn exists_upstream(turn: &Turn<'_>, session: &Session, db: u16) -> Known {
    if db == session.db {
        return Known::Yes;
    }
    let Some(set) = turn.worker.links(db) else {
        return Known::No;
    };
    let link = set.plain(turn.worker, session.proto).clone();
    match link.status() {
        Status::Up => Known::Yes,
        Status::Connecting => {
            link.wait(turn.client);
            Known::Later
        }
        Status::NoDatabase => {
            turn.worker.drop_links(db);
            Known::No
        }
        // Redis is away: let the next command say so.
        Status::Down(_) | Status::Closed => Known::Yes,
    }
}

/// `RESET`: the state after connect.
pub fn reset(turn: &Turn<'_>, session: &mut Session) -> Flow {
    let blocked = session
        .pinned
        .as_ref()
        .is_some_and(pinned::Pinned::is_blocked);
    if session.unanswered() > 0 && !blocked {
        return Flow::Wait;
    }
    pinned::release(turn.client, session);
    memory::let_go(turn.client, session);
    session.proto = Proto::Resp2;
    session.db = u16::try_from(turn.active.config.keyspace.database).unwrap_or(0);
    session.replies = ReplyMode::On;
    if turn.active.credentials.local_password.is_some() {
        session.authenticated = false;
        session.limits = Limits::unauthenticated();
    }
    let db = session.db;
    turn.client.handle.update(|info| {
        info.name.clear();
        info.flags = "";
        info.proto = Proto::Resp2;
        info.db = db;
    });
    session.reply(|reply| reply.simple("RESET"));
    Flow::Done
}
