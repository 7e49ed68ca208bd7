//! One command of the table: arity, flags and key specifications, as `COMMAND` shows them.
//!
//! Nothing is decided here; see `class` for the treatment and `keys` for finding the keys.

use std::borrow::Cow;

use super::CommandId;

/// One command or subcommand.
#[derive(Clone, Debug)]
pub struct CommandSpec {
    pub(super) name: Cow<'static, str>,
    pub(super) id: CommandId,
    pub(super) arity: i32,
    pub(super) flags: CommandFlags,
    /// First key, last key, step: what clients without key specifications use.
    pub(super) legacy: (i32, i32, i32),
    pub(super) key_specs: Vec<KeySpec>,
    /// Positions of the subcommands in the table.
    pub(super) subcommands: Vec<u16>,
    /// The only key is this argument, whatever the other arguments say (0: not so simple).
    pub(super) single_key: u8,
    /// The local tier may answer it.
    pub(super) cached_form: bool,
    pub(super) documentation: Documentation,
}

/// Columns that are only shown, kept as the text they came as.
#[derive(Clone, Debug, Default)]
pub(super) struct Documentation {
    pub servers: Cow<'static, str>,
    pub categories: Cow<'static, str>,
    pub tips: Cow<'static, str>,
    pub group: Cow<'static, str>,
    pub since: Cow<'static, str>,
    pub summary: Cow<'static, str>,
}

impl CommandSpec {
    /// What is known of a command that nobody knows: nothing, so it may do anything.
    pub fn unknown(name: &[u8]) -> Self {
        Self {
            name: String::from_utf8_lossy(name).to_ascii_lowercase().into(),
            id: CommandId::Other,
            arity: -1,
            flags: CommandFlags::default(),
            legacy: (0, 0, 0),
            key_specs: Vec::new(),
            subcommands: Vec::new(),
            single_key: 0,
            cached_form: false,
            documentation: Documentation::default(),
        }
    }

    /// The full lower-case name, `config|get` for a subcommand.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The subcommand's own name, `get` for `config|get`.
    pub fn subcommand(&self) -> Option<&str> {
        self.name.split_once('|').map(|(_, name)| name)
    }

    pub fn id(&self) -> CommandId {
        self.id
    }

    pub fn arity(&self) -> i32 {
        self.arity
    }

    pub fn flags(&self) -> CommandFlags {
        self.flags
    }

    pub fn key_specs(&self) -> &[KeySpec] {
        &self.key_specs
    }

    /// Whether this many words, the command's name included, are acceptable.
    pub fn arity_matches(&self, words: usize) -> bool {
        let words = i64::try_from(words).unwrap_or(i64::MAX);
        let arity = i64::from(self.arity);
        if arity >= 0 {
            words == arity
        } else {
            words >= -arity
        }
    }

    /// The argument that is the one and only key of this command in all its forms, so that hot
    /// commands need no [`keys`](super::keys).
    pub fn single_key(&self) -> Option<usize> {
        (self.single_key != 0).then_some(usize::from(self.single_key))
    }

    /// Whether the command has subcommands.
    pub fn is_container(&self) -> bool {
        !self.subcommands.is_empty()
    }

    /// Whether the server may change data on this command.
    pub fn may_write(&self) -> bool {
        let writes_by_nature = matches!(
            self.id,
            CommandId::Eval
                | CommandId::Evalsha
                | CommandId::Fcall
                | CommandId::Exec
                | CommandId::Debug
                | CommandId::Pfdebug
                | CommandId::Other
        );
        self.flags.has(CommandFlags::WRITE)
            || (writes_by_nature && !self.flags.has(CommandFlags::READONLY))
    }

    /// Whether the command may be sent again after a connection broke: only what cannot change
    /// anything, neither data nor the state of the connection or of the server.
    pub fn is_idempotent(&self) -> bool {
        self.flags.has(CommandFlags::READONLY) && !self.may_write()
    }

    /// Whether replies to this command may be kept in the local tier.
    #[inline]
    pub fn has_cached_form(&self) -> bool {
        self.cached_form
    }

