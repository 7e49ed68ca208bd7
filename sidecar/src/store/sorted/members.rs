//! Commands about single members of sorted sets.

use super::score;
use super::{Sorted, answer, kept, weight};
use crate::resp::write::Reply;
use crate::store::argument::is;
use crate::store::fail::Fail;
use crate::store::run::{Answer, Run, count};
use crate::store::sets::{choose, random_count};
use crate::store::value::{CONTAINER_OVERHEAD, KEY_OVERHEAD};

/// The options of `ZADD`.
#[derive(Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent words")]
struct Options {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
    ch: bool,
    incr: bool,
}

impl Options {
    /// Reads the words before the first score; answers what is left.
    fn parse<'a, 'b>(&mut self, mut rest: &'a [&'b [u8]]) -> &'a [&'b [u8]] {
        while let Some((word, after)) = rest.split_first() {
            match word {
                _ if is(word, "NX") => self.nx = true,
                _ if is(word, "XX") => self.xx = true,
                _ if is(word, "GT") => self.gt = true,
                _ if is(word, "LT") => self.lt = true,
                _ if is(word, "CH") => self.ch = true,
                _ if is(word, "INCR") => self.incr = true,
                _ => break,
            }
            rest = after;
        }
        rest
    }

    fn check(self, pairs: usize) -> Answer {
        if self.nx && self.xx {
            return Err(Fail::Other(
                "XX and NX options at the same time are not compatible",
            ));
        }
        if self.nx && (self.gt || self.lt) || self.gt && self.lt {
            return Err(Fail::Other(
                "GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if self.incr && pairs > 1 {
            return Err(Fail::Other(
                "INCR option supports a single increment-element pair",
            ));
        }
        Ok(())
    }

    /// What becomes of one member.
    fn apply(self, set: &mut Sorted, member: &[u8], score: f64) -> Result<Effect, Fail> {
        let Some(before) = set.scores().get(member).copied() else {
            if self.xx {
                return Ok(Effect::Nothing);
            }
            set.set(member, kept(score));
            return Ok(Effect::Added(score));
        };
        if self.nx {
            return Ok(Effect::Nothing);
        }
        let after = if self.incr { before + score } else { score };
        if after.is_nan() {
            return Err(Fail::Other("resulting score is not a number (NaN)"));
        }
        if self.lt && after >= before || self.gt && after <= before {
            return Ok(Effect::Nothing);
        }
        // Told apart as Redis does: the other zero is no change.
        #[allow(clippy::float_cmp, reason = "any other score is a change")]
        if after == before {
            return Ok(Effect::Same(after));
        }
        set.set(member, kept(after));
        Ok(Effect::Changed(after))
    }
}

enum Effect {
    /// An option kept the member as it was, or away.
    Nothing,
    Added(f64),
    Changed(f64),
    Same(f64),
}

pub(in crate::store) fn zadd(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    add(run, args, Options::default(), reply)
}

pub(in crate::store) fn zincrby(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    let options = Options {
        incr: true,
        ..Options::default()
    };
    add(run, args, options, reply)
}

fn add(run: &mut Run<'_>, args: &[&[u8]], mut options: Options, reply: &mut Reply<'_>) -> Answer {
    let words = options.parse(&args[2..]);
    if words.is_empty() || !words.len().is_multiple_of(2) {
        return Err(Fail::Syntax);
    }
    options.check(words.len() / 2)?;
    let scores: Vec<f64> = words
        .chunks_exact(2)
        .map(|pair| score::parse(pair[0]))
        .collect::<Result<_, _>>()?;
    let key = args[1];
    let missing = run.read::<Sorted>(key)?.is_none();
    let (mut added, mut changed, mut last) = (0, 0, None);
    if !(missing && options.xx) {
        let members: usize = words.chunks_exact(2).map(|pair| weight(pair[1])).sum();
        run.reserve(
            KEY_OVERHEAD + key.len() + CONTAINER_OVERHEAD + members,
            &[key],
        )?;
        let effects = run.edit_or_create(key, |set: &mut Sorted| {
            words
                .chunks_exact(2)
                .zip(&scores)
                .map(|(pair, score)| options.apply(set, pair[1], *score))
                .collect::<Result<Vec<Effect>, Fail>>()
        })??;
        for effect in effects {
            match effect {
                Effect::Nothing => {}
                Effect::Added(score) => (added, last) = (added + 1, Some(score)),
                Effect::Changed(score) => (changed, last) = (changed + 1, Some(score)),
                Effect::Same(score) => last = Some(score),
            }
        }
    }
    run.wrote = added + changed > 0;
    if added > 0 {
        run.ready.push((run.call.db, key.into()));
    }
    match (options.incr, last) {
        (true, Some(score)) => score::write(score, reply),
        (true, None) => reply.null(),
        (false, _) if options.ch => reply.integer(added + changed),
        (false, _) => reply.integer(added),
    }
    Ok(())
}

pub(in crate::store) fn zrem(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let gone = run.edit(args[1], |set: &mut Sorted| {
        args[2..].iter().filter(|member| set.remove(member)).count()
    })?;
    let gone = gone.unwrap_or(0);
    run.wrote = gone > 0;
    reply.integer(count(gone));
    Ok(())
}

pub(in crate::store) fn zcard(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let len = run.read::<Sorted>(args[1])?.map_or(0, Sorted::len);
    reply.integer(count(len));
    Ok(())
}

pub(in crate::store) fn zscore(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let set = run.read::<Sorted>(args[1])?;
    answer_score(set.and_then(|set| set.scores().get(args[2])), reply);
    Ok(())
}

pub(in crate::store) fn zmscore(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    let set = run.read::<Sorted>(args[1])?;
    reply.array(args.len() - 2);
    for member in &args[2..] {
        answer_score(set.and_then(|set| set.scores().get(member)), reply);
    }
    Ok(())
}

fn answer_score(score: Option<&f64>, reply: &mut Reply<'_>) {
    match score {
        Some(score) => score::write(*score, reply),
        None => reply.null(),
    }
}

pub(in crate::store) fn zrank(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    rank(run, args, false, reply)
}

pub(in crate::store) fn zrevrank(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    rank(run, args, true, reply)
}

/// With the score too, as since redis 7.2.
fn rank(run: &mut Run<'_>, args: &[&[u8]], reverse: bool, reply: &mut Reply<'_>) -> Answer {
    let with_score = match args {
        [_, _, _] => false,
        [_, _, _, option] if is(option, "WITHSCORE") => true,
        [_, _, _, _] => return Err(Fail::Syntax),
        _ => return Err(Fail::Arity(run.command)),
    };
    let found = run.read::<Sorted>(args[1])?.and_then(|set| {
        let rank = set.rank(args[2])?;
        let rank = if reverse { set.len() - 1 - rank } else { rank };
        Some((rank, *set.scores().get(args[2])?))
    });
    match found {
        Some((rank, score)) if with_score => {
            reply.array(2);
            reply.integer(count(rank));
            score::write(score, reply);
        }
        Some((rank, _)) => reply.integer(count(rank)),
        None if with_score => reply.null_array(),
        None => reply.null(),
    }
    Ok(())
}

pub(in crate::store) fn zrandmember(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    let (wanted, with_scores) = match args {
        [_, _] => (None, false),
        [_, _, count] => (Some(random_count(count)?), false),
        [_, _, count, option] if is(option, "WITHSCORES") => (Some(random_count(count)?), true),
        [_, _, count, ..] => {
            random_count(count)?;
            return Err(Fail::Syntax);
        }
        _ => return Err(Fail::Syntax),
    };
    if with_scores && wanted.is_some_and(|count| count.unsigned_abs() > i64::MAX as u64 / 2) {
        return Err(Fail::OutOfRange);
    }
    let len = run.read::<Sorted>(args[1])?.map_or(0, Sorted::len);
    let chosen = choose(wanted.unwrap_or(1), len, &mut run.random)?;
    let set = run.read::<Sorted>(args[1])?;
    let members = chosen
        .iter()
        .filter_map(|at| set.map(|set| set.scores().at(*at)))
        .map(|(member, score)| (member, *score));
    if wanted.is_some() {
        answer(members, chosen.len(), with_scores, reply);
        return Ok(());
    }
    match members.into_iter().next() {
        Some((member, _)) => reply.bulk(member),
        None => reply.null(),
    }
    Ok(())
}
