//! What the Sentinels say: each is asked over a connection of its own, all at once.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use redis::{Cmd, Value};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::warn;

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
/// A day, in milliseconds: a replica's link may have been down for ten.
const BEARS: &str = "86400000";
/// A Sentinel that was told to fail over chooses within a fraction of a second.
const CHOOSES: Duration = Duration::from_secs(3);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(50);
/// What a Sentinel tells of its settings, by their names.
pub const SETTINGS: [&str; 3] = ["quorum", "down-after-milliseconds", "failover-timeout"];

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
    /// What it has for each of [`SETTINGS`].
    pub settings: [Option<u64>; 3],
    /// Whether it is choosing another primary just now.
    pub chooses: bool,
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

    /// Whether most Sentinels answer.
    pub async fn hear_most(&mut self) -> bool {
        let said = summary(&self.ask_soon().await);
        said.answering * 2 > said.total
    }

    /// Whether one may be choosing another primary: it says so, or most do not answer.
    pub async fn may_choose(&mut self) -> bool {
        let shared = &self.shared;
        let asked = self.links.iter_mut().map(|link| async move {
            let word = timeout(PATIENCE, word(link, shared)).await;
            word.ok()?.ok()
        });
        let said: Vec<Option<Word>> = join_all(asked).await.into_iter().flatten().collect();
        let chooses = |word: &Word| word.chooses;
        said.len() * 2 <= self.links.len() || said.iter().flatten().any(chooses)
    }

    /// Asks for a failover: whichever Sentinel agrees first.
    pub async fn fail_over(&mut self) -> Result<(), Refused> {
        let words = fail_over(&self.shared);
        let mut refused = Refused::Otherwise("no Sentinel is configured".to_owned());
        for link in &mut self.links {
            match ask_soon(link, &words).await {
                Ok(()) => return Ok(()),
                // One that is away says nothing about replicas.
                Err(_) if matches!(refused, Refused::NoReplica(_)) => {}
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Asks for a failover to whichever replica has the newest data, although Sentinels take all of them for
    /// too far behind: one Sentinel is made to bear more until it has chosen.
    pub async fn insist(&mut self) -> Result<(), Refused> {
        let mut refused = Refused::Otherwise("no Sentinel is configured".to_owned());
        for link in &mut self.links {
            match insist(link, &self.shared).await {
                Ok(()) => return Ok(()),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

/// Why no Sentinel begins a failover.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// None of the replicas that it knows suits it.
    #[error("{0}")]
    NoReplica(String),
    /// It does not answer, is at it, or has another reason.
    #[error("{0}")]
    Otherwise(String),
}

impl From<LinkError> for Refused {
    fn from(error: LinkError) -> Self {
        match &error {
            LinkError::Redis(_, reply) if reply.code() == Some("NOGOODSLAVE") => {
                Self::NoReplica(error.to_string())
            }
            _ => Self::Otherwise(error.to_string()),
        }
    }
}

fn fail_over(shared: &Shared) -> Cmd {
    command(&["SENTINEL", "FAILOVER", &shared.config.master_name])
}

/// A Sentinel bears a link that has been down for ten times `down-after-milliseconds`. Should this agent
/// end in between, the Sentinel's own sets it back.
async fn insist(link: &mut Link, shared: &Shared) -> Result<(), Refused> {
    let usual = shared.live().down_after_milliseconds.to_string();
    ask_soon(link, &bear(shared, BEARS)).await?;
    let chosen = match ask_soon(link, &fail_over(shared)).await {
        Ok(()) => chosen(link, shared).await,
        refused => refused,
    };
    // What a Sentinel goes on with too long its own agent sets back.
    if let Err(error) = ask_soon(link, &bear(shared, &usual)).await {
        warn!(%error, "failed to set back down-after-milliseconds");
    }
    chosen
}

fn bear(shared: &Shared, milliseconds: &str) -> Cmd {
    let name = &shared.config.master_name;
    command(&[
        "SENTINEL",
        "SET",
        name,
        "down-after-milliseconds",
        milliseconds,
    ])
}

async fn ask_soon(link: &mut Link, words: &Cmd) -> Result<(), Refused> {
    match timeout(PATIENCE, link.ask(words)).await {
        Ok(answer) => Ok(answer.map(drop)?),
        Err(_) => Err(Refused::Otherwise(format!("{}: no answer", link.host()))),
    }
}

/// Waits until the Sentinel names another than this server.
async fn chosen(link: &mut Link, shared: &Shared) -> Result<(), Refused> {
    let began = Instant::now();
    while began.elapsed() < CHOOSES {
        let named = timeout(PATIENCE, word(link, shared)).await;
        if let Ok(Ok(Some(word))) = named
            && word.primary != shared.identity.address
        {
            return Ok(());
        }
        sleep(LOOK).await;
    }
    Err(Refused::Otherwise(format!(
        "{}: it began a failover and chose nobody for {} s",
        link.host(),
        CHOOSES.as_secs()
    )))
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
            Some(state) if state.phase == Phase::Guarding => match state.sentinels.primary {
                // It is about to begin with what it remembers.
                Some(primary) => Voice::Names {
                    primary,
                    epoch: state.sentinels.epoch,
                },
                None => Voice::Unaware,
            },
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
    let number = |name: &str| about.get(name)?.parse().ok();
    Ok(Some(Word {
        primary: name_of(shared, &host),
        epoch: number("config-epoch").unwrap_or(0),
        settings: SETTINGS.map(number),
        chooses: about
            .get("flags")
            .is_some_and(|flags| flags.contains("failover_in_progress")),
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
