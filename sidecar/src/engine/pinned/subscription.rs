//! Subscribers: their confirmations and messages answer no command, and outlive Redis where memory
//! mode takes over.

use std::rc::Rc;

use super::{
    super::{
        Flow, Request, Turn, forward, local,
        memory::{self, Names},
        refuse,
        reply::Target,
    },
    clustered,
    sending::{send_alone, send_plain},
    settle,
    shards::{self, Shards},
    transaction, waiting,
};
use crate::{
    client::{Client, session::Session},
    command::{
        self, Class, CommandId, KeyPositions, Local, Pin, ReplyRewrite, apply_prefix, class,
        strip_reply, write_command,
    },
    resp::{
        Proto,
        reply::{Value, is_error, is_push},
    },
    upstream::Link,
};

/// State of a subscriber.
#[derive(Default)]
pub(super) struct Subscribed {
    /// Where channels and patterns, and without a cluster shard channels, are listened to.
    pub(super) link: Option<Rc<Link>>,
    /// How many channels and patterns there are.
    channels: i64,
    /// How many shard channels without a cluster.
    plain_shards: i64,
    /// Shard channels in front of a cluster.
    pub(super) shards: Shards,
    /// What was asked for, for memory mode to take over.
    pub(super) names: Names,
    /// Confirmations that have not come yet.
    joining: usize,
    leaving: usize,
}

pub(super) fn while_subscribed(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
) -> Flow {
    let Some(subscribed) = session
        .pinned
        .as_ref()
        .and_then(|pinned| pinned.subscribed.as_ref())
    else {
        return Flow::Wait;
    };
    let class = class(request.spec, request.args, turn.allowed(request.args[0]));
    match class {
        Class::Pin(Pin::Subscribe) | Class::Unsubscribe => subscribe(turn, session, request),
        // Confirmations come first, and it may just be leaving that state.
        _ if subscribed.is_settling() => Flow::Wait,
        Class::Local(Local::Ping) if !turn.worker.is_cluster() => {
            send_plain(turn, session, request)
        }
        Class::Local(Local::Ping) => local::answer(turn, session, Local::Ping, request),
        _ if session.proto == Proto::Resp2 => refuse(turn, session, subscribed_only(request)),
        Class::Local(Local::Select) if !turn.worker.is_cluster() => {
            transaction::select(turn, session, request)
        }
        Class::Local(which) => local::answer(turn, session, which, request),
        Class::Refused(reason) => refuse(turn, session, reason.message(request.args[0])),
        Class::Pin(Pin::Multi | Pin::Watch | Pin::Monitor) => refuse(
            turn,
            session,
            "ERR MULTI, WATCH and MONITOR are not possible while subscribed: use another connection",
        ),
        // Keys are elsewhere than channels.
        Class::Pin(pin) if turn.worker.is_cluster() => {
            clustered::aside(turn, session, pin, request)
        }
        Class::Pin(pin) => send_alone(turn, session, pin, request),
        Class::OnWriter if turn.worker.is_cluster() => waiting::everywhere(turn, session, request),
        Class::OnWriter => send_alone(turn, session, Pin::Block, request),
        _ if turn.worker.is_cluster() => forward::forward(turn, session, request),
        _ => send_plain(turn, session, request),
    }
}

/// In Redis' own words.
pub fn subscribed_only(request: Request<'_>) -> String {
    format!(
        "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
        request.spec.name()
    )
}

/// `SUBSCRIBE`, `UNSUBSCRIBE` and relatives: the confirmations are messages, not replies.
pub(super) fn subscribe(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Request { spec, args, .. } = request;
    if !spec.arity_matches(args.len()) {
        return refuse(turn, session, command::wrong_arity(spec));
    }
    if turn.worker.is_cluster() {
        if matches!(spec.id(), CommandId::Ssubscribe | CommandId::Sunsubscribe) {
            if let Some(pinned) = &mut session.pinned {
                pinned.subscribed.get_or_insert_default();
            }
            return shards::change(turn, session, request);
        }
        let joins = matches!(spec.id(), CommandId::Subscribe | CommandId::Psubscribe);
        if !joins && !listens_to_channels(session) {
            memory::unsubscribe(turn, session, request);
            return Flow::Done;
        }
        if let Err(flow) = clustered::link_for_channels(turn, session) {
            return flow;
        }
    }
    let Some(pinned) = &mut session.pinned else {
        return Flow::Wait;
    };
    let names = args.len() - 1;
    let subscribed = pinned.subscribed.get_or_insert_default();
    let link = Rc::clone(
        subscribed
            .link
            .get_or_insert_with(|| Rc::clone(&pinned.link)),
    );
    subscribed.names.follow(spec.id(), &args[1..]);
    if matches!(
        spec.id(),
        CommandId::Subscribe | CommandId::Psubscribe | CommandId::Ssubscribe
    ) {
        subscribed.joining += names;
    } else {
        subscribed.leaving += names.max(1);
    }
    let mut bytes = Vec::new();
    match &turn.active.prefix {
        None => write_command(args, &mut bytes),
        Some(prefix) => {
            if let Err(reason) =
                apply_prefix(prefix, spec, args, &mut KeyPositions::new(), &mut bytes)
            {
                return refuse(turn, session, reason.message(args[0]));
            }
        }
    }
    link.append(&bytes);
    Flow::Done
}

fn listens_to_channels(session: &Session) -> bool {
    let subscribed = session.pinned.as_ref().and_then(|p| p.subscribed.as_ref());
    subscribed.is_some_and(|subscribed| subscribed.link.is_some())
}

