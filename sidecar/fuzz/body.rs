//! What is tried with arbitrary bytes; the fuzz targets and an ordinary test run the same.
//!
//! The first bytes of the input choose limits, cuts and commands, so that a fuzzer can vary them.

use std::sync::LazyLock;

use sidecar::{
    command::{
        CommandSpec, CommandTable, KeyPositions, Prefix, ReplyRewrite, Stripped, apply_prefix,
        strip_exec_reply, strip_reply,
    },
    resp::{
        reply::{ReplyError, Scanner, Value},
        request::{Limits, Parser, ProtocolError, Step},
    },
};

static TABLE: LazyLock<CommandTable> = LazyLock::new(CommandTable::builtin);

/// Reads the bytes as a pipeline of requests, whole and in pieces: the same commands and the same
/// error, wherever the cuts are, and never more bytes asked for than the command has.
pub fn request(data: &[u8]) {
    let [limits, cuts, wire @ ..] = data else {
        return;
    };
    let limits = match limits % 4 {
        0 => Limits::new(512 << 20),
        1 => Limits::new(100),
        2 => Limits::unauthenticated(),
        _ => Limits {
            max_bulk: 2,
            max_args: 3,
        },
    };
    let mut cuts = Cuts(*cuts);
    let (mut whole, mut pieces) = (Parser::default(), Parser::default());
    let mut rest = wire;
    loop {
        let expected = whole.step(rest, limits);
        let found = in_pieces(&mut pieces, rest, limits, &mut cuts, &expected);
        assert_eq!(found, expected);
        let Ok(Step::Command(len)) = expected else {
            return;
        };
        assert!(len > 0 && len <= rest.len());
        let (mut one, mut other) = (Vec::new(), Vec::new());
        whole.args(rest, &mut one);
        pieces.args(rest, &mut other);
        assert_eq!(one, other);
        whole.reset();
        pieces.reset();
        rest = &rest[len..];
    }
}

fn in_pieces(
    parser: &mut Parser,
    wire: &[u8],
    limits: Limits,
    cuts: &mut Cuts,
    expected: &Result<Step, ProtocolError>,
) -> Result<Step, ProtocolError> {
    let mut end = 0;
    loop {
        end = cuts.after(end, wire.len());
        match parser.step(&wire[..end], limits) {
            Ok(Step::Incomplete(need)) => {
                assert!(need > end, "asks for bytes that are there");
                if let Ok(Step::Command(len)) = expected {
                    assert!(need <= *len, "waits for bytes that never come");
                }
                if end == wire.len() {
                    return Ok(Step::Incomplete(need));
                }
            }
            ended => return ended,
        }
    }
}

/// Measures the bytes as replies, whole and in pieces: the same ends and the same error. What was
/// measured reads the same with and without the bytes that follow.
pub fn reply(data: &[u8]) {
    let [cuts, wire @ ..] = data else { return };
    let _ = Value::read(wire);
    let mut cuts = Cuts(*cuts);
    let (mut whole, mut pieces) = (Scanner::default(), Scanner::default());
    let mut rest = wire;
    loop {
        let expected = whole.step(rest);
        assert_eq!(measured_in_pieces(&mut pieces, rest, &mut cuts), expected);
        let Ok(Some(len)) = expected else { return };
        assert!(len > 0 && len <= rest.len());
        assert_eq!(Value::read(&rest[..len]), Value::read(rest));
        rest = &rest[len..];
    }
}

fn measured_in_pieces(
    scanner: &mut Scanner,
    wire: &[u8],
    cuts: &mut Cuts,
) -> Result<Option<usize>, ReplyError> {
    let mut end = 0;
    loop {
        end = cuts.after(end, wire.len());
        match scanner.step(&wire[..end]) {
            Ok(None) if end < wire.len() => {}
            ended => return ended,
        }
    }
}

/// Puts a prefix on a request made of the bytes, and takes it off the bytes as a reply.
pub fn rewrite(data: &[u8]) {
    let [first, second, rest @ ..] = data else {
        return;
    };
    let chosen = usize::from(u16::from_be_bytes([*first, *second]));
    let prefix = Prefix::new([b"p:".as_slice(), b"a*[", b"\\"][chosen % 3]).expect("not empty");
    let spec = TABLE
        .iter()
        .nth(chosen % TABLE.iter().count())
        .expect("within the table");
    put_on(&prefix, spec, rest);
    for rewrite in ReplyRewrite::ALL {
        take_off(rewrite, &prefix, rest);
    }
    let queued = [
        ReplyRewrite::ALL[chosen % 9],
        ReplyRewrite::ALL[chosen / 9 % 9],
    ];
    let mut out = b"before".to_vec();
    if strip_exec_reply(&queued, &prefix, rest, &mut out).is_err() {
        assert_eq!(out, b"before");
    }
}

/// Arguments end at byte 255, which is in no name and no option.
fn put_on(prefix: &Prefix, spec: &CommandSpec, rest: &[u8]) {
    let mut args: Vec<&[u8]> = spec.name().split('|').map(str::as_bytes).collect();
    args.extend(rest.split(|byte| *byte == 255));
    let mut out = b"before".to_vec();
    let mut found = KeyPositions::new();
    if apply_prefix(prefix, spec, &args, &mut found, &mut out).is_err() {
        assert_eq!(out, b"before");
        return;
    }
    assert!(
        found
            .iter()
            .all(|key| (1..args.len()).contains(&(key.index as usize)))
    );
    let sent = out.strip_prefix(b"before").expect("what was there stays");
    let step = Parser::default().step(sent, Limits::new(512 << 20));
    assert_eq!(
        step,
        Ok(Step::Command(sent.len())),
        "one whole command is sent"
    );
}

fn take_off(rewrite: ReplyRewrite, prefix: &Prefix, frame: &[u8]) {
    let mut out = b"before".to_vec();
    let stripped = strip_reply(rewrite, prefix, frame, &mut out);
    if stripped != Ok(Stripped::Written) {
        assert_eq!(out, b"before");
        return;
    }
    let written = out.strip_prefix(b"before").expect("what was there stays");
    if Scanner::default().step(frame) == Ok(Some(frame.len())) {
        let measured = Scanner::default().step(written);
        assert_eq!(
            measured,
            Ok(Some(written.len())),
            "{rewrite:?}: one whole reply stays one"
        );
    }
}

/// Where the bytes are cut: pieces of 1 to 16 bytes, or none at all.
struct Cuts(u8);

impl Cuts {
    fn after(&mut self, end: usize, len: usize) -> usize {
        self.0 = self.0.wrapping_mul(5).wrapping_add(17);
        let piece = if self.0 >= 250 {
            len
        } else {
            1 + usize::from(self.0 >> 4)
        };
        (end + piece).min(len)
    }
}
