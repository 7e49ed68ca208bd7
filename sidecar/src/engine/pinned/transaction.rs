//! `WATCH`, `MULTI` and what is queued: state follows the command that was sent, so that a whole
//! transaction fits into one pipeline.

use std::rc::Rc;

use super::{
    super::{
        Flow, Request, Turn, forward, local, refuse,
        reply::{After, ReplyChange, Target},
    },
    Pinned,
    sending::{prepare, rule, send, send_alone, send_and_wait, send_behind, send_plain, wait_for},
    waiting,
};
use crate::{
    client::session::Session,
    command::{Class, CommandId, KeyPositions, Local, Pin, ReplyRewrite, class, write_command},
    planted::{self, Bug},
    resp::reply::Value,
};

/// State between `WATCH` or `MULTI` and `EXEC`.
#[derive(Default)]
pub(super) struct Transaction {
    pub(super) phase: Phase,
    /// `MULTI` itself goes out with the first command.
    pub(super) begins: bool,
    /// A queued command may have written any key.
    pub(super) flush: bool,
    /// Keys marked as being written until it ends.
    pub(super) keys: Vec<Box<[u8]>>,
    /// What has to come off the replies, by place.
    pub(super) queued: Vec<ReplyRewrite>,
    /// Keys that get a TTL afterwards, in milliseconds.
    pub(super) follow: Vec<(Box<[u8]>, u64)>,
    /// Databases that `SELECT` asked for, by place.
    pub(super) selects: Vec<(usize, u16)>,
}

/// How far a transaction has come.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    None,
    /// After `WATCH`.
    Watching,
    /// After `MULTI`.
    Open,
    /// A queued command was refused here: `EXEC` must fail as Redis would let it fail.
    Aborted,
}

pub(super) fn while_watching(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    match class(request.spec, request.args, turn.allowed(request.args[0])) {
        Class::Local(Local::Hello) if session.unanswered() > 0 => Flow::Wait,
        Class::Local(Local::Select) => select(turn, session, request),
        Class::Local(Local::Info | Local::ConfigGet) => send_plain(turn, session, request),
        Class::Local(which) => local::answer(turn, session, which, request),
        Class::Refused(reason) => refuse(turn, session, reason.message(request.args[0])),
        Class::Pin(Pin::Subscribe | Pin::Monitor) | Class::Unsubscribe => refuse(
            turn,
            session,
            "ERR not possible while keys are watched: say UNWATCH first or use another connection",
        ),
        Class::Pin(pin @ (Pin::Block | Pin::Once)) => send_alone(turn, session, pin, request),
        Class::OnWriter if turn.worker.is_cluster() => waiting::everywhere(turn, session, request),
        Class::OnWriter => send_alone(turn, session, Pin::Block, request),
        _ => send_plain(turn, session, request),
    }
}

pub(super) fn in_multi(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Request { spec, args, .. } = request;
    match spec.id() {
        CommandId::Exec if spec.arity_matches(args.len()) => return exec(turn, session, request),
        // Behind a `MULTI` that goes out with it, it is queued like any other.
        CommandId::Unwatch if begins(session) => return queue(turn, session, request),
        CommandId::Multi | CommandId::Watch | CommandId::Unwatch => {
            return send_plain(turn, session, request);
        }
        CommandId::Discard if spec.arity_matches(args.len()) && discard_unsent(session) => {
            session.reply(|reply| reply.ok());
            return Flow::Done;
        }
        CommandId::Discard => return send_and_wait(turn, session, request),
        CommandId::Select => return select_in_multi(turn, session, request),
        _ => {}
    }
    let error = match class(spec, args, turn.allowed(args[0])) {
        Class::Local(
            Local::Ping
            | Local::Echo
            | Local::Info
            | Local::ConfigGet
            | Local::Command
            | Local::Role,
        ) => None,
        Class::Local(_) => Some(format!(
            "ERR {} is not possible inside MULTI through Pannier",
            spec.name()
        )),
        Class::Refused(reason) => Some(reason.message(args[0])),
        Class::Pin(Pin::Subscribe | Pin::Monitor) | Class::Unsubscribe => Some(format!(
            "ERR {} is not possible inside MULTI through Pannier",
            spec.name()
        )),
        _ => None,
    };
    match error {
        None => queue(turn, session, request),
        Some(error) => abort(turn, session, &error),
    }
}

/// Whether no server has heard of the transaction yet.
fn begins(session: &Session) -> bool {
    let pinned = session.pinned.as_ref();
    pinned.is_some_and(|pinned| pinned.transaction.begins)
}

