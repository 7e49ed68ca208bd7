//! `MGET` of cacheable keys: asked together, kept one by one.

use std::{cell::Cell, rc::Rc};

use policy::matcher::RuleId;

use super::super::stale;
use super::{
    super::{
        Flow, Turn,
        gather::{Gather, Merge},
        reply::Target,
    },
    Keep, Question, Waiter, ask_again, prefixed, tracked, waiter, watch,
};
use crate::metrics::Stale;
use crate::{
    client::session::{Lane, Session, Touches},
    clock::Tick,
    measure::{Audit, Verdict, Watch, audit},
    resp::{
        Proto,
        reply::{Value, integer, is_error},
        write::{Reply, command},
    },
    tier::{Body, FillToken, Lookup, Origin, TierLink},
    upstream::{Link, Lost},
    worker::Worker,
};

/// Several keys that are read together (`MGET`).
pub struct ManyRead {
    db: u16,
    keys: Vec<ManyKey>,
    origin: Origin,
    sent: Tick,
    waiter: Waiter,
}

struct ManyKey {
    key: Box<[u8]>,
    rule: RuleId,
    watch: Watch,
    token: Option<FillToken>,
    pttl: Cell<Option<i64>>,
}

/// Reads several keys over the tracked links; `None` if that is not possible now.
pub fn read_many(
    turn: &Turn<'_>,
    session: &mut Session,
    rules: &[RuleId],
    keys: &[&[u8]],
) -> Option<Flow> {
    let worker = turn.worker;
    if !worker.has_upstream() {
        return None;
    }
    let wanted = keys.iter().zip(rules).map(|(key, rule)| (*key, *rule));
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (place, (key, rule)) in wanted.enumerate() {
        let slot = if worker.is_cluster() {
            worker.slot(key)
        } else {
            0
        };
        match groups.iter_mut().find(|group| group.slot == slot) {
            Some(group) => group.keys.push((place, key, rule)),
            None => groups.push(Group {
                slot,
                link: tracked(turn, &*worker.links_of_slot(session.db, slot)?)?,
                keys: vec![(place, key, rule)],
            }),
        }
    }
    let touches = Touches::Anything;
    if let [group] = groups.as_slice() {
        let lane = Lane::Tracked(group.link.server.number);
        if session.must_wait(lane, touches) {
            return Some(Flow::Wait);
        }
        let waiter = waiter(turn, session, (lane, touches));
        group.read(turn, session.db, waiter);
        return Some(Flow::Done);
    }
    let lane = worker.spread_lane(true);
    if session.must_wait(lane, touches) {
        return Some(Flow::Wait);
    }
    let places = groups
        .iter()
        .map(|group| group.keys.iter().map(|(place, ..)| *place).collect());
    let merge = Merge::Places(places.collect());
    let (id, proto) = (session.command, session.proto);
    let number = session.reserve(lane, touches);
    let gather = Gather::new(turn.client, number, id, proto, merge, groups.len());
    for (index, group) in groups.iter().enumerate() {
        let waiter = Waiter {
            client: Rc::clone(turn.client),
            number,
            command: id,
            since: worker.now(),
            part: Some(gather.part(index)),
        };
        group.read(turn, session.db, waiter);
    }
    Some(Flow::Done)
}

/// Keys that one server can be asked for together.
struct Group<'a> {
    slot: u16,
    link: Rc<Link>,
    /// Place in the command, key, rule.
    keys: Vec<(usize, &'a [u8], RuleId)>,
}

impl Group<'_> {
    fn read(&self, turn: &Turn<'_>, db: u16, waiter: Waiter) {
        let worker = turn.worker;
        let tier = &worker.shared.tier;
        let link = &self.link;
        let origin = link.tier.as_ref().map(TierLink::origin).unwrap_or_default();
        // Without a slot in the tier nothing is kept.
        let keeps = link.tier.is_some();
        let keys = self.keys.iter().map(|(_, key, rule)| {
            let at = Lookup { db, key };
            let token = keeps.then(|| tier.begin_fill(at, origin)).flatten();
            ManyKey {
                key: (*key).into(),
                rule: *rule,
                watch: watch(worker, at, &Question::Value, *rule),
                token,
                pttl: Cell::new(None),
            }
        });
        let read = Rc::new(ManyRead {
            db,
            keys: keys.collect(),
            origin,
            sent: Tick::now(),
            waiter,
        });
        let mut wire_keys: Vec<Vec<u8>> = Vec::with_capacity(self.keys.len());
        for (index, (_, key, _)) in self.keys.iter().enumerate() {
            let key = prefixed(turn, key);
            link.send(Target::ManyTtl(Rc::clone(&read), index), false, |out| {
                command(out, &[b"PTTL", &key]);
            });
            wire_keys.push(key);
        }
        let mut words: Vec<&[u8]> = vec![b"MGET"];
        words.extend(wire_keys.iter().map(Vec::as_slice));
        link.send(Target::ManyValue(read), false, |out| command(out, &words));
    }
}

