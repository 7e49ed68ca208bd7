//! Shard channels in front of a cluster: one connection per shard that a subscriber listens at.
//!
//! The app sees one node that owns every slot. So the sidecar keeps the list of its shard channels
//! and says itself how many there are; a server's confirmation only makes a subscription count. When
//! a slot moves, the server ends the subscription; it is begun again at the new owner, and the app
//! is not told. Where that fails for about two seconds, the app's connection is closed.
//!
//! A server answers subscriptions by messages and errors in the order in which it was asked, so
//! [`Listening::asked`] says what an answer is to. What the server says unasked is told apart by its
//! place, and by the slot that a `MOVED` names.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use super::{
    super::{
        Flow, Request, Turn,
        redirect::{self, MAX_HOPS, Refusal},
        reply::error_text,
    },
    settle,
};
use crate::{
    client::{Client, output::Output, session::Session},
    command::{CommandId, write_command},
    resp::{
        Proto,
        reply::{Value, is_error},
        write::Reply,
    },
    store::pubsub::{self, Kind},
    upstream::{Link, Lost, topology::key_slot},
};

/// A `MOVED` is followed at once so often; then servers may be of different opinions.
const AT_ONCE: u8 = 2;

/// The shard channels of one subscriber.
#[derive(Default)]
pub(super) struct Shards {
    /// At most one per server.
    links: Vec<Listening>,
    channels: BTreeMap<Box<[u8]>, Channel>,
    /// Channels that no server was asked for.
    homeless: BTreeSet<Box<[u8]>>,
    /// Channels whose confirmation the app has.
    confirmed: usize,
    last_question: u64,
    /// Homeless channels are looked after again in a moment.
    pausing: bool,
}

/// A connection to one server, and what it was asked and has not answered.
struct Listening {
    link: Rc<Link>,
    asked: VecDeque<Asked>,
    /// The server may still send messages of channels that were left.
    dirty: bool,
}

/// One `SSUBSCRIBE` or `SUNSUBSCRIBE` of channels of one slot.
struct Asked {
    number: u64,
    joins: bool,
    slot: u16,
    names: VecDeque<Box<[u8]>>,
}

struct Channel {
    slot: u16,
    home: Home,
    /// Confirmations that the app waits for.
    owed: usize,
    /// How often it was sent on since it was last listened to.
    hops: u8,
}

/// Where a channel is listened to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    Nowhere,
    /// A server was asked by the question of that number.
    Asked {
        server: u32,
        question: u64,
    },
    There {
        server: u32,
    },
}

impl Home {
    fn server(self) -> Option<u32> {
        match self {
            Self::Nowhere => None,
            Self::Asked { server, .. } | Self::There { server } => Some(server),
        }
    }
}

/// What becomes of the app's connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    GoesOn,
    /// The app may have missed messages, and has to know.
    Ends,
}

/// `SSUBSCRIBE` and `SUNSUBSCRIBE` of a client that has a connection of its own.
pub(super) fn change(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Some(shards) = shards(session) else {
        return Flow::Wait;
    };
    let joins = request.spec.id() == CommandId::Ssubscribe;
    if !joins && shards.is_joining() {
        return Flow::Wait;
    }
    if let Some(subscribed) = session.pinned.as_mut().and_then(|p| p.subscribed.as_mut()) {
        subscribed
            .names
            .follow(request.spec.id(), &request.args[1..]);
    }
    if joins {
        join(session, &request.args[1..]);
        place(turn.client, session);
    } else {
        leave(session, &request.args[1..]);
    }
    Flow::Done
}

fn shards(session: &mut Session) -> Option<&mut Shards> {
    let subscribed = session.pinned.as_mut()?.subscribed.as_mut()?;
    Some(&mut subscribed.shards)
}

