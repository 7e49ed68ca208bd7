//! Everything that is wrong with a configuration, collected and named: where, which value, why,
//! and what to do. What a rule must not say is in `rule`, the rest in `settings`.

mod rule;
mod settings;

use std::fmt;

use crate::{
    config::SidecarConfig,
    matcher::{MAX_RULES, Matcher, MatcherError},
    pattern::{Pattern, PatternError},
};

/// Most problems that are shown; the others are counted (P9).
const MAX_SHOWN: usize = 50;
const MAX_SHOWN_VALUE: usize = 80;

/// Everything that is wrong with one configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyErrors(Vec<PolicyError>);

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A value that cannot work, or that contradicts another.
    #[error("{place} is {value}: {reason}; {remedy}")]
    Value {
        /// Rule and field.
        place: Place,
        /// The value as the user wrote it, shortened when it is long.
        value: String,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// A key pattern that cannot be read.
    #[error("{place}: {source}")]
    Pattern {
        /// Rule and field.
        place: Place,
        /// Pattern, position and remedy.
        source: PatternError,
    },
    /// The rules cannot be compiled together.
    #[error("rules: {0}")]
    Rules(#[source] MatcherError),
}

/// A field of the configuration, in a rule or outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index and name of the rule.
    pub rule: Option<(usize, String)>,
    /// The field, as it is called in the file: `ttl`, `local.memory`.
    pub field: &'static str,
}

/// Patterns in rule order and their matcher, or all that is wrong.
pub(super) fn check(config: &SidecarConfig) -> Result<(Vec<Pattern>, Matcher), PolicyErrors> {
    let mut problems = Problems::default();
    settings::check(config, &mut problems);
    rule::check_names(&config.rules, &mut problems);
    let mut patterns = Vec::with_capacity(config.rules.len().min(MAX_RULES));
    for (index, rule) in config.rules.iter().enumerate().take(MAX_RULES) {
        patterns.extend(rule::check(index, rule, &mut problems));
    }
    let compiled = if config.rules.len() > MAX_RULES {
        Err(MatcherError::TooManyRules(config.rules.len()))
    } else {
        Matcher::compile(&patterns)
    };
    match compiled {
        Ok(matcher) if problems.0.is_empty() => Ok((patterns, matcher)),
        Ok(_) => Err(PolicyErrors(problems.0)),
        Err(error) => {
            problems.0.push(PolicyError::Rules(error));
            Err(PolicyErrors(problems.0))
        }
    }
}

// === impl PolicyErrors ===

impl PolicyErrors {
    /// The problems in the order of the file: settings, then rules.
    pub fn as_slice(&self) -> &[PolicyError] {
        &self.0
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().take(MAX_SHOWN);
        for (index, problem) in shown.enumerate() {
            let before = if index == 0 { "" } else { "\n" };
            write!(f, "{before}{problem}")?;
        }
        match self.0.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more problems"),
        }
    }
}

impl std::error::Error for PolicyErrors {}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Some((index, name)) if name.is_empty() => write!(f, "rules[{index}].{}", self.field),
            Some((index, name)) => {
                write!(f, "rule `{}` (rules[{index}]): {}", short(name), self.field)
            }
            None => f.write_str(self.field),
        }
    }
}

/// Collects problems.
#[derive(Default)]
struct Problems(Vec<PolicyError>);

impl Problems {
    fn add(
        &mut self,
        place: Place,
        value: impl fmt::Display,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(PolicyError::Value {
            place,
            value: short(&value.to_string()),
            reason: reason.into(),
            remedy: remedy.into(),
        });
    }
}

fn short(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().count() <= MAX_SHOWN_VALUE {
        return text;
    }
    text.chars().take(MAX_SHOWN_VALUE).chain(['…']).collect()
}
