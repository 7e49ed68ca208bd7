//! Takes the key prefix off a reply, on the raw bytes of RESP2 and RESP3.
//!
//! Works on one complete frame. Values are skipped with a counter instead of recursion, so nesting
//! costs nothing; what does not have the expected shape (an error, `+QUEUED`, null) is copied.

mod reader;
#[cfg(test)]
mod tests;

use self::reader::Reader;
use super::channel::{self, Channel};
use super::prefix::{bulk, decimal};
use super::{CommandId, CommandSpec, Prefix};

/// What has to come off the reply to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyRewrite {
    None,
    /// KEYS: an array of keys.
    KeyArray,
    /// SCAN: a cursor and an array of keys.
    ScanReply,
    /// BLPOP, LMPOP ...: the key comes first.
    FirstElement,
    /// XREAD, XREADGROUP: entries by stream.
    StreamNames,
    /// RANDOMKEY.
    SingleKey,
    /// PUBSUB CHANNELS, PUBSUB NUMSUB: channel names, possibly with counts.
    Channels,
    /// SUBSCRIBE and relatives: the confirmations are messages.
    Message,
    /// Commands on stream groups: the error NOGROUP quotes the key.
    GroupError,
}

impl ReplyRewrite {
    /// Each of them.
    pub const ALL: [ReplyRewrite; 9] = [
        ReplyRewrite::None,
        ReplyRewrite::KeyArray,
        ReplyRewrite::ScanReply,
        ReplyRewrite::FirstElement,
        ReplyRewrite::StreamNames,
        ReplyRewrite::SingleKey,
        ReplyRewrite::Channels,
        ReplyRewrite::Message,
        ReplyRewrite::GroupError,
    ];

    /// What has to come off the reply to this command.
    pub fn of(spec: &CommandSpec) -> ReplyRewrite {
        use CommandId as Id;
        match (spec.id(), spec.subcommand()) {
            (Id::Keys, _) => ReplyRewrite::KeyArray,
            (Id::Scan, _) => ReplyRewrite::ScanReply,
            (Id::Randomkey, _) => ReplyRewrite::SingleKey,
            (
                Id::Blpop
                | Id::Brpop
                | Id::Bzpopmin
                | Id::Bzpopmax
                | Id::Lmpop
                | Id::Blmpop
                | Id::Zmpop
                | Id::Bzmpop,
                _,
            ) => ReplyRewrite::FirstElement,
            (Id::Xread | Id::Xreadgroup, _) => ReplyRewrite::StreamNames,
            (Id::Xpending | Id::Xclaim | Id::Xautoclaim | Id::Xgroup | Id::Xinfo, _) => {
                ReplyRewrite::GroupError
            }
            (Id::Pubsub, Some("channels" | "numsub")) => ReplyRewrite::Channels,
            (Id::Subscribe | Id::Psubscribe | Id::Unsubscribe | Id::Punsubscribe, _) => {
                ReplyRewrite::Message
            }
            _ => ReplyRewrite::None,
        }
    }
}

/// What became of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stripped {
    Written,
    /// A notification about a key outside the prefix: nothing was written, nothing is to be sent.
    Dropped,
}

/// The bytes are not one complete RESP frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed reply from the server")]
pub struct Malformed;

/// Appends one reply frame without the prefix to `out`; on an error `out` is as before.
pub fn strip_reply(
    rewrite: ReplyRewrite,
    prefix: &Prefix,
    frame: &[u8],
    out: &mut Vec<u8>,
) -> Result<Stripped, Malformed> {
    let before = out.len();
    let result = strip_whole(rewrite, prefix, frame, out);
    if result != Ok(Stripped::Written) {
        out.truncate(before);
    }
    result
}

fn strip_whole(
    rewrite: ReplyRewrite,
    prefix: &Prefix,
    frame: &[u8],
    out: &mut Vec<u8>,
) -> Result<Stripped, Malformed> {
    let mut reader = Reader {
        bytes: frame,
        at: 0,
    };
    let stripped = strip(rewrite, prefix, &mut reader, out)?;
    if reader.at == frame.len() {
        Ok(stripped)
    } else {
        Err(Malformed)
    }
}

