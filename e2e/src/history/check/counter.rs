//! A register that only `INCR` changes: its value is the number of the write that made it, so the
//! order of all writes is known, whether they were concurrent or not.

use std::collections::BTreeMap;

use super::{
    super::{Action, Fate, History, MILLI, Mark, Nanos, Op, Via},
    Promise, Terms, Verdict,
    peaks::{Peaks, Valleys},
};

struct Index {
    /// Acknowledged additions by sum: when had the first of those above a sum taken effect?
    later: Valleys,
    /// Acknowledged additions by acknowledgement, of each sidecar: the highest sum.
    written: BTreeMap<Via, Peaks>,
    /// Reads by their end, of each sidecar: the highest sum.
    seen: BTreeMap<Via, Peaks>,
    /// Beginnings of all additions that may have taken effect.
    begins: Vec<Nanos>,
    ends: Vec<Nanos>,
}

/// Judges all operations on one counter.
pub fn judge(history: &History, places: &[u32], terms: Terms, verdict: &mut Verdict) {
    let index = Index::new(history, places);
    verdict.writes += index.begins.len() as u64;
    judge_additions(history, places, verdict);
    for &place in places {
        let op = &history.ops[place as usize];
        let Action::Read(sum) = op.action else {
            continue;
        };
        let judged = !history.may_lose(op.begun, op.ended);
        if judged {
            verdict.reads += 1;
            verdict.concurrent += u64::from(index.under_way(op) > 0);
        }
        if sum > index.begins.partition_point(|begun| *begun < op.ended) as u64 {
            verdict.object(Promise::NothingInvented, &[place], || {
                format!("a sum of {sum}, above the number of additions that had begun")
            });
            continue;
        }
        if judged {
            index.judge_read(place, op, sum, terms, verdict);
        }
    }
}

/// A sum is told once, and a later addition is told a higher one.
fn judge_additions(history: &History, places: &[u32], verdict: &mut Verdict) {
    let mut told: BTreeMap<Mark, u32> = BTreeMap::new();
    let added = |place: &u32| {
        let op = &history.ops[*place as usize];
        match op.action {
            Action::Add {
                sum,
                fate: Fate::Done,
            } if !history.may_lose(op.begun, op.ended) => Some((op, sum)),
            _ => None,
        }
    };
    let peaks = Peaks::of(
        places
            .iter()
            .filter_map(|place| added(place).map(|(op, sum)| (op.ended, sum, *place))),
    );
    for place in places {
        let Some((op, sum)) = added(place) else {
            continue;
        };
        if let Some(other) = told.insert(sum, *place) {
            verdict.object(Promise::CountsOnce, &[*place, other], || {
                format!("two additions were told the sum {sum}")
            });
        } else if let Some((before, other)) = peaks.before(op.begun)
            && before > sum
        {
            verdict.object(Promise::CountsOnce, &[*place, other], || {
                format!("told {sum} after another had been told {before}")
            });
        }
    }
}

impl Index {
    fn new(history: &History, places: &[u32]) -> Self {
        let mut written: BTreeMap<Via, Vec<_>> = BTreeMap::new();
        let mut seen: BTreeMap<Via, Vec<_>> = BTreeMap::new();
        let mut later = Vec::new();
        let (mut begins, mut ends) = (Vec::new(), Vec::new());
        for &place in places {
            let op = &history.ops[place as usize];
            let sure = !history.may_lose(op.begun, op.ended);
            match op.action {
                Action::Read(sum) if sure => {
                    seen.entry(op.via).or_default().push((op.ended, sum, place));
                    // Whoever sees a sum proves that its addition has taken effect.
                    later.push((sum, op.ended, place));
                }
                Action::Add { sum, fate } if fate != Fate::Refused => {
                    begins.push(op.begun);
                    ends.push(op.ended);
                    if fate == Fate::Done && sure {
                        later.push((sum, op.ended, place));
                        let item = (op.ended, sum, place);
                        written.entry(op.via).or_default().push(item);
                    }
                }
                _ => {}
            }
        }
        begins.sort_unstable();
        ends.sort_unstable();
        let peaks = |lists: BTreeMap<Via, Vec<_>>| {
            lists
                .into_iter()
                .map(|(via, items)| (via, Peaks::of(items)))
                .collect()
        };
        Self {
            later: Valleys::of(later),
            written: peaks(written),
            seen: peaks(seen),
            begins,
            ends,
        }
    }

    fn under_way(&self, op: &Op) -> usize {
        let begun = self.begins.partition_point(|begun| *begun < op.ended);
        let ended = self.ends.partition_point(|ended| *ended <= op.begun);
        begun.saturating_sub(ended)
    }

    fn judge_read(&self, place: u32, op: &Op, sum: Mark, terms: Terms, verdict: &mut Verdict) {
        let (age, by) = match self.later.after(sum) {
            Some((done, by)) if done < op.begun => (op.begun - done, by),
            _ => (0, place),
        };
        if op.via == Via::Direct {
            if age > 0 {
                verdict.object(Promise::NothingLost, &[place, by], || {
                    format!("a direct read of {sum} after a higher sum had been seen")
                });
            }
            return;
        }
        verdict.staleness.note(age);
        if age > terms.bound {
            verdict.object(Promise::BoundedStaleness, &[place, by], || {
                let (age, bound) = (age / MILLI, terms.bound / MILLI);
                format!("overwritten {age} ms before the read began; the bound is {bound} ms")
            });
        }
        let newer = |peaks: &BTreeMap<Via, Peaks>| {
            let newest = peaks.get(&op.via).and_then(|all| all.before(op.begun));
            newest.filter(|(newest, _)| *newest > sum)
        };
        if let Some((newest, by)) = newer(&self.written) {
            verdict.object(Promise::ReadYourWrites, &[place, by], || {
                format!("read {sum} after {newest} was told through the same sidecar")
            });
        }
        if let Some((newest, by)) = newer(&self.seen) {
            verdict.object(Promise::MonotonicReads, &[place, by], || {
                format!("read {sum} after {newest} through the same sidecar")
            });
        }
    }
}
