//! What a link that comes up or breaks does to this loop, and what is said of it.

use std::time::Duration;

use policy::config::WhenUnavailable;

use super::Worker;
use crate::{
    clock::Tick,
    engine::reply::Target,
    metrics::Flush,
    state::{CoherenceState, Connection},
    upstream::{Link, Lost, Role, Status},
};

impl Worker {
    /// A link is ready for commands.
    pub fn link_came_up(&self, link: &Link, tracking_refused: Option<&str>) {
        let address = self.address_of(&link.server);
        let before = self.shared.upstream.facts().connection;
        if before != Connection::Ready {
            self.shared
                .upstream
                .update(|facts| facts.connection = Connection::Ready);
            self.shared.offline.redis_is_back();
            tracing::info!(redis = address, "redis is connected and ready");
        }
        if link.role == Role::Plain {
            crate::engine::memory::redis_is_back(self);
        }
        if link.role != Role::Pinned {
            self.shared.upstream.is_back.notify_waiters();
        }
        if link.role != Role::Tracked {
            return;
        }
        let coherence = match (self.wants_tracking(), tracking_refused, &link.tier) {
            (_, _, None) => {
                CoherenceState::Degraded("too many links fill the local tier".to_owned())
            }
            (false, _, _) => CoherenceState::TtlOnly,
            (true, None, _) if self.announces_late() => CoherenceState::Broadcast,
            (true, None, _) => CoherenceState::Tracking,
            (true, Some(why), _) => CoherenceState::Degraded(why.to_owned()),
        };
        link.fills
            .set(!matches!(coherence, CoherenceState::Degraded(_)));
        self.coherence_is(coherence);
        if link.fills.get() {
            self.prove(link);
        }
    }

    /// A lone server answered that it is a replica now: its invalidations prove nothing about the
    /// primary. The tracked link asks for its role again.
    #[cold]
    pub fn was_demoted(&self, link: &Link) {
        if let Some(set) = self.servers.links(&link.server, link.handshake.db)
            && let Some(tracked) = set.tracked_link()
            && tracked.fills.get()
            && !self.fails_over()
        {
            tracked.leave();
        }
    }

    /// A link has lost its connection, or did not get one.
    pub fn link_went_down(&self, link: &Link, lost: &Lost) {
        if link.role == Role::Tracked {
            // Once per connection that was lost, not per attempt to get a new one.
            let filled = link.fills.replace(false);
            if !filled && *lost == Lost::Demoted {
                // Asks again whether invalidations can be had.
                return;
            }
            if filled {
                self.counters.flushes[Flush::LinkLost as usize].inc();
                if !self.another_fills() {
                    self.shared
                        .upstream
                        .update(|facts| facts.coherence = CoherenceState::Idle);
                }
            }
        }
        if link.role == Role::Pinned || matches!(lost, Lost::Closed | Lost::Replaced) {
            return;
        }
        self.shared.topology.doubt();
        if matches!(lost, Lost::NoDatabase(_)) && !self.is_default(link.handshake.db) {
            return;
        }
        if let Lost::Refused(why) = lost
            && self
                .links_if_there(link.handshake.db, &link.server)
                .is_some_and(|set| set.has_plain_up())
        {
            // Redis is there: it speaks RESP2 only, or has no such right for this user.
            return self.refused(link, why);
        }
        let away = matches!(link.status(), Status::Down(_) | Status::NoDatabase);
        if self.is_cluster && self.another_is_up() {
            if away {
                tracing::debug!(redis = %self.address_of(&link.server), why = %lost, "a server of the cluster is unavailable");
            } else {
                tracing::warn!(redis = %self.address_of(&link.server), role = ?link.role, why = %lost, "a connection to redis broke; reconnecting");
            }
        } else if away {
            let why = lost.to_string();
            let memory =
                self.active().config.resilience.when_unavailable == WhenUnavailable::Memory;
            let mut changed = false;
            self.shared.upstream.update(|facts| {
                let now = Connection::Unavailable(why.clone());
                changed = !matches!(facts.connection, Connection::Unavailable(_));
                facts.connection = now;
            });
            if changed && memory {
                tracing::warn!(why, "redis is unavailable; running on memory");
            } else if changed && self.offline_queue().is_some() {
                tracing::warn!(
                    why,
                    "redis is unavailable; commands wait in the offline queue"
                );
            } else if changed {
                tracing::warn!(why, "redis is unavailable; commands fail until it is back");
            }
        } else {
            tracing::warn!(role = ?link.role, why = %lost, "a connection to redis broke; reconnecting");
        }
    }

    /// A server that takes other connections does not take this one; it will be asked again.
    pub(super) fn refused(&self, link: &Link, why: &str) {
        if link.role == Role::Tracked {
            self.coherence_is(CoherenceState::Degraded(why.to_owned()));
        } else {
            tracing::warn!(protocol = ?link.proto(), why, "redis does not take connections of this protocol version");
        }
    }

    pub(super) fn coherence_is(&self, now: CoherenceState) {
        // One server of a cluster that is a replica by now says nothing of the others.
        let degraded = matches!(now, CoherenceState::Degraded(_));
        if degraded && self.is_cluster && self.another_fills() {
            return;
        }
        if self.shared.upstream.facts().coherence == now {
            return;
        }
        match &now {
            CoherenceState::Degraded(why) => tracing::warn!(
                why,
                "the local tier is off: redis sends no invalidations; commands pass through"
            ),
            state => tracing::info!(?state, "the local tier is on"),
        }
        self.shared.upstream.update(|facts| facts.coherence = now);
    }

    /// Asks for the proof that the tracked link lives: a keyed read, dated by its sending.
    pub(super) fn prove(&self, link: &Link) {
        if !self.wants_tracking() {
            if let Some(tier) = &link.tier {
                tier.prove(Tick::NEVER, Duration::ZERO);
            }
            return;
        }
        self.ask_for_proof(link, Target::Proof(Tick::now()));
    }

    /// Sends the keyed read of a proof.
    pub fn ask_for_proof(&self, link: &Link, target: Target) {
        let Some(key) = self.proof_key(&link.server) else {
            return;
        };
        link.send(target, false, |out| {
            crate::resp::write::command(out, &[b"EXISTS", &key]);
        });
    }
}
