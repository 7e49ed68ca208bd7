//! Dynamic parts stay one segment, and come back as they went in (S2.14).

use proptest::prelude::*;

use super::*;
use crate::{Pattern, glob::glob_match};

#[test]
fn separators_wildcards_and_control_characters_are_refused_with_place_and_remedy() {
    for (part, says) in [
        (&b"a:b"[..], "the separator `:` at byte 1"),
        (b"*", "the reserved character `*` at byte 0"),
        (b"ab\r\n", "the control character 0x0d at byte 2"),
        (b"{x}", "escape it as `%7B`"),
        (b"a\x7f", "0x7f"),
        (b"", "is empty"),
    ] {
        let error = check(part).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    for part in [&b"42"[..], b"\xff\xfe", "jos\u{e9} @home-1.2".as_bytes()] {
        assert_eq!(check(part), Ok(()));
    }
}

#[test]
fn ordinary_parts_are_not_copied() {
    assert!(matches!(escape(b"user-42"), Cow::Borrowed(b"user-42")));
    assert_eq!(*escape(b"50%:x"), *b"50%25%3Ax");
    assert!(matches!(unescape(b"user-42"), Ok(Cow::Borrowed(_))));
}

#[test]
fn a_broken_escape_is_named() {
    for (part, at) in [(&b"a%"[..], 1), (b"%4", 0), (b"%zz", 0), (b"%41%+1", 3)] {
        assert_eq!(
            unescape(part),
            Err(KeyPartError::BadEscape { position: at })
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_bytes_become_one_segment_and_come_back(
        part in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..12),
            prop::collection::vec(prop::sample::select(b"%2:*a".as_slice()), 0..6),
        ]
    ) {
        let escaped = escape(&part);
        prop_assert_eq!(check(&escaped), Ok(()));
        let back = unescape(&escaped);
        prop_assert_eq!(back.as_deref(), Ok(&part[..]));

        let key = [b"user:", &escaped[..], b":name"].concat();
        let pattern = Pattern::parse("user:{id}:name").unwrap();
        let captured = pattern.captures(&key).unwrap().next();
        prop_assert_eq!(captured, Some(("id", &escaped[..])));
        prop_assert!(glob_match(&escaped, &escaped), "no glob character is left");
    }

    #[test]
    fn different_parts_stay_different(
        a in prop::collection::vec(prop::sample::select(b"%2:5A3".as_slice()), 0..5),
        b in prop::collection::vec(prop::sample::select(b"%2:5A3".as_slice()), 0..5),
    ) {
        prop_assert_eq!(escape(&a) == escape(&b), a == b);
    }
}
