//! Commands that a server refused unexecuted: another server gets them, or the same one later.
//!
//! `MOVED` and `ASK` name the server. `TRYAGAIN`, `CLUSTERDOWN`, `LOADING`, `MASTERDOWN`,
//! `READONLY` and `NOREPLICAS` pass with a fail-over or a switch-over, so the command is held for a
//! moment and sent again: for two seconds at most, then the app gets the server's word. Nothing of
//! this happens in front of a lone server, where no other one will take over.
//!
//! A held command keeps its place: the client's later commands on the same keys wait for it. If
//! some of them were sent behind it already, they are executed before it could be sent again; then
//! it is not held, and the app gets the server's word.
//! Source of the redirections: the Redis Cluster specification, "MOVED Redirection" to "Multiple
//! keys operations".

use std::{rc::Rc, time::Duration};

use super::{
    gather::Part,
    offline, pinned,
    reply::{self, ClientTarget, ReplyChange, Target},
};
use crate::{
    client::session::Lane,
    resp::{reply::is_error, write::command},
    upstream::{
        Link, Lost, Role, Server, Status,
        topology::{Address, SLOTS},
    },
    worker::Worker,
};

/// How often a command is sent on.
pub const MAX_HOPS: u8 = 16;
/// The first pause; doubled each time.
const PAUSE: Duration = Duration::from_millis(5);
/// The longest pause: with [`MAX_HOPS`] about two seconds in all.
const MAX_PAUSE: Duration = Duration::from_millis(200);
/// Bytes of commands that are held at a time, per event loop.
const MAX_HELD: usize = 16 << 20;

/// Why a command was not executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The slot is served elsewhere.
    Moved(u16, Address),
    /// The slot is on its way elsewhere, and this key is there already.
    Ask(Address),
    /// It was demoted.
    ReadOnly,
    /// Not now.
    Later,
}

/// What an error frame on `link` says, if it is a refusal that the app need not see.
#[cold]
pub fn refusal(link: &Link, frame: &[u8]) -> Option<Refusal> {
    if !link.worker().fails_over() {
        return None;
    }
    let text = frame.get(1..frame.len().saturating_sub(2))?;
    let mut words = text.split(|byte| *byte == b' ');
    match words.next()? {
        kind @ (b"MOVED" | b"ASK") => {
            let slot: u16 = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
            if usize::from(slot) >= SLOTS {
                return None;
            }
            let to = address(words.next()?, link)?;
            Some(match kind {
                b"ASK" => Refusal::Ask(to),
                _ => Refusal::Moved(slot, to),
            })
        }
        b"READONLY" => Some(Refusal::ReadOnly),
        b"TRYAGAIN" | b"CLUSTERDOWN" | b"LOADING" | b"MASTERDOWN" | b"NOREPLICAS" => {
            Some(Refusal::Later)
        }
        _ => None,
    }
}

/// Whether a read for the local tier was refused by a server that is not, or not now, the one to
/// ask: then it is asked again like any other command.
pub fn refuses_read(link: &Link, frame: &[u8]) -> bool {
    let Some(why) = is_error(frame).then(|| refusal(link, frame)).flatten() else {
        return false;
    };
    match why {
        Refusal::Moved(slot, to) => link.worker().slot_moved(&link.server, slot, &to),
        _ => link.worker().shared.topology.doubt(),
    }
    true
}

/// `host:port`; no host means the one that was asked.
fn address(text: &[u8], link: &Link) -> Option<Address> {
    let (host, port) = std::str::from_utf8(text).ok()?.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match &link.server.address {
        Some(asked) if host.is_empty() || host == "?" => Some(Address::new(&*asked.host, port)),
        None if host.is_empty() || host == "?" => {
            Some(Address::new(&*link.worker().endpoint().host, port))
        }
        _ => Some(Address::new(host, port)),
    }
}

/// Takes care of a refused command. It is given back if the app has to be told.
#[cold]
pub fn take(
    link: &Link,
    mut target: Target,
    repeatable: bool,
    why: Refusal,
    bytes: Vec<u8>,
) -> Option<Target> {
    let worker = link.worker();
    if link.role == Role::Pinned {
        return pinned::sent_on(link, target, why, &bytes);
    }
    let hops = match &mut target {
        Target::Client(client) => &mut client.hops,
        Target::Ignore(hops) => hops,
        _ => return Some(target),
    };
    *hops += 1;
    let hops = *hops;
    if hops > MAX_HOPS {
        return Some(target);
    }
    worker.counters.redirects.inc();
    match why {
        Refusal::Moved(slot, to) => {
            worker.slot_moved(&link.server, slot, &to);
            send_to(link, &to, target, repeatable, &bytes, false)
        }
        Refusal::Ask(to) => send_to(link, &to, target, repeatable, &bytes, true),
        Refusal::ReadOnly | Refusal::Later => {
            worker.shared.topology.doubt();
            if why == Refusal::ReadOnly {
                link.leave();
            }
            hold(link, target, repeatable, hops, bytes)
        }
    }
}

