//! Commands in front of a cluster: which server they go to, and those that go to several.
//!
//! A command whose keys share a slot goes to the owner of the slot. `MGET`, `MSET`, `DEL`,
//! `UNLINK`, `EXISTS` and `TOUCH` over several slots are split, and are as little atomic as
//! several commands; any other one is refused with `CROSSSLOT`. What concerns all keys (`DBSIZE`,
//! `KEYS`, `FLUSHALL`, `SCRIPT LOAD` …) goes to every primary, `SCAN` to one after the other.

use std::rc::Rc;

use smallvec::SmallVec;

use super::{
    Flow, Request, Turn,
    forward::{self, Ruled},
    gather::{Gather, Merge},
    refuse,
    reply::{After, ReplyChange},
};
use crate::{
    client::session::{Session, Touches},
    command::{self, CommandId, KeyPositions, ReplyRewrite},
    resp::{reply::Value, write},
    upstream::LinkSet,
    worker::Worker,
};

/// Where a command goes.
pub enum Place {
    /// To one server; the slot, if it has keys.
    One(Rc<LinkSet>, Option<u16>),
    /// Over several slots: for each the arguments that are keys.
    Split(Vec<Group>),
    /// To every primary.
    Everywhere(Merge),
    /// To one primary after the other.
    Scan,
}

/// Keys of one slot.
pub struct Group {
    slot: u16,
    /// Their places among the arguments.
    keys: Vec<usize>,
}

/// Why a command has no place.
#[derive(Debug, thiserror::Error)]
pub enum Nowhere {
    /// In Redis' own words.
    #[error("CROSSSLOT Keys in request don't hash to the same slot")]
    CrossSlot,
    /// The bound of links is reached.
    #[error("ERR too many databases are in use at a time")]
    TooManyLinks,
    /// A cursor that was never given out.
    #[error("ERR invalid cursor")]
    Cursor,
}

/// Where a command goes in a cluster; `found` are its keys, unless it has a single one.
pub fn place(
    turn: &Turn<'_>,
    session: &Session,
    request: Request<'_>,
    ruled: &Ruled,
    found: &KeyPositions,
) -> Result<Place, Nowhere> {
    let Request { spec, args, .. } = request;
    // Of a single key the slot is known already.
    if let Some(Touches::Key(slot)) = ruled.touches
        && let Ok(slot) = u16::try_from(slot)
    {
        return one(turn, session, request, slot);
    }
    // The name of a shard channel has a slot like a key.
    if spec.id() == CommandId::Spublish
        && let Some(channel) = args.get(1)
    {
        return one(turn, session, request, command_slot(channel));
    }
    let mut groups: SmallVec<[(u16, usize); 8]> = SmallVec::new();
    for position in found.iter() {
        let index = position.index as usize;
        groups.push((turn.worker.slot(args[index]), index));
    }
    let Some((slot, _)) = groups.first().copied() else {
        return without_keys(turn, session, request);
    };
    if groups.iter().all(|(other, _)| *other == slot) {
        return one(turn, session, request, slot);
    }
    if !can_split(spec.id()) {
        return Err(Nowhere::CrossSlot);
    }
    let mut split: Vec<Group> = Vec::new();
    for (slot, index) in groups {
        match split.iter_mut().find(|group| group.slot == slot) {
            Some(group) => group.keys.push(index),
            None => split.push(Group {
                slot,
                keys: vec![index],
            }),
        }
    }
    Ok(Place::Split(split))
}

/// Channels have no prefix.
fn command_slot(channel: &[u8]) -> u16 {
    crate::upstream::topology::key_slot(channel)
}

fn one(
    turn: &Turn<'_>,
    session: &Session,
    request: Request<'_>,
    slot: u16,
) -> Result<Place, Nowhere> {
    let worker = turn.worker;
    // A replica that is not connected is no reason to wait.
    let replica = (!request.spec.may_write() && request.spec.is_idempotent())
        .then(|| worker.links_of_replica(session.db, slot))
        .flatten()
        .filter(|set| set.plain(worker, session.proto).is_up());
    let set = match replica {
        Some(set) => Some(set),
        None => worker.links_of_slot(session.db, slot),
    };
    set.map(|set| Place::One(set, Some(slot)))
        .ok_or(Nowhere::TooManyLinks)
}