fn join(session: &mut Session, names: &[&[u8]]) {
    let proto = session.proto;
    let Some(subscribed) = session.pinned.as_mut().and_then(|p| p.subscribed.as_mut()) else {
        return;
    };
    let shards = &mut subscribed.shards;
    for name in names {
        match shards.channels.get_mut(*name) {
            Some(channel) if channel.owed == 0 => {
                joined(&mut session.out, proto, name, shards.confirmed);
            }
            Some(channel) => channel.owed += 1,
            None => {
                let channel = Channel {
                    slot: key_slot(name),
                    home: Home::Nowhere,
                    owed: 1,
                    hops: 0,
                };
                shards.channels.insert(Box::from(*name), channel);
                shards.homeless.insert(Box::from(*name));
            }
        }
    }
}

/// The app is told at once: what the server still sends is not passed on.
fn leave(session: &mut Session, names: &[&[u8]]) {
    let proto = session.proto;
    let Some(subscribed) = session.pinned.as_mut().and_then(|p| p.subscribed.as_mut()) else {
        return;
    };
    let shards = &mut subscribed.shards;
    let names: Vec<Box<[u8]>> = match names {
        [] => shards.channels.keys().cloned().collect(),
        names => names.iter().map(|name| Box::from(*name)).collect(),
    };
    if names.is_empty() {
        left(&mut session.out, proto, None, shards.confirmed);
    }
    let mut groups: BTreeMap<(u32, u16), VecDeque<Box<[u8]>>> = BTreeMap::new();
    for name in names {
        if let Some(channel) = shards.channels.remove(&name) {
            shards.confirmed -= usize::from(channel.owed == 0);
            shards.homeless.remove(&name);
            if let Some(server) = channel.home.server() {
                let group = groups.entry((server, channel.slot)).or_default();
                group.push_back(name.clone());
            }
        }
        left(&mut session.out, proto, Some(&name), shards.confirmed);
    }
    for ((server, slot), names) in groups {
        shards.ask(server, slot, false, names);
    }
}

fn joined(out: &mut Output, proto: Proto, name: &[u8], count: usize) {
    out.append(|out| pubsub::subscribed(&mut Reply::new(out, proto), Kind::Shard, name, count));
}

fn left(out: &mut Output, proto: Proto, name: Option<&[u8]>, count: usize) {
    out.append(|out| pubsub::unsubscribed(&mut Reply::new(out, proto), Kind::Shard, name, count));
}

/// Asks the owners of their slots for all channels that are listened to nowhere.
fn place(client: &Rc<Client>, session: &mut Session) {
    let (db, proto) = (session.db, session.proto);
    let Some(pinned) = session.pinned.as_mut() else {
        return;
    };
    let is_unused = !pinned.listens(&pinned.link) && pinned.alone.is_none() && pinned.link.is_up();
    let unused = is_unused.then(|| Rc::clone(&pinned.link));
    let Some(subscribed) = pinned.subscribed.as_mut() else {
        return;
    };
    let shards = &mut subscribed.shards;
    let mut groups: BTreeMap<u16, VecDeque<Box<[u8]>>> = BTreeMap::new();
    for name in std::mem::take(&mut shards.homeless) {
        if let Some(channel) = shards.channels.get(&name) {
            groups.entry(channel.slot).or_default().push_back(name);
        }
    }
    for (slot, names) in groups {
        let Some(set) = client.worker.links_of_slot(db, slot) else {
            shards.turn_away(names);
            continue;
        };
        let server = set.server.number;
        if !shards.links.iter().any(|l| l.link.server.number == server) {
            let link = match &unused {
                Some(link) if link.server.number == server => Rc::clone(link),
                _ => set.pin(&client.worker, proto),
            };
            link.set_owner(Some(Rc::clone(client)));
            shards.links.push(Listening {
                link,
                asked: VecDeque::new(),
                dirty: false,
            });
        }
        shards.ask(server, slot, true, names);
    }
    look_again(client, session);
}

