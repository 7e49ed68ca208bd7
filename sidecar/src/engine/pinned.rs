//! Commands with connection state: a connection of the client's own.
//!
//! From `WATCH` or `MULTI` to `EXEC`, `DISCARD` or `UNWATCH`, while blocked, subscribed or in
//! `MONITOR`, all of a client's commands take its pinned link; the local tier is neither read nor
//! filled. Keys that a transaction queued are marked as being written until it ends.

use std::rc::Rc;

use smallvec::SmallVec;

use super::{
    Flow, Request, Turn, expiry, forward,
    forward::Ruled,
    local,
    memory::{self, Names},
    refuse,
    reply::{After, ClientTarget, ReplyChange, Target},
};
use crate::{
    client::{
        Client,
        session::{Lane, Session, Touches},
    },
    command::{
        self, Class, CommandId, KeyPositions, Local, Pin, Refused, ReplyRewrite, apply_prefix,
        class, strip_reply, write_command,
    },
    resp::{
        Proto,
        reply::{Value, is_error, is_null, is_push},
        write::Reply,
    },
    upstream::{Link, Lost, Status},
};

/// A connection of the client's own, and what for.
pub struct Pinned {
    link: Rc<Link>,
    transaction: Transaction,
    monitor: bool,
    /// The connection is in another database than it began with.
    moved: bool,
    /// A command whose reply later ones wait for.
    alone: Option<Alone>,
    subscribed: Option<Subscribed>,
}

/// A command whose reply later ones wait for.
#[derive(Clone, Copy)]
struct Alone {
    /// Its slot.
    number: u64,
    command: CommandId,
    /// Redis answers when something happens, possibly never.
    blocked: bool,
}

/// State between `WATCH` or `MULTI` and `EXEC`.
#[derive(Default)]
struct Transaction {
    phase: Phase,
    /// A queued command may have written any key.
    flush: bool,
    /// Keys marked as being written until it ends.
    keys: Vec<Box<[u8]>>,
    /// What has to come off the replies, by place.
    queued: Vec<ReplyRewrite>,
    /// Keys that get a TTL afterwards, in milliseconds.
    follow: Vec<(Box<[u8]>, u64)>,
    /// Databases that `SELECT` asked for, by place.
    selects: Vec<(usize, u16)>,
}

/// How far a transaction has come.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    None,
    /// After `WATCH`.
    Watching,
    /// After `MULTI`.
    Open,
    /// A queued command was refused here: `EXEC` must fail as Redis would let it fail.
    Aborted,
}

/// State of a subscriber.
#[derive(Default)]
struct Subscribed {
    channels: i64,
    shards: i64,
    /// What was asked for, for memory mode to take over.
    names: Names,
    /// Confirmations that have not come yet.
    joining: usize,
    leaving: usize,
}

impl Pinned {
    fn new(link: Rc<Link>) -> Self {
        Self {
            link,
            transaction: Transaction::default(),
            monitor: false,
            moved: false,
            alone: None,
            subscribed: None,
        }
    }

    /// Whether the client's next command has to wait for the reply of this one.
    pub fn blocks(&self) -> bool {
        self.alone.is_some()
    }

    /// Whether it is over when the app sends nothing any more.
    pub fn waits_for_events(&self) -> bool {
        self.monitor || self.subscribed.is_some() || self.is_blocked()
    }

    /// Whether Redis answers when something happens, possibly never.
    pub fn is_blocked(&self) -> bool {
        self.alone.is_some_and(|alone| alone.blocked)
    }

    fn is_free(&self) -> bool {
        self.transaction.phase == Phase::None
            && !self.monitor
            && self.alone.is_none()
            && self.subscribed.is_none()
    }

    /// Whether commands are being queued.
    fn is_open(&self) -> bool {
        matches!(self.transaction.phase, Phase::Open | Phase::Aborted)
    }

