//! Pub/sub within the sidecar: messages between connections, possibly on other event loops.

use std::{
    collections::{BTreeSet, VecDeque},
    hash::{Hash, Hasher},
    rc::Rc,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
};

use parking_lot::Mutex;

use super::{
    super::{Flow, Request, Turn, count, pinned, refuse, route},
    held::{held, settle},
};
use crate::{
    client::{Client, ClientHandle, session::Session},
    command::{Class, CommandId, Local, Pin, class},
    metrics::Outcome,
    resp::{Proto, write::Reply},
    store::pubsub::{self, Kind, PubSub},
};

/// Channels and patterns of one connection.
const MAX_SUBSCRIPTIONS: usize = 10_000;

/// Who listens to what.
pub struct Channels(PubSub<Subscriber>);

impl Default for Channels {
    fn default() -> Self {
        Self(PubSub::new(MAX_SUBSCRIPTIONS))
    }
}

impl Channels {
    /// Answers `PUBSUB`; whether the subcommand is known.
    pub fn answer(&self, args: &[&[u8]], reply: &mut Reply<'_>) -> bool {
        self.0.answer(args, reply)
    }

    /// Closes all subscribers; how many there were.
    pub fn kill_all(&self) -> usize {
        self.0
            .all()
            .for_each(|subscriber| subscriber.0.client.kill());
        self.0.subscribers()
    }
}

/// A connection's mailbox; messages may come from other event loops.
#[derive(Clone)]
struct Subscriber(Arc<Mailbox>);

struct Mailbox {
    client: Arc<ClientHandle>,
    resp3: AtomicBool,
    limit: usize,
    messages: Mutex<(VecDeque<Vec<u8>>, usize)>,
}

impl PartialEq for Subscriber {
    fn eq(&self, other: &Self) -> bool {
        self.0.client.id == other.0.client.id
    }
}

impl Eq for Subscriber {}

impl Hash for Subscriber {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.client.id.hash(state);
    }
}

/// A connection that listens in memory mode.
pub struct Subscriptions {
    subscriber: Subscriber,
}

fn subscribed(session: &Session) -> Option<&Subscriptions> {
    session.in_memory.as_ref()?.subscriptions.as_ref()
}

fn kind(id: CommandId) -> Kind {
    match id {
        CommandId::Psubscribe | CommandId::Punsubscribe => Kind::Pattern,
        CommandId::Ssubscribe | CommandId::Sunsubscribe => Kind::Shard,
        _ => Kind::Channel,
    }
}

pub(super) fn subscribe(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let kind = kind(request.spec.id());
    let who = subscriptions(turn.client, session);
    let mut channels = turn.worker.shared.channels.lock();
    for name in &request.args[1..] {
        match channels.0.subscribe(&who, kind, name) {
            Ok(total) => session.reply(|reply| pubsub::subscribed(reply, kind, name, total)),
            Err(error) => session.reply(|reply| reply.error(error.to_string())),
        }
    }
    drop(channels);
    turn.client.handle.update(|info| info.flags = "P");
    count(turn.worker, session.command, Outcome::Ok);
    Flow::Done
}

/// `UNSUBSCRIBE` and relatives, also of a connection that listens to nothing.
pub fn unsubscribe(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) {
    let kind = kind(request.spec.id());
    let Some(subscriptions) = subscribed(session) else {
        let names: Vec<Option<&[u8]>> = match &request.args[1..] {
            [] => vec![None],
            names => names.iter().map(|name| Some(*name)).collect(),
        };
        for name in names {
            session.reply(|reply| pubsub::unsubscribed(reply, kind, name, 0));
        }
        return;
    };
    let who = subscriptions.subscriber.clone();
    let mut channels = turn.worker.shared.channels.lock();
    let names: Vec<Box<[u8]>> = match &request.args[1..] {
        [] => channels.0.names_of(&who, kind),
        names => names.iter().map(|name| Box::from(*name)).collect(),
    };
    if names.is_empty() {
        let left = channels.0.count(&who, kind);
        session.reply(|reply| pubsub::unsubscribed(reply, kind, None, left));
    }
    for name in names {
        let left = channels.0.unsubscribe(&who, kind, &name);
        session.reply(|reply| pubsub::unsubscribed(reply, kind, Some(&name), left));
    }
    let idle =
        channels.0.count(&who, Kind::Channel) == 0 && channels.0.count(&who, Kind::Shard) == 0;
    drop(channels);
    if idle {
        held(session).subscriptions = None;
        settle(turn.client, session);
    }
}

/// A command of a connection that listens in memory mode.
pub(super) fn while_subscribed(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
) -> Flow {
    match class(request.spec, request.args, turn.allowed(request.args[0])) {
        Class::Pin(Pin::Subscribe) => subscribe(turn, session, request),
        Class::Unsubscribe => {
            unsubscribe(turn, session, request);
            Flow::Done
        }
        Class::Local(Local::Ping | Local::Quit | Local::Reset) => route(turn, session, request),
        _ if session.proto == Proto::Resp2 => {
            refuse(turn, session, pinned::subscribed_only(request))
        }
        _ => route(turn, session, request),
    }
}

