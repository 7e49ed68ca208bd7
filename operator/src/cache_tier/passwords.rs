//! The passwords of a tier's ACL users: read, completed, rotated. Pure; `apply` writes the Secret.
//!
//! A Secret that is known to be absent gets passwords; one that could not be read never does
//! (`dereference` fails before). Where a Secret was deleted under servers that run, the passwords
//! that apps use are taken from the copies that they read, so nobody is locked out; operator and
//! replicas get new ones, which the agents read from the mounted files.
//!
//! There are two slots: a change ends the passwords before the ones that it replaces. While a server
//! is not known to accept the present ones, somebody may still need those, and the next change waits.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::ResourceExt as _;
use policy::names::{self, secret_file};

use super::{
    dereference::Found,
    observe::{Observed, ObservedPod},
    validate::Servers,
};
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

/// What was decided.
pub struct Decided {
    /// The passwords to use.
    pub passwords: Passwords,
    /// What that means for the Secret.
    pub write: Write,
    /// Whether others are wanted already, and wait.
    pub postponed: bool,
}

/// The passwords to use. `rotate` is the tier's wish for new ones, where it differs from the one
/// obeyed last.
pub fn decide(
    wanted: &Servers,
    (found, observed): (&Found, &Observed),
    rotate: Option<&str>,
    generate: Generate<'_>,
) -> Decided {
    let auth = found.auth.as_ref();
    let obeyed = auth.and_then(|secret| secret.annotations().get(ROTATED));
    let rotate = auth.is_some() && rotate.is_some() && rotate != obeyed.map(String::as_str);
    let held = User::ALL.map(|user| {
        let slots = known(user, found).unwrap_or_else(|| Slots {
            current: generate(),
            previous: None,
        });
        (user, slots)
    });
    let mut passwords = Passwords(held.into_iter().collect());
    let given = wanted.given_password.as_ref();
    let changes =
        rotate || given.is_some_and(|given| *given != passwords.of(User::Default).current);
    let postponed = changes && passwords.overlap() && {
        let generation = passwords.generation(wanted.open);
        observed.without(&generation).any(is_behind)
    };
    if changes && !postponed {
        for (user, slots) in &mut passwords.0 {
            let next = match (user, given) {
                (User::Default, Some(given)) => given.clone(),
                _ if rotate => generate(),
                _ => continue,
            };
            if next != slots.current {
                let before = std::mem::replace(&mut slots.current, next);
                slots.previous = auth.is_some().then_some(before);
            }
        }
    }
    let data = passwords.data();
    let write = match auth {
        None => Write::Create(data),
        Some(secret) if secret.data.as_ref() == Some(&data) => Write::Nothing,
        Some(_) => Write::Replace(data),
    };
    Decided {
        passwords,
        write,
        postponed,
    }
}

/// Whether somebody may need a pod to go on with older passwords than the present ones. One that does
/// not run reads all when it starts; one that refuses the present ones needs others.
fn is_behind(pod: &ObservedPod) -> bool {
    let refuses = pod
        .state()
        .is_some_and(|state| state.credential_error.is_some());
    !pod.is_down() && !refuses
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

#[cfg(test)]
mod tests;
