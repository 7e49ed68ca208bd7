//! What answers and pushes say about the entries of the local tier.

use super::Target;
use crate::{
    clock::Tick,
    measure,
    metrics::Flush,
    planted::{self, Bug},
    resp::reply::{Value, integer, is_error},
    upstream::{Link, Lost},
    worker::Worker,
};

/// All changes that were announced before that time have arrived.
pub(super) fn prove(link: &Link, worker: &Worker, sent: Tick) {
    if let Some(tier) = &link.tier
        && link.fills.get()
    {
        let dated = if planted::is(Bug::ProofDate) {
            worker.now()
        } else {
            sent
        };
        tier.prove(dated, worker.max_staleness());
    }
}

/// Whose question was answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A read that an app waits for.
    ByApps,
    /// A keyed read that does nothing else.
    ForProof,
    /// A second one, sent when the first was answered.
    ForSecondProof,
}

/// A keyed read was answered. The errors that come of the key or the user are answers of a server
/// that lives; `ERR` to an app's read may come of its arguments and says nothing. Any other error
/// is a doubt: the server is loading, cut off from its primary, out of its cluster.
pub(super) fn witness(link: &Link, worker: &Worker, sent: Tick, frame: &[u8], asked: Asked) {
    let code = |code: &[u8]| frame.starts_with(code);
    if !is_error(frame) || code(b"-NOPERM") || code(b"-WRONGTYPE") {
        return match asked {
            Asked::ForProof if worker.announces_late() => {
                worker.ask_for_proof(link, Target::SecondProof(sent));
            }
            // The announcements may still be behind the answer.
            Asked::ByApps if worker.announces_late() => {}
            _ => prove(link, worker, sent),
        };
    }
    let Some(tier) = &link.tier else { return };
    if asked == Asked::ByApps && code(b"-ERR") {
        return;
    }
    worker.shared.topology.doubt();
    // Once per doubt, not per command that is answered like that.
    if tier.break_proof() {
        worker.counters.flushes[Flush::Doubt as usize].inc();
        let answer = String::from_utf8_lossy(&frame[1..]);
        tracing::warn!(
            answer = answer.trim_end(),
            "redis is in doubt; the local tier was flushed"
        );
    }
}

/// A server that answers `PTTL` or `EXISTS` with something else has lost its place: what follows
/// would go to the wrong readers.
pub(super) fn expect_integer(frame: &[u8]) -> Result<(), Lost> {
    if is_error(frame) || integer(frame).is_some() {
        return Ok(());
    }
    Err(Lost::Broken(
        "the server sent something else where an integer was due".into(),
    ))
}

/// A push on a tracked link: `>2 invalidate [key …]`, or null for everything. What says that it is
/// an invalidation and cannot be read is one that was lost: the link is given up, and its entries
/// with it (P4). Pushes of other kinds are none of our business, as RESP3 wants it.
pub fn pushed(link: &Link, frame: &[u8]) -> Result<(), Lost> {
    let worker = link.worker();
    let push = Value::read(frame);
    let parts = match &push {
        Ok(Value::List(parts)) => parts.as_slice(),
        _ => return Err(unreadable()),
    };
    match parts {
        [Value::Text(b"invalidate"), Value::List(keys)] if !keys.is_empty() => {
            let active = worker.active();
            for key in keys {
                let Value::Text(key) = key else {
                    return Err(unreadable());
                };
                let own = match &active.prefix {
                    None => Some(*key),
                    Some(prefix) => key.strip_prefix(prefix.raw()),
                };
                if !own.is_some_and(|key| measure::probe::arrived(link, key)) {
                    worker.counters.invalidations.inc();
                }
                if let Some(key) = own
                    && !(planted::is(Bug::TextKeys) && std::str::from_utf8(key).is_err())
                {
                    measure::unfounded::arrived(link, key);
                    worker.shared.tier.invalidate(key);
                }
            }
        }
        [Value::Text(b"invalidate"), Value::Null] if planted::is(Bug::NullPush) => {}
        [Value::Text(b"invalidate"), Value::Null] => {
            worker.counters.flushes[Flush::ServerFlush as usize].inc();
            worker.shared.tier.flush();
            measure::probe::abandon(link);
        }
        [Value::Text(kind), ..] if *kind != b"invalidate" && *kind != TRACKING_BROKEN => {}
        _ => return Err(unreadable()),
    }
    Ok(())
}

/// The push that says that invalidations will not come any longer.
const TRACKING_BROKEN: &[u8] = b"tracking-redir-broken";

fn unreadable() -> Lost {
    Lost::Broken("the server sent an invalidation that cannot be read".into())
}
