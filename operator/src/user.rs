//! The ACL users that every server and Sentinel of a tier has: the operator makes their passwords,
//! the agents give them their rights.

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
