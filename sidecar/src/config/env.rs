//! The variables that matter, read once: a reload must not see others than the start did.

use std::collections::BTreeMap;

/// The variables that say which Redis it is; the others belong to flags.
const NAMES: [&str; 9] = [
    "PANNIER_REDIS_URL",
    "REDIS_URL",
    "REDIS_HOST",
    "REDIS_PORT",
    "REDIS_USERNAME",
    "REDIS_PASSWORD",
    "REDIS_SENTINEL_PASSWORD",
    "REDIS_DB",
    "REDIS_TLS",
];

/// The environment. No `Debug`: there are passwords in it.
#[derive(Clone, Default)]
pub struct Env(BTreeMap<&'static str, String>);

impl Env {
    /// That of this process. Empty variables count as absent, as Compose files write them.
    pub fn of_process() -> Self {
        Self::from_lookup(|name| {
            // A variable that is not text cannot be a URL, a host or a number; a password that is
            // not UTF-8 belongs into a file.
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        })
    }

    /// The variables that `lookup` knows.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let value = |name: &'static str| Some((name, lookup(name)?));
        Self(
            NAMES
                .into_iter()
                .filter_map(value)
                .filter(|(_, value)| !value.is_empty())
                .collect(),
        )
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(NAMES.contains(&name), "{name} is not in the list");
        self.0.get(name).map(String::as_str)
    }
}
