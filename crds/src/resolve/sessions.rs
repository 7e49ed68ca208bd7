//! A session policy with every value given.

use policy::Span;

use crate::{
    cache_tier::Environment,
    preset,
    session_policy::{BindingMode, OnExceed, RateLimit, SessionPolicySpec, Switch},
};

/// A session policy with every value given; `None` means "no limit" or "not wanted".
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedSessions {
    /// A session without activity for this long ends.
    pub idle_timeout: Span,
    /// A session ends this long after it began.
    pub absolute_timeout: Option<Span>,
    /// Whether activity starts the idle timeout anew.
    pub rolling: bool,
    /// Most sessions of one user.
    pub per_user_max: u32,
    /// What happens with one more.
    pub on_exceed: OnExceed,
    /// Members of shared sessions.
    pub members: Option<ResolvedMembers>,
    /// Versions kept, and for how long.
    pub history: Option<(u32, Span)>,
    /// Binding to the IP address.
    pub bind_ip: BindingMode,
    /// Binding to the user agent.
    pub bind_user_agent: BindingMode,
    /// Limit of creations.
    pub creation_rate_limit: Option<RateLimit>,
    /// Age at which a token is exchanged, and how long the old one lives on.
    pub rotation: Option<(Span, Span)>,
    /// A connection that is not renewed for this long is offline.
    pub presence_ttl: Span,
}

/// Members of shared sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedMembers {
    /// Most members.
    pub capacity: Option<u32>,
    /// Whether a user may be in one session only.
    pub one_session_per_user: bool,
    /// How long a member who lost the connection keeps the place.
    pub disconnect_grace: Span,
}

/// Applies the preset of the tier's environment.
pub fn resolve_sessions(spec: &SessionPolicySpec, environment: Environment) -> ResolvedSessions {
    let preset = environment.preset();
    let per_user = spec.per_user.clone().unwrap_or_default();
    let binding = spec.binding.clone().unwrap_or_default();
    let idle_timeout = spec.idle_timeout.unwrap_or_else(|| {
        // A preset gives way to the limit that the user wrote.
        spec.absolute_timeout
            .map_or(preset.session_idle_timeout, |limit| {
                limit.min(preset.session_idle_timeout)
            })
    });
    ResolvedSessions {
        idle_timeout,
        absolute_timeout: spec.absolute_timeout,
        rolling: spec.rolling != Some(Switch::Disabled),
        per_user_max: per_user.max.unwrap_or(preset.sessions_per_user),
        on_exceed: per_user.on_exceed.unwrap_or_default(),
        members: spec.members.as_ref().map(|members| ResolvedMembers {
            capacity: members.capacity,
            one_session_per_user: members.one_session_per_user == Some(Switch::Enabled),
            disconnect_grace: members
                .disconnect_grace
                .unwrap_or_else(|| preset::DISCONNECT_GRACE.min(idle_timeout)),
        }),
        history: spec.history.as_ref().map(|history| {
            (
                history.limit.unwrap_or(preset::HISTORY_LIMIT),
                history.ttl.unwrap_or(preset::HISTORY_TTL),
            )
        }),
        bind_ip: binding.ip.unwrap_or_default(),
        bind_user_agent: binding.user_agent.unwrap_or_default(),
        creation_rate_limit: spec.creation_rate_limit.clone(),
        rotation: spec.rotation.as_ref().map(|rotation| {
            let grace = rotation.grace.unwrap_or(preset::ROTATION_GRACE);
            (rotation.interval, grace.min(rotation.interval))
        }),
        presence_ttl: spec
            .presence
            .as_ref()
            .and_then(|presence| presence.ttl)
            .unwrap_or(preset::PRESENCE_TTL),
    }
}
