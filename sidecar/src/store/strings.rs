//! Strings: `GET`, `SET` and what reads or changes a part of one.

use super::argument::{integer, is};
use super::deadlines::{Unit, deadline_for};
use super::fail::Fail;
use super::keyspace::NEVER;
use super::run::{Answer, Run, count};
use super::value::{KEY_OVERHEAD, Value};
use crate::resp::write::Reply;

pub(super) fn get(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    match run.string(args[1])? {
        Some(text) => reply.bulk(text),
        None => reply.null(),
    }
    Ok(())
}

/// The options of `SET` and `GETEX`.
#[derive(Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "options that an app may combine"
)]
struct Options<'a> {
    nx: bool,
    xx: bool,
    get: bool,
    keep_ttl: bool,
    persist: bool,
    expire: Option<(&'a [u8], Unit)>,
}

/// Which of the options a command knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Set,
    GetEx,
}

impl<'a> Options<'a> {
    fn parse(form: Form, args: &[&'a [u8]]) -> Result<Self, Fail> {
        let set = form == Form::Set;
        let mut found = Self::default();
        let mut rest = args.iter();
        while let Some(option) = rest.next() {
            let timed = found.expire.is_some() || found.keep_ttl || found.persist;
            if set && is(option, "NX") && !found.xx {
                found.nx = true;
            } else if set && is(option, "XX") && !found.nx {
                found.xx = true;
            } else if set && is(option, "GET") {
                found.get = true;
            } else if set && is(option, "KEEPTTL") && found.expire.is_none() {
                found.keep_ttl = true;
            } else if !set && is(option, "PERSIST") && found.expire.is_none() {
                found.persist = true;
            } else if let Some(unit) = Unit::named(option)
                && !timed
            {
                found.expire = Some((rest.next().ok_or(Fail::Syntax)?, unit));
            } else {
                return Err(Fail::Syntax);
            }
        }
        Ok(found)
    }
}

pub(super) fn set(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let options = Options::parse(Form::Set, &args[3..])?;
    let key = args[1];
    let mut deadline = match options.expire {
        Some((value, unit)) => deadline_for(run, value, unit)?,
        None => NEVER,
    };
    // The old value is needed after the new one is stored, and only in this case.
    let old = if options.get {
        run.string(key)?.map(<[u8]>::to_vec)
    } else {
        None
    };
    let found = run.exists(key);
    let store = !(options.nx && found || options.xx && !found);
    if store {
        if options.keep_ttl {
            deadline = run.deadline(key);
        }
        run.put_string(key, args[2], deadline)?;
    }
    match old {
        Some(text) => reply.bulk(&text),
        None if store && !options.get => reply.ok(),
        None => reply.null(),
    }
    Ok(())
}

pub(super) fn setnx(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let missing = !run.exists(args[1]);
    if missing {
        run.put_string(args[1], args[2], NEVER)?;
    }
    reply.integer(i64::from(missing));
    Ok(())
}

pub(super) fn setex(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    set_for(run, args, Unit::Seconds, reply)
}

pub(super) fn psetex(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    set_for(run, args, Unit::Milliseconds, reply)
}

fn set_for(run: &mut Run<'_>, args: &[&[u8]], unit: Unit, reply: &mut Reply<'_>) -> Answer {
    let deadline = deadline_for(run, args[2], unit)?;
    run.put_string(args[1], args[3], deadline)?;
    reply.ok();
    Ok(())
}

pub(super) fn getset(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let old = run.string(args[1])?.map(<[u8]>::to_vec);
    run.put_string(args[1], args[2], NEVER)?;
    match old {
        Some(text) => reply.bulk(&text),
        None => reply.null(),
    }
    Ok(())
}

pub(super) fn getdel(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    get(run, args, reply)?;
    run.take(args[1]);
    Ok(())
}

pub(super) fn getex(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let options = Options::parse(Form::GetEx, &args[2..])?;
    let key = args[1];
    if run.string(key)?.is_none() {
        reply.null();
        return Ok(());
    }
    let deadline = match options.expire {
        Some((value, unit)) => Some(deadline_for(run, value, unit)?),
        None => options.persist.then_some(NEVER),
    };
    get(run, &args[..2], reply)?;
    match deadline {
        Some(deadline) if deadline <= run.now => drop(run.take(key)),
        Some(deadline) => run.set_deadline(key, deadline),
        None => {}
    }
    Ok(())
}

pub(super) fn mget(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    reply.array(args.len() - 1);
    for key in &args[1..] {
        match run.string(key) {
            Ok(Some(text)) => reply.bulk(text),
            _ => reply.null(),
        }
    }
    Ok(())
}

pub(super) fn mset(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    set_pairs(run, args)?;
    reply.ok();
    Ok(())
}

pub(super) fn msetnx(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    if args.len().is_multiple_of(2) {
        return Err(Fail::Arity(run.command));
    }
    let free = !args[1..].iter().step_by(2).any(|key| run.exists(key));
    if free {
        set_pairs(run, args)?;
    }
    reply.integer(i64::from(free));
    Ok(())
}

/// Sets all pairs or, for lack of room, none.
fn set_pairs(run: &mut Run<'_>, args: &[&[u8]]) -> Answer {
    if args.len().is_multiple_of(2) {
        return Err(Fail::Arity(run.command));
    }
    let growth = args[1..]
        .chunks_exact(2)
        .map(|pair| KEY_OVERHEAD + pair[0].len() + pair[1].len())
        .sum();
    run.reserve(growth, &[])?;
    for pair in args[1..].chunks_exact(2) {
        run.put_string(pair[0], pair[1], NEVER)?;
    }
    Ok(())
}

pub(super) fn strlen(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let len = run.string(args[1])?.map_or(0, <[u8]>::len);
    reply.integer(count(len));
    Ok(())
}

pub(super) fn getrange(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let (start, stop) = (integer(args[2])?, integer(args[3])?);
    let text = run.string(args[1])?.unwrap_or_default();
    reply.bulk(&text[byte_range(start, stop, text.len())]);
    Ok(())
}

/// Unlike in lists, an end before the first byte means the first byte, unless both indexes count
/// from the end the wrong way round.
pub(super) fn byte_range(start: i64, stop: i64, len: usize) -> std::ops::Range<usize> {
    if len == 0 || (start < 0 && stop < 0 && start > stop) {
        return 0..0;
    }
    let size = i64::try_from(len).unwrap_or(i64::MAX);
    let stop = if stop < 0 {
        stop.saturating_add(size).max(0)
    } else {
        stop
    };
    super::argument::range(start, stop, len)
}

pub(super) fn append(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let (key, tail) = (args[1], args[2]);
    let Some(len) = run.string(key)?.map(<[u8]>::len) else {
        run.put_string(key, tail, NEVER)?;
        reply.integer(count(tail.len()));
        return Ok(());
    };
    let total = write_at(run, key, len, tail)?;
    reply.integer(count(total));
    Ok(())
}

pub(super) fn setrange(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let (key, part) = (args[1], args[3]);
    let offset =
        usize::try_from(integer(args[2])?).map_err(|_| Fail::Other("offset is out of range"))?;
    let len = run.string(key)?.map_or(0, <[u8]>::len);
    let total = if part.is_empty() {
        len
    } else {
        write_at(run, key, offset, part)?
    };
    reply.integer(count(total));
    Ok(())
}

/// Writes `part` at `offset` of a string, zeros in the gap; answers the new length.
pub(super) fn write_at(
    run: &mut Run<'_>,
    key: &[u8],
    offset: usize,
    part: &[u8],
) -> Result<usize, Fail> {
    let end = offset
        .checked_add(part.len())
        .filter(|end| *end <= run.call.max_value)
        .ok_or(Fail::TooLong)?;
    let room = run.read::<Vec<u8>>(key)?.map_or(0, Vec::capacity);
    // An eighth more than needed keeps repeated APPENDs linear; all of it is counted.
    let wanted = if end <= room {
        room
    } else {
        end + if room == 0 { 0 } else { end / 8 }
    };
    run.reserve(KEY_OVERHEAD + key.len() + wanted - room, &[key])?;
    run.wrote = true;
    run.edit_or_create(key, |text: &mut Vec<u8>| {
        text.reserve_exact(wanted - text.len().min(wanted));
        if text.len() < end {
            text.resize(end, 0);
        }
        text[offset..end].copy_from_slice(part);
        text.len()
    })
}

/// Stores a number that a counter command computed; the deadline stays.
pub(super) fn put_number(run: &mut Run<'_>, key: &[u8], text: String) -> Answer {
    let deadline = run.deadline(key);
    run.put(key, Value::String(text.into_bytes()), deadline)
}
