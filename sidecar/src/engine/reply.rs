//! What happens when Redis answers, does not answer, or pushes an invalidation.

mod coherence;

use std::{rc::Rc, sync::Arc, time::Duration};

pub use self::coherence::pushed;
use self::coherence::{Asked, expect_integer, witness};
use super::{
    flight::{Flight, ManyRead},
    gather::Part,
    pinned, redirect,
};
use crate::{
    client::Client,
    clock::Tick,
    command::{CommandId, Prefix, ReplyRewrite, Stripped, strip_exec_reply, strip_reply},
    measure,
    metrics::Flush,
    resp::{Proto, reply::is_error, write::Reply},
    upstream::{Link, Lost, Role},
    worker::Worker,
};

/// Who waits for a reply.
pub enum Target {
    /// An app.
    Client(ClientTarget),
    /// The TTL of a key that is being read for the local tier.
    FlightTtl(Rc<Flight>),
    /// Its value.
    FlightValue(Rc<Flight>),
    /// The TTL of one of several keys.
    ManyTtl(Rc<ManyRead>, usize),
    /// Their values.
    ManyValue(Rc<ManyRead>),
    /// An app that waits for replicas; its command is sent once this was answered.
    Barrier(Box<(ClientTarget, Vec<u8>)>),
    /// A subscriber whose own connection broke: does Redis live?
    Verdict(Rc<Client>),
    /// The proof that a tracked link lives, sent at that time.
    Proof(Tick),
    /// A second one, sent when the first was answered; the time is that of the first.
    SecondProof(Tick),
    /// The sidecar itself, which measures.
    Measure(measure::Step),
    /// Nobody; how often it was sent on.
    Ignore(u8),
}

/// An app that waits, and what is to be done first.
pub struct ClientTarget {
    /// The app.
    pub client: Rc<Client>,
    /// The number of its slot.
    pub number: u64,
    /// The command, for metrics.
    pub command: CommandId,
    /// How often it was sent on to another server.
    pub hops: u8,
    /// What is to be done; `None` in the common case.
    pub after: Option<Box<After>>,
}

impl ClientTarget {
    /// The app's slot `number`.
    pub fn new(client: &Rc<Client>, number: u64, command: CommandId, after: After) -> Self {
        Self {
            client: Rc::clone(client),
            number,
            command,
            hops: 0,
            after: (!after.is_nothing()).then(|| Box::new(after)),
        }
    }
}

/// What is to be done when a reply comes, before the app gets it.
#[derive(Debug, Default)]
pub struct After {
    /// Keys whose local entries are dropped.
    pub keys: Vec<Box<[u8]>>,
    /// They were marked as being written.
    pub marked: bool,
    /// Drop everything: the command may have written any key.
    pub flush: bool,
    /// How the reply changes.
    pub change: ReplyChange,
    /// A rule that hides errors of writes from the app.
    pub mask: Option<u16>,
    /// The reply is one of several that make up the app's.
    pub part: Option<Part>,
}

/// How a reply changes on its way to the app.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum ReplyChange {
    /// Not at all.
    #[default]
    None,
    /// The key prefix comes off.
    Prefix(ReplyRewrite),
    /// It comes off the replies of a transaction.
    Exec(Vec<ReplyRewrite>),
    /// The cursor of `SCAN` names the server at that place, which may be the last.
    Scan(ReplyRewrite, u64, bool),
    /// Our own section is added (`INFO`).
    Info,
    /// Passwords come out (`CONFIG GET`).
    Secrets,
    /// It becomes the answer to `PANNIER.READ`, with the rule that matched.
    Read(Option<Arc<str>>),
}

impl After {
    /// Whether nothing is to be done.
    pub fn is_nothing(&self) -> bool {
        self.keys.is_empty()
            && !self.flush
            && self.change == ReplyChange::None
            && self.mask.is_none()
            && self.part.is_none()
    }

    /// Drops what the command may have changed.
    pub fn settle(&self, worker: &Worker) {
        for key in &self.keys {
            if self.marked {
                worker.shared.tier.end_write(key);
            } else {
                worker.shared.tier.invalidate(key);
            }
        }
        if self.flush {
            worker.counters.flushes[Flush::UnknownWrite as usize].inc();
            worker.shared.tier.flush();
        }
    }
}

