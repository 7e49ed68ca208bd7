//! The invariants of a `SessionPolicy`.

use super::{Invariant, get, ordered, positive, transition};

/// All invariants of a `SessionPolicy`.
pub fn session_policy() -> Vec<Invariant> {
    vec![
        transition(
            "",
            "cacheTierRef",
            "self.cacheTierRef == oldSelf.cacheTierRef",
            "cacheTierRef cannot change: the sessions live in that tier; create a second SessionPolicy",
            |new, old| get(new, "cacheTierRef") == get(old, "cacheTierRef"),
        ),
        positive("", "idleTimeout", "remove it to use the preset"),
        positive("", "absoluteTimeout", "remove it for no limit"),
        ordered(
            "",
            "idleTimeout",
            "absoluteTimeout",
            "idleTimeout must not be longer than absoluteTimeout, which would always come first; raise absoluteTimeout",
        ),
        ordered(
            "",
            "members.disconnectGrace",
            "idleTimeout",
            "members.disconnectGrace must not be longer than idleTimeout; the session would end before the place is given away",
        ),
        positive("history", "ttl", "remove history to keep no versions"),
        positive("creationRateLimit", "window", "write for example 1m"),
        positive(
            "rotation",
            "interval",
            "remove rotation to exchange tokens only on request",
        ),
        ordered(
            "rotation",
            "grace",
            "interval",
            "rotation.grace must not be longer than rotation.interval; old tokens would pile up",
        ),
        positive("presence", "ttl", "remove it to use the preset"),
    ]
}
