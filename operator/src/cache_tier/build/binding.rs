//! The Secret for clients without a sidecar: the fields that service bindings have in common.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use policy::names;

use crate::cache_tier::{
    object_names::Component,
    passwords::{Passwords, User},
    validate::{Servers, ValidatedTier},
};

/// `T-binding`, by the convention of servicebinding.io.
pub(super) fn build(tier: &ValidatedTier, servers: &Servers, passwords: &Passwords) -> Secret {
    let login = (!servers.open).then(|| passwords.of(User::Default).current.as_str());
    let mut fields = BTreeMap::from([
        ("type", "redis".to_owned()),
        ("provider", "pannier".to_owned()),
    ]);
    let user = login.map(|password| format!(":{}@", escaped(password)));
    let user = user.as_deref().unwrap_or_default();
    if servers.sentinels == 0 {
        let host = tier.names.service_host();
        fields.insert(
            "uri",
            format!("redis://{user}{host}:{}/0", names::REDIS_PORT),
        );
        fields.insert("host", host);
        fields.insert("port", names::REDIS_PORT.to_string());
    } else {
        let sentinels: Vec<String> = (0..servers.sentinels)
            .map(|ordinal| {
                let host = tier.names.sentinel_host(ordinal);
                format!("{host}:{}", names::SENTINEL_PORT)
            })
            .collect();
        let sentinels = sentinels.join(",");
        let master = tier.names.master();
        fields.insert(
            "uri",
            format!("redis-sentinel://{user}{sentinels}/0#{master}"),
        );
        fields.insert("sentinels", sentinels);
        fields.insert("masterName", master.to_owned());
    }
    if let Some(password) = login {
        fields.insert("username", User::Default.name().to_owned());
        fields.insert("password", password.to_owned());
    }
    Secret {
        metadata: tier
            .names
            .meta(tier.names.binding(), Component::Redis, None),
        type_: Some("servicebinding.io/redis".to_owned()),
        data: Some(
            fields
                .into_iter()
                .map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())))
                .collect(),
        ),
        ..Secret::default()
    }
}

/// A password as it stands in a URL.
fn escaped(password: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(password.len());
    for byte in password.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}