/// A reply has come; an error if it cannot be one to this question.
#[inline]
pub fn answered(link: &Link, target: Target, since: Tick, frame: &[u8]) -> Result<(), Lost> {
    let worker = link.worker();
    match target {
        Target::Client(target) => client_answered(link, worker, target, since, frame),
        Target::FlightValue(flight) if redirect::refuses_read(link, frame) => {
            flight.lost(worker, &Lost::Closed);
        }
        Target::ManyValue(read) if redirect::refuses_read(link, frame) => {
            read.lost(worker, &Lost::Closed);
        }
        Target::FlightTtl(flight) => {
            expect_integer(frame)?;
            flight.ttl(frame);
        }
        Target::FlightValue(flight) => {
            witness(link, worker, since, frame, Asked::ByApps);
            flight.value(link, frame);
        }
        Target::ManyTtl(read, index) => {
            expect_integer(frame)?;
            read.ttl(index, frame);
        }
        Target::ManyValue(read) => {
            witness(link, worker, since, frame, Asked::ByApps);
            read.values(link, frame);
        }
        Target::Barrier(waiting) => barrier(link, worker, *waiting, since, frame),
        Target::Verdict(client) => pinned::redis_lives(&client),
        Target::Proof(sent) => {
            expect_integer(frame)?;
            witness(link, worker, sent, frame, Asked::ForProof);
        }
        Target::SecondProof(sent) => {
            expect_integer(frame)?;
            witness(link, worker, sent, frame, Asked::ForSecondProof);
        }
        Target::Measure(step) => measure::answered(link, &step, frame),
        Target::Ignore(_) => {}
    }
    Ok(())
}

fn client_answered(
    link: &Link,
    worker: &Rc<Worker>,
    target: ClientTarget,
    since: Tick,
    frame: &[u8],
) {
    let ClientTarget {
        client,
        number,
        command,
        after,
        ..
    } = target;
    let failed = is_error(frame);
    if failed && frame.starts_with(b"-READONLY") {
        worker.was_demoted(link);
    }
    let told = failed.then(|| pinned::elsewhere(link, frame)).flatten();
    let frame = told.as_deref().unwrap_or(frame);
    // A blocking command takes as long as it was asked to.
    let took = if link.patient.get() {
        Duration::ZERO
    } else {
        worker.now().since(since)
    };
    if after.as_ref().is_none_or(|after| after.part.is_none()) {
        count(worker, command, failed, took);
    }
    match after {
        None => client.complete(number, |out, _| out.extend_from_slice(frame)),
        Some(after) => {
            after.settle(worker);
            let write = |out: &mut Vec<u8>, worker: &Worker| {
                if failed && mask_error(worker, command, &after, frame, out) {
                    return;
                }
                write_changed(worker, &after, link, frame, out);
            };
            match &after.part {
                None => client.complete(number, write),
                Some(part) => part.answer(worker, |out| write(out, worker)),
            }
        }
    }
    if link.role == Role::Pinned {
        pinned::answered(&client, link, command, number, frame);
    }
}

/// What precedes a `WAIT` was answered. Where it was refused, a count of replicas would say
/// nothing about the app's writes, so the app gets the error.
fn barrier(
    link: &Link,
    worker: &Rc<Worker>,
    (target, bytes): (ClientTarget, Vec<u8>),
    since: Tick,
    frame: &[u8],
) {
    if is_error(frame) {
        client_answered(link, worker, target, since, frame);
        return pinned::not_begun(link);
    }
    link.send(Target::Client(target), false, |out| {
        out.extend_from_slice(&bytes);
    });
}

fn write_changed(worker: &Worker, after: &After, link: &Link, frame: &[u8], out: &mut Vec<u8>) {
    let active = worker.active();
    let before = out.len();
    let stripped = match (&after.change, &active.prefix) {
        (ReplyChange::Prefix(rewrite), Some(prefix)) => {
            matches!(
                strip_reply(*rewrite, prefix, frame, out),
                Ok(Stripped::Written)
            )
        }
        (ReplyChange::Exec(queued), Some(prefix)) => {
            strip_exec_reply(queued, prefix, frame, out).is_ok()
        }
        (ReplyChange::Scan(rewrite, place, last), prefix) if !is_error(frame) => {
            write_scan(*rewrite, prefix.as_ref(), (*place, *last), frame, out)
        }
        (ReplyChange::Info, _) if !is_error(frame) => {
            super::local::append_info(worker, link.proto(), frame, out);
            true
        }
        (ReplyChange::Secrets, _) => {
            super::local::without_secrets(link.proto(), frame, out);
            true
        }
        (ReplyChange::Read(rule), _) => {
            let mut reply = Reply::new(out, link.proto());
            super::introspect::write_read(frame, rule.as_deref(), "redis", None, &mut reply);
            true
        }
        _ => false,
    };
    if !stripped {
        // Nothing to change, or a reply of unexpected shape: better the prefix shows than the
        // reply is lost.
        out.truncate(before);
        out.extend_from_slice(frame);
    }
}

fn write_scan(
    rewrite: ReplyRewrite,
    prefix: Option<&Prefix>,
    (place, last): (u64, bool),
    frame: &[u8],
    out: &mut Vec<u8>,
) -> bool {
    let mut plain = Vec::new();
    let stripped = prefix.is_some_and(|prefix| {
        matches!(
            strip_reply(rewrite, prefix, frame, &mut plain),
            Ok(Stripped::Written)
        )
    });
    let frame = if stripped { &plain } else { frame };
    if super::spread::write_cursor(place, last, frame, out).is_none() {
        // Never a cursor that means another server than it came from.
        Reply::new(out, Proto::Resp2)
            .error("ERR the server gave a cursor that cannot be passed on");
    }
    true
}

