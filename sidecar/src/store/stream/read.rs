//! `XLEN`, `XRANGE`, `XREVRANGE` and `XREAD`.

use super::id::Id;
use super::{Stream, answer};
use crate::resp::{Proto, write::Reply};
use crate::store::argument::{integer, is};
use crate::store::fail::Fail;
use crate::store::run::{Answer, Run, count};
use crate::store::waiting;

pub(in crate::store) fn xlen(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let stream = run.read::<Stream>(args[1])?;
    reply.integer(count(stream.map_or(0, |stream| stream.entries.len())));
    Ok(())
}

pub(in crate::store) fn xrange(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    range(run, args, (args[2], args[3]), false, reply)
}

pub(in crate::store) fn xrevrange(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    range(run, args, (args[3], args[2]), true, reply)
}

fn range(
    run: &mut Run<'_>,
    args: &[&[u8]],
    (start, end): (&[u8], &[u8]),
    reverse: bool,
    reply: &mut Reply<'_>,
) -> Answer {
    let start = match start.strip_prefix(b"(") {
        Some(start) => Id::parse(start, 0)?
            .next()
            .ok_or(Fail::Other("invalid start ID for the interval"))?,
        None => Id::parse_end(start, 0)?,
    };
    let end = match end.strip_prefix(b"(") {
        Some(end) => Id::parse(end, u64::MAX)?
            .previous()
            .ok_or(Fail::Other("invalid end ID for the interval"))?,
        None => Id::parse_end(end, u64::MAX)?,
    };
    let mut most = usize::MAX;
    let mut options = &args[4..];
    while let Some((word, after)) = options.split_first() {
        let [value, after @ ..] = after else {
            return Err(Fail::Syntax);
        };
        if !is(word, "COUNT") {
            return Err(Fail::Syntax);
        }
        most = usize::try_from(integer(value)?).unwrap_or(0);
        options = after;
    }
    match run.read::<Stream>(args[1])? {
        None => reply.array(0),
        Some(_) if most == 0 => reply.null_array(),
        Some(stream) => answer(stream, start..=end, reverse, most, reply),
    }
    Ok(())
}

/// The words of `XREAD`.
struct Query<'a, 'b> {
    most: usize,
    keys: &'a [&'b [u8]],
    ids: &'a [&'b [u8]],
}

impl<'a, 'b> Query<'a, 'b> {
    fn parse(args: &'a [&'b [u8]]) -> Result<Self, Fail> {
        let mut most = usize::MAX;
        let mut rest = &args[1..];
        while let Some((word, after)) = rest.split_first() {
            rest = match after {
                [timeout, after @ ..] if is(word, "BLOCK") => {
                    waiting::milliseconds(timeout)?;
                    after
                }
                [number, after @ ..] if is(word, "COUNT") => {
                    let number = usize::try_from(integer(number)?).unwrap_or(0);
                    most = if number == 0 { usize::MAX } else { number };
                    after
                }
                [_, ..] if is(word, "STREAMS") => {
                    if !after.len().is_multiple_of(2) {
                        return Err(Fail::Other(
                            "Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
                        ));
                    }
                    let (keys, ids) = after.split_at(after.len() / 2);
                    return Ok(Self { most, keys, ids });
                }
                [_, _, ..] if is(word, "GROUP") => {
                    return Err(Fail::Other(
                        "The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                _ if is(word, "NOACK") => {
                    return Err(Fail::Other(
                        "The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                _ => return Err(Fail::Syntax),
            };
        }
        Err(Fail::Syntax)
    }
}

/// Answers what is there; null if there is nothing, and then the engine may wait.
pub(in crate::store) fn xread(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let query = Query::parse(args)?;
    let mut found = Vec::new();
    for (key, id) in query.keys.iter().zip(query.ids) {
        let stream = run.read::<Stream>(key)?;
        let after = match *id {
            b"$" => stream.map_or(Id::MIN, |stream| stream.last),
            b">" => {
                return Err(Fail::Other(
                    "The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
                ));
            }
            id => Id::parse(id, 0)?,
        };
        let newest = stream.and_then(|stream| stream.entries.last_key_value());
        if newest.is_some_and(|(newest, _)| *newest > after) {
            found.push((*key, after));
        }
    }
    match (found.len(), reply.proto) {
        (0, _) => reply.null_array(),
        (len, Proto::Resp2) => reply.array(len),
        (len, Proto::Resp3) => reply.map(len),
    }
    for (key, after) in found {
        if reply.proto == Proto::Resp2 {
            reply.array(2);
        }
        reply.bulk(key);
        if let (Some(stream), Some(first)) = (run.read::<Stream>(key)?, after.next()) {
            answer(stream, first..=Id::MAX, false, query.most, reply);
        }
    }
    Ok(())
}

/// The keys of an `XREAD` that answered with nothing.
pub(in crate::store) fn watched_keys<'b>(args: &[&'b [u8]]) -> Vec<&'b [u8]> {
    Query::parse(args).map_or_else(|_| Vec::new(), |query| query.keys.to_vec())
}

/// The words with `$` as the id that it stands for now.
pub(in crate::store) fn settle_ids(run: &mut Run<'_>, args: &[&[u8]]) -> Vec<Box<[u8]>> {
    let mut words: Vec<Box<[u8]>> = args.iter().map(|word| Box::from(*word)).collect();
    let Ok(query) = Query::parse(args) else {
        return words;
    };
    let first = args.len() - query.ids.len();
    for (nth, (key, id)) in query.keys.iter().zip(query.ids).enumerate() {
        if *id == b"$" {
            let stream = run.read::<Stream>(key).ok().flatten();
            let last = stream.map_or(Id::MIN, |stream| stream.last);
            words[first + nth] = last.to_string().into_bytes().into();
        }
    }
    words
}
