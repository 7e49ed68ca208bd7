//! Reads of the local tier that ask Redis: one flight per key, guarded fills.
//!
//! `PTTL` and the read itself travel together over the tracked link, and the fill is applied in
//! the loop that reads the replies and the pushes, in wire order. The token taken before the
//! request was sent decides whether the reply is kept; the app gets it in any case.

mod asked;
mod keep;
mod many;
mod question;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use foldhash::HashMap;
use policy::matcher::RuleId;

use self::{keep::Keep, question::pass_on};
pub use self::{
    many::{ManyRead, read_many},
    question::Question,
};
use super::stale;
use super::{
    Flow, Turn, forward,
    gather::Part,
    offline,
    reply::{self, After, ClientTarget, ReplyChange, Target},
};
use crate::metrics::Stale;
use crate::{
    client::{
        Client,
        session::{Lane, Session, Touches},
    },
    clock::Tick,
    command::CommandId,
    measure::{Audit, Verdict, Watch, audit},
    planted::{self, Bug},
    resp::{
        Proto,
        reply::{integer, is_error},
        write::{Reply, command},
    },
    tier::{FillToken, Lookup, Meta, Origin, Query, TierLink},
    upstream::{Link, LinkSet, Lost, Status},
    worker::Worker,
};

/// Database, key, and what is asked.
type FlightKey = (u16, Box<[u8]>, Question);

/// Reads that are under way in one event loop.
#[derive(Default)]
pub struct Flights {
    by_key: HashMap<FlightKey, Rc<Flight>>,
}

/// One read that is under way.
pub struct Flight {
    db: u16,
    key: Box<[u8]>,
    question: Question,
    token: FillToken,
    rule: RuleId,
    rule_name: Option<Arc<str>>,
    origin: Origin,
    sent: Tick,
    pttl: Cell<Option<i64>>,
    watch: Watch,
    waiters: RefCell<Vec<Waiter>>,
}

struct Waiter {
    client: Rc<Client>,
    number: u64,
    command: CommandId,
    since: Tick,
    /// The read is a share of a command that goes to several servers.
    part: Option<Part>,
}

/// Asks Redis on behalf of the local tier; `None` if that is not possible now and the command is
/// to be forwarded instead.
pub fn read(
    turn: &Turn<'_>,
    session: &mut Session,
    rule: RuleId,
    key: &[u8],
    query: Query<'_>,
    touches: Touches,
) -> Option<Flow> {
    if !turn.worker.has_upstream() {
        return None;
    }
    let link = tracked(turn, &*turn.worker.links_of(session.db, key)?)?;
    let lane = Lane::Tracked(link.server.number);
    if session.must_wait(lane, touches) {
        return Some(Flow::Wait);
    }
    let worker = turn.worker;
    let at = Lookup {
        db: session.db,
        key,
    };
    let question = Question::of(query)?;
    let joined = join(turn, session, at, &question, (lane, touches));
    if joined {
        return Some(Flow::Done);
    }
    let origin = link.tier.as_ref().map(TierLink::origin)?;
    let token = worker.shared.tier.begin_fill(at, origin)?;
    let watch = watch(worker, at, &question, rule);
    let flight = Rc::new(Flight {
        db: session.db,
        key: key.into(),
        question: question.clone(),
        token,
        rule,
        rule_name: turn
            .active
            .policy
            .get(rule)
            .map(|rule| Arc::clone(&rule.name)),
        origin,
        sent: Tick::now(),
        pttl: Cell::new(None),
        watch,
        waiters: RefCell::new(vec![waiter(turn, session, (lane, touches))]),
    });
    let wire_key = prefixed(turn, key);
    link.send(Target::FlightTtl(Rc::clone(&flight)), false, |out| {
        command(out, &[b"PTTL", &wire_key]);
    });
    link.send(Target::FlightValue(Rc::clone(&flight)), false, |out| {
        question.write(&wire_key, out);
    });
    worker
        .flights
        .borrow_mut()
        .by_key
        .insert((session.db, key.into(), question), flight);
    Some(Flow::Done)
}