/// Sends the command to the server at `to`.
fn send_to(
    from: &Link,
    to: &Address,
    target: Target,
    repeatable: bool,
    bytes: &[u8],
    asking: bool,
) -> Option<Target> {
    let worker = from.worker();
    let Some(set) = worker.links_at(from.handshake.db, to) else {
        return Some(target);
    };
    let link = Rc::clone(set.plain(worker, from.proto()));
    if let Status::Down(why) = link.status()
        && let Err(lost) = offline::admit(worker, &link, bytes.len(), Lost::Unavailable(why))
    {
        reply::lost(worker, target, &lost);
        return None;
    }
    if asking {
        link.send(Target::Ignore(MAX_HOPS), false, |out| {
            command(out, &[b"ASKING"]);
        });
    }
    send(&link, target, repeatable, bytes);
    None
}

/// Whether it asks that one server, not whoever owns its keys: nobody can stand in.
fn is_bound(target: &Target) -> bool {
    let Target::Client(ClientTarget {
        after: Some(after), ..
    }) = target
    else {
        return false;
    };
    matches!(after.change, ReplyChange::Scan(..))
        || after.part.as_ref().is_some_and(Part::is_of_one_server)
}

/// Sends a command of a server that is gone to any other one, which knows where it belongs.
pub fn send_anywhere(from: &Link, target: Target, repeatable: bool, bytes: &[u8]) {
    let worker = from.worker();
    if is_bound(&target) {
        return reply::lost(worker, target, &Lost::Replaced);
    }
    let set = worker.links(from.handshake.db);
    let link = set.map(|set| Rc::clone(set.plain(worker, from.proto())));
    match link {
        Some(link) if link.server.number != from.server.number => {
            send(&link, target, repeatable, bytes);
        }
        _ => reply::lost(
            worker,
            target,
            &Lost::Unavailable("no server is known".into()),
        ),
    }
}

fn send(link: &Link, target: Target, repeatable: bool, bytes: &[u8]) {
    put(&target, Lane::Plain(link.server.number));
    link.send(target, repeatable, |out| out.extend_from_slice(bytes));
}

fn put(target: &Target, lane: Lane) {
    if let Target::Client(ClientTarget {
        client,
        number,
        after,
        ..
    }) = target
    {
        let is_share = after.as_ref().is_some_and(|after| after.part.is_some());
        // Its other shares are elsewhere: later commands wait for the whole.
        let lane = if is_share { Lane::Held } else { lane };
        client.session.borrow_mut().put(*number, lane);
    }
}

/// Sends the command again after a pause, to whoever serves then.
fn hold(link: &Link, target: Target, repeatable: bool, hops: u8, bytes: Vec<u8>) -> Option<Target> {
    let worker = link.worker();
    let held = worker.held.get();
    if held + bytes.len() > MAX_HELD || is_followed(&target) {
        return Some(target);
    }
    worker.held.set(held + bytes.len());
    put(&target, Lane::Held);
    let mut pause = pause(worker, hops);
    if matches!(target, Target::Ignore(_)) {
        // The TTL of a key comes after the write that made the key.
        pause += MAX_PAUSE;
    }
    let (worker, server) = (Rc::clone(worker), Rc::clone(&link.server));
    let (db, proto) = (link.handshake.db, link.proto());
    tokio::task::spawn_local(async move {
        tokio::time::sleep(pause).await;
        worker.held.set(worker.held.get() - bytes.len());
        let set = if is_bound(&target) {
            worker.links_if_there(db, &server)
        } else {
            worker.links_again(db, &server)
        };
        let link = set.map(|set| Rc::clone(set.plain(&worker, proto)));
        match link.as_ref().map(|link| (link, link.status())) {
            Some((link, Status::Up | Status::Connecting)) => {
                send(link, target, repeatable, &bytes);
            }
            Some((_, Status::Down(why))) => {
                reply::lost(&worker, target, &Lost::Unavailable(why));
            }
            _ => reply::lost(&worker, target, &Lost::Closed),
        }
        worker.flush_dirty();
    });
    None
}

fn is_followed(target: &Target) -> bool {
    let Target::Client(target) = target else {
        return false;
    };
    target.client.session.borrow().is_followed(target.number)
}

/// How long to wait before a command is sent on for the `hops`th time.
pub fn pause(worker: &Worker, hops: u8) -> Duration {
    let doubled = PAUSE.saturating_mul(1 << u32::from(hops.min(10)));
    let share = 0.5 + f64::from(worker.random()) / f64::from(u32::MAX) / 2.0;
    doubled.min(MAX_PAUSE).mul_f64(share)
}

impl Worker {
    /// The links to a server that was used before; if it is gone, to one that knows the way.
    fn links_again(&self, db: u16, server: &Rc<Server>) -> Option<Rc<crate::upstream::LinkSet>> {
        self.links_if_there(db, server).or_else(|| self.links(db))
    }
}
