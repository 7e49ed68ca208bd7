//! The life of a Sentinel under its agent: what it is told when it begins, and what is looked at
//! while it runs. It is never told twice: who the primary is, is the Sentinels' own affair.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{
    config::InstanceConfig,
    guard::Voice,
    link::{Link, command, text},
    peer,
    render::Memory,
    shared::Shared,
    state::{Phase, Role, Sentinels, Server, State},
    watchers::{self, Watchers},
};

/// Name of its configuration in the data folder; it rewrites that file itself.
pub const FILE: &str = "sentinel.conf";
const LOOK: Duration = Duration::from_millis(500);
/// A Sentinel asks servers for their roles and offsets every ten seconds otherwise: too rarely to
/// choose the furthest replica, or to know one at all that has just come.
const INFO_PERIOD: &str = "1000";
/// How often Sentinels tell each other whom they watch; every two seconds otherwise, for which
/// those that did not lead a failover go on naming the old primary.
const PUBLISH_PERIOD: &str = "500";

/// What it wrote down before it ended.
pub fn remembered(config: &InstanceConfig) -> io::Result<Option<Memory>> {
    match fs::read_to_string(Path::new(&config.data).join(FILE)) {
        Ok(text) => Ok(Memory::read(&text, &config.master_name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits until it is known whom to watch; none if the pod goes away before.
pub async fn guard(shared: &Arc<Shared>, own: Option<Memory>) -> Option<Memory> {
    let mut watchers = Watchers::new(shared);
    loop {
        shared.is_well();
        let (voices, servers) = tokio::join!(watchers.ask(), servers(shared));
        let known = latest(own.clone(), &voices).or_else(|| primary_of(&servers));
        if let Some(mut memory) = known {
            introduce(shared, &mut memory);
            let said = format!(
                "it watches {} (failover {})",
                memory.primary, memory.config_epoch
            );
            info!(decision = said, "the Sentinel begins");
            shared.update(|state| state.guard = said);
            return Some(memory);
        }
        let answering = servers.len();
        let said = format!("{answering} servers answer; none is a primary yet");
        shared.update(|state| state.guard = said);
        if timeout(LOOK, shared.terminated()).await.is_ok() {
            return None;
        }
    }
}

async fn servers(shared: &Shared) -> Vec<State> {
    let asked = shared
        .config
        .servers
        .iter()
        .map(|host| peer::ask(shared, host));
    join_all(asked).await.into_iter().flatten().collect()
}

/// What it remembers itself, or what another knows of a later failover.
fn latest(own: Option<Memory>, voices: &[Voice]) -> Option<Memory> {
    let mut latest = own;
    for voice in voices {
        let Voice::Names { primary, epoch } = voice else {
            continue;
        };
        if latest
            .as_ref()
            .is_none_or(|known| known.config_epoch < *epoch)
        {
            let before = latest.unwrap_or_default();
            latest = Some(Memory {
                primary: primary.clone(),
                config_epoch: *epoch,
                current_epoch: before.current_epoch.max(*epoch),
                ..before
            });
        }
    }
    latest
}

/// The one server that runs as a primary, else the one that all running replicas follow: no
/// Sentinel remembers anything.
fn primary_of(servers: &[State]) -> Option<Memory> {
    let of = |primary: &str| {
        let epochs = servers.iter().map(|state| state.past.epoch);
        // Failovers to come are counted on from those that the servers remember.
        let epoch = epochs.max().unwrap_or(0);
        Memory {
            primary: primary.to_owned(),
            config_epoch: epoch,
            current_epoch: epoch,
            ..Memory::default()
        }
    };
    let mut primaries = servers.iter().filter(|state| state.is_primary());
    match (primaries.next(), primaries.next()) {
        (Some(one), None) => return Some(of(&one.address)),
        (Some(_), Some(_)) => return None,
        (None, _) => {}
    }
    let replicas = servers.iter().filter(|state| {
        let role = state.server.as_ref().and_then(|server| server.role);
        state.phase == Phase::Running && role == Some(Role::Replica)
    });
    let followed = replicas.filter_map(|state| state.server.as_ref()?.primary.clone());
    let mut followed: Vec<String> = followed.collect();
    followed.sort_unstable();
    followed.dedup();
    match followed.as_slice() {
        [one] => Some(of(one)),
        _ => None,
    }
}

/// It knows every server of the shard from the beginning: replicas of a primary that does not
/// answer could not be found otherwise.
fn introduce(shared: &Shared, memory: &mut Memory) {
    let config = &shared.config;
    for server in config
        .servers
        .iter()
        .filter(|host| **host != memory.primary)
    {
        let line = format!(
            "sentinel known-replica {} {server} {}",
            config.master_name, config.server_port
        );
        if !memory.known.contains(&line) {
            memory.known.push(line);
        }
    }
}

/// Looks at the running Sentinel until it is dropped.
pub async fn watch(shared: Arc<Shared>) {
    let mut own = Link::own(&shared);
    let mut hurried = false;
    let mut before = [None; 3];
    loop {
        match watchers::word(&mut own, &shared).await {
            Ok(word) => {
                shared.is_well();
                if !hurried {
                    let hurry = command(&[
                        "SENTINEL",
                        "DEBUG",
                        "info-period",
                        INFO_PERIOD,
                        "publish-period",
                        PUBLISH_PERIOD,
                    ]);
                    hurried = own.ask(&hurry).await.is_ok();
                }
                if let Some(word) = &word {
                    settle(&shared, &mut own, word.settings, before).await;
                    before = word.settings;
                }
                take(&shared, &mut own, word).await;
            }
            Err(error) => {
                let ran = shared.update(|state| state.server.take().is_some());
                if ran {
                    warn!(%error, "the Sentinel does not answer");
                }
            }
        }
        sleep(LOOK).await;
    }
}

/// Gives the Sentinel the settings of the mounted configuration where it has had others for two looks: a
/// primary without data raises one for a moment ([`Watchers::insist`]).
async fn settle(shared: &Shared, own: &mut Link, now: [Option<u64>; 3], before: [Option<u64>; 3]) {
    let live = shared.live();
    let wanted = [
        u64::from(live.quorum),
        live.down_after_milliseconds,
        live.failover_timeout_milliseconds,
    ];
    for (place, name) in watchers::SETTINGS.into_iter().enumerate() {
        if now[place] == Some(wanted[place]) || now[place] != before[place] {
            continue;
        }
        let value = wanted[place].to_string();
        let set = command(&["SENTINEL", "SET", &live.master_name, name, &value]);
        match own.ask(&set).await {
            Ok(_) => info!(name, value, "the Sentinel has a new setting"),
            Err(error) => warn!(%error, "failed to set {name}"),
        }
    }
}

async fn take(shared: &Shared, own: &mut Link, word: Option<watchers::Word>) {
    let info = own.ask(&command(&["INFO", "server"])).await;
    let info = info.ok().and_then(|value| text(&value)).unwrap_or_default();
    let server = super::facts::read(&info);
    shared.update(|state| {
        state.phase = match state.phase {
            Phase::Starting => Phase::Running,
            other => other,
        };
        state.server = Some(Server {
            synced: true,
            ..server
        });
        let word = word.unwrap_or_default();
        state.sentinels = Sentinels {
            total: shared.config.sentinels.len(),
            answering: 1,
            primary: Some(word.primary).filter(|primary| !primary.is_empty()),
            epoch: word.epoch,
        };
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(primary: &str, epoch: u64) -> Voice {
        Voice::Names {
            primary: primary.to_owned(),
            epoch,
        }
    }

    #[test]
    fn its_own_memory_counts_unless_another_knows_of_a_later_failover() {
        let own = Memory {
            primary: "s0".to_owned(),
            config_epoch: 3,
            current_epoch: 5,
            known: vec!["line".to_owned()],
            ..Memory::default()
        };
        let found = latest(Some(own.clone()), &[names("s1", 2), Voice::Silent]);
        assert_eq!(found, Some(own.clone()));
        let found = latest(Some(own), &[names("s1", 4), names("s2", 1)]).unwrap();
        assert_eq!((found.primary.as_str(), found.config_epoch), ("s1", 4));
        assert_eq!((found.current_epoch, found.known.len()), (5, 1));
        assert_eq!(latest(None, &[Voice::Unaware, Voice::Silent]), None);
    }
}
