//! Counters: `INCR` and its relatives.

use super::argument::integer;
use super::fail::Fail;
use super::long_double::LongDouble;
use super::run::{Answer, Run};
use super::strings::put_number;
use crate::resp::write::Reply;

pub(super) fn incr(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    add(run, args[1], 1, reply)
}

pub(super) fn decr(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    add(run, args[1], -1, reply)
}

pub(super) fn incrby(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    add(run, args[1], integer(args[2])?, reply)
}

pub(super) fn decrby(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let by = integer(args[2])?
        .checked_neg()
        .ok_or(Fail::Other("decrement would overflow"))?;
    add(run, args[1], by, reply)
}

fn add(run: &mut Run<'_>, key: &[u8], by: i64, reply: &mut Reply<'_>) -> Answer {
    let before = run.string(key)?.map_or(Ok(0), integer)?;
    let after = before.checked_add(by).ok_or(Fail::Overflow)?;
    put_number(run, key, after.to_string())?;
    reply.integer(after);
    Ok(())
}

pub(super) fn incrbyfloat(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let before = run
        .string(args[1])?
        .map_or(Some(LongDouble::ZERO), LongDouble::parse)
        .ok_or(Fail::NotFloat)?;
    let by = LongDouble::parse(args[2]).ok_or(Fail::NotFloat)?;
    let after = before
        .plus(by)
        .ok_or(Fail::Other("increment would produce NaN or Infinity"))?;
    let text = after.to_string();
    put_number(run, args[1], text.clone())?;
    reply.bulk(text.as_bytes());
    Ok(())
}
