//! What the sidecars of a tier say about themselves in Redis, added up. The names of the keys and
//! the fields of a record are those of `sidecar/src/presence`; a test with a real sidecar holds
//! the two together.

use crds::condition::SidecarsStatus;
use serde::Deserialize;

/// Sidecars that are read at most.
pub const LISTED: usize = 1000;

/// Sorted set of the ids of the sidecars of `tier`, `namespace/name`.
pub fn index(prefix: &str, tier: &str) -> String {
    format!("{prefix}pannier:sidecars:{{{tier}}}")
}

/// What one of them says.
pub fn record(prefix: &str, tier: &str, id: &str) -> String {
    format!("{prefix}pannier:sidecar:{{{tier}}}:{id}")
}

/// The part of a record that is added up.
#[derive(Debug, Deserialize)]
struct Record {
    generation: u64,
    hits: u64,
    misses: u64,
    coherence: String,
}

/// Adds records up; what is not one is a sidecar that is gone, or of another age.
pub fn sum<'a>(records: impl Iterator<Item = &'a [u8]>, generation: u64) -> SidecarsStatus {
    let mut sum = SidecarsStatus::default();
    let (mut hits, mut reads) = (0_u64, 0_u64);
    for record in records {
        let Ok(record) = serde_json::from_slice::<Record>(record) else {
            continue;
        };
        sum.live += 1;
        sum.current += u32::from(record.generation == generation);
        sum.degraded += u32::from(record.coherence == "Degraded");
        hits = hits.saturating_add(record.hits);
        reads = reads
            .saturating_add(record.hits)
            .saturating_add(record.misses);
    }
    let percent = (hits.saturating_mul(100).saturating_add(reads / 2)).checked_div(reads);
    sum.hit_ratio_percent = percent.and_then(|percent| u32::try_from(percent).ok());
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sidecars_are_counted_and_their_hits_rounded() {
        let one =
            br#"{"id": "a", "generation": 2, "hits": 2, "misses": 1, "coherence": "Tracking"}"#;
        let two =
            br#"{"id": "b", "generation": 1, "hits": 0, "misses": 0, "coherence": "Degraded"}"#;
        let all = [one.as_slice(), two, b"", b"text", b"{}"];
        let sum = sum(all.into_iter(), 2);
        assert_eq!((sum.live, sum.current, sum.degraded), (2, 1, 1));
        assert_eq!(sum.hit_ratio_percent, Some(67));
        assert_eq!(super::sum(std::iter::empty(), 1).hit_ratio_percent, None);
    }
}
