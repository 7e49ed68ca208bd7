//! Pauses between connection attempts: exponential, bounded, with full jitter, so that the
//! sidecars of a thousand pods do not come back in step.

use std::time::Duration;

/// The least share of a pause that jitter leaves.
const LEAST: f64 = 0.1;

/// The pauses of one link.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Pauses between `base` and `max`.
    pub fn new(base: Duration, max: Duration) -> Self {
        Self {
            base,
            max,
            failures: 0,
        }
    }

    /// The next pause; `random` is uniform over all of `u32`.
    pub fn next(&mut self, random: u32) -> Duration {
        let ceiling = self
            .base
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = (self.failures + 1).min(31);
        // A pause of nearly nothing would be no back-off.
        let share = (f64::from(random) / f64::from(u32::MAX)).max(LEAST);
        ceiling.min(self.max).mul_f64(share)
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_differ_by_jitter() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(50), ms(400));
        let longest: Vec<_> = (0..6).map(|_| backoff.next(u32::MAX)).collect();
        assert_eq!(
            longest,
            [ms(50), ms(100), ms(200), ms(400), ms(400), ms(400)]
        );
        backoff.reset();
        assert_eq!(backoff.next(0), ms(5));
    }
}
