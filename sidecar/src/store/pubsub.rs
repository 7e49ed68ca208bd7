//! Pub/sub of memory mode: who listens to what, and the form of what they get.
//!
//! Knows subscribers only by a handle; connections, their output and their limits are the
//! caller's. Shard channels are a name space of their own that behaves like channels.

use super::run::count;
use crate::resp::write::Reply;
use policy::glob::glob_match;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `SUBSCRIBE`
    Channel,
    /// `PSUBSCRIBE`
    Pattern,
    /// `SSUBSCRIBE`
    Shard,
}

/// A subscriber may not have more subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ERR too many subscriptions: a connection may have {limit}; unsubscribe from some first")]
pub struct TooManySubscriptions {
    /// How many it may have.
    pub limit: usize,
}

type Names = BTreeMap<Box<[u8]>, HashSet<u64>>;

/// The subscriptions of all connections.
pub struct PubSub<S> {
    channels: Names,
    patterns: Names,
    shards: Names,
    /// Names hold numbers, so that a handle is stored once however much it listens to.
    subscribers: HashMap<u64, Subscriber<S>>,
    numbers: HashMap<S, u64>,
    next: u64,
    limit: usize,
}

struct Subscriber<S> {
    handle: S,
    /// By kind: channels, patterns, shard channels.
    names: [HashSet<Box<[u8]>>; 3],
}

impl<S: Clone + Eq + Hash> PubSub<S> {
    /// Nobody listens; each subscriber may have `limit` subscriptions.
    pub fn new(limit: usize) -> Self {
        Self {
            channels: Names::new(),
            patterns: Names::new(),
            shards: Names::new(),
            subscribers: HashMap::new(),
            numbers: HashMap::new(),
            next: 0,
            limit,
        }
    }

    /// Adds a subscription; answers the number that its confirmation carries.
    pub fn subscribe(
        &mut self,
        who: &S,
        kind: Kind,
        name: &[u8],
    ) -> Result<usize, TooManySubscriptions> {
        let known = self.numbers.get(who).copied();
        let held = known.and_then(|number| self.subscribers.get(&number));
        let total = held.map_or(0, |s| s.names.iter().map(HashSet::len).sum::<usize>());
        let repeated = held.is_some_and(|s| s.names[kind as usize].contains(name));
        if !repeated && total >= self.limit {
            return Err(TooManySubscriptions { limit: self.limit });
        }
        let number = known.unwrap_or_else(|| self.enter(who));
        if let Some(subscriber) = self.subscribers.get_mut(&number) {
            subscriber.names[kind as usize].insert(name.into());
        }
        self.names_mut(kind)
            .entry(name.into())
            .or_default()
            .insert(number);
        Ok(self.count(who, kind))
    }

    /// Ends a subscription if there is one; answers the number that its confirmation carries.
    pub fn unsubscribe(&mut self, who: &S, kind: Kind, name: &[u8]) -> usize {
        let Some(number) = self.numbers.get(who).copied() else {
            return 0;
        };
        let Some(subscriber) = self.subscribers.get_mut(&number) else {
            return 0;
        };
        subscriber.names[kind as usize].remove(name);
        let idle = subscriber.names.iter().all(HashSet::is_empty);
        self.forget_name(kind, name, number);
        let left = self.count(who, kind);
        if idle {
            self.numbers.remove(who);
            self.subscribers.remove(&number);
        }
        left
    }

    /// What a subscriber listens to, for `UNSUBSCRIBE` without names.
    pub fn names_of(&self, who: &S, kind: Kind) -> Vec<Box<[u8]>> {
        let found = self
            .subscriber(who)
            .map(|s| s.names[kind as usize].iter().cloned().collect());
        found.unwrap_or_default()
    }

