//! Shard channels in front of a cluster: one connection per shard that a subscriber listens at.
//!
//! The app sees one node that owns every slot. So the sidecar keeps the list of its shard channels
//! and says itself how many there are; a server's confirmation only makes a subscription count. When
//! a slot moves, the server ends the subscription; it is begun again at the new owner, and the app
//! is not told. Where that fails for about two seconds, the app's connection is closed.
//!
//! [`channels`] says where each of them is, and what servers were asked.

mod channels;

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use self::channels::{Channel, Listening};
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
    command::CommandId,
    resp::{
        Proto,
        reply::{Value, is_error},
        write::Reply,
    },
    store::pubsub::{self, Kind},
    upstream::{Link, Lost},
};

pub(super) use self::channels::{Outcome, Shards};

/// A `MOVED` is followed at once so often; then servers may be of different opinions.
const AT_ONCE: u8 = 2;

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
                let channel = Channel::new(name);
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
            shards.links.push(Listening::new(link));
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