/// Ends a transaction of which no server has heard: its first command was refused here.
fn discard_unsent(session: &mut Session) -> bool {
    let pinned = session.pinned.as_mut();
    let Some(pinned) = pinned.filter(|pinned| pinned.transaction.begins) else {
        return false;
    };
    pinned.transaction = Transaction::default();
    true
}

/// A command that Redis never saw was refused: the transaction must fail as a whole.
pub(super) fn abort(turn: &Turn<'_>, session: &mut Session, error: &str) -> Flow {
    if let Some(pinned) = &mut session.pinned {
        pinned.transaction.phase = Phase::Aborted;
    }
    refuse(turn, session, error)
}

pub(super) fn queue(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let mut found = turn.worker.positions.take();
    let flow = queue_keyed(turn, session, request, &mut found);
    turn.worker.positions.replace(found);
    flow
}

pub(super) fn queue_keyed(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
    found: &mut KeyPositions,
) -> Flow {
    let ruled = match rule(turn, request, found) {
        Ok(ruled) => ruled,
        Err(error) => return abort(turn, session, &error),
    };
    let prepared = match prepare(turn, request, &ruled, found) {
        Ok(prepared) => prepared,
        Err(reason) => return abort(turn, session, &reason.message(request.args[0])),
    };
    let after = if planted::is(Bug::TransactionKeys) {
        After::default()
    } else {
        forward::after(turn, request, &ruled, ReplyRewrite::None, found)
    };
    let Some(pinned) = &mut session.pinned else {
        return Flow::Wait;
    };
    pinned.transaction.queued.push(prepared.rewrite);
    pinned.transaction.flush |= after.flush;
    if after.marked {
        pinned.transaction.keys.extend(after.keys);
    }
    let follow = prepared
        .follow
        .iter()
        .map(|(index, ms)| (Box::from(request.args[*index as usize]), *ms));
    pinned.transaction.follow.extend(follow);
    let link = Rc::clone(&pinned.link);
    let id = request.spec.id();
    if std::mem::take(&mut pinned.transaction.begins) {
        // Without `MULTI` the command would run at once.
        let number = send_behind(turn, session, &link, &[b"MULTI"], id, prepared.bytes);
        wait_for(session, number, false);
    } else {
        send(turn, session, &link, id, None, &prepared.bytes);
    }
    Flow::Done
}

pub(super) fn exec(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Some(pinned) = &mut session.pinned else {
        return Flow::Wait;
    };
    let link = Rc::clone(&pinned.link);
    let mut after = After {
        marked: true,
        keys: std::mem::take(&mut pinned.transaction.keys),
        flush: pinned.transaction.flush,
        ..After::default()
    };
    if pinned.transaction.phase == Phase::Aborted {
        after.settle(turn.worker);
        link.send(Target::Ignore(0), false, |out| {
            write_command(&[b"DISCARD"], out);
        });
        pinned.transaction.phase = Phase::None;
        return refuse(
            turn,
            session,
            "EXECABORT Transaction discarded because of previous errors.",
        );
    }
    let queued = std::mem::take(&mut pinned.transaction.queued);
    if turn.active.prefix.is_some() && queued.iter().any(|rewrite| *rewrite != ReplyRewrite::None) {
        after.change = ReplyChange::Exec(queued);
    }
    let number = send(
        turn,
        session,
        &link,
        request.spec.id(),
        Some(after),
        b"*1\r\n$4\r\nEXEC\r\n",
    );
    wait_for(session, number, false);
    Flow::Done
}

/// `SELECT` of a client with a connection of its own: that connection changes its database.
pub(super) fn select(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let db = database(request);
    let flow = send_and_wait(turn, session, request);
    if let (Some(db), Some(pinned)) = (db, &mut session.pinned) {
        pinned.transaction.selects = vec![(0, db)];
    }
    flow
}

pub(super) fn select_in_multi(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
) -> Flow {
    let db = database(request);
    if let (Some(db), Some(pinned)) = (db, &mut session.pinned) {
        let place = pinned.transaction.queued.len();
        pinned.transaction.selects.push((place, db));
    }
    queue(turn, session, request)
}

pub(super) fn database(request: Request<'_>) -> Option<u16> {
    std::str::from_utf8(request.args.get(1)?).ok()?.parse().ok()
}

impl Pinned {
    /// The database in which a transaction ended, if it changed it.
    pub(super) fn selected(&mut self, frame: &[u8]) -> Option<u16> {
        let selects = std::mem::take(&mut self.transaction.selects);
        if selects.is_empty() {
            return None;
        }
        self.moved = true;
        let replies = Value::read(frame).ok()?;
        let replies = replies.list()?;
        let done = |place: usize| matches!(replies.get(place), Some(Value::Text(_)));
        selects
            .into_iter()
            .rev()
            .find(|(place, _)| done(*place))
            .map(|(_, db)| db)
    }
}