    /// Ends all subscriptions of a connection that is closed or reset.
    pub fn remove(&mut self, who: &S) {
        let Some(number) = self.numbers.remove(who) else {
            return;
        };
        let Some(subscriber) = self.subscribers.remove(&number) else {
            return;
        };
        for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
            for name in &subscriber.names[kind as usize] {
                self.forget_name(kind, name, number);
            }
        }
    }

    /// The number that confirmations carry: shard channels, or channels and patterns together.
    pub fn count(&self, who: &S, kind: Kind) -> usize {
        let Some(subscriber) = self.subscriber(who) else {
            return 0;
        };
        let [channels, patterns, shards] = &subscriber.names;
        match kind {
            Kind::Channel | Kind::Pattern => channels.len() + patterns.len(),
            Kind::Shard => shards.len(),
        }
    }

    /// Who gets a message that is published to a channel, and by which pattern if by one. A
    /// connection that listens to the channel and to patterns gets it several times, as in Redis.
    pub fn receivers<'a>(
        &'a self,
        channel: &'a [u8],
    ) -> impl Iterator<Item = (S, Option<&'a [u8]>)> + 'a {
        let direct = self
            .listeners(Kind::Channel, channel)
            .map(|who| (who, None));
        let matching = self
            .patterns
            .iter()
            .filter(move |(pattern, _)| glob_match(pattern, channel));
        let by_pattern = matching.flat_map(move |(pattern, numbers)| {
            numbers.iter().filter_map(move |number| {
                self.subscribers
                    .get(number)
                    .map(|s| (s.handle.clone(), Some(&**pattern)))
            })
        });
        direct.chain(by_pattern)
    }

    /// Who gets a message that is published to a shard channel.
    pub fn shard_receivers<'a>(&'a self, channel: &[u8]) -> impl Iterator<Item = S> + use<'a, S> {
        self.listeners(Kind::Shard, channel)
    }

    /// The names that somebody listens to, in order, those that a glob pattern matches.
    pub fn names<'a>(&'a self, kind: Kind, glob: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.map(kind)
            .keys()
            .map(AsRef::as_ref)
            .filter(move |name| glob_match(glob, name))
    }

    /// How many listen to a name.
    pub fn listening(&self, kind: Kind, name: &[u8]) -> usize {
        self.map(kind).get(name).map_or(0, HashSet::len)
    }

    /// How many different patterns there are (`PUBSUB NUMPAT`).
    pub fn patterns(&self) -> usize {
        self.patterns.len()
    }

    /// All subscribers.
    pub fn all(&self) -> impl Iterator<Item = &S> {
        self.subscribers
            .values()
            .map(|subscriber| &subscriber.handle)
    }

    /// How many subscribers there are.
    pub fn subscribers(&self) -> usize {
        self.subscribers.len()
    }

    /// Answers `PUBSUB …` except `HELP`; `false` when the subcommand or its arguments are none of
    /// these, then nothing is written.
    pub fn answer(&self, args: &[&[u8]], reply: &mut Reply<'_>) -> bool {
        let [_, subcommand, rest @ ..] = args else {
            return false;
        };
        let subcommand = subcommand.to_ascii_uppercase();
        match (subcommand.as_slice(), rest) {
            (b"CHANNELS", []) => self.answer_names(Kind::Channel, b"*", reply),
            (b"CHANNELS", [glob]) => self.answer_names(Kind::Channel, glob, reply),
            (b"SHARDCHANNELS", []) => self.answer_names(Kind::Shard, b"*", reply),
            (b"SHARDCHANNELS", [glob]) => self.answer_names(Kind::Shard, glob, reply),
            (b"NUMSUB", channels) => self.answer_listening(Kind::Channel, channels, reply),
            (b"SHARDNUMSUB", channels) => self.answer_listening(Kind::Shard, channels, reply),
            (b"NUMPAT", []) => reply.integer(count(self.patterns())),
            _ => return false,
        }
        true
    }

    fn answer_names(&self, kind: Kind, glob: &[u8], reply: &mut Reply<'_>) {
        let found: Vec<&[u8]> = self.names(kind, glob).collect();
        reply.array(found.len());
        for name in found {
            reply.bulk(name);
        }
    }

    fn answer_listening(&self, kind: Kind, channels: &[&[u8]], reply: &mut Reply<'_>) {
        reply.array(channels.len() * 2);
        for channel in channels {
            reply.bulk(channel);
            reply.integer(count(self.listening(kind, channel)));
        }
    }

    fn enter(&mut self, who: &S) -> u64 {
        let number = self.next;
        self.next += 1;
        let subscriber = Subscriber {
            handle: who.clone(),
            names: Default::default(),
        };
        self.subscribers.insert(number, subscriber);
        self.numbers.insert(who.clone(), number);
        number
    }

    fn subscriber(&self, who: &S) -> Option<&Subscriber<S>> {
        self.numbers
            .get(who)
            .and_then(|number| self.subscribers.get(number))
    }

    fn listeners<'a>(&'a self, kind: Kind, name: &[u8]) -> impl Iterator<Item = S> + use<'a, S> {
        let numbers = self.map(kind).get(name).into_iter().flatten();
        numbers.filter_map(|number| self.subscribers.get(number).map(|s| s.handle.clone()))
    }

    fn map(&self, kind: Kind) -> &Names {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
            Kind::Shard => &self.shards,
        }
    }

    fn names_mut(&mut self, kind: Kind) -> &mut Names {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shards,
        }
    }

    fn forget_name(&mut self, kind: Kind, name: &[u8], number: u64) {
        let names = self.names_mut(kind);
        if let Some(numbers) = names.get_mut(name) {
            numbers.remove(&number);
            if numbers.is_empty() {
                names.remove(name);
            }
        }
    }
}

