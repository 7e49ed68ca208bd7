//! Without Redis: memory mode, `LocalOnly` keys, and pub/sub within the sidecar.
//!
//! The store answers as Redis would; here is what surrounds it: which commands get there, the TTLs
//! of rules, messages between connections (possibly on other event loops), and what happens when
//! Redis comes back: it is the truth, writes acknowledged in memory only are discarded, counted
//! and logged (S0.14, P6).

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
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{Flow, Request, Turn, count, expiry, forward::Ruled, introspect, pinned, refuse};
use crate::{
    client::{
        Client, ClientHandle,
        session::{Lane, Session, Touches},
    },
    clock::Tick,
    command::{self, Class, CommandId, Local, Pin, class},
    metrics::Outcome,
    resp::{Proto, write::Reply},
    store::{
        Call, Done, Store,
        pubsub::{self, Kind, PubSub},
    },
    worker::Worker,
};

/// Logical databases of memory mode, as many as Redis has by default.
pub const DATABASES: u16 = 16;
/// Channels and patterns of one connection.
const MAX_SUBSCRIPTIONS: usize = 10_000;
/// Longest string that commands may grow a value to.
const MAX_VALUE: usize = 512 << 20;
/// Keys looked at per sweep.
const SWEEP: usize = 200;

/// Who listens to what.
pub struct Channels(PubSub<Subscriber>);

