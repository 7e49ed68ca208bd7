//! Property tests: whatever clients and servers send, nothing here panics or reads out of bounds.

use proptest::prelude::*;

use super::*;

/// Words that steer the parsing of arguments, beside arbitrary ones.
fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::sample::select(vec![
            "STREAMS",
            "KEYS",
            "STORE",
            "BY",
            "GET",
            "LIMIT",
            "MATCH",
            "BLOCK",
            "GROUP",
            "COUNT",
            "0",
            "1",
            "2",
            "-1",
            "9223372036854775807",
            "-9223372036854775808",
            "*",
            "",
            "#",
            "__keyspace@0__:k",
            "__keyevent@0__:set",
            "AUTH2",
        ])
        .prop_map(|word| word.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..6),
    ]
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "*1\r\n",
            "*2\r\n",
            "*3\r\n",
            "%1\r\n",
            ">3\r\n",
            "|1\r\n",
            "$1\r\na\r\n",
            "$3\r\np:a\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "_\r\n",
            ":1\r\n",
            "+OK\r\n",
            "$7\r\nmessage\r\n",
            "$8\r\npmessage\r\n",
            "$18\r\n__keyspace@0__:p:k\r\n",
            "$18\r\n__keyevent@0__:set\r\n",
            "-NOGROUP 'p:\r\n",
            "*99\r\n",
            "$99\r\n",
            "\r\n",
        ])
        .prop_map(|piece| piece.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_request_is_classified_and_its_keys_are_arguments(
        at in any::<prop::sample::Index>(),
        words in prop::collection::vec(word(), 0..12),
    ) {
        let table = CommandTable::builtin();
        let specs: Vec<&CommandSpec> = table.iter().collect();
        let spec = specs[at.index(specs.len())];
        let mut args: Vec<&[u8]> = spec.name().split('|').map(str::as_bytes).collect();
        args.extend(words.iter().map(Vec::as_slice));
        let mut found = KeyPositions::new();
        let complete = keys(spec, &args, &mut found);
        prop_assert!(found.iter().all(|key| key.index > 0 && (key.index as usize) < args.len()));
        prop_assert!(found.as_slice().is_sorted_by(|a, b| a.index < b.index));
        if let (Some(only), Ok(())) = (spec.single_key(), complete)
            && only < args.len()
        {
            prop_assert_eq!(found.as_slice().len(), 1);
            prop_assert_eq!(found.as_slice()[0].index as usize, only);
        }
        class(spec, &args, Allowed::default());
        effect(spec, &args, &mut found);

        let prefix = Prefix::new(b"p:").expect("not empty");
        let mut out = Vec::new();
        let sent = apply_prefix(&prefix, spec, &args, &mut found, &mut out);
        if sent.is_ok() {
            // What is written is one well-formed command.
            let mut copy = Vec::new();
            let written = strip_reply(ReplyRewrite::None, &prefix, &out, &mut copy);
            prop_assert_eq!(written, Ok(Stripped::Written));
            prop_assert_eq!(copy, out);
        } else {
            prop_assert!(out.is_empty());
        }
        let mut plain = Vec::new();
        write_command(&args, &mut plain);
        unknown_command(&args);
        unknown_subcommand(&args);
        wrong_arity(spec);
    }

    #[test]
    fn any_bytes_from_the_server_are_stripped_or_refused(bytes in frame()) {
        let prefix = Prefix::new(b"p:").expect("not empty");
        for rewrite in ReplyRewrite::ALL {
            let mut out = b"before".to_vec();
            let stripped = strip_reply(rewrite, &prefix, &bytes, &mut out);
            if stripped == Ok(Stripped::Written) {
                // Stripping a stripped frame without a rewrite finds it well formed.
                let mut copy = Vec::new();
                let again = strip_reply(ReplyRewrite::None, &prefix, &out[6..], &mut copy);
                prop_assert_eq!(again, Ok(Stripped::Written), "{:?}", rewrite);
            } else {
                prop_assert_eq!(&out, b"before");
            }
        }
        let mut out = Vec::new();
        let _ = strip_exec_reply(&ReplyRewrite::ALL, &prefix, &bytes, &mut out);
    }

    #[test]
    fn any_name_is_looked_up(name in prop::collection::vec(any::<u8>(), 0..40)) {
        let table = CommandTable::builtin();
        if let Some(spec) = table.lookup(&name) {
            prop_assert!(spec.name().as_bytes().eq_ignore_ascii_case(&name));
        }
        table.by_full_name(&name);
    }
}
