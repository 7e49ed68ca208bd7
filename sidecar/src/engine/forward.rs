//! Commands that Redis answers: over the shared link, in the client's own protocol version.

use policy::{
    config::{CacheMode, OnWriteError},
    matcher::RuleId,
};
use smallvec::SmallVec;

use super::{
    Flow, Request, Turn,
    expiry::{self, Change},
    key_hash, memory, offline, refuse,
    reply::{After, ClientTarget, ReplyChange, Target},
};
use crate::{
    client::session::{Lane, Session, Touches},
    command::{
        self, Access, CommandId, KeyFlags, KeyPosition, KeyPositions, ReplyRewrite, apply_prefix,
        write_command,
    },
    metrics::Outcome,
    resp::write::command as write_words,
    upstream::{Link, Lost, Status},
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
    let Some(set) = turn.worker.links(session.db) else {
        return refuse(turn, session, "ERR too many databases are in use at a time");
    };
    let link = set.plain(turn.worker, session.proto).clone();
    let touches = ruled.touches.unwrap_or_else(|| touches(request, &ruled));
    if session.must_wait(Lane::Plain, touches) {
        return Flow::Wait;
    }
    match usable(turn, &link) {
        Usable::Yes => {}
        Usable::Wait => return Flow::Wait,
        Usable::No(_) if turn.worker.in_memory_mode(&link) => {
            return memory::execute(turn, session, request, &ruled);
        }
        Usable::No(why) => {
            if let Err(why) = offline::admit(turn.worker, &link, offline::size(request), why) {
                return unavailable(turn, session, request, &ruled, &why);
            }
        }
    }
    send(turn, session, request, &link, touches, &ruled, found)
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
        ruled.touches = Some(Touches::Key(key_hash(key)));
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

#[allow(
    clippy::too_many_arguments,
    reason = "the last step of one pipeline; a struct would only rename them"
)]
fn send(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
    link: &Link,
    touches: Touches,
    ruled: &Ruled,
    found: &mut KeyPositions,
) -> Flow {
    let Request { spec, args, .. } = request;
    let change = expiry::adjust(turn, request, ruled);
    let mut bytes = Vec::new();
    let (raw, rewrite) = match (&turn.active.prefix, &change.change, request.raw) {
        (None, Change::Nothing, Some(raw)) => (raw, ReplyRewrite::None),
        (prefix, _, _) => {
            let words = change.change.apply(args);
            let words: SmallVec<[&[u8]; 8]> = words.iter().map(AsRef::as_ref).collect();
            let rewrite = match prefix {
                None => {
                    write_command(&words, &mut bytes);
                    ReplyRewrite::None
                }
                Some(prefix) => match apply_prefix(prefix, spec, &words, found, &mut bytes) {
                    Ok(rewrite) => rewrite,
                    Err(reason) => return refuse(turn, session, reason.message(args[0])),
                },
            };
            (bytes.as_slice(), rewrite)
        }
    };
    let after = after(turn, request, ruled, rewrite, found);
    let number = session.reserve(Lane::Plain, touches);
    let target = ClientTarget {
        client: turn.client.clone(),
        number,
        command: spec.id(),
        after: (!after.is_nothing()).then(|| Box::new(after)),
    };
    link.send(Target::Client(target), spec.is_idempotent(), |out| {
        out.extend_from_slice(raw);
    });
    for (index, millis) in &change.follow {
        follow(turn, link, args[*index as usize], *millis);
    }
    Flow::Done
}

/// Forwards a command without keys, with something to be done when its reply comes.
pub fn as_is(turn: &Turn<'_>, session: &mut Session, request: Request<'_>, after: After) -> Flow {
    let Some(set) = turn.worker.links(session.db) else {
        return refuse(turn, session, "ERR too many databases are in use at a time");
    };
    let link = set.plain(turn.worker, session.proto).clone();
    match usable(turn, &link) {
        Usable::Yes => {}
        Usable::Wait => return Flow::Wait,
        Usable::No(why) => {
            if let Err(why) = offline::admit(turn.worker, &link, offline::size(request), why) {
                return unavailable(turn, session, request, &Ruled::default(), &why);
            }
        }
    }
    let number = session.reserve(Lane::Plain, Touches::Nothing);
    let target = ClientTarget {
        client: turn.client.clone(),
        number,
        command: request.spec.id(),
        after: Some(Box::new(after)),
    };
    let idempotent = request.spec.is_idempotent();
    link.send(Target::Client(target), idempotent, |out| {
        write_command(request.args, out);
    });
    Flow::Done
}

/// `PEXPIRE key ttl NX` on the same connection, for writes that carry no TTL of their own.
pub fn follow(turn: &Turn<'_>, link: &Link, key: &[u8], millis: u64) {
    let key = turn.active.key_in_redis(key);
    link.send(Target::Ignore, true, |out| {
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
    }
}
