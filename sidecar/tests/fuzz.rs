//! The bodies of the fuzz targets over random inputs made of what they look for, so that every
//! `cargo test` runs them without nightly and cargo-fuzz.

use proptest::prelude::*;

#[path = "../fuzz/body.rs"]
mod body;

/// Pieces that get through to the depths of the parsers, beside arbitrary bytes.
fn pieces(known: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(known).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..most).prop_map(|pieces| pieces.concat())
}

const REQUESTS: &[&str] = &[
    "*1\r\n",
    "*2\r\n",
    "*0\r\n",
    "*-1\r\n",
    "*11\r\n",
    "*1048577\r\n",
    "$0\r\n\r\n",
    "$1\r\na\r\n",
    "$3\r\nGET\r\n",
    "$101\r\n",
    "$16385\r\n",
    "$999999999999999999\r\n",
    "$+1\r\na\r\n",
    "PING\r\n",
    "SET k 'a b'\n",
    "\"\\x41\\n\"",
    "'",
    "\\",
    " ",
    "\r\n",
    "\r",
    "\n",
];

const REPLIES: &[&str] = &[
    "*1\r\n",
    "*2\r\n",
    "*3\r\n",
    "*99\r\n",
    "%1\r\n",
    "~1\r\n",
    ">3\r\n",
    "|1\r\n",
    "$1\r\na\r\n",
    "$3\r\np:a\r\n",
    "$0\r\n\r\n",
    "$-1\r\n",
    "$99\r\n",
    "*-1\r\n",
    "_\r\n",
    "#t\r\n",
    ",1.5\r\n",
    "(1\r\n",
    "=5\r\ntxt:a\r\n",
    "!3\r\nERR\r\n",
    ":1\r\n",
    "+OK\r\n",
    "$7\r\nmessage\r\n",
    "$8\r\npmessage\r\n",
    "$18\r\n__keyspace@0__:p:k\r\n",
    "$18\r\n__keyevent@0__:set\r\n",
    "-NOGROUP No such key 'p:k' or consumer group 'g'\r\n",
    "\r\n",
    "\r",
];

const ARGUMENTS: &[&[u8]] = &[
    b"STREAMS",
    b"KEYS",
    b"STORE",
    b"BY",
    b"GET",
    b"LIMIT",
    b"MATCH",
    b"BLOCK",
    b"GROUP",
    b"COUNT",
    b"0",
    b"1",
    b"2",
    b"-1",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"*",
    b"#",
    b"",
    b"__keyspace@0__:k",
    b"__keyevent@0__:set",
    b"AUTH2",
    b"\x00",
    b"\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn requests_are_read_the_same_however_they_are_cut(
        head in any::<[u8; 2]>(),
        wire in pieces(REQUESTS, 16),
    ) {
        body::request(&[&head, &wire[..]].concat());
    }

    #[test]
    fn replies_are_measured_the_same_however_they_are_cut(
        head in any::<u8>(),
        wire in pieces(REPLIES, 16),
    ) {
        body::reply(&[&[head], &wire[..]].concat());
    }

    #[test]
    fn prefixes_come_off_any_bytes_without_harm(
        head in any::<[u8; 2]>(),
        wire in pieces(REPLIES, 12),
    ) {
        body::rewrite(&[&head, &wire[..]].concat());
    }

    #[test]
    fn prefixes_go_on_any_arguments_without_harm(
        head in any::<[u8; 2]>(),
        args in prop::collection::vec(prop::sample::select(ARGUMENTS), 0..10),
    ) {
        body::rewrite(&[&head, &args.join(&255)[..]].concat());
    }
}

#[test]
fn lengths_that_no_server_sends_do_not_overflow() {
    for kind in ["*", "%", "|", "~", ">"] {
        let lie = format!("{kind}999999999999999999\r\n").repeat(40);
        body::reply(&[b"\0".as_slice(), lie.as_bytes()].concat());
    }
}

#[test]
fn a_long_line_ends_in_the_same_error_however_it_is_cut() {
    let ones = vec![b'1'; 65 * 1024];
    for begin in ["*", "*1\r\n$", "GET "] {
        for limits in 0..4 {
            let line = [&[limits, 7], begin.as_bytes(), &ones[..]].concat();
            body::request(&line);
        }
    }
}
