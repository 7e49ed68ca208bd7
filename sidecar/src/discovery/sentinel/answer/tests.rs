use proptest::prelude::*;

use super::*;
use crate::resp::reply::Scanner;

const NAMED: &[u8] = b"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n17256\r\n";
const ABOUT: &[u8] = b"*8\r\n$4\r\nname\r\n$8\r\nmymaster\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n$4\r\nport\r\n$5\r\n17256\r\n$12\r\nconfig-epoch\r\n$1\r\n3\r\n";
const OTHERS: &[u8] = b"*1\r\n*4\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n$4\r\nport\r\n$5\r\n17261\r\n";
const NOBODY: &[u8] = b"-ERR No such master with that name\r\n";

fn server(port: u16) -> Address {
    Address::new("127.0.0.1", port)
}

#[test]
fn a_sentinel_names_a_primary_an_epoch_and_other_sentinels() {
    let answer = read(NAMED, ABOUT, OTHERS).unwrap();
    assert_eq!(answer.primary, Some(server(17_256)));
    assert_eq!(answer.epoch, Some(3));
    assert_eq!(answer.others, [server(17_261)]);
}

#[test]
fn the_leader_of_a_failover_names_the_new_primary_before_it_counts_the_epoch() {
    let named = b"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n17258\r\n";
    let answer = read(named, ABOUT, OTHERS).unwrap();
    assert_eq!(
        (answer.primary, answer.epoch),
        (Some(server(17_258)), Some(4))
    );
}

#[test]
fn a_sentinel_that_knows_no_such_primary_names_nobody() {
    for null in [&b"*-1\r\n"[..], b"_\r\n"] {
        let answer = read(null, NOBODY, NOBODY).unwrap();
        assert_eq!(answer, Answer::default());
    }
}

#[test]
fn without_the_right_to_ask_for_more_the_address_is_enough() {
    let denied = b"-NOPERM this user has no permissions\r\n";
    let answer = read(NAMED, denied, denied).unwrap();
    assert_eq!((answer.primary, answer.epoch), (Some(server(17_256)), None));
}

#[test]
fn what_is_no_address_is_refused() {
    for named in [
        &b"-ERR unknown command 'SENTINEL'\r\n"[..],
        b":1\r\n",
        b"*1\r\n$1\r\na\r\n",
        b"*2\r\n$1\r\na\r\n$1\r\n0\r\n",
        b"*2\r\n$1\r\na\r\n$5\r\n99999\r\n",
        b"*2\r\n$0\r\n\r\n$1\r\n1\r\n",
        b"*2\r\n$4\r\na\r\nb\r\n$1\r\n1\r\n",
    ] {
        read(named, ABOUT, OTHERS).unwrap_err();
    }
}

#[test]
fn a_server_says_its_role_in_three_ways() {
    let role = |frame: &[u8]| role_in(&Value::read(frame).unwrap());
    assert_eq!(
        role(b"*4\r\n$5\r\nproto\r\n:2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"),
        Some(Role::Primary)
    );
    assert_eq!(
        role(b"%1\r\n$4\r\nrole\r\n$7\r\nreplica\r\n"),
        Some(Role::Replica)
    );
    assert_eq!(
        role(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
        Some(Role::Primary)
    );
    assert_eq!(
        role(b"*5\r\n$5\r\nslave\r\n$1\r\na\r\n:1\r\n$9\r\nconnected\r\n:0\r\n"),
        Some(Role::Replica)
    );
    assert_eq!(
        role(b"*2\r\n$8\r\nsentinel\r\n*0\r\n"),
        Some(Role::Other("sentinel".to_owned()))
    );
    let info = b"$46\r\n# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\n";
    assert_eq!(
        role(&[info.as_slice(), b"\r\n"].concat()),
        Some(Role::Replica)
    );
    assert_eq!(role(NOBODY), None);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Some(len)) = Scanner::default().step(&bytes) {
            let frame = &bytes[..len];
            let _ = read(frame, frame, frame);
            if let Ok(value) = Value::read(frame) {
                let _ = role_in(&value);
            }
        }
    }
}
