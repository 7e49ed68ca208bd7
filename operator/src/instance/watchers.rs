//! What the Sentinels say: each is asked over a connection of its own, all at once.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use redis::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    guard::Voice,
    link::{Link, LinkError, command, pairs},
    peer,
    shared::Shared,
    state::{Phase, Sentinels},
};

/// No Sentinel may hold the others up for longer.
const PATIENCE: Duration = Duration::from_millis(1500);
/// The same while a server runs: with a Sentinel away a look must not become so slow that a primary takes
/// itself for isolated.
const BRIEF: Duration = Duration::from_millis(800);
/// And for the rest of them once most have answered.
const REST: Duration = Duration::from_millis(300);

/// The Sentinels of a shard.
pub struct Watchers {
    shared: Arc<Shared>,
    links: Vec<Link>,
}

/// What one Sentinel says about the shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// The primary's name.
    pub primary: String,
    /// Number of the failover that made it so.
    pub epoch: u64,
}

impl Watchers {
    /// All but this instance itself, if it is one.
    pub fn new(shared: &Arc<Shared>) -> Self {
        let config = &shared.config;
        let others = config.sentinels.iter();
        let others = others.filter(|host| **host != shared.identity.address);
        let links = others.map(|host| Link::new(shared, host, config.sentinel_port));
        Self {
            links: links.collect(),
            shared: Arc::clone(shared),
        }
    }

    /// What each says.
    pub async fn ask(&mut self) -> Vec<Voice> {
        let shared = &self.shared;
        let asked = self.links.iter_mut().map(|link| async move {
            match timeout(PATIENCE, voice(link, shared)).await {
                Ok(voice) => voice,
                Err(_) => Voice::Silent,
            }
        });
        join_all(asked).await
    }

    /// What each says that answers soon; the others are silent, this time.
    pub async fn ask_soon(&mut self) -> Vec<Voice> {
        let shared = &self.shared;
        let mut voices = vec![Voice::Silent; self.links.len()];
        let links = self.links.iter_mut().enumerate();
        let asked = links.map(|(number, link)| async move { (number, voice(link, shared).await) });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let mut until = Instant::now() + BRIEF;
        let mut answered = 0;
        while let Ok(Some((number, voice))) = timeout_at(until, asked.next()).await {
            answered += usize::from(voice != Voice::Silent);
            if answered * 2 > voices.len() {
                until = until.min(Instant::now() + REST);
            }
            voices[number] = voice;
        }
        voices
    }

    /// Asks for a failover: whichever Sentinel agrees first. The answer is why none did.
    pub async fn fail_over(&mut self) -> Result<(), String> {
        let words = command(&["SENTINEL", "FAILOVER", &self.shared.config.master_name]);
        let mut refused = "no Sentinel is configured".to_owned();
        for link in &mut self.links {
            match timeout(PATIENCE, link.ask(&words)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => refused = error.to_string(),
                Err(_) => refused = format!("{}: no answer", link.host()),
            }
        }
        Err(refused)
    }
}

/// Whom voices name: the word of the one that knows the latest failover.
pub fn summary(voices: &[Voice]) -> Sentinels {
    let mut summary = Sentinels {
        total: voices.len(),
        ..Sentinels::default()
    };
    for voice in voices {
        match voice {
            Voice::Silent => {}
            Voice::Unaware => summary.answering += 1,
            Voice::Names { primary, epoch } => {
                summary.answering += 1;
                if summary.primary.is_none() || *epoch > summary.epoch {
                    summary.primary = Some(primary.clone());
                    summary.epoch = *epoch;
                }
            }
        }
    }
    summary
}

async fn voice(link: &mut Link, shared: &Shared) -> Voice {
    match word(link, shared).await {
        Ok(Some(word)) => Voice::Names {
            primary: word.primary,
            epoch: word.epoch,
        },
        Ok(None) => Voice::Unaware,
        // No Sentinel answers there; its agent may, and says whether its guard still waits.
        Err(_) => match peer::ask(shared, link.host()).await {
            Some(state) if state.phase == Phase::Guarding && state.tier == shared.config.tier => {
                Voice::Unaware
            }
            _ => Voice::Silent,
        },
    }
}

/// What a Sentinel says about the shard; none, if it does not watch it.
pub async fn word(link: &mut Link, shared: &Shared) -> Result<Option<Word>, LinkError> {
    let name = &shared.config.master_name;
    let about = match link.ask(&command(&["SENTINEL", "MASTER", name])).await {
        Ok(value) => value,
        Err(LinkError::Redis(_, error)) if error.code() == Some("ERR") => return Ok(None),
        Err(error) => return Err(error),
    };
    let about = pairs(&about);
    // During a failover this one already names the server that was chosen.
    let address = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name];
    let Value::Array(address) = link.ask(&command(&address)).await? else {
        return Ok(None);
    };
    let Some(host) = address.first().and_then(super::link::text) else {
        return Ok(None);
    };
    let epoch = about.get("config-epoch").and_then(|text| text.parse().ok());
    Ok(Some(Word {
        primary: name_of(shared, &host),
        epoch: epoch.unwrap_or(0),
    }))
}

/// A Sentinel that could not resolve a name gives an address.
fn name_of(shared: &Shared, host: &str) -> String {
    let servers = &shared.config.servers;
    if servers.iter().any(|server| server == host) {
        return host.to_owned();
    }
    let known = shared.addresses.name_of(servers, host);
    known.map_or_else(|| host.to_owned(), Clone::clone)
}
