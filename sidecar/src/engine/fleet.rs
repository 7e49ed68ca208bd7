//! `PANNIER.SIDECARS` and `PANNIER.INVALIDATE`: what concerns all sidecars of a tier.
//!
//! The answer comes from `presence`, on the control thread; the app's later commands wait for it,
//! its event loop does not.

use std::rc::Rc;

use serde_json::Value as Json;
use tokio::sync::oneshot;

use super::{Flow, Turn, count, refuse};
use crate::{
    client::session::{Lane, Session, Touches},
    metrics::Outcome,
    presence::{Applied, Refused, Request, record},
    resp::write::Reply,
};

/// Most keys of one invalidation.
const KEYS: usize = 1000;
/// Most bytes of these keys.
const BYTES: usize = 1 << 20;

/// `PANNIER.INVALIDATE key [key …]`: drops local copies in every sidecar of the tier, and answers
/// when all that are there have done so, or when `maxStaleness` is over. Redis' value stays.
pub fn invalidate(turn: &Turn<'_>, session: &mut Session, keys: &[&[u8]]) -> Flow {
    if session.unanswered() > 0 {
        return Flow::Wait;
    }
    let bytes: usize = keys.iter().map(|key| key.len()).sum();
    if keys.len() > KEYS || bytes > BYTES {
        let error =
            format!("ERR at most {KEYS} keys of {BYTES} bytes together; send several commands");
        return refuse(turn, session, error);
    }
    for key in keys {
        turn.worker.shared.tier.invalidate(key);
    }
    if !turn.worker.has_upstream() {
        let alone = Applied {
            applied: 1,
            live: 1,
        };
        count(turn.worker, session.command, Outcome::Ok);
        session.reply(|reply| write_applied(alone, reply));
        return Flow::Done;
    }
    let keys = keys.iter().map(|key| Box::from(*key)).collect();
    let (done, answer) = oneshot::channel();
    let request = Request::Invalidate { keys, done };
    later(
        turn,
        session,
        request,
        answer,
        "local copies were dropped in this sidecar only: ",
        write_applied,
    )
}

/// `PANNIER.SIDECARS`: the sidecars of the tier that are there, as they describe themselves.
pub fn sidecars(turn: &Turn<'_>, session: &mut Session) -> Flow {
    if session.unanswered() > 0 {
        return Flow::Wait;
    }
    let write = |records: Vec<serde_json::Map<String, Json>>, reply: &mut Reply<'_>| {
        reply.array(records.len());
        for record in records {
            reply.map(record.len());
            for (name, value) in &record {
                reply.bulk(name.as_bytes());
                write_value(value, reply);
            }
        }
    };
    if !turn.worker.has_upstream() {
        let own = match record::of(&turn.worker.shared) {
            Json::Object(own) => vec![own],
            _ => Vec::new(),
        };
        count(turn.worker, session.command, Outcome::Ok);
        session.reply(|reply| write(own, reply));
        return Flow::Done;
    }
    let (done, answer) = oneshot::channel();
    later(turn, session, Request::Sidecars(done), answer, "", write)
}

/// Sends the request and answers the app when its answer has come. `so_far` goes before the reason
/// why there is none.
fn later<T: 'static>(
    turn: &Turn<'_>,
    session: &mut Session,
    request: Request,
    answer: oneshot::Receiver<Result<T, Refused>>,
    so_far: &'static str,
    write: impl FnOnce(T, &mut Reply<'_>) + 'static,
) -> Flow {
    let number = session.reserve(Lane::Pinned, Touches::Anything);
    let (command, proto) = (session.command, session.proto);
    let client = Rc::clone(turn.client);
    turn.worker.shared.presence.ask(request);
    tokio::task::spawn_local(async move {
        let answer = answer.await.unwrap_or(Err(Refused::Broken));
        client.complete(number, |out, worker| {
            let mut reply = Reply::new(out, proto);
            match answer {
                Ok(answer) => {
                    count(worker, command, Outcome::Ok);
                    write(answer, &mut reply);
                }
                Err(why) => {
                    count(worker, command, Outcome::Error);
                    reply.error(format!("ERR {so_far}{why}"));
                }
            }
        });
        client.worker.flush_dirty();
    });
    Flow::Done
}

fn write_applied(Applied { applied, live }: Applied, reply: &mut Reply<'_>) {
    let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    reply.map(2);
    reply.bulk(b"applied");
    reply.integer(signed(applied));
    reply.bulk(b"live");
    reply.integer(signed(live));
}

fn write_value(value: &Json, reply: &mut Reply<'_>) {
    match value {
        Json::Number(number) => match number.as_i64() {
            Some(number) => reply.integer(number),
            None => reply.double(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => reply.bulk(text.as_bytes()),
        Json::Bool(truth) => reply.boolean(*truth),
        _ => reply.null(),
    }
}
