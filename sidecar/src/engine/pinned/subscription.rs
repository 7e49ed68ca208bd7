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
    settle, transaction,
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
    pub(super) channels: i64,
    pub(super) shards: i64,
    /// What was asked for, for memory mode to take over.
    pub(super) names: Names,
    /// Confirmations that have not come yet.
    pub(super) joining: usize,
    pub(super) leaving: usize,
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
        Class::Local(Local::Ping) => send_plain(turn, session, request),
        _ if session.proto == Proto::Resp2 => refuse(turn, session, subscribed_only(request)),
        Class::Local(Local::Select) => transaction::select(turn, session, request),
        Class::Local(which) => local::answer(turn, session, which, request),
        Class::Refused(reason) => refuse(turn, session, reason.message(request.args[0])),
        Class::Pin(Pin::Multi | Pin::Watch | Pin::Monitor) => refuse(
            turn,
            session,
            "ERR MULTI, WATCH and MONITOR are not possible while subscribed: use another connection",
        ),
        Class::Pin(pin) => send_alone(turn, session, pin, request),
        // Keys are elsewhere than channels.
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
    let Some(pinned) = &mut session.pinned else {
        return Flow::Wait;
    };
    if let Some(error) = clustered::other_server(turn, &pinned.link, request) {
        return refuse(turn, session, error);
    }
    let names = args.len() - 1;
    let subscribed = pinned.subscribed.get_or_insert_default();
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
    pinned.link.append(&bytes);
    Flow::Done
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
                    &mut self.shards
                } else {
                    &mut self.channels
                }) = *count;
            }
            MessageKind::Left { shard, count } => {
                self.leaving = self.leaving.saturating_sub(1);
                *(if *shard {
                    &mut self.shards
                } else {
                    &mut self.channels
                }) = *count;
            }
        }
    }

    /// Whether confirmations are on their way.
    pub(super) fn is_settling(&self) -> bool {
        self.joining + self.leaving > 0
    }

    pub(super) fn is_over(&self) -> bool {
        self.channels == 0 && self.shards == 0 && self.joining == 0 && self.leaving == 0
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
