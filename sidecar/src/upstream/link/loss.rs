//! What becomes of unanswered commands when the connection breaks: those that never left and those
//! that are idempotent are sent again, or by another link; all others fail honestly.

use std::{collections::VecDeque, rc::Rc};

use policy::config::OfflineQueue;

use super::{Core, Link, Pending, Role, Status};
use crate::{
    client::Client,
    engine::{
        redirect,
        reply::{self, Target},
    },
    upstream::Lost,
};

impl Link {
    /// Settles what is unanswered; the answer is whether the link has ended for good.
    pub(super) fn went_down(&self, lost: &Lost) -> bool {
        if let Some(tier) = &self.tier {
            tier.break_proof();
        }
        let ends = self.role == Role::Pinned
            || matches!(lost, Lost::Closed | Lost::Replaced)
            || matches!(lost, Lost::NoDatabase(_)) && !self.worker.is_default(self.handshake.db);
        if *lost == Lost::Replaced {
            self.hand_over();
        }
        if ends {
            *self.ended.borrow_mut() = Some(lost.to_string().into());
        }
        let failed = self.keep_repeatable(lost, ends);
        for (pending, was_sent) in failed {
            self.fail(pending, was_sent, lost);
        }
        self.worker.link_went_down(self, lost);
        if ends && let Some(owner) = self.owner.take() {
            owner.pin_lost(self, lost);
        }
        self.wake_waiters();
        self.worker.flush_dirty();
        ends
    }

    /// Keeps the commands that will be sent again and returns the others, each with whether it was
    /// sent.
    fn keep_repeatable(&self, lost: &Lost, ends: bool) -> Vec<(Pending, bool)> {
        let retries = self.worker.active().config.resilience.max_retries;
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let was_up = core.status == Status::Up;
        core.status = match lost {
            Lost::NoDatabase(_) => Status::NoDatabase,
            _ if ends => Status::Closed,
            _ if was_up && !self.health.borrow().is_cut_off() => Status::Connecting,
            lost => Status::Down(lost.to_string().into()),
        };
        let lengths: Vec<usize> = core.pending.iter().map(|pending| pending.len).collect();
        // Nothing left the sidecar while there was no connection.
        let sent = core.outbox.count_sent(&lengths);
        let queue = self.worker.offline_queue();
        // With the circuit open, only the queue waits.
        let waits = queue.is_some() || !self.health.borrow().is_cut_off();
        let any = !ends && waits && self.role == Role::Plain;
        let mut keep = core.repeatable(sent, retries, any, queue.is_some());
        if let Some(limits) = queue.filter(|_| matches!(core.status, Status::Down(_))) {
            self.keep_queued(&mut core.pending, &mut keep, limits);
        }
        core.outbox.restart(&lengths, &keep);
        let now = self.worker.now();
        let mut failed = Vec::new();
        for (index, mut pending) in std::mem::take(&mut core.pending).into_iter().enumerate() {
            if keep[index] {
                if !pending.queued {
                    pending.since = now;
                }
                core.pending.push_back(pending);
            } else {
                failed.push((pending, index < sent));
            }
        }
        let again = core.pending.iter().filter(|pending| !pending.queued);
        self.worker
            .counters
            .upstream_retries
            .add(again.count() as u64);
        failed
    }

    /// What would be sent again waits in the offline queue, as far as there is room.
    fn keep_queued(
        &self,
        pending: &mut VecDeque<Pending>,
        keep: &mut [bool],
        limits: OfflineQueue,
    ) {
        for (pending, keep) in pending.iter_mut().zip(keep) {
            if *keep && !pending.queued {
                let queue = &self.worker.shared.offline;
                *keep = queue.has_room(limits, pending.len as u64).is_ok();
                if *keep {
                    self.enter_queue(pending);
                }
            }
        }
    }

    /// Commands that may be sent again go to whoever serves their slot now: any server knows. The
    /// others are left.
    fn hand_over(&self) {
        if self.role != Role::Plain {
            return;
        }
        let retries = self.worker.active().config.resilience.max_retries;
        let mut orphans = Vec::new();
        {
            let mut core = self.core.borrow_mut();
            let core = &mut *core;
            let lengths: Vec<usize> = core.pending.iter().map(|pending| pending.len).collect();
            let sent = core.outbox.count_sent(&lengths);
            let again = core.repeatable(sent, retries, true, true);
            let mut at = 0;
            for (pending, again) in std::mem::take(&mut core.pending).into_iter().zip(again) {
                let bytes = at..at + pending.len;
                at = bytes.end;
                if again {
                    orphans.push((pending, core.outbox.oldest(at)[bytes].to_vec()));
                } else {
                    core.pending.push_back(pending);
                }
            }
        }
        for (mut pending, bytes) in orphans {
            self.leave_queue(&mut pending);
            redirect::send_anywhere(self, pending.target, pending.repeatable, &bytes);
        }
    }

    pub(super) fn fail(&self, mut pending: Pending, was_sent: bool, lost: &Lost) {
        self.leave_queue(&mut pending);
        let unsent = Lost::Unavailable(lost.to_string().into());
        reply::lost(
            &self.worker,
            pending.target,
            if was_sent { lost } else { &unsent },
        );
    }
}

impl Core {
    /// Which unanswered commands may be sent again: those that never left, and those that are
    /// idempotent. A read that was followed by a write of the same client is not repeated: it
    /// would see that write.
    /// With an offline queue (`waits`), what was not sent waits however often connecting fails.
    fn repeatable(&mut self, sent: usize, retries: u8, any: bool, waits: bool) -> Vec<bool> {
        let mut writers: Vec<*const Client> = Vec::new();
        let mut keep = vec![false; self.pending.len()];
        for (index, pending) in self.pending.iter_mut().enumerate().rev() {
            pending.attempts += u8::from(index < sent || !waits);
            let client = match &pending.target {
                Target::Client(target) => Some(Rc::as_ptr(&target.client)),
                _ => None,
            };
            let was_sent = index < sent;
            let overtaken = client.is_some_and(|client| writers.contains(&client));
            let again = !was_sent || pending.repeatable && !overtaken;
            let asks_now = matches!(
                pending.target,
                Target::Proof(_) | Target::SecondProof(_) | Target::Verdict(_) | Target::Measure(_)
            );
            keep[index] = any && again && pending.attempts <= retries && !asks_now;
            if was_sent && !pending.repeatable {
                writers.extend(client);
            }
        }
        keep
    }
}
