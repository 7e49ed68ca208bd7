//! `SessionPolicy`: how long sessions live, how many there may be, and who may be in them.

#![allow(
    clippy::doc_markdown,
    reason = "these texts are shown by kubectl explain, where backticks around words are noise"
)]
#![allow(
    clippy::duplicated_attributes,
    reason = "each printer column has a type of its own"
)]

use kube::CustomResource;
use policy::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Status;

/// Sessions of the users of an app, kept in a CacheTier.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "pannier.dev",
    version = "v1alpha1",
    kind = "SessionPolicy",
    plural = "sessionpolicies",
    namespaced,
    status = "Status",
    shortname = "sesp",
    category = "pannier",
    derive = "PartialEq",
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.cacheTierRef.name"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct SessionPolicySpec {
    /// The CacheTier of the same namespace that keeps the sessions; its environment selects the
    /// preset. It cannot change: the sessions live there.
    pub cache_tier_ref: CacheTierRef,
    /// A session without activity for this long ends. A duration above 0. Default: 2h in
    /// Production, 1h in Development, 5m in Test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span>,
    /// A session ends this long after it began, whatever its activity. A duration, not shorter
    /// than idleTimeout. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute_timeout: Option<Span>,
    /// Enabled: activity starts idleTimeout anew. Disabled: only an explicit touch does.
    /// Default: Enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling: Option<Switch>,
    /// How many sessions a user may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_user: Option<PerUser>,
    /// Who may be in a session that several users share. Default: sessions are not shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Members>,
    /// Versions of a session's data that are kept. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    /// What a session is bound to. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
    /// How many sessions may be created per user or address. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_rate_limit: Option<RateLimit>,
    /// Exchange of session tokens for new ones. Default: only on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// Who is online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence: Option<Presence>,
}

/// A CacheTier of the same namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheTierRef {
    /// Its name.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum Switch {
    /// On.
    Enabled,
    /// Off.
    Disabled,
}

/// How many sessions a user may have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PerUser {
    /// Most sessions of one user at a time, 1 to 1000. Default: 5 in Production, 10 in
    /// Development, 2 in Test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max: Option<u32>,
    /// What happens with one more. EvictOldest: the oldest session ends. Refuse: the new one is
    /// refused. Default: EvictOldest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exceed: Option<OnExceed>,
}

/// What happens when a user has too many sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum OnExceed {
    /// The oldest session ends.
    #[default]
    EvictOldest,
    /// The new session is refused.
    Refuse,
}

/// Who may be in a session that several users share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Members {
    /// Most members of one session, 1 to 10000; one more gets "session is full". Default: no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub capacity: Option<u32>,
    /// Enabled: a user who is in another session is refused. Default: Disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_session_per_user: Option<Switch>,
    /// How long a member who lost the connection keeps the place. A duration, not longer than
    /// idleTimeout. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disconnect_grace: Option<Span>,
}

/// Versions of a session's data that are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Most versions, 1 to 1000; the oldest goes. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// How long a version is kept. A duration above 0. Default: 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
}

/// What a session is bound to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// The client's IP address. Default: Off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<BindingMode>,
    /// The client's user agent. Default: Off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<BindingMode>,
}

/// What happens when a session is used from elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::schema::plain_enum)]
pub enum BindingMode {
    /// Nothing.
    #[default]
    Off,
    /// It is reported.
    Report,
    /// The session is refused.
    Enforce,
}

/// How many sessions may be created in a window of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Most creations in the window, 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub max: u32,
    /// The window. A duration above 0.
    pub window: Span,
}

/// Exchange of session tokens for new ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// Age at which a token is exchanged. A duration above 0.
    pub interval: Span,
    /// How long the old token is still accepted, for requests on their way. A duration, shorter
    /// than the interval. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
}

/// Who is online.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Presence {
    /// A connection that is not renewed for this long is offline. A duration above 0.
    /// Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
}
