//! `MULTI`, `EXEC`, `DISCARD`, `WATCH` and `UNWATCH` without Redis.
//!
//! Commands are queued in the session. `EXEC` runs them under one lock of the store, so that no
//! other connection of any event loop comes in between. A transaction belongs to the store that
//! it began in: when Redis came back meanwhile, which empties the store, `EXEC` fails.

use super::{
    super::{Flow, Request, Turn, count, forward, local, refuse, route},
    DATABASES, Mode, Ready, apply, besides_store, blocking, call,
    held::{held, settle},
    not_available, sentence,
};
use crate::{
    client::{
        Client,
        session::{Lane, Session, Touches},
    },
    command::{self, Class, CommandId, Local, Pin, Resolved, class},
    metrics::Outcome,
    store::{Flag, Store},
};

/// Keys that one connection may watch.
const MAX_WATCHED: usize = 10_000;
/// Commands that one transaction may queue, and their bytes.
const MAX_QUEUED: usize = 65_536;
const MAX_QUEUED_BYTES: usize = 64 << 20;
const TOO_LARGE: &str = "ERR the transaction is too large for memory mode: 65536 commands of 64 MiB in all are possible";
const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";

/// State between `WATCH` or `MULTI` and `EXEC`.
pub(super) struct Transaction {
    /// The store it began in.
    generation: u64,
    watched: Vec<(u32, Box<[u8]>)>,
    changed: Flag,
    queue: Option<Queue>,
}

/// Commands after `MULTI`.
#[derive(Default)]
struct Queue {
    commands: Vec<Vec<Box<[u8]>>>,
    bytes: usize,
    /// One was refused: `EXEC` must fail.
    aborted: bool,
}

impl Transaction {
    fn new(store: &Store) -> Self {
        Self {
            generation: store.generation(),
            watched: Vec::new(),
            changed: Flag::default(),
            queue: None,
        }
    }

    /// Whether commands are being queued.
    pub(super) fn is_open(&self) -> bool {
        self.queue.is_some()
    }

    fn unwatch(&mut self, store: &mut Store) {
        for (db, key) in self.watched.drain(..) {
            store.unwatch(db, &key, &self.changed);
        }
    }
}

/// Whether a command is about transactions.
pub(super) fn concerns(request: Request<'_>) -> bool {
    matches!(
        request.spec.id(),
        CommandId::Multi
            | CommandId::Exec
            | CommandId::Discard
            | CommandId::Watch
            | CommandId::Unwatch
    )
}

/// `MULTI`
pub(super) fn multi(turn: &Turn<'_>, session: &mut Session) -> Flow {
    transaction(turn, session).queue = Some(Queue::default());
    settle(turn.client, session);
    done(turn, session)
}

/// `WATCH key …`
pub(super) fn watch(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let mut found = turn.worker.positions.take();
    let ruled = forward::rule_keys(turn, request, &mut found);
    turn.worker.positions.replace(found);
    match ruled {
        Ok(ruled) if ruled.local > 0 && turn.worker.has_upstream() => {
            return refuse(turn, session, sentence(request, Mode::LocalOnly));
        }
        Ok(_) => {}
        Err(denied) => return refuse(turn, session, denied),
    }
    let call = call(turn.worker, session.db);
    let transaction = transaction(turn, session);
    let keys = &request.args[1..];
    if transaction.watched.len() + keys.len() > MAX_WATCHED {
        settle(turn.client, session);
        return refuse(
            turn,
            session,
            "ERR too many keys are watched at a time in memory mode: say UNWATCH first",
        );
    }
    let mut store = turn.worker.shared.store.lock();
    for key in keys {
        store.watch(&call, key, &transaction.changed);
        transaction.watched.push((call.db, Box::from(*key)));
    }
    drop(store);
    done(turn, session)
}

fn transaction<'a>(turn: &Turn<'_>, session: &'a mut Session) -> &'a mut Transaction {
    held(session)
        .transaction
        .get_or_insert_with(|| Transaction::new(&turn.worker.shared.store.lock()))
}

fn done(turn: &Turn<'_>, session: &mut Session) -> Flow {
    count(turn.worker, session.command, Outcome::Ok);
    session.reply(|reply| reply.ok());
    Flow::Done
}

