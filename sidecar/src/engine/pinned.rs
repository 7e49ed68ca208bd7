//! Commands with connection state: a connection of the client's own.
//!
//! From `WATCH` or `MULTI` to `EXEC`, `DISCARD` or `UNWATCH`, while blocked, subscribed or in
//! `MONITOR`, all of a client's commands take its pinned link; the local tier is neither read nor
//! filled. Keys that a transaction queued are marked as being written until it ends.

mod clustered;
mod sending;
mod shards;
mod subscription;
mod transaction;
mod waiting;

use std::rc::Rc;

pub use self::clustered::{elsewhere, first_in_multi, not_begun, sent_on};
pub use self::subscription::{redis_is_gone, redis_lives, subscribed_only, take_message};
use self::{
    sending::{send_alone, send_plain},
    subscription::Subscribed,
    transaction::{Phase, Transaction},
};
use super::{
    Flow, Request, Turn, forward, local, memory,
    offline::{self, Held},
    refuse,
};
use crate::{
    client::{
        Client,
        session::{Lane, Session, Unsent},
    },
    command::{self, CommandId, Local, Pin},
    resp::{
        reply::{is_error, is_null},
        write::Reply,
    },
    upstream::{Link, Lost, Status},
};

/// A connection of the client's own, and what for.
pub struct Pinned {
    /// Where commands go. In front of a cluster a subscriber listens over links of its own, of which
    /// this is one, except while a command waits for its reply at another server.
    link: Rc<Link>,
    /// Links to the other shards, while `WAIT` waits for all.
    beside: Vec<Rc<Link>>,
    transaction: Transaction,
    monitor: bool,
    /// The connection is in another database than it began with.
    moved: bool,
    /// A command whose reply later ones wait for.
    alone: Option<Alone>,
    subscribed: Option<Subscribed>,
}

/// A command whose reply later ones wait for.
#[derive(Clone, Copy)]
struct Alone {
    /// Its slot.
    number: u64,
    command: CommandId,
    /// Redis answers when something happens, possibly never.
    blocked: bool,
}

impl Pinned {
    fn new(link: Rc<Link>) -> Self {
        Self {
            link,
            beside: Vec::new(),
            transaction: Transaction::default(),
            monitor: false,
            moved: false,
            alone: None,
            subscribed: None,
        }
    }

    /// Whether the client's next command has to wait for the reply of this one.
    pub fn blocks(&self) -> bool {
        self.alone.is_some()
    }

    /// Whether it listens.
    pub fn is_subscribed(&self) -> bool {
        self.subscribed.is_some()
    }

    /// Whether it is over when the app sends nothing any more.
    pub fn waits_for_events(&self) -> bool {
        self.monitor || self.subscribed.is_some() || self.is_blocked()
    }

    /// Whether Redis answers when something happens, possibly never.
    pub fn is_blocked(&self) -> bool {
        self.alone.is_some_and(|alone| alone.blocked)
    }

    fn is_free(&self) -> bool {
        self.transaction.phase == Phase::None
            && !self.monitor
            && self.alone.is_none()
            && self.subscribed.is_none()
    }

    /// Whether commands are being queued.
    fn is_open(&self) -> bool {
        matches!(self.transaction.phase, Phase::Open | Phase::Aborted)
    }

    /// Letters of `CLIENT LIST`.
    fn flags(&self) -> &'static str {
        if self.monitor {
            "O"
        } else if self.subscribed.is_some() {
            if self.is_blocked() { "Pb" } else { "P" }
        } else if self.is_blocked() {
            "b"
        } else if self.is_open() {
            "x"
        } else {
            ""
        }
    }
}

/// A command that needs a connection of its own, from a client that has none.
pub fn begin(turn: &Turn<'_>, session: &mut Session, pin: Pin, request: Request<'_>) -> Flow {
    let Request { spec, args, .. } = request;
    if !spec.arity_matches(args.len()) {
        return refuse(turn, session, command::wrong_arity(spec));
    }
    if !turn.worker.has_upstream() {
        return memory::without_redis(turn, session, pin, request);
    }
    // Replies on other lanes come first.
    if session.unanswered() > 0 {
        return Flow::Wait;
    }
    let slot = match clustered::slot(turn, session, pin, request) {
        Ok(slot) => slot,
        Err(flow) => return flow,
    };
    let link = match take_link(turn, session, slot) {
        Ok(link) => link,
        Err(None) => return Flow::Wait,
        Err(Some(_)) if memory_mode(turn, session) => {
            return memory::without_redis(turn, session, pin, request);
        }
        Err(Some(why)) => match offline::hold(turn, session, request, Lost::Unavailable(why)) {
            Held::Wait => return Flow::Wait,
            Held::No(why) => {
                let text = super::reply::error_text(turn.worker, spec.id(), &why);
                return refuse(turn, session, &text);
            }
        },
    };
    session.held = None;
    link.set_owner(Some(Rc::clone(turn.client)));
    session.pinned = Some(Pinned::new(link));
    let flow = start(turn, session, pin, request);
    settle(turn.client, session);
    flow
}

