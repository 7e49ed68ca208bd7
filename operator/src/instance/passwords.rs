//! The passwords of the tier's users, read from the mounted Secret: two slots each, so that a new
//! one is valid everywhere before the old one goes (P10: never shown, only hashed).

use std::{collections::BTreeMap, fmt, fs, io, path::Path};

use ring::digest::{SHA256, digest};

use crate::user;
pub use crate::{fingerprint::hex, user::User};

/// A password. `Debug` shows that there is one; there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

/// What a user may log in with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// What everybody should use.
    pub current: Option<Secret>,
    /// What is still accepted.
    pub previous: Option<Secret>,
}

/// The passwords of all users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passwords(BTreeMap<User, Slots>);

/// Why they are not known.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// A file cannot be read.
    #[error("failed to read {path}: {source}; it is a key of the tier's Secret")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A user has no password: nobody could log in any more.
    #[error("the tier's Secret has no key {0}.current; the passwords stay as they are")]
    Missing(&'static str),
}

impl Secret {
    /// Takes a secret.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one who logs in.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What an ACL file holds instead of it.
    pub fn sha256(&self) -> String {
        hex(digest(&SHA256, self.0.as_bytes()).as_ref())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Slots {
    /// Current first.
    pub fn all(&self) -> impl Iterator<Item = &Secret> {
        self.current.iter().chain(&self.previous)
    }
}

impl Passwords {
    /// Reads the files `<user>.current` and `<user>.previous` of a folder. A user without a
    /// current password is an error, or a lost Secret would lock everyone out; only `default` of
    /// an open tier needs none.
    pub fn load(folder: &Path, open: bool) -> Result<Self, PasswordError> {
        let slot = |user: User, slot: &str| {
            let path = folder.join(format!("{}.{slot}", user.name()));
            match fs::read_to_string(&path) {
                Ok(text) => {
                    let text = text.trim_end_matches(['\r', '\n']);
                    Ok((!text.is_empty()).then(|| Secret::new(text)))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(PasswordError::Read {
                    path: path.display().to_string(),
                    source,
                }),
            }
        };
        let mut users = BTreeMap::new();
        for user in User::ALL {
            let slots = Slots {
                current: slot(user, "current")?,
                previous: slot(user, "previous")?,
            };
            if slots.current.is_none() && !(open && user == User::Default) {
                return Err(PasswordError::Missing(user.name()));
            }
            users.insert(user, slots);
        }
        Ok(Self(users))
    }

    /// What a user may log in with.
    pub fn of(&self, user: User) -> Slots {
        self.0.get(&user).cloned().unwrap_or_default()
    }

    /// All of them as one short word.
    pub fn generation(&self, open: bool) -> String {
        let all = self.0.iter().map(|(user, Slots { current, previous })| {
            let current = current.as_ref().map(Secret::expose);
            (*user, current, previous.as_ref().map(Secret::expose))
        });
        user::generation(open, all)
    }

    /// Whether `text` is a password of `user`. Hashes are compared, so that the time that it
    /// takes says nothing about the password.
    pub fn is(&self, user: User, text: &str) -> bool {
        let given = Secret::new(text).sha256();
        self.of(user).all().any(|secret| secret.sha256() == given)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Passwords `<user>-1`, and `<user>-0` in the previous slot if wanted.
    pub fn passwords(with_previous: bool) -> Passwords {
        let users = User::ALL.map(|user| {
            let secret = |number: u8| Some(Secret::new(&format!("{}-{number}", user.name())));
            let slots = Slots {
                current: secret(1),
                previous: secret(0).filter(|_| with_previous),
            };
            (user, slots)
        });
        Passwords(users.into_iter().collect())
    }

    #[test]
    fn p8_a_secret_that_lost_a_current_password_is_not_taken() {
        let folder = std::env::temp_dir().join(format!("pannier-auth-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for user in ["operator", "replica", "sidecar"] {
            fs::write(folder.join(format!("{user}.current")), user).unwrap();
        }
        let error = Passwords::load(&folder, false).unwrap_err().to_string();
        assert!(error.contains("default.current"), "{error}");
        assert!(Passwords::load(&folder, true).is_ok());
        fs::write(folder.join("default.current"), "one\n").unwrap();
        fs::write(folder.join("default.previous"), "nil").unwrap();
        let read = Passwords::load(&folder, false).unwrap();
        assert!(read.is(User::Default, "one") && read.is(User::Default, "nil"));
        assert!(!read.is(User::Default, "two") && !read.is(User::Default, ""));
        assert_eq!(read.of(User::Sidecar).previous, None);
        fs::remove_file(folder.join("sidecar.current")).unwrap();
        fs::create_dir(folder.join("sidecar.current")).unwrap();
        let error = Passwords::load(&folder, false).unwrap_err().to_string();
        assert!(error.contains("sidecar.current"), "{error}");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn p10_a_secret_is_not_shown() {
        let shown = format!("{:?}", passwords(true));
        assert!(
            shown.contains("redacted") && !shown.contains("operator-1"),
            "{shown}"
        );
    }
}
