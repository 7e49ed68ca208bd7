//! TTLs that rules give to writes: default, cap, jitter.
//!
//! A `SET` without TTL gets `PX` added; a TTL above the cap is cut; a write that cannot carry a
//! TTL (`INCR`, `HSET`, `MSET` …) is followed by `PEXPIRE key ttl NX` on the same connection, so
//! that a TTL which the key already has stays as it is. Keys that no rule matches are left alone.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use policy::{compile::CompiledRule, ttl::effective_ttl};
use smallvec::SmallVec;

use super::{Request, Turn, forward::Ruled};
use crate::command::{CommandId, KeyFlags};

/// How a command's words change.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Not at all.
    Nothing,
    /// `PX millis` is added.
    AppendPx(u64),
    /// A TTL is cut: this word becomes that number.
    Replace(usize, u64),
}

/// A changed command and what follows it.
#[derive(Debug)]
pub struct Adjusted {
    /// The command itself.
    pub change: Change,
    /// Keys, as indices of words, that get `PEXPIRE key millis NX` afterwards.
    pub follow: SmallVec<[(u32, u64); 2]>,
}

impl std::ops::Deref for Adjusted {
    type Target = Change;

    fn deref(&self) -> &Change {
        &self.change
    }
}

impl Change {
    /// The words of the changed command.
    pub fn apply<'a>(&self, args: &[&'a [u8]]) -> SmallVec<[Cow<'a, [u8]>; 8]> {
        let mut words: SmallVec<[Cow<'a, [u8]>; 8]> =
            args.iter().map(|arg| Cow::Borrowed(*arg)).collect();
        match self {
            Self::Nothing => {}
            Self::AppendPx(millis) => {
                words.push(Cow::Borrowed(b"PX"));
                words.push(Cow::Owned(millis.to_string().into_bytes()));
            }
            Self::Replace(index, number) => {
                words[*index] = Cow::Owned(number.to_string().into_bytes());
            }
        }
        words
    }
}

/// How a number in a command gives a TTL.
#[derive(Clone, Copy)]
enum Unit {
    Seconds,
    Millis,
    UnixSeconds,
    UnixMillis,
}

/// Applies the rules of the written keys.
pub fn adjust(turn: &Turn<'_>, request: Request<'_>, ruled: &Ruled) -> Adjusted {
    let mut adjusted = Adjusted {
        change: Change::Nothing,
        follow: SmallVec::new(),
    };
    if ruled.managed.is_empty() {
        return adjusted;
    }
    let args = request.args;
    let first = turn.active.policy.rule(ruled.managed[0].1);
    let random = || turn.worker.random();
    match request.spec.id() {
        CommandId::Set => adjusted.change = set(args, first, random()),
        CommandId::Setex => adjusted.change = cap(args, 2, Unit::Seconds, first),
        CommandId::Psetex => adjusted.change = cap(args, 2, Unit::Millis, first),
        CommandId::Expire => adjusted.change = cap(args, 2, Unit::Seconds, first),
        CommandId::Pexpire => adjusted.change = cap(args, 2, Unit::Millis, first),
        CommandId::Expireat => adjusted.change = cap(args, 2, Unit::UnixSeconds, first),
        CommandId::Pexpireat => adjusted.change = cap(args, 2, Unit::UnixMillis, first),
        CommandId::Getex => {
            if let Some((index, unit)) = ttl_option(args, 2) {
                adjusted.change = cap(args, index, unit, first);
            } else if args.len() > 2 {
                follow_cap(&mut adjusted, ruled, first);
            }
        }
        CommandId::Persist => follow_cap(&mut adjusted, ruled, first),
        _ => {
            for (index, rule, flags) in &ruled.managed {
                // Commands that only take away leave nothing that could need a TTL.
                if !flags.has(KeyFlags::INSERT)
                    && !flags.has(KeyFlags::UPDATE)
                    && !flags.has(KeyFlags::OW)
                {
                    continue;
                }
                let rule = turn.active.policy.rule(*rule);
                if let Some(ttl) = effective_ttl(None, rule, random()) {
                    adjusted.follow.push((*index, millis(local(rule, ttl))));
                }
            }
        }
    }
    adjusted
}

/// A `LocalOnly` key lives no longer than its local TTL.
fn local(rule: &CompiledRule, ttl: Duration) -> Duration {
    match (rule.cache, rule.local_ttl) {
        (policy::config::CacheMode::LocalOnly, Some(local)) => ttl.min(local),
        _ => ttl,
    }
}

fn set(args: &[&[u8]], rule: &CompiledRule, random: u32) -> Change {
    if let Some((index, unit)) = ttl_option(args, 3) {
        return cap(args, index, unit, rule);
    }
    let keeps = args
        .iter()
        .skip(3)
        .any(|arg| arg.eq_ignore_ascii_case(b"KEEPTTL"));
    match effective_ttl(None, rule, random) {
        Some(ttl) if !keeps && args.len() >= 3 => Change::AppendPx(millis(local(rule, ttl))),
        _ => Change::Nothing,
    }
}

/// The number behind `EX`, `PX`, `EXAT` or `PXAT`.
fn ttl_option(args: &[&[u8]], from: usize) -> Option<(usize, Unit)> {
    args.iter().enumerate().skip(from).find_map(|(index, arg)| {
        let unit = [
            (b"EX".as_slice(), Unit::Seconds),
            (b"PX", Unit::Millis),
            (b"EXAT", Unit::UnixSeconds),
            (b"PXAT", Unit::UnixMillis),
        ]
        .into_iter()
        .find(|(name, _)| arg.eq_ignore_ascii_case(name))?
        .1;
        Some((index + 1, unit))
    })
}

/// Cuts the TTL in `args[index]` to the cap. What is no positive number is left to Redis.
fn cap(args: &[&[u8]], index: usize, unit: Unit, rule: &CompiledRule) -> Change {
    let number = args
        .get(index)
        .and_then(|arg| std::str::from_utf8(arg).ok()?.parse::<u64>().ok());
    let (Some(number), Some(max)) = (number, rule.ttl_max) else {
        return Change::Nothing;
    };
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let limit = match unit {
        Unit::Seconds => max.as_secs().max(1),
        Unit::Millis => millis(max),
        Unit::UnixSeconds => (since_epoch + max).as_secs(),
        Unit::UnixMillis => millis(since_epoch + max),
    };
    if number > limit {
        Change::Replace(index, limit)
    } else {
        Change::Nothing
    }
}

/// A command that takes a TTL away: the cap remains.
fn follow_cap(adjusted: &mut Adjusted, ruled: &Ruled, rule: &CompiledRule) {
    if let Some(max) = rule.ttl_max {
        adjusted.follow.push((ruled.managed[0].0, millis(max)));
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1)
}