fn memory_mode(turn: &Turn<'_>, session: &Session) -> bool {
    let set = turn.worker.links(session.db);
    set.is_some_and(|set| {
        turn.worker
            .in_memory_mode(set.plain(turn.worker, session.proto))
    })
}

/// A connected link; `Err(None)`: not yet.
fn take_link(
    turn: &Turn<'_>,
    session: &mut Session,
    slot: Option<u16>,
) -> Result<Rc<Link>, Option<Rc<str>>> {
    let set = match slot {
        None => turn.worker.links(session.db),
        Some(slot) => turn.worker.links_of_slot(session.db, slot),
    };
    let Some(set) = set else {
        return Err(Some("too many databases are in use at a time".into()));
    };
    // The shared link knows first whether Redis is away.
    let shared = set.plain(turn.worker, session.proto).clone();
    let waited_for = session.pinning.take().filter(|link| {
        let is_there = link.server.number == set.server.number;
        if !is_there {
            // The slot moved while the client waited.
            match turn.worker.links_if_there(session.db, &link.server) {
                Some(old) => old.unpin(link, false),
                None => link.close(Lost::Closed),
            }
        }
        is_there
    });
    if let Status::Down(why) = shared.status() {
        if let Some(link) = waited_for {
            set.unpin(&link, false);
        }
        return Err(Some(why));
    }
    let link = match waited_for {
        Some(link) => link,
        None => set.pin(turn.worker, session.proto),
    };
    match link.status() {
        Status::Up => Ok(link),
        Status::Connecting => {
            link.wait(turn.client);
            session.pinning = Some(link);
            Err(None)
        }
        Status::Down(why) => {
            set.unpin(&link, false);
            Err(Some(why))
        }
        Status::NoDatabase | Status::Closed => {
            set.unpin(&link, false);
            Err(Some(link.why_ended()))
        }
    }
}

fn start(turn: &Turn<'_>, session: &mut Session, pin: Pin, request: Request<'_>) -> Flow {
    match pin {
        Pin::Subscribe => subscription::subscribe(turn, session, request),
        Pin::Multi | Pin::Watch => send_plain(turn, session, request),
        Pin::Monitor | Pin::Once | Pin::Block => send_alone(turn, session, pin, request),
    }
}

/// `EXEC`, `DISCARD`, `UNWATCH`, `UNSUBSCRIBE` … of a client without state: as Redis would answer.
pub fn without_state(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Request { spec, args, .. } = request;
    if !spec.arity_matches(args.len()) {
        return refuse(turn, session, command::wrong_arity(spec));
    }
    match spec.id() {
        CommandId::Exec => refuse(turn, session, "ERR EXEC without MULTI"),
        CommandId::Discard => refuse(turn, session, "ERR DISCARD without MULTI"),
        CommandId::Unwatch => {
            session.reply(|reply| reply.ok());
            Flow::Done
        }
        _ => {
            memory::unsubscribe(turn, session, request);
            Flow::Done
        }
    }
}

/// `WAIT`, `WAITAOF`: on a connection of the client's own, because on the shared one they would
/// hold up every other client; `sending` and, in front of a cluster, `waiting` see to it that they
/// cover the client's earlier writes.
pub fn wait_for_replicas(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    if turn.worker.is_cluster() && turn.worker.has_upstream() {
        return waiting::everywhere(turn, session, request);
    }
    begin(turn, session, Pin::Block, request)
}

/// Runs a command of a client that has a connection of its own.
pub fn handle(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Some(pinned) = &session.pinned else {
        return super::route(turn, session, request);
    };
    let id = request.spec.id();
    if pinned.link.is_full() {
        pinned.link.wait(turn.client);
        return Flow::Wait;
    }
    let flow = match id {
        CommandId::Quit | CommandId::Reset
            if pinned
                .subscribed
                .as_ref()
                .is_some_and(Subscribed::is_settling) =>
        {
            Flow::Wait
        }
        CommandId::Quit | CommandId::Reset => {
            let which = if id == CommandId::Quit {
                Local::Quit
            } else {
                Local::Reset
            };
            return local::answer(turn, session, which, request);
        }
        _ if pinned.monitor => refuse(
            turn,
            session,
            "ERR only QUIT and RESET are possible in MONITOR",
        ),
        _ if pinned.subscribed.is_some() => subscription::while_subscribed(turn, session, request),
        _ if pinned.is_open() => transaction::in_multi(turn, session, request),
        _ => transaction::while_watching(turn, session, request),
    };
    settle(turn.client, session);
    flow
}