impl Default for Channels {
    fn default() -> Self {
        Self(PubSub::new(MAX_SUBSCRIPTIONS))
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

// === commands ===

/// Answers a command from memory instead of Redis.
pub fn execute(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
    ruled: &Ruled,
) -> Flow {
    if session.must_wait(Lane::Local, Touches::Anything) {
        return Flow::Wait;
    }
    match request.spec.id() {
        CommandId::Publish | CommandId::Spublish if request.args.len() == 3 => {
            publish(turn, session, request)
        }
        CommandId::Pubsub => {
            let known = {
                let channels = turn.worker.shared.channels.lock();
                session.reply(|reply| channels.0.answer(request.args, reply))
            };
            if known {
                Flow::Done
            } else {
                refuse(turn, session, command::unknown_subcommand(request.args))
            }
        }
        _ => {
            let mode = if turn.worker.has_upstream() {
                Mode::RedisIsAway
            } else {
                Mode::NoRedis
            };
            run(
                turn,
                session,
                request,
                ruled,
                &turn.worker.shared.store,
                mode,
            )
        }
    }
}

/// Answers a command whose keys live in this sidecar only.
pub fn local_only(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
    ruled: &Ruled,
) -> Flow {
    if ruled.local < ruled.keys {
        return refuse(
            turn,
            session,
            "ERR keys of a rule with cache: LocalOnly live outside Redis: one command cannot use them together with others",
        );
    }
    if session.must_wait(Lane::Local, Touches::Anything) {
        return Flow::Wait;
    }
    let store = if turn.worker.has_upstream() {
        &turn.worker.shared.local_only
    } else {
        &turn.worker.shared.store
    };
    run(turn, session, request, ruled, store, Mode::LocalOnly)
}

/// Why memory answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    NoRedis,
    RedisIsAway,
    LocalOnly,
}

fn run(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
    ruled: &Ruled,
    store: &Mutex<Store>,
    mode: Mode,
) -> Flow {
    let adjusted = expiry::adjust(turn, request, ruled);
    let words = adjusted.change.apply(request.args);
    let words: SmallVec<[&[u8]; 8]> = words.iter().map(AsRef::as_ref).collect();
    let call = call(turn.worker, session.db);
    let mut store = store.lock();
    let (done, first, nothing) = session.reply(|reply| {
        let before = reply.out.len();
        let done = store.execute(&call, &words, reply);
        let written = &reply.out[before..];
        (
            done,
            written.first().copied(),
            matches!(written, b"$-1\r\n" | b"_\r\n" | b"*0\r\n" | b"%0\r\n"),
        )
    });
    let Done::Answered { wrote, .. } = done else {
        drop(store);
        return not_available(turn, session, request, mode);
    };
    let mut ignored = Vec::new();
    for (index, millis) in &adjusted.follow {
        let key = request.args[*index as usize];
        let millis = millis.to_string();
        let mut reply = Reply::new(&mut ignored, Proto::Resp2);
        store.execute(
            &call,
            &[b"PEXPIRE", key, millis.as_bytes(), b"NX"],
            &mut reply,
        );
    }
    drop(store);
    if wrote && mode == Mode::RedisIsAway {
        turn.worker.counters.memory_writes.inc();
    }
    count_read(turn, request, nothing);
    if first == Some(b'-') {
        count(turn.worker, session.command, Outcome::Error);
    } else {
        turn.worker.count_hit(session.command);
    }
    Flow::Done
}

/// Hits and misses by rule, also where memory is all there is.
fn count_read(turn: &Turn<'_>, request: Request<'_>, nothing: bool) {
    turn.worker.counters.memory_commands.inc();
    if !matches!(
        request.spec.id(),
        CommandId::Get | CommandId::Hget | CommandId::Hgetall
    ) {
        return;
    }
    let Some(rule) = request
        .args
        .get(1)
        .and_then(|key| turn.active.policy.find(key))
    else {
        return;
    };
    let counters = &turn.worker.counters.rules[usize::from(rule.0)];
    if nothing {
        counters.misses.inc();
    } else {
        counters.hits.inc();
    }
}

fn call(worker: &Worker, db: u16) -> Call {
    let now = worker.now();
    Call {
        db: u32::from(db),
        databases: u32::from(DATABASES),
        now: now.since(Tick(0)),
        unix_now: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
        random: u64::from(worker.random()),
        max_value: MAX_VALUE,
    }
}

fn not_available(turn: &Turn<'_>, session: &mut Session, request: Request<'_>, mode: Mode) -> Flow {
    if request.spec.id() == CommandId::Other {
        return refuse(turn, session, command::unknown_command(request.args));
    }
    let name = String::from_utf8_lossy(request.args[0]).to_uppercase();
    let error = match mode {
        Mode::LocalOnly => {
            format!("ERR {name} is not available for keys of a rule with cache: LocalOnly")
        }
        Mode::NoRedis | Mode::RedisIsAway => format!("ERR {name} is not available in memory mode"),
    };
    refuse(turn, session, &error)
}

/// A command that needs a connection to Redis of its own, when there is none.
pub fn without_redis(
    turn: &Turn<'_>,
    session: &mut Session,
    pin: Pin,
    request: Request<'_>,
) -> Flow {
    if session.must_wait(Lane::Local, Touches::Anything) {
        return Flow::Wait;
    }
    match pin {
        Pin::Subscribe => subscribe(turn, session, request),
        _ => not_available(turn, session, request, Mode::NoRedis),
    }
}

/// Reads a key for `PANNIER.READ`: its value as a reply, and its TTL in milliseconds.
pub fn peek(worker: &Worker, db: u16, key: &[u8], local_only: bool) -> (Vec<u8>, i64) {
    let call = call(worker, db);
    let store = if local_only && worker.has_upstream() {
        &worker.shared.local_only
    } else {
        &worker.shared.store
    };
    let mut store = store.lock();
    let (mut value, mut ttl) = (Vec::new(), Vec::new());
    store.execute(
        &call,
        &[b"GET", key],
        &mut Reply::new(&mut value, Proto::Resp3),
    );
    store.execute(
        &call,
        &[b"PTTL", key],
        &mut Reply::new(&mut ttl, Proto::Resp3),
    );
    (value, introspect::integer(&ttl).unwrap_or(-2))
}

// === pub/sub ===

fn kind(id: CommandId) -> Kind {
    match id {
        CommandId::Psubscribe | CommandId::Punsubscribe => Kind::Pattern,
        CommandId::Ssubscribe | CommandId::Sunsubscribe => Kind::Shard,
        _ => Kind::Channel,
    }
}

fn subscribe(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
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
    let Some(subscriptions) = &session.subscriptions else {
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
        session.subscriptions = None;
        turn.client.handle.update(|info| info.flags = "");
    }
}

/// A command of a connection that listens in memory mode.
pub fn while_subscribed(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    match class(request.spec, request.args, turn.allowed(request.args[0])) {
        Class::Pin(Pin::Subscribe) => subscribe(turn, session, request),
        Class::Unsubscribe => {
            unsubscribe(turn, session, request);
            Flow::Done
        }
        Class::Local(Local::Ping | Local::Quit | Local::Reset) => {
            super::route(turn, session, request)
        }
        _ if session.proto == Proto::Resp2 => {
            refuse(turn, session, pinned::subscribed_only(request))
        }
        _ => super::route(turn, session, request),
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
    let subscriptions = session.subscriptions.get_or_insert_with(|| {
        Box::new(Subscriptions {
            subscriber: Subscriber(Arc::new(Mailbox {
                client: Arc::clone(&client.handle),
                resp3: AtomicBool::new(proto == Proto::Resp3),
                limit: client.worker.output_limit(),
                messages: Mutex::default(),
            })),
        })
    });
    subscriptions.subscriber.clone()
}

fn publish(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
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
pub fn deliver(client: &Rc<Client>) {
    let mut session = client.session.borrow_mut();
    let session = &mut *session;
    let Some(subscriptions) = &session.subscriptions else {
        return;
    };
    let mut messages = subscriptions.subscriber.0.messages.lock();
    for message in messages.0.drain(..) {
        session.out.append(|out| out.extend_from_slice(&message));
    }
    messages.1 = 0;
}

/// Messages from now on come in the session's protocol version.
pub fn protocol_changed(session: &mut Session) {
    if let Some(subscriptions) = &session.subscriptions {
        subscriptions
            .subscriber
            .0
            .resp3
            .store(session.proto == Proto::Resp3, Release);
    }
}

/// The connection is gone, or starts over.
pub fn unsubscribe_all(client: &Client, session: &mut Session) {
    if let Some(subscriptions) = session.subscriptions.take() {
        client
            .worker
            .shared
            .channels
            .lock()
            .0
            .remove(&subscriptions.subscriber);
    }
}

// === coming and going of Redis ===

/// Redis is back: what was acknowledged in memory only is discarded, and subscribers of memory
/// mode are closed so that they subscribe at Redis.
pub fn redis_is_back(worker: &Worker) {
    let discarded = worker.shared.store.lock().clear();
    if discarded.writes > 0 {
        worker.counters.memory_discarded.add(discarded.writes);
        tracing::warn!(
            writes = discarded.writes,
            keys = discarded.keys,
            "redis is back and is the truth again: writes acknowledged in memory only were discarded"
        );
    }
    let channels = worker.shared.channels.lock();
    let subscribers = channels.0.subscribers();
    for subscriber in channels.0.all() {
        subscriber.0.client.kill();
    }
    drop(channels);
    if subscribers > 0 {
        tracing::info!(
            subscribers,
            "subscribers of memory mode were closed, to subscribe at redis again"
        );
    }
}

/// Frees expired keys, a bounded number at a time.
pub fn sweep(worker: &Worker) {
    // One loop is enough for all.
    if worker.index == 0 {
        let now = worker.now().since(Tick(0));
        worker.shared.store.lock().sweep(now, SWEEP);
        worker.shared.local_only.lock().sweep(now, SWEEP);
    }
}
