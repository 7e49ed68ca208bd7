//! The answers to COMMAND, from the table, through a small trait that writes either protocol.
//!
//! COMMAND DOCS tells summary, since and group; the trees of arguments are not kept.

use super::spec::{BeginSearch, CommandSpec, FindKeys, KeyFlags, KeySpec};
use super::table::{CommandTable, Resolved};
use super::{CommandId, KeyPositions, KeysUnknown, glob_match, keys};

/// Writes one reply; sets and maps become arrays in RESP2.
pub trait CommandReply {
    fn array(&mut self, len: usize);
    fn map(&mut self, len: usize);
    fn set(&mut self, len: usize);
    fn bulk(&mut self, bytes: &[u8]);
    fn simple(&mut self, text: &str);
    fn integer(&mut self, number: i64);
    fn null(&mut self);
    /// Without the leading minus.
    fn error(&mut self, text: &str);
}

/// `COMMAND COUNT`
pub fn write_count(table: &CommandTable, reply: &mut impl CommandReply) {
    reply.integer(i64::try_from(table.commands().count()).unwrap_or(i64::MAX));
}

/// `COMMAND` and `COMMAND INFO [name ...]`; all commands without names.
pub fn write_info(table: &CommandTable, names: &[&[u8]], reply: &mut impl CommandReply) {
    if names.is_empty() {
        reply.array(table.commands().count());
        for spec in table.commands() {
            row(table, spec, reply);
        }
        return;
    }
    reply.array(names.len());
    for name in names {
        match table.by_full_name(name) {
            Some(spec) => row(table, spec, reply),
            None => reply.null(),
        }
    }
}

fn row(table: &CommandTable, spec: &CommandSpec, reply: &mut impl CommandReply) {
    reply.array(10);
    reply.bulk(spec.name().as_bytes());
    reply.integer(i64::from(spec.arity));
    let flags = spec.flags.names();
    reply.set(flags.clone().count());
    flags.for_each(|flag| reply.simple(flag));
    let (first, last, step) = spec.legacy;
    for number in [first, last, step] {
        reply.integer(i64::from(number));
    }
    let categories = listed(&spec.documentation.categories);
    reply.set(categories.clone().count());
    categories.for_each(|category| reply.simple(&format!("@{category}")));
    let tips = listed(&spec.documentation.tips);
    reply.set(tips.clone().count());
    tips.for_each(|tip| reply.bulk(tip.as_bytes()));
    reply.set(spec.key_specs.len());
    spec.key_specs
        .iter()
        .for_each(|key_spec| write_key_spec(key_spec, reply));
    let subcommands = table.subcommands(spec);
    reply.set(subcommands.len());
    subcommands.for_each(|subcommand| row(table, subcommand, reply));
}

fn write_key_spec(spec: &KeySpec, reply: &mut impl CommandReply) {
    reply.map(3);
    reply.bulk(b"flags");
    key_flags(spec.flags, reply);
    reply.bulk(b"begin_search");
    match &spec.begin {
        BeginSearch::Index(index) => search("index", &[("index", *index)], reply),
        BeginSearch::Keyword { word, start } => {
            reply.map(2);
            reply.bulk(b"type");
            reply.bulk(b"keyword");
            reply.bulk(b"spec");
            reply.map(2);
            reply.bulk(b"keyword");
            reply.bulk(word.as_bytes());
            reply.bulk(b"startfrom");
            reply.integer(i64::from(*start));
        }
        BeginSearch::Unknown => search("unknown", &[], reply),
    }
    reply.bulk(b"find_keys");
    match spec.find {
        FindKeys::Range { last, step, limit } => {
            search(
                "range",
                &[("lastkey", last), ("keystep", step), ("limit", limit)],
                reply,
            );
        }
        FindKeys::KeyNum {
            count_at,
            first,
            step,
        } => {
            let values = [
                ("keynumidx", count_at),
                ("firstkey", first),
                ("keystep", step),
            ];
            search("keynum", &values, reply);
        }
        FindKeys::Unknown => search("unknown", &[], reply),
    }
}

fn search(kind: &str, values: &[(&str, i32)], reply: &mut impl CommandReply) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(values.len());
    for (name, value) in values {
        reply.bulk(name.as_bytes());
        reply.integer(i64::from(*value));
    }
}

