//! One connection to Redis: many commands in flight, answered in order.
//!
//! A link is driven by one task of its event loop, which connects, writes what was appended since
//! its last turn with one system call, reads, and hands each reply to the [`Target`] that waits
//! for it. When the connection breaks, the task decides for each unanswered command whether it is
//! sent again: those that never left, and idempotent ones; all others fail honestly.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use policy::config::OfflineQueue;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    sync::Notify,
};

use super::{
    Lost, Server,
    backoff::Backoff,
    connect::{ConnectError, Connected, Handshake},
    health::{Health, Permit},
    outbox::Outbox,
    stream::Stream,
};
use crate::{
    client::Client,
    clock::Tick,
    engine::{
        redirect,
        reply::{self, Target},
    },
    resp::{
        Proto,
        reply::{Scanner, is_error, is_push},
    },
    tier::TierLink,
    worker::Worker,
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

    /// Connects, serves, and reconnects until it is closed.
    async fn run(self: Rc<Self>) {
        let limits = self.worker.active().config.resilience;
        let mut backoff = Backoff::new(limits.backoff_base.0, limits.backoff_max.0);
        loop {
            let attempt = tokio::select! {
                attempt = self.connect_if_permitted() => attempt,
                () = self.stopped.notified() => {
                    let stop = self.core.borrow_mut().stop.take();
                    if let Some(why) = stop.filter(|why| *why != Lost::Switched) {
                        self.went_down(&why);
                        return;
                    }
                    // To the new primary, without a pause.
                    backoff.reset();
                    continue;
                }
            };
            let lost = match attempt {
                Ok(connected) => {
                    backoff.reset();
                    self.came_up(connected.tracking_refused.as_deref());
                    self.serve(connected).await
                }
                Err(lost) => lost,
            };
            if lost != Lost::Demoted {
                self.worker.counters.upstream_errors.inc();
            }
            let was_up = self.core.borrow().status == Status::Up;
            if !matches!(
                lost,
                Lost::Closed | Lost::Replaced | Lost::Demoted | Lost::NoDatabase(_)
            ) {
                self.note_failure(&lost);
            }
            if self.went_down(&lost) {
                return;
            }
            // A connection that broke is tried again nearly at once: most breaks are short.
            let pause = if was_up {
                self.share_of(limits.backoff_base.0)
            } else {
                backoff.next(self.worker.random())
            };
            // Another link that comes up knows before the pause is over that Redis is back.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.worker.shared.upstream.is_back.notified() => {
                    // All links of this process know it now; they do not come all at once.
                    tokio::time::sleep(self.share_of(limits.backoff_base.0)).await;
                }
                () = self.stopped.notified() => {}
            }
            if !self.core.borrow().ends() {
                tokio::select! {
                    () = self.until_permitted() => {}
                    () = self.stopped.notified() => {}
                }
            }
            if self.core.borrow().ends() {
                self.went_down(&self.why_stopped());
                return;
            }
            if self.core.borrow().is_switched() {
                self.core.borrow_mut().stop = None;
                backoff.reset();
            }
        }
    }

    async fn connect(&self) -> Result<Connected, Lost> {
        let endpoint = if let Ok(endpoint) = self.worker.locate(&self.server) {
            endpoint
        } else {
            // Clients wait, as for any connection; a primary that becomes known ends this.
            let limit = self.worker.active().config.resilience.connect_timeout.0;
            tokio::time::sleep(limit).await;
            self.worker.locate(&self.server)?
        };
        let connected = endpoint.connect(self.handshake).await;
        connected.map_err(|error| match error {
            ConnectError::Refused {
                command: "SELECT",
                answer,
            } => Lost::NoDatabase(answer.into()),
            error @ ConnectError::Refused { .. } => Lost::Refused(error.to_string().into()),
            error => Lost::Unavailable(error.to_string().into()),
        })
    }

    fn why_stopped(&self) -> Lost {
        let stop = self.core.borrow_mut().stop.take();
        stop.unwrap_or(Lost::Closed)
    }

    /// A random part of a span.
    fn share_of(&self, span: Duration) -> Duration {
        span.mul_f64(f64::from(self.worker.random()) / f64::from(u32::MAX))
    }

    fn note_failure(&self, lost: &Lost) {
        let breaker = self.worker.active().config.resilience.circuit_breaker;
        let why = lost.to_string();
        self.health
            .borrow()
            .failed(breaker, &why, self.worker.random());
    }

    /// Another server may have taken its place, at another address.
    fn follow_address(&self) {
        let health = self.worker.health_of(&self.server);
        if !Arc::ptr_eq(&health, &self.health.borrow()) {
            let before = self.health.replace(health);
            self.worker.shared.healths.forget(&before);
        }
    }

    /// Waits while the circuit is open. Who may send the probe sends it with its next connection.
    async fn until_permitted(&self) {
        loop {
            self.follow_address();
            let resilience = self.worker.active().config.resilience;
            let patience = resilience.connect_timeout.0 + resilience.command_timeout.0;
            let permit = self
                .health
                .borrow()
                .permit(resilience.circuit_breaker, patience);
            match permit {
                Permit::Go => return,
                Permit::Probe => return self.probes.set(true),
                Permit::Wait(left) => {
                    // Its end, and that of the link, are looked for now and then.
                    let left = left.min(Duration::from_millis(500));
                    tokio::select! {
                        () = tokio::time::sleep(left) => {}
                        () = self.worker.shared.upstream.is_back.notified() => {}
                    }
                }
            }
        }
    }

    /// Connects, and where the circuit is half open sends the probe.
    async fn connect_if_permitted(&self) -> Result<Connected, Lost> {
        if self.health.borrow().is_cut_off() && !self.probes.get() {
            return Err(Lost::Unavailable(self.health.borrow().words().into()));
        }
        let health = Arc::clone(&self.health.borrow());
        let _turn = health.attempts.acquire().await;
        let mut connected = self.connect().await;
        if self.probes.take() {
            let active = self.worker.active();
            let resilience = active.config.resilience;
            let result = match &mut connected {
                Ok(connected) => {
                    let key = active.key_in_redis(crate::worker::PROOF_KEY);
                    connected.probe(&key, resilience.command_timeout.0).await
                }
                Err(lost) => Err(lost.to_string()),
            };
            let random = self.worker.random();
            let outcome = result.as_ref().map(|&()| ()).map_err(String::as_str);
            self.health
                .borrow()
                .probed(resilience.circuit_breaker, outcome, random);
            if let Err(why) = result {
                return Err(Lost::Unavailable(why.into()));
            }
        }
        connected
    }

    fn came_up(&self, tracking_refused: Option<&str>) {
        self.worker.counters.upstream_connects.inc();
        self.up_since.set(Tick::now());
        {
            let mut core = self.core.borrow_mut();
            core.status = Status::Up;
            core.leaving = false;
            if !core.ends() {
                core.stop = None;
            }
            // What has waited is sent now; the time for its reply begins.
            let now = Tick::now();
            for pending in core.pending.iter_mut().filter(|pending| pending.queued) {
                self.leave_queue(pending);
                pending.since = now;
            }
        }
        self.worker.link_came_up(self, tracking_refused);
        self.wake_waiters();
    }

    /// Settles what is unanswered; the answer is whether the link has ended for good.
    fn went_down(&self, lost: &Lost) -> bool {
        if let Some(tier) = &self.tier {
            tier.break_proof();
        }
        let ends = self.role == Role::Pinned
            || matches!(lost, Lost::Closed | Lost::Replaced)
            || matches!(lost, Lost::NoDatabase(_)) && !self.worker.is_default(self.handshake.db);
        if *lost == Lost::Replaced {
            self.hand_over();
        }
        if ends {
            *self.ended.borrow_mut() = Some(lost.to_string().into());
        }
        let failed = self.keep_repeatable(lost, ends);
        for (pending, was_sent) in failed {
            self.fail(pending, was_sent, lost);
        }
        self.worker.link_went_down(self, lost);
        if ends && let Some(owner) = self.owner.take() {
            owner.pin_lost(self, lost);
        }
        self.wake_waiters();
        self.worker.flush_dirty();
        ends
    }

    /// Keeps the commands that will be sent again and returns the others, each with whether it was
    /// sent.
    fn keep_repeatable(&self, lost: &Lost, ends: bool) -> Vec<(Pending, bool)> {
        let retries = self.worker.active().config.resilience.max_retries;
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let was_up = core.status == Status::Up;
        core.status = match lost {
            Lost::NoDatabase(_) => Status::NoDatabase,
            _ if ends => Status::Closed,
            _ if was_up && !self.health.borrow().is_cut_off() => Status::Connecting,
            lost => Status::Down(lost.to_string().into()),
        };
        let lengths: Vec<usize> = core.pending.iter().map(|pending| pending.len).collect();
        // Nothing left the sidecar while there was no connection.
        let sent = core.outbox.count_sent(&lengths);
        let queue = self.worker.offline_queue();
        // With the circuit open, only the queue waits.
        let waits = queue.is_some() || !self.health.borrow().is_cut_off();
        let any = !ends && waits && self.role == Role::Plain;
        let mut keep = core.repeatable(sent, retries, any, queue.is_some());
        if let Some(limits) = queue.filter(|_| matches!(core.status, Status::Down(_))) {
            self.keep_queued(&mut core.pending, &mut keep, limits);
        }
        core.outbox.restart(&lengths, &keep);
        let now = self.worker.now();
        let mut failed = Vec::new();
        for (index, mut pending) in std::mem::take(&mut core.pending).into_iter().enumerate() {
            if keep[index] {
                if !pending.queued {
                    pending.since = now;
                }
                core.pending.push_back(pending);
            } else {
                failed.push((pending, index < sent));
            }
        }
        let again = core.pending.iter().filter(|pending| !pending.queued);
        self.worker
            .counters
            .upstream_retries
            .add(again.count() as u64);
        failed
    }

    /// What would be sent again waits in the offline queue, as far as there is room.
    fn keep_queued(
        &self,
        pending: &mut VecDeque<Pending>,
        keep: &mut [bool],
        limits: OfflineQueue,
    ) {
        for (pending, keep) in pending.iter_mut().zip(keep) {
            if *keep && !pending.queued {
                let queue = &self.worker.shared.offline;
                *keep = queue.has_room(limits, pending.len as u64).is_ok();
                if *keep {
                    self.enter_queue(pending);
                }
            }
        }
    }

    /// Commands that may be sent again go to whoever serves their slot now: any server knows. The
    /// others are left.
    fn hand_over(&self) {
        if self.role != Role::Plain {
            return;
        }
        let retries = self.worker.active().config.resilience.max_retries;
        let mut orphans = Vec::new();
        {
            let mut core = self.core.borrow_mut();
            let core = &mut *core;
            let lengths: Vec<usize> = core.pending.iter().map(|pending| pending.len).collect();
            let sent = core.outbox.count_sent(&lengths);
            let again = core.repeatable(sent, retries, true, true);
            let mut at = 0;
            for (pending, again) in std::mem::take(&mut core.pending).into_iter().zip(again) {
                let bytes = at..at + pending.len;
                at = bytes.end;
                if again {
                    orphans.push((pending, core.outbox.oldest(at)[bytes].to_vec()));
                } else {
                    core.pending.push_back(pending);
                }
            }
        }
        for (mut pending, bytes) in orphans {
            self.leave_queue(&mut pending);
            redirect::send_anywhere(self, pending.target, pending.repeatable, &bytes);
        }
    }

    fn fail(&self, mut pending: Pending, was_sent: bool, lost: &Lost) {
        self.leave_queue(&mut pending);
        let unsent = Lost::Unavailable(lost.to_string().into());
        reply::lost(
            &self.worker,
            pending.target,
            if was_sent { lost } else { &unsent },
        );
    }

    /// Writes and reads until the connection is lost.
    async fn serve(&self, connected: Connected) -> Lost {
        let Connected {
            mut stream,
            rest,
            broadcast,
            ..
        } = connected;
        if self.role == Role::Tracked && broadcast != self.worker.endpoint().broadcast {
            return Lost::Broken("the rules changed while it was being opened".into());
        }
        let mut input = Input {
            buffer: rest,
            scanner: Scanner::default(),
        };
        let lost = poll_fn(|cx| self.poll(&mut stream, &mut input, cx)).await;
        if let Some(why) = self.core.borrow_mut().stop.take() {
            return why;
        }
        lost
    }

    fn poll(&self, stream: &mut Stream, input: &mut Input, cx: &mut Context<'_>) -> Poll<Lost> {
        {
            let mut waker = self.waker.borrow_mut();
            if !waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                *waker = Some(cx.waker().clone());
            }
        }
        if self.core.borrow().stop.is_some() {
            return Poll::Ready(Lost::Closed);
        }
        if self.core.borrow().has_left() {
            return Poll::Ready(Lost::Demoted);
        }
        if let Err(error) = self.poll_write(stream, cx) {
            return Poll::Ready(Lost::broken(&error));
        }
        // A bounded number of reads, so that one busy server does not starve the clients.
        for _ in 0..16 {
            match self.poll_read(stream, input, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(lost)) => return Poll::Ready(lost),
                Poll::Ready(Ok(())) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write(&self, stream: &mut Stream, cx: &mut Context<'_>) -> io::Result<()> {
        let mut core = self.core.borrow_mut();
        while !core.outbox.unsent().is_empty() && !core.leaving {
            match Pin::new(&mut *stream).poll_write(cx, core.outbox.unsent())? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(len) => {
                    core.outbox.sent(len);
                }
                Poll::Pending => break,
            }
        }
        core.forget_messages();
        // TLS buffers, and what it could not send waits for its next turn; TCP does not.
        if matches!(stream, Stream::Tls(_)) {
            let _ = Pin::new(stream).poll_flush(cx)?;
        }
        Ok(())
    }

    fn poll_read(
        &self,
        stream: &mut Stream,
        input: &mut Input,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Lost>> {
        let mut scratch = self.worker.link_scratch.borrow_mut();
        let mut read = ReadBuf::new(&mut scratch);
        match Pin::new(stream).poll_read(cx, &mut read) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Lost::broken(&error))),
            Poll::Ready(Ok(())) => {}
        }
        let len = read.filled().len();
        if len == 0 {
            let closed = io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server");
            return Poll::Ready(Err(Lost::broken(&closed)));
        }
        self.worker.refresh_now();
        let result = if input.buffer.is_empty() {
            match self.take_frames(&mut input.scanner, &scratch[..len]) {
                Ok(used) => {
                    input.buffer.extend_from_slice(&scratch[used..len]);
                    Ok(())
                }
                Err(lost) => Err(lost),
            }
        } else {
            input.buffer.extend_from_slice(&scratch[..len]);
            let buffer = std::mem::take(&mut input.buffer);
            let used = self.take_frames(&mut input.scanner, &buffer);
            input.put_back(buffer, used)
        };
        drop(scratch);
        let result = match result {
            Ok(()) if input.buffer.len() > self.worker.output_limit() => Err(self.too_large()),
            result => result,
        };
        self.worker.flush_read();
        if !self.waiters.borrow().is_empty() && !self.is_full() {
            self.wake_waiters();
        }
        Poll::Ready(result)
    }

    /// A reply of which more has come than any client may be sent. Its command is not asked again.
    #[cold]
    fn too_large(&self) -> Lost {
        let limit = self.worker.output_limit();
        let lost = Lost::Broken(
            format!("the server sent a reply larger than sidecar.outputLimit ({limit} bytes)")
                .into(),
        );
        let culprit = self.core.borrow_mut().take_first();
        if let Some(culprit) = culprit {
            self.fail(culprit, true, &lost);
        }
        lost
    }

    /// Hands out complete frames; the answer is how many bytes they took.
    fn take_frames(&self, scanner: &mut Scanner, buffer: &[u8]) -> Result<usize, Lost> {
        let mut at = 0;
        while let Some(len) = scanner
            .step(&buffer[at..])
            .map_err(|error| Lost::Broken(error.to_string().into()))?
        {
            self.take_frame(&buffer[at..at + len])?;
            at += len;
        }
        Ok(at)
    }

    #[inline]
    fn take_frame(&self, frame: &[u8]) -> Result<(), Lost> {
        match self.role {
            Role::Tracked if is_push(frame) => {
                return reply::pushed(self, frame);
            }
            Role::Plain if is_push(frame) => return Ok(()),
            Role::Pinned => {
                let owner = self.owner.borrow().clone();
                if let Some(owner) = owner
                    && owner.take_message(self, frame)
                {
                    return Ok(());
                }
            }
            _ => {}
        }
        let mut core = self.core.borrow_mut();
        let Some(mut pending) = core.pending.pop_front() else {
            return Err(Lost::Broken(
                "the server sent a reply that nobody asked for".into(),
            ));
        };
        let refusal = match self.role {
            Role::Plain | Role::Pinned if is_error(frame) => redirect::refusal(self, frame),
            _ => None,
        };
        let refused = refusal.map(|why| (why, core.outbox.oldest(pending.len).to_vec()));
        core.outbox.answered(pending.len);
        core.forget_messages();
        drop(core);
        self.health.borrow().answered();
        let took = self.worker.now().since(pending.since);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.worker.counters.upstream.observe(took, 1);
        if let Some((why, bytes)) = refused {
            match redirect::take(self, pending.target, pending.repeatable, why, bytes) {
                None => return Ok(()),
                Some(target) => pending.target = target,
            }
        }
        reply::answered(self, pending.target, pending.since, frame)
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

    /// The oldest command that was not answered; its bytes need not be sent again.
    #[inline]
    fn take_first(&mut self) -> Option<Pending> {
        let pending = self.pending.pop_front()?;
        self.outbox.answered(pending.len);
        self.forget_messages();
        Some(pending)
    }

    fn is_switched(&self) -> bool {
        self.stop == Some(Lost::Switched)
    }

    /// Which unanswered commands may be sent again: those that never left, and those that are
    /// idempotent. A read that was followed by a write of the same client is not repeated: it
    /// would see that write.
    /// With an offline queue (`waits`), what was not sent waits however often connecting fails.
    fn repeatable(&mut self, sent: usize, retries: u8, any: bool, waits: bool) -> Vec<bool> {
        let mut writers: Vec<*const Client> = Vec::new();
        let mut keep = vec![false; self.pending.len()];
        for (index, pending) in self.pending.iter_mut().enumerate().rev() {
            pending.attempts += u8::from(index < sent || !waits);
            let client = match &pending.target {
                Target::Client(target) => Some(Rc::as_ptr(&target.client)),
                _ => None,
            };
            let was_sent = index < sent;
            let overtaken = client.is_some_and(|client| writers.contains(&client));
            let again = !was_sent || pending.repeatable && !overtaken;
            let asks_now = matches!(
                pending.target,
                Target::Proof(_) | Target::SecondProof(_) | Target::Verdict(_) | Target::Measure(_)
            );
            keep[index] = any && again && pending.attempts <= retries && !asks_now;
            if was_sent && !pending.repeatable {
                writers.extend(client);
            }
        }
        keep
    }

    /// Subscriptions are answered by messages, so nothing takes their bytes off the outbox.
    fn forget_messages(&mut self) {
        if self.pending.is_empty() && self.outbox.unsent().is_empty() {
            self.outbox.answered(self.outbox.len());
        }
    }
}

/// Bytes of a reply that is not complete yet.
struct Input {
    buffer: Vec<u8>,
    scanner: Scanner,
}

impl Input {
    fn put_back(&mut self, mut buffer: Vec<u8>, used: Result<usize, Lost>) -> Result<(), Lost> {
        let used = used?;
        if used == buffer.len() {
            buffer.clear();
            buffer.shrink_to(64 * 1024);
        } else {
            buffer.drain(..used);
        }
        self.buffer = buffer;
        Ok(())
    }
}
