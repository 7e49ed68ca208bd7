//! Without Redis: memory mode, `LocalOnly` keys, and pub/sub within the sidecar.
//!
//! The store answers as Redis would; here is what surrounds it: which commands get there, the TTLs
//! of rules, and what happens when Redis comes back: it is the truth, writes acknowledged in memory only are discarded, counted
//! and logged (S0.14, P6).

mod blocking;
mod channels;
mod held;
mod transaction;

use std::{
    rc::Rc,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use smallvec::SmallVec;

use self::channels::{publish, subscribe};
pub use self::{
    blocking::{Waiters, unblock},
    channels::{Channels, Names, adopt, protocol_changed, unsubscribe},
    held::{Held, let_go, while_held},
};
use super::{Flow, Request, Turn, count, expiry, forward::Ruled, refuse};
use crate::{
    client::{
        Client,
        session::{Lane, Session, Touches},
    },
    clock::Tick,
    command::{self, CommandId, Pin},
    metrics::Outcome,
    resp::{Proto, reply::integer, write::Reply},
    store::{Call, Done, Store},
    worker::Worker,
};

/// Logical databases of memory mode, as many as Redis has by default.
pub const DATABASES: u16 = 16;
/// Longest string that commands may grow a value to.
const MAX_VALUE: usize = 512 << 20;
/// Keys looked at per sweep.
const SWEEP: usize = 200;

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
    if let Some(flow) = besides_store(turn, session, request) {
        return flow;
    }
    let mode = Mode::of(turn.worker);
    let store = &turn.worker.shared.store;
    run(turn, session, request, ruled, store, mode)
}

/// Pub/sub, which the store knows nothing of.
fn besides_store(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Option<Flow> {
    match request.spec.id() {
        CommandId::Publish | CommandId::Spublish if request.args.len() == 3 => {
            Some(publish(turn, session, request))
        }
        CommandId::Pubsub => {
            let known = {
                let channels = turn.worker.shared.channels.lock();
                session.reply(|reply| channels.answer(request.args, reply))
            };
            Some(if known {
                Flow::Done
            } else {
                refuse(turn, session, command::unknown_subcommand(request.args))
            })
        }
        _ => None,
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

impl Mode {
    fn of(worker: &Worker) -> Self {
        if worker.has_upstream() {
            Self::RedisIsAway
        } else {
            Self::NoRedis
        }
    }
}

/// Keys that blocked clients may wait for.
type Ready = Vec<(u32, Box<[u8]>)>;

fn run(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
    ruled: &Ruled,
    store: &Mutex<Store>,
    mode: Mode,
) -> Flow {
    let mut store = store.lock();
    let Some(ready) = apply(turn, session, request, ruled, &mut store, mode) else {
        drop(store);
        return not_available(turn, session, request, mode);
    };
    // Who waits does so for keys of the one store.
    if mode != Mode::LocalOnly || !turn.worker.has_upstream() {
        blocking::serve(turn.worker, &mut store, ready);
    }
    Flow::Done
}

/// Runs a command on the store; `None`: memory mode does not have it, and nothing is answered.
fn apply(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
    ruled: &Ruled,
    store: &mut Store,
    mode: Mode,
) -> Option<Ready> {
    let adjusted = expiry::adjust(turn, request, ruled);
    let words = adjusted.change.apply(request.args);
    let words: SmallVec<[&[u8]; 8]> = words.iter().map(AsRef::as_ref).collect();
    let call = call(turn.worker, session.db);
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
    let Done::Answered { wrote, ready } = done else {
        return None;
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
    if mode == Mode::RedisIsAway {
        super::stale::written(turn, request, ruled);
    }
    if wrote && mode == Mode::RedisIsAway {
        turn.worker.counters.memory_writes.inc();
    }
    count_read(turn, request, nothing);
    if first == Some(b'-') {
        count(turn.worker, session.command, Outcome::Error);
    } else {
        turn.worker.count_hit(session.command);
    }
    Some(ready)
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
    refuse(turn, session, sentence(request, mode))
}

/// Why a command is not answered.
fn sentence(request: Request<'_>, mode: Mode) -> Vec<u8> {
    if request.spec.id() == CommandId::Other {
        return command::unknown_command(request.args);
    }
    let name = String::from_utf8_lossy(request.args[0]).to_uppercase();
    let why = match mode {
        Mode::LocalOnly => "for keys of a rule with cache: LocalOnly",
        Mode::NoRedis | Mode::RedisIsAway => "in memory mode",
    };
    format!("ERR {name} is not available {why}").into_bytes()
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
        Pin::Block => blocking::begin(turn, session, request),
        Pin::Multi => transaction::multi(turn, session),
        Pin::Watch => transaction::watch(turn, session, request),
        _ => not_available(turn, session, request, Mode::NoRedis),
    }
}

/// What came for a connection from others: messages, and the reply that it waits for.
pub fn deliver(client: &Rc<Client>) {
    let mut session = client.session.borrow_mut();
    if session.in_memory.is_some() {
        channels::deliver(&mut session);
        blocking::deliver(client, &mut session);
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
    (value, integer(&ttl).unwrap_or(-2))
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
    blocking::let_all_go(worker);
    let subscribers = worker.shared.channels.lock().kill_all();
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
