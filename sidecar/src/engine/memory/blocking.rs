//! Clients that wait in memory mode: `BLPOP` and its relatives, `XREAD BLOCK`.
//!
//! Whoever adds something serves those who wait for it, in the order in which they came, before
//! anybody else gets the lock of the store; the reply lies in the waiter's mailbox until its event
//! loop takes it. Lock order: the store, then the waiters.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::{
    super::{Flow, Request, Turn, count, expiry, forward, refuse},
    Mode, Ready, call,
    held::{held, settle},
    not_available, sentence,
};
use crate::{
    client::{
        Client, ClientHandle,
        session::{Lane, Session, Touches},
    },
    command::CommandId,
    metrics::Outcome,
    resp::{
        Proto,
        reply::{is_error, is_null},
        write::Reply,
    },
    store::{Call, Done, Store},
    worker::Worker,
};

/// The longest timer; nobody waits for longer.
const LONGEST: Duration = Duration::from_hours(8760);
const REDIS_IS_BACK: &str =
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";
const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";

/// A client that waits, and what for.
struct Waiter {
    client: Arc<ClientHandle>,
    db: u16,
    proto: Proto,
    command: CommandId,
    words: Vec<Box<[u8]>>,
    keys: Vec<Box<[u8]>>,
    /// Keys that get a TTL once it is served, in milliseconds.
    follow: Vec<(Box<[u8]>, u64)>,
    answer: Mutex<Option<Vec<u8>>>,
}

/// All who wait, by database and key, longest first.
#[derive(Default)]
pub struct Waiters(BTreeMap<Place, VecDeque<Arc<Waiter>>>);

/// A key in its database.
type Place = (u16, Box<[u8]>);

impl Waiters {
    fn add(&mut self, waiter: &Arc<Waiter>) {
        for key in &waiter.keys {
            let queue = self.0.entry((waiter.db, key.clone())).or_default();
            if !queue.iter().any(|known| Arc::ptr_eq(known, waiter)) {
                queue.push_back(Arc::clone(waiter));
            }
        }
    }

    fn remove(&mut self, waiter: &Arc<Waiter>) {
        for key in &waiter.keys {
            let place = (waiter.db, key.clone());
            if let Some(queue) = self.0.get_mut(&place) {
                queue.retain(|known| !Arc::ptr_eq(known, waiter));
                if queue.is_empty() {
                    self.0.remove(&place);
                }
            }
        }
    }
}

impl Waiter {
    fn put(&self, answer: Vec<u8>) {
        *self.answer.lock() = Some(answer);
        self.client.wake();
    }
}

/// That a connection waits.
pub(super) struct Blocked {
    /// The place of the reply.
    number: u64,
    waiter: Arc<Waiter>,
    timer: Option<AbortHandle>,
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
    }
}

/// A command that may wait.
pub(super) fn begin(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let mut found = turn.worker.positions.take();
    let ruled = forward::rule_keys(turn, request, &mut found);
    turn.worker.positions.replace(found);
    let ruled = match ruled {
        Ok(ruled) if ruled.local > 0 && turn.worker.has_upstream() => {
            return refuse(turn, session, sentence(request, Mode::LocalOnly));
        }
        Ok(ruled) => ruled,
        Err(denied) => return refuse(turn, session, denied),
    };
    let adjusted = expiry::adjust(turn, request, &ruled);
    let words = adjusted.change.apply(request.args);
    let words: Vec<&[u8]> = words.iter().map(AsRef::as_ref).collect();
    let follow = adjusted.follow.iter();
    let follow = follow.map(|(index, ms)| (Box::from(request.args[*index as usize]), *ms));
    let mut waiter = Waiter {
        client: Arc::clone(&turn.client.handle),
        db: session.db,
        proto: session.proto,
        command: session.command,
        words: Vec::new(),
        keys: Vec::new(),
        follow: follow.collect(),
        answer: Mutex::default(),
    };
    let call = call(turn.worker, session.db);
    let mut store = turn.worker.shared.store.lock();
    let Some((answer, ready)) = ask(turn.worker, &mut store, &call, &waiter, &words) else {
        drop(store);
        return not_available(turn, session, request, Mode::NoRedis);
    };
    turn.worker.counters.memory_commands.inc();
    let failed = is_error(&answer);
    if let Some(patience) = Store::patience(&words).filter(|_| is_null(&answer)) {
        waiter.keys = Store::waits_for(&words)
            .into_iter()
            .map(Box::from)
            .collect();
        waiter.words = store.words_to_wait_with(&call, &words);
        wait(turn, session, Arc::new(waiter), patience);
    } else {
        session.reply(|reply| reply.out.extend_from_slice(&answer));
        serve(turn.worker, &mut store, ready);
    }
    drop(store);
    let outcome = if failed { Outcome::Error } else { Outcome::Ok };
    count(turn.worker, session.command, outcome);
    Flow::Done
}

