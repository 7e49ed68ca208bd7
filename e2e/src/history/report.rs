//! A violation as people read it: the shortest excerpt of the history that proves it.

use std::fmt::{self, Write as _};

use super::{
    Action, FOREIGN, Fate, History, MILLI, Mark, NIL, Nanos, Op, Via,
    check::{Promise, Verdict, Violation},
};

/// The operations that prove a violation, in the order of time, relative to the first of them.
pub fn excerpt(history: &History, violation: &Violation) -> String {
    let mut text = format!("{}: {}\n", violation.promise, violation.what);
    let mut places = violation.evidence.clone();
    places.sort_unstable();
    places.dedup();
    let mut ops: Vec<&Op> = places
        .iter()
        .filter_map(|place| history.ops.get(*place as usize))
        .collect();
    ops.sort_unstable_by_key(|op| op.begun);
    let first = ops.first().map_or(0, |op| op.begun);
    for op in ops {
        let _ = writeln!(
            text,
            "  {} .. {}  {:<8} client {:<3} {:<8} {} {}",
            millis(op.begun - first),
            millis(op.ended.saturating_sub(first)),
            op.via.to_string(),
            op.client,
            op.verb,
            history.registers[usize::from(op.register)].name,
            op.action
        );
    }
    let _ = writeln!(
        text,
        "  (milliseconds; the first began {:.1} ms into the history)",
        as_millis(first)
    );
    text
}

/// Counts by promise, on one line.
pub fn counts(verdict: &Verdict) -> String {
    let counts: Vec<String> = verdict
        .counts
        .iter()
        .map(|(promise, count)| format!("{count} × {promise}"))
        .collect();
    if counts.is_empty() {
        "no violation".to_owned()
    } else {
        counts.join(", ")
    }
}

/// Milliseconds with a fraction.
pub fn as_millis(nanos: Nanos) -> f64 {
    let micros = u32::try_from(nanos / 1000).unwrap_or(u32::MAX);
    f64::from(micros) / f64::from(u32::try_from(MILLI / 1000).unwrap_or(1))
}

fn millis(nanos: Nanos) -> String {
    format!("{:>10.3}", as_millis(nanos))
}

impl fmt::Display for Via {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(number) => write!(out, "pod {number}"),
            Self::Direct => out.write_str("direct"),
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NothingInvented => "no value that was never written",
            Self::RefusedIsRefused => "refused writes have no effect",
            Self::BoundedStaleness => "bounded staleness (P1)",
            Self::NoLifeAfterExpiry => "no life after expiry",
            Self::ReadYourWrites => "read your writes (P2)",
            Self::MonotonicReads => "monotonic reads (P2)",
            Self::NothingLost => "no lost acknowledged write",
            Self::CountsOnce => "additions count once",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(value) => write!(out, "-> {}", shown(*value)),
            Self::Set { mark, ttl_ms, fate } => {
                write!(out, ":= {}", shown(*mark))?;
                if *ttl_ms > 0 {
                    write!(out, " for {ttl_ms} ms")?;
                }
                write!(out, "{fate}")
            }
            Self::Remove(fate) => write!(out, ":= nothing{fate}"),
            Self::MayVanish => out.write_str("may expire or be evicted"),
            Self::Add { sum, fate } => write!(out, "+1 -> {}{fate}", shown(*sum)),
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Done => "",
            Self::Unknown => " (outcome unknown)",
            Self::Refused => " (refused)",
        })
    }
}

fn shown(mark: Mark) -> String {
    match mark {
        NIL => "nothing".to_owned(),
        FOREIGN => "something foreign".to_owned(),
        mark if mark >> 32 == 0 => mark.to_string(),
        mark => format!("w{}.{}", mark >> 32, mark & 0xffff_ffff),
    }
}