/// Asks Redis for what the local tier has just answered, to compare. Nobody waits for it.
#[cold]
pub fn sample(worker: &Rc<Worker>, db: u16, key: &[u8], rule: RuleId, query: Query<'_>) {
    let Some(link) = worker
        .links_of(db, key)
        .and_then(|set| set.tracked_link().cloned())
    else {
        return;
    };
    let Some(origin) = link.tier.as_ref().map(TierLink::origin) else {
        return;
    };
    let tier = &worker.shared.tier;
    let at = Lookup { db, key };
    // Entries of other links are theirs to check.
    let ours = |entry: Meta| entry.origin == origin;
    if !link.is_up() || link.is_full() || !tier.peek(at, worker.now()).is_some_and(ours) {
        return;
    }
    let Some(question) = Question::of(query) else {
        return;
    };
    let Some(token) = tier.begin_fill(at, origin) else {
        return;
    };
    let flight = Rc::new(Flight {
        db,
        key: key.into(),
        question: question.clone(),
        token,
        rule,
        rule_name: None,
        origin,
        sent: Tick::now(),
        pttl: Cell::new(None),
        watch: Watch::Sample,
        waiters: RefCell::default(),
    });
    let wire_key = worker.active().key_in_redis(key);
    link.send(Target::FlightValue(flight), false, |out| {
        question.write(&wire_key, out);
    });
}

/// Whether the reply is to be compared; counts a would-be hit, or the miss.
fn watch(worker: &Worker, at: Lookup<'_>, question: &Question, rule: RuleId) -> Watch {
    let watch = if worker.shared.serving.shadows(at.key) {
        let hit = audit::would_hit(worker, at.db, at.key, question, rule);
        Watch::Shadow { hit }
    } else {
        Watch::Off
    };
    if watch != (Watch::Shadow { hit: true }) {
        worker.counters.rules[usize::from(rule.0)].misses.inc();
    }
    watch
}

/// Joins a read of the same key that was not overtaken.
fn join(
    turn: &Turn<'_>,
    session: &mut Session,
    at: Lookup<'_>,
    question: &Question,
    order: (Lane, Touches),
) -> bool {
    let flights = turn.worker.flights.borrow();
    if flights.by_key.is_empty() {
        return false;
    }
    let Some(flight) = flights
        .by_key
        .get(&(at.db, at.key.into(), question.clone()))
    else {
        return false;
    };
    let is_current = turn.worker.shared.tier.is_current(at, flight.token);
    // What was sent longer ago may bring what was overwritten longer ago than P1 allows.
    let is_young = turn.worker.now().since(flight.sent) < turn.worker.max_staleness();
    if !(is_current && is_young || planted::is(Bug::Join)) {
        return false;
    }
    turn.worker.counters.coalesced.inc();
    if matches!(flight.watch, Watch::Shadow { .. }) {
        audit::would_hit(turn.worker, at.db, at.key, question, flight.rule);
    }
    flight
        .waiters
        .borrow_mut()
        .push(waiter(turn, session, order));
    true
}

fn waiter(turn: &Turn<'_>, session: &mut Session, (lane, touches): (Lane, Touches)) -> Waiter {
    Waiter {
        client: Rc::clone(turn.client),
        number: session.reserve(lane, touches),
        command: session.command,
        since: turn.worker.now(),
        part: None,
    }
}

fn tracked(turn: &Turn<'_>, set: &LinkSet) -> Option<Rc<Link>> {
    let link = set.tracked(turn.worker);
    (link.is_up() && link.fills.get() && !link.is_full()).then(|| Rc::clone(link))
}

fn prefixed(turn: &Turn<'_>, key: &[u8]) -> Vec<u8> {
    turn.active.key_in_redis(key)
}

// === impl Flight ===

impl Flight {
    /// The TTL has come.
    pub fn ttl(&self, frame: &[u8]) {
        self.pttl.set(integer(frame));
    }