/// A message by a subscription to its channel.
pub fn message(reply: &mut Reply<'_>, channel: &[u8], payload: &[u8]) {
    push(reply, &[b"message", channel, payload]);
}

/// A message by a pattern.
pub fn pmessage(reply: &mut Reply<'_>, pattern: &[u8], channel: &[u8], payload: &[u8]) {
    push(reply, &[b"pmessage", pattern, channel, payload]);
}

/// A message by a subscription to its shard channel.
pub fn smessage(reply: &mut Reply<'_>, channel: &[u8], payload: &[u8]) {
    push(reply, &[b"smessage", channel, payload]);
}

/// Confirms `SUBSCRIBE`, `PSUBSCRIBE`, `SSUBSCRIBE`, once for each name.
pub fn subscribed(reply: &mut Reply<'_>, kind: Kind, name: &[u8], left: usize) {
    let verb: &[u8] = match kind {
        Kind::Channel => b"subscribe",
        Kind::Pattern => b"psubscribe",
        Kind::Shard => b"ssubscribe",
    };
    confirm(reply, verb, Some(name), left);
}

/// Confirms the end of a subscription; without a name when there was none to end.
pub fn unsubscribed(reply: &mut Reply<'_>, kind: Kind, name: Option<&[u8]>, left: usize) {
    let verb: &[u8] = match kind {
        Kind::Channel => b"unsubscribe",
        Kind::Pattern => b"punsubscribe",
        Kind::Shard => b"sunsubscribe",
    };
    confirm(reply, verb, name, left);
}

fn push(reply: &mut Reply<'_>, parts: &[&[u8]]) {
    reply.push(parts.len());
    for part in parts {
        reply.bulk(part);
    }
}

