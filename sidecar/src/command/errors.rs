//! Errors about commands in Redis' own words (`processCommand` in its `server.c`).
//!
//! Only texts, without the leading minus and the line end; refusals of our own are in `class`.

use super::CommandSpec;

/// ``ERR unknown command 'foo', with args beginning with: 'a' 'b' ``
pub fn unknown_command(args: &[&[u8]]) -> String {
    let name = args.first().map_or(String::new(), |name| shown(name, 128));
    let mut beginning = String::new();
    for arg in args.iter().skip(1) {
        if beginning.len() >= 128 {
            break;
        }
        let left = 128 - beginning.len();
        beginning.push('\'');
        beginning.push_str(&shown(arg, left));
        beginning.push_str("' ");
    }
    format!("ERR unknown command '{name}', with args beginning with: {beginning}")
}

/// `ERR unknown subcommand 'x'. Try CLIENT HELP.`
pub fn unknown_subcommand(args: &[&[u8]]) -> String {
    let container = args.first().map_or(String::new(), |name| shown(name, 128));
    let name = args.get(1).map_or(String::new(), |name| shown(name, 128));
    let container = container.to_ascii_uppercase();
    format!("ERR unknown subcommand '{name}'. Try {container} HELP.")
}

/// `ERR wrong number of arguments for 'config|get' command`
pub fn wrong_arity(spec: &CommandSpec) -> String {
    format!(
        "ERR wrong number of arguments for '{}' command",
        spec.name()
    )
}

/// What an error line may show of an argument: at most `limit` bytes, up to a zero byte, line
/// breaks and bytes that are not UTF-8 replaced.
pub(super) fn shown(arg: &[u8], limit: usize) -> String {
    let end = arg
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(arg.len())
        .min(limit);
    String::from_utf8_lossy(&arg[..end]).replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CommandTable;

    #[test]
    fn errors_read_as_in_redis() {
        assert_eq!(
            unknown_command(&[b"foo", b"a", b"b"]),
            "ERR unknown command 'foo', with args beginning with: 'a' 'b' "
        );
        assert_eq!(
            unknown_command(&[b"f\r\noo"]),
            "ERR unknown command 'f  oo', with args beginning with: "
        );
        assert_eq!(
            unknown_subcommand(&[b"client", b"x"]),
            "ERR unknown subcommand 'x'. Try CLIENT HELP."
        );
        let table = CommandTable::builtin();
        let spec = table.by_full_name(b"config|get").expect("known");
        assert_eq!(
            wrong_arity(spec),
            "ERR wrong number of arguments for 'config|get' command"
        );
    }

    #[test]
    fn long_arguments_are_cut_as_redis_cuts_them() {
        let long = [b'x'; 500];
        let text = unknown_command(&[&long, &long, &long]);
        assert_eq!(text.matches('x').count(), 256);
    }
}
