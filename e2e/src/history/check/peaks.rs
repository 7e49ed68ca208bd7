//! "The highest of all that happened before": a running maximum over sorted keys.

use super::super::Nanos;

/// Items by key, each with the highest value up to it.
#[derive(Debug, Default)]
pub struct Peaks(Vec<Peak>);

#[derive(Clone, Copy, Debug)]
struct Peak {
    key: Nanos,
    highest: Nanos,
    op: u32,
}

impl Peaks {
    /// Of (key, value, operation).
    pub fn of(items: impl IntoIterator<Item = (Nanos, Nanos, u32)>) -> Self {
        let mut peaks: Vec<Peak> = items
            .into_iter()
            .map(|(key, highest, op)| Peak { key, highest, op })
            .collect();
        peaks.sort_unstable_by_key(|peak| peak.key);
        let mut best: Option<Peak> = None;
        for peak in &mut peaks {
            match best {
                Some(best) if best.highest >= peak.highest => {
                    (peak.highest, peak.op) = (best.highest, best.op);
                }
                _ => best = Some(*peak),
            }
        }
        Self(peaks)
    }

    /// The highest value of all items with a key below `before`, and its operation.
    pub fn before(&self, before: Nanos) -> Option<(Nanos, u32)> {
        let count = self.0.partition_point(|peak| peak.key < before);
        let peak = self.0.get(count.checked_sub(1)?)?;
        Some((peak.highest, peak.op))
    }
}

/// "The lowest of all that begin after", as [`Peaks`] of complements.
#[derive(Debug, Default)]
pub struct Valleys(Peaks);

impl Valleys {
    /// Of (key, value, operation).
    pub fn of(items: impl IntoIterator<Item = (Nanos, Nanos, u32)>) -> Self {
        Self(Peaks::of(
            items.into_iter().map(|(key, value, op)| (!key, !value, op)),
        ))
    }

    /// The lowest value of all items with a key above `after`, and its operation.
    pub fn after(&self, after: Nanos) -> Option<(Nanos, u32)> {
        self.0.before(!after).map(|(value, op)| (!value, op))
    }
}