    /// Letters of `CLIENT LIST`.
    fn flags(&self) -> &'static str {
        if self.monitor {
            "O"
        } else if self.subscribed.is_some() {
            "P"
        } else if self.is_blocked() {
            "b"
        } else if self.is_open() {
            "x"
        } else {
            ""
        }
    }
}

// === begin ===

/// A command that needs a connection of its own, from a client that has none.
pub fn begin(turn: &Turn<'_>, session: &mut Session, pin: Pin, request: Request<'_>) -> Flow {
    let Request { spec, args, .. } = request;
    if !spec.arity_matches(args.len()) {
        return refuse(turn, session, command::wrong_arity(spec));
    }
    if !turn.worker.has_upstream() {
        return memory::without_redis(turn, session, pin, request);
    }
    // Replies on other lanes come first.
    if session.unanswered() > 0 {
        return Flow::Wait;
    }
    let link = match take_link(turn, session) {
        Ok(link) => link,
        Err(None) => return Flow::Wait,
        Err(Some(_)) if memory_mode(turn, session) => {
            return memory::without_redis(turn, session, pin, request);
        }
        Err(Some(why)) => {
            let text = super::reply::error_text(turn.worker, spec.id(), &Lost::Unavailable(why));
            return refuse(turn, session, &text);
        }
    };
    link.set_owner(Some(Rc::clone(turn.client)));
    session.pinned = Some(Pinned::new(link));
    let flow = start(turn, session, pin, request);
    settle(turn.client, session);
    flow
}

fn memory_mode(turn: &Turn<'_>, session: &Session) -> bool {
    let set = turn.worker.links(session.db);
    set.is_some_and(|set| {
        turn.worker
            .in_memory_mode(set.plain(turn.worker, session.proto))
    })
}

/// A connected link; `Err(None)`: not yet.
fn take_link(turn: &Turn<'_>, session: &mut Session) -> Result<Rc<Link>, Option<Rc<str>>> {
    let Some(set) = turn.worker.links(session.db) else {
        return Err(Some("too many databases are in use at a time".into()));
    };
    // The shared link knows first whether Redis is away.
    let shared = set.plain(turn.worker, session.proto).clone();
    let waited_for = session.pinning.take();
    if let Status::Down(why) = shared.status() {
        if let Some(link) = waited_for {
            set.unpin(&link, false);
        }
        return Err(Some(why));
    }
    let link = match waited_for {
        Some(link) => link,
        None => set.pin(turn.worker, session.proto),
    };
    match link.status() {
        Status::Up => Ok(link),
        Status::Connecting => {
            link.wait(turn.client);
            session.pinning = Some(link);
            Err(None)
        }
        Status::Down(why) => {
            set.unpin(&link, false);
            Err(Some(why))
        }
        Status::NoDatabase | Status::Closed => {
            set.unpin(&link, false);
            Err(Some("the connection was closed".into()))
        }
    }
}

fn start(turn: &Turn<'_>, session: &mut Session, pin: Pin, request: Request<'_>) -> Flow {
    match pin {
        Pin::Subscribe => subscribe(turn, session, request),
        Pin::Multi | Pin::Watch => send_plain(turn, session, request),
        Pin::Monitor | Pin::Once | Pin::Block => send_alone(turn, session, pin, request),
    }
}

/// `EXEC`, `DISCARD`, `UNWATCH`, `UNSUBSCRIBE` … of a client without state: as Redis would answer.
pub fn without_state(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Request { spec, args, .. } = request;
    if !spec.arity_matches(args.len()) {
        return refuse(turn, session, command::wrong_arity(spec));
    }
    match spec.id() {
        CommandId::Exec => refuse(turn, session, "ERR EXEC without MULTI"),
        CommandId::Discard => refuse(turn, session, "ERR DISCARD without MULTI"),
        CommandId::Unwatch => {
            session.reply(|reply| reply.ok());
            Flow::Done
        }
        _ => {
            memory::unsubscribe(turn, session, request);
            Flow::Done
        }
    }
}