/// What a connection listens to, by kind.
#[derive(Debug, Default)]
pub struct Names([BTreeSet<Box<[u8]>>; 3]);

impl Names {
    /// Follows a `SUBSCRIBE` or `UNSUBSCRIBE` of any kind.
    pub fn follow(&mut self, command: CommandId, names: &[&[u8]]) {
        let joins = matches!(
            command,
            CommandId::Subscribe | CommandId::Psubscribe | CommandId::Ssubscribe
        );
        let known = &mut self.0[kind(command) as usize];
        match names {
            _ if joins => known.extend(names.iter().map(|name| Box::from(*name))),
            [] => known.clear(),
            names => known.retain(|name| !names.contains(&&**name)),
        }
    }
}

/// Takes over a subscriber of a Redis that went away; it is not told, and misses nothing that is
/// published from now on within this sidecar (S1.10).
pub fn adopt(client: &Rc<Client>, session: &mut Session, names: &Names) {
    let subscriptions = subscriptions(client, session);
    let mut channels = client.worker.shared.channels.lock();
    for (kind, names) in [Kind::Channel, Kind::Pattern, Kind::Shard]
        .into_iter()
        .zip(&names.0)
    {
        for name in names {
            if let Err(error) = channels.0.subscribe(&subscriptions, kind, name) {
                tracing::warn!(client = client.handle.id, %error, "a subscription was not taken over");
            }
        }
    }
    client.handle.update(|info| info.flags = "P");
}

/// The connection's mailbox, made when first needed.
fn subscriptions(client: &Client, session: &mut Session) -> Subscriber {
    let proto = session.proto;
    let subscriptions = held(session)
        .subscriptions
        .get_or_insert_with(|| Subscriptions {
            subscriber: Subscriber(Arc::new(Mailbox {
                client: Arc::clone(&client.handle),
                resp3: AtomicBool::new(proto == Proto::Resp3),
                limit: client.worker.output_limit(),
                messages: Mutex::default(),
            })),
        });
    subscriptions.subscriber.clone()
}

pub(super) fn publish(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let (channel, payload) = (request.args[1], request.args[2]);
    let shard = request.spec.id() == CommandId::Spublish;
    let channels = turn.worker.shared.channels.lock();
    let mut receivers = 0;
    if shard {
        for Subscriber(mailbox) in channels.0.shard_receivers(channel) {
            mailbox.put(|reply| pubsub::smessage(reply, channel, payload));
            receivers += 1;
        }
    } else {
        for (Subscriber(mailbox), pattern) in channels.0.receivers(channel) {
            mailbox.put(|reply| match pattern {
                None => pubsub::message(reply, channel, payload),
                Some(pattern) => pubsub::pmessage(reply, pattern, channel, payload),
            });
            receivers += 1;
        }
    }
    drop(channels);
    session.reply(|reply| reply.integer(receivers));
    count(turn.worker, session.command, Outcome::Ok);
    Flow::Done
}

impl Mailbox {
    fn put(&self, write: impl FnOnce(&mut Reply<'_>)) {
        let proto = if self.resp3.load(Acquire) {
            Proto::Resp3
        } else {
            Proto::Resp2
        };
        let mut message = Vec::new();
        write(&mut Reply::new(&mut message, proto));
        let mut messages = self.messages.lock();
        messages.1 += message.len();
        if messages.1 > self.limit {
            drop(messages);
            // It does not read: as for any other output, the connection is closed.
            self.client.kill();
            return;
        }
        messages.0.push_back(message);
        drop(messages);
        self.client.wake();
    }
}

/// Moves messages of a connection to its output.
pub(super) fn deliver(session: &mut Session) {
    let Session { in_memory, out, .. } = session;
    let Some(subscriptions) = in_memory
        .as_ref()
        .and_then(|held| held.subscriptions.as_ref())
    else {
        return;
    };
    let mut messages = subscriptions.subscriber.0.messages.lock();
    for message in messages.0.drain(..) {
        out.append(|out| out.extend_from_slice(&message));
    }
    messages.1 = 0;
}

/// Messages from now on come in the session's protocol version.
pub fn protocol_changed(session: &mut Session) {
    if let Some(subscriptions) = subscribed(session) {
        subscriptions
            .subscriber
            .0
            .resp3
            .store(session.proto == Proto::Resp3, Release);
    }
}

/// The connection is gone, or starts over.
pub(super) fn unsubscribe_all(client: &Client, session: &mut Session) {
    let held = session.in_memory.as_mut();
    if let Some(subscriptions) = held.and_then(|held| held.subscriptions.take()) {
        client
            .worker
            .shared
            .channels
            .lock()
            .0
            .remove(&subscriptions.subscriber);
    }
}
