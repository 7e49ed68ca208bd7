//! Globs mean what they mean in Redis, and none of them is expensive (CVE-2024-31228, P9).

use proptest::prelude::*;

use super::*;

#[test]
fn globs_mean_what_they_mean_in_redis() {
    // Expectations taken from `stringmatchlen` in Redis 7.0.
    for (pattern, text, expected) in [
        ("h?llo", "hello", true),
        ("h?llo", "hllo", false),
        ("h*llo", "heeeello", true),
        ("h*llo", "hllo", true),
        ("h[ae]llo", "hallo", true),
        ("h[ae]llo", "hillo", false),
        ("h[^e]llo", "hallo", true),
        ("h[^e]llo", "hello", false),
        ("h[a-c]llo", "hbllo", true),
        ("h[c-a]llo", "hbllo", true),
        ("h[a-c]llo", "hdllo", false),
        ("[a-]", "-", false),
        ("[a-]", "^", true),
        ("[a\\]]", "]", true),
        ("[\\^a]", "^", true),
        ("[]a]", "a", false),
        ("[^]", "a", true),
        ("[", "a", false),
        ("[abc", "b", true),
        ("[a-", "-", true),
        ("\\*", "*", true),
        ("\\*", "a", false),
        ("a\\", "a\\", true),
        ("user:*", "user:", true),
        ("user:*", "use", false),
        ("*:[0-9]:*", "a:b:7:c", true),
        ("a**", "a", true),
        ("*", "", true),
        ("", "", true),
        ("", "a", false),
        ("?", "", false),
        ("**", "abc", true),
        ("a*c", "abcd", false),
        ("a?c", "ac", false),
        ("h[a-", "h-", true),
        ("[]a", "a", false),
        ("[^]a", "xa", true),
        ("a\\*c", "a*c", true),
        ("a\\*c", "abc", false),
        ("[\\]]", "]", true),
        ("\\", "\\", true),
        ("*a*b*c", "xxaxxbxxc", true),
        ("*a*b*c", "xxaxxbxx", false),
        ("Save", "save", false),
        ("[R-T]ave", "save", false),
    ] {
        let found = glob_match(pattern.as_bytes(), text.as_bytes());
        assert_eq!(found, expected, "{pattern} {text}");
    }
}

#[test]
fn globs_that_ignore_case_mean_what_they_mean_in_redis() {
    // Expectations taken from `CONFIG GET` in Redis 7.0 and Valkey 8.1.
    for (pattern, text, expected) in [
        ("S?v*", "save", true),
        ("\\SAVE", "save", true),
        ("[R-T]AVE", "save", true),
        ("[^R-T]ave", "save", false),
        ("[sX]ave", "SAVE", true),
        ("[A-z]ave", "save", true),
        ("[z-A]ave", "save", true),
        ("[t-R]ave", "save", true),
        ("[T-r]ave", "save", false),
        ("[Z-a]ave", "save", false),
        ("[a-Z]ave", "save", false),
        ("GE[S-U]*", "get|x", true),
    ] {
        let found = glob_match_ignoring_case(pattern.as_bytes(), text.as_bytes());
        assert_eq!(found, expected, "{pattern} {text}");
    }
}

#[test]
fn a_pattern_of_many_stars_ends_at_once() {
    // Trying every split of 100,000 bytes at 200 stars would outlive the universe.
    let pattern = [b"a*".repeat(200), b"b".to_vec()].concat();
    assert!(!glob_match(&pattern, &b"a".repeat(100_000)));
    let classes = [b"*[^b]".repeat(200), b"*b".to_vec()].concat();
    assert!(!glob_match(&classes, &b"a".repeat(50_000)));
}

/// The definition, by recursion over all splits; for short inputs only.
fn naive(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
        (_, []) => false,
        (_, [byte, tail @ ..]) => {
            one_byte(pattern, *byte, |byte| byte).is_some_and(|len| naive(&pattern[len..], tail))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn going_back_to_the_last_star_is_enough(
        pattern in "[ab*?\\[\\]^\\\\-]{0,9}",
        text in "[ab\\[\\]^-]{0,8}",
    ) {
        let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
        prop_assert_eq!(glob_match(pattern, text), naive(pattern, text));
    }

    #[test]
    fn case_is_all_that_is_ignored(pattern in "[aB*?\\^]{0,9}", text in "[Ab\\^]{0,8}") {
        let (lower, text) = (pattern.to_lowercase(), text.as_bytes());
        prop_assert_eq!(
            glob_match_ignoring_case(pattern.as_bytes(), text),
            glob_match(lower.as_bytes(), &text.to_ascii_lowercase())
        );
    }

    #[test]
    fn an_escaped_prefix_matches_itself_and_nothing_else(
        prefix in prop::collection::vec(prop::sample::select(b"ab*?[]\\^-:\xff\n".as_slice()), 0..8),
        other in prop::collection::vec(prop::sample::select(b"ab*?[]\\^-:\xff\n".as_slice()), 0..8),
    ) {
        let escaped = glob_escape(&prefix);
        prop_assert!(glob_match(&escaped, &prefix));
        prop_assert_eq!(glob_match(&escaped, &other), prefix == other);
        let under = [&escaped[..], b"*"].concat();
        prop_assert_eq!(glob_match(&under, &other), other.starts_with(&prefix));
    }
}
