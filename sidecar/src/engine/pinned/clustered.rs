//! Connections of a client's own in front of a cluster: to which server they lead.
//!
//! `WATCH` and blocking commands name a key, so their slot says where. `MULTI` does not: the app
//! gets its `OK` at once, and the transaction goes where its first key lives. Subscribers listen at
//! any server; for shard channels see `shards`.

use std::rc::Rc;

use super::{
    super::{
        Flow, Request, Turn, local,
        redirect::{MAX_HOPS, Refusal},
        refuse,
        reply::{Target, error_text},
        spread,
    },
    Pinned, handle,
    sending::send_alone,
    settle, take_link,
    transaction::Phase,
};
use crate::{
    client::session::{Session, Unsent},
    command::{self, CommandId, Local, Pin, write_command},
    upstream::{Link, Lost, Role},
};

/// The slot that says where a client's own connection leads; none where any server will do.
/// `Err`: the command is dealt with.
pub(super) fn slot(
    turn: &Turn<'_>,
    session: &mut Session,
    pin: Pin,
    request: Request<'_>,
) -> Result<Option<u16>, Flow> {
    if !turn.worker.is_cluster() {
        return Ok(None);
    }
    if pin == Pin::Multi {
        session.unsent = Unsent::Open;
        session.reply(|reply| reply.ok());
        return Err(Flow::Done);
    }
    spread::slot_of(turn.worker, request)
        .map_err(|nowhere| refuse(turn, session, nowhere.to_string()))
}

/// A command behind a `MULTI` that no server knows of yet.
pub fn first_in_multi(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Request { spec, args, .. } = request;
    let fits = spec.arity_matches(args.len());
    match spec.id() {
        CommandId::Exec if fits => {
            let was = std::mem::take(&mut session.unsent);
            if was == Unsent::Aborted {
                let error = "EXECABORT Transaction discarded because of previous errors.";
                return refuse(turn, session, error);
            }
            session.reply(|reply| reply.array(0));
            return Flow::Done;
        }
        CommandId::Discard if fits => {
            session.unsent = Unsent::Nothing;
            session.reply(|reply| reply.ok());
            return Flow::Done;
        }
        CommandId::Multi => {
            return refuse(turn, session, "ERR MULTI calls can not be nested");
        }
        CommandId::Watch => {
            return refuse(turn, session, "ERR WATCH inside MULTI is not allowed");
        }
        CommandId::Quit => return local::answer(turn, session, Local::Quit, request),
        CommandId::Reset => return local::answer(turn, session, Local::Reset, request),
        _ if session.unsent == Unsent::Aborted => {
            session.reply(|reply| reply.simple("QUEUED"));
            return Flow::Done;
        }
        _ => {}
    }
    bind(turn, session, request)
}

/// The transaction goes where this command's key lives.
fn bind(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    if session.unanswered() > 0 {
        return Flow::Wait;
    }
    let slot = match spread::slot_of(turn.worker, request) {
        Ok(slot) => slot,
        Err(nowhere) => return abort(turn, session, &nowhere.to_string()),
    };
    let link = match take_link(turn, session, slot) {
        Ok(link) => link,
        Err(None) => return Flow::Wait,
        Err(Some(why)) => {
            let error = error_text(turn.worker, session.command, &Lost::Unavailable(why));
            return abort(turn, session, &error);
        }
    };
    session.unsent = Unsent::Nothing;
    link.set_owner(Some(Rc::clone(turn.client)));
    let mut pinned = Pinned::new(link);
    pinned.transaction.phase = Phase::Open;
    pinned.transaction.begins = true;
    session.pinned = Some(pinned);
    handle(turn, session, request)
}

fn abort(turn: &Turn<'_>, session: &mut Session, error: &str) -> Flow {
    session.unsent = Unsent::Aborted;
    refuse(turn, session, error)
}

/// The server did not accept the `MULTI`: what follows must not run outside of it.
pub fn not_begun(link: &Link) {
    if link.worker().is_cluster() {
        link.close(Lost::Closed);
    }
}

/// What an app is told whose own connection leads to another server than its key's.
pub fn elsewhere(link: &Link, frame: &[u8]) -> Option<Vec<u8>> {
    let moved = frame.starts_with(b"-MOVED ") || frame.starts_with(b"-ASK ");
    (moved && link.role == Role::Pinned && link.worker().is_cluster()).then(|| {
        b"-ERR the slot of this key is served, or from now on served, by another server than this \
          connection is bound to by WATCH, MULTI or SUBSCRIBE; nothing was executed: run the \
          transaction again, with keys of one slot\r\n"
            .to_vec()
    })
}

