//! A register whose every written value is unique: a value names its write.
//!
//! A write takes effect once, between its beginning and `done`: its acknowledgement, or the end of
//! the first read that saw it, whichever is earlier. `w2` has certainly overwritten `w1` when `w1`
//! was done before `w2` began. From then on `w1`'s value is old, for ever.

use std::collections::{BTreeMap, HashMap};

use super::{
    super::{Action, Fate, History, MILLI, Mark, NEVER, NIL, Nanos, Op, Via},
    Promise, Terms, Verdict,
    peaks::{Peaks, Valleys},
};

/// How far another process' clock and its cached time may be from ours when a key expires.
const CLOCKS: Nanos = 50 * MILLI;

/// A write, or what made the register empty.
struct Write {
    op: Option<u32>,
    begun: Nanos,
    /// It had taken effect by then.
    done: Nanos,
    /// It was acknowledged then.
    acknowledged: Nanos,
    mark: Mark,
    ttl: Option<Nanos>,
    refused: bool,
    /// It certainly overwrote what was there, and Redis has no excuse to lose it.
    certain: bool,
    via: Via,
}

/// Everything about one register that questions are answered from.
struct Index {
    writes: Vec<Write>,
    by_mark: HashMap<Mark, usize>,
    /// Certain writes by beginning: when had the first of those after a time taken effect?
    overwrites: Valleys,
    /// What emptied the register, by beginning: until when may it have taken effect?
    emptied: Peaks,
    /// Acknowledged writes of each sidecar, by acknowledgement: when did the youngest begin?
    written: BTreeMap<Via, Peaks>,
    /// Reads of each sidecar, by their end: when did the write of the youngest value begin?
    seen: BTreeMap<Via, Peaks>,
    begins: Vec<Nanos>,
    ends: Vec<Nanos>,
}

/// Judges all operations on one register.
pub fn judge(history: &History, places: &[u32], terms: Terms, verdict: &mut Verdict) {
    let ops = &history.ops;
    let index = Index::new(history, places);
    verdict.writes += index.begins.len() as u64;
    let mut program = Program::default();
    for &place in places {
        let op = &ops[place as usize];
        program.at(op.client);
        let Action::Read(mark) = op.action else {
            if let Action::Set { fate, .. } | Action::Remove(fate) = op.action
                && fate == Fate::Done
                && !history.may_lose(op.begun, op.ended)
            {
                program.wrote = program.wrote.max(Some((op.begun, place)));
            }
            continue;
        };
        let judged = !history.may_lose(op.begun, op.ended);
        if judged {
            verdict.reads += 1;
            verdict.concurrent += u64::from(index.is_concurrent(op));
        }
        let Some(source) = index.source(mark, op) else {
            verdict.object(Promise::NothingInvented, &[place], || {
                "a value that was never written, or not yet".to_owned()
            });
            continue;
        };
        let read = Read {
            place,
            op,
            source,
            judged,
        };
        index.judge_read(&read, &program, terms, verdict);
        if let Some(begun) = source.begun
            && read.judged
        {
            program.saw = program.saw.max(Some((begun, place)));
        }
    }
}

/// What one client has done so far, in the order of its program.
#[derive(Default)]
struct Program {
    client: Option<u16>,
    wrote: Option<(Nanos, u32)>,
    saw: Option<(Nanos, u32)>,
}

impl Program {
    fn at(&mut self, client: u16) {
        if self.client != Some(client) {
            *self = Self {
                client: Some(client),
                ..Self::default()
            };
        }
    }
}

/// Where a value that was read came from.
#[derive(Clone, Copy)]
struct Source {
    op: Option<u32>,
    /// Its write had taken effect by then.
    done: Nanos,
    /// Its write began then; `None` for an empty register, which may have many reasons.
    begun: Option<Nanos>,
    gone: Option<Nanos>,
    refused: bool,
}

struct Read<'a> {
    place: u32,
    op: &'a Op,
    source: Source,
    /// Not within a time in which Redis may lose writes.
    judged: bool,
}

