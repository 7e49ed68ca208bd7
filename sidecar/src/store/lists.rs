//! Lists. Blocking pops are the caller's: it asks again when a list is reported as ready.

use super::argument::{integer, is, positive, range};
use super::fail::Fail;
use super::run::{Answer, Run, count};
use super::value::{CONTAINER_OVERHEAD, End, ITEM_OVERHEAD, KEY_OVERHEAD, List};
use crate::resp::write::Reply;

pub(super) fn lpush(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    push(run, args, End::Left, reply)
}

pub(super) fn rpush(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    push(run, args, End::Right, reply)
}

pub(super) fn lpushx(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    push_if_exists(run, args, End::Left, reply)
}

pub(super) fn rpushx(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    push_if_exists(run, args, End::Right, reply)
}

fn push(run: &mut Run<'_>, args: &[&[u8]], end: End, reply: &mut Reply<'_>) -> Answer {
    let len = run.edit_or_create(args[1], |list: &mut List| {
        for item in &args[2..] {
            list.push(end, item);
        }
        list.items().len()
    })?;
    run.wrote = true;
    run.ready.push((run.call.db, args[1].into()));
    reply.integer(count(len));
    Ok(())
}

fn push_if_exists(run: &mut Run<'_>, args: &[&[u8]], end: End, reply: &mut Reply<'_>) -> Answer {
    if run.read::<List>(args[1])?.is_some() {
        return push(run, args, end, reply);
    }
    reply.integer(0);
    Ok(())
}

pub(super) fn lpop(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    pop(run, args, End::Left, reply)
}

pub(super) fn rpop(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    pop(run, args, End::Right, reply)
}

fn pop(run: &mut Run<'_>, args: &[&[u8]], end: End, reply: &mut Reply<'_>) -> Answer {
    let count = match args {
        [_, _] => None,
        [_, _, count] => Some(positive(count)?),
        _ => return Err(Fail::Arity(run.command)),
    };
    let Some(popped) = run.edit(args[1], |list: &mut List| {
        let wanted = count.unwrap_or(1).min(list.items().len());
        (0..wanted)
            .filter_map(|_| list.pop(end))
            .collect::<Vec<_>>()
    })?
    else {
        match count {
            Some(_) => reply.null_array(),
            None => reply.null(),
        }
        return Ok(());
    };
    run.wrote = !popped.is_empty();
    if count.is_some() {
        reply.array(popped.len());
    }
    for item in &popped {
        reply.bulk(item);
    }
    Ok(())
}

pub(super) fn llen(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let len = run
        .read::<List>(args[1])?
        .map_or(0, |list| list.items().len());
    reply.integer(count(len));
    Ok(())
}

pub(super) fn lrange(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let (start, stop) = (integer(args[2])?, integer(args[3])?);
    let Some(list) = run.read::<List>(args[1])? else {
        reply.array(0);
        return Ok(());
    };
    let range = range(start, stop, list.items().len());
    reply.array(range.len());
    for item in list.items().range(range) {
        reply.bulk(item);
    }
    Ok(())
}

fn position(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 {
        index.checked_add(i64::try_from(len).ok()?)?
    } else {
        index
    };
    usize::try_from(index).ok().filter(|at| *at < len)
}

pub(super) fn lindex(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let Some(list) = run.read::<List>(args[1])? else {
        reply.null();
        return Ok(());
    };
    match position(integer(args[2])?, list.items().len()) {
        Some(at) => reply.bulk(&list.items()[at]),
        None => reply.null(),
    }
    Ok(())
}

pub(super) fn lset(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let len = run
        .read::<List>(args[1])?
        .ok_or(Fail::NoSuchKey)?
        .items()
        .len();
    let at = position(integer(args[2])?, len).ok_or(Fail::IndexOutOfRange)?;
    run.edit(args[1], |list: &mut List| list.replace(at, args[3]))?;
    run.wrote = true;
    reply.ok();
    Ok(())
}

pub(super) fn linsert(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let after = match args[2] {
        place if is(place, "AFTER") => 1,
        place if is(place, "BEFORE") => 0,
        _ => return Err(Fail::Syntax),
    };
    let len = run.edit(args[1], |list: &mut List| {
        let pivot = list.items().iter().position(|item| **item == *args[3])?;
        list.insert(pivot + after, args[4]);
        Some(count(list.items().len()))
    })?;
    run.wrote = matches!(len, Some(Some(_)));
    reply.integer(len.map_or(0, |found| found.unwrap_or(-1)));
    Ok(())
}

pub(super) fn lrem(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let wanted = integer(args[2])?;
    let most = if wanted == 0 {
        usize::MAX
    } else {
        usize::try_from(wanted.unsigned_abs()).unwrap_or(usize::MAX)
    };
    let gone = run.edit(args[1], |list: &mut List| {
        let all = list
            .items()
            .iter()
            .filter(|item| ***item == *args[3])
            .count();
        let remove = all.min(most);
        // Counted from the left; from the right end it is the last ones that go.
        let skip = if wanted < 0 { all - remove } else { 0 };
        let mut met = 0;
        list.retain(|_, item| {
            if *item != *args[3] {
                return true;
            }
            met += 1;
            met <= skip || met > skip + remove
        });
        remove
    })?;
    let gone = gone.unwrap_or(0);
    run.wrote = gone > 0;
    reply.integer(count(gone));
    Ok(())
}

