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
    /// The pause after one more failure of `resource`.
    pub fn failed(&self, resource: &str) -> Duration {
        let count = {
            let mut failures = self.failures.lock();
            let count = failures.entry(resource.to_owned()).or_default();
            *count = count.saturating_add(1);
            *count
        };
        let full = FIRST.saturating_mul(1 << (count - 1).min(16)).min(LONGEST);
        // Between half and all of it: resources that failed together do not come back together.
        let share = self.random.hash_one((resource, count)) % 512;
        full / 2 + full / 2 * u32::try_from(share).unwrap_or(0) / 512
    }

    /// `resource` is well, or gone.
    pub fn forget(&self, resource: &str) {
        self.failures.lock().remove(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew_after_a_success() {
        let retries = Retries::default();
        let first = retries.failed("shop/a");
        assert!(first >= FIRST / 2 && first <= FIRST, "{first:?}");
        for _ in 0..40 {
            assert!(retries.failed("shop/a") <= LONGEST);
        }
        assert!(retries.failed("shop/a") >= LONGEST / 2);
        assert!(retries.failed("shop/b") <= FIRST, "each by itself");
        retries.forget("shop/a");
        assert!(retries.failed("shop/a") <= FIRST);
    }
}
