//! One app connection: reads, hands commands to the engine, writes replies.
//!
//! The read buffer belongs to the event loop, not to the connection, so that ten thousand idle
//! connections cost little; a connection only keeps the bytes of an incomplete command. Replies
//! are flushed once the read buffer is drained, not per command.

mod early;
mod lookahead;
pub mod output;
pub mod parting;
pub mod registry;
pub mod session;
pub mod socket;
pub mod together;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::io::ReadBuf;

use self::{output::Output, session::Session};
pub use self::{
    registry::{ClientHandle, Clients},
    socket::Socket,
};
use crate::{
    clock::Tick,
    engine::{self, Flow, Turn},
    resp::request::{Limits, Parser, Step},
    upstream::{Link, Lost},
    worker::Worker,
};

/// Unanswered commands of one client above which no more are read.
const MAX_UNANSWERED: usize = 4096;
/// Unsent bytes above which no more commands are read.
const SOFT_OUTPUT: usize = 1 << 20;
/// Bytes that are read ahead while a command has to wait.
const READ_AHEAD: usize = 64 * 1024;

/// One app connection.
pub struct Client {
    /// What other connections may know of it.
    pub handle: Arc<ClientHandle>,
    /// Its event loop.
    pub worker: Rc<Worker>,
    /// Its state.
    pub session: RefCell<Session>,
    socket: RefCell<Socket>,
    waker: RefCell<Option<Waker>>,
    /// Whether replies wait for [`Worker::flush_dirty`].
    pub dirty: Cell<bool>,
    /// Since when they do.
    pub dirty_since: Cell<Tick>,
}

/// Why a connection ended.
enum End {
    /// The app closed it, or asked to.
    Closed,
    /// Its replies piled up.
    SlowReader,
}

// === impl Client ===

impl Client {
    /// A connection that has just been accepted.
    pub fn new(worker: &Rc<Worker>, socket: Socket, handle: Arc<ClientHandle>) -> Rc<Self> {
        let active = worker.active();
        let open = active.credentials.local_password.is_none();
        let limits = if open {
            Limits::new(
                usize::try_from(active.config.sidecar.max_bulk_size.0).unwrap_or(usize::MAX),
            )
        } else {
            Limits::unauthenticated()
        };
        let db = u16::try_from(active.config.keyspace.database).unwrap_or(0);
        Rc::new(Self {
            handle,
            worker: Rc::clone(worker),
            session: RefCell::new(Session::new(db, open, limits)),
            socket: RefCell::new(socket),
            waker: RefCell::new(None),
            dirty: Cell::new(false),
            dirty_since: Cell::default(),
        })
    }