impl Pinned {
    /// Ends it in whatever state it is: what it marked is given up, and the link is closed.
    fn abandon(&self, client: &Client) {
        for key in &self.transaction.keys {
            client.worker.shared.tier.end_write(key);
        }
        let subscribed = self.subscribed.iter().flat_map(Subscribed::links);
        let others = self.beside.iter().chain(subscribed);
        for link in others.filter(|link| !Rc::ptr_eq(link, &self.link)) {
            give_back(client, link, false);
        }
        give_back(client, &self.link, false);
        client.handle.update(|info| info.flags = "");
    }

    /// Whether that is a link that it listens over.
    fn listens(&self, link: &Link) -> bool {
        let subscribed = self.subscribed.as_ref();
        subscribed.is_some_and(|subscribed| subscribed.has(link))
    }

    /// Ends what waits at other servers than those that hold the client's state: whether there was
    /// any. Whoever waits for the replies is told that there are none.
    fn leave_aside(&mut self, client: &Client) -> bool {
        let has_state = self.subscribed.is_some() || self.transaction.phase != Phase::None;
        let is_aside = self.subscribed.is_some() && !self.listens(&self.link);
        if self.beside.is_empty() && !is_aside || !has_state {
            return false;
        }
        self.alone = None;
        for link in self.beside.drain(..) {
            give_back(client, &link, link.in_flight() == 0);
        }
        if is_aside {
            self.listen_again(client);
        }
        true
    }

    /// A subscriber's command at another server is done with.
    fn listen_again(&mut self, client: &Client) {
        let mut links = self.subscribed.iter().flat_map(Subscribed::links);
        if let Some(link) = links.next().map(Rc::clone) {
            drop(links);
            let aside = std::mem::replace(&mut self.link, link);
            give_back(client, &aside, aside.in_flight() == 0);
        }
    }

    /// Gives back the links where a subscriber listens to nothing any longer; its last one stays.
    fn tidy(&mut self, client: &Client) {
        if self.alone.is_none() {
            for link in self.beside.drain(..) {
                give_back(client, &link, link.in_flight() == 0);
            }
        }
        let Some(subscribed) = &mut self.subscribed else {
            return;
        };
        let idle = subscribed.take_idle();
        for (link, clean) in idle {
            let other = self.subscribed.iter().flat_map(Subscribed::links).next();
            match other.map(Rc::clone) {
                None if Rc::ptr_eq(&link, &self.link) => {
                    self.moved |= !clean;
                    continue;
                }
                Some(other) if Rc::ptr_eq(&link, &self.link) => self.link = other,
                _ => {}
            }
            give_back(client, &link, clean);
        }
        if self.alone.is_none() && !self.listens(&self.link) {
            self.listen_again(client);
        }
    }
}

/// Gives a link back to its set.
fn give_back(client: &Client, link: &Rc<Link>, clean: bool) {
    let worker = &client.worker;
    if let Some(set) = worker.links_if_there(link.handshake.db, &link.server) {
        set.unpin(link, clean);
    } else {
        link.set_owner(None);
        link.close(Lost::Closed);
    }
}

/// A command on the client's own link was answered.
pub fn answered(client: &Rc<Client>, link: &Link, command: CommandId, number: u64, frame: &[u8]) {
    let mut session = client.session.borrow_mut();
    let session = &mut *session;
    // Of a command at several servers this may be a part.
    let is_answered = session.is_answered(number);
    let Some(pinned) = &mut session.pinned else {
        return;
    };
    match command {
        CommandId::Exec => {
            pinned.transaction.phase = Phase::None;
            if !is_null(frame) && !is_error(frame) {
                if let Some(db) = pinned.selected(frame) {
                    session.db = db;
                }
                let turn = Turn::new(client);
                for (key, millis) in std::mem::take(&mut pinned.transaction.follow) {
                    forward::follow(&turn, link, &key, millis);
                }
            }
        }
        CommandId::Discard if !is_error(frame) => pinned.transaction.phase = Phase::None,
        CommandId::Unwatch if !pinned.is_open() => pinned.transaction.phase = Phase::None,
        CommandId::Select if !pinned.is_open() && !is_error(frame) => {
            if let Some((_, db)) = pinned.transaction.selects.pop() {
                session.db = db;
                pinned.moved = true;
            }
        }
        CommandId::Watch if is_error(frame) && !pinned.is_open() => {
            pinned.transaction.phase = Phase::None;
        }
        CommandId::Monitor if is_error(frame) => pinned.monitor = false,
        CommandId::Multi if is_error(frame) && !frame.starts_with(b"-ERR MULTI calls") => {
            pinned.transaction.phase = Phase::None;
        }
        _ => {}
    }
    if is_answered && pinned.alone.is_some_and(|alone| alone.number == number) {
        pinned.alone = None;
        link.patient.set(false);
    }
    settle(client, session);
}

