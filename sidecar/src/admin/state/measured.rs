//! What was measured about coherence, in words and figures.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    clock::Tick, measure::recent::Summary, metrics::Probed, presence::State, state::Shared,
};

/// How long invalidations took in the last minute.
pub(super) fn staleness(shared: &Shared) -> Value {
    let Summary {
        count,
        p50,
        p99,
        max,
    } = shared.measured.staleness.lock().summary(Tick::now());
    let refused = shared.measured.probe_refused.lock().clone();
    let (state, words) = match (&refused, count) {
        (Some(why), _) => (
            "Refused",
            format!("not measured: Redis refuses to GET or SET the keys pannier:probe:*: {why}"),
        ),
        (None, 0) => ("None", "nothing was measured in the last minute".to_owned()),
        (None, _) => (
            "Measured",
            "from sending a write to the arrival of its invalidation, in the last minute"
                .to_owned(),
        ),
    };
    let of = |span: Duration| (count > 0).then(|| millis(span));
    json!({
        "state": state,
        "words": words,
        "probes": count,
        "p50Millis": of(p50),
        "p99Millis": of(p99),
        "maxMillis": of(max),
        "lost": shared.sum(|counters| &counters.probes[Probed::Lost as usize]),
    })
}

/// Whether this sidecar is known to the others of its tier.
pub(super) fn sidecars(shared: &Shared) -> Value {
    let (state, live, words) = match shared.presence.state() {
        State::Off => (
            "Off",
            None,
            "not announced: there is no Redis, or sidecar.heartbeat is 0s".to_owned(),
        ),
        State::Announced(live) => (
            "Announced",
            Some(live),
            "known to the other sidecars of the tier".to_owned(),
        ),
        State::Unknown(why) => ("Unknown", None, format!("not announced: {why}")),
    };
    json!({"state": state, "words": words, "live": live, "id": shared.measured.id})
}

/// With three digits, so that a push over loopback is not 0.
fn millis(span: Duration) -> f64 {
    let micros = u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}
