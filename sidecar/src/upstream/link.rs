//! One connection to Redis: many commands in flight, answered in order.
//!
//! A link is driven by one task of its event loop, which connects, writes what was appended since
//! its last turn with one system call, reads, and hands each reply to the [`Target`] that waits
//! for it. When the connection breaks, the task decides for each unanswered command whether it is
//! sent again: those that never left, and idempotent ones; all others fail honestly.

mod life;
mod loss;
mod wire;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    task::Waker,
    time::Duration,
};

use tokio::sync::Notify;

use super::{Lost, Server, connect::Handshake, health::Health, outbox::Outbox};
use crate::{
    client::Client, clock::Tick, engine::reply::Target, resp::Proto, tier::TierLink, worker::Worker,
};

/// Unanswered bytes above which clients are told to wait.
const FULL: usize = 64 << 20;
/// Unanswered commands above which clients are told to wait.
const CROWDED: usize = 1 << 16;

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Forwarded commands of all clients with that protocol version.
    Plain,
    /// Cacheable reads; always RESP3; receives invalidations.
    Tracked,
    /// One client's transactions, subscriptions, blocking commands.
    Pinned,
}

/// Where a link stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The first attempt, or the first since the connection broke, is under way: clients wait.
    Connecting,
    /// Commands may be sent.
    Up,
    /// The last attempt failed; another one will be made.
    Down(Rc<str>),
    /// The server has no such database.
    NoDatabase,
    /// Ended; no attempt will be made.
    Closed,
}

/// A command that waits for its reply.
struct Pending {
    target: Target,
    len: usize,
    since: Tick,
    /// Times it was sent in vain.
    attempts: u8,
    repeatable: bool,
    /// It waits in the offline queue.
    queued: bool,
}

impl Pending {
    fn is_command(&self) -> bool {
        matches!(self.target, Target::Client(_))
    }
}

/// A connection to Redis.
pub struct Link {
    /// Its purpose.
    pub role: Role,
    /// The server at its other end.
    pub server: Rc<Server>,
    /// Its protocol version and database.
    pub handshake: Handshake,
    pub(super) worker: Rc<Worker>,
    /// How that server fares.
    health: RefCell<Arc<Health>>,
    /// Its slot in the local tier; only the tracked link has one.
    pub tier: Option<TierLink>,
    core: RefCell<Core>,
    waker: RefCell<Option<Waker>>,
    /// Clients that wait for the link to come up, or to have room.
    waiters: RefCell<Vec<Rc<Client>>>,
    /// The client that a pinned link belongs to.
    owner: RefCell<Option<Rc<Client>>>,
    /// A pinned link whose replies may take for ever.
    pub patient: Cell<bool>,
    /// A tracked link whose replies may be kept: invalidations come, or none are wanted.
    pub fills: Cell<bool>,
    /// Its end need not wait for a connection attempt or a pause.
    stopped: Notify,
    /// When its connection came up.
    pub up_since: Cell<Tick>,
    /// Why it has ended.
    ended: RefCell<Option<Rc<str>>>,
    /// Its next connection carries the probe of a circuit that is half open.
    probes: Cell<bool>,
}

struct Core {
    status: Status,
    outbox: Outbox,
    pending: VecDeque<Pending>,
    /// Ask the task to end.
    stop: Option<Lost>,
    /// Nothing more is sent; once everything that was sent is answered, connect anew.
    leaving: bool,
}

// === impl Link ===

impl Drop for Link {
    fn drop(&mut self) {
        self.worker.shared.healths.forget(&self.health.borrow());
    }
}

