//! `SCAN` and its relatives, and `KEYS`.
//!
//! A cursor is the number of positions still to visit, walking down. Entries only ever move down
//! (see `table`), so what is there for the whole scan is returned at least once.

use super::argument::{integer, is};
use super::fail::Fail;
use super::run::{Answer, Run};
use super::sorted::{Sorted, score_text};
use super::table::Table;
use super::value::{Hash, Set};
use crate::resp::write::Reply;
use policy::glob::glob_match;

struct Options<'a> {
    count: usize,
    pattern: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a [u8]], keyspace: bool) -> Result<Self, Fail> {
        let mut found = Self {
            count: 10,
            pattern: None,
            kind: None,
        };
        let mut rest = args.iter();
        while let Some(option) = rest.next() {
            let value = rest.next().ok_or(Fail::Syntax)?;
            if is(option, "COUNT") {
                let count = integer(value)?;
                found.count = usize::try_from(count)
                    .ok()
                    .filter(|count| *count > 0)
                    .ok_or(Fail::Syntax)?;
            } else if is(option, "MATCH") {
                found.pattern = Some(value);
            } else if is(option, "TYPE") && keyspace {
                found.kind = Some(value);
            } else {
                return Err(Fail::Syntax);
            }
        }
        Ok(found)
    }

    fn accepts(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob_match(pattern, name))
    }
}

/// Nothing at all is a cursor of 0 for redis-server.
fn cursor(arg: &[u8]) -> Result<usize, Fail> {
    if arg.is_empty() {
        return Ok(0);
    }
    let text = std::str::from_utf8(arg).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or(Fail::Other("invalid cursor"))
}

/// The positions to visit now, highest first, and the cursor after them.
fn page<V>(
    table: &Table<V>,
    cursor: usize,
    count: usize,
) -> (impl Iterator<Item = usize> + use<V>, usize) {
    let from = if cursor == 0 {
        table.len()
    } else {
        cursor.min(table.len())
    };
    let to = from.saturating_sub(count);
    ((to..from).rev(), to)
}

fn begin(reply: &mut Reply<'_>, next: usize, elements: usize) {
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    reply.array(elements);
}

pub(super) fn scan(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let cursor = cursor(args[1])?;
    let options = Options::parse(&args[2..], true)?;
    let Some(database) = run.keys.databases.get(&run.call.db) else {
        begin(reply, 0, 0);
        return Ok(());
    };
    let (positions, next) = page(&database.table, cursor, options.count);
    let found: Vec<&[u8]> = positions
        .map(|at| database.table.at(at))
        .filter(|(_, object)| object.deadline > run.now)
        .filter(|(_, object)| {
            options
                .kind
                .is_none_or(|kind| is(kind, object.value.type_name()))
        })
        .map(|(key, _)| key)
        .filter(|key| options.accepts(key))
        .collect();
    begin(reply, next, found.len());
    for key in found {
        reply.bulk(key);
    }
    Ok(())
}

pub(super) fn hscan(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let cursor = cursor(args[2])?;
    let Some(hash) = run.read::<Hash>(args[1])? else {
        begin(reply, 0, 0);
        return Ok(());
    };
    let options = Options::parse(&args[3..], false)?;
    let (positions, next) = page(hash.fields(), cursor, options.count);
    let found: Vec<_> = positions
        .map(|at| hash.fields().at(at))
        .filter(|(field, _)| options.accepts(field))
        .collect();
    begin(reply, next, found.len() * 2);
    for (field, value) in found {
        reply.bulk(field);
        reply.bulk(value);
    }
    Ok(())
}

pub(super) fn sscan(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let cursor = cursor(args[2])?;
    let Some(set) = run.read::<Set>(args[1])? else {
        begin(reply, 0, 0);
        return Ok(());
    };
    let options = Options::parse(&args[3..], false)?;
    let (positions, next) = page(set.members(), cursor, options.count);
    let found: Vec<_> = positions
        .map(|at| set.members().at(at).0)
        .filter(|member| options.accepts(member))
        .collect();
    begin(reply, next, found.len());
    for member in found {
        reply.bulk(member);
    }
    Ok(())
}

pub(super) fn zscan(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let cursor = cursor(args[2])?;
    let Some(set) = run.read::<Sorted>(args[1])? else {
        begin(reply, 0, 0);
        return Ok(());
    };
    let options = Options::parse(&args[3..], false)?;
    let (positions, next) = page(set.scores(), cursor, options.count);
    let found: Vec<_> = positions
        .map(|at| set.scores().at(at))
        .filter(|(member, _)| options.accepts(member))
        .collect();
    begin(reply, next, found.len() * 2);
    for (member, score) in found {
        reply.bulk(member);
        reply.bulk(score_text(*score).as_bytes());
    }
    Ok(())
}

pub(super) fn keys(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let Some(database) = run.keys.databases.get(&run.call.db) else {
        reply.array(0);
        return Ok(());
    };
    let living = database
        .table
        .iter()
        .filter(|(_, object)| object.deadline > run.now);
    let found: Vec<&[u8]> = living
        .map(|(key, _)| key)
        .filter(|key| glob_match(args[1], key))
        .collect();
    reply.array(found.len());
    for key in found {
        reply.bulk(key);
    }
    Ok(())
}