    /// The value has come: keep it if that is still allowed, and answer everyone who waits.
    pub fn value(self: Rc<Self>, link: &Link, frame: &[u8]) {
        let worker = link.worker();
        self.land(worker);
        let at = Lookup {
            db: self.db,
            key: &self.key,
        };
        match audit::check(link, &self.audit(), frame) {
            Verdict::Keep if planted::keeps_late(&self, worker, frame) => {}
            Verdict::Keep => self.keep(worker, frame),
            Verdict::Leave => worker.shared.tier.cancel_fill(at, self.token),
            Verdict::Suspect => {}
        }
        let refused = stale::cannot_serve(frame);
        for waiter in self.waiters.take() {
            if refused && self.is_stale_for(worker, &waiter, Stale::Refused) {
                continue;
            }
            if self.ended_before(&waiter) {
                self.ask_again(worker, waiter, &Lost::Closed);
                continue;
            }
            waiter.answer(worker, is_error(frame), |out, proto| {
                self.write(waiter.command, frame, proto, out);
            });
        }
    }

    /// Whether the key's time to live was over when that reader joined: the reply was long on its
    /// way.
    fn ended_before(&self, waiter: &Waiter) -> bool {
        let left = self.pttl.get().and_then(|left| u64::try_from(left).ok());
        left.is_some_and(|left| {
            waiter.since.since(self.sent) > Duration::from_millis(left.saturating_add(1))
        })
    }

    fn ask_again(&self, worker: &Rc<Worker>, waiter: Waiter, lost: &Lost) {
        let name = self.question.command(waiter.command);
        self.question.with_words(name, &self.key, |words| {
            ask_again(worker, waiter, self.db, words, lost);
        });
    }

    /// No value will come over this link: the readers' commands are forwarded over the shared one.
    pub fn lost(self: Rc<Self>, worker: &Rc<Worker>, lost: &Lost) {
        self.land(worker);
        worker.shared.tier.cancel_fill(
            Lookup {
                db: self.db,
                key: &self.key,
            },
            self.token,
        );
        for waiter in self.waiters.take() {
            if self.is_stale_for(worker, &waiter, Stale::Unanswered) {
                continue;
            }
            self.ask_again(worker, waiter, lost);
        }
    }

    fn audit(&self) -> Audit<'_> {
        Audit {
            watch: self.watch,
            db: self.db,
            key: &self.key,
            question: &self.question,
            token: self.token,
            origin: self.origin,
            rule: self.rule,
        }
    }

    /// Answers one who waits with a stale value, where the rule allows it.
    fn is_stale_for(&self, worker: &Rc<Worker>, waiter: &Waiter, reason: Stale) -> bool {
        if waiter.part.is_some() {
            return false;
        }
        let name = self.question.command(waiter.command);
        let Waiter {
            client,
            number,
            command,
            ..
        } = waiter;
        self.question.with_words(name, &self.key, |words| {
            stale::answer_waiting(worker, client, *number, *command, self.db, words, reason)
        })
    }

    fn land(self: &Rc<Self>, worker: &Worker) {
        let mut flights = worker.flights.borrow_mut();
        let id = (self.db, self.key.clone(), self.question.clone());
        // A newer flight may have taken the place of one that was overtaken.
        if flights
            .by_key
            .get(&id)
            .is_some_and(|flight| Rc::ptr_eq(flight, self))
        {
            flights.by_key.remove(&id);
        }
    }

    pub(crate) fn keep(&self, worker: &Worker, frame: &[u8]) {
        let at = Lookup {
            db: self.db,
            key: &self.key,
        };
        let keep = Keep {
            db: self.db,
            key: &self.key,
            rule: self.rule,
            origin: self.origin,
            sent: self.sent,
            watch: self.watch,
        };
        let mut scratch = Vec::new();
        let absent = self.pttl.get() == Some(-2);
        // What is larger than the tier is not even looked into.
        let body = if worker.shared.tier.could_hold(frame.len()) {
            self.question.body(frame, absent, &mut scratch)
        } else {
            None
        };
        match body {
            Some(body) => keep.fill(worker, self.token, self.pttl.get(), body),
            // Redis is out: what is known is not gone.
            None if stale::cannot_serve(frame) => worker.shared.tier.cancel_fill(at, self.token),
            None => {
                let tier = &worker.shared.tier;
                tier.pass_by(at, self.token, self.origin.link, None);
                if !is_error(frame) {
                    tier.forget(at);
                }
            }
        }
    }

    /// The reply of one command that waits, in its protocol version.
    fn write(&self, command: CommandId, frame: &[u8], proto: Proto, out: &mut Vec<u8>) {
        if command == CommandId::PannierRead && !is_error(frame) {
            let rule = self.rule_name.as_deref();
            let mut reply = Reply::new(out, proto);
            super::introspect::write_read(frame, rule, "redis", self.pttl.get(), &mut reply);
        } else {
            pass_on(command, frame, self.pttl.get().unwrap_or(-2), proto, out);
        }
    }
}