/// `onWriteError: Log`: the app gets the reply of a write that succeeded.
fn mask_error(
    worker: &Worker,
    command: CommandId,
    after: &After,
    error: &[u8],
    out: &mut Vec<u8>,
) -> bool {
    let Some(rule) = after.mask else { return false };
    let Some(reply) = success_reply(command) else {
        return false;
    };
    worker.counters.rules[usize::from(rule)]
        .write_errors_masked
        .inc();
    let active = worker.active();
    let name = active
        .policy
        .rules()
        .get(usize::from(rule))
        .map_or("", |rule| &rule.name);
    let error = String::from_utf8_lossy(&error[1..]);
    tracing::warn!(rule = name, command = ?command, error = error.trim_end(), "a failed write was not shown to the app");
    out.extend_from_slice(reply);
    true
}

/// The reply of a write that succeeded, for commands that have only one.
fn success_reply(command: CommandId) -> Option<&'static [u8]> {
    match command {
        CommandId::Set
        | CommandId::Setex
        | CommandId::Psetex
        | CommandId::Mset
        | CommandId::Hmset
        | CommandId::Lset
        | CommandId::Ltrim => Some(b"+OK\r\n"),
        CommandId::Expire
        | CommandId::Pexpire
        | CommandId::Expireat
        | CommandId::Pexpireat
        | CommandId::Persist
        | CommandId::Del
        | CommandId::Unlink => Some(b":0\r\n"),
        _ => None,
    }
}

/// No reply will come.
pub fn lost(worker: &Rc<Worker>, target: Target, lost: &Lost) {
    match target {
        Target::Barrier(waiting) => self::lost(worker, Target::Client(waiting.0), lost),
        Target::Client(ClientTarget {
            client,
            number,
            command,
            after,
            ..
        }) => {
            if let Some(after) = &after {
                after.settle(worker);
            }
            let after = after.unwrap_or_default();
            let frame = failure(worker, command, &after, lost);
            if let Some(part) = &after.part {
                return part.answer(worker, |out| out.extend_from_slice(&frame));
            }
            count(worker, command, true, Duration::ZERO);
            client.complete(number, |out, _| out.extend_from_slice(&frame));
        }
        Target::FlightTtl(_)
        | Target::ManyTtl(..)
        | Target::Proof(_)
        | Target::SecondProof(_)
        | Target::Ignore(_) => {}
        Target::Measure(step) => measure::lost(worker, &step),
        Target::Verdict(client) => pinned::redis_is_gone(&client),
        Target::FlightValue(flight) => flight.lost(worker, lost),
        Target::ManyValue(read) => read.lost(worker, lost),
    }
}

/// The reply to a command that failed for want of Redis: an error, or what the rule says instead.
pub fn failure(worker: &Worker, command: CommandId, after: &After, lost: &Lost) -> Vec<u8> {
    let (mut error, mut out) = (Vec::new(), Vec::new());
    Reply::new(&mut error, Proto::Resp2).error(error_text(worker, command, lost));
    if mask_error(worker, command, after, &error, &mut out) {
        out
    } else {
        error
    }
}

/// What the app is told. The prefix is `ERR` whatever happened: clients retry `LOADING`,
/// `READONLY`, `TRYAGAIN`, `CLUSTERDOWN` and `MASTERDOWN` by themselves, and this may have been
/// executed.
pub fn error_text(worker: &Worker, command: CommandId, lost: &Lost) -> String {
    let name = format!("{command:?}").to_uppercase();
    match lost {
        Lost::Unavailable(why) | Lost::Refused(why) => {
            format!("ERR redis is unavailable, the command was not executed: {why}")
        }
        Lost::Closed => "ERR the connection to redis was closed".to_owned(),
        lost => {
            // Which of several servers it was is in the log.
            let place = if worker.fails_over() {
                String::new()
            } else {
                format!(" at {}", worker.endpoint().address())
            };
            format!(
                "ERR {name} was sent to redis{place} and got no reply ({lost}); it may or may not have been executed"
            )
        }
    }
}

/// Counts a command that Redis answered, and logs it when it was slow (S2.11).
pub fn count(worker: &Worker, command: CommandId, failed: bool, took: Duration) {
    let counters = &worker.counters.commands[command as usize];
    counters.outcomes[usize::from(failed)].inc();
    counters
        .duration
        .observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), 1);
    let threshold = worker.slow_log_threshold();
    if took > threshold && !threshold.is_zero() {
        tracing::warn!(command = ?command, millis = took.as_millis(), "slow operation");
    }
}
