//! Members by score and then by bytes: a sorted list in short runs.
//!
//! A run has at most `LONGEST` entries, so an insertion moves little; a member is found by binary
//! search, and its rank by adding up the lengths of the runs before it: one step per 64 to 256
//! members, some microseconds in a million.

use std::cmp::Ordering;
use std::ops::Range;

const LONGEST: usize = 256;

#[derive(Clone)]
struct Entry {
    score: f64,
    member: Box<[u8]>,
}

impl Entry {
    /// No score is "not a number", and the two zeros are equal, as they are for Redis.
    fn compare(&self, score: f64, member: &[u8]) -> Ordering {
        let by_score = self.score.partial_cmp(&score).unwrap_or(Ordering::Equal);
        by_score.then_with(|| (*self.member).cmp(member))
    }
}

/// Runs of entries, none of them empty.
#[derive(Clone, Default)]
pub(in crate::store) struct Order {
    runs: Vec<Vec<Entry>>,
}

impl Order {
    pub fn insert(&mut self, score: f64, member: &[u8]) {
        let entry = Entry {
            score,
            member: member.into(),
        };
        // The last run that begins before it, so that appending fills runs up.
        let after = self
            .runs
            .partition_point(|run| run[0].compare(score, member) == Ordering::Less);
        let Some(run) = self.runs.get_mut(after.saturating_sub(1)) else {
            self.runs.push(vec![entry]);
            return;
        };
        let at = run.partition_point(|known| known.compare(score, member) == Ordering::Less);
        run.insert(at, entry);
        if run.len() > LONGEST {
            // Whoever appends leaves full runs behind.
            let split = if at == LONGEST { at } else { LONGEST / 2 };
            let rest = run.split_off(split);
            run.shrink_to_fit();
            self.runs.insert(after.max(1), rest);
        }
    }

    /// Takes out an entry that is there.
    pub fn remove(&mut self, score: f64, member: &[u8]) {
        let Some((place, at)) = self.find(score, member) else {
            debug_assert!(false, "the table knows every member of the order");
            return;
        };
        let run = &mut self.runs[place];
        run.remove(at);
        if run.is_empty() {
            self.runs.remove(place);
        } else if run.len() < run.capacity() / 4 {
            run.shrink_to(run.len() * 2);
            self.join(place);
        }
        if self.runs.len() < self.runs.capacity() / 4 {
            self.runs.shrink_to(self.runs.len() * 2);
        }
    }

    /// Joins a short run with the next, or many removals would leave a run per entry.
    fn join(&mut self, place: usize) {
        let fits = self
            .runs
            .get(place + 1)
            .is_some_and(|next| self.runs[place].len() + next.len() <= LONGEST / 2);
        if fits {
            let next = self.runs.remove(place + 1);
            self.runs[place].extend(next);
        }
    }

    fn find(&self, score: f64, member: &[u8]) -> Option<(usize, usize)> {
        let after = self
            .runs
            .partition_point(|run| run[0].compare(score, member) != Ordering::Greater);
        let place = after.checked_sub(1)?;
        let at = self.runs[place]
            .binary_search_by(|entry| entry.compare(score, member))
            .ok()?;
        Some((place, at))
    }

    /// How many entries come before this one.
    pub fn rank(&self, score: f64, member: &[u8]) -> usize {
        self.count_while(|known, other| {
            let entry_before = known.partial_cmp(&score).unwrap_or(Ordering::Equal);
            entry_before.then_with(|| other.cmp(member)) == Ordering::Less
        })
    }

    /// How many entries at the beginning satisfy a condition that later ones do not.
    pub fn count_while(&self, holds: impl Fn(f64, &[u8]) -> bool) -> usize {
        let after = self
            .runs
            .partition_point(|run| holds(run[0].score, &run[0].member));
        let Some(last) = after.checked_sub(1) else {
            return 0;
        };
        let before: usize = self.runs[..last].iter().map(Vec::len).sum();
        before + self.runs[last].partition_point(|entry| holds(entry.score, &entry.member))
    }

    /// The entries at these places, which exist.
    pub fn range(
        &self,
        places: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = (&[u8], f64)> + use<'_> {
        let (first, from) = self.locate(places.start);
        let (last, to) = self.locate(places.end);
        let empty = places.is_empty();
        let last = if empty { first } else { last + 1 };
        let last = last.min(self.runs.len());
        let runs = self.runs.get(first..last).unwrap_or(&[]);
        let ends = runs.len();
        runs.iter().enumerate().flat_map(move |(nth, run)| {
            let start = if nth == 0 { from } else { 0 };
            let end = if nth + 1 == ends { to } else { run.len() };
            // An end at the beginning of a run that does not exist is the end of the one before.
            let end = end.min(run.len()).max(start);
            run[start..end]
                .iter()
                .map(|entry| (&*entry.member, entry.score))
        })
    }

    /// The run of a place and the offset in it; behind the end, the end of the last run.
    fn locate(&self, place: usize) -> (usize, usize) {
        let mut left = place;
        for (nth, run) in self.runs.iter().enumerate() {
            if left < run.len() || nth + 1 == self.runs.len() {
                return (nth, left);
            }
            left -= run.len();
        }
        (0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn steps() -> impl Strategy<Value = Vec<(bool, u16, i8)>> {
        prop::collection::vec((prop::bool::weighted(0.7), 0_u16..1500, -3_i8..3), 0..3000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn it_holds_what_a_sorted_vector_holds(steps in steps(), a in 0_usize..2000, b in 0_usize..2000) {
            let mut order = Order::default();
            let mut model: Vec<(i8, Vec<u8>)> = Vec::new();
            for (insert, member, score) in steps {
                let member = member.to_string().into_bytes();
                let known = model.iter().position(|(_, known)| *known == member);
                if let Some(at) = known {
                    let (score, member) = model.remove(at);
                    order.remove(f64::from(score), &member);
                }
                if insert {
                    order.insert(f64::from(score), &member);
                    model.push((score, member));
                }
            }
            model.sort();
            let found = |places: Range<usize>| -> Vec<(Vec<u8>, f64)> {
                order.range(places).map(|(member, score)| (member.to_vec(), score)).collect()
            };
            let wanted: Vec<(Vec<u8>, f64)> =
                model.iter().map(|(score, member)| (member.clone(), f64::from(*score))).collect();
            prop_assert_eq!(found(0..model.len()), wanted.clone());
            let (from, to) = (a.min(b).min(model.len()), a.max(b).min(model.len()));
            prop_assert_eq!(found(from..to), wanted[from..to].to_vec());
            let mut backwards: Vec<_> =
                order.range(from..to).rev().map(|(member, score)| (member.to_vec(), score)).collect();
            backwards.reverse();
            prop_assert_eq!(backwards, wanted[from..to].to_vec());
            for (at, (member, score)) in wanted.iter().enumerate() {
                prop_assert_eq!(order.rank(*score, member), at);
            }
            prop_assert!(order.runs.iter().all(|run| !run.is_empty() && run.len() <= LONGEST));
        }
    }
}
