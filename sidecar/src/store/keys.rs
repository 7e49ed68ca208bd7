//! Commands that do not care what a key holds.

use super::argument::{integer, is, parse_integer};
use super::fail::Fail;
use super::run::{Answer, Run, count};
use crate::resp::write::Reply;

pub(super) fn del(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let gone = args[1..]
        .iter()
        .filter(|key| run.take(key).is_some())
        .count();
    reply.integer(count(gone));
    Ok(())
}

/// `EXISTS` and `TOUCH`: both count, and every lookup touches.
pub(super) fn exists(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let found = args[1..].iter().filter(|key| run.exists(key)).count();
    reply.integer(count(found));
    Ok(())
}

pub(super) fn type_of(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    reply.simple(
        run.object(args[1])
            .map_or("none", |object| object.value.type_name()),
    );
    Ok(())
}

pub(super) fn rename(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    if !run.exists(args[1]) {
        return Err(Fail::NoSuchKey);
    }
    if args[1] != args[2] {
        move_to(run, args[1], (run.call.db, args[2]))?;
    }
    reply.ok();
    Ok(())
}

pub(super) fn renamenx(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    if !run.exists(args[1]) {
        return Err(Fail::NoSuchKey);
    }
    let free = !run.exists(args[2]);
    if free {
        move_to(run, args[1], (run.call.db, args[2]))?;
    }
    reply.integer(i64::from(free));
    Ok(())
}

/// Gives the value of an existing key to another; the old name goes first, so nothing grows but
/// by the difference of the names.
fn move_to(run: &mut Run<'_>, from: &[u8], (db, to): (u32, &[u8])) -> Answer {
    run.reserve(to.len().saturating_sub(from.len()), &[from, to])?;
    let Some(object) = run.take(from) else {
        return Err(Fail::NoSuchKey);
    };
    run.put_into(db, to, object.value, object.deadline)
}

pub(super) fn copy(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let (from, to) = (args[1], args[2]);
    let (mut db, mut replace) = (run.call.db, false);
    let mut rest = args[3..].iter();
    while let Some(option) = rest.next() {
        if is(option, "REPLACE") {
            replace = true;
        } else if is(option, "DB")
            && let Some(number) = rest.next()
        {
            db = database(run, number)?;
        } else {
            return Err(Fail::Syntax);
        }
    }
    if db == run.call.db && from == to {
        return Err(Fail::Other("source and destination objects are the same"));
    }
    let weight = run.keys.weight_of(run.call.db, from, run.now);
    let copied = weight > 0 && (replace || run.keys.find(db, to, run.now).is_none());
    if copied {
        // Room first: a copy made before would stand beside the limit.
        run.keys.reserve(
            weight + to.len(),
            &[(run.call.db, from), (db, to)],
            run.now,
            &mut run.random,
        )?;
        let (value, deadline) = match run.object(from) {
            Some(object) => (object.value.clone(), object.deadline),
            None => return Err(Fail::NoSuchKey),
        };
        run.put_into(db, to, value, deadline)?;
    }
    reply.integer(i64::from(copied));
    Ok(())
}

fn database(run: &Run<'_>, number: &[u8]) -> Result<u32, Fail> {
    let number = i32::try_from(integer(number)?).map_err(|_| Fail::NotInt32)?;
    in_range(run, number)
}

fn in_range(run: &Run<'_>, number: i32) -> Result<u32, Fail> {
    u32::try_from(number)
        .ok()
        .filter(|n| *n < run.call.databases)
        .ok_or(Fail::DbOutOfRange)
}

pub(super) fn move_key(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let db = database(run, args[2])?;
    if db == run.call.db {
        return Err(Fail::Other("source and destination objects are the same"));
    }
    let moves = run.exists(args[1]) && run.keys.find(db, args[1], run.now).is_none();
    if moves {
        move_to(run, args[1], (db, args[1]))?;
    }
    reply.integer(i64::from(moves));
    Ok(())
}

pub(super) fn swapdb(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let number = |arg: &[u8]| parse_integer(arg).and_then(|n| i32::try_from(n).ok());
    let first = number(args[1]).ok_or(Fail::Other("invalid first DB index"))?;
    let second = number(args[2]).ok_or(Fail::Other("invalid second DB index"))?;
    let (first, second) = (in_range(run, first)?, in_range(run, second)?);
    run.keys.swap(first, second);
    for number in [first, second] {
        let Some(database) = run.keys.databases.get(&number) else {
            continue;
        };
        let lists = database
            .table
            .iter()
            .filter(|(_, object)| object.value.wakes_the_blocked());
        run.ready.extend(lists.map(|(key, _)| (number, key.into())));
    }
    run.wrote = true;
    reply.ok();
    Ok(())
}

pub(super) fn dbsize(run: &mut Run<'_>, _: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let keys = run
        .keys
        .databases
        .get(&run.call.db)
        .map_or(0, |database| database.table.len());
    reply.integer(count(keys));
    Ok(())
}

pub(super) fn randomkey(run: &mut Run<'_>, _: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    while let Some(database) = run.keys.databases.get(&run.call.db)
        && !database.table.is_empty()
    {
        let at = run.random.below(database.table.len());
        let key: Box<[u8]> = database.table.at(at).0.into();
        // An expired key goes when it is looked up, so the loop ends.
        if run.exists(&key) {
            reply.bulk(&key);
            return Ok(());
        }
    }
    reply.null();
    Ok(())
}

pub(super) fn flushdb(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    flush(run, args, &[run.call.db], reply)
}

pub(super) fn flushall(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let all: Vec<u32> = run.keys.databases.keys().copied().collect();
    flush(run, args, &all, reply)
}

fn flush(run: &mut Run<'_>, args: &[&[u8]], databases: &[u32], reply: &mut Reply<'_>) -> Answer {
    match args {
        [_] => {}
        [_, how] if is(how, "ASYNC") || is(how, "SYNC") => {}
        _ => return Err(Fail::Syntax),
    }
    for db in databases {
        run.wrote |= run.keys.flush(*db) > 0;
    }
    reply.ok();
    Ok(())
}

pub(super) fn time(run: &mut Run<'_>, _: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    reply.array(2);
    reply.bulk(run.call.unix_now.as_secs().to_string().as_bytes());
    reply.bulk(run.call.unix_now.subsec_micros().to_string().as_bytes());
    Ok(())
}
