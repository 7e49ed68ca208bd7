//! Which arguments of a request are keys, and what is done with them.
//!
//! Follows the key specifications as Redis does (`getKeysUsingKeySpecs` in its `db.c`), except that
//! malformed requests are read leniently: the server refuses those as a whole, in its own words,
//! and until then every argument that it might take for a key counts as one. SORT and MIGRATE,
//! whose specifications are incomplete, have handlers here.

use super::CommandId;
use super::spec::{BeginSearch, CommandFlags, CommandSpec, FindKeys, KeyFlags, KeySpec};

/// What a command does with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// One key argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPosition {
    /// The argument, the command's name being 0.
    pub index: u32,
    pub access: Access,
    /// The flags of the specification that named it, as `COMMAND GETKEYSANDFLAGS` shows them.
    pub flags: KeyFlags,
}

/// The keys of one request; reuse it, it allocates only when it grows.
#[derive(Clone, Debug, Default)]
pub struct KeyPositions {
    keys: Vec<KeyPosition>,
    patterns: Vec<u32>,
}

/// The keys of this command cannot be told from its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeysUnknown;

impl KeyPositions {
    pub fn new() -> KeyPositions {
        KeyPositions::default()
    }

    /// The key arguments.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = KeyPosition> + '_ {
        self.keys.iter().copied()
    }

    pub fn as_slice(&self) -> &[KeyPosition] {
        &self.keys
    }

    /// Arguments from which the server makes key names (SORT's BY and GET).
    pub fn patterns(&self) -> &[u32] {
        &self.patterns
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn clear(&mut self) {
        self.keys.clear();
        self.patterns.clear();
    }

    fn push(&mut self, index: usize, flags: KeyFlags) {
        if let Ok(index) = u32::try_from(index) {
            let access = if flags.has(KeyFlags::RO) {
                Access::Read
            } else {
                Access::Write
            };
            self.keys.push(KeyPosition {
                index,
                access,
                flags,
            });
        }
    }
}

const READ: KeyFlags = KeyFlags::RO.with(KeyFlags::ACCESS);
const WRITE: KeyFlags = KeyFlags::RW.with(KeyFlags::ACCESS).with(KeyFlags::UPDATE);
const TAKEN: KeyFlags = KeyFlags::RW.with(KeyFlags::ACCESS).with(KeyFlags::DELETE);

/// Finds the keys of a request, in ascending order. `out` is cleared first; on an error it holds
/// the keys that were found.
pub fn keys(spec: &CommandSpec, args: &[&[u8]], out: &mut KeyPositions) -> Result<(), KeysUnknown> {
    out.clear();
    let complete = collect(spec, args, out);
    if !out.keys.is_sorted_by(|a, b| a.index < b.index) {
        // A write to the same argument counts for more than a read.
        out.keys
            .sort_by_key(|key| (key.index, key.access == Access::Read));
        out.keys.dedup_by_key(|key| key.index);
    }
    complete
}

fn collect(spec: &CommandSpec, args: &[&[u8]], out: &mut KeyPositions) -> Result<(), KeysUnknown> {
    match spec.id {
        CommandId::Sort | CommandId::SortRo => {
            sort(args, out);
            return Ok(());
        }
        CommandId::Migrate => {
            migrate(args, out);
            return Ok(());
        }
        // DEBUG's subcommands take keys that no specification names.
        CommandId::Debug => return Err(KeysUnknown),
        _ => {}
    }
    if spec.key_specs.is_empty() {
        return legacy(spec, args, out);
    }
    let mut complete = Ok(());
    for key_spec in &spec.key_specs {
        if key_spec.flags.has(KeyFlags::NOT_KEY) {
            continue;
        }
        let found = follow(key_spec, args, out);
        if !found || key_spec.flags.has(KeyFlags::INCOMPLETE) {
            complete = Err(KeysUnknown);
        }
    }
    complete
}

