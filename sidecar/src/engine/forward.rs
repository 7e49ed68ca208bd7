//! Commands that Redis answers: over the shared link, in the client's own protocol version.

use std::{borrow::Cow, rc::Rc};

use policy::{
    config::{CacheMode, OnWriteError},
    matcher::RuleId,
};
use smallvec::SmallVec;

use super::stale;
use super::{
    Flow, Request, Turn,
    expiry::{self, Change},
    gather::Part,
    memory, offline, refuse,
    reply::{After, ClientTarget, ReplyChange, Target},
    spread::{self, Nowhere, Place},
};
use crate::{
    client::session::{Lane, Session, Touches},
    command::{
        self, Access, CommandId, KeyFlags, KeyPosition, KeyPositions, ReplyRewrite, apply_prefix,
        write_command,
    },
    metrics::Outcome,
    planted::{self, Bug},
    resp::write::{Reply, command as write_words},
    upstream::{Link, LinkSet, Lost, Status},
};

/// What the rules say about the keys of a command.
#[derive(Debug, Default)]
pub struct Ruled {
    /// Keys that may have local entries.
    pub cached: SmallVec<[u32; 4]>,
    /// Keys with the rule that gives them a TTL, and whether the command writes them.
    pub managed: SmallVec<[(u32, RuleId, KeyFlags); 4]>,
    /// Keys that live in this sidecar only.
    pub local: usize,
    /// All keys.
    pub keys: usize,
    /// The rule that hides failed writes, and whether all keys have one.
    pub mask: Option<RuleId>,
    /// What earlier commands must not be overtaken on.
    pub touches: Option<Touches>,
}

/// Forwards a command.
pub fn forward(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let mut found = turn.worker.positions.take();
    let flow = forward_keyed(turn, session, request, &mut found);
    turn.worker.positions.replace(found);
    flow
}

fn forward_keyed(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
    found: &mut KeyPositions,
) -> Flow {
    let ruled = match rule_keys(turn, request, found) {
        Ok(ruled) => ruled,
        Err(denied) => {
            turn.worker.counters.denied.inc();
            return refuse(turn, session, &denied);
        }
    };
    if ruled.local > 0 {
        return memory::local_only(turn, session, request, &ruled);
    }
    if !turn.worker.has_upstream() {
        return memory::execute(turn, session, request, &ruled);
    }
    let (set, touches) = if turn.worker.is_cluster() {
        match spread::place(turn, session, request, &ruled, found) {
            Ok(Place::One(set, Some(slot))) => (set, Touches::Key(u64::from(slot))),
            Ok(Place::One(set, None)) => (set, touches(request, &ruled)),
            Ok(Place::Split(groups)) => {
                return spread::split(turn, session, request, &groups, &ruled);
            }
            Ok(Place::Everywhere(merge)) => {
                return spread::everywhere(turn, session, request, merge, &ruled);
            }
            Ok(Place::Scan) => return spread::scan(turn, session, request),
            Err(nowhere) => return refuse(turn, session, nowhere.to_string()),
        }
    } else {
        let Some(set) = turn.worker.links(session.db) else {
            return refuse(turn, session, Nowhere::TooManyLinks.to_string());
        };
        let touches = ruled.touches.unwrap_or_else(|| touches(request, &ruled));
        (set, touches)
    };
    let link = set.plain(turn.worker, session.proto).clone();
    if session.must_wait(lane(&link), touches) {
        return Flow::Wait;
    }
    match takes(turn, &link, offline::size(request)) {
        Usable::Yes => {}
        Usable::Wait => return Flow::Wait,
        Usable::No(_) if turn.worker.in_memory_mode(&link) => {
            return memory::execute(turn, session, request, &ruled);
        }
        Usable::No(why) => return unavailable(turn, session, request, &ruled, &why),
    }
    match prepare(turn, request, &ruled, found) {
        Ok(command) => {
            let number = session.reserve(lane(&link), touches);
            send(turn, request, &link, number, command);
            Flow::Done
        }
        Err(error) => refuse(turn, session, error),
    }
}

/// The way over a shared link.
pub fn lane(link: &Link) -> Lane {
    Lane::Plain(link.server.number)
}

/// Whether a command that goes to several servers has to wait, or has failed.
pub fn must_wait(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
    sets: &[Rc<LinkSet>],
    ruled: &Ruled,
) -> Option<Flow> {
    if session.must_wait(turn.worker.spread_lane(false), Touches::Anything) {
        return Some(Flow::Wait);
    }
    for set in sets {
        let link = set.plain(turn.worker, session.proto);
        match takes(turn, link, offline::size(request)) {
            Usable::Yes => {}
            Usable::Wait => return Some(Flow::Wait),
            Usable::No(why) => return Some(unavailable(turn, session, request, ruled, &why)),
        }
    }
    None
}