fn key_flags(flags: KeyFlags, reply: &mut impl CommandReply) {
    reply.set(flags.names().count());
    flags.names().for_each(|flag| reply.simple(flag));
}

/// `COMMAND DOCS [name ...]`; unknown names are left out.
pub fn write_docs(table: &CommandTable, names: &[&[u8]], reply: &mut impl CommandReply) {
    if names.is_empty() {
        reply.map(table.commands().count());
        for spec in table.commands() {
            documentation(table, spec, reply);
        }
        return;
    }
    let known = names.iter().filter_map(|name| table.by_full_name(name));
    reply.map(known.clone().count());
    known.for_each(|spec| documentation(table, spec, reply));
}

fn documentation(table: &CommandTable, spec: &CommandSpec, reply: &mut impl CommandReply) {
    let columns = &spec.documentation;
    let pairs = [
        ("summary", &columns.summary),
        ("since", &columns.since),
        ("group", &columns.group),
    ];
    let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
    let subcommands = table.subcommands(spec);
    reply.bulk(spec.name().as_bytes());
    reply.map(pairs.clone().count() + usize::from(spec.is_container()));
    for (name, value) in pairs {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    if spec.is_container() {
        reply.bulk(b"subcommands");
        reply.map(subcommands.len());
        subcommands.for_each(|subcommand| documentation(table, subcommand, reply));
    }
}

/// `COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]`; `filter` is what
/// follows LIST.
pub fn write_list(table: &CommandTable, filter: &[&[u8]], reply: &mut impl CommandReply) {
    let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    let write = |reply: &mut _, wanted: &dyn Fn(&CommandSpec) -> bool| {
        names(table.iter().filter(|spec| wanted(spec)), reply);
    };
    match filter {
        [] => write(reply, &|_| true),
        [by, what, value] if is(by, "filterby") => {
            if is(what, "module") {
                // `json` lists `json.get`, which is how modules name their commands.
                write(reply, &|spec| {
                    spec.id() == CommandId::Other
                        && spec
                            .name()
                            .split_once('.')
                            .is_some_and(|(module, _)| is(value, module))
                });
            } else if is(what, "aclcat") {
                write(reply, &|spec| {
                    listed(&spec.documentation.categories).any(|category| is(value, category))
                });
            } else if is(what, "pattern") {
                write(reply, &|spec| {
                    glob_match(value, spec.name().as_bytes(), true)
                });
            } else {
                reply.error("ERR syntax error");
            }
        }
        _ => reply.error("ERR syntax error"),
    }
}

fn names<'t>(specs: impl Iterator<Item = &'t CommandSpec> + Clone, reply: &mut impl CommandReply) {
    reply.array(specs.clone().count());
    specs.for_each(|spec| reply.bulk(spec.name().as_bytes()));
}

/// `COMMAND GETKEYS` and, `with_flags`, `COMMAND GETKEYSANDFLAGS`; `request` is what follows.
pub fn write_getkeys(
    table: &CommandTable,
    request: &[&[u8]],
    with_flags: bool,
    reply: &mut impl CommandReply,
) {
    let Resolved::Command(spec) = table.resolve(request) else {
        return reply.error("ERR Invalid command specified");
    };
    let may_have_keys = !spec.key_specs.is_empty() || spec.legacy.0 > 0;
    if !may_have_keys {
        return reply.error("ERR The command has no key arguments");
    }
    if !spec.arity_matches(request.len()) {
        return reply.error("ERR Invalid number of arguments specified for command");
    }
    let mut found = KeyPositions::new();
    let complete = keys(spec, request, &mut found);
    let optional = spec.flags.has(super::CommandFlags::NO_MANDATORY_KEYS);
    if complete == Err(KeysUnknown) || (found.is_empty() && !optional) {
        return reply.error("ERR Invalid arguments specified for command");
    }
    reply.array(found.len());
    for key in found.iter() {
        if with_flags {
            reply.array(2);
        }
        reply.bulk(request[key.index as usize]);
        if with_flags {
            key_flags(key.flags, reply);
        }
    }
}

