//! From the configuration file to a policy that is ready to run.
//!
//! `check` finds what is wrong with the file, all at once; `report` finds what is legal but
//! probably not meant. What is left here are final values: which TTLs a rule has once defaults
//! and caps have been applied.

mod check;
mod report;

use std::{fmt, sync::Arc, time::Duration};

pub use self::{
    check::{Place, PolicyError, PolicyErrors},
    report::Report,
};
use crate::{
    config::{CacheMode, Caching, Coherence, OnWriteError, Rule, SidecarConfig},
    matcher::{Matcher, RuleId},
    pattern::{Captures, Pattern},
    units::Span,
};

/// A configuration that has been checked, with its rules compiled. Immutable: a changed file makes
/// a new one.
#[derive(Clone, Debug)]
pub struct Policy {
    caching: Caching,
    matcher: Matcher,
    rules: Box<[CompiledRule]>,
    reports: Box<[Report]>,
}

/// One rule with its final values.
#[derive(Clone, Debug)]
pub struct CompiledRule {
    /// Its place in the order of the rules.
    pub id: RuleId,
    /// Name of the rule: `[a-z0-9-]{1,63}`, unique, safe as a metric label.
    pub name: Arc<str>,
    /// The parsed key pattern.
    pub pattern: Pattern,
    /// Which tiers hold matching keys.
    pub cache: CacheMode,
    /// TTL for a write that carries none, before jitter: the rule's, else `ttl.default`, at most
    /// `ttl.max`; with neither, `ttl.max` itself, because no TTL would be longer than the cap.
    /// `None`: writes without TTL stay without.
    pub ttl: Option<Duration>,
    /// No write gets a longer TTL than this.
    pub ttl_max: Option<Duration>,
    /// [`crate::ttl::effective_ttl`] shortens `ttl` by a random share of up to this many percent.
    pub jitter_percent: u8,
    /// Longest life of a local entry; `None`: as long as in Redis. Never above `ttl_max`, and
    /// never above `local.maxStaleness` when nothing is tracked (`TtlOnly`).
    pub local_ttl: Option<Duration>,
    /// How long "there is no such key" is remembered locally, bounded as `local_ttl`; `None`: it
    /// is not.
    pub negative_ttl: Option<Duration>,
    /// Values of more bytes are never kept locally.
    pub max_value_size: Option<u64>,
    /// Whether the app sees an error when a write fails.
    pub on_write_error: OnWriteError,
    /// While Redis fails, local entries are served for so long after they could last be as
    /// current; `None`: they are not.
    pub stale_if_error: Option<Duration>,
}

// === impl Policy ===

impl Policy {
    /// Checks a configuration and compiles its rules. Every problem is reported, not the first.
    pub fn compile(config: &SidecarConfig) -> Result<Self, PolicyErrors> {
        let (patterns, matcher) = check::check(config)?;
        let rules: Box<[CompiledRule]> = (0..)
            .map(RuleId)
            .zip(patterns)
            .zip(&config.rules)
            .map(|((id, pattern), rule)| CompiledRule::new(id, pattern, rule, config))
            .collect();
        let reports = report::reports(config, &rules, &matcher);
        Ok(Self {
            caching: config.caching,
            matcher,
            rules,
            reports: reports.into(),
        })
    }

    /// The rule that applies to a key: the first whose pattern matches. `None` when none does, or
    /// when `caching` is `Disabled`. Does not allocate; the key is as the app wrote it.
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<RuleId> {
        match self.caching {
            Caching::Enabled => self.matcher.find(key),
            Caching::Disabled => None,
        }
    }

    /// The rule whose pattern matches, whether or not caching is enabled: for explanations.
    pub fn find_declared(&self, key: &[u8]) -> Option<RuleId> {
        self.matcher.find(key)
    }

    /// The rule of an id that this policy has given out.
    ///
    /// # Panics
    /// For an id of another policy that has more rules; see [`Self::get`].
    #[inline]
    pub fn rule(&self, id: RuleId) -> &CompiledRule {
        &self.rules[usize::from(id.0)]
    }

    /// The rule of an id that may be from an older policy.
    pub fn get(&self, id: RuleId) -> Option<&CompiledRule> {
        self.rules.get(usize::from(id.0))
    }

    /// All rules in order.
    pub fn rules(&self) -> &[CompiledRule] {
        &self.rules
    }

    /// What the captures of a rule hold in a key; `None` when the key does not match.
    pub fn captures<'a>(&'a self, id: RuleId, key: &'a [u8]) -> Option<Captures<'a>> {
        self.get(id)?.pattern.captures(key)
    }

    /// What is legal but probably not meant, as sentences for logs, status and `--check`.
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }

    /// Whether rules are applied at all.
    pub fn caching(&self) -> Caching {
        self.caching
    }
}

// === impl CompiledRule ===

impl CompiledRule {
    fn new(id: RuleId, pattern: Pattern, rule: &Rule, config: &SidecarConfig) -> Self {
        let at_most = |limit: Option<Duration>| {
            move |span: Duration| limit.map_or(span, |limit| span.min(limit))
        };
        let managed = !matches!(rule.cache, CacheMode::Bypass | CacheMode::Deny);
        let local = matches!(rule.cache, CacheMode::Both | CacheMode::LocalOnly);
        let ttl_max = span(config.ttl.max).filter(|_| managed);
        // A LocalOnly key has no copy in Redis that could change behind it.
        let untracked =
            rule.cache == CacheMode::Both && config.local.coherence == Coherence::TtlOnly;
        let staleness = untracked.then_some(config.local.max_staleness.0);
        let ttl = span(rule.ttl)
            .or(span(config.ttl.default))
            .filter(|_| managed)
            .map(at_most(ttl_max))
            .or(ttl_max);
        let local_ttl = span(rule.local_ttl)
            .map(at_most(ttl_max))
            .map(at_most(staleness))
            .or(staleness);
        Self {
            id,
            name: rule.name.as_str().into(),
            pattern,
            cache: rule.cache,
            ttl,
            ttl_max,
            jitter_percent: config.ttl.jitter_percent,
            local_ttl: local_ttl.filter(|_| local),
            negative_ttl: span(rule.negative_ttl)
                .map(at_most(ttl_max))
                .map(at_most(staleness)),
            max_value_size: rule.max_value_size.map(|size| size.0),
            on_write_error: rule.on_write_error,
            stale_if_error: span(rule.stale.and_then(|stale| stale.if_error)),
        }
    }
}

fn span(span: Option<Span>) -> Option<Duration> {
    span.map(|span| span.0)
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rules[{}]", self.0)
    }
}

#[cfg(test)]
mod tests;
