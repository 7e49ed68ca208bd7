//! `ZUNION`, `ZINTER`, `ZDIFF` and their `STORE` forms, over sorted sets and plain sets.
//!
//! Sources are combined from the smallest to the largest, as Redis does: sums of doubles depend
//! on the order.

use super::range::store;
use super::{Sorted, answer, kept, score};
use crate::resp::write::Reply;
use crate::store::argument::{integer, is, positive};
use crate::store::fail::Fail;
use crate::store::run::{Answer, Run, count};
use crate::store::table::Table;
use crate::store::value::{Set, Value};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, one: f64, other: f64) -> f64 {
        match self {
            Self::Sum => zero_if_nan(one + other),
            Self::Min => {
                if other < one {
                    other
                } else {
                    one
                }
            }
            Self::Max => {
                if other > one {
                    other
                } else {
                    one
                }
            }
        }
    }
}

/// Infinity minus infinity, or zero times infinity, counts as nothing.
fn zero_if_nan(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// A result, in no order.
type Members = Vec<(Box<[u8]>, f64)>;

/// A key that takes part: the members of a plain set have score 1.
enum Source<'a> {
    Plain(&'a Set),
    Sorted(&'a Sorted),
}

impl Source<'_> {
    fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            Self::Plain(set) => set.members().contains(member).then_some(1.0),
            Self::Sorted(set) => set.scores().get(member).copied(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Plain(set) => set.members().len(),
            Self::Sorted(set) => set.len(),
        }
    }

    fn each(&self, mut take: impl FnMut(&[u8], f64)) {
        match self {
            Self::Plain(set) => set
                .members()
                .iter()
                .for_each(|(member, ())| take(member, 1.0)),
            Self::Sorted(set) => set
                .scores()
                .iter()
                .for_each(|(member, score)| take(member, *score)),
        }
    }
}

fn source<'a>(run: &'a mut Run<'_>, key: &[u8]) -> Result<Option<Source<'a>>, Fail> {
    match run.object(key).map(|object| &object.value) {
        None => Ok(None),
        Some(Value::Set(set)) => Ok(Some(Source::Plain(set))),
        Some(Value::Sorted(set)) => Ok(Some(Source::Sorted(set))),
        Some(_) => Err(Fail::WrongType),
    }
}

fn size(run: &mut Run<'_>, key: &[u8]) -> Result<usize, Fail> {
    Ok(source(run, key)?.map_or(0, |source| source.len()))
}

/// What is asked: keys with their weights, and options.
struct Query<'a> {
    operation: Operation,
    keys: Vec<(&'a [u8], f64)>,
    aggregate: Aggregate,
    with_scores: bool,
}

impl<'a> Query<'a> {
    /// `words` begin with the number of keys.
    fn parse(
        run: &mut Run<'_>,
        operation: Operation,
        words: &[&'a [u8]],
        stores: bool,
    ) -> Result<Self, Fail> {
        let (keys, mut rest) = source_keys(run, words)?;
        let mut found = Self {
            operation,
            keys: keys.iter().map(|key| (*key, 1.0)).collect(),
            aggregate: Aggregate::Sum,
            with_scores: false,
        };
        let combines = operation != Operation::Difference;
        while let Some((word, after)) = rest.split_first() {
            if is(word, "WEIGHTS") && combines && after.len() >= keys.len() {
                let (weights, after) = after.split_at(keys.len());
                for (key, weight) in found.keys.iter_mut().zip(weights) {
                    key.1 = score::parse(weight)
                        .map_err(|_| Fail::Other("weight value is not a float"))?;
                }
                rest = after;
            } else if is(word, "AGGREGATE") && combines && !after.is_empty() {
                found.aggregate = match after[0] {
                    how if is(how, "SUM") => Aggregate::Sum,
                    how if is(how, "MIN") => Aggregate::Min,
                    how if is(how, "MAX") => Aggregate::Max,
                    _ => return Err(Fail::Syntax),
                };
                rest = &after[1..];
            } else if is(word, "WITHSCORES") && !stores {
                found.with_scores = true;
                rest = after;
            } else {
                return Err(Fail::Syntax);
            }
        }
        Ok(found)
    }

    fn answer(mut self, run: &mut Run<'_>) -> Result<Members, Fail> {
        if self.operation != Operation::Difference {
            let mut sized = Vec::new();
            for (key, weight) in self.keys {
                sized.push((size(run, key)?, key, weight));
            }
            sized.sort_by_key(|(len, ..)| *len);
            self.keys = sized
                .into_iter()
                .map(|(_, key, weight)| (key, weight))
                .collect();
        }
        match self.operation {
            Operation::Union => self.union(run),
            Operation::Intersection => self.intersection(run),
            Operation::Difference => self.difference(run),
        }
    }

    fn union(&self, run: &mut Run<'_>) -> Result<Members, Fail> {
        let mut found: Table<f64> = Table::default();
        for (key, weight) in &self.keys {
            let Some(source) = source(run, key)? else {
                continue;
            };
            source.each(|member, score| {
                let score = zero_if_nan(weight * score);
                let score = match found.get(member) {
                    Some(before) => self.aggregate.of(*before, score),
                    None => score,
                };
                found.insert(member, score);
            });
        }
        Ok(found
            .iter()
            .map(|(member, score)| (member.into(), *score))
            .collect())
    }

    fn intersection(&self, run: &mut Run<'_>) -> Result<Members, Fail> {
        let mut found = first(run, self.keys[0])?;
        for (key, weight) in &self.keys[1..] {
            let Some(source) = source(run, key)? else {
                return Ok(Members::new());
            };
            found.retain_mut(|(member, score)| match source.score(member) {
                Some(other) => {
                    *score = self.aggregate.of(*score, zero_if_nan(weight * other));
                    true
                }
                None => false,
            });
        }
        Ok(found)
    }

    fn difference(&self, run: &mut Run<'_>) -> Result<Members, Fail> {
        let mut found = first(run, self.keys[0])?;
        for (key, _) in &self.keys[1..] {
            if let Some(source) = source(run, key)? {
                found.retain(|(member, _)| source.score(member).is_none());
            }
        }
        Ok(found)
    }
}

/// A copy of the first source: two keys cannot be borrowed from the keyspace at the same time.
fn first(run: &mut Run<'_>, (key, weight): (&[u8], f64)) -> Result<Members, Fail> {
    let mut found = Vec::new();
    if let Some(source) = source(run, key)? {
        source.each(|member, score| found.push((member.into(), zero_if_nan(weight * score))));
    }
    Ok(found)
}

/// Words of a command.
type Words<'a, 'b> = &'a [&'b [u8]];