pub(super) fn ltrim(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let (start, stop) = (integer(args[2])?, integer(args[3])?);
    let found = run.edit(args[1], |list: &mut List| {
        let keep = range(start, stop, list.items().len());
        list.retain(|at, _| keep.contains(&at));
    })?;
    run.wrote = found.is_some();
    reply.ok();
    Ok(())
}

pub(super) fn rpoplpush(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    shift(run, (args[1], End::Right), (args[2], End::Left), reply)
}

pub(super) fn lmove(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let (from, to) = ends(args)?;
    shift(run, (args[1], from), (args[2], to), reply)
}

/// The ends that `LMOVE` and `BLMOVE` name.
pub(super) fn ends(args: &[&[u8]]) -> Result<(End, End), Fail> {
    let end = |arg: &[u8]| match arg {
        _ if is(arg, "LEFT") => Ok(End::Left),
        _ if is(arg, "RIGHT") => Ok(End::Right),
        _ => Err(Fail::Syntax),
    };
    Ok((end(args[3])?, end(args[4])?))
}

/// Moves an element from an end of one list to an end of another or the same.
fn shift(run: &mut Run<'_>, from: (&[u8], End), to: (&[u8], End), reply: &mut Reply<'_>) -> Answer {
    let Some(list) = run.read::<List>(from.0)? else {
        reply.null();
        return Ok(());
    };
    let item = match from.1 {
        End::Left => list.items().front(),
        End::Right => list.items().back(),
    };
    let item = item.cloned().expect("an empty list does not exist");
    run.read::<List>(to.0)?;
    run.reserve(
        KEY_OVERHEAD + to.0.len() + CONTAINER_OVERHEAD + ITEM_OVERHEAD + item.len(),
        &[from.0, to.0],
    )?;
    if from.0 == to.0 {
        // In one step, or a list of one element would be dropped with its deadline in between.
        run.edit(from.0, |list: &mut List| {
            list.pop(from.1);
            list.push(to.1, &item);
        })?;
    } else {
        run.edit(from.0, |list: &mut List| list.pop(from.1))?;
        run.edit_or_create(to.0, |list: &mut List| list.push(to.1, &item))?;
    }
    run.wrote = true;
    run.ready.push((run.call.db, to.0.into()));
    reply.bulk(&item);
    Ok(())
}

/// The options of `LPOS`.
struct Search {
    rank: i64,
    count: Option<usize>,
    longest: usize,
}

impl Search {
    fn parse(args: &[&[u8]]) -> Result<Self, Fail> {
        let mut found = Self {
            rank: 1,
            count: None,
            longest: 0,
        };
        for pair in args.chunks(2) {
            let [option, value] = pair else {
                return Err(Fail::Syntax);
            };
            if is(option, "RANK") {
                found.rank = integer(value)?;
                if found.rank == 0 {
                    return Err(Fail::Other(
                        "RANK can't be zero: use 1 to start from the first match, 2 from the second ... \
                         or use negative to start from the end of the list",
                    ));
                }
            } else if is(option, "COUNT") {
                found.count =
                    Some(positive(value).map_err(|_| Fail::Other("COUNT can't be negative"))?);
            } else if is(option, "MAXLEN") {
                found.longest =
                    positive(value).map_err(|_| Fail::Other("MAXLEN can't be negative"))?;
            } else {
                return Err(Fail::Syntax);
            }
        }
        Ok(found)
    }

    fn run(&self, list: &List, wanted: &[u8]) -> Vec<usize> {
        let len = list.items().len();
        let skip = usize::try_from(self.rank.unsigned_abs() - 1).unwrap_or(usize::MAX);
        let most = match self.count {
            Some(0) => usize::MAX,
            Some(count) => count,
            None => 1,
        };
        let depth = if self.longest == 0 {
            len
        } else {
            self.longest.min(len)
        };
        (0..depth)
            .map(|step| if self.rank < 0 { len - 1 - step } else { step })
            .filter(|at| *list.items()[*at] == *wanted)
            .skip(skip)
            .take(most)
            .collect()
    }
}

pub(super) fn lpos(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let search = Search::parse(&args[3..])?;
    let found = run
        .read::<List>(args[1])?
        .map(|list| search.run(list, args[2]))
        .unwrap_or_default();
    match (search.count, found.first()) {
        (Some(_), _) => {
            reply.array(found.len());
            for at in &found {
                reply.integer(count(*at));
            }
        }
        (None, Some(at)) => reply.integer(count(*at)),
        (None, None) => reply.null(),
    }
    Ok(())
}
