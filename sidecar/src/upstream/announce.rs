//! Which changes Redis is asked to announce on a tracked link.
//!
//! In mode `Broadcast` these are all changes under the prefixes that the rules in force need, so a
//! change of the rules means a new connection. The keys of our own measurements have a prefix of
//! their own.
//!
//! Redis collects the changes of one turn of its event loop and announces them at the end of it,
//! behind the replies of that turn. So the answer to a proof does not say that the changes before
//! it were received: the answer to a second one does, that was sent when the first had come.

use std::sync::Arc;

use policy::{broadcast, config::Coherence};

use crate::{
    measure::probe,
    state::{Active, Shared},
};

/// The prefixes of `CLIENT TRACKING ON BCAST`.
pub type Prefixes = Arc<[String]>;

/// The prefixes that the rules need, behind the key prefix; `None`: changes of keys that were read
/// are announced, or none.
pub fn prefixes(active: &Active, shared: &Shared) -> Option<Prefixes> {
    if active.config.local.coherence != Coherence::Broadcast {
        return None;
    }
    let own = format!("{}{}:", probe::KEY, shared.measured.id);
    let mut wanted = broadcast::prefixes(active.policy.rules());
    wanted.push(own.into_bytes());
    let in_redis = wanted.iter().map(|prefix| active.key_in_redis(prefix));
    let apart = broadcast::apart(in_redis.collect());
    // Patterns and the key prefix are text.
    Some(
        apart
            .iter()
            .map(|prefix| String::from_utf8_lossy(prefix).into_owned())
            .collect(),
    )
}

/// The words that ask for announcements.
pub fn words(prefixes: Option<&Prefixes>) -> Vec<&str> {
    let mut words = vec!["CLIENT", "TRACKING", "ON"];
    if let Some(prefixes) = prefixes {
        words.push("BCAST");
        for prefix in prefixes.iter().filter(|prefix| !prefix.is_empty()) {
            words.extend(["PREFIX", prefix]);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_are_asked_for_without_a_prefix() {
        let words_of = |prefixes: &[&str]| {
            let prefixes: Prefixes = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
            words(Some(&prefixes)).join(" ")
        };
        assert_eq!(words(None).join(" "), "CLIENT TRACKING ON");
        assert_eq!(words_of(&[""]), "CLIENT TRACKING ON BCAST");
        assert_eq!(
            words_of(&["a:", "b"]),
            "CLIENT TRACKING ON BCAST PREFIX a: PREFIX b"
        );
    }
}
