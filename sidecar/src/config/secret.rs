//! Secrets in memory: readable by those who log in with them, invisible everywhere else (P10).

use std::fmt;

/// A password or a key. `Debug` shows that there is one; there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

/// How the sidecar logs in to Redis, and what apps must say to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// ACL user at Redis; absent means the `default` user.
    pub username: Option<String>,
    /// Password at Redis; absent means no `AUTH`.
    pub password: Option<Secret>,
    /// ACL user at the Sentinels; absent means the `default` user.
    pub sentinel_username: Option<String>,
    /// Password at the Sentinels; absent means no `AUTH` there.
    pub sentinel_password: Option<Secret>,
    /// What apps must give with `AUTH`; absent: nothing is asked for.
    pub local_password: Option<Secret>,
    /// Certificate authorities to trust, PEM; absent means those of the system.
    pub ca_certificate: Option<Secret>,
    /// Client certificate chain, PEM.
    pub client_certificate: Option<Secret>,
    /// Private key of the client certificate, PEM.
    pub client_key: Option<Secret>,
}

impl Secret {
    /// Takes a secret.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one who logs in or compares.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
