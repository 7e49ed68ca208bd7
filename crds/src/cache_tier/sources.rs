//! Origins, events, warming and reconciliation: where cached data comes from and what ends it.

use policy::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretKey;

/// A source from which the sidecar fetches a missing key itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// Name by which rules refer to it, unique in the tier.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// URL that is fetched with GET; captures of the rule such as `{id}` are filled in, escaped.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^https?://"))]
    pub url: String,
    /// Longest wait for the answer. A duration. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Secret with the value of the `Authorization` header. Default: no such header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_secret_ref: Option<SecretKey>,
}

/// An event that apps announce and what it invalidates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Name of the event, unique in the tier.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Names of its parameters, such as `guildId`, at most 8. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 63)))]
    pub params: Vec<String>,
    /// What it invalidates.
    pub invalidate: Invalidate,
}

/// What an event invalidates; parameters such as `{guildId}` are filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Invalidate {
    /// Keys, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 256)))]
    pub keys: Vec<String>,
    /// Tags, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
    pub tags: Vec<String>,
    /// Key patterns with a trailing `*`, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 256)))]
    pub patterns: Vec<String>,
}

/// Entries that are loaded in the background before an app asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Warm {
    /// Name of the set, unique in the tier.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Keys to load, at most 1000.
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 256)))]
    pub keys: Vec<String>,
    /// Most loads per second, 1 to 10000. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub per_second: Option<u32>,
}

/// Background comparison of cached entries with their origin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reconcile {
    /// Time from one run to the next. A duration. Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// Shortest time between two runs, whatever triggers them. A duration. Default: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_interval: Option<Span>,
}