impl Index {
    fn new(history: &History, places: &[u32]) -> Self {
        let mut writes = vec![Write::beginning()];
        for &place in places {
            writes.extend(Write::of(history, place).into_iter().flatten());
        }
        let mut by_mark = HashMap::new();
        for (number, write) in writes.iter().enumerate() {
            if write.mark != NIL {
                by_mark.insert(write.mark, number);
            }
        }
        // Who sees a value proves that its write has taken effect.
        for op in places.iter().map(|place| &history.ops[*place as usize]) {
            if let Action::Read(mark) = op.action
                && let Some(number) = by_mark.get(&mark)
            {
                let write = &mut writes[*number];
                write.done = write.done.min(op.ended);
            }
        }
        let mut index = Self {
            overwrites: Valleys::of(
                writes
                    .iter()
                    .filter(|write| write.certain)
                    .filter_map(|write| Some((write.begun, write.done, write.op?))),
            ),
            emptied: Peaks::of(writes.iter().filter_map(Write::emptying)),
            written: BTreeMap::new(),
            seen: BTreeMap::new(),
            begins: Vec::new(),
            ends: Vec::new(),
            writes,
            by_mark,
        };
        index.by_sidecar(history, places);
        index
    }

    fn by_sidecar(&mut self, history: &History, places: &[u32]) {
        let mut written: BTreeMap<Via, Vec<_>> = BTreeMap::new();
        for write in self.writes.iter().filter(|write| write.certain) {
            if let Some(op) = write.op {
                let item = (write.acknowledged, write.begun, op);
                written.entry(write.via).or_default().push(item);
            }
        }
        let mut seen: BTreeMap<Via, Vec<_>> = BTreeMap::new();
        for &place in places {
            let op = &history.ops[place as usize];
            match op.action {
                Action::Read(mark) => {
                    if let Some(write) = self.by_mark.get(&mark).map(|at| &self.writes[*at])
                        && !history.may_lose(write.begun.min(op.begun), op.ended)
                    {
                        let item = (op.ended, write.begun, place);
                        seen.entry(op.via).or_default().push(item);
                    }
                }
                Action::MayVanish => {}
                _ => {
                    self.begins.push(op.begun);
                    self.ends.push(op.ended);
                }
            }
        }
        self.begins.sort_unstable();
        self.ends.sort_unstable();
        let peaks = |lists: BTreeMap<Via, Vec<_>>| {
            lists
                .into_iter()
                .map(|(via, items)| (via, Peaks::of(items)))
                .collect()
        };
        self.written = peaks(written);
        self.seen = peaks(seen);
    }

    /// Where a value came from; `None`: from nowhere.
    fn source(&self, mark: Mark, read: &Op) -> Option<Source> {
        if mark == NIL {
            let (done, op) = self.emptied.before(read.ended)?;
            return Some(Source {
                op: (op != u32::MAX).then_some(op),
                done,
                begun: None,
                gone: None,
                refused: false,
            });
        }
        let write = &self.writes[*self.by_mark.get(&mark)?];
        (write.begun < read.ended).then_some(Source {
            op: write.op,
            done: write.done,
            begun: Some(write.begun),
            gone: write.ttl.map(|ttl| write.done.saturating_add(ttl)),
            refused: write.refused,
        })
    }

    /// Whether a write was under way during the read: more had begun by its end than had ended
    /// before it.
    fn is_concurrent(&self, read: &Op) -> bool {
        let begun = self.begins.partition_point(|begun| *begun < read.ended);
        let ended = self.ends.partition_point(|ended| *ended <= read.begun);
        begun > ended
    }

