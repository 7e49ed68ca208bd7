//! Hashes.

use super::argument::{integer, is, parse_integer};
use super::fail::Fail;
use super::long_double::LongDouble;
use super::run::{Answer, Run, count};
use super::sets::{choose, random_count};
use super::value::Hash;
use crate::resp::write::Reply;

pub(super) fn hset(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let added = set_fields(run, args)?;
    reply.integer(added);
    Ok(())
}

pub(super) fn hmset(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    set_fields(run, args)?;
    reply.ok();
    Ok(())
}

fn set_fields(run: &mut Run<'_>, args: &[&[u8]]) -> Result<i64, Fail> {
    if !args.len().is_multiple_of(2) {
        return Err(Fail::Arity(run.command));
    }
    let added = run.edit_or_create(args[1], |hash: &mut Hash| {
        args[2..]
            .chunks_exact(2)
            .filter(|pair| hash.set(pair[0], pair[1]))
            .count()
    })?;
    run.wrote = true;
    Ok(count(added))
}

pub(super) fn hsetnx(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let free = !run
        .read::<Hash>(args[1])?
        .is_some_and(|hash| hash.fields().contains(args[2]));
    if free {
        run.edit_or_create(args[1], |hash: &mut Hash| hash.set(args[2], args[3]))?;
        run.wrote = true;
    }
    reply.integer(i64::from(free));
    Ok(())
}

fn field<'a>(run: &'a mut Run<'_>, key: &[u8], name: &[u8]) -> Result<Option<&'a [u8]>, Fail> {
    Ok(run
        .read::<Hash>(key)?
        .and_then(|hash| hash.fields().get(name))
        .map(AsRef::as_ref))
}

pub(super) fn hget(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    match field(run, args[1], args[2])? {
        Some(value) => reply.bulk(value),
        None => reply.null(),
    }
    Ok(())
}

pub(super) fn hmget(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let hash = run.read::<Hash>(args[1])?;
    reply.array(args.len() - 2);
    for name in &args[2..] {
        match hash.and_then(|hash| hash.fields().get(name)) {
            Some(value) => reply.bulk(value),
            None => reply.null(),
        }
    }
    Ok(())
}

pub(super) fn hgetall(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let hash = run.read::<Hash>(args[1])?;
    reply.map(hash.map_or(0, |hash| hash.fields().len()));
    for (name, value) in hash.into_iter().flat_map(|hash| hash.fields().iter()) {
        reply.bulk(name);
        reply.bulk(value);
    }
    Ok(())
}

pub(super) fn hkeys(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let hash = run.read::<Hash>(args[1])?;
    reply.array(hash.map_or(0, |hash| hash.fields().len()));
    hash.into_iter()
        .flat_map(|hash| hash.fields().iter())
        .for_each(|(name, _)| reply.bulk(name));
    Ok(())
}

pub(super) fn hvals(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let hash = run.read::<Hash>(args[1])?;
    reply.array(hash.map_or(0, |hash| hash.fields().len()));
    hash.into_iter()
        .flat_map(|hash| hash.fields().iter())
        .for_each(|(_, value)| reply.bulk(value));
    Ok(())
}

pub(super) fn hdel(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let gone = run.edit(args[1], |hash: &mut Hash| {
        args[2..].iter().filter(|name| hash.remove(name)).count()
    })?;
    let gone = gone.unwrap_or(0);
    run.wrote = gone > 0;
    reply.integer(count(gone));
    Ok(())
}

pub(super) fn hlen(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let len = run
        .read::<Hash>(args[1])?
        .map_or(0, |hash| hash.fields().len());
    reply.integer(count(len));
    Ok(())
}

pub(super) fn hexists(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let found = field(run, args[1], args[2])?.is_some();
    reply.integer(i64::from(found));
    Ok(())
}

pub(super) fn hstrlen(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let len = field(run, args[1], args[2])?.map_or(0, <[u8]>::len);
    reply.integer(count(len));
    Ok(())
}

pub(super) fn hincrby(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let by = integer(args[3])?;
    let before = match field(run, args[1], args[2])? {
        Some(value) => parse_integer(value).ok_or(Fail::Other("hash value is not an integer"))?,
        None => 0,
    };
    let after = before.checked_add(by).ok_or(Fail::Overflow)?;
    run.edit_or_create(args[1], |hash: &mut Hash| {
        hash.set(args[2], after.to_string().as_bytes())
    })?;
    run.wrote = true;
    reply.integer(after);
    Ok(())
}

pub(super) fn hincrbyfloat(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let by = LongDouble::parse(args[3]).ok_or(Fail::NotFloat)?;
    if by.is_infinite() {
        return Err(Fail::Other("value is NaN or Infinity"));
    }
    let before = match field(run, args[1], args[2])? {
        Some(value) => LongDouble::parse(value).ok_or(Fail::Other("hash value is not a float"))?,
        None => LongDouble::ZERO,
    };
    let after = before
        .plus(by)
        .ok_or(Fail::Other("increment would produce NaN or Infinity"))?
        .to_string();
    run.edit_or_create(args[1], |hash: &mut Hash| {
        hash.set(args[2], after.as_bytes())
    })?;
    run.wrote = true;
    reply.bulk(after.as_bytes());
    Ok(())
}

pub(super) fn hrandfield(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let (count, with_values) = match args {
        [_, _] => return random_field(run, args[1], reply),
        [_, _, count] => (random_count(count)?, false),
        [_, _, count, option] if is(option, "WITHVALUES") => (random_count(count)?, true),
        [_, _, count, ..] => {
            random_count(count)?;
            return Err(Fail::Syntax);
        }
        _ => return Err(Fail::Syntax),
    };
    if with_values && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(Fail::OutOfRange);
    }
    let len = run
        .read::<Hash>(args[1])?
        .map_or(0, |hash| hash.fields().len());
    let chosen = choose(count, len, &mut run.random)?;
    let Some(hash) = run.read::<Hash>(args[1])? else {
        reply.array(0);
        return Ok(());
    };
    let nested = with_values && reply.proto == crate::resp::Proto::Resp3;
    reply.array(if with_values && !nested {
        chosen.len() * 2
    } else {
        chosen.len()
    });
    for at in chosen {
        let (name, value) = hash.fields().at(at);
        if nested {
            reply.array(2);
        }
        reply.bulk(name);
        if with_values {
            reply.bulk(value);
        }
    }
    Ok(())
}

fn random_field(run: &mut Run<'_>, key: &[u8], reply: &mut Reply<'_>) -> Answer {
    let len = run.read::<Hash>(key)?.map_or(0, |hash| hash.fields().len());
    let at = run.random.below(len.max(1));
    match run.read::<Hash>(key)? {
        Some(hash) => reply.bulk(hash.fields().at(at).0),
        None => reply.null(),
    }
    Ok(())
}