fn without_keys(
    turn: &Turn<'_>,
    session: &Session,
    request: Request<'_>,
) -> Result<Place, Nowhere> {
    let spec = request.spec;
    Ok(match (spec.id(), spec.subcommand()) {
        (CommandId::Scan, _) => Place::Scan,
        (CommandId::Dbsize, _) => Place::Everywhere(Merge::Sum),
        (CommandId::Keys, _) => Place::Everywhere(Merge::Concat),
        (CommandId::Script, Some("exists")) => Place::Everywhere(Merge::All),
        (CommandId::Randomkey | CommandId::Flushall | CommandId::Flushdb, _)
        | (CommandId::Script, Some("load" | "flush" | "kill"))
        | (CommandId::Function, Some("load" | "delete" | "flush" | "restore" | "kill"))
        | (CommandId::Config, Some("set" | "resetstat" | "rewrite")) => {
            Place::Everywhere(Merge::First)
        }
        _ => {
            let set = turn.worker.links(session.db);
            Place::One(set.ok_or(Nowhere::TooManyLinks)?, None)
        }
    })
}

/// Whether its shares go where their keys live, and not to one server each.
pub fn can_split(id: CommandId) -> bool {
    matches!(
        id,
        CommandId::Mget
            | CommandId::Mset
            | CommandId::Del
            | CommandId::Unlink
            | CommandId::Exists
            | CommandId::Touch
    )
}

/// Sends each slot's share to its server; the replies become one.
pub fn split(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
    groups: &[Group],
    ruled: &Ruled,
) -> Flow {
    let Request { spec, args, .. } = request;
    let id = spec.id();
    if id == CommandId::Mset && args.len() % 2 == 0 {
        // A key without a value: no server sees the whole and could refuse it.
        return refuse(turn, session, command::wrong_arity(spec));
    }
    let merge = match id {
        CommandId::Mget => Merge::Places(
            groups
                .iter()
                .map(|group| group.keys.iter().map(|index| index - 1).collect())
                .collect(),
        ),
        CommandId::Mset => Merge::First,
        _ => Merge::Sum,
    };
    let sets: Option<Vec<_>> = groups
        .iter()
        .map(|group| turn.worker.links_of_slot(session.db, group.slot))
        .collect();
    let Some(sets) = sets else {
        return refuse(turn, session, Nowhere::TooManyLinks.to_string());
    };
    if let Some(flow) = forward::must_wait(turn, session, request, &sets, ruled) {
        return flow;
    }
    let number = session.reserve(turn.worker.spread_lane(false), Touches::Anything);
    let gather = Gather::new(turn.client, number, id, session.proto, merge, groups.len());
    for (index, (group, set)) in groups.iter().zip(&sets).enumerate() {
        let mut words: SmallVec<[&[u8]; 8]> = SmallVec::new();
        words.push(args[0]);
        for key in &group.keys {
            words.push(args[*key]);
            if id == CommandId::Mset {
                words.push(args.get(key + 1).copied().unwrap_or_default());
            }
        }
        let share = Request {
            spec,
            args: &words,
            raw: None,
        };
        forward::send_part(turn, session, share, set, gather.part(index));
    }
    Flow::Done
}

/// Sends a command to every primary; the replies become one.
pub fn everywhere(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
    merge: Merge,
    ruled: &Ruled,
) -> Flow {
    let Some(sets) = turn.worker.links_of_all(session.db) else {
        return refuse(turn, session, Nowhere::TooManyLinks.to_string());
    };
    if let Some(flow) = forward::must_wait(turn, session, request, &sets, ruled) {
        return flow;
    }
    let number = session.reserve(turn.worker.spread_lane(false), Touches::Anything);
    let id = request.spec.id();
    let gather = Gather::new(turn.client, number, id, session.proto, merge, sets.len());
    for (index, set) in sets.iter().enumerate() {
        forward::send_part(turn, session, request, set, gather.part(index));
    }
    Flow::Done
}

// === SCAN ===