impl Link {
    /// Starts a link and its task.
    pub fn open(
        worker: &Rc<Worker>,
        server: &Rc<Server>,
        role: Role,
        handshake: Handshake,
    ) -> Rc<Self> {
        let tier = match role {
            Role::Tracked => TierLink::open(&worker.shared.tier),
            _ => None,
        };
        let link = Rc::new(Self {
            role,
            server: Rc::clone(server),
            handshake,
            worker: Rc::clone(worker),
            health: RefCell::new(worker.health_of(server)),
            tier,
            core: RefCell::new(Core {
                status: Status::Connecting,
                outbox: Outbox::default(),
                pending: VecDeque::new(),
                stop: None,
                leaving: false,
            }),
            waker: RefCell::new(None),
            waiters: RefCell::default(),
            owner: RefCell::new(None),
            patient: Cell::new(false),
            fills: Cell::new(false),
            stopped: Notify::new(),
            up_since: Cell::default(),
            ended: RefCell::default(),
            probes: Cell::new(false),
        });
        tokio::task::spawn_local(Rc::clone(&link).run());
        link
    }

    /// Where the link stands. While the circuit is open it is down, whatever its connection does.
    pub fn status(&self) -> Status {
        let status = self.core.borrow().status.clone();
        if self.is_cut_off() && matches!(status, Status::Up | Status::Connecting | Status::Down(_))
        {
            return Status::Down(self.health.borrow().words().into());
        }
        status
    }

    /// Whether the circuit forbids to send. What a client began on a connection of its own goes on.
    fn is_cut_off(&self) -> bool {
        self.health.borrow().is_cut_off() && self.role != Role::Pinned
    }

    /// Gives the connection up if the circuit is open, before anything more is sent over it.
    pub fn obey_circuit(&self) {
        if self.is_cut_off() {
            let mut core = self.core.borrow_mut();
            if core.status == Status::Up {
                let why = Lost::Unavailable(self.health.borrow().words().into());
                core.stop.get_or_insert(why);
                drop(core);
                self.wake();
            }
        }
    }

    /// Whether commands may be sent.
    #[inline]
    pub fn is_up(&self) -> bool {
        self.core.borrow().status == Status::Up && !self.is_cut_off()
    }

    /// Whether so much is unanswered that clients should wait.
    #[inline]
    pub fn is_full(&self) -> bool {
        let core = self.core.borrow();
        core.outbox.len() > FULL || core.pending.len() > CROWDED
    }

    /// Commands that wait for a reply.
    pub fn in_flight(&self) -> usize {
        self.core.borrow().pending.len()
    }

    /// Appends a command; it is sent in the link's next turn. `repeatable`: it may be sent again
    /// after the connection broke.
    #[inline]
    pub fn send(&self, target: Target, repeatable: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let mut core = self.core.borrow_mut();
        let len = core.outbox.append(write);
        let since = self.worker.now();
        let mut pending = Pending {
            target,
            len,
            since,
            attempts: 0,
            repeatable,
            queued: false,
        };
        if core.status != Status::Up && self.worker.offline_queue().is_some() {
            self.enter_queue(&mut pending);
        }
        core.pending.push_back(pending);
        drop(core);
        self.worker.convoy.join(self.waker.borrow_mut().take());
    }

    /// Nothing is sent now: the command waits in the offline queue.
    #[cold]
    fn enter_queue(&self, pending: &mut Pending) {
        pending.queued = true;
        let queue = &self.worker.shared.offline;
        queue.enter(pending.is_command(), pending.len as u64);
    }

    fn leave_queue(&self, pending: &mut Pending) {
        if std::mem::take(&mut pending.queued) {
            let queue = &self.worker.shared.offline;
            queue.leave(pending.is_command(), pending.len as u64);
        }
    }

    /// Appends bytes whose answers are messages, not replies.
    pub fn append(&self, bytes: &[u8]) {
        let mut core = self.core.borrow_mut();
        core.outbox.append(|out| out.extend_from_slice(bytes));
        drop(core);
        self.wake();
    }

    /// Its event loop.
    pub fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Has `client` woken when the link comes up, fails, or has room again.
    pub fn wait(&self, client: &Rc<Client>) {
        self.waiters.borrow_mut().push(Rc::clone(client));
    }

    /// Gives a pinned link to a client, or takes it back.
    pub fn set_owner(&self, owner: Option<Rc<Client>>) {
        *self.owner.borrow_mut() = owner;
    }

    /// Ends the link: unanswered commands fail with `why`.
    pub fn close(&self, why: Lost) {
        let mut core = self.core.borrow_mut();
        if core.stop.is_none() || core.is_switched() {
            core.stop = Some(why);
        }
        drop(core);
        self.stopped.notify_one();
        self.wake();
    }

