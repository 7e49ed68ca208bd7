//! From a command to its reply: what is decided where.
//!
//! [`handle`] is the spine. A cacheable read asks the local tier first (`cached`), then Redis over
//! the tracked link (`flight`). Everything else is forwarded over the shared link in the client's
//! own protocol version (`forward`), after the rules have had their say about TTLs (`expiry`).
//! Commands with connection state get a connection of their own (`pinned`). What the sidecar
//! answers itself is in `local`, what it answers without Redis in `memory`. In front of a cluster
//! `spread` finds the servers, and `gather` makes one reply of several. Replies come back through
//! `reply`; what a server refused unexecuted is sent on by `redirect`.

pub mod cached;
pub mod expiry;
pub mod fleet;
pub mod flight;
pub mod forward;
pub mod gather;
pub mod introspect;
pub mod local;
pub mod memory;
pub mod offline;
pub mod pinned;
pub mod redirect;
pub mod reply;
pub mod spread;
pub mod stale;

use std::{hash::BuildHasher as _, rc::Rc, sync::Arc};

use smallvec::SmallVec;

use crate::{
    client::{
        Client,
        session::{ReplyMode, Session, Unsent},
    },
    command::{self, Allowed, Class, CommandId, CommandSpec, CommandTable, Local, Resolved},
    metrics::Outcome,
    state::Active,
    tier::Query,
    worker::Worker,
};

/// Arguments of one command, its name included.
pub type Args<'a> = SmallVec<[&'a [u8]; 8]>;

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Answered, or on its way.
    Done,
    /// It cannot run yet; try it again when the client is woken.
    Wait,
}

/// What the commands of one batch have in common.
pub struct Turn<'a> {
    /// Who asks.
    pub client: &'a Rc<Client>,
    /// Its event loop.
    pub worker: &'a Rc<Worker>,
    /// The configuration in force.
    pub active: Arc<Active>,
    /// The commands that are known.
    pub commands: Arc<CommandTable>,
}

/// A command, resolved.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What is known of the command; for an unknown one, that it may do anything.
    pub spec: &'a CommandSpec,
    /// Its words.
    pub args: &'a [&'a [u8]],
    /// Its bytes as they came, if they were an array.
    pub raw: Option<&'a [u8]>,
}

impl<'a> Turn<'a> {
    /// The context of one batch.
    pub fn new(client: &'a Rc<Client>) -> Self {
        let worker = &client.worker;
        Self {
            client,
            worker,
            active: worker.active(),
            commands: worker.commands(),
        }
    }

    /// What the configuration permits.
    pub fn allowed(&self, name: &[u8]) -> Allowed {
        let allow = &self.active.config.sidecar.allow_commands;
        Allowed {
            prefix: self.active.prefix.is_some(),
            dangerous: allow
                .iter()
                .any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(name)),
        }
    }
}

/// Runs one command.
#[inline]
pub fn handle(turn: &Turn<'_>, session: &mut Session, args: &[&[u8]], raw: Option<&[u8]>) -> Flow {
    if session.replies != ReplyMode::On {
        session.next_command();
    }
    let unknown;
    let spec = match turn.commands.resolve(args) {
        Resolved::Command(spec) => spec,
        // Ours to refuse.
        Resolved::UnknownSubcommand(spec)
            if matches!(spec.id(), CommandId::Client | CommandId::Command) =>
        {
            spec
        }
        // Redis answers what it does not know, in its own words.
        Resolved::UnknownSubcommand(_) | Resolved::Unknown => {
            if is_web_request(args[0]) {
                return hang_up(turn, session);
            }
            unknown = CommandSpec::unknown(args[0]);
            &unknown
        }
    };
    session.command = spec.id();
    if !session.authenticated && !works_before_auth(spec.id()) {
        return refuse(turn, session, "NOAUTH Authentication required.");
    }
    let request = Request { spec, args, raw };
    if session.pinned.is_some() {
        return pinned::handle(turn, session, request);
    }
    if session.in_memory.is_some() {
        return memory::while_held(turn, session, request);
    }
    if session.unsent != Unsent::Nothing {
        return pinned::first_in_multi(turn, session, request);
    }
    route(turn, session, request)
}

/// Answers the `GET` of a client without state from the local tier, if it can: what [`handle`]
/// comes to, without reading the command a second time.
#[inline]
pub fn is_hit(worker: &Rc<Worker>, session: &mut Session, key: &[u8]) -> bool {
    let is_plain = session.authenticated
        && session.replies == ReplyMode::On
        && session.pinned.is_none()
        && session.in_memory.is_none()
        && session.unsent == Unsent::Nothing
        && session.unanswered() == 0;
    session.command = CommandId::Get;
    is_plain && cached::hit(worker, session, key, Query::Get)
}

/// A command of a client whose connection has no state.
#[inline]
pub fn route(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Request { spec, args, .. } = request;
    if spec.has_cached_form() && spec.arity_matches(args.len()) {
        return cached::read(turn, session, request);
    }
    match command::class(spec, args, turn.allowed(args[0])) {
        Class::Local(Local::Info) => local::info(turn, session, request),
        Class::Local(which) => local::answer(turn, session, which, request),
        Class::Refused(reason) => {
            turn.worker.counters.denied.inc();
            refuse(turn, session, reason.message(args[0]))
        }
        Class::Pin(pin) => pinned::begin(turn, session, pin, request),
        Class::Unpin | Class::Unsubscribe => pinned::without_state(turn, session, request),
        Class::OnWriter => pinned::wait_for_replicas(turn, session, request),
        Class::Read
        | Class::Write
        | Class::Script { .. }
        | Class::KeySpace
        | Class::CountKeys
        | Class::WriteAll
        | Class::Publish
        | Class::Admin => forward::forward(turn, session, request),
    }
}

/// Work that is due before a client's next command: messages, and a command that was unblocked.
pub fn before_commands(client: &Rc<Client>) {
    memory::deliver(client);
    pinned::take_unblock(client);
}

/// The connection is gone; what it held is given back.
pub fn closed(client: &Rc<Client>) {
    let mut session = client.session.borrow_mut();
    pinned::release(client, &mut session);
    memory::let_go(client, &mut session);
}

/// `POST` and `Host:` begin a request that a web page sent here; Redis hangs up, and would hang up
/// on everyone who shares its connection (`securityWarningCommand` in its `networking.c`).
fn is_web_request(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:")
}

fn hang_up(turn: &Turn<'_>, session: &mut Session) -> Flow {
    tracing::warn!(
        client = turn.client.handle.id,
        "an HTTP request came to the Redis port; the connection was closed"
    );
    turn.worker.counters.protocol_errors.inc();
    session.closing = true;
    Flow::Done
}

/// Answers with an error.
pub fn refuse(turn: &Turn<'_>, session: &mut Session, error: impl AsRef<[u8]>) -> Flow {
    count(turn.worker, session.command, Outcome::Error);
    session.reply(|reply| reply.error(error));
    Flow::Done
}

/// Counts a command that the sidecar answered itself.
pub fn count(worker: &Worker, command: CommandId, outcome: Outcome) {
    worker.counters.commands[command as usize].outcomes[outcome as usize].inc();
}

/// A key's hash, to compare keys of unanswered commands.
#[inline]
pub fn key_hash(key: &[u8]) -> u64 {
    foldhash::fast::FixedState::default().hash_one(key)
}

fn works_before_auth(id: CommandId) -> bool {
    matches!(
        id,
        CommandId::Auth | CommandId::Hello | CommandId::Quit | CommandId::Reset
    )
}
