//! What a pattern matches, and what is said about one that is refused (S4.2, S2.14).

use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

#[test]
fn a_pattern_matches_segment_by_segment() {
    for (text, matching, other) in [
        (
            "user:{id}:name",
            &[&b"user:1:name"[..], b"user:\xff\x00:name"][..],
            &[
                &b"user::name"[..],
                b"user:1:2:name",
                b"user:1",
                b"xuser:1:name",
                b"user:1:name:",
            ][..],
        ),
        (
            "user:*",
            &[b"user:1", b"user:1:2", b"user::", b"user:1:"],
            &[b"user:", b"user", b"users:1", b""],
        ),
        ("*", &[b"a", b":", b"a:b"], &[b""]),
        ("users::{id}", &[b"users::7"], &[b"users:7", b"users:::7"]),
        ("a\\{b\\}\\*", &[b"a{b}*"], &[b"a\\{b\\}\\*"]),
        ("{tenant}", &[b"x", b"{x}"], &[b"", b"x:y"]),
    ] {
        for key in matching {
            assert!(pattern(text).matches(key), "{text} {key:?}");
        }
        for key in other {
            assert!(!pattern(text).matches(key), "{text} {key:?}");
        }
    }
}

#[test]
fn captures_give_name_and_bytes_in_order() {
    let ghosts = pattern("analytics:ghosts:{guildId}:{since}");
    let found: Vec<_> = ghosts
        .captures(b"analytics:ghosts:42:\xff")
        .unwrap()
        .collect();
    assert_eq!(found, [("guildId", &b"42"[..]), ("since", b"\xff")]);
    assert!(ghosts.captures(b"analytics:ghosts:42").is_none());
    assert_eq!(pattern("u:{id}:*").captures(b"u:1:2:3").unwrap().count(), 1);
}

#[test]
fn a_refused_pattern_is_shown_with_position_and_remedy() {
    for (text, position, says) in [
        ("", 1, "write `*`"),
        ("user:", 5, "write `:*`"),
        ("user:*:x", 6, "must be the whole last segment"),
        ("user*", 5, "must be the whole last segment"),
        ("ü:v{x}", 4, "must be a whole segment"),
        ("a:{x}y", 6, "must be a whole segment"),
        ("a:{x", 3, "add `}`"),
        ("a:{}", 4, "no name for a capture"),
        ("a:{1x}", 4, "no name for a capture"),
        ("a:{b-c}", 4, "no name for a capture"),
        ("a:{x}:{x}", 7, "`x` is there twice"),
        ("a:b?", 4, "write `\\?`"),
        ("a:b}", 4, "write `\\}`"),
        ("a:b\\", 4, "write `\\\\`"),
        ("a\\:b", 2, "write `\\\\`"),
        ("a:\nb", 3, "remove it"),
        ("1:2:3:4:5:6:7:8:9:10:11:12:13:14:15:16:17", 1, "at most 16"),
    ] {
        let error = Pattern::parse(text).unwrap_err();
        assert_eq!(error.position, position, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
    }
    let long = Pattern::parse(&"é".repeat(4000)).unwrap_err().to_string();
    assert!(long.contains("at most 512") && long.len() < 1200, "{long}");
}

#[test]
fn two_patterns_meet_in_a_key_or_not_at_all() {
    for (a, b, key) in [
        ("user:{id}", "user:7", Some("user:7")),
        ("user:*", "{any}:{id}:name", Some("user:1:name")),
        ("{a}:x", "y:{b}", Some("y:x")),
        ("*", "*", Some("1")),
        ("user:{id}", "user:{id}:x", None),
        ("a:{x}:b", "a::b", None),
        ("a", "b", None),
    ] {
        let common = pattern(a).common_key(&pattern(b));
        assert_eq!(common.as_deref(), key.map(str::as_bytes), "{a} {b}");
        assert_eq!(common, pattern(b).common_key(&pattern(a)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn parsing_never_panics_and_what_parses_matches_its_witness(text in "[a:{}*\\\\?é\u{1}\\[ ]{0,12}") {
        if let Ok(pattern) = Pattern::parse(&text) {
            prop_assert!(pattern.matches(&pattern.witness("fresh")));
            prop_assert_eq!(pattern.as_str(), text);
        }
    }

    #[test]
    fn a_common_key_matches_both_patterns(
        a in "(([ab]|\\{[xy]\\}|):){0,3}([ab]|\\{z\\}|\\*)",
        b in "(([ab]|\\{[xy]\\}|):){0,3}([ab]|\\{z\\}|\\*)",
        key in "(([ab]|):){0,3}[ab]",
    ) {
        let (Ok(a), Ok(b)) = (Pattern::parse(&a), Pattern::parse(&b)) else { return Ok(()) };
        match a.common_key(&b) {
            Some(common) => prop_assert!(a.matches(&common) && b.matches(&common)),
            None => prop_assert!(!(a.matches(key.as_bytes()) && b.matches(key.as_bytes()))),
        }
    }
}
