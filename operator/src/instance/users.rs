//! The users of a server or Sentinel as ACL rules: what each may do, and hashes of its passwords.
//!
//! Pure. The same rules go into the ACL file, for the next start, and into `ACL SETUSER`, for the
//! running server: `ACL LOAD` of redis 7.0 disconnects every client of every user but `default`.

use super::{
    config::Kind,
    passwords::{Passwords, User},
};

/// What a program that was written for a Redis of its own may need: all but administration. The
/// harmless of what `@dangerous` holds is given back.
const APP: &str = "+@all -@admin -@dangerous +info +role +keys +sort +sort_ro +flushdb +flushall \
                   +swapdb +restore +lastsave +client|list";

/// A sidecar sends its apps' commands and its own: `CLIENT TRACKING`, `COMMAND`, `INFO`, a look at
/// the size of the tracking table.
const SIDECAR: &str = "+config|get";

/// What a replica sends to its primary. Nothing more: `CONFIG GET masterauth` shows its password
/// to everyone who may ask, so it must not be worth more than what they can read anyway.
const REPLICA: &str = "+psync +replconf +ping";

/// What Sentinels send to each other.
const SENTINEL_PEER: &str = "+ping +publish +subscribe +info +role +client|setname \
                             +sentinel|is-master-down-by-addr";

/// What a client asks a Sentinel.
const SENTINEL_CLIENT: &str = "+@connection -client|kill +info +role +subscribe +psubscribe \
    +unsubscribe +punsubscribe +sentinel|get-master-addr-by-name +sentinel|master \
    +sentinel|masters +sentinel|replicas +sentinel|slaves +sentinel|sentinels +sentinel|ckquorum \
    +sentinel|myid +command";

/// One user's rules, as in an ACL file after its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whose.
    pub user: User,
    /// The words.
    pub words: Vec<String>,
}

/// The rules of all users.
pub fn rules(kind: Kind, open: bool, passwords: &Passwords) -> Vec<Rules> {
    User::ALL
        .into_iter()
        .map(|user| Rules {
            user,
            words: words(kind, open && user == User::Default, user, passwords),
        })
        .collect()
}

fn words(kind: Kind, open: bool, user: User, passwords: &Passwords) -> Vec<String> {
    let slots = passwords.of(user);
    let mut words = Vec::new();
    let mut add = |text: &str| words.extend(text.split_whitespace().map(str::to_owned));
    let known = slots.all().next().is_some();
    add(if open || known { "on" } else { "off" });
    if open {
        add("nopass");
    }
    for secret in slots.all().filter(|_| !open) {
        add(&format!("#{}", secret.sha256()));
    }
    add(match (kind, user) {
        (Kind::Server, User::Replica) => "",
        _ => "~* &*",
    });
    match (kind, user) {
        (_, User::Operator) => add("+@all"),
        (Kind::Server, User::Default) => add(APP),
        (Kind::Server, User::Sidecar) => {
            add(APP);
            add(SIDECAR);
        }
        (Kind::Server, User::Replica) => add(REPLICA),
        (Kind::Sentinel, User::Replica) => add(SENTINEL_PEER),
        (Kind::Sentinel, User::Default | User::Sidecar) => add(SENTINEL_CLIENT),
    }
    words
}

/// The ACL file.
pub fn file(rules: &[Rules]) -> String {
    rules.iter().fold(String::new(), |text, one| {
        text + &format!("user {} {}\n", one.user.name(), one.words.join(" "))
    })
}

#[cfg(test)]
mod tests {
    use ring::digest::{SHA256, digest};

    use super::*;
    use crate::instance::passwords::{hex, tests::passwords};

    #[test]
    fn both_slots_are_valid_and_neither_is_written_in_clear() {
        let text = file(&rules(Kind::Server, false, &passwords(true)));
        for user in User::ALL {
            for slot in [0, 1] {
                let clear = format!("{}-{slot}", user.name());
                assert!(!text.contains(&clear), "{text}");
                let hash = hex(digest(&SHA256, clear.as_bytes()).as_ref());
                assert!(text.contains(&format!("#{hash}")), "{text}");
            }
        }
    }

    #[test]
    fn an_open_tier_needs_no_password_of_apps_and_one_of_all_others() {
        let text = file(&rules(Kind::Server, true, &passwords(false)));
        let of = |user: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("user {user} ")));
            line.unwrap().to_owned()
        };
        assert!(of("default").contains("on nopass"));
        assert!(!of("sidecar").contains("nopass") && of("sidecar").contains('#'));
    }

    #[test]
    fn a_user_without_a_password_is_off() {
        let rules = rules(Kind::Server, false, &Passwords::default());
        assert!(rules.iter().all(|one| one.words[0] == "off"));
    }
}
