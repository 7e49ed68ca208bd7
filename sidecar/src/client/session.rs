//! State of one app connection: what it negotiated, and its replies in order.
//!
//! Replies come from several places: the local tier at once, Redis later over different links. A
//! [`Slot`] per unanswered command keeps them in the order of the commands. Slots also are the
//! client's lanes: a command that would overtake an earlier one on the same key, because it takes
//! another way, has to wait.

use std::{collections::VecDeque, rc::Rc};

use super::{
    early::{Early, Place},
    output::Output,
};
use crate::{
    command::CommandId,
    engine::{
        memory::{Held, Names},
        pinned::Pinned,
    },
    resp::{
        Proto,
        request::{Limits, Parser},
        write::Reply,
    },
    upstream::{Link, offline::Ticket},
};

/// Which way a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Answered by the sidecar.
    Local,
    /// The shared link to the server of that number, in the client's protocol version.
    Plain(u32),
    /// The tracked link to it.
    Tracked(u32),
    /// The shared links, or the tracked ones, to several servers at a time.
    Spread {
        /// Which slots were where: changes with every change of that.
        ways: u32,
        /// Which links.
        tracked: bool,
    },
    /// None at the moment: it was refused and is sent again.
    Held,
    /// A connection of its own.
    Pinned,
}

/// Which keys a command touches, as far as order is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touches {
    /// None.
    Nothing,
    /// One, by its hash.
    Key(u64),
    /// Several, or unknown ones.
    Anything,
}

impl Touches {
    fn overlaps(self, other: Self) -> bool {
        match (self, other) {
            (Self::Nothing, _) | (_, Self::Nothing) => false,
            (Self::Key(one), Self::Key(other)) => one == other,
            _ => true,
        }
    }
}

/// The place of one reply.
struct Slot {
    lane: Lane,
    touches: Touches,
    /// The app does not want it (`CLIENT REPLY`).
    muted: bool,
    /// The last of those that were read together.
    last: bool,
    /// Its reply came before that of an earlier command.
    reply: Option<Place>,
}

/// Whether replies are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    /// Yes.
    #[default]
    On,
    /// No.
    Off,
    /// Not the next one.
    SkipNext,
    /// Not this one.
    Skip,
}

/// A transaction that waits for its first key, which says where it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unsent {
    /// There is none.
    #[default]
    Nothing,
    /// `MULTI` was said.
    Open,
    /// And its first command could not be queued: it fails as a whole.
    Aborted,
}

/// State of one app connection.
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts: any combination of them occurs"
)]
pub struct Session {
    /// Protocol version.
    pub proto: Proto,
    /// Logical database.
    pub db: u16,
    /// `AUTH` was given, or none is asked for.
    pub authenticated: bool,
    /// Whether replies are sent.
    pub replies: ReplyMode,
    /// Bytes to send.
    pub out: Output,
    slots: VecDeque<Slot>,
    early: Early,
    /// The replies to all commands that were read together have been added to the output.
    ripe: bool,
    /// Number of the first slot.
    first: u64,
    /// A connection of the client's own, and why it has one.
    pub pinned: Option<Pinned>,
    /// A transaction in front of a cluster that no server knows of yet.
    pub unsent: Unsent,
    /// A pinned link that is not connected yet.
    pub pinning: Option<Rc<Link>>,
    /// The client's next command waits for Redis: its place in the offline queue.
    pub held: Option<Ticket>,
    /// What a subscriber listened to whose connection to Redis broke, until it is known whether
    /// memory mode takes over.
    pub orphaned: Option<Names>,
    /// What memory mode keeps for the connection.
    pub in_memory: Option<Box<Held>>,
    /// Bytes of a command that is not complete yet.
    pub input: Vec<u8>,
    /// A command runs at the end of the event loop's turn, together with those of other clients.
    pub taken: bool,
    /// Bytes that must be there before it is worth reading on.
    pub need: usize,
    /// How far the incomplete command was read.
    pub parser: Parser,
    /// Largest requests accepted.
    pub limits: Limits,
    /// Close once everything has been sent.
    pub closing: bool,
    /// The app sends nothing any more.
    pub ended: bool,
    /// The command that runs now, for slots and metrics.
    pub command: CommandId,
}

impl Session {
    /// The state after connect.
    pub fn new(db: u16, authenticated: bool, limits: Limits) -> Self {
        Self {
            proto: Proto::Resp2,
            db,
            authenticated,
            replies: ReplyMode::On,
            out: Output::default(),
            slots: VecDeque::new(),
            early: Early::default(),
            ripe: false,
            first: 0,
            pinned: None,
            unsent: Unsent::Nothing,
            pinning: None,
            held: None,
            orphaned: None,
            in_memory: None,
            input: Vec::new(),
            taken: false,
            need: 0,
            parser: Parser::default(),
            limits,
            closing: false,
            ended: false,
            command: CommandId::Other,
        }
    }

