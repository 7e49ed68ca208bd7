//! Sets.

use super::argument::{integer, is, positive};
use super::fail::Fail;
use super::keyspace::NEVER;
use super::random::Random;
use super::run::{Answer, Run, count};
use super::value::{CONTAINER_OVERHEAD, KEY_OVERHEAD, MEMBER_OVERHEAD, Set, Value};
use crate::resp::write::Reply;

/// Negative counts may repeat members, so nothing but this bounds the reply.
const MAX_REPEATED: usize = 1 << 20;

pub(super) fn sadd(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let added = run.edit_or_create(args[1], |set: &mut Set| {
        args[2..].iter().filter(|member| set.add(member)).count()
    })?;
    run.wrote = added > 0;
    reply.integer(count(added));
    Ok(())
}

pub(super) fn srem(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let gone = run.edit(args[1], |set: &mut Set| {
        args[2..].iter().filter(|member| set.remove(member)).count()
    })?;
    let gone = gone.unwrap_or(0);
    run.wrote = gone > 0;
    reply.integer(count(gone));
    Ok(())
}

fn answer_set<'a>(members: impl ExactSizeIterator<Item = &'a [u8]>, reply: &mut Reply<'_>) {
    reply.set(members.len());
    for member in members {
        reply.bulk(member);
    }
}

pub(super) fn smembers(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    match run.read::<Set>(args[1])? {
        Some(set) => answer_set(set.members().iter().map(|(member, ())| member), reply),
        None => reply.set(0),
    }
    Ok(())
}

pub(super) fn sismember(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let found = run
        .read::<Set>(args[1])?
        .is_some_and(|set| set.members().contains(args[2]));
    reply.integer(i64::from(found));
    Ok(())
}

pub(super) fn smismember(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let set = run.read::<Set>(args[1])?;
    reply.array(args.len() - 2);
    for member in &args[2..] {
        reply.integer(i64::from(
            set.is_some_and(|set| set.members().contains(member)),
        ));
    }
    Ok(())
}

pub(super) fn scard(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let len = size(run, args[1])?;
    reply.integer(count(len));
    Ok(())
}

fn size(run: &mut Run<'_>, key: &[u8]) -> Result<usize, Fail> {
    Ok(run.read::<Set>(key)?.map_or(0, |set| set.members().len()))
}

pub(super) fn spop(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let count = match args {
        [_, _] => None,
        [_, _, count] => Some(positive(count)?),
        _ => return Err(Fail::Syntax),
    };
    let len = size(run, args[1])?;
    let mut taken = Vec::new();
    for left in (len.saturating_sub(count.unwrap_or(1))..len).rev() {
        let at = run.random.below(left + 1);
        taken.extend(run.edit(args[1], |set: &mut Set| set.remove_at(at))?);
    }
    run.wrote = !taken.is_empty();
    match count {
        Some(_) => answer_set(taken.iter().map(AsRef::as_ref), reply),
        None => match taken.first() {
            Some(member) => reply.bulk(member),
            None => reply.null(),
        },
    }
    Ok(())
}

pub(super) fn srandmember(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let count = match args {
        [_, _] => None,
        [_, _, count] => Some(random_count(count)?),
        _ => return Err(Fail::Syntax),
    };
    let len = size(run, args[1])?;
    let chosen = choose(count.unwrap_or(1), len, &mut run.random)?;
    if count.is_some() {
        reply.array(chosen.len());
    } else if chosen.is_empty() {
        reply.null();
    }
    if let Some(set) = run.read::<Set>(args[1])? {
        for at in chosen {
            reply.bulk(set.members().at(at).0);
        }
    }
    Ok(())
}

/// How many random elements are wanted; negative counts allow repetition.
pub(super) fn random_count(arg: &[u8]) -> Result<i64, Fail> {
    match integer(arg)? {
        i64::MIN => Err(Fail::NotSymmetric),
        count => Ok(count),
    }
}

/// Positions below `len`: distinct ones, or with a negative count so many with repetition.
pub(super) fn choose(count: i64, len: usize, random: &mut Random) -> Result<Vec<usize>, Fail> {
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if len == 0 {
        return Ok(Vec::new());
    }
    if count < 0 {
        if wanted > MAX_REPEATED {
            return Err(Fail::OutOfRange);
        }
        return Ok((0..wanted).map(|_| random.below(len)).collect());
    }
    // The first part of a Fisher-Yates shuffle.
    let mut positions: Vec<usize> = (0..len).collect();
    let wanted = wanted.min(len);
    if wanted < len {
        for at in 0..wanted {
            positions.swap(at, at + random.below(len - at));
        }
    }
    positions.truncate(wanted);
    Ok(positions)
}

