//! Commands that take members from an end of a sorted set.

use super::{Sorted, answer, score};
use crate::resp::{Proto, write::Reply};
use crate::store::argument::positive;
use crate::store::fail::Fail;
use crate::store::run::{Answer, Run};
use crate::store::value::End;

pub(in crate::store) fn zpopmin(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    pop(run, args, End::Left, reply)
}

pub(in crate::store) fn zpopmax(
    run: &mut Run<'_>,
    args: &[&[u8]],
    reply: &mut Reply<'_>,
) -> Answer {
    pop(run, args, End::Right, reply)
}

/// Takes up to `most` members from an end, the outermost first.
fn take(set: &mut Sorted, end: End, most: usize) -> Vec<(Box<[u8]>, f64)> {
    let wanted = most.min(set.len());
    let own = |(member, score): (&[u8], f64)| (Box::from(member), score);
    let taken: Vec<(Box<[u8]>, f64)> = match end {
        End::Left => set.order().range(0..wanted).map(own).collect(),
        End::Right => {
            let from = set.len() - wanted;
            set.order().range(from..set.len()).rev().map(own).collect()
        }
    };
    for (member, _) in &taken {
        set.remove(member);
    }
    taken
}

/// Takes one member and answers with its key too; whether there was one.
pub(in crate::store) fn first(
    run: &mut Run<'_>,
    key: &[u8],
    end: End,
    reply: &mut Reply<'_>,
) -> Result<bool, Fail> {
    let taken = run.edit(key, |set: &mut Sorted| take(set, end, 1))?;
    let Some((member, score)) = taken.and_then(|taken| taken.into_iter().next()) else {
        return Ok(false);
    };
    run.wrote = true;
    reply.array(3);
    reply.bulk(key);
    reply.bulk(&member);
    score::write(score, reply);
    Ok(true)
}

fn pop(run: &mut Run<'_>, args: &[&[u8]], end: End, reply: &mut Reply<'_>) -> Answer {
    let wanted = match args {
        [_, _] => None,
        [_, _, count] => Some(positive(count)?),
        _ => return Err(Fail::Syntax),
    };
    let taken = run
        .edit(args[1], |set: &mut Sorted| {
            take(set, end, wanted.unwrap_or(1))
        })?
        .unwrap_or_default();
    run.wrote = !taken.is_empty();
    // One member without a count is a flat pair, also in RESP3.
    if wanted.is_none() && reply.proto == Proto::Resp3 {
        reply.array(taken.len() * 2);
        for (member, score) in &taken {
            reply.bulk(member);
            score::write(*score, reply);
        }
        return Ok(());
    }
    let members = taken.iter().map(|(member, score)| (&**member, *score));
    answer(members, taken.len(), true, reply);
    Ok(())
}