    /// Unanswered commands.
    #[inline]
    pub fn unanswered(&self) -> usize {
        self.slots.len()
    }

    /// Whether a command on that lane is unanswered.
    pub fn unanswered_on(&self, lane: Lane) -> bool {
        self.slots
            .iter()
            .any(|slot| slot.lane == lane && slot.reply.is_none())
    }

    /// Whether a command on that lane must wait for earlier ones on other lanes.
    #[inline]
    pub fn must_wait(&self, lane: Lane, touches: Touches) -> bool {
        self.slots
            .iter()
            .any(|slot| slot.reply.is_none() && slot.lane != lane && slot.touches.overlaps(touches))
    }

    /// The only lane of all unanswered commands that overlap; `None` if there are several or none.
    pub fn lane_of(&self, touches: Touches) -> Option<Lane> {
        let mut lanes = self
            .slots
            .iter()
            .filter(|slot| slot.reply.is_none() && slot.touches.overlaps(touches))
            .map(|slot| slot.lane);
        let first = lanes.next()?;
        lanes.all(|lane| lane == first).then_some(first)
    }

    /// Whether later commands that overlap with that one are on their way already: it cannot be
    /// sent again without taking their place.
    pub fn is_followed(&self, number: u64) -> bool {
        let place = number.checked_sub(self.first);
        let Some(place) = place.and_then(|place| usize::try_from(place).ok()) else {
            return false;
        };
        let Some(slot) = self.slots.get(place) else {
            return false;
        };
        let mut later = self.slots.iter().skip(place + 1);
        later.any(|later| later.reply.is_none() && later.touches.overlaps(slot.touches))
    }

    /// Reserves the place of a reply that will come later; the answer is its number.
    #[inline]
    pub fn reserve(&mut self, lane: Lane, touches: Touches) -> u64 {
        let muted = self.is_muted();
        self.slots.push_back(Slot {
            lane,
            touches,
            muted,
            last: false,
            reply: None,
        });
        self.first + self.slots.len() as u64 - 1
    }

    /// What was read together ends here.
    pub fn end_batch(&mut self) {
        if let Some(slot) = self.slots.back_mut() {
            slot.last = true;
        }
    }

    /// Whether replies that came since the last time complete those to commands that were read
    /// together.
    pub fn take_ripe(&mut self) -> bool {
        std::mem::take(&mut self.ripe) || self.slots.is_empty()
    }

    /// Whether the reply of that command has come.
    pub fn is_answered(&self, number: u64) -> bool {
        let at = usize::try_from(number.wrapping_sub(self.first)).unwrap_or(usize::MAX);
        self.slots.get(at).is_none_or(|slot| slot.reply.is_some())
    }

    /// An unanswered command takes another way.
    pub fn put(&mut self, number: u64, lane: Lane) {
        let at = usize::try_from(number.wrapping_sub(self.first)).unwrap_or(usize::MAX);
        if let Some(slot) = self.slots.get_mut(at) {
            slot.lane = lane;
        }
    }

