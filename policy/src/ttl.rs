//! Which TTL a write gets. Pure: the caller brings the randomness.
//!
//! What a rule's TTLs are (default, cap) is settled by `compile`; this is what happens per write.

use std::time::Duration;

use crate::{compile::CompiledRule, config::CacheMode};

/// The TTL shortened by a share of up to `percent`, chosen by `random` over its whole range.
///
/// Only ever shortens, so a cap stays a cap, and by less than `percent` of the TTL; never below
/// one millisecond, the least that Redis accepts. More than 100 percent counts as 100.
pub fn jittered(ttl: Duration, percent: u8, random: u32) -> Duration {
    let nanos = ttl.as_nanos();
    // A duration is below 2^94 ns, so both products fit in 128 bits.
    let most = nanos * u128::from(percent.min(100)) / 100;
    let cut = (most * u128::from(random)) >> 32;
    let least = ttl.min(Duration::from_millis(1));
    nanos_to_duration(nanos - cut).max(least)
}

/// The TTL that a write of a key under this rule ends up with; `None` means none.
///
/// `requested` is what the command carries. A TTL that the app asked for is only ever capped; one
/// that the rule supplies is jittered as well. Under `Bypass` and `Deny` nothing is changed.
pub fn effective_ttl(
    requested: Option<Duration>,
    rule: &CompiledRule,
    random: u32,
) -> Option<Duration> {
    if matches!(rule.cache, CacheMode::Bypass | CacheMode::Deny) {
        return requested;
    }
    match requested {
        Some(requested) => Some(rule.ttl_max.map_or(requested, |max| requested.min(max))),
        None => rule
            .ttl
            .map(|ttl| jittered(ttl, rule.jitter_percent, random)),
    }
}

fn nanos_to_duration(nanos: u128) -> Duration {
    const PER_SEC: u128 = 1_000_000_000;
    let secs = u64::try_from(nanos / PER_SEC).unwrap_or(u64::MAX);
    let below = u32::try_from(nanos % PER_SEC).unwrap_or(0);
    Duration::new(secs, below)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Policy, SidecarConfig};

    fn rule(yaml: &str) -> CompiledRule {
        let config = SidecarConfig::from_yaml(yaml).unwrap();
        Policy::compile(&config).unwrap().rules()[0].clone()
    }

    #[test]
    fn an_app_ttl_is_capped_and_never_jittered() {
        let rule =
            rule("{ttl: {max: 1h, jitterPercent: 50}, rules: [{name: a, match: 'a:*', ttl: 5m}]}");
        let of = |secs| effective_ttl(Some(Duration::from_secs(secs)), &rule, u32::MAX);
        assert_eq!(of(10), Some(Duration::from_secs(10)));
        assert_eq!(of(7200), Some(Duration::from_hours(1)));
    }

    #[test]
    fn a_write_without_ttl_gets_the_jittered_ttl_of_its_rule() {
        let rule = rule("{ttl: {jitterPercent: 10}, rules: [{name: a, match: 'a:*', ttl: 100s}]}");
        assert_eq!(
            effective_ttl(None, &rule, 0),
            Some(Duration::from_secs(100))
        );
        assert_eq!(
            effective_ttl(None, &rule, 1 << 31),
            Some(Duration::from_secs(95))
        );
    }

    #[test]
    fn bypass_changes_nothing() {
        let rule =
            rule("{ttl: {default: 1m, max: 1m}, rules: [{name: a, match: a, cache: Bypass}]}");
        assert_eq!(effective_ttl(None, &rule, 7), None);
        let day = Some(Duration::from_hours(24));
        assert_eq!(effective_ttl(day, &rule, 7), day);
    }

    proptest! {
        #[test]
        fn jitter_only_shortens_and_by_no_more_than_its_share(
            millis in prop_oneof![1..1000_u64, any::<u64>()],
            percent in 0..=60_u8,
            random in any::<u32>(),
        ) {
            let ttl = Duration::from_millis(millis);
            let short = jittered(ttl, percent, random);
            let least = ttl.as_nanos() - ttl.as_nanos() * u128::from(percent) / 100;
            prop_assert!(short <= ttl && short.as_nanos() >= least);
            prop_assert!(short >= Duration::from_millis(1));
            prop_assert_eq!(jittered(ttl, 0, random), ttl);
        }

        #[test]
        fn more_randomness_never_lengthens(a in any::<u32>(), b in any::<u32>()) {
            let of = |random| jittered(Duration::from_mins(5), 50, random);
            prop_assert!(of(a.min(b)) >= of(a.max(b)));
        }
    }
}
