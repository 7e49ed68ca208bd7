//! What is legal but probably not meant: rules that never win, rules that meet, TTLs that are cut.

use std::{fmt, sync::Arc, time::Duration};

use super::CompiledRule;
use crate::{
    config::{CacheMode, SidecarConfig},
    matcher::Matcher,
    units::Span,
};

/// Most reports of one policy: a thousand rules can overlap half a million times (P9).
const MAX_REPORTS: usize = 100;
const MAX_SHOWN_KEY: usize = 120;

/// One thing worth knowing about a policy; its `Display` is a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Every key of `rule` is matched by `by`, which comes first.
    Shadowed {
        /// The rule that never applies.
        rule: Arc<str>,
        /// The rule before it.
        by: Arc<str>,
    },
    /// Some keys match both rules, and neither contains the other.
    Overlapping {
        /// The rule that wins.
        first: Arc<str>,
        /// The rule that comes later.
        second: Arc<str>,
        /// A key that matches both.
        key: String,
    },
    /// The usual order: `second` matches all keys of `first` and more, and gets what is left.
    Refined {
        /// The narrower rule, which wins.
        first: Arc<str>,
        /// The wider rule.
        second: Arc<str>,
        /// A key that matches both.
        key: String,
    },
    /// A TTL is longer than `ttl.max`.
    Capped {
        /// The rule.
        rule: Arc<str>,
        /// What it asked for.
        ttl: Duration,
        /// What it gets.
        max: Duration,
    },
    /// Some reports are left out.
    More(usize),
}

// === impl Report ===

impl Report {
    /// Whether somebody should look at it; false for what is common and usually meant.
    pub fn is_warning(&self) -> bool {
        match self {
            Self::Shadowed { .. } | Self::Overlapping { .. } | Self::Capped { .. } => true,
            Self::Refined { .. } | Self::More(_) => false,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shadowed { rule, by } => write!(
                f,
                "rule `{rule}` never applies: rule `{by}` comes first and matches all of its keys; move `{rule}` before `{by}` or remove it"
            ),
            Self::Overlapping { first, second, key } => write!(
                f,
                "rules `{first}` and `{second}` both match some keys, such as `{key}`; `{first}` wins because it comes first"
            ),
            Self::Refined { first, second, key } => write!(
                f,
                "rule `{second}` matches all keys of rule `{first}`, such as `{key}`; `{first}` wins because it comes first, `{second}` gets the rest"
            ),
            Self::Capped { rule, ttl, max } => write!(
                f,
                "rule `{rule}`: its TTL of {} is cut to ttl.max, {}",
                Span(*ttl),
                Span(*max)
            ),
            Self::More(count) => write!(f, "{count} more reports of this kind are not shown"),
        }
    }
}

/// Warnings first; of the same kind in the order of the rules.
pub(super) fn reports(
    config: &SidecarConfig,
    rules: &[CompiledRule],
    matcher: &Matcher,
) -> Vec<Report> {
    let mut reports = capped(config, rules);
    let fresh = fresh_segment(rules);
    let mut refined = Vec::new();
    let mut shadowed = vec![false; rules.len()];
    for (index, rule) in rules.iter().enumerate() {
        // A rule that does not win its own witness loses all of its keys to the one that does.
        let winner = matcher.find(&rule.pattern.witness(&fresh));
        if let Some(winner) = winner.filter(|winner| *winner != rule.id) {
            shadowed[index] = true;
            reports.push(Report::Shadowed {
                rule: rule.name.clone(),
                by: rules[usize::from(winner.0)].name.clone(),
            });
        }
    }
    let mut left_out = 0;
    for (index, second) in rules.iter().enumerate().filter(|(at, _)| !shadowed[*at]) {
        for first in rules[..index]
            .iter()
            .filter(|rule| !shadowed[usize::from(rule.id.0)])
        {
            let Some(key) = first.pattern.common_key(&second.pattern) else {
                continue;
            };
            if reports.len() + refined.len() >= MAX_REPORTS {
                left_out += 1;
                continue;
            }
            let (key, names) = (shown(&key), (first.name.clone(), second.name.clone()));
            let (first_name, second_name) = names;
            if second.pattern.matches(&first.pattern.witness(&fresh)) {
                refined.push(Report::Refined {
                    first: first_name,
                    second: second_name,
                    key,
                });
            } else {
                reports.push(Report::Overlapping {
                    first: first_name,
                    second: second_name,
                    key,
                });
            }
        }
    }
    reports.append(&mut refined);
    if reports.len() > MAX_REPORTS {
        left_out += reports.len() - MAX_REPORTS;
        reports.truncate(MAX_REPORTS);
    }
    if left_out > 0 {
        reports.push(Report::More(left_out));
    }
    reports
}

fn capped(config: &SidecarConfig, rules: &[CompiledRule]) -> Vec<Report> {
    let Some(max) = config.ttl.max else {
        return Vec::new();
    };
    let managed = |rule: &&CompiledRule| !matches!(rule.cache, CacheMode::Bypass | CacheMode::Deny);
    rules
        .iter()
        .filter(managed)
        .filter_map(|rule| {
            let ttl = config.rules[usize::from(rule.id.0)]
                .ttl
                .or(config.ttl.default)?;
            (ttl > max).then(|| Report::Capped {
                rule: rule.name.clone(),
                ttl: ttl.0,
                max: max.0,
            })
        })
        .collect()
}

/// A segment that no pattern has as a literal, whatever the patterns are.
fn fresh_segment(rules: &[CompiledRule]) -> String {
    let longest = rules.iter().map(|rule| rule.pattern.as_str().len()).max();
    "x".repeat(longest.unwrap_or(0) + 1)
}

fn shown(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    if text.chars().count() <= MAX_SHOWN_KEY {
        return text.into_owned();
    }
    text.chars().take(MAX_SHOWN_KEY).chain(['…']).collect()
}