/// `WAIT`, `WAITAOF`. Redis remembers the replication offset after each command of a connection:
/// one that has just run a command on a connection of its own waits for all earlier writes, those
/// of the shared link included, without holding up other clients there.
pub fn wait_for_replicas(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    begin(turn, session, Pin::Block, request)
}

// === commands of a client that has a link ===

/// Runs a command of a client that has a connection of its own.
pub fn handle(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Some(pinned) = &session.pinned else {
        return super::route(turn, session, request);
    };
    let id = request.spec.id();
    if pinned.link.is_full() {
        pinned.link.wait(turn.client);
        return Flow::Wait;
    }
    let flow = match id {
        CommandId::Quit | CommandId::Reset
            if pinned
                .subscribed
                .as_ref()
                .is_some_and(Subscribed::is_settling) =>
        {
            Flow::Wait
        }
        CommandId::Quit | CommandId::Reset => {
            let which = if id == CommandId::Quit {
                Local::Quit
            } else {
                Local::Reset
            };
            return local::answer(turn, session, which, request);
        }
        _ if pinned.monitor => refuse(
            turn,
            session,
            "ERR only QUIT and RESET are possible in MONITOR",
        ),
        _ if pinned.subscribed.is_some() => while_subscribed(turn, session, request),
        _ if pinned.is_open() => in_multi(turn, session, request),
        _ => while_watching(turn, session, request),
    };
    settle(turn.client, session);
    flow
}

