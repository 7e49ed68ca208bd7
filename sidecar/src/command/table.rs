//! The command table: the built-in rows, the server's additions, and the lookup.
//!
//! `table.txt` comes from real servers (`generate.py`), `own.txt` are the sidecar's own commands.

use std::borrow::Cow;

use super::CommandId;
use super::spec::{
    BeginSearch, CommandFlags, CommandSpec, Documentation, FindKeys, KeyFlags, KeySpec,
};

const BUILT_IN: &str = include_str!("table.txt");
const OWN: &str = include_str!("own.txt");

/// Longer names are never in the table; a request cannot make us hash more.
const LONGEST_NAME: usize = 32;
const FREE: u16 = u16::MAX;

/// All known commands.
#[derive(Clone, Debug)]
pub struct CommandTable {
    specs: Vec<CommandSpec>,
    /// Open addressing: positions in `specs` of commands that are no subcommands.
    slots: Vec<u16>,
}

/// What a request turned out to be.
#[derive(Clone, Copy, Debug)]
pub enum Resolved<'t> {
    /// A known command, or the subcommand of a container.
    Command(&'t CommandSpec),
    /// A known container with a subcommand that is not in the table.
    UnknownSubcommand(&'t CommandSpec),
    Unknown,
}

/// One row of a server's `COMMAND` reply.
#[derive(Clone, Debug, Default)]
pub struct ServerCommand {
    /// `json.get`, or `config|get` for a subcommand.
    pub name: String,
    pub arity: i64,
    pub flags: Vec<String>,
    pub first_key: i64,
    pub last_key: i64,
    pub step: i64,
    pub categories: Vec<String>,
    pub tips: Vec<String>,
    pub key_specs: Vec<ServerKeySpec>,
    pub subcommands: Vec<ServerCommand>,
}

/// One key specification of a server's `COMMAND` reply.
#[derive(Clone, Debug)]
pub struct ServerKeySpec {
    pub flags: Vec<String>,
    pub begin: BeginSearch,
    pub find: FindKeys,
}

impl CommandTable {
    /// The union of the commands of redis 7.0, redis 8.0 and valkey 8.1, and our own.
    pub fn builtin() -> CommandTable {
        let mut table = CommandTable {
            specs: Vec::with_capacity(448),
            slots: Vec::new(),
        };
        for line in BUILT_IN
            .lines()
            .chain(OWN.lines())
            .filter(|line| !line.starts_with('#'))
        {
            let spec = parse_line(line).expect("the built-in command table is well formed");
            table.insert(spec);
        }
        table.index();
        table
    }

    /// The command of this name in any case; for a container, the container.
    pub fn lookup(&self, name: &[u8]) -> Option<&CommandSpec> {
        if name.len() > LONGEST_NAME {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut slot = hash(name) & mask;
        loop {
            let at = self.slots[slot];
            if at == FREE {
                return None;
            }
            let spec = &self.specs[usize::from(at)];
            if spec.name.as_bytes().eq_ignore_ascii_case(name) {
                return Some(spec);
            }
            slot = (slot + 1) & mask;
        }
    }

    /// The command or subcommand that these words name.
    pub fn resolve(&self, args: &[&[u8]]) -> Resolved<'_> {
        let Some(spec) = args.first().and_then(|name| self.lookup(name)) else {
            return Resolved::Unknown;
        };
        if spec.subcommands.is_empty() {
            return Resolved::Command(spec);
        }
        match args.get(1) {
            None => Resolved::Command(spec),
            Some(word) => self
                .subcommand(spec, word)
                .map_or(Resolved::UnknownSubcommand(spec), Resolved::Command),
        }
    }

    /// The spec of `get` or `config|get`, as `COMMAND INFO` takes them.
    pub fn by_full_name(&self, name: &[u8]) -> Option<&CommandSpec> {
        match name.iter().position(|byte| *byte == b'|') {
            None => self.lookup(name),
            Some(bar) => self.subcommand(self.lookup(&name[..bar])?, &name[bar + 1..]),
        }
    }

    /// All commands and subcommands.
    pub fn iter(&self) -> impl Iterator<Item = &CommandSpec> + Clone {
        self.specs.iter()
    }

    /// All commands without the subcommands.
    pub fn commands(&self) -> impl Iterator<Item = &CommandSpec> + Clone {
        self.specs.iter().filter(|spec| spec.subcommand().is_none())
    }

    pub(super) fn subcommands<'t>(
        &'t self,
        spec: &'t CommandSpec,
    ) -> impl ExactSizeIterator<Item = &'t CommandSpec> {
        spec.subcommands
            .iter()
            .map(|at| &self.specs[usize::from(*at)])
    }

    fn subcommand(&self, container: &CommandSpec, word: &[u8]) -> Option<&CommandSpec> {
        let skip = container.name.len() + 1;
        container
            .subcommands
            .iter()
            .map(|at| &self.specs[usize::from(*at)])
            .find(|spec| {
                spec.name
                    .as_bytes()
                    .get(skip..)
                    .is_some_and(|own| own.eq_ignore_ascii_case(word))
            })
    }

    /// Takes over the server's own table: commands we do not know are added with their keys
    /// (modules, newer servers), of known ones the server's arity and key specifications count.
    /// Returns how many commands and subcommands are new.
    pub fn merge_server<I: IntoIterator<Item = ServerCommand>>(&mut self, rows: I) -> usize {
        let before = self.specs.len();
        for row in rows {
            self.merge_row(row);
        }
        self.index();
        self.specs.len() - before
    }

    fn merge_row(&mut self, row: ServerCommand) {
        let name = row.name.to_ascii_lowercase();
        let known = self.specs.iter().position(|spec| spec.name == name);
        let full = self.specs.len() >= usize::from(FREE) - 1;
        if name.is_empty() || (known.is_none() && full) {
            return;
        }
        let subcommands = row.subcommands;
        let flags: CommandFlags = row.flags.iter().map(String::as_str).collect();
        let key_specs: Vec<KeySpec> = row
            .key_specs
            .into_iter()
            .map(|spec| KeySpec {
                begin: spec.begin,
                find: spec.find,
                flags: spec.flags.iter().map(String::as_str).collect(),
            })
            .collect();
        let arity = clamp(row.arity);
        if let Some(at) = known {
            let spec = &mut self.specs[at];
            spec.arity = arity;
            if flags.has(CommandFlags::WRITE) {
                spec.flags = spec.flags.with(CommandFlags::WRITE);
            }
            if !key_specs.is_empty() {
                spec.key_specs = key_specs;
            }
            spec.derive();
        } else {
            self.insert(CommandSpec {
                id: CommandId::of(name.split('|').next().unwrap_or(&name)),
                name: Cow::Owned(name),
                arity,
                flags,
                legacy: (clamp(row.first_key), clamp(row.last_key), clamp(row.step)),
                key_specs,
                subcommands: Vec::new(),
                single_key: 0,
                cached_form: false,
                documentation: Documentation {
                    servers: Cow::Borrowed("server"),
                    categories: Cow::Owned(
                        row.categories
                            .iter()
                            .map(|name| name.trim_start_matches('@'))
                            .collect::<Vec<_>>()
                            .join(","),
                    ),
                    tips: Cow::Owned(row.tips.join(",")),
                    group: Cow::Borrowed("module"),
                    ..Documentation::default()
                },
            });
        }
        for subcommand in subcommands {
            // One level only: Redis has no deeper containers, and a hostile reply must not recurse.
            self.merge_row(ServerCommand {
                subcommands: Vec::new(),
                ..subcommand
            });
        }
    }

    /// Adds a row and links a subcommand to its container, which comes before it.
    fn insert(&mut self, mut spec: CommandSpec) {
        spec.derive();
        let at = u16::try_from(self.specs.len()).expect("the table has fewer than 65535 rows");
        if let Some((container, _)) = spec.name.split_once('|')
            && let Some(container) = self
                .specs
                .iter_mut()
                .rev()
                .find(|known| known.name == container)
        {
            container.subcommands.push(at);
        }
        self.specs.push(spec);
    }

    fn index(&mut self) {
        let size = (self.specs.len() * 4).next_power_of_two();
        self.slots = vec![FREE; size];
        for (at, spec) in self.specs.iter().enumerate() {
            if spec.subcommand().is_some() || spec.name.len() > LONGEST_NAME {
                continue;
            }
            let mut slot = hash(spec.name.as_bytes()) & (size - 1);
            while self.slots[slot] != FREE {
                slot = (slot + 1) & (size - 1);
            }
            self.slots[slot] = u16::try_from(at).expect("the table has fewer than 65535 rows");
        }
    }
}

