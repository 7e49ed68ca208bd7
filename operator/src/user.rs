//! The ACL users that every server and Sentinel of a tier has: the operator makes their passwords,
//! the agents give them their rights.

use crate::fingerprint;

/// A user of the servers and Sentinels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// Apps without a sidecar.
    Default,
    /// The operator and the agents.
    Operator,
    /// Replicas towards their primary, Sentinels among each other.
    Replica,
    /// Sidecars.
    Sidecar,
}

impl User {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Default, Self::Operator, Self::Replica, Self::Sidecar];

    /// As the servers know it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Operator => "operator",
            Self::Replica => "replica",
            Self::Sidecar => "sidecar",
        }
    }
}

/// A user, the password to use, and the one that is still accepted.
pub type Accepted<'a> = (User, Option<&'a str>, Option<&'a str>);

/// What a tier's users log in with, as one short word: the operator makes it of the Secret, each
/// agent of what its server was seen to accept, so that a server which still lags behind is told
/// from one that is done. It is a hash over the passwords of all users, which are random but for
/// the one that a person may have given, and says nothing about any of them. `open` is whether apps
/// need none.
pub fn generation<'a>(open: bool, accepted: impl IntoIterator<Item = Accepted<'a>>) -> String {
    let users: Vec<_> = accepted
        .into_iter()
        .map(|(user, current, previous)| (user.name(), current, previous))
        .collect();
    fingerprint::of(&(open, users))
}