/// `MULTI`, `EXEC` … of a connection that watches keys.
pub(super) fn while_watching(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    if !request.spec.arity_matches(request.args.len()) {
        return refuse(turn, session, command::wrong_arity(request.spec));
    }
    if session.must_wait(Lane::Local, Touches::Anything) {
        return Flow::Wait;
    }
    match request.spec.id() {
        CommandId::Multi => multi(turn, session),
        CommandId::Watch => watch(turn, session, request),
        CommandId::Unwatch => end(turn, session),
        _ => route(turn, session, request),
    }
}

/// `DISCARD`, `UNWATCH`
fn end(turn: &Turn<'_>, session: &mut Session) -> Flow {
    forget(turn.client, session);
    settle(turn.client, session);
    done(turn, session)
}

/// Ends a transaction in whatever state it is.
pub(super) fn forget(client: &Client, session: &mut Session) {
    let held = session.in_memory.as_mut();
    if let Some(mut transaction) = held.and_then(|held| held.transaction.take()) {
        transaction.unwatch(&mut client.worker.shared.store.lock());
    }
}

/// A command after `MULTI`.
pub(super) fn in_multi(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Request { spec, args, .. } = request;
    if !spec.arity_matches(args.len()) {
        let error = command::wrong_arity(spec);
        if spec.id() == CommandId::Exec {
            return refuse_exec(turn, session, error.as_ref());
        }
        return abort(turn, session, error);
    }
    match spec.id() {
        CommandId::Exec => return exec(turn, session),
        CommandId::Discard => return end(turn, session),
        CommandId::Multi => return refuse(turn, session, "ERR MULTI calls can not be nested"),
        CommandId::Watch => return refuse(turn, session, "ERR WATCH inside MULTI is not allowed"),
        _ => {}
    }
    match class(spec, args, turn.allowed(args[0])) {
        Class::Local(Local::Quit | Local::Reset) => route(turn, session, request),
        Class::Local(
            Local::Ping
            | Local::Echo
            | Local::Command
            | Local::Role
            | Local::Cluster
            | Local::Select,
        ) => queue(turn, session, request),
        Class::Refused(reason) => {
            turn.worker.counters.denied.inc();
            abort(turn, session, reason.message(args[0]))
        }
        Class::Local(_) | Class::Pin(Pin::Subscribe | Pin::Monitor) | Class::Unsubscribe => {
            let name = spec.name();
            let error = format!("ERR {name} is not possible inside MULTI in memory mode");
            abort(turn, session, error)
        }
        _ => match check(turn, request) {
            Ok(()) => queue(turn, session, request),
            Err(error) => abort(turn, session, error),
        },
    }
}

/// A malformed `EXEC` ends the transaction, as in Redis.
fn refuse_exec(turn: &Turn<'_>, session: &mut Session, error: &[u8]) -> Flow {
    forget(turn.client, session);
    settle(turn.client, session);
    let why = error.strip_prefix(b"ERR ").unwrap_or(error);
    let error = [b"EXECABORT Transaction discarded because of: ", why].concat();
    refuse(turn, session, error)
}

/// Whether memory mode can run a command, as far as that is known before it runs.
fn check(turn: &Turn<'_>, request: Request<'_>) -> Result<(), Vec<u8>> {
    let mut found = turn.worker.positions.take();
    let ruled = forward::rule_keys(turn, request, &mut found);
    turn.worker.positions.replace(found);
    let ruled = ruled.map_err(String::into_bytes)?;
    if ruled.local > 0 && turn.worker.has_upstream() {
        return Err(b"ERR keys of a rule with cache: LocalOnly live outside Redis: they cannot be part of this command here".to_vec());
    }
    let known = matches!(
        request.spec.id(),
        CommandId::Publish | CommandId::Spublish | CommandId::Pubsub | CommandId::Unwatch
    );
    if known || Store::has(request.args[0]) {
        return Ok(());
    }
    Err(sentence(request, Mode::NoRedis))
}

fn abort(turn: &Turn<'_>, session: &mut Session, error: impl AsRef<[u8]>) -> Flow {
    if let Some(queue) = open_queue(session) {
        *queue = Queue {
            aborted: true,
            ..Queue::default()
        };
    }
    refuse(turn, session, error)
}

fn open_queue(session: &mut Session) -> Option<&mut Queue> {
    let held = session.in_memory.as_mut()?;
    held.transaction.as_mut()?.queue.as_mut()
}

