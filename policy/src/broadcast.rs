//! Which key prefixes cover all keys that the rules let the local tier keep.
//!
//! In coherence mode `Broadcast` the server announces every change of a key under these prefixes.
//! It refuses prefixes of which one begins with another, and compares each write with each of
//! them, so they are few and apart.

use crate::{
    CompiledRule,
    config::CacheMode,
    pattern::{Pattern, Segment},
};

/// Most prefixes; with more rules than that, shorter ones that cover more.
pub const MAX_PREFIXES: usize = 32;

/// Prefixes that cover every key that a rule with `cache: Both` matches, none of which begins with
/// another. The empty prefix covers all keys; no prefix at all: no rule keeps anything.
pub fn prefixes(rules: &[CompiledRule]) -> Vec<Vec<u8>> {
    let kept = rules.iter().filter(|rule| rule.cache == CacheMode::Both);
    let begins: Vec<Begin<'_>> = kept.map(|rule| Begin::of(&rule.pattern)).collect();
    let longest = begins.iter().map(|begin| begin.literals.len()).max();
    let mut depth = longest.unwrap_or(0);
    loop {
        let apart = apart(begins.iter().map(|begin| begin.prefix(depth)).collect());
        if apart.len() <= MAX_PREFIXES {
            return apart;
        }
        // At depth 0 there is one prefix left, the empty one.
        depth -= 1;
    }
}

/// Leaves out each prefix that begins with another one.
pub fn apart(mut prefixes: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    prefixes.sort_unstable();
    // Whatever begins with a prefix comes right behind it.
    prefixes.dedup_by(|later, kept| later.starts_with(kept));
    prefixes
}

/// The literal segments at the beginning of a pattern.
struct Begin<'a> {
    literals: Vec<&'a [u8]>,
    /// Nothing follows them.
    whole: bool,
}

impl<'a> Begin<'a> {
    fn of(pattern: &'a Pattern) -> Self {
        let literals: Vec<&[u8]> = pattern
            .segments()
            .iter()
            .map_while(|segment| match segment {
                Segment::Literal(literal) => Some(&**literal),
                Segment::Capture(_) | Segment::Rest => None,
            })
            .collect();
        Self {
            whole: literals.len() == pattern.segments().len(),
            literals,
        }
    }

    /// What every key of the pattern begins with, at most so many segments of it.
    fn prefix(&self, depth: usize) -> Vec<u8> {
        let used = &self.literals[..self.literals.len().min(depth)];
        let mut prefix = used.join(&b':');
        let more_follows = !self.whole || used.len() < self.literals.len();
        if more_follows && !used.is_empty() {
            prefix.push(b':');
        }
        prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Policy, SidecarConfig};

    fn policy(patterns: &[(&str, &str)]) -> Policy {
        let rules: Vec<_> = patterns
            .iter()
            .enumerate()
            .map(|(n, (pattern, cache))| {
                format!("- {{name: r{n}, match: '{pattern}', cache: {cache}}}\n")
            })
            .collect();
        let yaml = format!("rules:\n{}", rules.concat());
        Policy::compile(&SidecarConfig::from_yaml(&yaml).unwrap()).unwrap()
    }

    fn covering(patterns: &[(&str, &str)]) -> Vec<String> {
        prefixes(policy(patterns).rules())
            .into_iter()
            .map(|prefix| String::from_utf8(prefix).unwrap())
            .collect()
    }

    #[test]
    fn only_rules_that_keep_keys_of_redis_count() {
        let rules = [
            ("user:{id}", "Both"),
            ("session:{id}", "RemoteOnly"),
            ("own:*", "LocalOnly"),
            ("none:*", "Bypass"),
        ];
        assert_eq!(covering(&rules), ["user:"]);
        assert_eq!(covering(&rules[1..]), Vec::<String>::new());
    }

    #[test]
    fn no_prefix_begins_with_another() {
        let rules = [
            ("user:{id}:name", "Both"),
            ("user:{id}", "Both"),
            ("user:admins", "Both"),
            ("users", "Both"),
            ("users:x:*", "Both"),
            ("app:a:{x}", "Both"),
            ("app:ab:*", "Both"),
        ];
        assert_eq!(covering(&rules), ["app:a:", "app:ab:", "user:", "users"]);
    }

    #[test]
    fn a_rule_that_begins_with_a_capture_covers_everything() {
        assert_eq!(
            covering(&[("user:{id}", "Both"), ("{tenant}:x", "Both")]),
            [""]
        );
        assert_eq!(covering(&[("*", "Both")]), [""]);
    }

    #[test]
    fn p9_many_rules_are_covered_by_few_prefixes() {
        let names: Vec<String> = (0..100)
            .map(|n| format!("app:{}:kind{n}:{{id}}", n % 5))
            .collect();
        let rules: Vec<_> = names.iter().map(|name| (name.as_str(), "Both")).collect();
        assert_eq!(
            covering(&rules),
            ["app:0:", "app:1:", "app:2:", "app:3:", "app:4:"]
        );
        let names: Vec<String> = (0..100).map(|n| format!("kind{n}:{{id}}")).collect();
        let rules: Vec<_> = names.iter().map(|name| (name.as_str(), "Both")).collect();
        assert_eq!(covering(&rules), [""]);
    }

    #[test]
    fn every_key_that_a_rule_keeps_is_covered() {
        let names: Vec<String> = (0..80)
            .map(|n| match n % 4 {
                0 => format!("a:{n}:{{x}}"),
                1 => format!("a:{n}"),
                2 => format!("b:c:{n}:*"),
                _ => format!("b:c::{n}"),
            })
            .collect();
        for count in [1, 4, 20, 80] {
            let rules: Vec<_> = names[..count]
                .iter()
                .map(|name| (name.as_str(), "Both"))
                .collect();
            let policy = policy(&rules);
            let prefixes = prefixes(policy.rules());
            assert!(prefixes.len() <= MAX_PREFIXES);
            for rule in policy.rules() {
                let key = rule.pattern.witness("fresh");
                assert!(prefixes.iter().any(|prefix| key.starts_with(prefix)));
            }
        }
    }
}
