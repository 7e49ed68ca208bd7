//! The passwords of a tier's ACL users: read, completed, rotated. Pure; `apply` writes the Secret.
//!
//! A Secret that is known to be absent gets passwords; one that could not be read never does
//! (`dereference` fails before). Where a Secret was deleted under servers that run, the passwords
//! that apps use are taken from the copies that they read, so nobody is locked out; operator and
//! replicas get new ones, which the agents read from the mounted files.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::ResourceExt as _;
use policy::names::{self, secret_file};

use super::{dereference::Found, validate::Servers};
use crate::user;
pub use crate::user::User;

/// Annotation of the Secret: the value of the tier's annotation that was obeyed last.
pub const ROTATED: &str = "pannier.dev/rotated";

/// The passwords of one user.
#[derive(Clone, PartialEq, Eq)]
pub struct Slots {
    /// What is handed out.
    pub current: String,
    /// What is still accepted.
    pub previous: Option<String>,
}

/// The passwords of all users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passwords(BTreeMap<User, Slots>);

/// What is to be done about the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// It is as it should be.
    Nothing,
    /// It is not there: this is its content.
    Create(BTreeMap<String, ByteString>),
    /// It changes: this is its content.
    Replace(BTreeMap<String, ByteString>),
}

/// Makes a new password.
pub type Generate<'a> = &'a dyn Fn() -> String;

// === impl Passwords ===

impl Passwords {
    /// The passwords of a user.
    pub fn of(&self, user: User) -> &Slots {
        self.0.get(&user).expect("every user has passwords")
    }

    /// Whether some old password is still accepted.
    pub fn overlap(&self) -> bool {
        self.0.values().any(|slots| slots.previous.is_some())
    }

    /// All of them as one short word, as the agents say it once their servers have them.
    pub fn generation(&self, open: bool) -> String {
        let all = self.0.iter().map(|(user, slots)| {
            let current = Some(slots.current.as_str());
            (*user, current, slots.previous.as_deref())
        });
        user::generation(open, all)
    }

    fn data(&self) -> BTreeMap<String, ByteString> {
        let mut data = BTreeMap::new();
        for (user, slots) in &self.0 {
            let mut put = |slot, password: &str| {
                let bytes = ByteString(password.as_bytes().to_vec());
                data.insert(format!("{}.{slot}", user.name()), bytes);
            };
            put("current", &slots.current);
            if let Some(previous) = &slots.previous {
                put("previous", previous);
            }
        }
        data
    }
}

/// The passwords to use, and what that means for the Secret. `rotate` is the tier's wish for new
/// ones, where it differs from the one obeyed last.
pub fn decide(
    wanted: &Servers,
    found: &Found,
    rotate: Option<&str>,
    generate: Generate<'_>,
) -> (Passwords, Write) {
    let obeyed = found
        .auth
        .as_ref()
        .and_then(|secret| secret.annotations().get(ROTATED));
    let rotate = found.auth.is_some() && rotate.is_some() && rotate != obeyed.map(String::as_str);
    let mut passwords = BTreeMap::new();
    for user in User::ALL {
        let mut slots = known(user, found).unwrap_or_else(|| Slots {
            current: generate(),
            previous: None,
        });
        let next = match (user, &wanted.given_password) {
            (User::Default, Some(given)) => Some(given.clone()),
            _ if rotate => Some(generate()),
            _ => None,
        };
        if let Some(next) = next.filter(|next| *next != slots.current) {
            slots = Slots {
                previous: found.auth.is_some().then_some(slots.current),
                current: next,
            };
        }
        passwords.insert(user, slots);
    }
    let passwords = Passwords(passwords);
    let data = passwords.data();
    let write = match &found.auth {
        None => Write::Create(data),
        Some(secret) if secret.data.as_ref() == Some(&data) => Write::Nothing,
        Some(_) => Write::Replace(data),
    };
    (passwords, write)
}

fn known(user: User, found: &Found) -> Option<Slots> {
    let slot = |slot| text(found.auth.as_ref(), &format!("{}.{slot}", user.name()));
    if let Some(current) = slot("current") {
        let previous = slot("previous").filter(|previous| *previous != current);
        return Some(Slots { current, previous });
    }
    let copy = match user {
        User::Sidecar => text(found.sidecar.as_ref(), secret_file::PASSWORD),
        User::Default => text(found.binding.as_ref(), "password"),
        User::Operator | User::Replica => None,
    };
    copy.map(|current| Slots {
        current,
        previous: None,
    })
}

/// The text under a key; an empty one is none.
fn text(secret: Option<&Secret>, key: &str) -> Option<String> {
    let bytes = &secret?.data.as_ref()?.get(key)?.0;
    let text = std::str::from_utf8(bytes).ok()?.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The tier's wish for new passwords.
pub fn wish(tier: &impl kube::ResourceExt) -> Option<&str> {
    tier.annotations()
        .get(names::ROTATE_PASSWORDS)
        .map(String::as_str)
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("previous", &self.previous.is_some())
            .finish_non_exhaustive()
    }
}
