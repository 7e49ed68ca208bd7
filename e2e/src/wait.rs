//! Waiting on conditions with a deadline, never for a fixed time.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::environment::unusable;

/// How long a condition may take before the test fails; generous, because it only costs time when
/// something is broken.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Asks again and again until `probe` has an answer; fails the test after [`PATIENCE`].
pub fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, || what.to_owned(), probe)
}

/// As [`until`], with a deadline of its own, and words that are looked for when it has passed.
pub fn within<T>(
    patience: Duration,
    what: impl FnOnce() -> String,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        if Instant::now() > deadline {
            unusable(&format!("waited {patience:?} in vain: {}", what()));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// As [`until`] for a plain condition.
pub fn until_true(what: &str, mut probe: impl FnMut() -> bool) {
    until(what, || probe().then_some(()));
}