/// Gives up what was refused too often, and has the rest placed after a pause.
fn look_again(client: &Rc<Client>, session: &mut Session) {
    let command = session.command;
    let proto = session.proto;
    let Some(subscribed) = session.pinned.as_mut().and_then(|p| p.subscribed.as_mut()) else {
        return;
    };
    let shards = &mut subscribed.shards;
    let hops = |shards: &Shards, name: &[u8]| shards.channels.get(name).map_or(0, |c| c.hops);
    let tired: Vec<Box<[u8]>> = shards
        .homeless
        .iter()
        .filter(|name| hops(shards, name) > MAX_HOPS)
        .cloned()
        .collect();
    if !tired.is_empty() {
        let why = Lost::Unavailable("no server takes the subscription".into());
        let error = error_text(&client.worker, command, &why);
        if shards.drop_refused(&tired) == Outcome::Ends {
            session.closing = true;
        } else {
            session
                .out
                .append(|out| Reply::new(out, proto).error(&error));
        }
    }
    let Some(hops) = shards.homeless.iter().map(|name| hops(shards, name)).max() else {
        return;
    };
    if std::mem::replace(&mut shards.pausing, true) {
        return;
    }
    let pause = redirect::pause(&client.worker, hops);
    let client = Rc::clone(client);
    tokio::task::spawn_local(async move {
        tokio::time::sleep(pause).await;
        {
            let mut session = client.session.borrow_mut();
            let session = &mut *session;
            // It may have left them, or gone, or begun anew.
            let Some(shards) = shards_of_task(session) else {
                return;
            };
            shards.pausing = false;
            place(&client, session);
            settle(&client, session);
        }
        client.worker.mark_dirty(&client);
        client.worker.flush_dirty();
        client.wake();
    });
}

fn shards_of_task(session: &mut Session) -> Option<&mut Shards> {
    shards(session).filter(|shards| shards.pausing)
}

/// A frame on one of its links: a message, a confirmation, or an error. Whether it was taken.
pub(super) fn take(client: &Rc<Client>, session: &mut Session, link: &Link, frame: &[u8]) -> bool {
    if is_error(frame) {
        refused(client, session, link, frame);
        return true;
    }
    let Ok(value) = Value::read(frame) else {
        return false;
    };
    let mut parts = value.list().unwrap_or_default().iter().map(Value::text);
    let (Some(Some(kind)), Some(Some(name))) = (parts.next(), parts.next()) else {
        return false;
    };
    let proto = session.proto;
    let Some(subscribed) = session.pinned.as_mut().and_then(|p| p.subscribed.as_mut()) else {
        return false;
    };
    let shards = &mut subscribed.shards;
    match kind {
        b"smessage" if shards.is_there(link, name) => {
            session.out.append(|out| out.extend_from_slice(frame));
        }
        // It was left, and the server did not know yet.
        b"smessage" => {}
        b"ssubscribe" => {
            for count in shards.joined(link, name) {
                joined(&mut session.out, proto, name, count);
            }
        }
        b"sunsubscribe" => {
            if shards.ended(link, name) {
                client.worker.shared.topology.doubt();
                place(client, session);
            }
        }
        _ => return false,
    }
    true
}

/// A server refused a subscription, or the end of one.
fn refused(client: &Rc<Client>, session: &mut Session, link: &Link, frame: &[u8]) {
    let worker = &client.worker;
    let why = redirect::refusal(link, frame);
    let mut moved = None;
    match &why {
        Some(Refusal::Moved(slot, to)) => {
            worker.slot_moved(&link.server, *slot, to);
            moved = Some(*slot);
        }
        Some(_) => worker.shared.topology.doubt(),
        None => {}
    }
    let Some(shards) = shards(session) else {
        return;
    };
    let Some(names) = shards.refused(link, moved) else {
        return;
    };
    if why.is_some() {
        let hops = shards.send_on(&names);
        if moved.is_some() && hops <= AT_ONCE {
            place(client, session);
        } else {
            look_again(client, session);
        }
        return;
    }
    match shards.drop_refused(&names) {
        Outcome::Ends => session.closing = true,
        Outcome::GoesOn if names.is_empty() => {}
        Outcome::GoesOn => session.out.append(|out| out.extend_from_slice(frame)),
    }
}

