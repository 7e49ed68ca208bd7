//! What a writer was told: every acknowledged write and when, and what became of them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The acknowledged writes of one writer, in order.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Numbers of the acknowledged writes, and when they were.
    pub acknowledged: Vec<(u64, Instant)>,
    /// Errors that the writer was told, with how often.
    pub errors: BTreeMap<String, u32>,
    /// Acknowledged writes that were not there at the end.
    pub lost: Vec<(u64, Instant)>,
}

impl Record {
    /// The longest time between two acknowledged writes.
    pub fn longest_pause(&self) -> Duration {
        let pairs = self.acknowledged.windows(2);
        pairs
            .map(|two| two[1].1 - two[0].1)
            .max()
            .unwrap_or_default()
    }

    /// The time over which the lost writes were acknowledged.
    pub fn window_of_loss(&self) -> Duration {
        match (self.lost.first(), self.lost.last()) {
            (Some(first), Some(last)) => last.1 - first.1,
            _ => Duration::ZERO,
        }
    }

    /// One line about it.
    pub fn summary(&self) -> String {
        let lost = match self.lost.len() {
            0 => "0 lost".to_owned(),
            some => format!("{some} lost within {:.1?}", self.window_of_loss()),
        };
        format!(
            "longest pause {:.2?}, {} writes acknowledged, {lost}, errors {:?}",
            self.longest_pause(),
            self.acknowledged.len(),
            self.errors
        )
    }
}