/// The same for the reply to EXEC, whose elements answer the queued commands in turn.
pub fn strip_exec_reply(
    queued: &[ReplyRewrite],
    prefix: &Prefix,
    frame: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let before = out.len();
    let mut reader = Reader {
        bytes: frame,
        at: 0,
    };
    let result = strip_exec(queued, prefix, &mut reader, out);
    let whole = reader.at == frame.len();
    if result.is_err() || !whole {
        out.truncate(before);
        return Err(Malformed);
    }
    result
}

fn strip_exec(
    queued: &[ReplyRewrite],
    prefix: &Prefix,
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let Some(count) = reader.array(out)? else {
        return Ok(());
    };
    header(b'*', count, out);
    for index in 0..count {
        let rewrite = queued.get(index).copied().unwrap_or(ReplyRewrite::None);
        // Messages are no replies; a confirmation inside EXEC is stripped like any other.
        strip(rewrite, prefix, reader, out)?;
    }
    Ok(())
}

/// Strips the next value.
fn strip(
    rewrite: ReplyRewrite,
    prefix: &Prefix,
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<Stripped, Malformed> {
    match rewrite {
        ReplyRewrite::None => reader.copy(out)?,
        ReplyRewrite::KeyArray => key_array(prefix, reader, out)?,
        ReplyRewrite::ScanReply => {
            if let Some(count) = reader.array(out)? {
                header(b'*', count, out);
                for index in 0..count {
                    if index == 1 {
                        key_array(prefix, reader, out)?;
                    } else {
                        reader.copy(out)?;
                    }
                }
            }
        }
        ReplyRewrite::FirstElement => {
            if let Some(count) = reader.array(out)? {
                header(b'*', count, out);
                for index in 0..count {
                    if index == 0 {
                        key(prefix, reader, out)?;
                    } else {
                        reader.copy(out)?;
                    }
                }
            }
        }
        ReplyRewrite::StreamNames => streams(prefix, reader, out)?,
        ReplyRewrite::SingleKey => key(prefix, reader, out)?,
        ReplyRewrite::Channels => channels(prefix, reader, out)?,
        ReplyRewrite::Message => return message(prefix, reader, out),
        ReplyRewrite::GroupError => group_error(prefix, reader, out)?,
    }
    Ok(Stripped::Written)
}

/// A bulk string that is a key; anything else is copied.
fn key(prefix: &Prefix, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let start = reader.at;
    if let Some(text) = reader.bulk()?
        && let Some(own) = text.strip_prefix(prefix.raw())
    {
        bulk(&[own], out);
        return Ok(());
    }
    reader.at = start;
    reader.copy(out)
}

/// An array of keys. Keys outside the prefix are left out: they are nobody's business here.
fn key_array(prefix: &Prefix, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let Some(count) = reader.array(out)? else {
        return Ok(());
    };
    let start = reader.at;
    let mut own = 0;
    for _ in 0..count {
        match reader.bulk()? {
            Some(text) => own += usize::from(text.starts_with(prefix.raw())),
            None => reader.skip()?,
        }
    }
    let end = reader.at;
    header(b'*', own, out);
    reader.at = start;
    while reader.at < end {
        match reader.bulk()? {
            Some(text) => {
                if let Some(own) = text.strip_prefix(prefix.raw()) {
                    bulk(&[own], out);
                }
            }
            None => reader.skip()?,
        }
    }
    Ok(())
}

/// RESP2: `*n` of `*2 name entries`; RESP3: `%n` of name and entries.
fn streams(prefix: &Prefix, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    if reader.peek() == Some(b'%') {
        let count = reader.length()?.ok_or(Malformed)?;
        header(b'%', count, out);
        for _ in 0..count {
            key(prefix, reader, out)?;
            reader.copy(out)?;
        }
        return Ok(());
    }
    if reader.peek() == Some(b'-') {
        return group_error(prefix, reader, out);
    }
    let Some(count) = reader.array(out)? else {
        return Ok(());
    };
    header(b'*', count, out);
    for _ in 0..count {
        strip(ReplyRewrite::FirstElement, prefix, reader, out)?;
    }
    Ok(())
}

/// Channel names, with subscriber counts or without.
fn channels(prefix: &Prefix, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    // NUMSUB is a flat array in both protocols; a map is copied with its header all the same.
    let Some(count) = reader.array(out)? else {
        return Ok(());
    };
    let start = reader.at;
    let mut kept = 0;
    for _ in 0..count {
        if let Some(name) = reader.bulk()? {
            kept += usize::from(channel::take_off(prefix, name, false).is_some());
        } else {
            reader.skip()?;
            kept += 1;
        }
    }
    header(b'*', kept, out);
    reader.at = start;
    for _ in 0..count {
        if let Some(name) = reader.bulk()? {
            if let Some((head, rest)) = channel::take_off(prefix, name, false) {
                bulk(&[head, rest], out);
            }
        } else {
            reader.copy(out)?;
        }
    }
    Ok(())
}

/// `message channel payload`, `pmessage pattern channel payload`, `subscribe channel count` ...
fn message(
    prefix: &Prefix,
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<Stripped, Malformed> {
    let Some(kind @ (b'*' | b'>')) = reader.peek() else {
        reader.copy(out)?;
        return Ok(Stripped::Written);
    };
    let Some(count) = reader.length()? else {
        out.extend_from_slice(b"*-1\r\n");
        return Ok(Stripped::Written);
    };
    header(kind, count, out);
    if count == 0 {
        return Ok(Stripped::Written);
    }
    let Some(what) = reader.bulk()? else {
        for _ in 0..count {
            reader.copy(out)?;
        }
        return Ok(Stripped::Written);
    };
    bulk(&[what], out);
    // How many of the following are a pattern and a channel; the payload of a message comes last.
    let (patterns, channels, payload) = match what {
        b"message" => (0, 1, true),
        b"pmessage" => (1, 1, true),
        b"subscribe" | b"unsubscribe" => (0, 1, false),
        b"psubscribe" | b"punsubscribe" => (1, 0, false),
        _ => (0, 0, false),
    };
    let mut about_keys = false;
    for index in 0..count - 1 {
        let name = patterns + channels > index;
        let start = reader.at;
        let text = if name || (payload && about_keys) {
            reader.bulk()?
        } else {
            None
        };
        let Some(text) = text else {
            reader.at = start;
            reader.copy(out)?;
            continue;
        };
        if name {
            let pattern = index < patterns;
            // A confirmation or a pattern of our own is shown even if it is not under the prefix.
            match channel::take_off(prefix, text, pattern) {
                Some((head, rest)) => bulk(&[head, rest], out),
                None if payload && !pattern => {
                    return drop_message(count - 2 - index, reader);
                }
                None => bulk(&[text], out),
            }
            about_keys |= !pattern && channel::take_apart(text) == Channel::KeyEvent;
        } else if let Some(own) = text.strip_prefix(prefix.raw()) {
            bulk(&[own], out);
        } else {
            return drop_message(count - 2 - index, reader);
        }
    }
    Ok(Stripped::Written)
}

fn drop_message(rest: usize, reader: &mut Reader<'_>) -> Result<Stripped, Malformed> {
    for _ in 0..rest {
        reader.skip()?;
    }
    Ok(Stripped::Dropped)
}

/// `-NOGROUP No such key 'prefix:key' or consumer group ...` quotes the key.
fn group_error(
    prefix: &Prefix,
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let start = reader.at;
    reader.skip()?;
    let frame = &reader.bytes[start..reader.at];
    if frame.starts_with(b"-NOGROUP ") {
        let quoted = [b"'", prefix.raw()].concat();
        // `No such consumer group 'g' for key name 'k'` has the key second.
        let marker = b"key name ".as_slice();
        let from = find(frame, marker).map_or(0, |at| at + marker.len());
        if let Some(at) = find(&frame[from..], &quoted) {
            let at = from + at;
            out.extend_from_slice(&frame[..=at]);
            out.extend_from_slice(&frame[at + quoted.len()..]);
            return Ok(());
        }
    }
    out.extend_from_slice(frame);
    Ok(())
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn header(kind: u8, count: usize, out: &mut Vec<u8>) {
    out.push(kind);
    decimal(count, out);
}
