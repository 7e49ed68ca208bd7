//! One reply from the replies of several servers.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use super::{reply, spread};
use crate::{
    client::Client,
    clock::Tick,
    command::CommandId,
    resp::{
        Proto,
        reply::{Value, integer, is_error, is_null},
        write::{self, Reply},
    },
    worker::Worker,
};

/// How the parts become one reply.
#[derive(Debug)]
pub enum Merge {
    /// Values by place: for each part the places of its items (`MGET`).
    Places(Vec<Vec<usize>>),
    /// Numbers are added up (`DEL`, `DBSIZE`).
    Sum,
    /// Lists one after the other (`KEYS`).
    Concat,
    /// The first that is not null (`RANDOMKEY`); all say the same (`FLUSHALL`, `MSET`).
    First,
    /// Per place, whether all say yes (`SCRIPT EXISTS`).
    All,
    /// The least number, of lists per place (`WAIT`, `WAITAOF`).
    Least,
}

/// An app's command that several servers answer.
pub struct Gather {
    client: Rc<Client>,
    number: u64,
    command: CommandId,
    since: Tick,
    proto: Proto,
    merge: Merge,
    parts: RefCell<Vec<Vec<u8>>>,
    missing: Cell<usize>,
}

/// The place of one server's reply.
#[derive(Clone)]
pub struct Part {
    gather: Rc<Gather>,
    index: usize,
}

impl Gather {
    /// Waits for `parts` replies for the client's slot `number`.
    pub fn new(
        client: &Rc<Client>,
        number: u64,
        command: CommandId,
        proto: Proto,
        merge: Merge,
        parts: usize,
    ) -> Rc<Self> {
        Rc::new(Self {
            client: Rc::clone(client),
            number,
            command,
            since: client.worker.now(),
            proto,
            merge,
            parts: RefCell::new(vec![Vec::new(); parts]),
            missing: Cell::new(parts),
        })
    }

    /// The place of one reply.
    pub fn part(self: &Rc<Self>, index: usize) -> Part {
        Part {
            gather: Rc::clone(self),
            index,
        }
    }

    /// An error of one part is the error of the whole: what other servers did stays done, as with
    /// any command that Redis Cluster cannot run at one place.
    fn complete(&self, worker: &Worker) {
        let parts = self.parts.borrow();
        let error = parts.iter().find(|part| is_error(part));
        // A blocking command takes as long as it was asked to.
        let took = match self.merge {
            Merge::Least => Duration::ZERO,
            _ => worker.now().since(self.since),
        };
        reply::count(worker, self.command, error.is_some(), took);
        self.client.complete(self.number, |out, _| match error {
            Some(error) => out.extend_from_slice(error),
            None => self.merge.write(&parts, self.proto, out),
        });
    }
}

impl Part {
    /// Whether it asks a server for what is there, whatever slots that are.
    pub fn is_of_one_server(&self) -> bool {
        !spread::can_split(self.gather.command)
    }

    /// The slot of the whole command in its client.
    pub fn number(&self) -> u64 {
        self.gather.number
    }

    /// The reply has come.
    pub fn answer(&self, worker: &Worker, write: impl FnOnce(&mut Vec<u8>)) {
        let gather = &self.gather;
        write(&mut gather.parts.borrow_mut()[self.index]);
        gather.missing.set(gather.missing.get().saturating_sub(1));
        if gather.missing.get() == 0 {
            gather.complete(worker);
        }
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "part {} of {:?}", self.index, self.gather.command)
    }
}

impl Merge {
    fn write(&self, parts: &[Vec<u8>], proto: Proto, out: &mut Vec<u8>) {
        match self {
            Self::Places(places) => write_places(places, parts, proto, out),
            Self::Sum => {
                let numbers = parts.iter().filter_map(|part| integer(part));
                let sum = numbers.fold(0, i64::saturating_add);
                Reply::new(out, proto).integer(sum);
            }
            Self::Concat => write_concat(parts, out),
            Self::First => {
                let first = parts.iter().find(|part| !is_null(part)).or(parts.first());
                out.extend_from_slice(first.map_or(&[], Vec::as_slice));
            }
            Self::All => write_all(parts, proto, out),
            Self::Least => write_least(parts, proto, out),
        }
    }
}

fn write_places(places: &[Vec<usize>], parts: &[Vec<u8>], proto: Proto, out: &mut Vec<u8>) {
    let total = places.iter().map(Vec::len).sum();
    let replies: Vec<_> = parts.iter().map(|part| Value::read(part)).collect();
    let mut values: Vec<Option<&[u8]>> = vec![None; total];
    for (places, reply) in places.iter().zip(&replies) {
        let items = reply.as_ref().ok().and_then(Value::list);
        for (place, item) in places.iter().zip(items.unwrap_or_default()) {
            values[*place] = item.text();
        }
    }
    let mut reply = Reply::new(out, proto);
    reply.array(total);
    for value in values {
        match value {
            Some(value) => reply.bulk(value),
            None => reply.null(),
        }
    }
}