/// One of its links is gone. Where messages may have been missed, the app has to know, unless its
/// server only ceased to be a primary: then its slots have moved.
pub(super) fn lost(client: &Rc<Client>, session: &mut Session, link: &Link, why: &Lost) -> Outcome {
    let Some(shards) = shards(session) else {
        return Outcome::Ends;
    };
    let outcome = shards.lost(link, *why == Lost::Replaced);
    if outcome == Outcome::GoesOn {
        look_again(client, session);
    }
    outcome
}

impl Shards {
    pub(super) fn has(&self, link: &Link) -> bool {
        self.index(link).is_some()
    }

    fn index(&self, link: &Link) -> Option<usize> {
        self.links
            .iter()
            .position(|listening| std::ptr::eq(Rc::as_ptr(&listening.link), link))
    }

    pub(super) fn links(&self) -> impl Iterator<Item = &Rc<Link>> {
        self.links.iter().map(|listening| &listening.link)
    }

    /// Whether the app waits for confirmations.
    pub(super) fn is_joining(&self) -> bool {
        self.confirmed < self.channels.len()
    }

    /// Whether the last channel was left, and a server does not know yet.
    pub(super) fn is_ending(&self) -> bool {
        self.channels.is_empty() && self.links.iter().any(|l| !l.asked.is_empty())
    }

    pub(super) fn is_over(&self) -> bool {
        self.channels.is_empty() && !self.is_ending()
    }

    /// Takes out the links where nothing is listened to any longer, each with whether it is clean.
    pub(super) fn take_idle(&mut self) -> Vec<(Rc<Link>, bool)> {
        let homes = self.channels.values().filter_map(|c| c.home.server());
        let homes: BTreeSet<u32> = homes.collect();
        let mut idle = Vec::new();
        self.links.retain(|listening| {
            let stays =
                !listening.asked.is_empty() || homes.contains(&listening.link.server.number);
            if !stays {
                idle.push((Rc::clone(&listening.link), !listening.dirty));
            }
            stays
        });
        idle
    }

    fn ask(&mut self, server: u32, slot: u16, joins: bool, names: VecDeque<Box<[u8]>>) {
        let at = self.links.iter_mut();
        let Some(listening) = at.into_iter().find(|l| l.link.server.number == server) else {
            return;
        };
        self.last_question += 1;
        let question = self.last_question;
        let verb: &[u8] = if joins {
            b"SSUBSCRIBE"
        } else {
            b"SUNSUBSCRIBE"
        };
        let words: Vec<&[u8]> = std::iter::once(verb)
            .chain(names.iter().map(|name| &**name))
            .collect();
        let mut bytes = Vec::new();
        write_command(&words, &mut bytes);
        listening.link.append(&bytes);
        if joins {
            for name in &names {
                if let Some(channel) = self.channels.get_mut(name) {
                    channel.home = Home::Asked { server, question };
                }
            }
        }
        listening.asked.push_back(Asked {
            number: question,
            joins,
            slot,
            names,
        });
    }

    fn is_there(&self, link: &Link, name: &[u8]) -> bool {
        let server = link.server.number;
        let channel = self.channels.get(name);
        channel.is_some_and(|channel| channel.home == Home::There { server })
    }