impl Waiter {
    fn answer(&self, worker: &Worker, failed: bool, write: impl FnOnce(&mut Vec<u8>, Proto)) {
        let proto = self.client.session.borrow().proto;
        if let Some(part) = &self.part {
            return part.answer(worker, |out| write(out, proto));
        }
        reply::count(worker, self.command, failed, worker.now().since(self.since));
        self.client
            .complete(self.number, |out, _| write(out, proto));
    }
}

/// The tracked link broke; a read is idempotent, so it is asked again over the shared link.
fn ask_again(worker: &Rc<Worker>, waiter: Waiter, db: u16, words: &[&[u8]], lost: &Lost) {
    let Waiter {
        client,
        number,
        command: id,
        part,
        ..
    } = waiter;
    let proto = client.session.borrow().proto;
    let plain = worker
        .links_of(db, words[1])
        .map(|set| Rc::clone(set.plain(worker, proto)));
    if let (None, Some(link)) = (&part, &plain) {
        client.session.borrow_mut().put(number, forward::lane(link));
    }
    // All words of MGET are keys; elsewhere only the first is.
    let keys = if id == CommandId::Mget {
        words.len() - 1
    } else {
        1
    };
    // Redis knows nothing of our own commands.
    let (name, change) = match id {
        CommandId::PannierRead => {
            let active = worker.active();
            let rule = active.policy.find(words[1]);
            let rule = rule.map(|id| Arc::clone(&active.policy.rule(id).name));
            (b"GET".as_slice(), ReplyChange::Read(rule))
        }
        _ => (words[0], ReplyChange::None),
    };
    let after = After {
        part,
        change,
        // What another event loop has kept may be older than the reply.
        keys: words[1..]
            .iter()
            .take(keys)
            .map(|key| Box::from(*key))
            .collect(),
        ..After::default()
    };
    let target = ClientTarget::new(&client, number, id, after);
    let bytes = words.iter().map(|word| word.len() + 16).sum();
    let waits = |link: &Rc<Link>| offline::admit(worker, link, bytes, lost.clone()).is_ok();
    match plain {
        Some(link) if matches!(link.status(), Status::Up | Status::Connecting) || waits(&link) => {
            let active = worker.active();
            worker.counters.upstream_retries.inc();
            link.send(Target::Client(target), true, |out| {
                crate::resp::write::header(out, b'*', words.len());
                crate::resp::write::bulk(out, name);
                for (index, word) in words[1..].iter().enumerate() {
                    let word = if index < keys {
                        active.key_in_redis(word)
                    } else {
                        word.to_vec()
                    };
                    crate::resp::write::bulk(out, &word);
                }
            });
        }
        _ => super::reply::lost(
            worker,
            Target::Client(target),
            &Lost::Unavailable(lost.to_string().into()),
        ),
    }
}