impl ManyRead {
    /// The TTL of one key has come.
    pub fn ttl(&self, index: usize, frame: &[u8]) {
        self.keys[index].pttl.set(integer(frame));
    }

    /// The values have come.
    pub fn values(&self, link: &Link, frame: &[u8]) {
        let worker = link.worker();
        if stale::cannot_serve(frame) && self.is_stale(worker, Stale::Refused) {
            return self.cancel(worker);
        }
        let value = Value::read(frame);
        let items = value
            .as_ref()
            .ok()
            .and_then(Value::list)
            .unwrap_or_default();
        for (index, key) in self.keys.iter().enumerate() {
            let Some(token) = key.token else {
                // A write was in flight: nothing is known of what other links read meanwhile.
                worker.shared.tier.invalidate(&key.key);
                continue;
            };
            let at = Lookup {
                db: self.db,
                key: &key.key,
            };
            let keep = Keep {
                db: self.db,
                key: &key.key,
                rule: key.rule,
                origin: self.origin,
                sent: self.sent,
                watch: key.watch,
            };
            let Some(Value::Text(text)) = items.get(index) else {
                // MGET answers null for a key of another type as well.
                let tier = &worker.shared.tier;
                tier.pass_by(at, token, self.origin.link, None);
                if !is_error(frame) {
                    tier.forget(at);
                }
                continue;
            };
            match self.check(link, key, token, text) {
                Verdict::Keep => keep.fill(worker, token, key.pttl.get(), Body::Text(text)),
                Verdict::Leave => worker.shared.tier.cancel_fill(at, token),
                Verdict::Suspect => {}
            }
        }
        self.waiter
            .answer(worker, is_error(frame), |out, proto| match (proto, items) {
                (Proto::Resp2, [_, ..]) => {
                    let mut reply = Reply::new(out, proto);
                    reply.array(items.len());
                    for item in items {
                        match item {
                            Value::Text(text) => reply.bulk(text),
                            _ => reply.null(),
                        }
                    }
                }
                _ => out.extend_from_slice(frame),
            });
    }

    fn check(&self, link: &Link, key: &ManyKey, token: FillToken, text: &[u8]) -> Verdict {
        if key.watch == Watch::Off {
            return Verdict::Keep;
        }
        let mut frame = Vec::new();
        Reply::new(&mut frame, Proto::Resp3).bulk(text);
        let audit = Audit {
            watch: key.watch,
            db: self.db,
            key: &key.key,
            question: &Question::Value,
            token,
            origin: self.origin,
            rule: key.rule,
        };
        audit::check(link, &audit, &frame)
    }

    fn cancel(&self, worker: &Worker) {
        for key in &self.keys {
            if let Some(token) = key.token {
                let at = Lookup {
                    db: self.db,
                    key: &key.key,
                };
                worker.shared.tier.cancel_fill(at, token);
            }
        }
    }

    fn words(&self) -> Vec<&[u8]> {
        let mut words: Vec<&[u8]> = vec![b"MGET"];
        words.extend(self.keys.iter().map(|key| &*key.key));
        words
    }

    /// Answers with stale values, where the rules allow it.
    fn is_stale(&self, worker: &Rc<Worker>, reason: Stale) -> bool {
        let Waiter {
            client,
            number,
            command,
            part: None,
            ..
        } = &self.waiter
        else {
            return false;
        };
        let words = self.words();
        stale::answer_waiting(worker, client, *number, *command, self.db, &words, reason)
    }

    /// No values will come over this link.
    pub fn lost(&self, worker: &Rc<Worker>, lost: &Lost) {
        self.cancel(worker);
        if self.is_stale(worker, Stale::Unanswered) {
            return;
        }
        let words = self.words();
        let Waiter {
            client,
            number,
            command,
            since,
            part,
        } = &self.waiter;
        let waiter = Waiter {
            client: Rc::clone(client),
            number: *number,
            command: *command,
            since: *since,
            part: part.clone(),
        };
        ask_again(worker, waiter, self.db, &words, lost);
    }
}