/// Hashes the first and the last eight bytes with the case bit set, so that upper and lower case
/// fall together; the names are compared afterwards anyway.
fn hash(name: &[u8]) -> usize {
    const CASE: u64 = 0x2020_2020_2020_2020;
    let (first, last) = if let Some(first) = name.first_chunk::<8>() {
        (
            u64::from_le_bytes(*first),
            name.last_chunk::<8>().map_or(0, |l| u64::from_le_bytes(*l)),
        )
    } else if let (Some(first), Some(last)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        (
            u64::from(u32::from_le_bytes(*first)),
            u64::from(u32::from_le_bytes(*last)),
        )
    } else {
        (
            name.iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte | 0x20)),
            0,
        )
    };
    let mixed = ((first | CASE).wrapping_mul(0x9E37_79B9_7F4A_7C15))
        ^ ((last | CASE)
            .rotate_left(29)
            .wrapping_mul(0xC2B2_AE3D_27D4_EB4F))
        ^ name.len() as u64;
    // The table has far fewer than 2^32 slots: the high half holds the well mixed bits.
    (mixed >> 32) as usize
}

fn clamp(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(0)
}

fn parse_line(line: &'static str) -> Option<CommandSpec> {
    let mut columns = line.split('\t');
    let servers = columns.next()?;
    let name = columns.next()?;
    let arity = columns.next()?.parse().ok()?;
    let flags = columns.next()?.split(',').collect();
    let mut numbers = columns.next()?.split(',').map(str::parse);
    let mut number = || numbers.next()?.ok();
    let legacy = (number()?, number()?, number()?);
    let key_specs = columns.next()?;
    let key_specs = if key_specs.is_empty() {
        Vec::new()
    } else {
        key_specs
            .split(';')
            .map(parse_key_spec)
            .collect::<Option<_>>()?
    };
    Some(CommandSpec {
        name: Cow::Borrowed(name),
        id: CommandId::of(name.split('|').next()?),
        arity,
        flags,
        legacy,
        key_specs,
        subcommands: Vec::new(),
        single_key: 0,
        cached_form: false,
        documentation: Documentation {
            servers: Cow::Borrowed(servers),
            categories: Cow::Borrowed(columns.next()?),
            tips: Cow::Borrowed(columns.next()?),
            group: Cow::Borrowed(columns.next()?),
            since: Cow::Borrowed(columns.next()?),
            summary: Cow::Borrowed(columns.next()?),
        },
    })
}

