//! `XADD`, `XTRIM`, `XDEL`: what changes a stream.

use super::id::{Id, Wanted};
use super::{Stream, weight};
use crate::resp::write::Reply;
use crate::store::argument::{integer, is};
use crate::store::fail::Fail;
use crate::store::run::{Answer, Run, count};
use crate::store::value::{CONTAINER_OVERHEAD, KEY_OVERHEAD};

/// What `~` removes at a time unless `LIMIT` says otherwise; redis-server's default.
const APPROXIMATE_LIMIT: usize = 10_000;

/// What may stay.
#[derive(Clone, Copy)]
enum Keep {
    Newest(usize),
    From(Id),
}

/// The options of `XADD` and `XTRIM`.
#[derive(Default)]
struct Options {
    keep: Option<Keep>,
    approximate: bool,
    limit: Option<usize>,
    no_stream: bool,
}

impl Options {
    /// Reads up to the id of `XADD`, or all of `XTRIM`; answers what is left.
    fn parse<'a, 'b>(words: &'a [&'b [u8]], adds: bool) -> Result<(Self, &'a [&'b [u8]]), Fail> {
        let mut found = Self::default();
        let mut rest = words;
        while let Some((word, after)) = rest.split_first() {
            if adds && **word == *b"*" {
                break;
            }
            rest = match after {
                [_, ..] if is(word, "MAXLEN") => found.keep(after, |arg| {
                    let longest = usize::try_from(integer(arg)?)
                        .map_err(|_| Fail::Other("The MAXLEN argument must be >= 0."))?;
                    Ok(Keep::Newest(longest))
                })?,
                [_, ..] if is(word, "MINID") => {
                    found.keep(after, |arg| Ok(Keep::From(Id::parse(arg, 0)?)))?
                }
                [limit, after @ ..] if is(word, "LIMIT") => {
                    let limit = usize::try_from(integer(limit)?)
                        .map_err(|_| Fail::Other("The LIMIT argument must be >= 0."))?;
                    found.limit = Some(limit);
                    after
                }
                _ if adds && is(word, "NOMKSTREAM") => {
                    found.no_stream = true;
                    after
                }
                _ if adds => break,
                _ => return Err(Fail::Syntax),
            };
        }
        if adds && let Some(id) = rest.first().filter(|id| **id != b"*") {
            Wanted::parse(id, 0)?;
        }
        found.check(adds)?;
        Ok((found, rest))
    }

    fn keep<'a, 'b>(
        &mut self,
        words: &'a [&'b [u8]],
        parse: impl Fn(&'b [u8]) -> Result<Keep, Fail>,
    ) -> Result<&'a [&'b [u8]], Fail> {
        if self.keep.is_some() {
            return Err(Fail::Other(
                "syntax error, MAXLEN and MINID options at the same time are not compatible",
            ));
        }
        let (threshold, rest) = match words {
            [b"~", threshold, rest @ ..] => {
                self.approximate = true;
                (threshold, rest)
            }
            [b"=", threshold, rest @ ..] | [threshold, rest @ ..] => {
                self.approximate = false;
                (threshold, rest)
            }
            [] => return Err(Fail::Syntax),
        };
        self.keep = Some(parse(threshold)?);
        Ok(rest)
    }

    fn check(&self, adds: bool) -> Answer {
        if self.limit.is_some_and(|limit| limit > 0) && self.keep.is_none() {
            return Err(Fail::Other(
                "syntax error, LIMIT cannot be used without specifying a trimming strategy",
            ));
        }
        if !adds && self.keep.is_none() {
            return Err(Fail::Other(
                "syntax error, XTRIM must be called with a trimming strategy",
            ));
        }
        if self.limit.is_some() && !self.approximate {
            return Err(Fail::Other(
                "syntax error, LIMIT cannot be used without the special ~ option",
            ));
        }
        Ok(())
    }

    fn trim(&self, stream: &mut Stream) -> usize {
        let most = match (self.approximate, self.limit) {
            (false, _) | (true, Some(0)) => usize::MAX,
            (true, limit) => limit.unwrap_or(APPROXIMATE_LIMIT),
        };
        match self.keep {
            None => 0,
            Some(Keep::Newest(longest)) => {
                stream.trim(most, |stream, _| stream.entries.len() > longest)
            }
            Some(Keep::From(first)) => stream.trim(most, |_, id| id < first),
        }
    }
}

