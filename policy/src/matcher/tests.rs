//! The matcher means what the patterns mean, at a cost that ignores the number of rules (S4.2).

use proptest::prelude::*;

use super::*;

fn patterns(texts: &[impl AsRef<str>]) -> Vec<Pattern> {
    texts
        .iter()
        .map(|text| Pattern::parse(text.as_ref()).unwrap())
        .collect()
}

/// The definition: try one rule after the other.
fn naive(patterns: &[Pattern], key: &[u8]) -> Option<RuleId> {
    let index = patterns.iter().position(|pattern| pattern.matches(key))?;
    Some(RuleId(u16::try_from(index).unwrap()))
}

fn visited(matcher: &Matcher, key: &[u8]) -> usize {
    let mut count = 0;
    matcher.walk(ROOT, key, &mut { NO_RULE }, &mut |_| count += 1);
    count
}

#[test]
fn the_first_matching_rule_wins_even_when_a_later_one_is_more_specific() {
    let rules = patterns(&["user:{id}", "user:me", "user:*", "{any}:x:y", "*"]);
    let matcher = Matcher::compile(&rules).unwrap();
    for (key, rule) in [
        ("user:me", Some(0)),
        ("user:x:y", Some(2)),
        ("other:x:y", Some(3)),
        ("other:x:y:", Some(4)),
        ("user:", Some(4)),
        ("", None),
    ] {
        assert_eq!(matcher.find(key.as_bytes()), rule.map(RuleId), "{key}");
    }
}

#[test]
fn a_dead_literal_branch_falls_back_to_the_capture() {
    let rules = patterns(&["a:b:c", "a:{x}:d", "{y}:b:e", "{y}:{x}:*"]);
    let matcher = Matcher::compile(&rules).unwrap();
    for (key, rule) in [("a:b:c", 0), ("a:b:d", 1), ("a:b:e", 2), ("a:b:f", 3)] {
        assert_eq!(matcher.find(key.as_bytes()), Some(RuleId(rule)), "{key}");
    }
}

#[test]
fn no_rules_match_no_key() {
    let matcher = Matcher::compile(&[]).unwrap();
    assert_eq!(matcher.find(b"a:b"), None);
    assert_eq!(matcher.find(b""), None);
}

#[test]
fn a_thousand_rules_cost_as_many_steps_as_ten() {
    let rules = |count: usize| {
        let texts: Vec<String> = (0..count)
            .map(|n| match n % 5 {
                0 => format!("service{n}:user:{{id}}"),
                1 => format!("service{n}:*"),
                2 => format!("{{tenant}}:kind{n}:{{id}}"),
                3 => format!("analytics:ghosts{n}:{{guild}}:{{since}}"),
                _ => format!("service{n}:{{a}}:list:{{b}}"),
            })
            .collect();
        Matcher::compile(&patterns(&texts)).unwrap()
    };
    let (ten, thousand) = (rules(10), rules(1000));
    for key in [
        "service5:user:1",
        "service1:a:b:c:d:e",
        "acme:kind2:7",
        "analytics:ghosts3:1:2",
        "service4:a:list:b",
        "no:rule:matches:this:key:at:all",
    ] {
        let key = key.as_bytes();
        assert_eq!(visited(&ten, key), visited(&thousand, key), "{key:?}");
        assert_eq!(ten.find(key), thousand.find(key));
    }
}

#[test]
fn a_branch_that_can_only_lose_is_not_walked() {
    for rules in [["a:*", "{x}:b:c"], ["{x}:*", "a:b:c"]] {
        let matcher = Matcher::compile(&patterns(&rules)).unwrap();
        assert_eq!(visited(&matcher, b"a:b:c"), 2, "{rules:?}");
        assert_eq!(matcher.find(b"a:b:c"), Some(RuleId(0)));
    }
}

#[test]
fn patterns_that_would_need_too_many_comparisons_are_refused() {
    // Each prefix of literals and captures is there, so a key of literals visits all 2^n nodes.
    let texts: Vec<String> = (0..512_u32)
        .map(|bits| {
            let segments: Vec<String> = (0..9)
                .map(|at| match bits >> at & 1 {
                    0 => "l".to_owned(),
                    _ => format!("{{c{at}}}"),
                })
                .collect();
            segments.join(":")
        })
        .collect();
    let error = Matcher::compile(&patterns(&texts)).unwrap_err();
    assert_eq!(error, MatcherError::TooManyOverlaps(1023));
    assert!(error.to_string().contains("at most 128"), "{error}");
}

#[test]
fn more_than_a_thousand_rules_are_refused() {
    let texts: Vec<String> = (0..1001).map(|n| format!("r{n}:*")).collect();
    assert!(Matcher::compile(&patterns(&texts[..1000])).is_ok());
    let error = Matcher::compile(&patterns(&texts)).unwrap_err();
    assert!(error.to_string().contains("1001 rules, at most 1000"));
}

/// Few letters and few segments, so that random rules and keys meet often.
fn rule_text() -> impl Strategy<Value = String> {
    let middle = prop_oneof![4 => "[abc]", 2 => Just("{x}".to_owned()), 1 => Just(String::new())];
    let last = prop_oneof![3 => "[abc]", 2 => Just("{x}".to_owned()), 2 => Just("*".to_owned())];
    (prop::collection::vec(middle, 0..4), last).prop_map(|(mut segments, last)| {
        segments.push(last);
        for (at, segment) in segments.iter_mut().enumerate() {
            if segment == "{x}" {
                *segment = format!("{{x{at}}}");
            }
        }
        segments.join(":")
    })
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"abc:::\xff".as_slice()), 0..10)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_matcher_agrees_with_trying_one_rule_after_the_other(
        texts in prop::collection::vec(rule_text(), 0..30),
        keys in prop::collection::vec(key(), 1..60),
    ) {
        let rules = patterns(&texts);
        let matcher = Matcher::compile(&rules).unwrap();
        for key in keys {
            prop_assert_eq!(matcher.find(&key), naive(&rules, &key), "{:?} {:?}", texts, key);
            prop_assert!(visited(&matcher, &key) <= matcher.most_visits());
        }
    }
}