/// A command on a client's own connection was refused by a server that names another. A blocking
/// command takes a connection there; a transaction cannot.
pub fn sent_on(link: &Link, target: Target, why: Refusal, bytes: &[u8]) -> Option<Target> {
    let worker = link.worker();
    let asking = matches!(why, Refusal::Ask(_));
    let to = match why {
        Refusal::Moved(slot, to) => {
            worker.slot_moved(&link.server, slot, &to);
            to
        }
        Refusal::Ask(to) => to,
        Refusal::ReadOnly | Refusal::Later => {
            worker.shared.topology.doubt();
            return Some(target);
        }
    };
    let Target::Client(mut waiting) = target else {
        return Some(target);
    };
    let client = Rc::clone(&waiting.client);
    let mut session = client.session.borrow_mut();
    let session = &mut *session;
    let alone = session.pinned.as_ref().is_some_and(|pinned| {
        pinned.alone.is_some()
            && std::ptr::eq(Rc::as_ptr(&pinned.link), link)
            && pinned.transaction.phase == Phase::None
            && !pinned.monitor
            && pinned.beside.is_empty()
            && !pinned.listens(link)
    });
    let set = worker.links_at(link.handshake.db, &to);
    let (true, Some(set), 0..8, Some(pinned)) = (alone, set, waiting.hops, session.pinned.as_mut())
    else {
        return Some(Target::Client(waiting));
    };
    waiting.hops += 1;
    let next = set.pin(worker, link.proto());
    next.patient.set(link.patient.get());
    let old = std::mem::replace(&mut pinned.link, Rc::clone(&next));
    next.set_owner(Some(Rc::clone(&client)));
    if let Some(set) = worker.links_if_there(old.handshake.db, &old.server) {
        set.unpin(&old, true);
    } else {
        old.set_owner(None);
        old.close(Lost::Closed);
    }
    if asking {
        next.send(Target::Ignore(MAX_HOPS), false, |out| {
            write_command(&[b"ASKING"], out);
        });
    }
    next.send(Target::Client(waiting), false, |out| {
        out.extend_from_slice(bytes);
    });
    settle(&client, session);
    None
}

/// A command that waits for its reply, of a subscriber that may say any (RESP3): its keys are
/// elsewhere than its channels, so it takes one more connection until then.
pub(super) fn aside(
    turn: &Turn<'_>,
    session: &mut Session,
    pin: Pin,
    request: Request<'_>,
) -> Flow {
    if !request.spec.arity_matches(request.args.len()) {
        return refuse(turn, session, command::wrong_arity(request.spec));
    }
    if session.unanswered() > 0 {
        return Flow::Wait;
    }
    let slot = match spread::slot_of(turn.worker, request) {
        Ok(slot) => slot,
        Err(nowhere) => return refuse(turn, session, nowhere.to_string()),
    };
    let link = match take_link(turn, session, slot) {
        Ok(link) => link,
        Err(None) => return Flow::Wait,
        Err(Some(why)) => {
            let error = error_text(turn.worker, session.command, &Lost::Unavailable(why));
            return refuse(turn, session, error);
        }
    };
    link.set_owner(Some(Rc::clone(turn.client)));
    if let Some(pinned) = &mut session.pinned {
        pinned.link = link;
    }
    send_alone(turn, session, pin, request)
}

/// The link over which a subscriber listens to channels and patterns: any server will do.
/// `Err`: the command is dealt with.
pub(super) fn link_for_channels(turn: &Turn<'_>, session: &mut Session) -> Result<(), Flow> {
    let Some(pinned) = &mut session.pinned else {
        return Err(Flow::Wait);
    };
    let is_unused = !pinned.listens(&pinned.link);
    let subscribed = pinned.subscribed.get_or_insert_default();
    if subscribed.link.is_some() {
        return Ok(());
    }
    if is_unused {
        subscribed.link = Some(Rc::clone(&pinned.link));
        return Ok(());
    }
    let link = match take_link(turn, session, None) {
        Ok(link) => link,
        Err(None) => return Err(Flow::Wait),
        Err(Some(why)) => {
            let error = error_text(turn.worker, session.command, &Lost::Unavailable(why));
            return Err(refuse(turn, session, error));
        }
    };
    link.set_owner(Some(Rc::clone(turn.client)));
    let subscribed = session.pinned.as_mut().and_then(|p| p.subscribed.as_mut());
    if let Some(subscribed) = subscribed {
        subscribed.link = Some(link);
    }
    Ok(())
}
