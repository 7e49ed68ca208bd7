//! What becomes of a reply in the local tier.

use std::time::Duration;

use policy::matcher::RuleId;

use crate::{
    clock::Tick,
    measure::Watch,
    planted::{self, Bug},
    tier::{Body, FillToken, Lookup, Meta, Origin, shadow},
    worker::Worker,
};

/// Where and under which rule a reply is kept.
pub(super) struct Keep<'a> {
    pub(super) db: u16,
    pub(super) key: &'a [u8],
    pub(super) rule: RuleId,
    pub(super) origin: Origin,
    pub(super) sent: Tick,
    pub(super) watch: Watch,
}

impl Keep<'_> {
    /// Fills the tier, with the deadline `sent + min(PTTL, rule's TTL)`.
    pub(super) fn fill(
        &self,
        worker: &Worker,
        token: FillToken,
        pttl: Option<i64>,
        body: Body<'_>,
    ) {
        let counters = &worker.counters.rules[usize::from(self.rule.0)];
        match self.meta(worker, pttl, body) {
            None => {
                let at = Lookup {
                    db: self.db,
                    key: self.key,
                };
                let tier = &worker.shared.tier;
                tier.pass_by(at, token, self.origin.link, Some(body));
                tier.forget(at);
            }
            Some((meta, add_up_to))
                if worker
                    .shared
                    .tier
                    .fill(token, meta, self.key, body, add_up_to) =>
            {
                counters.fills.inc();
            }
            Some(_) => counters.fills_refused.inc(),
        }
    }

    /// How it is kept, and up to which size it is added to what is known; `None`: not at all.
    fn meta(
        &self,
        worker: &Worker,
        pttl: Option<i64>,
        body: Body<'_>,
    ) -> Option<(Meta, Option<usize>)> {
        let active = worker.active();
        let rule = active.policy.get(self.rule)?;
        let max_size = rule
            .max_value_size
            .map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        if body.size() > max_size {
            return None;
        }
        let sent_ms = self.sent.millis();
        let after = |span: Duration| {
            sent_ms.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
        };
        let expires_ms = match pttl? {
            left @ 0.. if !planted::is(Bug::Expiry) => {
                Some(sent_ms.saturating_add(left.unsigned_abs()))
            }
            _ => None,
        };
        let mut deadline_ms = expires_ms.unwrap_or(u64::MAX);
        if let Some(ttl) = rule.local_ttl {
            deadline_ms = deadline_ms.min(after(ttl));
        }
        match body {
            // A key that comes to be at the next owner of its slot is not announced by this one.
            Body::Missing if worker.is_cluster() => {
                deadline_ms = after(rule.negative_ttl?.min(worker.max_staleness()));
            }
            Body::Missing => deadline_ms = after(rule.negative_ttl?),
            // Fields may expire on their own there, without a sign, and the last takes the key along.
            Body::Hash(_) | Body::Typed(b"hash") if worker.expires_fields() => {
                deadline_ms = deadline_ms.min(after(worker.max_staleness()));
            }
            _ => {}
        }
        let meta = Meta {
            deadline_ms,
            expires_ms,
            origin: self.origin,
            rule: self.rule.0,
            db: match self.watch {
                Watch::Shadow { .. } => shadow(self.db),
                Watch::Off | Watch::Sample => self.db,
            },
        };
        // This reply may be newer than what is known and come before the announcement (P2).
        let add_up_to = (!worker.announces_late()).then_some(max_size);
        Some((meta, add_up_to))
    }
}