    /// Connects anew: what is announced on this connection is no longer what the rules need.
    pub fn renew(&self) {
        if let Some(tier) = &self.tier {
            tier.break_proof();
        }
        let why = Lost::Broken("the rules changed, and with them what redis is to announce".into());
        let mut core = self.core.borrow_mut();
        if core.status == Status::Up {
            core.stop.get_or_insert(why);
            drop(core);
            self.wake();
        }
    }

    /// Leaves the server at once, answered or not, for the one that is the primary now.
    pub fn switch(&self) {
        self.close(Lost::Switched);
    }

    /// Breaks the connection if its oldest command has waited for longer than the limit.
    pub fn check_timeout(&self, now: Tick) {
        self.obey_circuit();
        if self.patient.get() {
            return;
        }
        let limit = self.worker.active().config.resilience.command_timeout.0;
        let mut core = self.core.borrow_mut();
        if core.status == Status::Up {
            let oldest = core.pending.front();
            if oldest.is_some_and(|oldest| now.since(oldest.since) > limit) {
                core.stop.get_or_insert(Lost::TimedOut(limit));
                drop(core);
                self.wake();
            }
            return;
        }
        drop(core);
        self.give_up_late(now, limit);
        // Who waits in its client keeps its deadline by itself.
        if matches!(self.status(), Status::Down(_)) {
            self.wake_waiters();
        }
    }

    /// Not connected: what waits for a reconnect that does not come in time fails.
    fn give_up_late(&self, now: Tick, limit: Duration) {
        let queue = self.worker.offline_queue();
        let patience = queue.map_or(Duration::ZERO, |queue| queue.max_wait.0);
        let is_late = |pending: &Pending| {
            now.since(pending.since) > if pending.queued { patience } else { limit }
        };
        let mut core = self.core.borrow_mut();
        let mut failed = Vec::new();
        while core.pending.front().is_some_and(is_late) {
            failed.extend(core.pending.pop_front());
        }
        let bytes = failed.iter().map(|pending| pending.len).sum();
        core.outbox.answered(bytes);
        let why = match &core.status {
            Status::Down(why) => why.to_string(),
            _ => "reconnecting".to_owned(),
        };
        drop(core);
        if failed.is_empty() {
            return;
        }
        for pending in failed {
            let lost = match queue.filter(|_| pending.queued && pending.is_command()) {
                Some(limits) => {
                    Lost::Unavailable(self.worker.shared.offline.expire(limits, &why).into())
                }
                None => Lost::TimedOut(limit),
            };
            self.fail(pending, false, &lost);
        }
        self.worker.flush_dirty();
    }

    /// Connects anew, once what was sent is answered: the server is not the one it was.
    pub fn leave(&self) {
        self.core.borrow_mut().leaving = true;
        self.wake();
    }

    /// Why it has ended, for who waited for it.
    pub fn why_ended(&self) -> Rc<str> {
        let ended = self.ended.borrow().clone();
        ended.unwrap_or_else(|| "the connection was closed".into())
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn wake_waiters(&self) {
        for client in self.waiters.take() {
            client.wake();
        }
    }

    /// Whether replies on this link come in the client's protocol version.
    pub fn proto(&self) -> Proto {
        self.handshake.proto
    }
}

impl Core {
    /// Whether everything that was sent before it was left is answered.
    fn has_left(&self) -> bool {
        self.leaving && self.outbox.is_settled()
    }

    /// Whether the task is asked to end for good.
    fn ends(&self) -> bool {
        matches!(self.stop, Some(Lost::Closed | Lost::Replaced))
    }

    fn is_switched(&self) -> bool {
        self.stop == Some(Lost::Switched)
    }

    /// Subscriptions are answered by messages, so nothing takes their bytes off the outbox.
    fn forget_messages(&mut self) {
        if self.pending.is_empty() && self.outbox.unsent().is_empty() {
            self.outbox.answered(self.outbox.len());
        }
    }
}
