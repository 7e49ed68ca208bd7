//! Keyspace notifications under a key prefix: the only channels that carry keys.
//!
//! `__keyspace@<db>__:<key>` has the key in its name, `__keyevent@<db>__:<event>` in its messages.
//! <https://redis.io/docs/latest/develop/pubsub/keyspace-notifications/>

use super::Prefix;

const KEYSPACE: &[u8] = b"__keyspace@";
const KEYEVENT: &[u8] = b"__keyevent@";
const END_OF_DATABASE: &[u8] = b"__:";

/// The name of a channel taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel<'a> {
    /// `__keyspace@<db>__:` and the rest, a key or a pattern for keys.
    KeySpace {
        head: &'a [u8],
        key: &'a [u8],
    },
    KeyEvent,
    Ordinary,
}

pub(super) fn take_apart(name: &[u8]) -> Channel<'_> {
    if name.starts_with(KEYSPACE) {
        let end = name[KEYSPACE.len()..]
            .windows(END_OF_DATABASE.len())
            .position(|window| window == END_OF_DATABASE);
        if let Some(end) = end {
            let (head, key) = name.split_at(KEYSPACE.len() + end + END_OF_DATABASE.len());
            return Channel::KeySpace { head, key };
        }
    } else if name.starts_with(KEYEVENT) {
        return Channel::KeyEvent;
    }
    Channel::Ordinary
}

/// The server's name for a channel or, with `pattern`, for a pattern of channels.
///
/// A pattern that does not spell out `__keyspace@` (such as `__key*__:*`) stays as it is: it
/// matches keys of others too, whose messages `reply` leaves out.
pub(super) fn put_on(prefix: &Prefix, name: &[u8], pattern: bool, out: &mut Vec<u8>) {
    if let Channel::KeySpace { head, key } = take_apart(name) {
        out.extend_from_slice(head);
        out.extend_from_slice(if pattern {
            prefix.escaped()
        } else {
            prefix.raw()
        });
        out.extend_from_slice(key);
    } else {
        out.extend_from_slice(name);
    }
}

/// The client's name for a channel or pattern as two parts; none if it is about foreign keys.
pub(super) fn take_off<'a>(
    prefix: &Prefix,
    name: &'a [u8],
    pattern: bool,
) -> Option<(&'a [u8], &'a [u8])> {
    match take_apart(name) {
        Channel::KeySpace { head, key } => {
            let prefix = if pattern {
                prefix.escaped()
            } else {
                prefix.raw()
            };
            Some((head, key.strip_prefix(prefix)?))
        }
        _ => Some((name, b"")),
    }
}
