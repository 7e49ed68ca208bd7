//! Errors about commands in Redis' own words (`processCommand` in its `server.c`).
//!
//! Only texts, without the leading minus and the line end; refusals of our own are in `class`.

use super::CommandSpec;

/// ``ERR unknown command 'foo', with args beginning with: 'a' 'b' ``, with the bytes as they came.
pub fn unknown_command(args: &[&[u8]]) -> Vec<u8> {
    let name = args
        .first()
        .map_or(b"".as_slice(), |name| beginning_of(name, 128));
    let mut beginning = Vec::new();
    for arg in args.iter().skip(1) {
        if beginning.len() >= 128 {
            break;
        }
        let arg = beginning_of(arg, 128 - beginning.len());
        beginning.extend_from_slice(&[b"'", arg, b"' "].concat());
    }
    [
        b"ERR unknown command '",
        name,
        b"', with args beginning with: ",
        &beginning,
    ]
    .concat()
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
    String::from_utf8_lossy(beginning_of(arg, limit)).replace(['\r', '\n'], " ")
}

fn beginning_of(arg: &[u8], limit: usize) -> &[u8] {
    let end = arg.iter().position(|byte| *byte == 0);
    &arg[..end.unwrap_or(arg.len()).min(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CommandTable;

    #[test]
    fn errors_read_as_in_redis() {
        assert_eq!(
            unknown_command(&[b"foo", b"a", b"b"]),
            b"ERR unknown command 'foo', with args beginning with: 'a' 'b' "
        );
        assert_eq!(
            unknown_command(&[b"f\xff\0oo"]),
            b"ERR unknown command 'f\xff', with args beginning with: "
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
        assert_eq!(text.split(|byte| *byte == b'x').count() - 1, 256);
    }
}