/// Runs the command once; the answer, and keys that got elements by it. `None`: there is no such
/// command here.
fn ask(
    worker: &Worker,
    store: &mut Store,
    call: &Call,
    waiter: &Waiter,
    words: &[&[u8]],
) -> Option<(Vec<u8>, Ready)> {
    let mut answer = Vec::new();
    let done = store.execute(call, words, &mut Reply::new(&mut answer, waiter.proto));
    let Done::Answered { wrote, ready } = done else {
        return None;
    };
    if wrote {
        if worker.has_upstream() {
            worker.counters.memory_writes.inc();
        }
        for (key, millis) in &waiter.follow {
            let millis = millis.to_string();
            let words: [&[u8]; 4] = [b"PEXPIRE", key, millis.as_bytes(), b"NX"];
            store.execute(call, &words, &mut Reply::new(&mut Vec::new(), Proto::Resp2));
        }
    }
    Some((answer, ready))
}

/// The store is locked, so nothing is missed between the question and this.
fn wait(turn: &Turn<'_>, session: &mut Session, waiter: Arc<Waiter>, patience: Duration) {
    turn.worker.shared.waiters.lock().add(&waiter);
    let number = session.reserve(Lane::Local, Touches::Anything);
    let timer = (patience < LONGEST).then(|| {
        let client = Rc::clone(turn.client);
        let task = async move {
            tokio::time::sleep(patience).await;
            time_out(&client, number);
        };
        tokio::task::spawn_local(task).abort_handle()
    });
    held(session).blocked = Some(Blocked {
        number,
        waiter,
        timer,
    });
    settle(turn.client, session);
}

/// Serves those who wait for keys that got elements.
pub(super) fn serve(worker: &Worker, store: &mut Store, ready: Ready) {
    if ready.is_empty() {
        return;
    }
    let mut waiters = worker.shared.waiters.lock();
    if waiters.0.is_empty() {
        return;
    }
    let mut ready = VecDeque::from(ready);
    while let Some((db, key)) = ready.pop_front() {
        let place = u16::try_from(db).ok().map(|db| (db, key));
        let queue = place.and_then(|place| waiters.0.get(&place).cloned());
        // Of the pops only the first that finds nothing is asked; of readers each has its own id.
        let mut found_nothing: Vec<CommandId> = Vec::new();
        for waiter in queue.into_iter().flatten() {
            if found_nothing.contains(&waiter.command) {
                continue;
            }
            let words: Vec<&[u8]> = waiter.words.iter().map(AsRef::as_ref).collect();
            let call = call(worker, waiter.db);
            match ask(worker, store, &call, &waiter, &words) {
                Some((answer, more)) if !is_null(&answer) && !is_error(&answer) => {
                    waiters.remove(&waiter);
                    waiter.put(answer);
                    ready.extend(more);
                }
                _ if waiter.command == CommandId::Xread => {}
                _ => found_nothing.push(waiter.command),
            }
        }
    }
}

/// Takes the reply of a connection that waited, if it has come.
pub(super) fn deliver(client: &Rc<Client>, session: &mut Session) {
    let held = session.in_memory.as_ref();
    let blocked = held.and_then(|held| held.blocked.as_ref());
    if blocked.is_some_and(|blocked| blocked.waiter.answer.lock().is_some()) {
        end(client, session, |_| {});
    }
}

/// Ends the waiting, with the reply that has come or the one that `otherwise` writes.
fn end(client: &Rc<Client>, session: &mut Session, otherwise: impl FnOnce(&mut Reply<'_>)) {
    let held = session.in_memory.as_mut();
    let Some(blocked) = held.and_then(|held| held.blocked.take()) else {
        return;
    };
    // Under the lock nobody is about to serve it.
    client.worker.shared.waiters.lock().remove(&blocked.waiter);
    let answer = blocked.waiter.answer.lock().take();
    let proto = session.proto;
    session.complete(blocked.number, |out| match answer {
        Some(answer) => out.extend_from_slice(&answer),
        None => otherwise(&mut Reply::new(out, proto)),
    });
    settle(client, session);
}

fn time_out(client: &Rc<Client>, number: u64) {
    let mut session = client.session.borrow_mut();
    let held = session.in_memory.as_ref();
    let blocked = held.and_then(|held| held.blocked.as_ref());
    if blocked.is_some_and(|blocked| blocked.number == number) {
        end(client, &mut session, |reply| reply.null_array());
        drop(session);
        client.wake();
    }
}

/// `CLIENT UNBLOCK` came; whether it was for a connection that waits here.
pub fn unblock(client: &Rc<Client>, with_error: bool) -> bool {
    let mut session = client.session.borrow_mut();
    let held = session.in_memory.as_ref();
    if held.is_none_or(|held| held.blocked.is_none()) {
        return false;
    }
    end(client, &mut session, |reply| {
        if with_error {
            reply.error(UNBLOCKED);
        } else {
            reply.null_array();
        }
    });
    true
}

/// The connection is gone.
pub(super) fn forget(client: &Client, session: &mut Session) {
    let held = session.in_memory.as_mut();
    if let Some(blocked) = held.and_then(|held| held.blocked.take()) {
        client.worker.shared.waiters.lock().remove(&blocked.waiter);
    }
}

/// Redis is back: nobody will add anything here, so all who wait are told.
pub(super) fn let_all_go(worker: &Worker) {
    let all = std::mem::take(&mut worker.shared.waiters.lock().0);
    for waiter in all.into_values().flatten() {
        let mut answer = Vec::new();
        Reply::new(&mut answer, waiter.proto).error(REDIS_IS_BACK);
        waiter.put(answer);
    }
}
