//! One request of a client: its words, what it does to which register, and what its reply says.

use super::{Action, Fate, Mark, NIL, keys};
use crate::wire::{Value, encode};

/// What a request does to one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Reads it.
    Read,
    /// Reads a counter.
    ReadSum,
    /// Writes it, for that many milliseconds (0: for ever).
    Set(Mark, u32),
    /// Empties it.
    Remove,
    /// Adds one.
    Add,
    /// It may end so many milliseconds later.
    End(u32),
}

/// How a reply is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// One value, for the only read.
    One,
    /// A list of values, one per read.
    Many,
    /// Fields and values; reads are of `f0`, `f1` …
    Fields,
    /// Anything but an error means that it was done.
    Status,
    /// The replies of a transaction; reads are of the last one, an array.
    Transaction,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Replies that precede the one that counts.
    pub before: usize,
    /// For people.
    pub verb: &'static str,
    /// What it does.
    pub touches: Vec<(u16, Touch)>,
    /// How its reply is read.
    pub answer: Answer,
    /// The tag of its keys.
    pub tag: usize,
}

impl Request {
    /// A command.
    pub fn new<T: AsRef<[u8]>>(verb: &'static str, words: &[T], answer: Answer) -> Self {
        Self {
            bytes: encode(words),
            before: 0,
            verb,
            touches: Vec::new(),
            answer,
            tag: 0,
        }
    }

    /// For keys with that tag.
    #[must_use]
    pub const fn tagged(mut self, tag: usize) -> Self {
        self.tag = tag;
        self
    }

    /// With one more register.
    #[must_use]
    pub fn touching(mut self, register: u16, touch: Touch) -> Self {
        self.touches.push((register, touch));
        self
    }

    /// `MULTI`, these commands, `EXEC`.
    pub fn transaction(commands: &[Self]) -> Self {
        let mut whole = Self::new("EXEC", &["MULTI"], Answer::Transaction);
        for command in commands {
            whole.bytes.extend_from_slice(&command.bytes);
            whole.touches.extend_from_slice(&command.touches);
            whole.tag = command.tag;
        }
        whole.bytes.extend_from_slice(&encode(&["EXEC"]));
        whole.before = commands.len() + 1;
        whole
    }

    /// What happened to each register, by the reply; nothing for reads that failed.
    pub fn actions(&self, reply: Option<&Value>) -> Vec<(u16, Action)> {
        let fate = fate(reply, self.verb);
        let values = match (fate, reply) {
            (Fate::Done, Some(reply)) => self.values(reply),
            _ => None,
        };
        let mut reads = 0;
        let mut actions = Vec::with_capacity(self.touches.len());
        for (register, touch) in &self.touches {
            let action = match *touch {
                Touch::Read | Touch::ReadSum => {
                    let Some(value) = values.as_ref().and_then(|values| values.get(reads)) else {
                        continue;
                    };
                    reads += 1;
                    Action::Read(match value {
                        None => NIL,
                        Some(value) if *touch == Touch::Read => keys::read_value(value),
                        Some(value) => keys::read_sum(value),
                    })
                }
                Touch::Set(mark, ttl_ms) => Action::Set { mark, ttl_ms, fate },
                Touch::Remove => Action::Remove(fate),
                Touch::Add => Action::Add {
                    sum: match (fate, reply) {
                        (Fate::Done, Some(Value::Integer(sum))) => keys::read_sum(sum),
                        _ => NIL,
                    },
                    fate,
                },
                Touch::End(_) if fate == Fate::Refused => continue,
                Touch::End(_) => Action::MayVanish,
            };
            actions.push((*register, action));
        }
        actions
    }

