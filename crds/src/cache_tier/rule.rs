//! The rules of a `CacheTier`: what holds for the keys of one pattern.

use policy::{ByteSize, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What holds for the keys of one pattern.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Name of the rule, unique in the tier: metric label, log field, answer of PANNIER.WHY.
    /// Lower-case letters, digits and `-`, at most 63.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Key pattern in segments joined by `:`, at most 256 characters. A segment is literal text,
    /// or `{name}`, which stands for exactly one segment and captures it; a last segment `*`
    /// stands for the rest of the key: `analytics:ghosts:{guildId}:{since}`, `user:*`.
    #[serde(rename = "match")]
    #[schemars(
        length(min = 1, max = 256),
        regex(
            pattern = r"^(([^\x00-\x1f:{}*?\[\]\\]|\\[{}*?\[\]\\])*:|\{[A-Za-z][A-Za-z0-9_]*\}:)*(([^\x00-\x1f:{}*?\[\]\\]|\\[{}*?\[\]\\])+|\{[A-Za-z][A-Za-z0-9_]*\}|\*)$"
        )
    )]
    pub pattern: String,
    /// Which tiers hold matching keys. Both: Redis and the local tier. LocalOnly: only this
    /// sidecar's memory, never sent to Redis. RemoteOnly: Redis with TTLs, no local copy.
    /// Bypass: passed through untouched, for data that must not be cached. Deny: refused with an
    /// error. Default: Both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheMode>,
    /// TTL in Redis for writes that carry none. A duration above 0. Default: ttl.default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// Longest life of a local entry; it never outlives the key in Redis. A duration above 0.
    /// Default: as long as in Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_ttl: Option<Span>,
    /// How long "there is no such key" is remembered locally. A duration above 0. Default: not
    /// remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_ttl: Option<Span>,
    /// Tags of matching keys, made of text and captures, such as `guild:{guildId}`; all keys of
    /// a tag can be invalidated at once. At most 8. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 128)))]
    pub tags: Vec<String>,
    /// When a write is answered. Through: after Redis has it. Behind: at once, Redis follows.
    /// Default: Through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<WriteMode>,
    /// When a value may be served although it is out of date. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Stale>,
    /// Entries in use are fetched again this long before they expire. A duration. Default: not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_ahead: Option<Span>,
    /// Larger values are written to Redis but never kept locally. A size in bytes. Default: no
    /// limit but the memory of the local tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_value_size: Option<ByteSize>,
    /// Name of the entry of `origins` from which a missing key is fetched. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub origin: Option<String>,
    /// What the app sees when a write fails. Error: the error. Log: the reply of a write that
    /// succeeded; the loss is logged and counted. Default: Error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_write_error: Option<OnWriteError>,
}

/// Which tiers hold matching keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum CacheMode {
    /// Redis and the local tier.
    #[default]
    Both,
    /// Only this sidecar's memory.
    LocalOnly,
    /// Only Redis.
    RemoteOnly,
    /// Passed through untouched.
    Bypass,
    /// Refused with an error.
    Deny,
}

/// When a write is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum WriteMode {
    /// After Redis has it.
    #[default]
    Through,
    /// At once; Redis follows.
    Behind,
}

/// What the app sees when a write fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum OnWriteError {
    /// The error.
    #[default]
    Error,
    /// Success; the loss is logged and counted.
    Log,
}

/// When a value may be served although it is out of date.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stale {
    /// How long after its end an entry is still served while a new value is fetched. A duration.
    /// Default: not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub while_revalidate: Option<Span>,
    /// While Redis fails, the local copy of a key is served for this long after it could last be
    /// proven current, or its TTL ended; counted in pannier_stale_served_total. Never after the
    /// key was written through this sidecar or its change was announced. Only with cache: Both. A
    /// duration above 0. Default: not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_error: Option<Span>,
}
