//! Fields that are declared and not implemented: refused with a sentence, never ignored.
//!
//! The schema has them so that the shape of the resource is final. When a field works, its line
//! here goes. The API server refuses them by CEL rules made from this table, the local run by
//! the table itself.

use serde_json::Value;

/// One field, or one value of a field, that does not work yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotYet {
    /// Path in the spec, `rules[].tags`; with `=Value` only that value of an enum is meant.
    pub path: &'static str,
    /// What to do instead.
    pub instead: &'static str,
}

const fn not_yet(path: &'static str, instead: &'static str) -> NotYet {
    NotYet { path, instead }
}

/// Fields of a `CacheTier` that work nowhere yet.
pub const CACHE_TIER: &[NotYet] = &[
    not_yet(
        "keyspace.previousVersions",
        "a new schemaVersion starts empty and old keys fall out by their TTL; remove it",
    ),
    not_yet(
        "redis.backup",
        "back up with the tools of your storage; remove it",
    ),
    not_yet(
        "compression",
        "values are stored as the app writes them; remove it",
    ),
    not_yet(
        "rules[].tags",
        "keys can be invalidated by DEL and by their TTL; remove it",
    ),
    not_yet(
        "rules[].write=Behind",
        "write Through, with onWriteError: Log where a lost write is no error",
    ),
    not_yet(
        "rules[].stale.whileRevalidate",
        "a new value is fetched before it is served; remove it",
    ),
    not_yet(
        "rules[].refreshAhead",
        "the app fetches again after a miss; remove it",
    ),
    not_yet(
        "rules[].origin",
        "the app fetches from its source after a miss; remove it",
    ),
    not_yet(
        "origins",
        "the app fetches from its source after a miss; remove it",
    ),
    not_yet(
        "events",
        "the app deletes the keys that a change concerns; remove it",
    ),
    not_yet("warm", "entries are kept from the first read on; remove it"),
    not_yet(
        "reconcile",
        "a short TTL bounds the difference to the source; remove it",
    ),
    not_yet("monitoring", "scrape /metrics of the admin port; remove it"),
];

/// What works in a cluster only: the local run starts no servers.
pub const LOCAL_RUN: &[NotYet] = &[
    not_yet("redis.topology=Standalone", LOCAL_SERVERS),
    not_yet("redis.topology=Replicated", LOCAL_SERVERS),
    not_yet("redis.topology=Cluster", LOCAL_SERVERS),
];

const LOCAL_SERVERS: &str = "the sidecar starts no servers itself; use topology None for memory only, or External with the URL of a server that runs already";

impl NotYet {
    /// The path without a value: `local.coherence`.
    pub fn field(&self) -> &'static str {
        self.path.split('=').next().unwrap_or(self.path)
    }

    /// The refused value, where only one is refused.
    pub fn value(&self) -> Option<&'static str> {
        self.path.split_once('=').map(|(_, value)| value)
    }

    /// The object that holds the field, `rules[]`, and the field in it, `tags`.
    pub fn place(&self) -> (&'static str, &'static str) {
        self.field().rsplit_once('.').unwrap_or(("", self.field()))
    }

    /// The same in CEL, for the object at `place().0`.
    pub fn cel(&self) -> String {
        let (_, name) = self.place();
        match self.value() {
            Some(value) => format!("!has(self.{name}) || self.{name} != '{value}'"),
            None => format!("!has(self.{name})"),
        }
    }

    /// The sentence.
    pub fn message(&self) -> String {
        match self.value() {
            Some(value) => format!(
                "{}: {value} is not available yet; {}",
                self.field(),
                self.instead
            ),
            None => format!("{} is not available yet; {}", self.field(), self.instead),
        }
    }

    /// Whether an object at `place().0` uses the field or value.
    pub fn used_by(&self, object: &Value) -> bool {
        let found = object.get(self.place().1);
        match self.value() {
            Some(value) => found.and_then(Value::as_str) == Some(value),
            None => found.is_some(),
        }
    }
}