/// Sends one server's share of a command.
pub fn send_part(
    turn: &Turn<'_>,
    session: &Session,
    request: Request<'_>,
    set: &LinkSet,
    part: Part,
) {
    let mut found = turn.worker.positions.take();
    let prepared = rule_keys(turn, request, &mut found)
        .and_then(|ruled| prepare(turn, request, &ruled, &mut found));
    turn.worker.positions.replace(found);
    let link = set.plain(turn.worker, session.proto);
    match prepared {
        Ok(mut command) => {
            let number = part.number();
            command.after.part = Some(part);
            send(turn, request, link, number, command);
        }
        Err(error) => part.answer(turn.worker, |out| {
            Reply::new(out, session.proto).error(error);
        }),
    }
}

/// Sends `SCAN` to one server.
pub fn send_scan(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
    set: &LinkSet,
    after: After,
) -> Flow {
    let link = set.plain(turn.worker, session.proto);
    match usable(turn, link) {
        Usable::Yes => {}
        Usable::Wait => return Flow::Wait,
        Usable::No(why) => return unavailable(turn, session, request, &Ruled::default(), &why),
    }
    let mut found = turn.worker.positions.take();
    let prepared = prepare(turn, request, &Ruled::default(), &mut found);
    turn.worker.positions.replace(found);
    match prepared {
        Ok(command) => {
            let number = session.reserve(lane(link), Touches::Nothing);
            send(turn, request, link, number, Command { after, ..command });
            Flow::Done
        }
        Err(error) => refuse(turn, session, error),
    }
}

/// Whether a link takes commands.
pub enum Usable {
    /// It does.
    Yes,
    /// Not now; the client is woken when that changes.
    Wait,
    /// No, and why.
    No(Lost),
}

/// Whether a link takes commands; a client that has to wait will be woken.
pub fn usable(turn: &Turn<'_>, link: &Link) -> Usable {
    match link.status() {
        Status::Up if link.is_full() => {
            link.wait(turn.client);
            Usable::Wait
        }
        Status::Up => Usable::Yes,
        Status::Connecting => {
            link.wait(turn.client);
            Usable::Wait
        }
        Status::Down(why) => Usable::No(Lost::Unavailable(why)),
        Status::NoDatabase => Usable::No(Lost::Unavailable("ERR DB index is out of range".into())),
        Status::Closed => Usable::No(Lost::Closed),
    }
}

/// The same, and a command of so many bytes may wait on a link that is down, where an offline queue
/// is declared.
pub fn takes(turn: &Turn<'_>, link: &Link, bytes: usize) -> Usable {
    match usable(turn, link) {
        Usable::No(why) => match offline::admit(turn.worker, link, bytes, why) {
            Ok(()) => Usable::Yes,
            Err(why) => Usable::No(why),
        },
        usable => usable,
    }
}

/// What the rules say about each key; an error if one of them is denied.
pub fn rule_keys(
    turn: &Turn<'_>,
    request: Request<'_>,
    found: &mut KeyPositions,
) -> Result<Ruled, String> {
    let Request { spec, args, .. } = request;
    let mut ruled = Ruled::default();
    if let Some(index) = spec.single_key() {
        let Some(key) = args.get(index) else {
            return Ok(ruled);
        };
        ruled.touches = Some(turn.worker.touches(key));
        ruled.keys = 1;
        if turn.active.policy.find(key).is_none() {
            return Ok(ruled);
        }
    }
    // An incomplete list is fine here: unknown keys are dealt with by `effect`.
    let _ = command::keys(spec, args, found);
    ruled.keys = found.len();
    let mut masked = 0;
    for position in found.iter() {
        let key = args[position.index as usize];
        let Some(id) = turn.active.policy.find(key) else {
            continue;
        };
        apply_rule(turn, request, position, id, &mut ruled, &mut masked)?;
    }
    if masked == 0 || masked < ruled.keys {
        ruled.mask = None;
    }
    Ok(ruled)
}

fn apply_rule(
    turn: &Turn<'_>,
    request: Request<'_>,
    position: KeyPosition,
    id: RuleId,
    ruled: &mut Ruled,
    masked: &mut usize,
) -> Result<(), String> {
    let rule = turn.active.policy.rule(id);
    match rule.cache {
        CacheMode::Deny => {
            let name = String::from_utf8_lossy(request.args[0]).to_uppercase();
            return Err(format!(
                "ERR {name} is refused: rule {:?} (match {:?}) has cache: Deny",
                &*rule.name,
                rule.pattern.as_str()
            ));
        }
        CacheMode::LocalOnly => ruled.local += 1,
        CacheMode::Both => ruled.cached.push(position.index),
        CacheMode::RemoteOnly | CacheMode::Bypass => {}
    }
    if position.access == Access::Write && rule.cache != CacheMode::Bypass {
        ruled.managed.push((position.index, id, position.flags));
        if rule.on_write_error == OnWriteError::Log {
            ruled.mask = Some(id);
            *masked += 1;
        }
    }
    Ok(())
}

fn touches(request: Request<'_>, ruled: &Ruled) -> Touches {
    match ruled.keys {
        0 if request.spec.may_write() || request.spec.id() == CommandId::Other => Touches::Anything,
        0 => Touches::Nothing,
        _ => Touches::Anything,
    }
}