/// `begin:find:flags`, written by `generate.py`.
fn parse_key_spec(text: &'static str) -> Option<KeySpec> {
    let mut parts = text.split(':');
    let begin = parts.next()?;
    let begin = match begin.as_bytes().first()? {
        b'i' => BeginSearch::Index(begin[1..].parse().ok()?),
        b'k' => {
            let (word, start) = begin[1..].split_once(',')?;
            BeginSearch::Keyword {
                word: Cow::Borrowed(word),
                start: start.parse().ok()?,
            }
        }
        _ => BeginSearch::Unknown,
    };
    let find = parts.next()?;
    let mut numbers = find.get(1..)?.split(',').map(str::parse);
    let mut number = || numbers.next()?.ok();
    let find = match find.as_bytes().first()? {
        b'r' => FindKeys::Range {
            last: number()?,
            step: number()?,
            limit: number()?,
        },
        b'n' => FindKeys::KeyNum {
            count_at: number()?,
            first: number()?,
            step: number()?,
        },
        _ => FindKeys::Unknown,
    };
    let flags = parts.next()?.split(',').collect::<KeyFlags>();
    Some(KeySpec { begin, find, flags })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_an_id_and_is_found_in_any_case() {
        let table = CommandTable::builtin();
        for spec in table.iter() {
            assert_ne!(spec.id(), CommandId::Other, "{}", spec.name());
            let upper = spec.name().to_ascii_uppercase();
            let found = table
                .by_full_name(upper.as_bytes())
                .expect("found in upper case");
            assert_eq!(found.name(), spec.name());
        }
        assert_eq!(table.commands().count(), CommandId::ALL.len());
        assert!(CommandId::ALL.is_sorted_by(|a, b| a.0 < b.0));
        assert!(table.lookup(b"").is_none());
        assert!(table.lookup(&[b'x'; 1000]).is_none());
    }

    #[test]
    fn words_are_resolved_to_commands_and_subcommands() {
        let table = CommandTable::builtin();
        let name = |args: &[&[u8]]| match table.resolve(args) {
            Resolved::Command(spec) => spec.name().to_owned(),
            Resolved::UnknownSubcommand(spec) => format!("{}?", spec.name()),
            Resolved::Unknown => "?".to_owned(),
        };
        assert_eq!(name(&[b"GeT", b"k"]), "get");
        assert_eq!(name(&[b"CONFIG", b"GET", b"x"]), "config|get");
        assert_eq!(name(&[b"CONFIG"]), "config");
        assert_eq!(name(&[b"CONFIG", b"GE"]), "config?");
        assert_eq!(name(&[b"NOPE"]), "?");
        assert_eq!(name(&[]), "?");
    }

    #[test]
    fn a_servers_own_commands_are_added_and_its_view_of_known_ones_counts() {
        let mut table = CommandTable::builtin();
        let sub = ServerCommand {
            name: "NEW|SUB".into(),
            arity: -3,
            ..Default::default()
        };
        let added = table.merge_server([
            ServerCommand {
                name: "NEW".into(),
                arity: -2,
                flags: vec!["write".into()],
                subcommands: vec![sub],
                ..Default::default()
            },
            ServerCommand {
                name: "get".into(),
                arity: -2,
                ..Default::default()
            },
            ServerCommand::default(),
        ]);
        assert_eq!(added, 2);
        let Resolved::Command(spec) = table.resolve(&[b"new", b"Sub", b"k"]) else {
            panic!("the subcommand is not found")
        };
        assert_eq!((spec.name(), spec.id()), ("new|sub", CommandId::Other));
        let get = table.lookup(b"get").expect("still there");
        assert_eq!((get.arity(), get.single_key()), (-2, Some(1)));
    }
}
