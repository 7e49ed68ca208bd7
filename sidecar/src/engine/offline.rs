//! What becomes of a command while Redis is away and an offline queue is declared (S2.9).
//!
//! A command of the shared link is sent to it all the same and waits there, in the order of its
//! client. One that needs a connection of its own waits in its client, which runs nothing behind
//! it meanwhile. So no command overtakes an earlier one of the same client.

use super::{Request, Turn};
use crate::{
    client::session::Session,
    upstream::{Link, Lost, Status},
    worker::Worker,
};

/// Whether a command may wait on a link that is down; if not, why it fails.
pub fn admit(worker: &Worker, link: &Link, bytes: usize, why: Lost) -> Result<(), Lost> {
    let (Some(limits), Status::Down(_)) = (worker.offline_queue(), link.status()) else {
        return Err(why);
    };
    link.obey_circuit();
    worker
        .shared
        .offline
        .has_room(limits, bytes as u64)
        .map_err(|full| Lost::Unavailable(format!("{full}; {why}").into()))
}

/// Bytes of a request on its way to Redis, nearly.
pub fn size(request: Request<'_>) -> usize {
    request.args.iter().map(|arg| arg.len() + 16).sum()
}

/// What becomes of a command that needs a connection of its own.
pub enum Held {
    /// The client is woken when that may have changed.
    Wait,
    /// It fails.
    No(Lost),
}

/// A command needs a connection of its own, and there is none because of `why`.
pub fn hold(turn: &Turn<'_>, session: &mut Session, request: Request<'_>, why: Lost) -> Held {
    let worker = turn.worker;
    let held = session.held.take();
    let (Some(limits), Some(set)) = (worker.offline_queue(), worker.links(session.db)) else {
        return Held::No(why);
    };
    let shared = set.plain(worker, session.proto);
    // With the shared link up, Redis is there and refused this connection only.
    if !matches!(shared.status(), Status::Down(_) | Status::Connecting) {
        return Held::No(why);
    }
    let queue = &worker.shared.offline;
    let ticket = if let Some(ticket) = held {
        ticket
    } else {
        let bytes = size(request) as u64;
        if let Err(full) = queue.has_room(limits, bytes) {
            return Held::No(Lost::Unavailable(format!("{full}; {why}").into()));
        }
        queue.ticket(bytes)
    };
    if worker.now().since(ticket.since) > limits.max_wait.0 {
        let text = queue.expire(limits, &why.to_string());
        return Held::No(Lost::Unavailable(text.into()));
    }
    shared.wait(turn.client);
    session.held = Some(ticket);
    Held::Wait
}
