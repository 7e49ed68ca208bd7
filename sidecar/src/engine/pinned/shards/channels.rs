//! The shard channels of one subscriber: where each is listened to, and what servers were asked.
//!
//! A server answers subscriptions by messages and errors in the order in which it was asked, so
//! [`Listening::asked`] says what an answer is to. What the server says unasked is told apart by its
//! place, and by the slot that a `MOVED` names.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use crate::{
    command::write_command,
    upstream::{Link, topology::key_slot},
};

/// The shard channels of one subscriber.
#[derive(Default)]
pub(in super::super) struct Shards {
    /// At most one per server.
    pub(super) links: Vec<Listening>,
    pub(super) channels: BTreeMap<Box<[u8]>, Channel>,
    /// Channels that no server was asked for.
    pub(super) homeless: BTreeSet<Box<[u8]>>,
    /// Channels whose confirmation the app has.
    pub(super) confirmed: usize,
    last_question: u64,
    /// Homeless channels are looked after again in a moment.
    pub(super) pausing: bool,
}

/// A connection to one server, and what it was asked and has not answered.
pub(super) struct Listening {
    pub(super) link: Rc<Link>,
    asked: VecDeque<Asked>,
    /// The server may still send messages of channels that were left.
    dirty: bool,
}

impl Listening {
    pub(super) const fn new(link: Rc<Link>) -> Self {
        Self {
            link,
            asked: VecDeque::new(),
            dirty: false,
        }
    }
}

/// One `SSUBSCRIBE` or `SUNSUBSCRIBE` of channels of one slot.
struct Asked {
    number: u64,
    joins: bool,
    slot: u16,
    names: VecDeque<Box<[u8]>>,
}

pub(super) struct Channel {
    pub(super) slot: u16,
    pub(super) home: Home,
    /// Confirmations that the app waits for.
    pub(super) owed: usize,
    /// How often it was sent on since it was last listened to.
    pub(super) hops: u8,
}

impl Channel {
    /// One that the app has just asked for.
    pub(super) fn new(name: &[u8]) -> Self {
        Self {
            slot: key_slot(name),
            home: Home::Nowhere,
            owed: 1,
            hops: 0,
        }
    }
}

/// Where a channel is listened to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
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
    pub(super) fn server(self) -> Option<u32> {
        match self {
            Self::Nowhere => None,
            Self::Asked { server, .. } | Self::There { server } => Some(server),
        }
    }
}

/// What becomes of the app's connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Outcome {
    GoesOn,
    /// The app may have missed messages, and has to know.
    Ends,
}

impl Shards {
    pub(in super::super) fn has(&self, link: &Link) -> bool {
        self.index(link).is_some()
    }

    fn index(&self, link: &Link) -> Option<usize> {
        self.links
            .iter()
            .position(|listening| std::ptr::eq(Rc::as_ptr(&listening.link), link))
    }

    pub(in super::super) fn links(&self) -> impl Iterator<Item = &Rc<Link>> {
        self.links.iter().map(|listening| &listening.link)
    }

    /// Whether the app waits for confirmations.
    pub(in super::super) fn is_joining(&self) -> bool {
        self.confirmed < self.channels.len()
    }

    /// Whether the last channel was left, and a server does not know yet.
    pub(in super::super) fn is_ending(&self) -> bool {
        self.channels.is_empty() && self.links.iter().any(|l| !l.asked.is_empty())
    }

    pub(in super::super) fn is_over(&self) -> bool {
        self.channels.is_empty() && !self.is_ending()
    }

    /// Takes out the links where nothing is listened to any longer, each with whether it is clean.
    pub(in super::super) fn take_idle(&mut self) -> Vec<(Rc<Link>, bool)> {
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

    pub(super) fn ask(&mut self, server: u32, slot: u16, joins: bool, names: VecDeque<Box<[u8]>>) {
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

    pub(super) fn is_there(&self, link: &Link, name: &[u8]) -> bool {
        let server = link.server.number;
        let channel = self.channels.get(name);
        channel.is_some_and(|channel| channel.home == Home::There { server })
    }

    /// A server listens; the counts of the confirmations that the app is owed.
    pub(super) fn joined(&mut self, link: &Link, name: &[u8]) -> Vec<usize> {
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
    pub(super) fn ended(&mut self, link: &Link, name: &[u8]) -> bool {
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
    pub(super) fn refused(&mut self, link: &Link, moved: Option<u16>) -> Option<Vec<Box<[u8]>>> {
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
    pub(super) fn send_on(&mut self, names: &[Box<[u8]>]) -> u8 {
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
    pub(super) fn turn_away(&mut self, names: VecDeque<Box<[u8]>>) {
        self.send_on(&Vec::from(names));
    }

    /// They are listened to nowhere, for good.
    pub(super) fn drop_refused(&mut self, names: &[Box<[u8]>]) -> Outcome {
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

    pub(super) fn lost(&mut self, link: &Link, replaced: bool) -> Outcome {
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