/// Gives the link back when nothing needs it any longer.
fn settle(client: &Rc<Client>, session: &mut Session) {
    let Some(pinned) = &mut session.pinned else {
        return;
    };
    pinned.tidy(client);
    if pinned.subscribed.as_ref().is_some_and(Subscribed::is_over) {
        pinned.subscribed = None;
    }
    let flags = pinned.flags();
    client.handle.update(|info| info.flags = flags);
    if !pinned.is_free() || session.unanswered_on(Lane::Pinned) {
        return;
    }
    if let Some(pinned) = session.pinned.take() {
        give_back(client, &pinned.link, !pinned.moved);
    }
}

/// A link of the client's own is gone. A subscriber, or a client in a transaction, is closed, as it
/// would be by Redis itself.
pub fn lost(client: &Rc<Client>, link: &Link, why: &Lost) {
    let mut session = client.session.borrow_mut();
    let session = &mut *session;
    if goes_on_without(client, session, link, why) {
        return settle(client, session);
    }
    let Some(pinned) = session.pinned.take() else {
        return;
    };
    pinned.abandon(client);
    match pinned.subscribed {
        Some(subscribed) if client.worker.memory_when_unavailable() => {
            session.orphaned = Some(subscribed.names);
            subscription::ask_for_verdict(client, session.proto, session.db);
        }
        None if pinned.transaction.phase == Phase::None && !pinned.monitor => {}
        _ => session.closing = true,
    }
}

/// Whether that link is not where the client's state is.
fn goes_on_without(client: &Rc<Client>, session: &mut Session, link: &Link, why: &Lost) -> bool {
    let Some(pinned) = &mut session.pinned else {
        return true;
    };
    let is = |other: &Rc<Link>| std::ptr::eq(Rc::as_ptr(other), link);
    if let Some(subscribed) = &pinned.subscribed
        && subscribed.shards.has(link)
    {
        return shards::lost(client, session, link, why) == shards::Outcome::GoesOn;
    }
    if pinned.beside.iter().any(is) {
        return pinned.leave_aside(client);
    }
    if is(&pinned.link) && !pinned.listens(link) {
        return pinned.is_subscribed() && pinned.leave_aside(client);
    }
    // One that was given back already means nothing here.
    !is(&pinned.link) && !pinned.listens(link)
}

/// `CLIENT UNBLOCK` came for this client.
pub fn take_unblock(client: &Rc<Client>) {
    let Some(with_error) = client.handle.take_unblock() else {
        return;
    };
    if memory::unblock(client, with_error) {
        return;
    }
    let mut session = client.session.borrow_mut();
    let session = &mut *session;
    let alone = session.pinned.as_ref().and_then(|pinned| pinned.alone);
    // Only who is blocked in Redis: of another command nobody could say what came of it.
    let Some(alone) = alone.filter(|alone| alone.blocked) else {
        return;
    };
    let proto = session.proto;
    session.complete(alone.number, |out| {
        let mut reply = Reply::new(out, proto);
        match alone.command {
            _ if with_error => reply.error("UNBLOCKED client unblocked via CLIENT UNBLOCK"),
            CommandId::Blmove | CommandId::Brpoplpush => reply.null(),
            CommandId::Wait => reply.integer(0),
            _ => reply.null_array(),
        }
    });
    // The reply that Redis may still send has nowhere to go.
    let pinned = session.pinned.as_mut();
    if !pinned.is_some_and(|pinned| pinned.leave_aside(client)) {
        release(client, session);
    }
}

/// The app is gone or starts over: what its connection held is given back, and the connection to
/// Redis is closed, because nobody knows what state it is in.
pub fn release(client: &Rc<Client>, session: &mut Session) {
    if let Some(link) = session.pinning.take()
        && let Some(set) = client
            .worker
            .links_if_there(link.handshake.db, &link.server)
    {
        set.unpin(&link, false);
    }
    session.unsent = Unsent::Nothing;
    let Some(pinned) = session.pinned.take() else {
        return;
    };
    pinned.abandon(client);
}
