//! What a connection holds while memory answers: subscriptions, a transaction, that it waits.
//!
//! Most connections hold nothing, so it is one pointer in the session. It stays in memory mode
//! when Redis comes back; each part then ends in its own honest way.

use std::rc::Rc;

use super::{
    super::{Flow, Request, Turn, route},
    blocking::{self, Blocked},
    channels::{Subscriptions, unsubscribe_all, while_subscribed},
    transaction::{self, Transaction},
};
use crate::client::{Client, session::Session};

/// State of a connection in memory mode.
#[derive(Default)]
pub struct Held {
    pub(super) subscriptions: Option<Subscriptions>,
    pub(super) transaction: Option<Transaction>,
    pub(super) blocked: Option<Blocked>,
}

impl Held {
    /// Whether the connection listens.
    pub fn is_subscribed(&self) -> bool {
        self.subscriptions.is_some()
    }

    /// Whether it is over when the app sends nothing any more.
    pub fn waits_for_events(&self) -> bool {
        self.is_subscribed() || self.blocked.is_some()
    }
}

/// What the connection holds, made when first needed.
pub(super) fn held(session: &mut Session) -> &mut Held {
    session.in_memory.get_or_insert_default()
}

/// Forgets what is empty.
pub(super) fn settle(client: &Client, session: &mut Session) {
    let Some(held) = &session.in_memory else {
        return;
    };
    let flags = match &held.transaction {
        _ if held.blocked.is_some() => "b",
        Some(transaction) if transaction.is_open() => "x",
        _ if held.is_subscribed() => "P",
        _ => "",
    };
    if held.transaction.is_none() && held.subscriptions.is_none() && held.blocked.is_none() {
        session.in_memory = None;
    }
    client.handle.update(|info| info.flags = flags);
}

/// A command of a connection that holds something.
pub fn while_held(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Some(held) = &session.in_memory else {
        return route(turn, session, request);
    };
    if held.blocked.is_some() {
        return Flow::Wait;
    }
    if let Some(transaction) = &held.transaction {
        if transaction.is_open() {
            return transaction::in_multi(turn, session, request);
        }
        if transaction::concerns(request) {
            return transaction::while_watching(turn, session, request);
        }
    }
    if session
        .in_memory
        .as_ref()
        .is_some_and(|held| held.is_subscribed())
    {
        return while_subscribed(turn, session, request);
    }
    route(turn, session, request)
}

/// The connection is gone, or starts over.
pub fn let_go(client: &Rc<Client>, session: &mut Session) {
    if session.in_memory.is_none() {
        return;
    }
    unsubscribe_all(client, session);
    transaction::forget(client, session);
    blocking::forget(client, session);
    session.in_memory = None;
}
