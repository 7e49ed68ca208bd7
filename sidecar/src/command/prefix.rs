//! Writes a request for the server, with the key prefix on everything that names a key.
//!
//! Keys, SORT's key patterns, the patterns of SCAN and KEYS, and keyspace channels get the prefix.
//! Ordinary channels, script arguments other than KEYS, and hash fields do not. What has to come
//! off the reply again is returned. DBSIZE and RANDOMKEY know no pattern; they become read-only
//! scripts, so that they stay one command with one reply, inside a transaction too.

use policy::glob::glob_escape;

use super::keys::{KeyPositions, keys};
use super::reply::ReplyRewrite;
use super::{Allowed, Class, CommandId, CommandSpec, Refused, channel, class};

/// Counts the keys of the prefix. The server is busy for as long as for KEYS.
const COUNT_KEYS: &[u8] = b"local n, c = 0, '0' \
repeat local r = redis.call('SCAN', c, 'MATCH', ARGV[1], 'COUNT', 1000) \
c = r[1] n = n + #r[2] until c == '0' return n";

/// A random key of the prefix; where a hundred tries find none, the first in scan order.
const RANDOM_KEY: &[u8] = b"for i = 1, 100 do local k = redis.call('RANDOMKEY') \
if not k then return false end \
if string.sub(k, 1, #ARGV[2]) == ARGV[2] then return k end end \
local c = '0' repeat local r = redis.call('SCAN', c, 'MATCH', ARGV[1], 'COUNT', 1000) \
c = r[1] if r[2][1] then return r[2][1] end until c == '0' return false";

/// A key prefix that is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    raw: Box<[u8]>,
    escaped: Box<[u8]>,
}

impl Prefix {
    /// None if the prefix is empty.
    pub fn new(prefix: &[u8]) -> Option<Prefix> {
        if prefix.is_empty() {
            return None;
        }
        Some(Prefix {
            raw: prefix.into(),
            escaped: glob_escape(prefix).into(),
        })
    }

    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The prefix as a glob pattern that matches only itself.
    pub fn escaped(&self) -> &[u8] {
        &self.escaped
    }
}

/// Appends the request to `out`. `found` receives its keys (as positions in `args`).
///
/// On a refusal nothing is written. Commands of [`Class::Local`] are written with their prefix too,
/// for those that the engine forwards after all.
pub fn apply_prefix(
    prefix: &Prefix,
    spec: &CommandSpec,
    args: &[&[u8]],
    found: &mut KeyPositions,
    out: &mut Vec<u8>,
) -> Result<ReplyRewrite, Refused> {
    found.clear();
    let allowed = Allowed {
        prefix: true,
        dangerous: true,
    };
    if let Class::Refused(reason) = class(spec, args, allowed) {
        return Err(reason);
    }
    match spec.id() {
        CommandId::Scan if args.len() > 1 => scan(prefix, args, out),
        CommandId::Keys => rewritten(args, out, |index, arg, out| {
            if index == 1 {
                bulk(&[prefix.escaped(), arg], out);
            } else {
                bulk(&[arg], out);
            }
        }),
        CommandId::Dbsize if args.len() == 1 => {
            let pattern = [prefix.escaped(), b"*"].concat();
            write_command(&[b"EVAL_RO", COUNT_KEYS, b"0", &pattern], out);
        }
        CommandId::Randomkey if args.len() == 1 => {
            let pattern = [prefix.escaped(), b"*"].concat();
            write_command(&[b"EVAL_RO", RANDOM_KEY, b"0", &pattern, prefix.raw()], out);
        }
        CommandId::Subscribe
        | CommandId::Psubscribe
        | CommandId::Unsubscribe
        | CommandId::Punsubscribe
        | CommandId::Publish
        | CommandId::Pubsub => channels(prefix, spec, args, out),
        _ => {
            keys(spec, args, found).map_err(|_| Refused::KeysUnknown)?;
            if !found.patterns().is_empty() && prefix.raw().contains(&b'*') {
                return Err(Refused::PatternPrefix);
            }
            keyed(prefix, args, found, out);
        }
    }
    Ok(ReplyRewrite::of(spec))
}

/// Appends the request as it is.
pub fn write_command(args: &[&[u8]], out: &mut Vec<u8>) {
    rewritten(args, out, |_, arg, out| bulk(&[arg], out));
}

