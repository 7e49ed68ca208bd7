//! Single bits of strings.

use super::argument::{integer, is, parse_integer};
use super::fail::Fail;
use super::run::{Answer, Run};
use super::strings::{byte_range, write_at};
use crate::resp::write::Reply;

/// The byte and the mask of a bit; bits count from the most significant one.
fn place(run: &Run<'_>, offset: &[u8]) -> Result<(usize, u8), Fail> {
    let bit = parse_integer(offset)
        .and_then(|bit| usize::try_from(bit).ok())
        .filter(|bit| bit / 8 < run.call.max_value);
    let bit = bit.ok_or(Fail::Other("bit offset is not an integer or out of range"))?;
    Ok((bit / 8, 0x80 >> (bit % 8)))
}

pub(super) fn getbit(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let (at, mask) = place(run, args[2])?;
    let byte = run
        .string(args[1])?
        .and_then(|text| text.get(at).copied())
        .unwrap_or(0);
    reply.integer(i64::from(byte & mask != 0));
    Ok(())
}

pub(super) fn setbit(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let (at, mask) = place(run, args[2])?;
    let on = match args[3] {
        b"0" => false,
        b"1" => true,
        _ => return Err(Fail::Other("bit is not an integer or out of range")),
    };
    let byte = run
        .string(args[1])?
        .and_then(|text| text.get(at).copied())
        .unwrap_or(0);
    write_at(
        run,
        args[1],
        at,
        &[if on { byte | mask } else { byte & !mask }],
    )?;
    reply.integer(i64::from(byte & mask != 0));
    Ok(())
}

pub(super) fn bitcount(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let (range, in_bits) = match args {
        [_, _] => (None, false),
        [_, _, start, stop] => (Some((start, stop)), false),
        [_, _, start, stop, unit] if is(unit, "BIT") || is(unit, "BYTE") => {
            (Some((start, stop)), is(unit, "BIT"))
        }
        _ => return Err(Fail::Syntax),
    };
    let range = range
        .map(|(start, stop)| Ok((integer(start)?, integer(stop)?)))
        .transpose()?;
    let text = run.string(args[1])?.unwrap_or_default();
    let count: u64 = match range {
        None => ones(text),
        Some((start, stop)) if in_bits => {
            let bits = byte_range(start, stop, text.len() * 8);
            bits.map(|bit| u64::from(text[bit / 8] & (0x80 >> (bit % 8)) != 0))
                .sum()
        }
        Some((start, stop)) => ones(&text[byte_range(start, stop, text.len())]),
    };
    reply.integer(i64::try_from(count).unwrap_or(i64::MAX));
    Ok(())
}

fn ones(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(byte.count_ones())).sum()
}