    /// Answers the current command at once.
    #[inline]
    pub fn reply<R>(&mut self, write: impl FnOnce(&mut Reply<'_>) -> R) -> R {
        if self.slots.is_empty() && !self.is_muted() {
            let proto = self.proto;
            return self.out.append(|out| write(&mut Reply::new(out, proto)));
        }
        let mut bytes = Vec::new();
        let result = write(&mut Reply::new(&mut bytes, self.proto));
        if !bytes.is_empty() {
            let number = self.reserve(Lane::Local, Touches::Nothing);
            self.complete(number, |out| out.extend_from_slice(&bytes));
        }
        result
    }

    /// Fills the place of a reply, and moves everything that is in order to the output.
    #[inline]
    pub fn complete(&mut self, number: u64, write: impl FnOnce(&mut Vec<u8>)) {
        let at = usize::try_from(number.wrapping_sub(self.first)).unwrap_or(usize::MAX);
        let Some(slot) = self.slots.get_mut(at) else {
            return;
        };
        if at > 0 {
            slot.reply = Some(self.early.add(write));
            self.out.held = self.early.len();
            return;
        }
        if slot.muted {
            write(&mut Vec::new());
        } else {
            self.out.append(write);
        }
        self.ripe |= slot.last;
        self.slots.pop_front();
        self.first += 1;
        while let Some(Slot {
            reply: Some(place),
            muted,
            last,
            ..
        }) = self.slots.front()
        {
            self.ripe |= last;
            if !muted {
                let reply = self.early.get(place);
                self.out.append(|out| out.extend_from_slice(reply));
            }
            self.early.done(place);
            self.slots.pop_front();
            self.first += 1;
        }
        self.early
            .pack(self.slots.iter_mut().filter_map(|slot| slot.reply.as_mut()));
        self.out.held = self.early.len();
    }

    /// Moves `CLIENT REPLY SKIP` on by one command.
    pub fn next_command(&mut self) {
        self.replies = match self.replies {
            ReplyMode::SkipNext => ReplyMode::Skip,
            ReplyMode::Skip => ReplyMode::On,
            other => other,
        };
    }

    fn is_muted(&self) -> bool {
        matches!(self.replies, ReplyMode::Off | ReplyMode::Skip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session::new(0, true, Limits::new(1 << 20))
    }

    #[test]
    fn replies_leave_in_the_order_of_the_commands() {
        let mut session = session();
        let first = session.reserve(Lane::Plain(0), Touches::Key(1));
        let second = session.reserve(Lane::Tracked(0), Touches::Key(2));
        session.reply(|reply| reply.integer(3));
        session.complete(second, |out| out.extend_from_slice(b":2\r\n"));
        assert_eq!(session.out.unsent(), b"");
        session.complete(first, |out| out.extend_from_slice(b":1\r\n"));
        assert_eq!(session.out.unsent(), b":1\r\n:2\r\n:3\r\n");
        assert_eq!(session.out.held, 0);
        assert_eq!(session.unanswered(), 0);
    }

    #[test]
    fn a_command_waits_for_earlier_ones_on_the_same_key_that_go_another_way() {
        let mut session = session();
        let write = session.reserve(Lane::Plain(0), Touches::Key(1));
        assert!(session.must_wait(Lane::Tracked(0), Touches::Key(1)));
        assert!(session.must_wait(Lane::Local, Touches::Anything));
        assert!(
            !session.must_wait(Lane::Plain(0), Touches::Key(1)),
            "the same way keeps order"
        );
        assert!(!session.must_wait(Lane::Tracked(0), Touches::Key(2)));
        assert_eq!(session.lane_of(Touches::Key(1)), Some(Lane::Plain(0)));
        session.complete(write, |_| {});
        assert!(!session.must_wait(Lane::Tracked(0), Touches::Key(1)));
    }

    #[test]
    fn p2_spread_commands_follow_each_other_over_the_same_links_only() {
        let lane = |ways, tracked| Lane::Spread { ways, tracked };
        let mut session = session();
        session.reserve(lane(1, true), Touches::Anything);
        assert!(!session.must_wait(lane(1, true), Touches::Anything));
        assert!(
            session.must_wait(lane(1, false), Touches::Anything),
            "a write does not overtake a read over the tracked links"
        );
        assert!(
            session.must_wait(lane(2, true), Touches::Anything),
            "a slot was elsewhere then"
        );
    }

    #[test]
    fn p2_a_command_is_followed_by_unanswered_ones_on_the_same_key_only() {
        let mut session = session();
        let write = session.reserve(Lane::Plain(0), Touches::Key(1));
        session.reserve(Lane::Plain(0), Touches::Key(2));
        assert!(!session.is_followed(write));
        let read = session.reserve(Lane::Plain(0), Touches::Key(1));
        assert!(session.is_followed(write));
        assert!(!session.is_followed(read));
        session.complete(read, |_| {});
        assert!(!session.is_followed(write));
        session.complete(write, |_| {});
        assert!(!session.is_followed(write), "it is answered");
    }

    #[test]
    fn replies_are_ripe_once_all_commands_that_were_read_together_are_answered() {
        let mut session = session();
        let read = |session: &mut Session, count: u64| -> Vec<u64> {
            let numbers = (0..count).map(|key| session.reserve(Lane::Plain(0), Touches::Key(key)));
            let numbers = numbers.collect();
            session.end_batch();
            numbers
        };
        let first = read(&mut session, 3);
        let second = read(&mut session, 2);
        for early in [first[0], first[2], second[0]] {
            session.complete(early, |out| out.extend_from_slice(b"+OK\r\n"));
            assert!(!session.take_ripe());
        }
        session.complete(first[1], |out| out.extend_from_slice(b"+OK\r\n"));
        assert!(session.take_ripe(), "the first three are there");
        assert!(!session.take_ripe(), "one of the other two is not");
        session.complete(second[1], |out| out.extend_from_slice(b"+OK\r\n"));
        assert!(session.take_ripe() && session.unanswered() == 0);
    }

    #[test]
    fn client_reply_skip_mutes_one_reply_also_when_it_comes_late() {
        let mut session = session();
        session.replies = ReplyMode::SkipNext;
        session.next_command();
        let skipped = session.reserve(Lane::Plain(0), Touches::Nothing);
        session.next_command();
        session.reply(|reply| reply.ok());
        session.complete(skipped, |out| out.extend_from_slice(b":1\r\n"));
        assert_eq!(session.out.unsent(), b"+OK\r\n");
    }
}
