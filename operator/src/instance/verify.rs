//! Reads the mounted configuration again when it changes, and asks the running server whether it
//! shows what the tier's configuration says. It changes nothing: the operator sets live keys.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ring::digest::{SHA256, digest};
use tokio::time::sleep;
use tracing::warn;

use super::{
    config::{InstanceConfig, Kind},
    link::{Link, command, pairs},
    passwords::hex,
    render::OWNED,
    shared::Shared,
};

const LOOK: Duration = Duration::from_secs(2);

/// Looks until it is dropped.
pub async fn run(shared: Arc<Shared>) {
    let mut own = Link::own(&shared);
    let begun_with = word(&shared.config);
    shared.update(|state| state.config_hash.clone_from(&begun_with));
    loop {
        match InstanceConfig::load(&shared.config_path) {
            Ok(config) if config != shared.live() => shared.set_live(config),
            Ok(_) => {}
            Err(error) => warn!(%error, "the mounted configuration is left as it was"),
        }
        if shared.config.kind == Kind::Server {
            look(&shared, &mut own).await;
        }
        sleep(LOOK).await;
    }
}

/// A configuration as one short word.
fn word(config: &InstanceConfig) -> String {
    let text = serde_yaml::to_string(config).unwrap_or_default();
    hex(&digest(&SHA256, text.as_bytes()).as_ref()[..8])
}

async fn look(shared: &Shared, own: &mut Link) {
    let config = shared.live();
    let names = config.config.keys();
    let names: Vec<&String> = names
        .filter(|name| !OWNED.contains(&name.as_str()))
        .collect();
    let mut words = vec!["CONFIG", "GET"];
    words.extend(names.iter().map(|name| name.as_str()));
    let shown = if names.is_empty() {
        HashMap::new()
    } else {
        match own.ask(&command(&words)).await {
            Ok(value) => pairs(&value),
            Err(_) => return,
        }
    };
    let differs = |name: &&&String| {
        let (name, wanted) = (name.as_str(), &config.config[name.as_str()]);
        shown
            .get(name)
            .is_none_or(|shown| !same(name, wanted, shown))
    };
    let differing = names.iter().filter(differs).map(|name| (*name).clone());
    let differing: Vec<String> = differing.collect();
    shared.update(|state| {
        state.config_mismatches = differing;
        state.config_verified = true;
    });
}

/// Whether the server shows what was wanted, in its own way of writing.
pub fn same(name: &str, wanted: &str, shown: &str) -> bool {
    if name == "notify-keyspace-events" {
        let sorted = |text: &str| {
            let text = text.replace('A', "g$lshzxetd");
            let mut letters: Vec<char> = text.chars().filter(|one| *one != '"').collect();
            letters.sort_unstable();
            letters.dedup();
            letters
        };
        return sorted(wanted) == sorted(shown);
    }
    let words = |text: &str| -> Vec<String> {
        let text = text.replace('"', "").to_ascii_lowercase();
        let words = text.split_whitespace();
        words.map(canonical).collect()
    };
    let (wanted, shown) = (words(wanted), words(shown));
    wanted == shown
        || shown
            .windows(wanted.len().max(1))
            .any(|some| some == wanted)
}

/// A word as servers show it: bytes without a unit, replicas by their old name.
fn canonical(word: &str) -> String {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = word.split_at(digits);
    let unit: Option<u64> = match unit {
        "b" => Some(1),
        "k" => Some(1000),
        "kb" => Some(1 << 10),
        "m" => Some(1_000_000),
        "mb" => Some(1 << 20),
        "g" => Some(1_000_000_000),
        "gb" => Some(1 << 30),
        _ => None,
    };
    match (number.parse::<u64>(), unit) {
        (Ok(number), Some(unit)) => number.saturating_mul(unit).to_string(),
        _ if word == "replica" => "slave".to_owned(),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_the_same_in_the_server_s_own_way_of_writing() {
        assert!(same("maxmemory", "100mb", "104857600"));
        assert!(same("appendonly", "Yes", "yes"));
        assert!(same("save", "", "") && same("save", "\"\"", ""));
        assert!(same("notify-keyspace-events", "KEA", "AKE"));
        let shown = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        let wanted = "replica 256mb 64mb 60";
        assert!(same("client-output-buffer-limit", wanted, shown));
    }

    #[test]
    fn another_value_is_not() {
        assert!(!same("maxmemory", "100mb", "104857601"));
        assert!(!same("save", "3600 1", ""));
        assert!(!same("maxmemory-policy", "allkeys-lru", "noeviction"));
        assert!(!same("save", "", "3600 1"));
    }
}
