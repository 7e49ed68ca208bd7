//! Redis' glob patterns: matching as `stringmatchlen` does, and escaping.
//!
//! The time is bounded by pattern times text, however many asterisks a client sends.

/// Whether `text` matches the whole pattern (`*`, `?`, `[a-z]`, `[^a]`, backslash).
pub fn glob_match(pattern: &[u8], text: &[u8], ignore_case: bool) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when the text after the last asterisk does not fit.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        let next = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(_), Some(byte)) => one(pattern, p, *byte, ignore_case),
            _ => None,
        };
        if let Some(after) = next {
            p = after;
            t += 1;
        } else if let Some((after_asterisk, from)) = retry
            && from < text.len()
        {
            p = after_asterisk;
            t = from + 1;
            retry = Some((p, t));
        } else {
            return false;
        }
    }
}

/// Matches one byte at pattern position `p`; the position after what matched.
fn one(pattern: &[u8], p: usize, byte: u8, ignore_case: bool) -> Option<usize> {
    let same = |a: u8| a == byte || (ignore_case && a.eq_ignore_ascii_case(&byte));
    match pattern[p] {
        b'?' => Some(p + 1),
        b'[' => class(pattern, p + 1, byte, ignore_case),
        b'\\' if p + 1 < pattern.len() => same(pattern[p + 1]).then_some(p + 2),
        literal => same(literal).then_some(p + 1),
    }
}

/// Matches a bracket expression whose inside begins at `p`; an unclosed one ends with the pattern.
fn class(pattern: &[u8], mut p: usize, byte: u8, ignore_case: bool) -> Option<usize> {
    let fold = |a: u8| {
        if ignore_case {
            a.to_ascii_lowercase()
        } else {
            a
        }
    };
    let byte = fold(byte);
    let negated = pattern.get(p) == Some(&b'^');
    p += usize::from(negated);
    let mut matched = false;
    let end = loop {
        match pattern.get(p) {
            None => break p,
            Some(b']') => break p + 1,
            Some(b'\\') if p + 1 < pattern.len() => {
                matched |= fold(pattern[p + 1]) == byte;
                p += 2;
            }
            Some(first) if pattern.get(p + 1) == Some(&b'-') && p + 2 < pattern.len() => {
                let (first, last) = (fold(*first), fold(pattern[p + 2]));
                matched |= (first.min(last)..=first.max(last)).contains(&byte);
                p += 3;
            }
            Some(literal) => {
                matched |= fold(*literal) == byte;
                p += 1;
            }
        }
    };
    (matched != negated).then_some(end)
}

/// Appends `text` so that it matches only itself within a pattern.
pub fn escape_glob(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\' | b'^' | b'-') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let cases: [(&str, &str, bool); 22] = [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("**", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("h[ae]llo", "hello", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a-", "h-", true),
            ("[", "a", false),
            ("[]a", "a", false),
            ("[^]a", "xa", true),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("[\\]]", "]", true),
            ("\\", "\\", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxbxx", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                glob_match(pattern.as_bytes(), text.as_bytes(), false),
                expected,
                "{pattern} {text}"
            );
        }
        assert!(glob_match(b"GE[S-U]*", b"get|x", true));
    }

    #[test]
    fn many_asterisks_do_not_take_exponential_time() {
        let pattern = b"a*".repeat(500);
        let text = b"a".repeat(2000);
        assert!(!glob_match(
            &[pattern.as_slice(), b"b"].concat(),
            &text,
            false
        ));
    }

    #[test]
    fn an_escaped_text_matches_only_itself() {
        let text = b"a*b?[c]\\d^e-f:";
        let mut pattern = Vec::new();
        escape_glob(text, &mut pattern);
        assert!(glob_match(&pattern, text, false));
        assert!(!glob_match(&pattern, b"aXb?[c]\\d^e-f:", false));
    }
}