/// Servers and modules without key specifications: first key, last key, step.
fn legacy(spec: &CommandSpec, args: &[&[u8]], out: &mut KeyPositions) -> Result<(), KeysUnknown> {
    if spec.flags.has(CommandFlags::MOVABLEKEYS) {
        return Err(KeysUnknown);
    }
    let (first, last, step) = spec.legacy;
    if first > 0 {
        let flags = if spec.flags.has(CommandFlags::READONLY) {
            READ
        } else {
            WRITE
        };
        let end = if last < 0 {
            at(args, last)
        } else {
            i64::from(last)
        };
        run(i64::from(first), end, step, args, flags, out);
    }
    Ok(())
}

/// Adds the keys of one specification; false if it does not say where they are.
fn follow(spec: &KeySpec, args: &[&[u8]], out: &mut KeyPositions) -> bool {
    let first = match &spec.begin {
        BeginSearch::Index(index) => i64::from(*index),
        BeginSearch::Keyword { word, start } => match after_keyword(word, *start, args) {
            Some(first) => first,
            None => return true,
        },
        BeginSearch::Unknown => return false,
    };
    let flags = spec.flags;
    let count = len(args);
    match spec.find {
        FindKeys::Range { last, step, limit } => {
            let end = if last >= 0 {
                first + i64::from(last)
            } else if limit <= 1 {
                count + i64::from(last)
            } else {
                first + (count - first) / i64::from(limit) + i64::from(last)
            };
            run(first, end, step, args, flags, out);
        }
        FindKeys::KeyNum {
            count_at,
            first: offset,
            step,
        } => {
            let numkeys = usize::try_from(first + i64::from(count_at))
                .ok()
                .and_then(|index| args.get(index))
                .and_then(|word| integer(word))
                .unwrap_or(0);
            let first = first + i64::from(offset);
            // Bounded by the number of arguments, so neither the product nor the loop runs away.
            let numkeys = numkeys.clamp(0, count);
            let end = first + (numkeys - 1) * i64::from(step.max(1));
            run(first, end, step, args, flags, out);
        }
        FindKeys::Unknown => return false,
    }
    true
}

/// Adds every `step`-th argument from `first` to `last`, as far as there are any.
fn run(first: i64, last: i64, step: i32, args: &[&[u8]], flags: KeyFlags, out: &mut KeyPositions) {
    let last = last.min(len(args) - 1);
    let (Ok(first), Ok(last)) = (usize::try_from(first), usize::try_from(last)) else {
        return;
    };
    // Argument 0 is the command's name, never a key.
    if first == 0 {
        return;
    }
    let step = usize::try_from(step).unwrap_or(1).max(1);
    let mut index = first;
    while index <= last {
        out.push(index, flags);
        index += step;
    }
}

/// The argument after a keyword, which is looked for as Redis looks for it: the last argument is
/// never taken for the keyword.
fn after_keyword(word: &str, start: i32, args: &[&[u8]]) -> Option<i64> {
    let matches = |index: &i64| {
        usize::try_from(*index)
            .ok()
            .and_then(|index| args.get(index))
            .is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    };
    let count = len(args);
    let found = if start > 0 {
        (i64::from(start)..count - 1).find(matches)
    } else {
        (2..=count + i64::from(start)).rev().find(matches)
    };
    found.map(|index| index + 1)
}

/// `SORT key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC|DESC] [ALPHA] [STORE key]`
fn sort(args: &[&[u8]], out: &mut KeyPositions) {
    if args.len() < 2 {
        return;
    }
    out.push(1, READ);
    let mut index = 2;
    while index < args.len() {
        let word = args[index];
        let value = index + 1;
        let has_value = value < args.len();
        if word.eq_ignore_ascii_case(b"limit") {
            index += 2;
        } else if word.eq_ignore_ascii_case(b"store") && has_value {
            out.push(value, KeyFlags::OW.with(KeyFlags::UPDATE));
            index += 1;
        } else if (word.eq_ignore_ascii_case(b"by") || word.eq_ignore_ascii_case(b"get"))
            && has_value
        {
            // Without an asterisk the server looks nothing up: `BY nosort`, `GET #`.
            if args[value].contains(&b'*')
                && let Ok(position) = u32::try_from(value)
            {
                out.patterns.push(position);
            }
            index += 1;
        }
        index += 1;
    }
}