/// Splits the keys off, and checks what they hold before the options are read.
fn source_keys<'a, 'b>(
    run: &mut Run<'_>,
    words: Words<'a, 'b>,
) -> Result<(Words<'a, 'b>, Words<'a, 'b>), Fail> {
    let number = integer(words[0])?;
    if number < 1 {
        return Err(Fail::NoInputKeys(run.command));
    }
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    if number > words.len() - 1 {
        return Err(Fail::Syntax);
    }
    let (keys, rest) = words[1..].split_at(number);
    for key in keys {
        size(run, key)?;
    }
    Ok((keys, rest))
}

fn read(run: &mut Run<'_>, operation: Operation, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let query = Query::parse(run, operation, &args[1..], false)?;
    let with_scores = query.with_scores;
    let found: Sorted = query.answer(run)?.into_iter().collect();
    answer(
        found.order().range(0..found.len()),
        found.len(),
        with_scores,
        reply,
    );
    Ok(())
}

fn write(run: &mut Run<'_>, operation: Operation, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let found = Query::parse(run, operation, &args[2..], true)?.answer(run)?;
    let found = found
        .into_iter()
        .map(|(member, score)| (member, kept(score)));
    store(run, args[1], found.collect(), reply)
}

pub(in crate::store) fn zunion(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    read(run, Operation::Union, args, reply)
}

pub(in crate::store) fn zinter(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    read(run, Operation::Intersection, args, reply)
}

pub(in crate::store) fn zdiff(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    read(run, Operation::Difference, args, reply)
}

pub(in crate::store) fn zunionstore(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    write(run, Operation::Union, args, reply)
}

pub(in crate::store) fn zinterstore(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    write(run, Operation::Intersection, args, reply)
}

pub(in crate::store) fn zdiffstore(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    write(run, Operation::Difference, args, reply)
}

pub(in crate::store) fn zintercard(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    let (keys, mut options) = source_keys(run, &args[1..])?;
    let mut limit = 0;
    while let Some((option, rest)) = options.split_first() {
        let [value, rest @ ..] = rest else {
            return Err(Fail::Syntax);
        };
        if !is(option, "LIMIT") {
            return Err(Fail::Syntax);
        }
        limit = positive(value).map_err(|_| Fail::Other("LIMIT can't be negative"))?;
        options = rest;
    }
    let query = Query {
        operation: Operation::Intersection,
        keys: keys.iter().map(|key| (*key, 1.0)).collect(),
        aggregate: Aggregate::Sum,
        with_scores: false,
    };
    let found = query.answer(run)?.len();
    let most = if limit == 0 { found } else { limit };
    reply.integer(count(found.min(most)));
    Ok(())
}
