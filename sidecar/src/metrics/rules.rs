//! Counters of rules, followed by name when the policy changes.
//!
//! The event loops count by the number of a rule, which is another one after a reload. When a
//! policy goes, what its numbers have counted is added up under their names.

use std::{collections::BTreeMap, sync::Arc};

use policy::Policy;

use super::{LoopCounters, RuleCounters};

/// What one rule has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleFigures {
    /// See [`RuleCounters`].
    pub hits: u64,
    /// See [`RuleCounters`].
    pub misses: u64,
    /// See [`RuleCounters`].
    pub fills: u64,
    /// See [`RuleCounters`].
    pub fills_refused: u64,
    /// See [`RuleCounters`].
    pub write_errors_masked: u64,
    /// See [`RuleCounters`].
    pub shadow_hits: u64,
    /// See [`RuleCounters`].
    pub shadow_mismatches: u64,
    /// See [`RuleCounters`].
    pub stale_samples: u64,
    /// See [`RuleCounters`].
    pub stale: [u64; 4],
}

/// What rules have counted before the policy in force.
#[derive(Debug, Default)]
pub struct RuleTotals {
    /// Of rules that are still there, by name.
    before: BTreeMap<Arc<str>, RuleFigures>,
    /// Of the numbers, when the policy in force began.
    base: Vec<RuleFigures>,
}

// === impl RuleTotals ===

impl RuleTotals {
    /// `old` makes way for `new`. Rules that are gone are forgotten, so names stay bounded.
    pub fn change(&mut self, counters: &[Arc<LoopCounters>], old: &Policy, new: &Policy) {
        let known = self.figures(counters, old);
        self.before = known
            .into_iter()
            .filter(|(name, _)| new.rules().iter().any(|rule| rule.name == *name))
            .collect();
        self.base = (0..old.rules().len().max(new.rules().len()))
            .map(|index| RuleFigures::sum(counters, index))
            .collect();
    }

    /// The figures of each rule in force, in order.
    pub fn figures(
        &self,
        counters: &[Arc<LoopCounters>],
        policy: &Policy,
    ) -> Vec<(Arc<str>, RuleFigures)> {
        let figures = |(index, rule): (usize, &policy::CompiledRule)| {
            let now = RuleFigures::sum(counters, index);
            let base = self.base.get(index).copied().unwrap_or_default();
            let before = self.before.get(&rule.name).copied().unwrap_or_default();
            let figures = now
                .zip(base, u64::wrapping_sub)
                .zip(before, u64::wrapping_add);
            (Arc::clone(&rule.name), figures)
        };
        policy.rules().iter().enumerate().map(figures).collect()
    }
}

// === impl RuleFigures ===

impl RuleFigures {
    fn sum(counters: &[Arc<LoopCounters>], index: usize) -> Self {
        let of_loop = |counters: &Arc<LoopCounters>| counters.rules.get(index).map(Self::of);
        counters
            .iter()
            .filter_map(of_loop)
            .fold(Self::default(), |sum, figures| {
                sum.zip(figures, u64::wrapping_add)
            })
    }

    fn of(counters: &RuleCounters) -> Self {
        let RuleCounters {
            hits,
            misses,
            fills,
            fills_refused,
            write_errors_masked,
            shadow_hits,
            shadow_mismatches,
            stale_samples,
            stale,
        } = counters;
        Self {
            hits: hits.get(),
            misses: misses.get(),
            fills: fills.get(),
            fills_refused: fills_refused.get(),
            write_errors_masked: write_errors_masked.get(),
            shadow_hits: shadow_hits.get(),
            shadow_mismatches: shadow_mismatches.get(),
            stale_samples: stale_samples.get(),
            stale: std::array::from_fn(|reason| stale[reason].get()),
        }
    }

    /// All rules together, those that are gone included.
    pub fn total(counters: &[Arc<LoopCounters>]) -> Self {
        let rules = counters.iter().flat_map(|counters| &counters.rules);
        rules.map(Self::of).fold(Self::default(), |sum, figures| {
            sum.zip(figures, u64::wrapping_add)
        })
    }

    fn zip(self, other: Self, f: fn(u64, u64) -> u64) -> Self {
        Self {
            hits: f(self.hits, other.hits),
            misses: f(self.misses, other.misses),
            fills: f(self.fills, other.fills),
            fills_refused: f(self.fills_refused, other.fills_refused),
            write_errors_masked: f(self.write_errors_masked, other.write_errors_masked),
            shadow_hits: f(self.shadow_hits, other.shadow_hits),
            shadow_mismatches: f(self.shadow_mismatches, other.shadow_mismatches),
            stale_samples: f(self.stale_samples, other.stale_samples),
            stale: std::array::from_fn(|reason| f(self.stale[reason], other.stale[reason])),
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::SidecarConfig;

    use super::*;

    fn policy(names: &[&str]) -> Policy {
        let rules: Vec<String> = names
            .iter()
            .map(|name| format!("{{name: {name}, match: '{name}:{{id}}'}}"))
            .collect();
        let text = format!("rules: [{}]", rules.join(", "));
        Policy::compile(&SidecarConfig::from_yaml(&text).unwrap()).unwrap()
    }

    #[test]
    fn counts_follow_the_name_of_a_rule_and_not_its_number() {
        let counters: Vec<Arc<LoopCounters>> = vec![Arc::default(), Arc::default()];
        let mut totals = RuleTotals::default();
        let hits = |totals: &RuleTotals, policy: &Policy| -> Vec<(String, u64)> {
            let figures = totals.figures(&counters, policy);
            figures
                .into_iter()
                .map(|(name, figures)| (name.to_string(), figures.hits))
                .collect()
        };
        let first = policy(&["a", "b"]);
        counters[0].rules[0].hits.add(3);
        counters[1].rules[1].hits.add(5);
        assert_eq!(hits(&totals, &first), [("a".into(), 3), ("b".into(), 5)]);

        let second = policy(&["b", "c", "a"]);
        totals.change(&counters, &first, &second);
        counters[0].rules[0].hits.add(10);
        counters[0].rules[1].hits.add(7);
        assert_eq!(
            hits(&totals, &second),
            [("b".into(), 15), ("c".into(), 7), ("a".into(), 3)]
        );

        let third = policy(&["c"]);
        totals.change(&counters, &second, &third);
        assert_eq!(hits(&totals, &third), [("c".into(), 7)]);
        let fourth = policy(&["c", "b"]);
        totals.change(&counters, &third, &fourth);
        assert_eq!(hits(&totals, &fourth), [("c".into(), 7), ("b".into(), 0)]);
    }
}