/// `MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH password] [AUTH2 user password]
/// [KEYS key ...]`
fn migrate(args: &[&[u8]], out: &mut KeyPositions) {
    let single = args.get(3).is_some_and(|key| !key.is_empty());
    if single {
        out.push(3, TAKEN);
    }
    let mut index = 6;
    while index < args.len() {
        let word = args[index];
        if word.eq_ignore_ascii_case(b"auth") {
            index += 1;
        } else if word.eq_ignore_ascii_case(b"auth2") {
            index += 2;
        } else if word.eq_ignore_ascii_case(b"keys") {
            for key in index + 1..args.len() {
                out.push(key, TAKEN);
            }
            return;
        }
        index += 1;
    }
}

fn len(args: &[&[u8]]) -> i64 {
    i64::try_from(args.len()).unwrap_or(i64::MAX)
}

fn at(args: &[&[u8]], from_end: i32) -> i64 {
    len(args) + i64::from(from_end)
}

/// An integer, read more leniently than the server does: what it accepts, this accepts.
fn integer(word: &[u8]) -> Option<i64> {
    std::str::from_utf8(word).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{CommandTable, Resolved};

    fn found(request: &str) -> (String, Vec<u32>) {
        let table = CommandTable::builtin();
        let args: Vec<&[u8]> = request
            .split(' ')
            .map(|word| {
                if word == "''" {
                    b"".as_slice()
                } else {
                    word.as_bytes()
                }
            })
            .collect();
        let Resolved::Command(spec) = table.resolve(&args) else {
            panic!("{request} is unknown")
        };
        let mut out = KeyPositions::new();
        keys(spec, &args, &mut out).expect("the keys are known");
        let text = out
            .iter()
            .map(|key| {
                let access = if key.access == Access::Write {
                    "w"
                } else {
                    "r"
                };
                format!("{}{access}", key.index)
            })
            .collect::<Vec<_>>()
            .join(" ");
        (text, out.patterns().to_vec())
    }

    #[test]
    fn keys_are_found_in_every_kind_of_command() {
        let cases = [
            ("GET k", "1r"),
            ("SET k v", "1w"),
            ("MGET a b c", "1r 2r 3r"),
            ("MSET a 1 b 2", "1w 3w"),
            ("MSET a 1 b", "1w 3w"),
            ("DEL a b", "1w 2w"),
            ("RENAME a b", "1w 2w"),
            ("COPY a b DB 3", "1r 2w"),
            ("OBJECT ENCODING k", "2r"),
            ("MEMORY USAGE k SAMPLES 5", "2r"),
            ("XINFO STREAM k FULL", "2r"),
            ("XGROUP CREATE k g $", "2w"),
            ("EVAL script 2 a b c", "3w 4w"),
            ("EVAL script 0 a", ""),
            ("EVAL script -1 a", ""),
            ("EVAL script 99 a b", "3w 4w"),
            ("EVAL script x a b", ""),
            ("EVAL script 9223372036854775807 a", "3w"),
            ("EVALSHA_RO sha 1 a b", "3r"),
            ("FCALL f 1 a b", "3w"),
            ("ZUNIONSTORE dst 2 a b WEIGHTS 1 2", "1w 3r 4r"),
            ("ZINTERCARD 2 a b LIMIT 1", "2r 3r"),
            ("ZDIFF 1 a WITHSCORES", "2r"),
            ("LMPOP 2 a b LEFT", "2w 3w"),
            ("BLMPOP 0 2 a b LEFT", "3w 4w"),
            ("BLPOP a b 0", "1w 2w"),
            ("BZPOPMIN a 0", "1w"),
            ("BITOP AND dst a b", "2w 3r 4r"),
            ("PFMERGE dst a b", "1w 2r 3r"),
            ("SINTERSTORE dst a b", "1w 2r 3r"),
            ("LMOVE a b LEFT RIGHT", "1w 2w"),
            ("GEORADIUS k 0 0 1 m STORE dst", "1r 7w"),
            ("GEORADIUS k 0 0 1 m COUNT 3 STOREDIST dst", "1r 9w"),
            ("GEORADIUSBYMEMBER k member 1 m store dst", "1r 6w"),
            ("GEOSEARCHSTORE dst src FROMMEMBER m BYRADIUS 1 m", "1w 2r"),
            ("XREAD STREAMS a b 0 0", "2r 3r"),
            ("XREAD COUNT 1 BLOCK 0 STREAMS streams 0", "6r"),
            ("XREADGROUP GROUP STREAMS c STREAMS a >", "5r"),
            (
                "XREADGROUP GROUP g c COUNT 1 NOACK STREAMS a b > >",
                "8r 9r",
            ),
            ("SORT k", "1r"),
            ("SORT k LIMIT 0 STORE STORE dst", "1r 6w"),
            ("SORT k STORE store STORE dst", "1r 3w 5w"),
            ("MIGRATE h 1 k 0 100", "3w"),
            ("MIGRATE h 1 '' 0 100 KEYS a b", "7w 8w"),
            ("MIGRATE h 1 '' 0 100 AUTH keys KEYS a", "9w"),
            ("MIGRATE h 1 '' 0 100 AUTH2 keys keys KEYS keys", "10w"),
            ("WATCH a b", "1r 2r"),
            ("PUBLISH channel k", ""),
            ("SPUBLISH channel k", ""),
            ("SSUBSCRIBE channel other", ""),
            ("SCAN 0 MATCH a*", ""),
            ("PING", ""),
            ("GET", ""),
            ("PANNIER.WHY k", "1r"),
            ("RESTORE k 0 payload", "1w"),
            ("LCS a b LEN", "1r 2r"),
            ("VADD k REDUCE 3 VALUES 1 0.5 e", "1w"),
        ];
        for (request, expected) in cases {
            assert_eq!(found(request).0, expected, "{request}");
        }
    }

    #[test]
    fn sort_names_its_key_patterns_but_not_nosort_and_the_element() {
        assert_eq!(found("SORT k BY w_* GET d_*->f GET # ALPHA").1, [3, 5]);
        assert_eq!(found("SORT_RO k BY nosort GET get_*").1, [5]);
        assert_eq!(found("SORT k LIMIT GET x* BY y*").1, [6]);
    }

    #[test]
    fn a_spec_that_does_not_say_where_its_keys_are_is_an_error() {
        let mut table = CommandTable::builtin();
        table.merge_server([
            crate::command::ServerCommand {
                name: "ODD.MOVABLE".into(),
                arity: -2,
                flags: vec!["write".into(), "movablekeys".into()],
                ..Default::default()
            },
            crate::command::ServerCommand {
                name: "json.get".into(),
                arity: -2,
                flags: vec!["readonly".into()],
                first_key: 1,
                last_key: -1,
                step: 2,
                ..Default::default()
            },
        ]);
        let mut out = KeyPositions::new();
        let args = [b"odd.movable".as_slice(), b"k"];
        let spec = table.lookup(b"Odd.Movable").expect("merged");
        assert_eq!(keys(spec, &args, &mut out), Err(KeysUnknown));
        let args = [b"json.get".as_slice(), b"a", b"b", b"c"];
        let spec = table.lookup(b"JSON.GET").expect("merged");
        assert_eq!(keys(spec, &args, &mut out), Ok(()));
        assert_eq!(out.iter().map(|key| key.index).collect::<Vec<_>>(), [1, 3]);
        assert!(out.iter().all(|key| key.access == Access::Read));
    }
}