/// A frame that answers no command: a message, a confirmation, a line of `MONITOR`.
pub fn take_message(client: &Rc<Client>, link: &Link, frame: &[u8]) -> bool {
    let mut session = client.session.borrow_mut();
    let session = &mut *session;
    let Some(pinned) = &mut session.pinned else {
        return false;
    };
    let unasked = link.in_flight() == 0;
    if pinned.monitor && unasked {
        session.out.append(|out| out.extend_from_slice(frame));
        client.worker.mark_dirty(client);
        return true;
    }
    let Some(subscribed) = &mut pinned.subscribed else {
        return false;
    };
    if subscribed.shards.has(link) {
        let was_taken = shards::take(client, session, link, frame);
        settle(client, session);
        client.worker.mark_dirty(client);
        return was_taken;
    }
    if !subscribed.has(link) {
        return false;
    }
    if unasked && is_error(frame) {
        subscribed.joining = 0;
        subscribed.leaving = 0;
    } else {
        let is_message =
            is_push(frame) || (session.proto == Proto::Resp2 && frame.first() == Some(&b'*'));
        let Some(kind) = is_message.then(|| message_kind(frame)).flatten() else {
            return false;
        };
        subscribed.count(&kind);
    }
    let active = client.worker.active();
    session.out.append(|out| match &active.prefix {
        Some(prefix) if !is_error(frame) => {
            if strip_reply(ReplyRewrite::Message, prefix, frame, out).is_err() {
                out.extend_from_slice(frame);
            }
        }
        _ => out.extend_from_slice(frame),
    });
    settle(client, session);
    client.worker.mark_dirty(client);
    true
}

pub(super) enum MessageKind {
    Message,
    Joined { shard: bool, count: i64 },
    Left { shard: bool, count: i64 },
}

pub(super) fn message_kind(frame: &[u8]) -> Option<MessageKind> {
    let value = Value::read(frame).ok()?;
    let parts = value.list()?;
    let count = match parts.get(2) {
        Some(Value::Integer(count)) => *count,
        _ => 0,
    };
    Some(match parts.first()?.text()? {
        b"message" | b"pmessage" | b"smessage" => MessageKind::Message,
        b"subscribe" | b"psubscribe" => MessageKind::Joined {
            shard: false,
            count,
        },
        b"ssubscribe" => MessageKind::Joined { shard: true, count },
        b"unsubscribe" | b"punsubscribe" => MessageKind::Left {
            shard: false,
            count,
        },
        b"sunsubscribe" => MessageKind::Left { shard: true, count },
        _ => return None,
    })
}

impl Subscribed {
    fn count(&mut self, kind: &MessageKind) {
        match kind {
            MessageKind::Message => {}
            MessageKind::Joined { shard, count } => {
                self.joining = self.joining.saturating_sub(1);
                *(if *shard {
                    &mut self.plain_shards
                } else {
                    &mut self.channels
                }) = *count;
            }
            MessageKind::Left { shard, count } => {
                self.leaving = self.leaving.saturating_sub(1);
                *(if *shard {
                    &mut self.plain_shards
                } else {
                    &mut self.channels
                }) = *count;
            }
        }
    }

    /// Whether that is a link that it listens over.
    pub(super) fn has(&self, link: &Link) -> bool {
        self.links()
            .any(|other| std::ptr::eq(Rc::as_ptr(other), link))
    }

    pub(super) fn links(&self) -> impl Iterator<Item = &Rc<Link>> {
        self.link.iter().chain(self.shards.links())
    }

    /// Takes out the links where nothing is listened to any longer, each with whether it is clean.
    pub(super) fn take_idle(&mut self) -> Vec<(Rc<Link>, bool)> {
        let mut idle = self.shards.take_idle();
        if self.is_silent() {
            idle.extend(self.link.take().map(|link| (link, true)));
        }
        idle
    }

    /// Whether confirmations are on their way.
    pub(super) fn is_settling(&self) -> bool {
        let ends = self.shards.is_ending() && self.channels == 0;
        self.joining + self.leaving > 0 || self.shards.is_joining() || ends
    }

    /// Whether its own link has nothing to do.
    fn is_silent(&self) -> bool {
        self.channels == 0 && self.plain_shards == 0 && self.joining == 0 && self.leaving == 0
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_silent() && self.shards.is_over()
    }
}

/// A subscriber's own connection broke, and memory mode may take it over: the shared link tells
/// whether it was Redis that went away, or only this connection.
pub(super) fn ask_for_verdict(client: &Rc<Client>, proto: Proto, db: u16) {
    let target = Target::Verdict(Rc::clone(client));
    let plain = client
        .worker
        .links(db)
        .map(|set| Rc::clone(set.plain(&client.worker, proto)));
    match plain {
        Some(link) if link.is_up() => {
            link.send(target, false, |out| write_command(&[b"PING"], out));
        }
        // Later: the session is borrowed now.
        _ => {
            let client = Rc::clone(client);
            tokio::task::spawn_local(async move { redis_is_gone(&client) });
        }
    }
}

/// Only the subscriber's own connection broke: the app has to know that it may have missed
/// messages.
pub fn redis_lives(client: &Rc<Client>) {
    let mut session = client.session.borrow_mut();
    if session.orphaned.take().is_some() {
        session.closing = true;
        drop(session);
        client.wake();
    }
}

/// Redis is away: the subscriber listens in memory mode.
pub fn redis_is_gone(client: &Rc<Client>) {
    let mut session = client.session.borrow_mut();
    if let Some(names) = session.orphaned.take() {
        memory::adopt(client, &mut session, &names);
        drop(session);
        client.wake();
    }
}
