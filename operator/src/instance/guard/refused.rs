//! Sentinels refuse the failover that a primary without its data asks for: they take every replica for
//! too far behind. Pure.
//!
//! A Sentinel never chooses a replica whose link has been down for longer than it has known the primary
//! to be down, plus ten times `down-after-milliseconds` (`sentinelSelectSlave` in sentinel.c): who
//! was cut off from a living primary must not win. But a Sentinel that was started well after the
//! primary ended takes every replica for that, and the difference never shrinks. What is true is told
//! by the places in the stream of writes, as far as they are known.

use std::time::Duration;

use super::{Decision, Keeps, Peer, Says, Situation, primary, wait};

/// A Sentinel that was just started refuses until it has heard from the replicas.
const JUST_STARTED: Duration = Duration::from_secs(10);

/// Whether Sentinels will not change their mind.
pub(super) fn is_final(s: &Situation) -> bool {
    s.refused > JUST_STARTED
}

/// What to do if `peer` is the replica with the newest data.
pub(super) fn decide(s: &Situation, peer: &Peer, says: &Says) -> Decision {
    let behind = format!(
        "Sentinels take {} for too far behind to choose it",
        peer.address
    );
    let silent = s.silent();
    if !silent.is_empty() && !s.accept_loss {
        return wait(format!(
            "{behind}; {} may have more and does not answer",
            silent.join(", ")
        ));
    }
    let lacks = lacks(s, says);
    let begins = s.past.has_data && lacks != Some(0);
    if begins && s.keeps == Keeps::Nearly {
        return primary("Sentinels name this server, and no replica ran on that has more");
    }
    if begins && s.accept_loss {
        return Decision::Primary {
            reason: "Sentinels name this server, and a person chose its last snapshot".to_owned(),
            lost: Some(format!(
                "a person chose the last snapshot of {}: what was written after it is gone, and what \
                 {} alone has",
                s.me, peer.address
            )),
        };
    }
    if begins {
        return wait(format!(
            "{behind}; the last snapshot of this server may be older or newer than what that one has"
        ));
    }
    let lost = match lacks {
        Some(0) => None,
        Some(bytes) => Some(went_on_without(peer, bytes)),
        None => Some(format!(
            "the primary lost its memory, and {} went on, which had been cut off: how far the primary \
             was is not known",
            peer.address
        )),
    };
    Decision::Failover {
        reason: format!("{behind}, and nobody has more: it is chosen all the same"),
        anyway: true,
        lost,
    }
}

/// What is lost with a primary that gives way to one that lacks so many bytes of the stream of writes.
pub(super) fn went_on_without(peer: &Peer, bytes: i64) -> String {
    format!(
        "the primary lost its memory, and {} went on without the last {bytes} bytes of the writes",
        peer.address
    )
}

/// How much of what this server had when it last made its mark the replica does not have, in bytes of
/// the stream of writes; none: not known.
pub(super) fn lacks(s: &Situation, says: &Says) -> Option<i64> {
    let same_stream = says.streams.contains(&s.past.replication_id);
    let marked = s.past.initialised && same_stream;
    marked.then(|| (s.past.offset - says.past.offset).max(0))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Is, check, data, guarding, ran_once, replica_of, situation};
    use super::*;
    use crate::instance::state::Past;

    /// A replica in the stream of [`data`] of failover 1.
    fn replica_at(offset: i64) -> Option<Says> {
        let mut says = replica_of("s0", true)?;
        says.past.offset = offset;
        says.streams = vec!["stream-1".to_owned()];
        Some(says)
    }

    /// Sentinels name this server and have refused for long.
    fn refused(past: Past, peers: [Option<Says>; 2]) -> Situation {
        Situation {
            refused: Duration::from_secs(11),
            waited: Duration::from_secs(12),
            ..situation().all_name("s0").with(past).peers(peers)
        }
    }

    fn without_data(offset: i64) -> Past {
        Past {
            has_data: false,
            ..data(1, offset)
        }
    }

    /// What it says to be lost by a failover all the same; `-` if it decides otherwise.
    fn insists(s: &Situation) -> String {
        match super::super::decide(s) {
            Decision::Failover {
                anyway: true, lost, ..
            } => lost.unwrap_or_default(),
            _ => "-".to_owned(),
        }
    }

    #[test]
    fn sentinels_that_have_just_been_started_are_asked_again() {
        let peers = || [replica_at(900), replica_at(900)];
        let mut s = refused(without_data(900), peers());
        assert_eq!(insists(&s), "");
        s.refused = Duration::from_secs(9);
        assert_eq!(insists(&s), "-");
        check("they may not know the replicas yet", &s, &Is::Failover);
    }

    #[test]
    fn an_empty_primary_gives_way_to_the_furthest_and_says_what_is_lost() {
        let lost = |past, peers| insists(&refused(past, peers));
        let both = || [replica_at(700), replica_at(900)];
        assert_eq!(lost(without_data(900), both()), "");
        assert_eq!(lost(without_data(800), both()), "");
        let bytes = lost(without_data(950), both());
        assert!(
            bytes.contains("s2") && bytes.contains("50 bytes"),
            "{bytes}"
        );
        let unknown = lost(Past::default(), both());
        assert!(unknown.contains("not known"), "{unknown}");
    }

    #[test]
    fn p8_who_is_silent_may_have_more() {
        let s = refused(without_data(900), [replica_at(900), None]);
        check("one is silent", &s, &Is::Waits);
        assert!(super::super::loss_would_help(&s));
        assert_eq!(insists(&s.accepting_loss()), "");
        let s = refused(without_data(900), [replica_at(900), guarding(ran_once())]);
        assert_eq!(insists(&s), "");
    }

    #[test]
    fn a_primary_that_has_more_than_a_replica_that_was_cut_off_begins() {
        let peers = || [replica_at(500), guarding(ran_once())];
        let s = || refused(data(1, 900), peers());
        check("all but two seconds", &s().everysec(), &Is::Primary);
        check("the last snapshot", &s(), &Is::Waits);
        assert!(super::super::loss_would_help(&s()));
        check(
            "a person decides",
            &s().accepting_loss(),
            &Is::PrimaryAfterLoss,
        );
        let in_step = refused(data(1, 500), peers());
        assert_eq!(insists(&in_step.everysec()), "");
    }
}