/// `COMMAND HELP`
pub fn write_help(reply: &mut impl CommandReply) {
    const LINES: &[&str] = &[
        "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "(no subcommand)",
        "    Return details about all Redis commands.",
        "COUNT",
        "    Return the total number of commands in this Redis server.",
        "LIST",
        "    Return a list of all commands in this Redis server.",
        "INFO [<command-name> ...]",
        "    Return details about multiple Redis commands.",
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "DOCS [<command-name> ...]",
        "    Return documentation details about multiple Redis commands.",
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "GETKEYS <full-command>",
        "    Return the keys from a full Redis command.",
        "GETKEYSANDFLAGS <full-command>",
        "    Return the keys and the access flags from a full Redis command.",
        "HELP",
        "    Prints this help.",
    ];
    reply.array(LINES.len());
    for line in LINES {
        reply.simple(line);
    }
}

fn listed(text: &str) -> impl Iterator<Item = &str> + Clone {
    text.split(',').filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes replies as readable text.
    #[derive(Default)]
    struct Text(String);

    impl Text {
        fn word(&mut self, word: &str) {
            self.0.push_str(word);
            self.0.push(' ');
        }
    }

    impl CommandReply for Text {
        fn array(&mut self, len: usize) {
            self.word(&format!("*{len}"));
        }
        fn map(&mut self, len: usize) {
            self.word(&format!("%{len}"));
        }
        fn set(&mut self, len: usize) {
            self.word(&format!("~{len}"));
        }
        fn bulk(&mut self, bytes: &[u8]) {
            self.word(&String::from_utf8_lossy(bytes));
        }
        fn simple(&mut self, text: &str) {
            self.word(&format!("+{text}"));
        }
        fn integer(&mut self, number: i64) {
            self.word(&format!(":{number}"));
        }
        fn null(&mut self) {
            self.word("null");
        }
        fn error(&mut self, text: &str) {
            self.word(&format!("-{text}"));
        }
    }

    fn written(write: impl FnOnce(&CommandTable, &mut Text)) -> String {
        let mut text = Text::default();
        write(&CommandTable::builtin(), &mut text);
        text.0.trim_end().to_owned()
    }

    #[test]
    fn command_info_shows_rows_as_redis_does() {
        let text = written(|table, reply| write_info(table, &[b"GET", b"nope"], reply));
        assert_eq!(
            text,
            "*2 *10 get :2 ~2 +readonly +fast :1 :1 :1 ~3 +@fast +@read +@string ~0 ~1 %3 \
             flags ~2 +RO +access begin_search %2 type index spec %1 index :1 \
             find_keys %2 type range spec %3 lastkey :0 keystep :1 limit :0 ~0 null"
        );
    }

    #[test]
    fn command_docs_tells_the_summary_and_leaves_unknown_names_out() {
        let text = written(|table, reply| write_docs(table, &[b"get", b"nope"], reply));
        assert!(
            text.starts_with("%1 get %3 summary Returns the string value of a key."),
            "{text}"
        );
    }

    #[test]
    fn command_list_filters() {
        let list = |filter: &[&[u8]]| written(|table, reply| write_list(table, filter, reply));
        assert!(
            list(&[b"FILTERBY", b"PATTERN", b"config|[GS]et"]).ends_with("config|get config|set")
        );
        assert_eq!(list(&[b"filterby", b"aclcat", b"nope"]), "*0");
        assert!(list(&[b"filterby", b"aclcat", b"geo"]).contains("geoadd"));
        assert_eq!(list(&[b"filterby", b"x", b"y"]), "-ERR syntax error");
        assert_eq!(list(&[b"x"]), "-ERR syntax error");
    }

    #[test]
    fn command_getkeys_answers_as_redis_does() {
        let getkeys = |request: &str, with_flags| {
            let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            written(|table, reply| write_getkeys(table, &args, with_flags, reply))
        };
        assert_eq!(getkeys("MSET a 1 b", false), "*2 a b");
        assert_eq!(getkeys("EVAL s 0", false), "*0");
        assert_eq!(getkeys("SORT a STORE b", false), "*2 a b");
        assert_eq!(
            getkeys("XGROUP CREATE b x y", true),
            "*1 *2 b ~2 +RW +insert"
        );
        assert_eq!(
            getkeys("PING x", false),
            "-ERR The command has no key arguments"
        );
        assert_eq!(getkeys("NOPE x", false), "-ERR Invalid command specified");
        assert_eq!(
            getkeys("GET a b", false),
            "-ERR Invalid number of arguments specified for command"
        );
    }
}