fn unavailable(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
    ruled: &Ruled,
    why: &Lost,
) -> Flow {
    if stale::unsent(turn, session, request) {
        return Flow::Done;
    }
    stale::written(turn, request, ruled);
    let command = request.spec.id();
    let after = After {
        mask: ruled.mask.map(|id| id.0),
        ..After::default()
    };
    let frame = super::reply::failure(turn.worker, command, &after, why);
    super::count(turn.worker, command, Outcome::Error);
    session.reply(|reply| reply.out.extend_from_slice(&frame));
    Flow::Done
}

/// A command as it goes to Redis.
struct Command<'a> {
    bytes: Cow<'a, [u8]>,
    after: After,
    /// Keys that get a TTL afterwards, in milliseconds.
    follow: SmallVec<[(u32, u64); 2]>,
}

/// What rules and prefix make of a command; an error if it cannot be sent.
fn prepare<'a>(
    turn: &Turn<'_>,
    request: Request<'a>,
    ruled: &Ruled,
    found: &mut KeyPositions,
) -> Result<Command<'a>, String> {
    let Request { spec, args, .. } = request;
    let change = expiry::adjust(turn, request, ruled);
    let (bytes, rewrite) = match (&turn.active.prefix, &change.change, request.raw) {
        (None, Change::Nothing, Some(raw)) => (Cow::Borrowed(raw), ReplyRewrite::None),
        (prefix, _, _) => {
            let words = change.change.apply(args);
            let words: SmallVec<[&[u8]; 8]> = words.iter().map(AsRef::as_ref).collect();
            let mut bytes = Vec::new();
            let rewrite = match prefix {
                None => {
                    write_command(&words, &mut bytes);
                    ReplyRewrite::None
                }
                Some(prefix) => apply_prefix(prefix, spec, &words, found, &mut bytes)
                    .map_err(|reason| reason.message(args[0]))?,
            };
            (Cow::Owned(bytes), rewrite)
        }
    };
    Ok(Command {
        bytes,
        after: after(turn, request, ruled, rewrite, found),
        follow: change.follow,
    })
}

fn send(turn: &Turn<'_>, request: Request<'_>, link: &Link, number: u64, command: Command<'_>) {
    let Request { spec, args, .. } = request;
    let Command {
        bytes,
        after,
        follow: keys,
    } = command;
    let target = ClientTarget::new(turn.client, number, spec.id(), after);
    link.send(Target::Client(target), spec.is_idempotent(), |out| {
        out.extend_from_slice(&bytes);
    });
    for (index, millis) in keys {
        follow(turn, link, args[index as usize], millis);
    }
}

/// Forwards a command without keys, with something to be done when its reply comes.
pub fn as_is(turn: &Turn<'_>, session: &mut Session, request: Request<'_>, after: After) -> Flow {
    let Some(set) = turn.worker.links(session.db) else {
        return refuse(turn, session, Nowhere::TooManyLinks.to_string());
    };
    let link = set.plain(turn.worker, session.proto).clone();
    match takes(turn, &link, offline::size(request)) {
        Usable::Yes => {}
        Usable::Wait => return Flow::Wait,
        Usable::No(why) => return unavailable(turn, session, request, &Ruled::default(), &why),
    }
    let number = session.reserve(lane(&link), Touches::Nothing);
    let mut bytes = Vec::new();
    write_command(request.args, &mut bytes);
    let command = Command {
        bytes: bytes.into(),
        after,
        follow: SmallVec::new(),
    };
    send(turn, request, &link, number, command);
    Flow::Done
}

/// `PEXPIRE key ttl NX` on the same connection, for writes that carry no TTL of their own.
pub fn follow(turn: &Turn<'_>, link: &Link, key: &[u8], millis: u64) {
    let key = turn.active.key_in_redis(key);
    link.send(Target::Ignore(0), true, |out| {
        write_words(
            out,
            &[b"PEXPIRE", &key, millis.to_string().as_bytes(), b"NX"],
        );
    });
}

/// What is to be done when the reply comes; keys that are written are marked now.
pub fn after(
    turn: &Turn<'_>,
    request: Request<'_>,
    ruled: &Ruled,
    rewrite: ReplyRewrite,
    found: &mut KeyPositions,
) -> After {
    let Request { spec, args, .. } = request;
    if planted::is(Bug::ScriptKeys) && spec.id() == CommandId::Eval {
        return After::default();
    }
    let marked = spec.may_write();
    let keys: Vec<Box<[u8]>> = ruled
        .cached
        .iter()
        .map(|index| Box::from(args[*index as usize]))
        .collect();
    if marked {
        for key in &keys {
            turn.worker.shared.tier.begin_write(key);
        }
    }
    // Single-key commands name all that they change.
    let flush = marked
        && spec.single_key().is_none()
        && command::effect(spec, args, found) == command::Effect::Everything;
    let change = match rewrite {
        ReplyRewrite::None => ReplyChange::None,
        rewrite => ReplyChange::Prefix(rewrite),
    };
    After {
        keys,
        marked,
        flush,
        change,
        mask: ruled.mask.map(|id| id.0),
        part: None,
    }
}