    /// Recomputes what is derived from the key specifications.
    pub(super) fn derive(&mut self) {
        self.cached_form = matches!(
            self.id,
            CommandId::Get
                | CommandId::Mget
                | CommandId::Strlen
                | CommandId::Exists
                | CommandId::Type
                | CommandId::Ttl
                | CommandId::Pttl
                | CommandId::Hget
                | CommandId::Hgetall
                | CommandId::Hmget
                | CommandId::Hexists
                | CommandId::Hlen
                | CommandId::Smembers
                | CommandId::Sismember
                | CommandId::Scard
                | CommandId::Lrange
                | CommandId::Llen
                | CommandId::Zrange
                | CommandId::Zscore
                | CommandId::Zcard
        );
        self.single_key = match (self.id, self.key_specs.as_slice()) {
            (CommandId::Sort | CommandId::SortRo | CommandId::Migrate, _) => 0,
            (
                _,
                [
                    KeySpec {
                        begin: BeginSearch::Index(index),
                        find,
                        flags,
                    },
                ],
            ) if *find
                == (FindKeys::Range {
                    last: 0,
                    step: 1,
                    limit: 0,
                })
                && !flags.has(KeyFlags::NOT_KEY)
                && !flags.has(KeyFlags::INCOMPLETE) =>
            {
                u8::try_from(*index).unwrap_or(0)
            }
            _ => 0,
        };
    }
}

/// A set of named bits; the names are those of `COMMAND`.
macro_rules! flag_set {
    ($(#[$doc:meta])* $type:ident { $($flag:ident = $bit:literal $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $type(u32);

        impl $type {
            $(pub const $flag: $type = $type(1 << $bit);)*
            const NAMES: &'static [($type, &'static str)] = &[$(($type::$flag, $name),)*];

            pub fn has(self, flag: $type) -> bool {
                self.0 & flag.0 != 0
            }

            #[must_use]
            pub const fn with(self, flag: $type) -> $type {
                $type(self.0 | flag.0)
            }

            /// The flag of this name, nothing for an unknown name.
            pub fn named(name: &str) -> $type {
                Self::NAMES
                    .iter()
                    .find(|(_, known)| known.eq_ignore_ascii_case(name))
                    .map_or($type(0), |(flag, _)| *flag)
            }

            /// All names in the set.
            pub fn names(self) -> impl Iterator<Item = &'static str> + Clone {
                Self::NAMES.iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| *name)
            }
        }

        impl<'a> FromIterator<&'a str> for $type {
            fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> $type {
                names.into_iter().fold($type(0), |set, name| set.with($type::named(name)))
            }
        }
    };
}

flag_set! {
    /// Flags of a command.
    CommandFlags {
        WRITE = 0 "write",
        READONLY = 1 "readonly",
        DENYOOM = 2 "denyoom",
        ADMIN = 3 "admin",
        PUBSUB = 4 "pubsub",
        NOSCRIPT = 5 "noscript",
        BLOCKING = 6 "blocking",
        LOADING = 7 "loading",
        STALE = 8 "stale",
        SKIP_MONITOR = 9 "skip_monitor",
        SKIP_SLOWLOG = 10 "skip_slowlog",
        ASKING = 11 "asking",
        FAST = 12 "fast",
        NO_AUTH = 13 "no_auth",
        MAY_REPLICATE = 14 "may_replicate",
        SENTINEL = 15 "sentinel",
        ONLY_SENTINEL = 16 "only_sentinel",
        NO_MANDATORY_KEYS = 17 "no_mandatory_keys",
        PROTECTED = 18 "protected",
        MODULE = 19 "module",
        NO_ASYNC_LOADING = 20 "no_async_loading",
        NO_MULTI = 21 "no_multi",
        MOVABLEKEYS = 22 "movablekeys",
        ALLOW_BUSY = 23 "allow_busy",
    }
}

flag_set! {
    /// Flags of a key specification.
    KeyFlags {
        RO = 0 "RO",
        RW = 1 "RW",
        OW = 2 "OW",
        RM = 3 "RM",
        ACCESS = 4 "access",
        UPDATE = 5 "update",
        INSERT = 6 "insert",
        DELETE = 7 "delete",
        NOT_KEY = 8 "not_key",
        INCOMPLETE = 9 "incomplete",
        VARIABLE_FLAGS = 10 "variable_flags",
    }
}

/// One key specification: where a run of keys begins, how far it goes, what is done with it.
/// <https://redis.io/docs/latest/develop/reference/key-specs/>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    pub begin: BeginSearch,
    pub find: FindKeys,
    pub flags: KeyFlags,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BeginSearch {
    /// At this argument.
    Index(i32),
    /// After this word, looked for from an argument on; from the end backwards if negative.
    Keyword {
        word: Cow<'static, str>,
        start: i32,
    },
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindKeys {
    /// Up to `last`, counted from the first key or, negative, from the end; `limit` n means that
    /// the keys are the first n-th part of the remaining arguments.
    Range {
        last: i32,
        step: i32,
        limit: i32,
    },
    /// The number of keys is an argument.
    KeyNum {
        count_at: i32,
        first: i32,
        step: i32,
    },
    Unknown,
}
