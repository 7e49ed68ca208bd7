//! `MGET` of cacheable keys: asked together, kept one by one.

use std::{cell::Cell, rc::Rc};

use policy::matcher::RuleId;

use super::{
    super::{Flow, Turn, reply::Target},
    Keep, Waiter, ask_again, prefixed, tracked, waiter,
};
use crate::{
    client::session::{Lane, Session, Touches},
    clock::Tick,
    resp::{
        Proto,
        reply::{Value, integer, is_error},
        write::{Reply, command},
    },
    tier::{Body, FillToken, Lookup, Origin, TierLink},
    upstream::Lost,
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
    token: Option<FillToken>,
    pttl: Cell<Option<i64>>,
}

/// Reads several keys over the tracked link; `None` if that is not possible now.
pub fn read_many(
    turn: &Turn<'_>,
    session: &mut Session,
    rules: &[RuleId],
    keys: &[&[u8]],
) -> Option<Flow> {
    let link = tracked(turn, session)?;
    let touches = Touches::Anything;
    if session.must_wait(Lane::Tracked, touches) {
        return Some(Flow::Wait);
    }
    let db = session.db;
    let tier = &turn.worker.shared.tier;
    let origin = link.tier.as_ref().map(TierLink::origin)?;
    let read = Rc::new(ManyRead {
        db,
        keys: keys
            .iter()
            .zip(rules)
            .map(|(key, rule)| ManyKey {
                key: (*key).into(),
                rule: *rule,
                token: tier.begin_fill(Lookup { db, key }, origin),
                pttl: Cell::new(None),
            })
            .collect(),
        origin,
        sent: Tick::now(),
        waiter: waiter(turn, session, touches),
    });
    let wire_keys: Vec<Vec<u8>> = keys.iter().map(|key| prefixed(turn, key)).collect();
    for (index, key) in wire_keys.iter().enumerate() {
        turn.worker.counters.rules[usize::from(rules[index].0)]
            .misses
            .inc();
        link.send(Target::ManyTtl(Rc::clone(&read), index), false, |out| {
            command(out, &[b"PTTL", key]);
        });
    }
    let mut words: Vec<&[u8]> = vec![b"MGET"];
    words.extend(wire_keys.iter().map(Vec::as_slice));
    link.send(Target::ManyValue(read), false, |out| command(out, &words));
    Some(Flow::Done)
}

impl ManyRead {
    /// The TTL of one key has come.
    pub fn ttl(&self, index: usize, frame: &[u8]) {
        self.keys[index].pttl.set(integer(frame));
    }

    /// The values have come.
    pub fn values(&self, worker: &Rc<Worker>, frame: &[u8]) {
        let value = Value::read(frame);
        let items = value
            .as_ref()
            .ok()
            .and_then(Value::list)
            .unwrap_or_default();
        for (index, key) in self.keys.iter().enumerate() {
            let Some(token) = key.token else { continue };
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
            };
            match items.get(index) {
                Some(Value::Text(text)) => {
                    keep.fill(worker, token, key.pttl.get(), Body::Text(text));
                }
                // MGET answers null for a key of another type as well.
                _ => worker.shared.tier.cancel_fill(at, token),
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

    /// No values will come over this link.
    pub fn lost(&self, worker: &Rc<Worker>, lost: &Lost) {
        for key in &self.keys {
            if let Some(token) = key.token {
                worker.shared.tier.cancel_fill(
                    Lookup {
                        db: self.db,
                        key: &key.key,
                    },
                    token,
                );
            }
        }
        let mut words: Vec<&[u8]> = vec![b"MGET"];
        words.extend(self.keys.iter().map(|key| &*key.key));
        let Waiter {
            client,
            number,
            command,
            since,
        } = &self.waiter;
        let waiter = Waiter {
            client: Rc::clone(client),
            number: *number,
            command: *command,
            since: *since,
        };
        ask_again(worker, waiter, self.db, &words, lost);
    }
}
