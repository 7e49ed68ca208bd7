//! When keys end: the `EXPIRE` and `TTL` families.
//!
//! Apps count in seconds or milliseconds, from now or from the epoch; the keyspace keeps
//! monotonic milliseconds.

use super::argument::{integer, is};
use super::fail::Fail;
use super::keyspace::NEVER;
use super::run::{Answer, Run};
use crate::resp::write::Reply;

/// How an app says when.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    UnixSeconds,
    UnixMilliseconds,
}

impl Unit {
    /// The option of `SET` and `GETEX`.
    pub fn named(option: &[u8]) -> Option<Self> {
        let units = [
            ("EX", Self::Seconds),
            ("PX", Self::Milliseconds),
            ("EXAT", Self::UnixSeconds),
            ("PXAT", Self::UnixMilliseconds),
        ];
        units
            .into_iter()
            .find(|(name, _)| is(option, name))
            .map(|(_, unit)| unit)
    }

    /// Milliseconds since the epoch, unless it overflows.
    fn unix(self, run: &Run<'_>, value: i64) -> Option<i64> {
        let value = match self {
            Self::Seconds | Self::UnixSeconds => value.checked_mul(1000)?,
            Self::Milliseconds | Self::UnixMilliseconds => value,
        };
        match self {
            Self::Seconds | Self::Milliseconds => value.checked_add(run.now + run.offset),
            Self::UnixSeconds | Self::UnixMilliseconds => Some(value),
        }
    }
}

/// The deadline that an option of `SET`, `GETEX`, `SETEX` asks for; it must be positive.
pub(super) fn deadline_for(run: &Run<'_>, value: &[u8], unit: Unit) -> Result<i64, Fail> {
    let value = integer(value)?;
    let when = if value > 0 {
        unit.unix(run, value)
    } else {
        None
    };
    when.map(|unix| monotonic(run, unix))
        .ok_or(Fail::ExpireTime(run.command))
}

fn monotonic(run: &Run<'_>, unix: i64) -> i64 {
    unix.saturating_sub(run.offset).min(NEVER - 1)
}

pub(super) fn expire(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    expire_in(run, args, Unit::Seconds, reply)
}

pub(super) fn pexpire(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    expire_in(run, args, Unit::Milliseconds, reply)
}

pub(super) fn expireat(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    expire_in(run, args, Unit::UnixSeconds, reply)
}

pub(super) fn pexpireat(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    expire_in(run, args, Unit::UnixMilliseconds, reply)
}

/// `NX`, `XX`, `GT`, `LT`.
#[derive(Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "four options that an app may combine"
)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(args: &[&[u8]]) -> Result<Self, Fail> {
        let mut found = Self::default();
        for option in args {
            let flag = [
                ("NX", &mut found.nx),
                ("XX", &mut found.xx),
                ("GT", &mut found.gt),
                ("LT", &mut found.lt),
            ]
            .into_iter()
            .find(|(name, _)| is(option, name));
            let Some((_, flag)) = flag else {
                // Redis prints the option as a C string.
                let shown = option.split(|byte| *byte == 0).next().unwrap_or_default();
                let shown = String::from_utf8_lossy(shown).into_owned();
                return Err(Fail::UnsupportedOption(shown));
            };
            *flag = true;
        }
        if found.nx && (found.xx || found.gt || found.lt) {
            return Err(Fail::Other(
                "NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if found.gt && found.lt {
            return Err(Fail::Other(
                "GT and LT options at the same time are not compatible",
            ));
        }
        Ok(found)
    }

    /// Whether a deadline may follow another; none is later than any.
    fn allow(&self, from: i64, to: i64) -> bool {
        !(self.nx && from != NEVER
            || self.xx && from == NEVER
            || self.gt && to <= from
            || self.lt && to >= from && from != NEVER)
    }
}

fn expire_in(run: &mut Run<'_>, args: &[&[u8]], unit: Unit, reply: &mut Reply<'_>) -> Answer {
    let conditions = Conditions::parse(&args[3..])?;
    let when = integer(args[2])?;
    let when = unit.unix(run, when).ok_or(Fail::ExpireTime(run.command))?;
    let deadline = monotonic(run, when);
    let applies = match run.object(args[1]) {
        Some(object) => conditions.allow(object.deadline, deadline),
        None => false,
    };
    if applies && deadline <= run.now {
        run.take(args[1]);
    } else if applies {
        run.set_deadline(args[1], deadline);
    }
    reply.integer(i64::from(applies));
    Ok(())
}

pub(super) fn persist(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    let had = run.deadline(args[1]) != NEVER;
    if had {
        run.set_deadline(args[1], NEVER);
    }
    reply.integer(i64::from(had));
    Ok(())
}

pub(super) fn ttl(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    answer_deadline(
        run,
        args[1],
        |run, deadline| seconds(deadline - run.now),
        reply,
    )
}

pub(super) fn pttl(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    answer_deadline(run, args[1], |run, deadline| deadline - run.now, reply)
}

pub(super) fn expiretime(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    answer_deadline(
        run,
        args[1],
        |run, deadline| seconds(deadline.saturating_add(run.offset)),
        reply,
    )
}

pub(super) fn pexpiretime(run: &mut Run<'_>, args: &[&[u8]], reply: &mut Reply<'_>) -> Answer {
    answer_deadline(
        run,
        args[1],
        |run, deadline| deadline.saturating_add(run.offset),
        reply,
    )
}

fn answer_deadline(
    run: &mut Run<'_>,
    key: &[u8],
    form: impl FnOnce(&Run<'_>, i64) -> i64,
    reply: &mut Reply<'_>,
) -> Answer {
    let deadline = run.object(key).map(|object| object.deadline);
    reply.integer(match deadline {
        None => -2,
        Some(NEVER) => -1,
        Some(deadline) => form(run, deadline),
    });
    Ok(())
}

/// Redis rounds to the nearest second.
fn seconds(milliseconds: i64) -> i64 {
    milliseconds.saturating_add(500) / 1000
}