/// Cursors are given out as `cursor × SERVERS + place of the server`, in the order of their first
/// slots; 0 begins with the first server and ends after the last.
const SERVERS: u64 = 1024;

/// Sends `SCAN` to the server that its cursor names.
pub fn scan(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let cursor = request
        .args
        .get(1)
        .and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
    let Some(cursor) = cursor else {
        return refuse(turn, session, Nowhere::Cursor.to_string());
    };
    let Some(sets) = turn.worker.links_of_all(session.db) else {
        return refuse(turn, session, Nowhere::TooManyLinks.to_string());
    };
    let place = cursor % SERVERS;
    let Some(set) = usize::try_from(place).ok().and_then(|at| sets.get(at)) else {
        // Servers were merged meanwhile: there is nothing left to scan.
        session.reply(|reply| {
            reply.array(2);
            reply.bulk(b"0");
            reply.array(0);
        });
        return Flow::Done;
    };
    let inner = (cursor / SERVERS).to_string();
    let mut words: SmallVec<[&[u8]; 8]> = SmallVec::from_slice(request.args);
    words[1] = inner.as_bytes();
    let share = Request {
        args: &words,
        raw: None,
        ..request
    };
    let last = usize::try_from(place + 1) == Ok(sets.len());
    let after = After {
        change: ReplyChange::Scan(ReplyRewrite::of(request.spec), place, last),
        ..After::default()
    };
    forward::send_scan(turn, session, share, set, after)
}

/// The server's cursor becomes ours.
pub fn write_cursor(place: u64, last: bool, frame: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let value = Value::read(frame).ok()?;
    let cursor: u64 = std::str::from_utf8(value.list()?.first()?.text()?)
        .ok()?
        .parse()
        .ok()?;
    let next = match cursor {
        0 if last => 0,
        0 => place + 1,
        cursor => cursor.checked_mul(SERVERS)?.checked_add(place)?,
    };
    // `*2 $len cursor list`: the list stays as it came.
    let mut ends = frame
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| *pair == b"\r\n");
    let items = ends.nth(2)?.0 + 2;
    write::header(out, b'*', 2);
    write::bulk(out, next.to_string().as_bytes());
    out.extend_from_slice(&frame[items..]);
    Some(())
}

/// Whether the command of a client with a connection of its own goes where that connection leads;
/// the slot of its keys, if it has any.
pub fn slot_of(worker: &Worker, request: Request<'_>) -> Result<Option<u16>, Nowhere> {
    let Request { spec, args, .. } = request;
    if spec.id() == CommandId::Ssubscribe
        && let Some(channel) = args.get(1)
    {
        return Ok(Some(command_slot(channel)));
    }
    let mut found = worker.positions.take();
    let _ = command::keys(spec, args, &mut found);
    let mut slots = found
        .iter()
        .map(|position| worker.slot(args[position.index as usize]));
    let first = slots.next();
    let same = slots.all(|slot| Some(slot) == first);
    drop(slots);
    worker.positions.replace(found);
    if same {
        Ok(first)
    } else {
        Err(Nowhere::CrossSlot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(place: u64, last: bool, frame: &str) -> Option<String> {
        let mut out = Vec::new();
        write_cursor(place, last, frame.as_bytes(), &mut out)?;
        String::from_utf8(out).ok()
    }

    #[test]
    fn a_cursor_names_its_server_and_goes_on_with_the_next() {
        let items = "*1\r\n$1\r\nk\r\n";
        assert_eq!(
            cursor(2, false, &format!("*2\r\n$2\r\n17\r\n{items}")).unwrap(),
            format!("*2\r\n$5\r\n17410\r\n{items}")
        );
        assert_eq!(
            cursor(0, false, &format!("*2\r\n$1\r\n0\r\n{items}")).unwrap(),
            format!("*2\r\n$1\r\n1\r\n{items}")
        );
        assert_eq!(
            cursor(2, true, "*2\r\n$1\r\n0\r\n*0\r\n").unwrap(),
            "*2\r\n$1\r\n0\r\n*0\r\n"
        );
        assert_eq!(
            cursor(0, false, "*2\r\n$20\r\n18446744073709551615\r\n*0\r\n"),
            None,
            "a cursor that does not fit is not given out"
        );
    }
}
