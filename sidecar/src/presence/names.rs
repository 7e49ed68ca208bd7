//! Keys and channels by which the sidecars of a tier know each other.
//!
//! All of them begin with the key prefix, so that one ACL pattern, `<prefix>pannier:*`, covers
//! them, and tiers that share a Redis are apart. The braces keep the keys of a tier in one slot.

use crate::state::Active;

/// The names of one tier.
pub(super) struct Names {
    start: Vec<u8>,
    tier: String,
}

impl Names {
    /// The names of the tier that the configuration was compiled from.
    pub(super) fn of(active: &Active) -> Self {
        let tier = &active.config.tier;
        Self {
            start: active.key_in_redis(b"pannier:"),
            tier: if tier.is_empty() { "default" } else { tier }.to_owned(),
        }
    }

    /// Sorted set: ids of sidecars by the time when they were last seen.
    pub(super) fn index(&self) -> Vec<u8> {
        self.name("sidecars", "")
    }

    /// What one sidecar says about itself.
    pub(super) fn record(&self, id: &str) -> Vec<u8> {
        self.name("sidecar", &format!(":{id}"))
    }

    /// Channel: keys to drop.
    pub(super) fn invalidate(&self) -> Vec<u8> {
        self.name("invalidate", "")
    }

    /// Channel: who has dropped what that sidecar asked for.
    pub(super) fn applied(&self, id: &str) -> Vec<u8> {
        self.name("applied", &format!(":{id}"))
    }

    fn name(&self, what: &str, rest: &str) -> Vec<u8> {
        let name = format!("{what}:{{{}}}{rest}", self.tier);
        [self.start.as_slice(), name.as_bytes()].concat()
    }
}
