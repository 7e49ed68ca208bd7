//! Bugs on purpose, one per rule of coherence: the history checker must find each of them.
//!
//! Without the cargo feature `planted-bugs` every question here is answered "no" while compiling,
//! and nothing of this file is left in the program. With it, `PANNIER_PLANT=<name>` switches one
//! bug on.

use std::rc::Rc;

use crate::{engine::flight::Flight, worker::Worker};

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Rule 1: fills are applied later than the pushes that came before them, without a token.
    LateFill,
    /// Rule 2: an entry lives longer than its key.
    Expiry,
    /// Rule 3: a lost connection leaves its entries valid.
    Epoch,
    /// Rule 4: writes through the sidecar do not touch the local tier.
    WriteMarks,
    /// Rule 5: entries of a link that has not proved itself are served.
    Proof,
    /// Rule 5: a proof is dated by its arrival.
    ProofDate,
    /// Rule 6: a flush of the server is not heard.
    NullPush,
    /// Rule 6: keys that are no UTF-8 are not heard.
    TextKeys,
    /// Rule 7: what a transaction wrote is not dropped.
    TransactionKeys,
    /// Rule 7: what a script wrote is not dropped.
    ScriptKeys,
    /// Rule 8: the local tier is filled from a replica.
    Replica,
    /// Rule 9: the published bound is not the one that is kept.
    Bound,
    /// Time is read from the wall clock.
    WallClock,
    /// Promise P2: a read joins another that a write has overtaken.
    Join,
}

/// Whether that bug is planted.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
#[allow(clippy::inline_always, reason = "nothing may be left on the hot path")]
pub const fn is(_: Bug) -> bool {
    false
}

/// Whether that bug is planted.
#[cfg(feature = "planted-bugs")]
#[inline]
pub fn is(bug: Bug) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    *PLANTED.get_or_init(chosen) == Some(bug)
}

/// Whether any bug is planted: then nothing but the checker is to find it.
pub const fn hides_measurements() -> bool {
    cfg!(feature = "planted-bugs")
}

#[cfg(feature = "planted-bugs")]
fn chosen() -> Option<Bug> {
    let name = std::env::var("PANNIER_PLANT").ok()?;
    Some(match name.as_str() {
        "late-fill" => Bug::LateFill,
        "expiry" => Bug::Expiry,
        "epoch" => Bug::Epoch,
        "write-marks" => Bug::WriteMarks,
        "proof" => Bug::Proof,
        "proof-date" => Bug::ProofDate,
        "null-push" => Bug::NullPush,
        "text-keys" => Bug::TextKeys,
        "transaction-keys" => Bug::TransactionKeys,
        "script-keys" => Bug::ScriptKeys,
        "replica" => Bug::Replica,
        "bound" => Bug::Bound,
        "wall-clock" => Bug::WallClock,
        "join" => Bug::Join,
        other => {
            tracing::error!(name = other, "PANNIER_PLANT names no bug");
            std::process::exit(2);
        }
    })
}

/// [`Bug::LateFill`]: keeps the reply two milliseconds later; whether it took that on.
pub fn keeps_late(flight: &Rc<Flight>, worker: &Rc<Worker>, frame: &[u8]) -> bool {
    if !is(Bug::LateFill) {
        return false;
    }
    let (flight, worker, frame) = (Rc::clone(flight), Rc::clone(worker), frame.to_vec());
    tokio::task::spawn_local(async move {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        flight.keep(&worker, &frame);
    });
    true
}

/// [`Bug::Replica`]: tracked links lead to `PANNIER_PLANT_REPLICA`, a port of this host.
pub fn port(tracking: bool, port: u16) -> u16 {
    if !tracking || !is(Bug::Replica) {
        return port;
    }
    let replica = std::env::var("PANNIER_PLANT_REPLICA").ok();
    replica.and_then(|text| text.parse().ok()).unwrap_or(port)
}
