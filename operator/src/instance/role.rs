//! May a running primary go on accepting writes, and whom should a server follow? Pure.
//!
//! Two rules. A primary whose Sentinels name another is superseded: it freezes at once, and follows
//! when the other is seen to be a primary. A primary that sees neither most Sentinels nor all of
//! its replicas may have been replaced without hearing of it: it freezes before Sentinels can have
//! chosen another.

use std::time::Duration;

use super::state::{Role, Sentinels, Server};

/// So long may Sentinels go on naming the primary before: a replica that they have just promoted
/// hears of it before they all know, and must not follow the old primary back.
const DISPUTE: Duration = Duration::from_secs(10);

/// What was seen in one look.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// This server's address.
    pub me: &'a str,
    /// What its server says.
    pub server: &'a Server,
    /// What Sentinels say.
    pub sentinels: &'a Sentinels,
    /// How many replicas it should have.
    pub replicas: usize,
    /// Failover that made it what it is, as far as it knows.
    pub epoch: u64,
    /// How long Sentinels have named another while it was a primary.
    pub disputed: Duration,
}

/// What a server should do about its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on.
    Stay,
    /// Refuse writes, and follow that server as soon as it is seen to be the primary.
    Yield(String),
    /// Follow another server than now, if it is seen to be the primary.
    Follow(String),
}

/// How long a primary goes on without contact: half of the silence after which Sentinels take it
/// for down, so that it has stopped before they choose another.
pub fn patience(down_after_milliseconds: u64) -> Duration {
    Duration::from_millis(down_after_milliseconds / 2)
}

/// How long ago a primary cannot have been replaced without hearing of it: most Sentinels answer it
/// now, or all of its replicas confirmed to follow it. Redis tells that age in whole seconds, rounded down.
pub fn contact(seen: &Seen) -> Option<Duration> {
    if seen.sentinels.answering * 2 > seen.sentinels.total {
        return Some(Duration::ZERO);
    }
    let online = seen.server.replicas.iter().filter(|replica| replica.online);
    let mut lags: Vec<u64> = online
        .map(|replica| u64::try_from(replica.lag).unwrap_or(0))
        .collect();
    lags.sort_unstable();
    let last = seen.replicas.checked_sub(1);
    let oldest = last.map_or(Some(0), |last| lags.get(last).copied());
    oldest.map(Duration::from_secs)
}

/// Whether it is a primary while Sentinels name another.
pub fn is_disputed(seen: &Seen) -> bool {
    let named = seen.sentinels.primary.as_deref();
    seen.server.role == Some(Role::Primary) && named.is_some_and(|named| named != seen.me)
}

/// What to do.
pub fn step(seen: &Seen) -> Step {
    let Some(named) = &seen.sentinels.primary else {
        return Step::Stay;
    };
    // A Sentinel that was left behind names who was the primary before.
    if named == seen.me || seen.sentinels.epoch < seen.epoch {
        return Step::Stay;
    }
    match seen.server.role {
        Some(Role::Primary) if seen.sentinels.epoch > seen.epoch || seen.disputed > DISPUTE => {
            Step::Yield(named.clone())
        }
        Some(Role::Primary) => Step::Stay,
        Some(Role::Replica) if seen.server.primary.as_ref() != Some(named) => {
            Step::Follow(named.clone())
        }
        _ => Step::Stay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::state::Follower;

    fn sentinels(answering: usize, primary: &str, epoch: u64) -> Sentinels {
        Sentinels {
            total: 3,
            answering,
            primary: Some(primary.to_owned()),
            epoch,
        }
    }

    fn server(role: Role, primary: Option<&str>, lags: &[i64]) -> Server {
        let follower = |lag: &i64| Follower {
            online: true,
            lag: *lag,
            ..Follower::default()
        };
        Server {
            role: Some(role),
            primary: primary.map(str::to_owned),
            replicas: lags.iter().map(follower).collect(),
            ..Server::default()
        }
    }

    fn look<T>(server: &Server, sentinels: &Sentinels, see: impl Fn(&Seen) -> T) -> T {
        see(&Seen {
            me: "s0",
            server,
            sentinels,
            replicas: 2,
            epoch: 4,
            disputed: Duration::ZERO,
        })
    }

    #[test]
    fn p8_a_primary_that_sees_a_minority_and_not_all_replicas_is_without_contact() {
        let contact = |answering, lags: &[i64]| {
            let server = server(Role::Primary, None, lags);
            look(&server, &sentinels(answering, "s0", 4), contact)
        };
        let ago = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!((contact(2, &[]), contact(3, &[9])), (ago(0), ago(0)));
        assert_eq!((contact(0, &[0, 1]), contact(1, &[3, 2])), (ago(1), ago(3)));
        assert_eq!((contact(1, &[0]), contact(0, &[])), (None, None));
    }

    #[test]
    fn a_superseded_primary_yields_and_one_that_is_named_stays() {
        let primary = server(Role::Primary, None, &[]);
        let at = |named, epoch| look(&primary, &sentinels(3, named, epoch), step);
        assert_eq!(at("s1", 5), Step::Yield("s1".to_owned()));
        assert_eq!(at("s0", 5), Step::Stay);
        // Left behind: it names who was the primary before this one.
        assert_eq!(at("s1", 3), Step::Stay);
    }

    #[test]
    fn p8_a_replica_just_promoted_does_not_follow_the_old_primary_back() {
        let primary = server(Role::Primary, None, &[]);
        let sentinels = sentinels(3, "s1", 4);
        let after = |seconds| {
            let seen = Seen {
                me: "s0",
                server: &primary,
                sentinels: &sentinels,
                replicas: 2,
                epoch: 4,
                disputed: Duration::from_secs(seconds),
            };
            assert!(is_disputed(&seen));
            step(&seen)
        };
        assert_eq!(after(0), Step::Stay);
        assert_eq!(after(11), Step::Yield("s1".to_owned()));
    }

    #[test]
    fn a_replica_follows_whom_sentinels_name() {
        let of = |primary| server(Role::Replica, Some(primary), &[]);
        let at = |server: &Server, named| look(server, &sentinels(3, named, 5), step);
        assert_eq!(at(&of("s1"), "s1"), Step::Stay);
        assert_eq!(at(&of("s1"), "s2"), Step::Follow("s2".to_owned()));
        // Sentinels promote it themselves.
        assert_eq!(at(&of("s1"), "s0"), Step::Stay);
    }
}
