//! When a resource that failed is tried again: exponential, with jitter, each resource by itself.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use parking_lot::Mutex;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_mins(2);

/// Failures in a row by resource.
#[derive(Default)]
pub struct Retries {
    failures: Mutex<HashMap<String, u32>>,
    random: RandomState,
}

impl Retries {
    /// The pause after one more failure of `resource`; not shorter than asked for.
    pub fn failed(&self, resource: &str, asked: Option<Duration>) -> Duration {
        let count = {
            let mut failures = self.failures.lock();
            let count = failures.entry(resource.to_owned()).or_default();
            *count = count.saturating_add(1);
            *count
        };
        let chance = self.random.hash_one((resource, count));
        let own = pause(FIRST, LONGEST, count, chance);
        // Beyond what was asked for: many were asked at once.
        asked.map_or(own, |asked| asked + own)
    }

    /// `resource` is well, or gone.
    pub fn forget(&self, resource: &str) {
        self.failures.lock().remove(resource);
    }
}

/// The pause after `count` failures in a row: between half and all of what it may be, by `chance`,
/// so that those who failed together do not come back together.
pub fn pause(first: Duration, longest: Duration, count: u32, chance: u64) -> Duration {
    let doubled = count.saturating_sub(1).min(16);
    let full = first.saturating_mul(1 << doubled).min(longest);
    let share = u32::try_from(chance % 512).unwrap_or(0);
    full / 2 + full / 2 * share / 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew_after_a_success() {
        let retries = Retries::default();
        let first = retries.failed("shop/a", None);
        assert!(first >= FIRST / 2 && first <= FIRST, "{first:?}");
        for _ in 0..40 {
            assert!(retries.failed("shop/a", None) <= LONGEST);
        }
        assert!(retries.failed("shop/a", None) >= LONGEST / 2);
        assert!(retries.failed("shop/b", None) <= FIRST, "each by itself");
        let asked = retries.failed("shop/c", Some(Duration::from_secs(7)));
        assert!(asked > Duration::from_secs(7), "{asked:?}");
        retries.forget("shop/a");
        assert!(retries.failed("shop/a", None) <= FIRST);
    }
}