fn while_subscribed(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
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
        Class::Local(Local::Select) => select(turn, session, request),
        Class::Local(which) => local::answer(turn, session, which, request),
        Class::Refused(reason) => refuse(turn, session, reason.message(request.args[0])),
        Class::Pin(Pin::Multi | Pin::Watch | Pin::Monitor) => refuse(
            turn,
            session,
            "ERR MULTI, WATCH and MONITOR are not possible while subscribed: use another connection",
        ),
        Class::Pin(pin) => send_alone(turn, session, pin, request),
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

fn while_watching(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    match class(request.spec, request.args, turn.allowed(request.args[0])) {
        Class::Local(Local::Hello) if session.unanswered() > 0 => Flow::Wait,
        Class::Local(Local::Select) => select(turn, session, request),
        Class::Local(Local::Info | Local::ConfigGet) => send_plain(turn, session, request),
        Class::Local(which) => local::answer(turn, session, which, request),
        Class::Refused(reason) => refuse(turn, session, reason.message(request.args[0])),
        Class::Pin(Pin::Subscribe | Pin::Monitor) | Class::Unsubscribe => refuse(
            turn,
            session,
            "ERR not possible while keys are watched: say UNWATCH first or use another connection",
        ),
        Class::Pin(pin @ (Pin::Block | Pin::Once)) => send_alone(turn, session, pin, request),
        Class::OnWriter => send_alone(turn, session, Pin::Block, request),
        _ => send_plain(turn, session, request),
    }
}

fn in_multi(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Request { spec, args, .. } = request;
    match spec.id() {
        CommandId::Exec if spec.arity_matches(args.len()) => return exec(turn, session, request),
        CommandId::Multi | CommandId::Watch | CommandId::Unwatch => {
            return send_plain(turn, session, request);
        }
        CommandId::Discard => return send_and_wait(turn, session, request),
        CommandId::Select => return select_in_multi(turn, session, request),
        _ => {}
    }
    let error = match class(spec, args, turn.allowed(args[0])) {
        Class::Local(
            Local::Ping
            | Local::Echo
            | Local::Info
            | Local::ConfigGet
            | Local::Command
            | Local::Role
            | Local::Cluster,
        ) => None,
        Class::Local(_) => Some(format!(
            "ERR {} is not possible inside MULTI through Pannier",
            spec.name()
        )),
        Class::Refused(reason) => Some(reason.message(args[0])),
        Class::Pin(Pin::Subscribe | Pin::Monitor) | Class::Unsubscribe => Some(format!(
            "ERR {} is not possible inside MULTI through Pannier",
            spec.name()
        )),
        _ => None,
    };
    match error {
        None => queue(turn, session, request),
        Some(error) => abort(turn, session, &error),
    }
}

/// A command that Redis never saw was refused: the transaction must fail as a whole.
fn abort(turn: &Turn<'_>, session: &mut Session, error: &str) -> Flow {
    if let Some(pinned) = &mut session.pinned {
        pinned.transaction.phase = Phase::Aborted;
    }
    refuse(turn, session, error)
}

fn queue(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let mut found = turn.worker.positions.take();
    let flow = queue_keyed(turn, session, request, &mut found);
    turn.worker.positions.replace(found);
    flow
}

fn queue_keyed(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
    found: &mut KeyPositions,
) -> Flow {
    let ruled = match rule(turn, request, found) {
        Ok(ruled) => ruled,
        Err(error) => return abort(turn, session, &error),
    };
    let prepared = match prepare(turn, request, &ruled, found) {
        Ok(prepared) => prepared,
        Err(reason) => return abort(turn, session, &reason.message(request.args[0])),
    };
    let after = forward::after(turn, request, &ruled, ReplyRewrite::None, found);
    let Some(pinned) = &mut session.pinned else {
        return Flow::Wait;
    };
    pinned.transaction.queued.push(prepared.rewrite);
    pinned.transaction.flush |= after.flush;
    if after.marked {
        pinned.transaction.keys.extend(after.keys);
    }
    let follow = prepared
        .follow
        .iter()
        .map(|(index, ms)| (Box::from(request.args[*index as usize]), *ms));
    pinned.transaction.follow.extend(follow);
    let link = Rc::clone(&pinned.link);
    send(
        turn,
        session,
        &link,
        request.spec.id(),
        None,
        &prepared.bytes,
    );
    Flow::Done
}

fn exec(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Some(pinned) = &mut session.pinned else {
        return Flow::Wait;
    };
    let link = Rc::clone(&pinned.link);
    let mut after = After {
        marked: true,
        keys: std::mem::take(&mut pinned.transaction.keys),
        flush: pinned.transaction.flush,
        ..After::default()
    };
    if pinned.transaction.phase == Phase::Aborted {
        after.settle(turn.worker);
        link.send(Target::Ignore, false, |out| {
            write_command(&[b"DISCARD"], out);
        });
        pinned.transaction.phase = Phase::None;
        return refuse(
            turn,
            session,
            "EXECABORT Transaction discarded because of previous errors.",
        );
    }
    let queued = std::mem::take(&mut pinned.transaction.queued);
    if turn.active.prefix.is_some() && queued.iter().any(|rewrite| *rewrite != ReplyRewrite::None) {
        after.change = ReplyChange::Exec(queued);
    }
    let number = send(
        turn,
        session,
        &link,
        request.spec.id(),
        Some(after),
        b"*1\r\n$4\r\nEXEC\r\n",
    );
    wait_for(session, number, false);
    Flow::Done
}

/// Until this reply says what came of it, later commands wait.
fn wait_for(session: &mut Session, number: u64, blocked: bool) {
    let command = session.command;
    if let Some(pinned) = &mut session.pinned {
        pinned.alone = Some(Alone {
            number,
            command,
            blocked,
        });
    }
}

// === sending ===

struct Prepared {
    bytes: Vec<u8>,
    rewrite: ReplyRewrite,
    follow: SmallVec<[(u32, u64); 2]>,
}

fn rule(turn: &Turn<'_>, request: Request<'_>, found: &mut KeyPositions) -> Result<Ruled, String> {
    let ruled = forward::rule_keys(turn, request, found)?;
    if ruled.local > 0 {
        return Err("ERR keys of a rule with cache: LocalOnly live outside Redis: they cannot be part of this command here".to_owned());
    }
    Ok(ruled)
}

fn prepare(
    turn: &Turn<'_>,
    request: Request<'_>,
    ruled: &Ruled,
    found: &mut KeyPositions,
) -> Result<Prepared, Refused> {
    let adjusted = expiry::adjust(turn, request, ruled);
    let words = adjusted.change.apply(request.args);
    let words: SmallVec<[&[u8]; 8]> = words.iter().map(AsRef::as_ref).collect();
    let mut bytes = Vec::new();
    let rewrite = match &turn.active.prefix {
        None => {
            write_command(&words, &mut bytes);
            ReplyRewrite::None
        }
        Some(prefix) => apply_prefix(prefix, request.spec, &words, found, &mut bytes)?,
    };
    Ok(Prepared {
        bytes,
        rewrite,
        follow: adjusted.follow,
    })
}

/// Sends a command over the client's link; its reply is awaited in turn.
fn send_plain(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    match send_keyed(turn, session, request) {
        Ok(_) => Flow::Done,
        Err(error) => refuse(turn, session, &error),
    }
}

/// The same, and later commands wait for the reply.
fn send_and_wait(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    match send_keyed(turn, session, request) {
        Ok(number) => {
            wait_for(session, number, false);
            Flow::Done
        }
        Err(error) => refuse(turn, session, &error),
    }
}

/// `SELECT` of a client with a connection of its own: that connection changes its database.
fn select(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let db = database(request);
    let flow = send_and_wait(turn, session, request);
    if let (Some(db), Some(pinned)) = (db, &mut session.pinned) {
        pinned.transaction.selects = vec![(0, db)];
    }
    flow
}

fn select_in_multi(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let db = database(request);
    if let (Some(db), Some(pinned)) = (db, &mut session.pinned) {
        let place = pinned.transaction.queued.len();
        pinned.transaction.selects.push((place, db));
    }
    queue(turn, session, request)
}

fn database(request: Request<'_>) -> Option<u16> {
    std::str::from_utf8(request.args.get(1)?).ok()?.parse().ok()
}

/// The same, and later commands wait until the reply has come, however long that takes.
fn send_alone(turn: &Turn<'_>, session: &mut Session, pin: Pin, request: Request<'_>) -> Flow {
    if session.unanswered() > 0 {
        return Flow::Wait;
    }
    let Some(link) = session
        .pinned
        .as_ref()
        .map(|pinned| Rc::clone(&pinned.link))
    else {
        return Flow::Wait;
    };
    link.patient.set(pin == Pin::Block);
    if matches!(request.spec.id(), CommandId::Wait | CommandId::Waitaof) {
        link.send(Target::Ignore, false, |out| write_command(&[b"PING"], out));
    }
    match send_keyed(turn, session, request) {
        Ok(number) => {
            wait_for(session, number, pin == Pin::Block);
            if let Some(pinned) = &mut session.pinned {
                pinned.monitor |= pin == Pin::Monitor;
            }
            Flow::Done
        }
        Err(error) => refuse(turn, session, &error),
    }
}

fn send_keyed(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Result<u64, String> {
    let mut found = turn.worker.positions.take();
    let result = rule(turn, request, &mut found).and_then(|ruled| {
        let prepared = prepare(turn, request, &ruled, &mut found)
            .map_err(|reason| reason.message(request.args[0]))?;
        let after = forward::after(turn, request, &ruled, prepared.rewrite, &mut found);
        Ok((prepared, after))
    });
    turn.worker.positions.replace(found);
    let (prepared, mut after) = result?;
    let id = request.spec.id();
    let pinned = session
        .pinned
        .as_mut()
        .ok_or("ERR the connection was closed")?;
    match id {
        CommandId::Multi if !pinned.is_open() => pinned.transaction.phase = Phase::Open,
        CommandId::Watch if !pinned.is_open() => pinned.transaction.phase = Phase::Watching,
        CommandId::Discard => {
            after = After {
                marked: true,
                keys: std::mem::take(&mut pinned.transaction.keys),
                ..After::default()
            };
        }
        _ => {}
    }
    let link = Rc::clone(&pinned.link);
    let number = send(turn, session, &link, id, Some(after), &prepared.bytes);
    for (index, millis) in prepared.follow {
        forward::follow(turn, &link, request.args[index as usize], millis);
    }
    Ok(number)
}

fn send(
    turn: &Turn<'_>,
    session: &mut Session,
    link: &Link,
    command: CommandId,
    after: Option<After>,
    bytes: &[u8],
) -> u64 {
    let number = session.reserve(Lane::Pinned, Touches::Anything);
    let after = after.filter(|after| !after.is_nothing()).map(Box::new);
    let target = ClientTarget {
        client: Rc::clone(turn.client),
        number,
        command,
        after,
    };
    link.send(Target::Client(target), false, |out| {
        out.extend_from_slice(bytes);
    });
    number
}

/// `SUBSCRIBE`, `UNSUBSCRIBE` and relatives: the confirmations are messages, not replies.
fn subscribe(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Request { spec, args, .. } = request;
    if !spec.arity_matches(args.len()) {
        return refuse(turn, session, command::wrong_arity(spec));
    }
    let Some(pinned) = &mut session.pinned else {
        return Flow::Wait;
    };
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

// === what comes back ===

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

enum MessageKind {
    Message,
    Joined { shard: bool, count: i64 },
    Left { shard: bool, count: i64 },
}

fn message_kind(frame: &[u8]) -> Option<MessageKind> {
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

impl Pinned {
    /// The database in which a transaction ended, if it changed it.
    fn selected(&mut self, frame: &[u8]) -> Option<u16> {
        let selects = std::mem::take(&mut self.transaction.selects);
        if selects.is_empty() {
            return None;
        }
        self.moved = true;
        let replies = Value::read(frame).ok()?;
        let replies = replies.list()?;
        let done = |place: usize| matches!(replies.get(place), Some(Value::Text(_)));
        selects
            .into_iter()
            .rev()
            .find(|(place, _)| done(*place))
            .map(|(_, db)| db)
    }

    /// Gives the link back to its set.
    fn give_back(&self, client: &Client, clean: bool) {
        if let Some(set) = client.worker.links(self.link.handshake.db) {
            set.unpin(&self.link, clean && !self.moved);
        }
    }
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
    fn is_settling(&self) -> bool {
        self.joining + self.leaving > 0
    }

    fn is_over(&self) -> bool {
        self.channels == 0 && self.shards == 0 && self.joining == 0 && self.leaving == 0
    }
}

/// A command on the client's own link was answered.
pub fn answered(client: &Rc<Client>, link: &Link, command: CommandId, number: u64, frame: &[u8]) {
    let mut session = client.session.borrow_mut();
    let session = &mut *session;
    let Some(pinned) = &mut session.pinned else {
        return;
    };
    match command {
        CommandId::Exec => {
            pinned.transaction.phase = Phase::None;
            if !is_null(frame) && !is_error(frame) {
                if let Some(db) = pinned.selected(frame) {
                    session.db = db;
                }
                let turn = Turn::new(client);
                for (key, millis) in std::mem::take(&mut pinned.transaction.follow) {
                    forward::follow(&turn, link, &key, millis);
                }
            }
        }
        CommandId::Discard if !is_error(frame) => pinned.transaction.phase = Phase::None,
        CommandId::Unwatch if !pinned.is_open() => pinned.transaction.phase = Phase::None,
        CommandId::Select if !pinned.is_open() && !is_error(frame) => {
            if let Some((_, db)) = pinned.transaction.selects.pop() {
                session.db = db;
                pinned.moved = true;
            }
        }
        CommandId::Watch if is_error(frame) && !pinned.is_open() => {
            pinned.transaction.phase = Phase::None;
        }
        CommandId::Monitor if is_error(frame) => pinned.monitor = false,
        CommandId::Multi if is_error(frame) && !frame.starts_with(b"-ERR MULTI calls") => {
            pinned.transaction.phase = Phase::None;
        }
        _ => {}
    }
    if pinned.alone.is_some_and(|alone| alone.number == number) {
        pinned.alone = None;
        link.patient.set(false);
    }
    settle(client, session);
}

/// Gives the link back when nothing needs it any longer.
fn settle(client: &Rc<Client>, session: &mut Session) {
    let Some(pinned) = &mut session.pinned else {
        return;
    };
    if pinned.subscribed.as_ref().is_some_and(Subscribed::is_over) {
        pinned.subscribed = None;
    }
    let flags = pinned.flags();
    client.handle.update(|info| info.flags = flags);
    if !pinned.is_free() || session.unanswered_on(Lane::Pinned) {
        return;
    }
    if let Some(pinned) = session.pinned.take() {
        pinned.give_back(client, true);
    }
}

/// The client's link is gone. A subscriber, or a client in a transaction, is closed, as it would
/// be by Redis itself.
pub fn lost(client: &Rc<Client>, _: &Lost) {
    let mut session = client.session.borrow_mut();
    let Some(pinned) = session.pinned.take() else {
        return;
    };
    for key in &pinned.transaction.keys {
        client.worker.shared.tier.end_write(key);
    }
    pinned.give_back(client, false);
    client.handle.update(|info| info.flags = "");
    match pinned.subscribed {
        Some(subscribed) if client.worker.memory_when_unavailable() => {
            session.orphaned = Some(subscribed.names);
            ask_for_verdict(client, session.proto, session.db);
        }
        None if pinned.transaction.phase == Phase::None && !pinned.monitor => {}
        _ => session.closing = true,
    }
}

/// A subscriber's own connection broke, and memory mode may take it over: the shared link tells
/// whether it was Redis that went away, or only this connection.
fn ask_for_verdict(client: &Rc<Client>, proto: Proto, db: u16) {
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

/// `CLIENT UNBLOCK` came for this client.
pub fn take_unblock(client: &Rc<Client>) {
    let Some(with_error) = client.handle.take_unblock() else {
        return;
    };
    let mut session = client.session.borrow_mut();
    let session = &mut *session;
    let alone = session.pinned.as_ref().and_then(|pinned| pinned.alone);
    // Only who is blocked in Redis: of another command nobody could say what came of it.
    let Some(alone) = alone.filter(|alone| alone.blocked) else {
        return;
    };
    let proto = session.proto;
    session.complete(alone.number, |out| {
        let mut reply = Reply::new(out, proto);
        match alone.command {
            _ if with_error => reply.error("UNBLOCKED client unblocked via CLIENT UNBLOCK"),
            CommandId::Blmove | CommandId::Brpoplpush => reply.null(),
            CommandId::Wait => reply.integer(0),
            _ => reply.null_array(),
        }
    });
    // The reply that Redis may still send has nowhere to go.
    release(client, session);
}

/// The app is gone or starts over: what its connection held is given back, and the connection to
/// Redis is closed, because nobody knows what state it is in.
pub fn release(client: &Rc<Client>, session: &mut Session) {
    if let Some(link) = session.pinning.take()
        && let Some(set) = client.worker.links(link.handshake.db)
    {
        set.unpin(&link, false);
    }
    let Some(pinned) = session.pinned.take() else {
        return;
    };
    for key in &pinned.transaction.keys {
        client.worker.shared.tier.end_write(key);
    }
    pinned.give_back(client, false);
    client.handle.update(|info| info.flags = "");
}