    /// Serves the connection until it ends.
    pub async fn serve(self: Rc<Self>) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        if matches!(end, End::SlowReader) {
            self.worker.counters.slow_readers.inc();
            tracing::warn!(
                client = self.handle.id,
                "closed a client that does not read its replies"
            );
        }
        engine::closed(&self);
        self.worker.shared.clients.remove(self.handle.id);
    }

    /// Has the connection look again whether it can go on.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Fills the place of a reply. The bytes leave with [`Worker::flush_dirty`].
    #[inline]
    pub fn complete(self: &Rc<Self>, number: u64, write: impl FnOnce(&mut Vec<u8>, &Worker)) {
        self.session
            .borrow_mut()
            .complete(number, |out| write(out, &self.worker));
        self.worker.mark_dirty(self);
    }

    /// Sends what can be sent without waiting. Called outside the connection's own task: what is
    /// left over, and commands that waited, are its task's.
    pub fn flush(&self) {
        let mut session = self.session.borrow_mut();
        let done = write_out(&self.socket.borrow(), &mut session.out);
        if let Ok(len) = done {
            self.worker.counters.bytes_out.add(len as u64);
        }
        let goes_on = !session.input.is_empty() || session.closing || session.ended;
        if done.is_err() || !session.out.is_empty() || goes_on {
            drop(session);
            self.wake();
        }
    }

    /// A frame on the client's own link that answers no command; whether it was taken.
    pub fn take_message(self: &Rc<Self>, link: &Link, frame: &[u8]) -> bool {
        engine::pinned::take_message(self, link, frame)
    }

    /// A link of the client's own is gone.
    pub fn pin_lost(self: &Rc<Self>, link: &Link, why: &Lost) {
        engine::pinned::lost(self, link, why);
        self.wake();
    }

    fn poll(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<End> {
        self.keep_waker(cx);
        loop {
            if self.handle.is_killed() {
                return Poll::Ready(End::Closed);
            }
            if self.worker.shared.is_draining() && self.is_idle() {
                return Poll::Ready(End::Closed);
            }
            engine::before_commands(self);
            self.run_waiting_input();
            let held_back = self.is_held_back();
            if let Some(end) = self.poll_write(cx) {
                return Poll::Ready(end);
            }
            if held_back && !self.is_held_back() {
                // The output was full, and is not any longer: the next commands can run.
                continue;
            }
            match self.poll_read(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) if self.ends_after_replies() => {}
                Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(End::Closed),
            }
        }
    }

    /// Commands wait because too much is unsent or unanswered.
    fn is_held_back(&self) -> bool {
        let session = self.session.borrow();
        !session.input.is_empty() && !may_go_on(&session)
    }

    /// Nothing is under way: the connection can end without anybody missing a reply.
    fn is_idle(&self) -> bool {
        let session = self.session.borrow();
        session.unanswered() == 0
            && session.input.is_empty()
            && session.out.is_empty()
            && !session.taken
    }

    fn keep_waker(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
            self.handle.set_waker(cx.waker().clone());
        }
    }

    /// Commands that were read earlier and had to wait.
    fn run_waiting_input(self: &Rc<Self>) {
        let mut session = self.session.borrow_mut();
        if session.input.len() < session.need.max(1) || !may_go_on(&session) {
            return;
        }
        let input = std::mem::take(&mut session.input);
        let used = self.run_commands(&mut session, &input);
        keep_rest(&mut session, input, used);
    }

    /// The app has sent its last byte: `printf … | nc` still wants its replies, but who is blocked
    /// or listens is gone.
    fn ends_after_replies(&self) -> bool {
        let mut session = self.session.borrow_mut();
        session.ended = true;
        let pinned = session.pinned.as_ref();
        let held = session.in_memory.as_ref();
        !held.is_some_and(|held| held.waits_for_events())
            && !pinned.is_some_and(engine::pinned::Pinned::waits_for_events)
    }

    /// Reads once; `Ok(false)` at the end of the stream.
    fn poll_read(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut session = self.session.borrow_mut();
        if session.closing || session.ended || session.out.len() > SOFT_OUTPUT {
            return Poll::Pending;
        }
        // While a command waits, a little is read ahead, so that the end of the stream is noticed.
        let waits = !may_go_on(&session) || session.need == 0 && !session.input.is_empty();
        if waits && session.input.len() >= READ_AHEAD {
            return Poll::Pending;
        }
        let mut scratch = self.worker.scratch.borrow_mut();
        let mut read = ReadBuf::new(&mut scratch);
        match self.socket.borrow_mut().poll_read(cx, &mut read) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {}
        }
        let len = read.filled().len();
        if len == 0 {
            return Poll::Ready(Ok(false));
        }
        self.worker.counters.bytes_in.add(len as u64);
        if session.input.is_empty() && !waits {
            if self.worker.has_upstream()
                && let Some(key) = lookahead::only_get(&scratch[..len])
            {
                session.taken = true;
                self.worker.together.add(self, &scratch[..len], key);
                return Poll::Ready(Ok(true));
            }
            let used = self.run_commands(&mut session, &scratch[..len]);
            session.input.extend_from_slice(&scratch[used..len]);
        } else {
            session.input.extend_from_slice(&scratch[..len]);
        }
        Poll::Ready(Ok(true))
    }

    /// Runs a command that was taken together with those of other connections. The caller has
    /// read the clock, ends the batch, and flushes.
    fn run_together(self: &Rc<Self>, command: &[u8], key: &[u8]) {
        let mut session = self.session.borrow_mut();
        session.taken = false;
        let goes_on = may_go_on(&session);
        if goes_on && engine::is_hit(&self.worker, &mut session, key) {
            return;
        }
        let used = if goes_on {
            self.run_batch(&mut session, command)
        } else {
            0
        };
        if used < command.len() {
            // It has to wait, and stays ahead of what was read after it.
            session.input.splice(..0, command[used..].iter().copied());
        }
    }

    /// Runs complete commands; the answer is how many bytes they took.
    fn run_commands(self: &Rc<Self>, session: &mut Session, buffer: &[u8]) -> usize {
        self.worker.refresh_now();
        let used = self.run_batch(session, buffer);
        self.worker.end_batch();
        used
    }

    fn run_batch(self: &Rc<Self>, session: &mut Session, buffer: &[u8]) -> usize {
        let worker = &self.worker;
        let turn = Turn::new(self);
        let mut parser: Parser = std::mem::take(&mut session.parser);
        let mut at = 0;
        session.need = 0;
        let mut warmed = 0;
        while at < buffer.len() && may_go_on(session) {
            let rest = &buffer[at..];
            if at >= warmed && worker.has_upstream() {
                warmed = at + lookahead::warm(&worker.shared.tier, session.db, rest).max(1);
            }
            match parser.step(rest, session.limits) {
                Ok(Step::Incomplete(need)) => {
                    session.need = need;
                    break;
                }
                Ok(Step::Command(len)) => {
                    let flow = run_command(&turn, session, &parser, &rest[..len]);
                    parser.reset();
                    if flow == Flow::Wait {
                        break;
                    }
                    at += len;
                }
                Err(error) => {
                    worker.counters.protocol_errors.inc();
                    session.reply(|reply| reply.error(error.to_string()));
                    session.closing = true;
                    at = buffer.len();
                }
            }
        }
        session.parser = parser;
        session.end_batch();
        at
    }

    fn poll_write(&self, cx: &mut Context<'_>) -> Option<End> {
        let mut session = self.session.borrow_mut();
        let session = &mut *session;
        let mut socket = self.socket.borrow_mut();
        while !session.out.is_empty() {
            match socket.poll_write(cx, session.out.unsent()) {
                Poll::Ready(Ok(0) | Err(_)) => return Some(End::Closed),
                Poll::Ready(Ok(len)) => {
                    self.worker.counters.bytes_out.add(len as u64);
                    session.out.advance(len);
                }
                Poll::Pending => break,
            }
        }
        if session.out.exceeds(self.worker.output_limit()) {
            return Some(End::SlowReader);
        }
        let waits = session.need == 0 && !session.input.is_empty();
        let last = session.closing || session.ended && !waits;
        let done = session.out.is_empty() && session.unanswered() == 0 && !session.taken;
        (last && done).then_some(End::Closed)
    }
}