fn confirm(reply: &mut Reply<'_>, verb: &[u8], name: Option<&[u8]>, left: usize) {
    reply.push(3);
    reply.bulk(verb);
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    reply.integer(count(left));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Proto;

    fn written(proto: Proto, write: impl FnOnce(&mut Reply<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Reply::new(&mut out, proto));
        String::from_utf8(out)
            .unwrap()
            .replace("\r\n", " ")
            .trim_end()
            .to_owned()
    }

    #[test]
    fn channels_and_patterns_are_counted_together_and_shard_channels_apart() {
        let mut pubsub = PubSub::new(10);
        assert_eq!(pubsub.subscribe(&1, Kind::Channel, b"news"), Ok(1));
        assert_eq!(pubsub.subscribe(&1, Kind::Channel, b"news"), Ok(1));
        assert_eq!(pubsub.subscribe(&1, Kind::Pattern, b"n*"), Ok(2));
        assert_eq!(pubsub.subscribe(&1, Kind::Shard, b"news"), Ok(1));
        assert_eq!(pubsub.unsubscribe(&1, Kind::Channel, b"news"), 1);
        assert_eq!(pubsub.unsubscribe(&1, Kind::Channel, b"never"), 1);
        assert_eq!(pubsub.unsubscribe(&2, Kind::Channel, b"news"), 0);
    }

    #[test]
    fn a_message_goes_to_the_channel_and_to_each_pattern_that_matches() {
        let mut pubsub = PubSub::new(10);
        pubsub.subscribe(&1, Kind::Channel, b"news").unwrap();
        pubsub.subscribe(&1, Kind::Pattern, b"n*").unwrap();
        pubsub.subscribe(&2, Kind::Pattern, b"*s").unwrap();
        pubsub.subscribe(&3, Kind::Pattern, b"x*").unwrap();
        pubsub.subscribe(&4, Kind::Shard, b"news").unwrap();
        let mut found: Vec<_> = pubsub.receivers(b"news").collect();
        found.sort_unstable();
        assert_eq!(found, [(1, None), (1, Some(&b"n*"[..])), (2, Some(b"*s"))]);
        assert_eq!(pubsub.shard_receivers(b"news").collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn subscriptions_are_bounded_for_each_subscriber() {
        let mut pubsub = PubSub::new(2);
        pubsub.subscribe(&1, Kind::Channel, b"a").unwrap();
        pubsub.subscribe(&1, Kind::Pattern, b"b").unwrap();
        assert_eq!(pubsub.subscribe(&1, Kind::Channel, b"a"), Ok(2));
        let refused = pubsub.subscribe(&1, Kind::Shard, b"c");
        assert_eq!(refused, Err(TooManySubscriptions { limit: 2 }));
        assert_eq!(pubsub.subscribe(&2, Kind::Shard, b"c"), Ok(1));
    }

    #[test]
    fn a_closed_connection_leaves_nothing_behind() {
        let mut pubsub = PubSub::new(10);
        for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
            pubsub.subscribe(&1, kind, b"a").unwrap();
        }
        pubsub.subscribe(&2, Kind::Channel, b"b").unwrap();
        pubsub.remove(&1);
        pubsub.unsubscribe(&2, Kind::Channel, b"b");
        assert_eq!(
            (
                pubsub.subscribers(),
                pubsub.patterns(),
                pubsub.numbers.len()
            ),
            (0, 0, 0)
        );
        assert!(
            pubsub.channels.is_empty() && pubsub.patterns.is_empty() && pubsub.shards.is_empty()
        );
    }

    #[test]
    fn the_pubsub_command_shows_what_is_listened_to() {
        let mut pubsub = PubSub::new(10);
        pubsub.subscribe(&1, Kind::Channel, b"a").unwrap();
        pubsub.subscribe(&2, Kind::Channel, b"a").unwrap();
        pubsub.subscribe(&2, Kind::Pattern, b"p").unwrap();
        let ask = |words: &str| {
            let args: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
            let mut known = false;
            let text = written(Proto::Resp2, |reply| known = pubsub.answer(&args, reply));
            known.then_some(text)
        };
        assert_eq!(ask("PUBSUB channels").unwrap(), "*1 $1 a");
        assert_eq!(ask("PUBSUB CHANNELS b*").unwrap(), "*0");
        assert_eq!(ask("PUBSUB NUMSUB a x").unwrap(), "*4 $1 a :2 $1 x :0");
        assert_eq!(ask("PUBSUB NUMPAT").unwrap(), ":1");
        assert_eq!(ask("PUBSUB SHARDCHANNELS").unwrap(), "*0");
        assert_eq!(ask("PUBSUB NUMPAT x"), None);
        assert_eq!(ask("PUBSUB WHAT"), None);
    }

    #[test]
    fn messages_are_arrays_in_resp2_and_pushes_in_resp3() {
        let both =
            |write: fn(&mut Reply<'_>)| [Proto::Resp2, Proto::Resp3].map(|p| written(p, write));
        let expected = ["*3 $7 message $1 c $2 hi", ">3 $7 message $1 c $2 hi"];
        assert_eq!(both(|r| message(r, b"c", b"hi")), expected);
        let expected = [
            "*4 $8 pmessage $2 c* $1 c $2 hi",
            ">4 $8 pmessage $2 c* $1 c $2 hi",
        ];
        assert_eq!(both(|r| pmessage(r, b"c*", b"c", b"hi")), expected);
        let expected = ["*3 $9 subscribe $1 c :1", ">3 $9 subscribe $1 c :1"];
        assert_eq!(both(|r| subscribed(r, Kind::Channel, b"c", 1)), expected);
        let expected = ["*3 $11 unsubscribe $-1 :0", ">3 $11 unsubscribe _ :0"];
        assert_eq!(both(|r| unsubscribed(r, Kind::Channel, None, 0)), expected);
    }
}