/// Lists keep their items as they came.
fn write_concat(parts: &[Vec<u8>], out: &mut Vec<u8>) {
    let split = |part: &Vec<u8>| {
        let end = part.windows(2).position(|pair| pair == b"\r\n")?;
        let count: usize = std::str::from_utf8(part.get(1..end)?).ok()?.parse().ok()?;
        Some((count, end + 2))
    };
    let lists: Vec<_> = parts
        .iter()
        .filter_map(|part| split(part).map(|(count, at)| (count, &part[at..])))
        .collect();
    write::header(out, b'*', lists.iter().map(|(count, _)| count).sum());
    for (_, items) in lists {
        out.extend_from_slice(items);
    }
}

fn write_all(parts: &[Vec<u8>], proto: Proto, out: &mut Vec<u8>) {
    let mut all: Vec<i64> = Vec::new();
    for part in parts {
        let value = Value::read(part);
        let items = value
            .as_ref()
            .ok()
            .and_then(Value::list)
            .unwrap_or_default();
        all.resize(items.len().max(all.len()), 1);
        for (all, item) in all.iter_mut().zip(items) {
            *all &= i64::from(*item == Value::Integer(1));
        }
    }
    let mut reply = Reply::new(out, proto);
    reply.array(all.len());
    for value in all {
        reply.integer(value);
    }
}

fn write_least(parts: &[Vec<u8>], proto: Proto, out: &mut Vec<u8>) {
    let mut least: Vec<i64> = Vec::new();
    let mut is_list = false;
    for (index, part) in parts.iter().enumerate() {
        let value = Value::read(part);
        let numbers = match &value {
            Ok(Value::List(items)) => {
                is_list = true;
                items.as_slice()
            }
            Ok(number) => std::slice::from_ref(number),
            Err(_) => &[],
        };
        for (place, number) in numbers.iter().enumerate() {
            let Value::Integer(number) = number else {
                continue;
            };
            match least.get_mut(place) {
                Some(least) => *least = (*least).min(*number),
                None if index == 0 => least.push(*number),
                None => {}
            }
        }
    }
    let mut reply = Reply::new(out, proto);
    if is_list {
        reply.array(least.len());
    }
    for number in least {
        reply.integer(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(merge: &Merge, parts: &[&str], proto: Proto) -> String {
        let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.as_bytes().to_vec()).collect();
        let mut out = Vec::new();
        merge.write(&parts, proto, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_take_the_places_of_their_keys() {
        let merge = Merge::Places(vec![vec![2, 0], vec![1]]);
        let parts = ["*2\r\n$1\r\nc\r\n$-1\r\n", "*1\r\n$1\r\nb\r\n"];
        assert_eq!(
            merged(&merge, &parts, Proto::Resp2),
            "*3\r\n$-1\r\n$1\r\nb\r\n$1\r\nc\r\n"
        );
        let parts = ["*2\r\n$1\r\nc\r\n_\r\n", "*1\r\n$1\r\nb\r\n"];
        assert_eq!(
            merged(&merge, &parts, Proto::Resp3),
            "*3\r\n_\r\n$1\r\nb\r\n$1\r\nc\r\n"
        );
    }

    #[test]
    fn numbers_add_up_and_lists_follow_each_other() {
        assert_eq!(
            merged(&Merge::Sum, &[":2\r\n", ":40\r\n"], Proto::Resp2),
            ":42\r\n"
        );
        assert_eq!(
            merged(&Merge::Sum, &[":999999999999999999\r\n"; 10], Proto::Resp2),
            ":9223372036854775807\r\n",
            "a server that lies is no reason to panic"
        );
        assert_eq!(
            merged(
                &Merge::Concat,
                &["*1\r\n$1\r\na\r\n", "*0\r\n", "*1\r\n$1\r\nb\r\n"],
                Proto::Resp2
            ),
            "*2\r\n$1\r\na\r\n$1\r\nb\r\n"
        );
        assert_eq!(
            merged(&Merge::First, &["$-1\r\n", "$1\r\nk\r\n"], Proto::Resp2),
            "$1\r\nk\r\n"
        );
        assert_eq!(
            merged(
                &Merge::All,
                &["*2\r\n:1\r\n:1\r\n", "*2\r\n:0\r\n:1\r\n"],
                Proto::Resp2
            ),
            "*2\r\n:0\r\n:1\r\n"
        );
    }

    #[test]
    fn replicas_are_counted_where_there_are_fewest() {
        let least = |parts: &[&str]| merged(&Merge::Least, parts, Proto::Resp2);
        assert_eq!(least(&[":2\r\n", ":1\r\n", ":3\r\n"]), ":1\r\n");
        assert_eq!(
            least(&["*2\r\n:1\r\n:0\r\n", "*2\r\n:0\r\n:2\r\n"]),
            "*2\r\n:0\r\n:0\r\n"
        );
    }
}
