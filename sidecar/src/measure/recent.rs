//! The durations of the last minute: median, 99th percentile and largest.

use std::{collections::VecDeque, time::Duration};

use crate::clock::Tick;

/// How far back figures go.
const WINDOW: Duration = Duration::from_mins(1);
/// Most durations that are kept; with more per minute the figures cover less than a minute.
const KEPT: usize = 4096;

/// Durations of the last minute.
#[derive(Debug, Default)]
pub struct Recent(VecDeque<(Tick, Duration)>);

/// What they come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many there are; the others are zero when there are none.
    pub count: usize,
    /// Half took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// None took longer.
    pub max: Duration,
}

impl Recent {
    /// One more.
    pub fn add(&mut self, now: Tick, took: Duration) {
        self.forget(now);
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((now, took));
    }

    /// The figures of the minute before `now`.
    pub fn summary(&mut self, now: Tick) -> Summary {
        self.forget(now);
        let mut sorted: Vec<Duration> = self.0.iter().map(|(_, took)| *took).collect();
        sorted.sort_unstable();
        let Some(max) = sorted.last() else {
            return Summary::default();
        };
        // The smallest value that so many percent do not exceed.
        let percentile = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100) - 1];
        Summary {
            count: sorted.len(),
            p50: percentile(50),
            p99: percentile(99),
            max: *max,
        }
    }

    fn forget(&mut self, now: Tick) {
        while self
            .0
            .front()
            .is_some_and(|(at, _)| now.since(*at) > WINDOW)
        {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_durations_that_were_measured() {
        let mut recent = Recent::default();
        assert_eq!(recent.summary(Tick(0)), Summary::default());
        for millis in (1..=200).rev() {
            recent.add(Tick(0), Duration::from_millis(millis));
        }
        let ms = Duration::from_millis;
        let summary = recent.summary(Tick(0));
        assert_eq!(
            (summary.count, summary.p50, summary.p99, summary.max),
            (200, ms(100), ms(198), ms(200))
        );
    }

    #[test]
    fn what_is_older_than_a_minute_does_not_count() {
        let mut recent = Recent::default();
        recent.add(Tick(0), Duration::from_secs(9));
        let later = Tick(0) + Duration::from_secs(30);
        recent.add(later, Duration::from_millis(1));
        assert_eq!(recent.summary(later).max, Duration::from_secs(9));
        let latest = Tick(0) + Duration::from_secs(61);
        assert_eq!(recent.summary(latest).max, Duration::from_millis(1));
    }

    #[test]
    fn the_number_of_durations_is_bounded() {
        let mut recent = Recent::default();
        for _ in 0..3 * KEPT {
            recent.add(Tick(0), Duration::ZERO);
        }
        assert_eq!(recent.summary(Tick(0)).count, KEPT);
    }
}
