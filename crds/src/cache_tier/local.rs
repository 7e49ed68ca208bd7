//! The local tier of a `CacheTier`.

use policy::{ByteSize, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The local tier: memory in each sidecar that answers hits without the network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Local {
    /// Upper bound for all local entries of one sidecar, keys and bookkeeping included; the
    /// least useful entries make room. Never more than fits sidecar.resources.limits.memory, where
    /// that is given. A size in bytes, 1Mi to 64Gi. Default: 64Mi; 16Mi in Test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// How local entries learn of changes in Redis. Tracking: the server announces each change
    /// of a key that this sidecar has read, and remembers who read what (Redis 7.0, Valkey 7.2 or
    /// newer). Broadcast: it announces each change of a key under the literal beginnings of the
    /// rules with cache Both, read or not, and remembers nothing; for many keys in many pods and
    /// few writes. TtlOnly: nothing is announced, an entry lives until its local TTL or
    /// maxStaleness ends. Default: Tracking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coherence: Option<Coherence>,
    /// The promise to readers: a value served locally was current in Redis at some moment within
    /// this span before. With Tracking and Broadcast, a link that was not proved alive for this long is not
    /// trusted and reads go to Redis. With TtlOnly no local entry lives longer than this. A
    /// duration, 10ms to 1h. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_staleness: Option<Span>,
    /// Active serves hits. Shadow serves none: every read goes to Redis, and what would have been a
    /// hit is counted and compared with Redis' answer. A stale local value found while Active
    /// switches to Shadow until the tier changes or the sidecar restarts. Default: Active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<LocalMode>,
    /// Share of keys that are served locally in mode Active, 0 to 100 percent, to switch the local
    /// tier on step by step; the other keys are as in Shadow. A key is always in or always out, in
    /// every sidecar. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub ramp_percent: Option<u8>,
}

/// How local entries learn of changes in Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum Coherence {
    /// The server announces changes of keys that were read.
    #[default]
    Tracking,
    /// The server announces all changes under the prefixes of the rules.
    Broadcast,
    /// Nothing is announced; entries live until their TTL ends.
    TtlOnly,
}

/// Whether the local tier serves or only measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum LocalMode {
    /// Hits are served.
    #[default]
    Active,
    /// Hits are only counted.
    Shadow,
}