    /// One value per read; `None` where there was nothing.
    fn values(&self, reply: &Value) -> Option<Vec<Option<Vec<u8>>>> {
        Some(match (self.answer, reply) {
            (Answer::Many, Value::Array(items)) => items.iter().map(text).collect(),
            (Answer::Fields, Value::Array(items) | Value::Map(items)) => (0..keys::FIELDS)
                .map(|field| {
                    let name = format!("f{field}").into_bytes();
                    let pair = items.chunks(2).find(|pair| pair[0].bytes() == name)?;
                    text(&pair[1])
                })
                .collect(),
            (Answer::One, value) => vec![text(value)],
            _ => return None,
        })
    }
}

fn text(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Bulk(bytes) | Value::Simple(bytes) | Value::Verbatim(bytes) => Some(bytes.clone()),
        Value::Null | Value::NullBulk | Value::NullArray => None,
        // Nothing that was ever written.
        other => Some(other.to_string().into_bytes()),
    }
}

/// What an answer says about a write.
fn fate(reply: Option<&Value>, verb: &str) -> Fate {
    let error = match reply {
        None => return Fate::Unknown,
        Some(Value::Error(error) | Value::BlobError(error)) => String::from_utf8_lossy(error),
        // An error within a transaction: the others may have been executed.
        Some(Value::Array(items)) if items.iter().any(Value::is_error) => return Fate::Unknown,
        Some(Value::NullArray | Value::Null) if verb == "EXEC" => return Fate::Refused,
        Some(_) => return Fate::Done,
    };
    // Said before anything is executed; a script may have come halfway.
    let refusals = [
        "OOM ",
        "LOADING ",
        "READONLY ",
        "NOREPLICAS ",
        "MASTERDOWN ",
        "CLUSTERDOWN ",
        "EXECABORT ",
        "MOVED ",
        "ASK ",
        "TRYAGAIN ",
        "CROSSSLOT ",
    ];
    let refused = error.contains("the command was not executed")
        || error.starts_with("ERR Function not found")
        || !matches!(verb, "EVAL" | "FCALL")
            && refusals.iter().any(|prefix| error.starts_with(prefix));
    if refused {
        Fate::Refused
    } else {
        Fate::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> Value {
        crate::wire::parse(bytes).unwrap().unwrap().0
    }

    fn set(fate: Fate) -> Vec<(u16, Action)> {
        let (mark, ttl_ms) = (7, 0);
        vec![(3, Action::Set { mark, ttl_ms, fate })]
    }

    #[test]
    fn the_answer_to_a_write_says_what_became_of_it() {
        let write =
            Request::new("SET", &["SET", "k", "v"], Answer::Status).touching(3, Touch::Set(7, 0));
        assert_eq!(write.actions(Some(&parsed(b"+OK\r\n"))), set(Fate::Done));
        assert_eq!(write.actions(None), set(Fate::Unknown));
        let error = |text: &str| parsed(format!("-{text}\r\n").as_bytes());
        let honest = "ERR redis is unavailable, the command was not executed: x";
        assert_eq!(write.actions(Some(&error(honest))), set(Fate::Refused));
        assert_eq!(write.actions(Some(&error("OOM x"))), set(Fate::Refused));
        let perhaps = "ERR SET was sent and got no reply; it may or may not have been executed";
        assert_eq!(write.actions(Some(&error(perhaps))), set(Fate::Unknown));
    }

    #[test]
    fn values_are_read_in_either_protocol() {
        let read = Request::new("HGETALL", &["HGETALL", "k"], Answer::Fields)
            .touching(0, Touch::Read)
            .touching(1, Touch::Read);
        let expected = vec![(0, Action::Read(NIL)), (1, Action::Read(keys::mark(1, 2)))];
        for reply in [
            "*2\r\n$2\r\nf1\r\n$5\r\nw1.2.\r\n",
            "%1\r\n$2\r\nf1\r\n$5\r\nw1.2.\r\n",
        ] {
            assert_eq!(read.actions(Some(&parsed(reply.as_bytes()))), expected);
        }
        let failed = read.actions(Some(&parsed(b"-ERR no\r\n")));
        assert_eq!(failed, vec![]);
    }
}
