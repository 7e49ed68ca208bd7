//! The keys that everybody works on, the registers they hold, and values that name their write.

use super::{FOREIGN, Kind, Mark, NIL, Register};

/// Plain strings; the last one's name is no UTF-8.
const STRINGS: u16 = 5;
const HASHES: u16 = 2;
/// Fields of each hash.
pub const FIELDS: u16 = 2;
const COUNTERS: u16 = 2;
/// Strings that are only ever set with a short time to live.
const BRIEF: u16 = 2;
/// Strings that others give a time to live with `PEXPIRE`.
const EXPIRING: u16 = 1;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A string without a time to live.
    Text,
    /// A hash with [`FIELDS`] fields.
    Hash,
    /// A counter.
    Counter,
    /// A string that is only set with a time to live.
    Brief,
    /// A string that gets one later.
    Expiring,
}

/// One key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name in Redis.
    pub name: Vec<u8>,
    /// What it holds.
    pub shape: Shape,
    /// Its register, or the first of its fields'.
    pub register: u16,
    /// Its tag, by number: keys with one tag lie in one slot.
    pub tag: usize,
}

/// All keys.
#[derive(Clone, Debug)]
pub struct Keyspace {
    /// In the order of their registers.
    pub keys: Vec<Key>,
    /// One per key, or per field of a hash.
    pub registers: Vec<Register>,
}

impl Keyspace {
    /// The keys of a run, spread over `tags`.
    pub fn new(tags: &[&str]) -> Self {
        let mut space = Self {
            keys: Vec::new(),
            registers: Vec::new(),
        };
        for (shape, letter, count) in [
            (Shape::Text, 's', STRINGS),
            (Shape::Hash, 'h', HASHES),
            (Shape::Counter, 'c', COUNTERS),
            (Shape::Brief, 'b', BRIEF),
            (Shape::Expiring, 'e', EXPIRING),
        ] {
            for number in 0..count {
                // The one whose name is no UTF-8 has the last tag.
                let tag = usize::from(number + 1) % tags.len();
                let mut name = format!("k:{}{letter}{number}", tags[tag]).into_bytes();
                if shape == Shape::Text && number + 1 == count {
                    name.extend_from_slice(b"\xff\xfe");
                }
                space.add(name, shape, tag);
            }
        }
        space
    }

    fn add(&mut self, name: Vec<u8>, shape: Shape, tag: usize) {
        let register = u16::try_from(self.registers.len()).expect("there are few keys");
        let text = String::from_utf8_lossy(&name).into_owned();
        let (fields, kind) = match shape {
            Shape::Hash => (FIELDS, Kind::Value),
            Shape::Counter => (1, Kind::Counter),
            _ => (1, Kind::Value),
        };
        for field in 0..fields {
            let name = if shape == Shape::Hash {
                format!("{text} f{field}")
            } else {
                text.clone()
            };
            self.registers.push(Register { name, kind });
        }
        let key = Key {
            name,
            shape,
            register,
            tag,
        };
        self.keys.push(key);
    }

    /// Registers of values; counters are not emptied.
    pub fn values(&self) -> impl Iterator<Item = u16> + '_ {
        let all = self.registers.iter().zip(0_u16..);
        all.filter(|(register, _)| register.kind == Kind::Value)
            .map(|(_, number)| number)
    }
}

impl Key {
    /// Its registers.
    pub fn registers(&self) -> impl Iterator<Item = u16> + use<> {
        let count = if self.shape == Shape::Hash { FIELDS } else { 1 };
        self.register..self.register + count
    }
}

/// The mark of the write number `number` of a client.
pub fn mark(client: u16, number: u32) -> Mark {
    (Mark::from(client) << 32) | Mark::from(number)
}

/// A mark as the value that is written, `padding` bytes longer than needed.
pub fn value(mark: Mark, padding: usize) -> Vec<u8> {
    let mut value = format!("w{}.{}.", mark >> 32, mark & 0xffff_ffff).into_bytes();
    value.resize(value.len() + padding, b'x');
    value
}

/// The mark of a value.
pub fn read_value(value: &[u8]) -> Mark {
    let read = || {
        let text = std::str::from_utf8(value).ok()?;
        let mut words = text.strip_prefix('w')?.split('.');
        let client: u16 = words.next()?.parse().ok()?;
        let number: u32 = words.next()?.parse().ok()?;
        let padding = words.next()?;
        let whole = padding.bytes().all(|byte| byte == b'x') && words.next().is_none();
        whole.then(|| mark(client, number))
    };
    read().unwrap_or(FOREIGN)
}

/// The sum in a counter.
pub fn read_sum(value: &[u8]) -> Mark {
    let text = std::str::from_utf8(value).ok();
    let sum = text.and_then(|text| text.parse().ok()).unwrap_or(FOREIGN);
    if sum == NIL { FOREIGN } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_write() {
        for padding in [0, 1, 5000] {
            let mark = mark(300, 70_000);
            assert_eq!(read_value(&value(mark, padding)), mark);
        }
        for foreign in [
            &b""[..],
            b"w1.2",
            b"w1.2.x.",
            b"w1.2.y",
            b"w70000.1.",
            b"\xff",
        ] {
            assert_eq!(read_value(foreign), FOREIGN, "{foreign:?}");
        }
        assert_eq!(read_sum(b"17"), 17);
        assert_eq!(read_sum(b"0"), FOREIGN);
    }

    #[test]
    fn every_register_has_its_key() {
        let space = Keyspace::new(&["{a}", "{b}", "{c}"]);
        let from_keys: Vec<u16> = space.keys.iter().flat_map(Key::registers).collect();
        let all: Vec<u16> = (0..).take(space.registers.len()).collect();
        assert_eq!(from_keys, all);
        assert!((4..=16).contains(&space.keys.len()));
    }
}
