//! What the sidecar knows about Redis commands: arity, flags, keys, treatment. Pure, no I/O.
//!
//! A request comes here decoded ([`crate::resp`]) and leaves classified for the engine: `table`
//! finds the [`CommandSpec`], `keys` the key arguments, `class` the treatment, `prefix` writes the
//! command for the server and `reply` takes the prefix off again. The built-in table is the union
//! of redis 7.0, redis 8.0 and valkey 8.1; commands of the server at hand are merged in.

mod channel;
mod class;
mod compatibility;
mod describe;
mod errors;
mod glob;
mod id;
mod keys;
mod prefix;
mod reply;
mod spec;
mod table;

pub use class::{Allowed, Class, Effect, Local, Pin, Refused, class, effect};
pub use compatibility::compatibility_page;
pub use describe::{
    CommandReply, write_count, write_docs, write_getkeys, write_help, write_info, write_list,
};
pub use errors::{unknown_command, unknown_subcommand, wrong_arity};
pub use glob::glob_match;
pub use id::CommandId;
pub use keys::{Access, KeyPosition, KeyPositions, KeysUnknown, keys};
pub use prefix::{Prefix, apply_prefix, write_command};
pub use reply::{Malformed, ReplyRewrite, Stripped, strip_exec_reply, strip_reply};
pub use spec::{BeginSearch, CommandFlags, CommandSpec, FindKeys, KeyFlags, KeySpec};
pub use table::{CommandTable, Resolved, ServerCommand, ServerKeySpec};

#[cfg(test)]
mod properties;