fn keyed(prefix: &Prefix, args: &[&[u8]], found: &KeyPositions, out: &mut Vec<u8>) {
    if let [only] = found.as_slice()
        && found.patterns().is_empty()
    {
        rewritten(args, out, |index, arg, out| {
            if index == only.index as usize {
                bulk(&[prefix.raw(), arg], out);
            } else {
                bulk(&[arg], out);
            }
        });
        return;
    }
    // The positions are ascending, so one look ahead is enough.
    let mut coming = found.iter().map(|key| key.index).peekable();
    rewritten(args, out, |index, arg, out| {
        let is_key = coming.next_if(|key| *key as usize == index).is_some()
            || found
                .patterns()
                .iter()
                .any(|pattern| *pattern as usize == index);
        if is_key {
            bulk(&[prefix.raw(), arg], out);
        } else {
            bulk(&[arg], out);
        }
    });
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`
fn scan(prefix: &Prefix, args: &[&[u8]], out: &mut Vec<u8>) {
    let mut matched = false;
    let mut index = 2;
    while index + 1 < args.len() {
        matched |= args[index].eq_ignore_ascii_case(b"match");
        index += 2;
    }
    let added = if matched { 0 } else { 2 };
    header(args.len() + added, out);
    for (index, arg) in args.iter().enumerate() {
        let is_pattern =
            index >= 3 && index % 2 == 1 && args[index - 1].eq_ignore_ascii_case(b"match");
        if is_pattern {
            bulk(&[prefix.escaped(), arg], out);
        } else {
            bulk(&[arg], out);
        }
        if index == 1 && !matched {
            bulk(&[b"MATCH"], out);
            bulk(&[prefix.escaped(), b"*"], out);
        }
    }
}

/// SUBSCRIBE and relatives: keyspace channels name a key.
fn channels(prefix: &Prefix, spec: &CommandSpec, args: &[&[u8]], out: &mut Vec<u8>) {
    let (first, last, pattern) = match (spec.id(), spec.subcommand()) {
        (CommandId::Psubscribe | CommandId::Punsubscribe, _) => (1, args.len(), true),
        (CommandId::Publish, _) => (1, 2, false),
        (CommandId::Pubsub, Some("channels")) => (2, 3, true),
        (CommandId::Pubsub, Some("numsub")) => (2, args.len(), false),
        (CommandId::Pubsub, _) => (0, 0, false),
        _ => (1, args.len(), false),
    };
    let mut name = Vec::new();
    rewritten(args, out, |index, arg, out| {
        if (first..last).contains(&index) {
            name.clear();
            channel::put_on(prefix, arg, pattern, &mut name);
            bulk(&[&name], out);
        } else {
            bulk(&[arg], out);
        }
    });
}

fn rewritten(args: &[&[u8]], out: &mut Vec<u8>, mut write: impl FnMut(usize, &[u8], &mut Vec<u8>)) {
    header(args.len(), out);
    for (index, arg) in args.iter().enumerate() {
        write(index, arg, out);
    }
}

fn header(count: usize, out: &mut Vec<u8>) {
    out.push(b'*');
    decimal(count, out);
}

/// Appends one bulk string made of parts.
pub(super) fn bulk(parts: &[&[u8]], out: &mut Vec<u8>) {
    out.push(b'$');
    decimal(parts.iter().map(|part| part.len()).sum(), out);
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a number and the line end.
pub(super) fn decimal(number: usize, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b"0123456789"[rest % 10];
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{CommandTable, Resolved};

    fn sent(prefix: &str, request: &str) -> Result<String, Refused> {
        let table = CommandTable::builtin();
        let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let Resolved::Command(spec) = table.resolve(&args) else {
            panic!("{request} is unknown")
        };
        let prefix = Prefix::new(prefix.as_bytes()).expect("not empty");
        let mut out = Vec::new();
        let refused = apply_prefix(&prefix, spec, &args, &mut KeyPositions::new(), &mut out);
        if refused.is_err() {
            assert!(out.is_empty());
        }
        refused?;
        let text = String::from_utf8(out).expect("text");
        let words: Vec<&str> = text.split("\r\n").skip(2).step_by(2).collect();
        assert!(text.starts_with(&format!("*{}\r\n", words.len())), "{text}");
        Ok(words.join(" "))
    }

    #[test]
    fn the_prefix_goes_on_every_key_and_nothing_else() {
        let cases = [
            ("GET k", "GET p:k"),
            ("SET k k EX 5", "SET p:k k EX 5"),
            ("MGET k k", "MGET p:k p:k"),
            ("MSET k k j j", "MSET p:k k p:j j"),
            ("EVAL s 1 k k", "EVAL s 1 p:k k"),
            (
                "ZUNIONSTORE d 2 a b WEIGHTS 1 2",
                "ZUNIONSTORE p:d 2 p:a p:b WEIGHTS 1 2",
            ),
            (
                "SORT k BY w* GET # GET g* STORE d",
                "SORT p:k BY p:w* GET # GET p:g* STORE p:d",
            ),
            (
                "GEORADIUS k 0 0 1 m STOREDIST d STORE e",
                "GEORADIUS p:k 0 0 1 m STOREDIST p:d STORE p:e",
            ),
            (
                "XREAD BLOCK 0 STREAMS a b 0 0",
                "XREAD BLOCK 0 STREAMS p:a p:b 0 0",
            ),
            ("SCAN 0", "SCAN 0 MATCH p:*"),
            ("SCAN 0 COUNT 5", "SCAN 0 MATCH p:* COUNT 5"),
            (
                "SCAN 0 match a* COUNT match",
                "SCAN 0 match p:a* COUNT match",
            ),
            ("SCAN 0 COUNT 5 MATCH a", "SCAN 0 COUNT 5 MATCH p:a"),
            ("KEYS *", "KEYS p:*"),
            ("HSCAN k 0 MATCH a", "HSCAN p:k 0 MATCH a"),
            ("PUBLISH c k", "PUBLISH c k"),
            ("SPUBLISH c k", "SPUBLISH c k"),
            (
                "SUBSCRIBE c __keyspace@0__:k",
                "SUBSCRIBE c __keyspace@0__:p:k",
            ),
            (
                "PSUBSCRIBE __keyspace@*__:k* __keyevent@0__:*",
                "PSUBSCRIBE __keyspace@*__:p:k* __keyevent@0__:*",
            ),
            ("PSUBSCRIBE __key*__:*", "PSUBSCRIBE __key*__:*"),
            (
                "PUBSUB NUMSUB __keyspace@0__:k c",
                "PUBSUB NUMSUB __keyspace@0__:p:k c",
            ),
            ("OBJECT ENCODING k", "OBJECT ENCODING p:k"),
            ("FUNCTION LIST", "FUNCTION LIST"),
        ];
        for (request, expected) in cases {
            assert_eq!(sent("p:", request).as_deref(), Ok(expected), "{request}");
        }
    }

    #[test]
    fn glob_characters_of_the_prefix_are_escaped_in_patterns_only() {
        assert_eq!(sent("a*[", "GET k").as_deref(), Ok("GET a*[k"));
        assert_eq!(sent("a*[", "KEYS k*").as_deref(), Ok("KEYS a\\*\\[k*"));
        assert_eq!(
            sent("a*", "PSUBSCRIBE __keyspace@0__:k*").as_deref(),
            Ok("PSUBSCRIBE __keyspace@0__:a\\*k*")
        );
        assert_eq!(
            sent("a*", "SUBSCRIBE __keyspace@0__:k").as_deref(),
            Ok("SUBSCRIBE __keyspace@0__:a*k")
        );
        assert_eq!(sent("a*", "SORT k BY w*"), Err(Refused::PatternPrefix));
        assert_eq!(
            sent("a*", "SORT k BY nosort").as_deref(),
            Ok("SORT a*k BY nosort")
        );
    }

    #[test]
    fn what_cannot_be_kept_within_the_prefix_is_refused() {
        assert_eq!(sent("p:", "FLUSHDB"), Err(Refused::OutsidePrefix));
        assert_eq!(sent("p:", "DEBUG OBJECT k"), Err(Refused::KeysUnknown));
    }

    #[test]
    fn dbsize_and_randomkey_become_read_only_scripts() {
        assert!(
            sent("p:", "DBSIZE")
                .expect("sent")
                .starts_with("EVAL_RO local n")
        );
        assert!(sent("p:", "RANDOMKEY").expect("sent").ends_with("0 p:* p:"));
        // The server's own complaint about the number of arguments stays.
        assert_eq!(sent("p:", "DBSIZE x").as_deref(), Ok("DBSIZE x"));
    }
}
