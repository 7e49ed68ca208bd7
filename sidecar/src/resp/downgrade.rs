//! RESP3 replies as RESP2 has them, one function per shape.
//!
//! The tracked connection speaks RESP3 whatever the app speaks. RESP3 does not say how RESP2 would
//! have put it (`_` is `$-1` or `*-1`, pairs nest or lie flat), so the command decides which of
//! these applies. Redis prints a double the same way in both versions, so its text is taken over.

use super::{
    reply::{is_error, is_null},
    write::{bulk, header},
};

/// A map: `%2` becomes `*4`; what follows is the same.
pub fn map(frame: &[u8], out: &mut Vec<u8>) {
    let (pairs, rest) = split(frame);
    header(out, b'*', pairs * 2);
    out.extend_from_slice(rest);
}

/// A set: `~2` becomes `*2`; what follows is the same.
pub fn set(frame: &[u8], out: &mut Vec<u8>) {
    let (members, rest) = split(frame);
    header(out, b'*', members);
    out.extend_from_slice(rest);
}

/// A string or null: `_` becomes `$-1`.
pub fn nullable(frame: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(if is_null(frame) { b"$-1\r\n" } else { frame });
}

/// A double or null: `,1.5` becomes `$3 1.5`.
pub fn double(frame: &[u8], out: &mut Vec<u8>) {
    match frame
        .strip_prefix(b",")
        .and_then(|text| text.strip_suffix(b"\r\n"))
    {
        Some(text) => bulk(out, text),
        None => nullable(frame, out),
    }
}

/// An array of strings and nulls.
pub fn nullables(frame: &[u8], out: &mut Vec<u8>) {
    let (items, mut rest) = split(frame);
    header(out, b'*', items);
    while let Some((item, tail)) = next(rest) {
        nullable(item, out);
        rest = tail;
    }
}

/// An array of pairs of a member and its score: the pairs are dissolved.
pub fn scored(frame: &[u8], out: &mut Vec<u8>) {
    let (pairs, rest) = split(frame);
    header(out, b'*', pairs * 2);
    scored_elements(rest, out);
}

/// The pairs of such an array.
pub fn scored_elements(mut elements: &[u8], out: &mut Vec<u8>) {
    while let Some(pair) = elements.strip_prefix(b"*2\r\n") {
        let Some((member, tail)) = next(pair) else {
            return;
        };
        let Some((score, tail)) = next(tail) else {
            return;
        };
        out.extend_from_slice(member);
        double(score, out);
        elements = tail;
    }
}

/// The number in the first line of a frame, and what follows it.
pub fn split(frame: &[u8]) -> (usize, &[u8]) {
    let Some(end) = memchr::memchr(b'\r', frame) else {
        return (0, &[]);
    };
    let number = std::str::from_utf8(frame.get(1..end).unwrap_or_default());
    let number = number.ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    (number, frame.get(end + 2..).unwrap_or_default())
}

/// The first reply of several that are no arrays, and the others.
fn next(frames: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = split(frames);
    let head = frames.len() - rest.len();
    match frames.first()? {
        b'$' => frames.split_at_checked(head + len + 2),
        b'_' | b',' | b':' | b'+' => Some(frames.split_at(head)),
        _ if is_error(frames) => Some(frames.split_at(head)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(change: fn(&[u8], &mut Vec<u8>), frame: &str) -> String {
        let mut out = Vec::new();
        change(frame.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_shape_becomes_what_resp2_has_for_it() {
        assert_eq!(
            both(map, "%1\r\n$1\r\na\r\n$1\r\nb\r\n"),
            "*2\r\n$1\r\na\r\n$1\r\nb\r\n"
        );
        assert_eq!(both(set, "~1\r\n$1\r\na\r\n"), "*1\r\n$1\r\na\r\n");
        assert_eq!(both(set, "~0\r\n"), "*0\r\n");
        assert_eq!(both(nullable, "_\r\n"), "$-1\r\n");
        assert_eq!(both(nullable, "$1\r\na\r\n"), "$1\r\na\r\n");
        assert_eq!(both(double, ",-inf\r\n"), "$4\r\n-inf\r\n");
        assert_eq!(both(double, ",1e+300\r\n"), "$6\r\n1e+300\r\n");
        assert_eq!(both(double, "_\r\n"), "$-1\r\n");
        assert_eq!(
            both(nullables, "*3\r\n$4\r\n_\r\n_\r\n_\r\n$0\r\n\r\n"),
            "*3\r\n$4\r\n_\r\n_\r\n$-1\r\n$0\r\n\r\n"
        );
        assert_eq!(
            both(
                scored,
                "*2\r\n*2\r\n$3\r\n\r\na\r\n,1.5\r\n*2\r\n$1\r\nb\r\n,inf\r\n"
            ),
            "*4\r\n$3\r\n\r\na\r\n$3\r\n1.5\r\n$1\r\nb\r\n$3\r\ninf\r\n"
        );
        assert_eq!(both(scored, "*0\r\n"), "*0\r\n");
    }

    #[test]
    fn replies_of_another_shape_do_not_panic() {
        for frame in [
            "",
            "*",
            "*2\r\n",
            "*1\r\n$9\r\na\r\n",
            "*1\r\n*2\r\n,1\r\n",
            "$5\r\n",
            ",1",
            "%x\r\n",
        ] {
            for change in [map, set, nullable, double, nullables, scored] {
                both(change, frame);
            }
        }
    }
}
