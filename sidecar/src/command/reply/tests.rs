use super::*;

fn strip(rewrite: ReplyRewrite, frame: &str) -> Result<Option<String>, Malformed> {
    let prefix = Prefix::new(b"p*:").expect("not empty");
    let mut out = Vec::new();
    let frame = frame.replace(' ', "\r\n");
    Ok(
        match strip_reply(rewrite, &prefix, frame.as_bytes(), &mut out)? {
            Stripped::Written => Some(String::from_utf8(out).expect("text").replace("\r\n", " ")),
            Stripped::Dropped => {
                assert!(out.is_empty());
                None
            }
        },
    )
}

fn check(rewrite: ReplyRewrite, frame: &str, expected: &str) {
    assert_eq!(
        strip(rewrite, frame),
        Ok(Some(expected.into())),
        "{rewrite:?} {frame}"
    );
}

#[test]
fn the_prefix_comes_off_replies_that_contain_keys() {
    use ReplyRewrite as R;
    check(R::KeyArray, "*2 $4 p*:a $4 p*:b ", "*2 $1 a $1 b ");
    check(R::KeyArray, "*2 $4 p*:a $5 other ", "*1 $1 a ");
    check(R::KeyArray, "*0 ", "*0 ");
    check(R::ScanReply, "*2 $1 0 *1 $4 p*:a ", "*2 $1 0 *1 $1 a ");
    check(R::FirstElement, "*2 $4 p*:a $4 p*:v ", "*2 $1 a $4 p*:v ");
    check(
        R::FirstElement,
        "*2 $4 p*:a *1 *2 $1 m ,1.5 ",
        "*2 $1 a *1 *2 $1 m ,1.5 ",
    );
    check(R::SingleKey, "$4 p*:a ", "$1 a ");
    check(R::StreamNames, "*1 *2 $4 p*:s *0 ", "*1 *2 $1 s *0 ");
    check(
        R::StreamNames,
        "%1 $4 p*:s *1 *2 $3 1-1 *0 ",
        "%1 $1 s *1 *2 $3 1-1 *0 ",
    );
    check(
        R::Channels,
        "*2 $19 __keyspace@0__:p*:k $1 c ",
        "*2 $16 __keyspace@0__:k $1 c ",
    );
}

#[test]
fn replies_of_another_shape_are_left_alone() {
    for rewrite in ReplyRewrite::ALL {
        for frame in [
            "+QUEUED ", "-ERR ", "$-1 ", "*-1 ", "_ ", ":5 ", "#t ", "*0 ",
        ] {
            check(rewrite, frame, frame);
        }
    }
}

#[test]
fn keyspace_notifications_lose_the_prefix_and_foreign_ones_are_dropped() {
    use ReplyRewrite::Message as M;
    check(
        M,
        ">3 $7 message $19 __keyspace@0__:p*:k $3 set ",
        ">3 $7 message $16 __keyspace@0__:k $3 set ",
    );
    assert_eq!(
        strip(M, "*3 $7 message $16 __keyspace@0__:k $3 set "),
        Ok(None)
    );
    check(
        M,
        "*3 $7 message $18 __keyevent@0__:set $4 p*:k ",
        "*3 $7 message $18 __keyevent@0__:set $1 k ",
    );
    assert_eq!(
        strip(M, "*3 $7 message $18 __keyevent@0__:set $1 k "),
        Ok(None)
    );
    check(
        M,
        "*3 $7 message $1 c $4 p*:k ",
        "*3 $7 message $1 c $4 p*:k ",
    );
    check(M, "*3 $9 subscribe $1 c :1 ", "*3 $9 subscribe $1 c :1 ");
    check(
        M,
        "*3 $11 unsubscribe $-1 :0 ",
        "*3 $11 unsubscribe $-1 :0 ",
    );
    check(
        M,
        "*3 $8 smessage $1 c $4 p*:k ",
        "*3 $8 smessage $1 c $4 p*:k ",
    );
}

#[test]
fn the_error_about_a_missing_group_does_not_show_the_prefix() {
    let prefix = Prefix::new(b"p:").expect("not empty");
    for (rewrite, error, expected) in [
        (
            ReplyRewrite::StreamNames,
            "-NOGROUP No such key 'p:k' or consumer group 'g' in XREADGROUP\r\n",
            "-NOGROUP No such key 'k' or consumer group 'g' in XREADGROUP\r\n",
        ),
        (
            ReplyRewrite::GroupError,
            "-NOGROUP No such consumer group 'p:g' for key name 'p:k'\r\n",
            "-NOGROUP No such consumer group 'p:g' for key name 'k'\r\n",
        ),
    ] {
        let mut out = Vec::new();
        let result = strip_reply(rewrite, &prefix, error.as_bytes(), &mut out);
        assert_eq!(result, Ok(Stripped::Written));
        assert_eq!(out, expected.as_bytes());
    }
}

#[test]
fn a_transaction_is_stripped_command_by_command() {
    let prefix = Prefix::new(b"p:").expect("not empty");
    let queued = [
        ReplyRewrite::None,
        ReplyRewrite::KeyArray,
        ReplyRewrite::FirstElement,
    ];
    let frame = b"*3\r\n$3\r\np:x\r\n*1\r\n$3\r\np:k\r\n*-1\r\n";
    let mut out = Vec::new();
    assert_eq!(strip_exec_reply(&queued, &prefix, frame, &mut out), Ok(()));
    assert_eq!(out, b"*3\r\n$3\r\np:x\r\n*1\r\n$1\r\nk\r\n*-1\r\n");
    for frame in [b"*-1\r\n".as_slice(), b"_\r\n", b"-EXECABORT x\r\n"] {
        let mut out = Vec::new();
        assert_eq!(strip_exec_reply(&queued, &prefix, frame, &mut out), Ok(()));
        assert_eq!(out, frame);
    }
}

#[test]
fn malformed_frames_are_errors_and_leave_the_output_alone() {
    for frame in [
        "",
        "*",
        "*1 ",
        "*2 $1 a ",
        "$5 ab ",
        "*99999999999999999999 ",
        "$18446744073709551615 a ",
        "*1 $1 a extra ",
        "?x ",
        "*-2 ",
        "%9223372036854775807 ",
        "*1 *1 *1 ",
    ] {
        for rewrite in [
            ReplyRewrite::None,
            ReplyRewrite::KeyArray,
            ReplyRewrite::StreamNames,
            ReplyRewrite::Message,
        ] {
            assert_eq!(strip(rewrite, frame), Err(Malformed), "{rewrite:?} {frame}");
        }
    }
}
