//! What is missing before the operator is ready, by name.

use std::collections::BTreeSet;

use parking_lot::Mutex;

/// Latches that are not dropped yet.
#[derive(Default)]
pub struct Readiness {
    missing: Mutex<BTreeSet<&'static str>>,
}

impl Readiness {
    /// The operator is not ready without `what`.
    pub fn needs(&self, what: &'static str) {
        self.missing.lock().insert(what);
    }

    /// `what` is there.
    pub fn has(&self, what: &'static str) {
        self.missing.lock().remove(what);
    }

    /// What is missing.
    pub fn missing(&self) -> Vec<&'static str> {
        self.missing.lock().iter().copied().collect()
    }
}
