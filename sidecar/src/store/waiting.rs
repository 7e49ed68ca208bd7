//! Commands that wait until a key has something: what they do when asked once.
//!
//! With nothing there they answer null. Waiting, and asking again when a key is reported as
//! ready, is the engine's.

use std::time::Duration;

use super::argument::{is, parse_integer};
use super::fail::Fail;
use super::run::{Answer, Run};
use super::value::{End, List};
use super::{lists, sorted, stream};
use crate::resp::write::Reply;

/// How long a command waits; `Some(Duration::MAX)`: until something comes. `None`: it does not.
pub(super) fn patience(args: &[&[u8]]) -> Option<Duration> {
    let name = *args.first()?;
    let waits = if is(name, "XREAD") {
        let at = args.iter().position(|word| is(word, "BLOCK"))?;
        milliseconds(args.get(at + 1)?).ok()?
    } else {
        seconds(args.last()?).ok()?
    };
    Some(if waits.is_zero() {
        Duration::MAX
    } else {
        waits
    })
}

/// The keys that a command waits for.
pub(super) fn keys<'b>(args: &[&'b [u8]]) -> Vec<&'b [u8]> {
    match args {
        [name, ..] if is(name, "XREAD") => stream::watched_keys(args),
        [name, source, ..] if is(name, "BLMOVE") || is(name, "BRPOPLPUSH") => vec![source],
        [_, keys @ .., _] => keys.to_vec(),
        _ => Vec::new(),
    }
}

pub(super) fn milliseconds(arg: &[u8]) -> Result<Duration, Fail> {
    let number =
        parse_integer(arg).ok_or(Fail::Other("timeout is not an integer or out of range"))?;
    let number = u64::try_from(number).map_err(|_| Fail::Other("timeout is negative"))?;
    Ok(Duration::from_millis(number))
}

fn seconds(arg: &[u8]) -> Result<Duration, Fail> {
    let text = std::str::from_utf8(arg).ok();
    let number = text.and_then(|text| text.parse().ok());
    let number = number
        .filter(|number: &f64| !number.is_nan())
        .ok_or(Fail::Other("timeout is not a float or out of range"))?;
    if number < 0.0 {
        return Err(Fail::Other("timeout is negative"));
    }
    let milliseconds = (number * 1000.0).ceil();
    #[allow(clippy::cast_precision_loss, reason = "the limit is not exact either")]
    if milliseconds > i64::MAX as f64 {
        return Err(Fail::Other("timeout is out of range"));
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "neither negative nor above the limit"
    )]
    Ok(Duration::from_millis(milliseconds as u64))
}

pub(super) fn blpop(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    pop(run, args, End::Left, reply)
}

pub(super) fn brpop(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    pop(run, args, End::Right, reply)
}

fn pop(run: &mut Run<'_>, args: &[&[u8]], end: End, reply: &mut Reply<'_>) -> Answer {
    let (timeout, keys) = args[1..].split_last().ok_or(Fail::Syntax)?;
    seconds(timeout)?;
    for key in keys {
        if let Some(Some(item)) = run.edit(key, |list: &mut List| list.pop(end))? {
            run.wrote = true;
            reply.array(2);
            reply.bulk(key);
            reply.bulk(&item);
            return Ok(());
        }
    }
    reply.null_array();
    Ok(())
}

pub(super) fn blmove(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    lists::ends(args)?;
    seconds(args[5])?;
    lists::lmove(run, args, reply)
}

pub(super) fn brpoplpush(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    seconds(args[3])?;
    lists::rpoplpush(run, args, reply)
}

pub(super) fn bzpopmin(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    pop_scored(run, args, End::Left, reply)
}

pub(super) fn bzpopmax(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    pop_scored(run, args, End::Right, reply)
}

fn pop_scored(run: &mut Run<'_>, args: &[&[u8]], end: End, reply: &mut Reply<'_>) -> Answer {
    let (timeout, keys) = args[1..].split_last().ok_or(Fail::Syntax)?;
    seconds(timeout)?;
    for key in keys {
        if sorted::pop::first(run, key, end, reply)? {
            return Ok(());
        }
    }
    reply.null_array();
    Ok(())
}
