//! Sends a command over the client's own link, after rules and prefix had their say.

use std::rc::Rc;

use smallvec::SmallVec;

use super::{
    super::{
        Flow, Request, Turn, expiry, forward,
        forward::Ruled,
        refuse,
        reply::{After, ClientTarget, Target},
    },
    Alone,
    transaction::Phase,
};
use crate::{
    client::session::{Lane, Session, Touches},
    command::{CommandId, KeyPositions, Pin, Refused, ReplyRewrite, apply_prefix, write_command},
    upstream::Link,
};

/// Until this reply says what came of it, later commands wait.
pub(super) fn wait_for(session: &mut Session, number: u64, blocked: bool) {
    let command = session.command;
    if let Some(pinned) = &mut session.pinned {
        pinned.alone = Some(Alone {
            number,
            command,
            blocked,
        });
    }
}

/// Where the message before a `WAIT` is published; nobody listens.
const BARRIER_CHANNEL: &[u8] = b"pannier:wait";

pub(super) struct Prepared {
    pub(super) bytes: Vec<u8>,
    pub(super) rewrite: ReplyRewrite,
    pub(super) follow: SmallVec<[(u32, u64); 2]>,
}

pub(super) fn rule(
    turn: &Turn<'_>,
    request: Request<'_>,
    found: &mut KeyPositions,
) -> Result<Ruled, String> {
    let ruled = forward::rule_keys(turn, request, found)?;
    if ruled.local > 0 {
        return Err("ERR keys of a rule with cache: LocalOnly live outside Redis: they cannot be part of this command here".to_owned());
    }
    Ok(ruled)
}

pub(super) fn prepare(
    turn: &Turn<'_>,
    request: Request<'_>,
    ruled: &Ruled,
    found: &mut KeyPositions,
) -> Result<Prepared, Refused> {
    let adjusted = expiry::adjust(turn, request, ruled);
    let words = adjusted.change.apply(request.args);
    let words: SmallVec<[&[u8]; 8]> = words.iter().map(AsRef::as_ref).collect();
    let mut bytes = Vec::new();
    let rewrite = match &turn.active.prefix {
        None => {
            write_command(&words, &mut bytes);
            ReplyRewrite::None
        }
        Some(prefix) => apply_prefix(prefix, request.spec, &words, found, &mut bytes)?,
    };
    Ok(Prepared {
        bytes,
        rewrite,
        follow: adjusted.follow,
    })
}

/// Sends a command over the client's link; its reply is awaited in turn.
pub(super) fn send_plain(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    match send_keyed(turn, session, request) {
        Ok(_) => Flow::Done,
        Err(error) => refuse(turn, session, &error),
    }
}

/// The same, and later commands wait for the reply.
pub(super) fn send_and_wait(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    match send_keyed(turn, session, request) {
        Ok(number) => {
            wait_for(session, number, false);
            Flow::Done
        }
        Err(error) => refuse(turn, session, &error),
    }
}

/// The same, and later commands wait until the reply has come, however long that takes.
pub(super) fn send_alone(
    turn: &Turn<'_>,
    session: &mut Session,
    pin: Pin,
    request: Request<'_>,
) -> Flow {
    if session.unanswered() > 0 {
        return Flow::Wait;
    }
    let Some(link) = session
        .pinned
        .as_ref()
        .map(|pinned| Rc::clone(&pinned.link))
    else {
        return Flow::Wait;
    };
    link.patient.set(pin == Pin::Block);
    if matches!(request.spec.id(), CommandId::Wait | CommandId::Waitaof) {
        return send_behind_barrier(turn, session, &link, request);
    }
    match send_keyed(turn, session, request) {
        Ok(number) => {
            wait_for(session, number, pin == Pin::Block);
            if let Some(pinned) = &mut session.pinned {
                pinned.monitor |= pin == Pin::Monitor;
            }
            Flow::Done
        }
        Err(error) => refuse(turn, session, &error),
    }
}

/// Redis counts the replicas that have the last write *of this connection*. A message on a channel
/// of ours is replicated like a write, so that what follows covers all that the client wrote
/// before, over whatever link.
fn send_behind_barrier(
    turn: &Turn<'_>,
    session: &mut Session,
    link: &Link,
    request: Request<'_>,
) -> Flow {
    let mut bytes = Vec::new();
    write_command(request.args, &mut bytes);
    let first: [&[u8]; 3] = [b"PUBLISH", BARRIER_CHANNEL, b""];
    let number = send_behind(turn, session, link, &first, request.spec.id(), bytes);
    wait_for(session, number, true);
    Flow::Done
}

/// Sends `first`, and the command once that was accepted; the answer is the command's slot.
pub(super) fn send_behind(
    turn: &Turn<'_>,
    session: &mut Session,
    link: &Link,
    first: &[&[u8]],
    command: CommandId,
    bytes: Vec<u8>,
) -> u64 {
    let number = session.reserve(Lane::Pinned, Touches::Anything);
    let target = ClientTarget::new(turn.client, number, command, After::default());
    link.send(Target::Barrier(Box::new((target, bytes))), false, |out| {
        write_command(first, out);
    });
    number
}

pub(super) fn send_keyed(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
) -> Result<u64, String> {
    let mut found = turn.worker.positions.take();
    let result = rule(turn, request, &mut found).and_then(|ruled| {
        let prepared = prepare(turn, request, &ruled, &mut found)
            .map_err(|reason| reason.message(request.args[0]))?;
        let after = forward::after(turn, request, &ruled, prepared.rewrite, &mut found);
        Ok((prepared, after))
    });
    turn.worker.positions.replace(found);
    let (prepared, mut after) = result?;
    let id = request.spec.id();
    let pinned = session
        .pinned
        .as_mut()
        .ok_or("ERR the connection was closed")?;
    match id {
        CommandId::Multi if !pinned.is_open() => pinned.transaction.phase = Phase::Open,
        CommandId::Watch if !pinned.is_open() => pinned.transaction.phase = Phase::Watching,
        CommandId::Discard => {
            after = After {
                marked: true,
                keys: std::mem::take(&mut pinned.transaction.keys),
                ..After::default()
            };
        }
        _ => {}
    }
    let link = Rc::clone(&pinned.link);
    let number = send(turn, session, &link, id, Some(after), &prepared.bytes);
    for (index, millis) in prepared.follow {
        forward::follow(turn, &link, request.args[index as usize], millis);
    }
    Ok(number)
}

pub(super) fn send(
    turn: &Turn<'_>,
    session: &mut Session,
    link: &Link,
    command: CommandId,
    after: Option<After>,
    bytes: &[u8],
) -> u64 {
    let number = session.reserve(Lane::Pinned, Touches::Anything);
    let target = ClientTarget::new(turn.client, number, command, after.unwrap_or_default());
    link.send(Target::Client(target), false, |out| {
        out.extend_from_slice(bytes);
    });
    number
}