/// Runs the command that the parser has just read from `frame`.
#[inline]
fn run_command(turn: &Turn<'_>, session: &mut Session, parser: &Parser, frame: &[u8]) -> Flow {
    let mut args = engine::Args::new();
    parser.args(frame, &mut args);
    if args.is_empty() {
        return Flow::Done;
    }
    let raw = (frame[0] == b'*').then_some(frame);
    let replies = session.replies;
    let flow = engine::handle(turn, session, &args, raw);
    if flow == Flow::Wait {
        // It has not run: `CLIENT REPLY SKIP` is still to come.
        session.replies = replies;
    }
    flow
}

/// Whether the client may run its next command now.
fn may_go_on(session: &Session) -> bool {
    !session.closing
        && !session.taken
        && session.orphaned.is_none()
        && session.unanswered() < MAX_UNANSWERED
        && session.out.len() <= SOFT_OUTPUT
        && !session
            .pinned
            .as_ref()
            .is_some_and(engine::pinned::Pinned::blocks)
}

fn keep_rest(session: &mut Session, mut input: Vec<u8>, used: usize) {
    input.drain(..used);
    if input.is_empty() {
        input.shrink_to(0);
    }
    session.input = input;
}

/// Writes without a task to wake.
fn write_out(socket: &Socket, out: &mut Output) -> io::Result<usize> {
    let mut total = 0;
    while !out.is_empty() {
        match socket.try_write(out.unsent()) {
            Ok(len) => {
                out.advance(len);
                total += len;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}