pub(super) fn smove(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let (from, to, member) = (args[1], args[2], args[3]);
    let Some(set) = run.read::<Set>(from)? else {
        reply.integer(0);
        return Ok(());
    };
    let found = set.members().contains(member);
    run.read::<Set>(to)?;
    if found && from != to {
        run.reserve(
            KEY_OVERHEAD + to.len() + CONTAINER_OVERHEAD + MEMBER_OVERHEAD + member.len(),
            &[from, to],
        )?;
        run.edit(from, |set: &mut Set| set.remove(member))?;
        run.edit_or_create(to, |set: &mut Set| set.add(member))?;
        run.wrote = true;
    }
    reply.integer(i64::from(found));
    Ok(())
}

#[derive(Clone, Copy)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// Works on a copy of the first set, or the smallest for an intersection: sets of two keys cannot
/// be borrowed from the keyspace at the same time.
fn combine(run: &mut Run<'_>, operation: Operation, keys: &[&[u8]]) -> Result<Set, Fail> {
    let mut start = 0;
    let mut smallest = usize::MAX;
    for (at, key) in keys.iter().enumerate() {
        let len = size(run, key)?;
        if matches!(operation, Operation::Intersection) && len < smallest {
            (start, smallest) = (at, len);
        }
    }
    let mut result = run.read::<Set>(keys[start])?.cloned().unwrap_or_default();
    for (_, key) in keys.iter().enumerate().filter(|(at, _)| *at != start) {
        let other = run.read::<Set>(key)?;
        match (operation, other) {
            (Operation::Union, Some(other)) => {
                for (member, ()) in other.members().iter() {
                    result.add(member);
                }
            }
            (Operation::Difference, Some(other)) => {
                for (member, ()) in other.members().iter() {
                    result.remove(member);
                }
            }
            (Operation::Intersection, Some(other)) => {
                let gone: Vec<Box<[u8]>> = result
                    .members()
                    .iter()
                    .filter(|(member, ())| !other.members().contains(member))
                    .map(|(member, ())| member.into())
                    .collect();
                for member in gone {
                    result.remove(&member);
                }
            }
            (Operation::Intersection, None) => result = Set::default(),
            (Operation::Union | Operation::Difference, None) => {}
        }
    }
    Ok(result)
}

fn answer_combined(
    run: &mut Run<'_>,
    operation: Operation,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    let result = combine(run, operation, &args[1..])?;
    answer_set(result.members().iter().map(|(member, ())| member), reply);
    Ok(())
}

fn store_combined(
    run: &mut Run<'_>,
    operation: Operation,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    let result = combine(run, operation, &args[2..])?;
    let len = result.members().len();
    if len == 0 {
        run.take(args[1]);
    } else {
        run.put(args[1], Value::Set(Box::new(result)), NEVER)?;
    }
    reply.integer(count(len));
    Ok(())
}

pub(super) fn sunion(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    answer_combined(run, Operation::Union, args, reply)
}

pub(super) fn sinter(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    answer_combined(run, Operation::Intersection, args, reply)
}

pub(super) fn sdiff(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    answer_combined(run, Operation::Difference, args, reply)
}

pub(super) fn sunionstore(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    store_combined(run, Operation::Union, args, reply)
}

pub(super) fn sinterstore(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    store_combined(run, Operation::Intersection, args, reply)
}

pub(super) fn sdiffstore(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    store_combined(run, Operation::Difference, args, reply)
}

pub(super) fn sintercard(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let numkeys = integer(args[1])
        .ok()
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n > 0);
    let numkeys = numkeys.ok_or(Fail::Other("numkeys should be greater than 0"))?;
    if numkeys > args.len() - 2 {
        return Err(Fail::Other(
            "Number of keys can't be greater than number of args",
        ));
    }
    let (keys, mut options) = args[2..].split_at(numkeys);
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
    let found = combine(run, Operation::Intersection, keys)?.members().len();
    let most = if limit == 0 { found } else { limit };
    reply.integer(count(found.min(most)));
    Ok(())
}
