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
    // As in redis-server, a missing key is 0 whatever the other arguments are.
    let count = match run.string(args[1])? {
        Some(text) => count_in(text, &args[2..])?,
        None => 0,
    };
    reply.integer(i64::try_from(count).unwrap_or(i64::MAX));
    Ok(())
}

fn count_in(text: &[u8], range: &[&[u8]]) -> Result<u64, Fail> {
    let (start, stop, unit) = match range {
        [] => return Ok(ones(text)),
        [start, stop] => (integer(start)?, integer(stop)?, None),
        [start, stop, unit] => (integer(start)?, integer(stop)?, Some(unit)),
        _ => return Err(Fail::Syntax),
    };
    if start < 0 && stop < 0 && start > stop {
        return Ok(0);
    }
    match unit {
        Some(unit) if is(unit, "BIT") => {
            let bits = byte_range(start, stop, text.len() * 8);
            Ok(bits
                .map(|bit| u64::from(text[bit / 8] & (0x80 >> (bit % 8)) != 0))
                .sum())
        }
        Some(unit) if !is(unit, "BYTE") => Err(Fail::Syntax),
        _ => Ok(ones(&text[byte_range(start, stop, text.len())])),
    }
}

fn ones(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(byte.count_ones())).sum()
}