    /// A server listens; the counts of the confirmations that the app is owed.
    fn joined(&mut self, link: &Link, name: &[u8]) -> Vec<usize> {
        let Some(question) = self.answered(link, name, true) else {
            return Vec::new();
        };
        let server = link.server.number;
        let Some(channel) = self.channels.get_mut(name) else {
            return Vec::new();
        };
        if channel.home != (Home::Asked { server, question }) {
            return Vec::new();
        }
        channel.home = Home::There { server };
        channel.hops = 0;
        let owed = std::mem::take(&mut channel.owed);
        self.confirmed += usize::from(owed > 0);
        vec![self.confirmed; owed]
    }

    /// A subscription ended; whether that was not our wish.
    fn ended(&mut self, link: &Link, name: &[u8]) -> bool {
        if self.answered(link, name, false).is_some() || !self.is_there(link, name) {
            return false;
        }
        if let Some(channel) = self.channels.get_mut(name) {
            channel.home = Home::Nowhere;
        }
        self.homeless.insert(Box::from(name))
    }

    /// If that is what the link was asked next, the number of the question.
    fn answered(&mut self, link: &Link, name: &[u8], joins: bool) -> Option<u64> {
        let at = self.index(link)?;
        let asked = &mut self.links[at].asked;
        let first = asked.front_mut()?;
        if first.joins != joins || first.names.front().is_none_or(|next| **next != *name) {
            return None;
        }
        first.names.pop_front();
        let number = first.number;
        if first.names.is_empty() {
            asked.pop_front();
        }
        Some(number)
    }

    /// What the link was asked next was refused: the channels that are listened to nowhere now.
    /// `None` if it was a wish to leave, or if the error answers what has had its answer already:
    /// the end of a channel that the server ended by itself meanwhile.
    fn refused(&mut self, link: &Link, moved: Option<u16>) -> Option<Vec<Box<[u8]>>> {
        let at = self.index(link)?;
        let listening = &mut self.links[at];
        let first = listening.asked.front()?;
        if moved.is_some_and(|slot| slot != first.slot) {
            return None;
        }
        let first = listening.asked.pop_front()?;
        if !first.joins {
            listening.dirty |= moved.is_none();
            return None;
        }
        let server = link.server.number;
        let question = first.number;
        let mut names = Vec::new();
        for name in first.names {
            if let Some(channel) = self.channels.get_mut(&name)
                && channel.home == (Home::Asked { server, question })
            {
                channel.home = Home::Nowhere;
                names.push(name);
            }
        }
        Some(names)
    }

    /// Has them placed anew; how often that was, at most.
    fn send_on(&mut self, names: &[Box<[u8]>]) -> u8 {
        let mut most = 0;
        for name in names {
            if let Some(channel) = self.channels.get_mut(name) {
                channel.home = Home::Nowhere;
                channel.hops = channel.hops.saturating_add(1);
                most = most.max(channel.hops);
                self.homeless.insert(name.clone());
            }
        }
        most
    }

    /// There is no link for them now.
    fn turn_away(&mut self, names: VecDeque<Box<[u8]>>) {
        self.send_on(&Vec::from(names));
    }

    /// They are listened to nowhere, for good.
    fn drop_refused(&mut self, names: &[Box<[u8]>]) -> Outcome {
        let mut outcome = Outcome::GoesOn;
        for name in names {
            self.homeless.remove(name);
            if let Some(channel) = self.channels.remove(name)
                && channel.owed == 0
            {
                self.confirmed -= 1;
                outcome = Outcome::Ends;
            }
        }
        outcome
    }

    fn lost(&mut self, link: &Link, replaced: bool) -> Outcome {
        let Some(at) = self.index(link) else {
            return Outcome::GoesOn;
        };
        let server = link.server.number;
        let there = Home::There { server };
        if !replaced && self.channels.values().any(|channel| channel.home == there) {
            return Outcome::Ends;
        }
        self.links.remove(at);
        let here = self
            .channels
            .iter()
            .filter(|(_, c)| c.home.server() == Some(server));
        let names: Vec<Box<[u8]>> = here.map(|(name, _)| name.clone()).collect();
        self.send_on(&names);
        Outcome::GoesOn
    }
}
