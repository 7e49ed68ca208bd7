//! Invalidations that were asked for here, and who has applied them.
//!
//! Messages may be lost: what is not acknowledged is never counted as applied. A sidecar that has
//! not answered when `maxStaleness` is over has either proved its tracked link since, and with that
//! received every invalidation Redis sent before, or serves nothing until it does (P1).

use std::collections::{BTreeMap, BTreeSet};

use tokio::{sync::oneshot, time::Instant};

use super::Refused;

/// Invalidations that are waited for at a time; more are refused.
const MOST: usize = 1024;

/// How far an invalidation came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Sidecars that dropped the keys, this one included.
    pub applied: usize,
    /// Sidecars that are known to be there, this one included.
    pub live: usize,
}

/// Who asks.
pub(super) type Done = oneshot::Sender<Result<Applied, Refused>>;

/// All of them, by number.
#[derive(Default)]
pub(super) struct Waiting {
    open: BTreeMap<u64, Open>,
    last: u64,
}

struct Open {
    live: BTreeSet<String>,
    applied: BTreeSet<String>,
    deadline: Instant,
    done: Done,
}

impl Waiting {
    /// Begins to wait for these sidecars, of which `own` is one that has applied it. The answer is
    /// the number; `None` if too much is waited for, and then the asker knows.
    pub(super) fn begin(
        &mut self,
        own: &str,
        mut live: BTreeSet<String>,
        deadline: Instant,
        done: Done,
    ) -> Option<u64> {
        if self.open.len() >= MOST {
            let _ = done.send(Err(Refused::Busy));
            return None;
        }
        self.last += 1;
        live.insert(own.to_owned());
        let open = Open {
            live,
            applied: BTreeSet::from([own.to_owned()]),
            deadline,
            done,
        };
        self.open.insert(self.last, open);
        Some(self.last)
    }

    /// The message is out; `deadline` counts from now.
    pub(super) fn sent(&mut self, number: u64, deadline: Instant) {
        if let Some(open) = self.open.get_mut(&number) {
            open.deadline = deadline;
        }
        self.settle(number);
    }

    /// That sidecar has applied it. One that was not known yet is there all the same.
    pub(super) fn applied(&mut self, number: u64, id: &str) {
        if let Some(open) = self.open.get_mut(&number) {
            open.live.insert(id.to_owned());
            open.applied.insert(id.to_owned());
        }
        self.settle(number);
    }

    /// The message could not be sent.
    pub(super) fn fail(&mut self, number: u64, why: Refused) {
        if let Some(open) = self.open.remove(&number) {
            let _ = open.done.send(Err(why));
        }
    }

    /// Answers those whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        let over: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, open)| open.deadline <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in over {
            self.answer(number);
        }
    }

    /// When the next one's time is over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.open.values().map(|open| open.deadline).min()
    }

    fn settle(&mut self, number: u64) {
        let all = self
            .open
            .get(&number)
            .is_some_and(|open| open.applied.len() == open.live.len());
        if all {
            self.answer(number);
        }
    }

    fn answer(&mut self, number: u64) {
        if let Some(open) = self.open.remove(&number) {
            let _ = open.done.send(Ok(Applied {
                applied: open.applied.len(),
                live: open.live.len(),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn begin(
        waiting: &mut Waiting,
        live: &[&str],
    ) -> (u64, oneshot::Receiver<Result<Applied, Refused>>) {
        let (done, answer) = oneshot::channel();
        let live = live.iter().map(ToString::to_string).collect();
        let deadline = Instant::now() + Duration::from_mins(1);
        (waiting.begin("me", live, deadline, done).unwrap(), answer)
    }

    fn answered(
        answer: &mut oneshot::Receiver<Result<Applied, Refused>>,
    ) -> Option<(usize, usize)> {
        let Applied { applied, live } = answer.try_recv().ok()?.unwrap();
        Some((applied, live))
    }

    #[tokio::test]
    async fn the_answer_comes_when_the_last_live_sidecar_has_applied_it() {
        let mut waiting = Waiting::default();
        let (number, mut answer) = begin(&mut waiting, &["me", "a", "b"]);
        waiting.sent(number, Instant::now() + Duration::from_mins(1));
        waiting.applied(number, "a");
        waiting.applied(number, "a");
        assert_eq!(
            answered(&mut answer),
            None,
            "an acknowledgement that came twice is one"
        );
        waiting.applied(number + 1, "b");
        assert_eq!(answered(&mut answer), None, "of another invalidation");
        waiting.applied(number, "b");
        assert_eq!(answered(&mut answer), Some((3, 3)));
    }

    #[tokio::test]
    async fn p5_who_does_not_answer_is_not_counted_as_applied() {
        let mut waiting = Waiting::default();
        let (number, mut answer) = begin(&mut waiting, &["a", "b"]);
        waiting.applied(number, "a");
        let deadline = waiting.next_deadline().unwrap();
        waiting.expire(deadline - Duration::from_millis(1));
        assert_eq!(answered(&mut answer), None);
        waiting.expire(deadline);
        assert_eq!(answered(&mut answer), Some((2, 3)));
        assert_eq!(waiting.next_deadline(), None);
        waiting.applied(number, "b");
    }

    #[tokio::test]
    async fn alone_the_answer_comes_at_once_and_a_newcomer_counts() {
        let mut waiting = Waiting::default();
        let (number, mut answer) = begin(&mut waiting, &["me"]);
        waiting.sent(number, Instant::now());
        assert_eq!(answered(&mut answer), Some((1, 1)));
        let (number, mut answer) = begin(&mut waiting, &["me", "a"]);
        waiting.applied(number, "newcomer");
        waiting.applied(number, "a");
        assert_eq!(answered(&mut answer), Some((3, 3)));
    }

    #[tokio::test]
    async fn p9_what_is_waited_for_is_bounded() {
        let mut waiting = Waiting::default();
        let open: Vec<_> = (0..MOST).map(|_| begin(&mut waiting, &["a"])).collect();
        let (done, mut answer) = oneshot::channel();
        let none = waiting.begin("me", BTreeSet::new(), Instant::now(), done);
        assert_eq!((none, open.len()), (None, MOST));
        assert_eq!(answer.try_recv().unwrap(), Err(Refused::Busy));
    }
}