    fn judge_read(&self, read: &Read<'_>, program: &Program, terms: Terms, verdict: &mut Verdict) {
        let Read {
            place, op, source, ..
        } = *read;
        let evidence = |other: Option<u32>| -> Vec<u32> {
            let mut evidence = vec![place];
            evidence.extend(source.op);
            evidence.extend(other);
            evidence.dedup();
            evidence
        };
        if source.refused {
            verdict.object(Promise::RefusedIsRefused, &evidence(None), || {
                "the value of a write that was answered \"not executed\"".to_owned()
            });
        }
        if !read.judged {
            return;
        }
        if let Some(gone) = source.gone
            && op.begun > gone.saturating_add(terms.expiry_slack)
        {
            verdict.object(Promise::NoLifeAfterExpiry, &evidence(None), || {
                let late = (op.begun - gone) / MILLI;
                format!("served {late} ms after its time to live had ended")
            });
        }
        self.judge_age(read, terms, verdict, evidence);
        if op.via == Via::Direct {
            return;
        }
        // P2, over all clients of the sidecar, and within one client's program.
        let newest = |peaks: &BTreeMap<Via, Peaks>, own: Option<(Nanos, u32)>| {
            let all = peaks.get(&op.via).and_then(|all| all.before(op.begun));
            all.max(own).filter(|(begun, _)| *begun > source.done)
        };
        if let Some((_, newer)) = newest(&self.written, program.wrote) {
            verdict.object(Promise::ReadYourWrites, &evidence(Some(newer)), || {
                "older than what was written through the same sidecar before".to_owned()
            });
        }
        if let Some((_, newer)) = newest(&self.seen, program.saw) {
            verdict.object(Promise::MonotonicReads, &evidence(Some(newer)), || {
                "older than what was read through the same sidecar before".to_owned()
            });
        }
    }

    fn judge_age(
        &self,
        read: &Read<'_>,
        terms: Terms,
        verdict: &mut Verdict,
        evidence: impl Fn(Option<u32>) -> Vec<u32>,
    ) {
        let overwritten = self.overwrites.after(read.source.done);
        let (age, by) = match overwritten {
            Some((done, by)) if done < read.op.begun => (read.op.begun - done, Some(by)),
            _ => (0, None),
        };
        if read.op.via == Via::Direct {
            if age > 0 {
                verdict.object(Promise::NothingLost, &evidence(by), || {
                    format!(
                        "a direct read, {} us after an acknowledged write",
                        age / 1000
                    )
                });
            }
            return;
        }
        verdict.staleness.note(age);
        if age > terms.bound {
            verdict.object(Promise::BoundedStaleness, &evidence(by), || {
                let (age, bound) = (age / MILLI, terms.bound / MILLI);
                format!("overwritten {age} ms before the read began; the bound is {bound} ms")
            });
        }
    }
}

impl Write {
    /// Every register is empty when a history begins.
    fn beginning() -> Self {
        Self {
            op: None,
            begun: 0,
            done: 0,
            acknowledged: 0,
            mark: NIL,
            ttl: None,
            refused: false,
            certain: false,
            via: Via::Direct,
        }
    }

    /// What an operation wrote; a time to live writes a second time, when it ends.
    fn of(history: &History, place: u32) -> [Option<Self>; 2] {
        let op = &history.ops[place as usize];
        let (mark, ttl_ms, fate) = match op.action {
            Action::Set { mark, ttl_ms, fate } => (mark, ttl_ms, fate),
            Action::Remove(fate) => (NIL, 0, fate),
            Action::MayVanish => return [Some(Self::vanishing(place, op.begun, op.ended)), None],
            Action::Read(_) | Action::Add { .. } => return [None, None],
        };
        let done = if fate == Fate::Done { op.ended } else { NEVER };
        let ttl = (ttl_ms > 0).then_some(Nanos::from(ttl_ms) * MILLI);
        let write = Self {
            op: Some(place),
            begun: op.begun,
            done,
            acknowledged: done,
            mark,
            ttl,
            refused: fate == Fate::Refused,
            certain: fate == Fate::Done && !history.may_lose(op.begun, op.ended),
            via: op.via,
        };
        let end = ttl.filter(|_| fate != Fate::Refused).map(|ttl| {
            let from = (op.begun + ttl).saturating_sub(CLOCKS);
            Self::vanishing(place, from, done.saturating_add(ttl + CLOCKS))
        });
        // A removal that was refused emptied nothing.
        let write = (mark != NIL || fate != Fate::Refused).then_some(write);
        [write, end]
    }

    fn vanishing(place: u32, begun: Nanos, done: Nanos) -> Self {
        Self {
            op: Some(place),
            begun,
            done,
            ..Self::beginning()
        }
    }

    fn emptying(&self) -> Option<(Nanos, Nanos, u32)> {
        (self.mark == NIL).then_some((self.begun, self.done, self.op.unwrap_or(u32::MAX)))
    }
}