pub(in crate::store) fn xadd(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let key = args[1];
    let (options, rest) = Options::parse(&args[2..], true)?;
    let Some((id, fields)) = rest.split_first() else {
        return Err(Fail::Arity(run.command));
    };
    if fields.is_empty() || !fields.len().is_multiple_of(2) {
        return Err(Fail::Arity(run.command));
    }
    let wanted = match *id {
        b"*" => None,
        id => Some(Wanted::parse(id, 0)?),
    };
    if let Some(Wanted::Exactly(Id::MIN)) = wanted {
        return Err(Fail::Other(
            "The ID specified in XADD must be greater than 0-0",
        ));
    }
    let last = match run.read::<Stream>(key)? {
        Some(stream) => stream.last,
        None if options.no_stream => {
            reply.null();
            return Ok(());
        }
        None => Id::MIN,
    };
    let id = next_id(run, last, wanted)?;
    let bytes = KEY_OVERHEAD + key.len() + CONTAINER_OVERHEAD + weight(fields);
    run.reserve(bytes, &[key])?;
    run.edit_or_create(key, |stream: &mut Stream| {
        stream.add(id, fields);
        options.trim(stream);
    })?;
    run.wrote = true;
    run.ready.push((run.call.db, key.into()));
    reply.bulk(id.to_string().as_bytes());
    Ok(())
}

/// An id above the last one.
fn next_id(run: &Run<'_>, last: Id, wanted: Option<Wanted>) -> Result<Id, Fail> {
    if last == Id::MAX {
        return Err(Fail::Other(
            "The stream has exhausted the last possible ID, unable to add more items",
        ));
    }
    let too_small =
        Fail::Other("The ID specified in XADD is equal or smaller than the target stream top item");
    let id = match wanted {
        Some(Wanted::Exactly(id)) => id,
        Some(Wanted::Within(ms)) if ms == last.ms => {
            let seq = last.seq.checked_add(1);
            seq.map_or(last, |seq| Id { ms, seq })
        }
        Some(Wanted::Within(ms)) => Id { ms, seq: 0 },
        None => {
            let ms = u64::try_from(run.call.unix_now.as_millis()).unwrap_or(u64::MAX);
            let now = Id { ms, seq: 0 };
            // The clock may have been set back; ids never go back.
            if ms > last.ms {
                now
            } else {
                last.next().unwrap_or(last)
            }
        }
    };
    if id > last { Ok(id) } else { Err(too_small) }
}

pub(in crate::store) fn xtrim(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let (options, _) = Options::parse(&args[2..], false)?;
    let gone = run.edit(args[1], |stream: &mut Stream| options.trim(stream))?;
    let gone = gone.unwrap_or(0);
    run.wrote = gone > 0;
    reply.integer(count(gone));
    Ok(())
}

pub(in crate::store) fn xdel(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    if run.read::<Stream>(args[1])?.is_none() {
        reply.integer(0);
        return Ok(());
    }
    let ids: Vec<Id> = args[2..]
        .iter()
        .map(|id| Id::parse(id, 0))
        .collect::<Result<_, _>>()?;
    let gone = run.edit(args[1], |stream: &mut Stream| {
        ids.iter().filter(|id| stream.remove(**id)).count()
    })?;
    let gone = gone.unwrap_or(0);
    run.wrote = gone > 0;
    reply.integer(count(gone));
    Ok(())
}