fn queue(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Some(queue) = open_queue(session) else {
        return Flow::Wait;
    };
    // After an error nothing will run: why keep it.
    if !queue.aborted {
        let bytes: usize = request.args.iter().map(|arg| arg.len() + 32).sum();
        if queue.commands.len() >= MAX_QUEUED || queue.bytes + bytes > MAX_QUEUED_BYTES {
            return abort(turn, session, TOO_LARGE);
        }
        queue.bytes += bytes;
        let words = request.args.iter().map(|arg| Box::from(*arg));
        queue.commands.push(words.collect());
    }
    count(turn.worker, session.command, Outcome::Ok);
    session.reply(|reply| reply.simple("QUEUED"));
    Flow::Done
}

fn exec(turn: &Turn<'_>, session: &mut Session) -> Flow {
    if session.must_wait(Lane::Local, Touches::Anything) {
        return Flow::Wait;
    }
    let held = session.in_memory.as_mut();
    let Some(mut transaction) = held.and_then(|held| held.transaction.take()) else {
        return Flow::Wait;
    };
    settle(turn.client, session);
    let queue = transaction.queue.take().unwrap_or_default();
    let mut store = turn.worker.shared.store.lock();
    let fate = fate(turn, &queue, &transaction, &mut store);
    transaction.unwatch(&mut store);
    match fate {
        Fate::Aborted => {
            drop(store);
            return refuse(turn, session, ABORTED);
        }
        Fate::Changed => {
            session.reply(|reply| reply.null_array());
        }
        Fate::Runs => {
            let exec = session.command;
            session.reply(|reply| reply.array(queue.commands.len()));
            let mut ready = Ready::new();
            for words in &queue.commands {
                let words: Vec<&[u8]> = words.iter().map(AsRef::as_ref).collect();
                ready.extend(step(turn, session, &mut store, &words));
            }
            blocking::serve(turn.worker, &mut store, ready);
            session.command = exec;
        }
    }
    drop(store);
    count(turn.worker, session.command, Outcome::Ok);
    Flow::Done
}

enum Fate {
    Runs,
    Changed,
    Aborted,
}

fn fate(turn: &Turn<'_>, queue: &Queue, transaction: &Transaction, store: &mut Store) -> Fate {
    if queue.aborted {
        return Fate::Aborted;
    }
    // Whoever watches is told to begin again, which is true; others that it failed.
    if transaction.generation != store.generation() {
        return match transaction.watched.as_slice() {
            [] => Fate::Aborted,
            _ => Fate::Changed,
        };
    }
    // A key whose time is over goes now, and that is a change.
    let call = call(turn.worker, 0);
    for (db, key) in &transaction.watched {
        store.is_there(&call, *db, key);
    }
    if transaction.changed.is_raised() {
        return Fate::Changed;
    }
    Fate::Runs
}

/// Runs one queued command; its reply follows those before it.
fn step(turn: &Turn<'_>, session: &mut Session, store: &mut Store, words: &[&[u8]]) -> Ready {
    let Resolved::Command(spec) = turn.commands.resolve(words) else {
        refuse(turn, session, command::unknown_command(words));
        return Ready::new();
    };
    session.command = spec.id();
    let request = Request {
        spec,
        args: words,
        raw: None,
    };
    if spec.id() == CommandId::Select {
        select(turn, session, words[1]);
        return Ready::new();
    }
    if spec.id() == CommandId::Unwatch {
        done(turn, session);
        return Ready::new();
    }
    if let Class::Local(which) = class(spec, words, turn.allowed(words[0])) {
        local::answer(turn, session, which, request);
        return Ready::new();
    }
    if besides_store(turn, session, request).is_some() {
        return Ready::new();
    }
    let mut found = turn.worker.positions.take();
    let ruled = forward::rule_keys(turn, request, &mut found);
    turn.worker.positions.replace(found);
    let mode = Mode::of(turn.worker);
    match ruled {
        Ok(ruled) => apply(turn, session, request, &ruled, store, mode).unwrap_or_else(|| {
            not_available(turn, session, request, mode);
            Ready::new()
        }),
        Err(denied) => {
            refuse(turn, session, denied);
            Ready::new()
        }
    }
}

fn select(turn: &Turn<'_>, session: &mut Session, index: &[u8]) {
    let index = std::str::from_utf8(index)
        .ok()
        .and_then(|text| text.parse::<i64>().ok());
    match index.map(u16::try_from) {
        None => {
            refuse(turn, session, "ERR value is not an integer or out of range");
        }
        Some(Ok(db)) if db < DATABASES => {
            session.db = db;
            turn.client.handle.update(|info| info.db = db);
            done(turn, session);
        }
        Some(_) => {
            refuse(turn, session, "ERR DB index is out of range");
        }
    }
}
