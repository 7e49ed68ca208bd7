//! Redis' glob patterns as commands use them; the matching itself is [`policy::glob`].

use policy::glob;

/// Whether `text` matches the whole pattern (`*`, `?`, `[a-z]`, `[^a]`, backslash).
pub fn glob_match(pattern: &[u8], text: &[u8], ignore_case: bool) -> bool {
    if ignore_case {
        glob::glob_match_ignoring_case(pattern, text)
    } else {
        glob::glob_match(pattern, text)
    }
}
