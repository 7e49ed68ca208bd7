//! Commands about parts of the order of a sorted set: `ZRANGE` and its relatives.

use std::ops::Range;

use super::select::Span;
use super::{Sorted, answer};
use crate::resp::write::Reply;
use crate::store::argument::{integer, is};
use crate::store::fail::Fail;
use crate::store::keyspace::NEVER;
use crate::store::run::{Answer, Run, count};

/// What the words of the range mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Place,
    Score,
    Bytes,
}

/// What a command brings along; `None`: the options may say.
#[derive(Clone, Copy)]
struct Form {
    by: Option<By>,
    reverse: Option<bool>,
    stores: bool,
}

/// A range with its options.
struct Query<'a> {
    span: Span<'a>,
    reverse: bool,
    offset: i64,
    limit: i64,
    with_scores: bool,
}

impl<'a> Query<'a> {
    /// `words` begin behind the key.
    fn parse(form: Form, words: &[&'a [u8]]) -> Result<Self, Fail> {
        let (mut by, mut reverse) = (form.by, form.reverse);
        let (mut offset, mut limit, mut with_scores) = (0, -1, false);
        let mut rest = &words[2..];
        while let Some((word, after)) = rest.split_first() {
            rest = after;
            match (word, after) {
                _ if is(word, "WITHSCORES") && !form.stores => with_scores = true,
                (_, [first, second, after @ ..]) if is(word, "LIMIT") => {
                    (offset, limit) = (integer(first)?, integer(second)?);
                    rest = after;
                }
                _ if is(word, "REV") && reverse.is_none() => reverse = Some(true),
                _ if is(word, "BYLEX") && by.is_none() => by = Some(By::Bytes),
                _ if is(word, "BYSCORE") && by.is_none() => by = Some(By::Score),
                _ => return Err(Fail::Syntax),
            }
        }
        let (by, reverse) = (by.unwrap_or(By::Place), reverse.unwrap_or(false));
        if limit != -1 && by == By::Place {
            return Err(Fail::Other(
                "syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Bytes {
            return Err(Fail::Other(
                "syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let (min, max) = if reverse && by != By::Place {
            (words[1], words[0])
        } else {
            (words[0], words[1])
        };
        Ok(Self {
            span: span(by, min, max)?,
            reverse,
            offset,
            limit,
            with_scores,
        })
    }

    /// The places that are meant, from the lowest.
    fn of(&self, set: &Sorted) -> Range<usize> {
        let all = self.span.of(set, self.reverse);
        if matches!(self.span, Span::Places(..)) {
            return all;
        }
        let Ok(skip) = usize::try_from(self.offset) else {
            return 0..0;
        };
        let skip = skip.min(all.len());
        let most = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let take = most.min(all.len() - skip);
        if self.reverse {
            all.end - skip - take..all.end - skip
        } else {
            all.start + skip..all.start + skip + take
        }
    }
}

fn span<'a>(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Span<'a>, Fail> {
    match by {
        By::Place => Span::places(min, max),
        By::Score => Span::scores(min, max),
        By::Bytes => Span::bytes(min, max),
    }
}

fn read(
    run: &mut Run<'_>,
    args: &[&[u8]],
    by: Option<By>,
    reverse: Option<bool>,
    reply: &mut Reply<'_>,
) -> Answer {
    let form = Form {
        by,
        reverse,
        stores: false,
    };
    let query = Query::parse(form, &args[2..])?;
    let Some(set) = run.read::<Sorted>(args[1])? else {
        reply.array(0);
        return Ok(());
    };
    let places = query.of(set);
    let len = places.len();
    let members = set.order().range(places);
    if query.reverse {
        answer(members.rev(), len, query.with_scores, reply);
    } else {
        answer(members, len, query.with_scores, reply);
    }
    Ok(())
}

pub(in crate::store) fn zrange(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    read(run, args, None, None, reply)
}

pub(in crate::store) fn zrevrange(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    read(run, args, Some(By::Place), Some(true), reply)
}

pub(in crate::store) fn zrangebyscore(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    read(run, args, Some(By::Score), Some(false), reply)
}

pub(in crate::store) fn zrevrangebyscore(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    read(run, args, Some(By::Score), Some(true), reply)
}

pub(in crate::store) fn zrangebylex(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    read(run, args, Some(By::Bytes), Some(false), reply)
}

pub(in crate::store) fn zrevrangebylex(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    read(run, args, Some(By::Bytes), Some(true), reply)
}

pub(in crate::store) fn zrangestore(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    let form = Form {
        by: None,
        reverse: None,
        stores: true,
    };
    let query = Query::parse(form, &args[3..])?;
    let found: Sorted = match run.read::<Sorted>(args[2])? {
        Some(set) => set
            .order()
            .range(query.of(set))
            .map(|(member, score)| (member.into(), score))
            .collect(),
        None => Sorted::default(),
    };
    store(run, args[1], found, reply)
}

/// Sets a key to a result and answers its size; nothing is no key.
pub(super) fn store(run: &mut Run<'_>, key: &[u8], found: Sorted, reply: &mut Reply<'_>) -> Answer {
    let len = found.len();
    if len == 0 {
        run.take(key);
    } else {
        run.put(key, found.into(), NEVER)?;
    }
    reply.integer(count(len));
    Ok(())
}

pub(in crate::store) fn zcount(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    tally(run, args, By::Score, reply)
}

pub(in crate::store) fn zlexcount(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    tally(run, args, By::Bytes, reply)
}

fn tally(run: &mut Run<'_>, args: &[&[u8]], by: By, reply: &mut Reply<'_>) -> Answer {
    let span = span(by, args[2], args[3])?;
    let found = run
        .read::<Sorted>(args[1])?
        .map_or(0, |set| span.of(set, false).len());
    reply.integer(count(found));
    Ok(())
}

pub(in crate::store) fn zremrangebyrank(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    remove(run, args, By::Place, reply)
}

pub(in crate::store) fn zremrangebyscore(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    remove(run, args, By::Score, reply)
}

pub(in crate::store) fn zremrangebylex(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    remove(run, args, By::Bytes, reply)
}

fn remove(run: &mut Run<'_>, args: &[&[u8]], by: By, reply: &mut Reply<'_>) -> Answer {
    let span = span(by, args[2], args[3])?;
    let gone = run.edit(args[1], |set: &mut Sorted| {
        let places = span.of(set, false);
        let gone: Vec<Box<[u8]>> = set
            .order()
            .range(places)
            .map(|(member, _)| member.into())
            .collect();
        gone.iter().filter(|member| set.remove(member)).count()
    })?;
    let gone = gone.unwrap_or(0);
    run.wrote = gone > 0;
    reply.integer(count(gone));
    Ok(())
}
