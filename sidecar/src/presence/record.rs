//! What a sidecar says about itself: names, versions and figures; never a key, a value or a
//! secret (P10).

use std::{
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value as Json, json};

use crate::{
    clock::Tick,
    metrics::rules::RuleFigures,
    state::{CoherenceState, Shared},
};

/// Records of other sidecars that are longer are not read.
const MAX_SIZE: usize = 4096;
/// Longest name of a pod; Kubernetes has the same limit.
const MAX_POD: usize = 253;

/// This sidecar's record.
pub fn of(shared: &Shared) -> Json {
    let active = shared.active();
    let tier = shared.tier.stats();
    let RuleFigures { hits, misses, .. } = RuleFigures::total(&shared.counters);
    let staleness = shared.measured.staleness.lock().summary(Tick::now());
    let p99 = (staleness.count > 0).then(|| u64::try_from(staleness.p99.as_micros()).ok());
    json!({
        "id": shared.measured.id,
        "pod": pod(),
        "version": env!("CARGO_PKG_VERSION"),
        "generation": active.config.generation,
        "startedAtMillis": started_at(),
        "hits": hits,
        "misses": misses,
        "entries": tier.entries,
        "bytes": tier.bytes,
        "mode": shared.serving.mode().name(),
        "coherence": match shared.upstream.facts().coherence {
            CoherenceState::Idle => "Idle",
            CoherenceState::Tracking => "Tracking",
            CoherenceState::Broadcast => "Broadcast",
            CoherenceState::TtlOnly => "TtlOnly",
            CoherenceState::Degraded(_) => "Degraded",
        },
        "stalenessP99Micros": p99.flatten(),
    })
}

/// A record as another sidecar, perhaps of another version, wrote it; `None` if it is not one.
pub(super) fn read(bytes: &[u8]) -> Option<Map<String, Json>> {
    if bytes.len() > MAX_SIZE {
        return None;
    }
    let Ok(Json::Object(record)) = serde_json::from_slice(bytes) else {
        return None;
    };
    // Numbers, words and null: what can be shown in one line.
    let flat = record
        .values()
        .all(|value| !value.is_array() && !value.is_object());
    flat.then_some(record)
}

/// The pod's name from `POD_NAME`, or the machine's.
fn pod() -> &'static str {
    static POD: OnceLock<String> = OnceLock::new();
    POD.get_or_init(|| {
        let name = std::env::var("POD_NAME")
            .or_else(|_| std::env::var("HOSTNAME"))
            .or_else(|_| std::fs::read_to_string("/etc/hostname"))
            .unwrap_or_default();
        name.trim().chars().take(MAX_POD).collect()
    })
}

fn started_at() -> u64 {
    static STARTED: OnceLock<u64> = OnceLock::new();
    *STARTED.get_or_init(|| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let up = Tick::now().since(Tick(0));
        u64::try_from(now.saturating_sub(up).as_millis()).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_record_is_left_out() {
        assert!(read(br#"{"id": "a", "hits": 3, "stalenessP99Micros": null}"#).is_some());
        for bytes in [
            b"".as_slice(),
            b"text",
            b"[1]",
            br#"{"id": ["a"]}"#,
            br#"{"id": {"a": 1}}"#,
            &[b' '; MAX_SIZE + 1],
        ] {
            assert_eq!(read(bytes), None);
        }
    }
}
