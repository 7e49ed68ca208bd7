//! `WAIT` and `WAITAOF` in front of a cluster: at every shard at a time, the least of the answers.
//!
//! Redis counts the replicas that have the last write *of a connection*, and the client's writes
//! went over shared ones. In front of a lone server a message goes before `WAIT`; nodes of a cluster
//! do not replicate messages, so there it is a write to a key of the sidecar's own.

use std::rc::Rc;

use super::{
    super::{
        Flow, Request, Turn,
        gather::{Gather, Merge},
        memory, refuse,
        reply::{After, ClientTarget, Target, error_text},
        spread::Nowhere,
    },
    Pinned, memory_mode,
    sending::wait_for,
    settle,
};
use crate::{
    client::session::{Lane, Session, Touches},
    command::{self, Pin, write_command},
    upstream::{LinkSet, Lost, Status},
};

/// Is written and expires at once.
const KEY: &[u8] = b"pannier:wait";

/// Runs the command at every shard.
pub(super) fn everywhere(turn: &Turn<'_>, session: &mut Session, request: Request<'_>) -> Flow {
    let Request { spec, args, .. } = request;
    if !spec.arity_matches(args.len()) {
        return refuse(turn, session, command::wrong_arity(spec));
    }
    if session.unanswered() > 0 {
        return Flow::Wait;
    }
    let Some(sets) = turn.worker.links_of_all(session.db) else {
        return refuse(turn, session, Nowhere::TooManyLinks.to_string());
    };
    // The shared links know first who is away.
    for set in &sets {
        let shared = set.plain(turn.worker, session.proto);
        match shared.status() {
            Status::Up => {}
            Status::Connecting => {
                shared.wait(turn.client);
                return Flow::Wait;
            }
            Status::Down(_) if session.pinned.is_none() && memory_mode(turn, session) => {
                return memory::without_redis(turn, session, Pin::Block, request);
            }
            Status::Down(why) => return unavailable(turn, session, why),
            Status::NoDatabase | Status::Closed => {
                return unavailable(turn, session, shared.why_ended());
            }
        }
    }
    // No key of the app can be where none of ours can.
    let places: Vec<(Rc<LinkSet>, Vec<u8>)> = sets
        .into_iter()
        .filter_map(|set| Some((Rc::clone(&set), turn.worker.own_key(&set.server, KEY)?)))
        .collect();
    if places.is_empty() {
        return unavailable(turn, session, "no server owns a slot".into());
    }
    ask(turn, session, request, &places);
    Flow::Done
}

fn unavailable(turn: &Turn<'_>, session: &mut Session, why: Rc<str>) -> Flow {
    let error = error_text(turn.worker, session.command, &Lost::Unavailable(why));
    refuse(turn, session, error)
}

fn ask(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request<'_>,
    places: &[(Rc<LinkSet>, Vec<u8>)],
) {
    let mut bytes = Vec::new();
    write_command(request.args, &mut bytes);
    let number = session.reserve(Lane::Pinned, Touches::Anything);
    let command = request.spec.id();
    let count = places.len();
    let gather = Gather::new(
        turn.client,
        number,
        command,
        session.proto,
        Merge::Least,
        count,
    );
    let mut links = Vec::new();
    for (index, (set, key)) in places.iter().enumerate() {
        let link = set.pin(turn.worker, session.proto);
        link.set_owner(Some(Rc::clone(turn.client)));
        link.patient.set(true);
        let after = After {
            part: Some(gather.part(index)),
            ..After::default()
        };
        let target = ClientTarget::new(turn.client, number, command, after);
        let barrier = Target::Barrier(Box::new((target, bytes.clone())));
        link.send(barrier, false, |out| {
            write_command(&[b"SET", key, b"", b"PX", b"1"], out);
        });
        links.push(link);
    }
    let pinned = match &mut session.pinned {
        Some(pinned) => pinned,
        none => none.insert(Pinned::new(links.remove(0))),
    };
    pinned.beside = links;
    wait_for(session, number, true);
    settle(turn.client, session);
}
