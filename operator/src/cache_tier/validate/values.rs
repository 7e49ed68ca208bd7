//! Values of the right form that cannot be: names that Kubernetes or a server would refuse, settings
//! that belong to the agent, amounts that no machine has. What can be said in the schema is said
//! there; it cannot judge the keys of a map.

use std::collections::BTreeMap;

use policy::ByteSize;

use super::{Servers, settings};
use crate::instance::render;

/// A server needs so much for itself.
const LEAST_MEMORY: ByteSize = ByteSize(32 << 20);
/// No machine has more.
const MOST_MEMORY: ByteSize = ByteSize(64 << 40);
/// An empty server writes some files.
const LEAST_VOLUME: ByteSize = ByteSize(1 << 20);
/// No storage offers more in one volume.
const MOST_VOLUME: ByteSize = ByteSize(1024 << 40);

/// Sentences about them.
pub(super) fn refused(servers: &Servers) -> Vec<String> {
    let mut sentences = Vec::new();
    if !(LEAST_MEMORY..=MOST_MEMORY).contains(&servers.memory) {
        sentences.push(format!(
            "spec.redis.memory is {}; a server needs at least {LEAST_MEMORY} and can have at most {MOST_MEMORY}",
            servers.memory
        ));
    }
    let size = servers.persistence.as_ref().and_then(|one| one.size);
    if let Some(size) = size.filter(|size| !(LEAST_VOLUME..=MOST_VOLUME).contains(size)) {
        sentences.push(format!(
            "spec.redis.persistence.size is {size}; a volume has at least {LEAST_VOLUME} and at most {MOST_VOLUME}"
        ));
    }
    let pod = &servers.pod;
    for (field, map) in [
        ("labels", &pod.labels),
        ("annotations", &pod.annotations),
        ("nodeSelector", &pod.node_selector),
    ] {
        sentences.extend(keys(map, is_label_key).map(|key| {
            format!(
                "spec.redis.pod.{field}: {key:?} cannot be a key there; write letters, digits, `-`, `_` and `.`, at most 63, with an optional domain and `/` before them"
            )
        }));
    }
    sentences.extend(keys(&servers.config, is_setting).map(|key| {
        format!(
            "spec.redis.config: {key:?} is no name of a setting; write lower-case letters, digits and `-`"
        )
    }));
    let named = servers.config.keys().filter(|key| is_setting(key));
    sentences.extend(named.filter_map(|key| {
        let why = settings::unknown(servers.engine, key)?;
        Some(format!("spec.redis.config: {key}: {why}"))
    }));
    let agents = keys(&servers.config, |key| !belongs_to_agent(key));
    sentences.extend(agents.map(|key| {
        format!("spec.redis.config: {key} is set by the agent beside each server; remove it")
    }));
    sentences
}

/// The keys that do not fit.
fn keys(map: &BTreeMap<String, String>, fits: fn(&str) -> bool) -> impl Iterator<Item = &String> {
    map.keys().filter(move |key| !fits(key))
}

/// The two that decide how many replicas must be in step are read by the agent, not left out.
fn belongs_to_agent(setting: &str) -> bool {
    render::OWNED.contains(&setting)
        && !["min-replicas-max-lag", "min-replicas-to-write"].contains(&setting)
}

fn is_setting(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase();
    let rest = |byte: u8| letter(byte) || byte.is_ascii_digit() || byte == b'-';
    name.len() <= 64 && name.bytes().next().is_some_and(letter) && name.bytes().all(rest)
}

/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>
fn is_label_key(key: &str) -> bool {
    let (domain, name) = key
        .split_once('/')
        .map_or((None, key), |(domain, name)| (Some(domain), name));
    let ends = |text: &str, fits: fn(u8) -> bool| {
        let bytes = text.as_bytes();
        bytes.first().copied().is_some_and(fits) && bytes.last().copied().is_some_and(fits)
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    let within = |byte: u8| plain(byte) || b"-_.".contains(&byte);
    let is_name = name.len() <= 63
        && ends(name, |byte| byte.is_ascii_alphanumeric())
        && name.bytes().all(within);
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_domain = |domain: &str| {
        let part = |part: &str| {
            ends(part, |byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit()
            }) && part.bytes().all(|byte| lower(byte) || byte == b'-')
        };
        domain.len() <= 253 && domain.split('.').all(part)
    };
    is_name && domain.is_none_or(is_domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_judged_as_the_api_server_judges_them() {
        for good in ["a", "A.b_c-1", "example.com/a", "a.b-c.example/X", "0"] {
            assert!(is_label_key(good), "{good}");
        }
        let long = "a".repeat(64);
        for bad in [
            "", "/a", "a/", "-a", "a.", "a b", "A/b", "a/b/c", "a..b/c", "\u{fc}", &long,
        ] {
            assert!(!is_label_key(bad), "{bad}");
        }
    }

    #[test]
    fn settings_have_names_and_those_of_the_agent_are_not_for_users() {
        assert!(is_setting("maxmemory-samples") && is_setting("hz"));
        for bad in ["", "Timeout", "a b", "a\nb", "-a", "9a"] {
            assert!(!is_setting(bad), "{bad:?}");
        }
        assert!(belongs_to_agent("protected-mode") && belongs_to_agent("include"));
        assert!(!belongs_to_agent("min-replicas-to-write") && !belongs_to_agent("timeout"));
    }
}
