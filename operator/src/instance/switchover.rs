//! The planned switch of a primary to one of its replicas, without the loss of an acknowledged
//! write: freeze, let the replicas catch up, let Sentinel choose, follow whom it names. Should
//! that fail, the old primary accepts writes again at a deadline.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    facts,
    follow::{replica_of, set_guard},
    link::{Link, command, text},
    peer,
    render::{FROZEN, wanted_guard},
    shared::Shared,
    state::{Phase, Role, Server},
    watchers::{Watchers, summary},
};

/// Longest switch that the operator may ask for.
const PATIENCE: Duration = Duration::from_secs(15);
/// What is left of the grace period for the server's own end.
const RESERVE: Duration = Duration::from_secs(10);
/// Between two looks at offsets or names.
const LOOK: Duration = Duration::from_millis(10);
/// Replicas that are not in step by then do not hold the others up.
const STRAGGLERS: Duration = Duration::from_secs(3);
/// Sentinels look at offsets once a second, and choose the furthest that they have seen.
const SENTINEL_SEES: Duration = Duration::from_millis(1500);

/// So long is a failover asked for while no write is accepted.
const REFUSED: Duration = Duration::from_millis(500);
/// Then writes go on for so long.
const AGAIN: Duration = Duration::from_secs(1);

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// Another server is the primary.
    Switched {
        /// Which.
        primary: String,
        /// How long no write was accepted by this one before it followed the other.
        pause_milliseconds: u64,
    },
    /// This server is none.
    NotPrimary,
    /// A switch is under way.
    Busy,
    /// This server is the primary as before.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Why a switch did not come about.
#[derive(Debug, thiserror::Error)]
enum SwitchError {
    #[error("no replica is in step and staying")]
    NoCandidate,
    #[error("no replica confirmed all writes in time")]
    Behind,
    #[error("sentinels do not begin a failover: {0}")]
    Refused(String),
    #[error("sentinels name no other primary in time")]
    NotNamed,
    #[error(transparent)]
    Link(#[from] super::link::LinkError),
}

/// One switch.
struct Switch<'a> {
    shared: &'a Arc<Shared>,
    own: Link,
    watchers: Watchers,
    deadline: Instant,
}

/// Because the operator said so.
pub async fn on_command(shared: &Arc<Shared>) -> Outcome {
    // A client that hangs up must not leave a primary frozen half-way.
    let task = tokio::spawn(run(Arc::clone(shared), PATIENCE));
    task.await.unwrap_or(Outcome::Busy)
}

/// Because the pod is going away.
pub async fn on_end(shared: &Arc<Shared>) {
    let grace = Duration::from_secs(shared.config.grace_period_seconds);
    let patience = grace.saturating_sub(RESERVE).min(PATIENCE);
    let outcome = run(Arc::clone(shared), patience).await;
    info!(?outcome, "the pod is going away");
}

async fn run(shared: Arc<Shared>, patience: Duration) -> Outcome {
    if shared.switching.swap(true, SeqCst) {
        return Outcome::Busy;
    }
    let outcome = one(&shared, patience).await;
    shared.switching.store(false, SeqCst);
    shared.look.notify_one();
    if outcome != Outcome::NotPrimary {
        let said = format!("{outcome:?}");
        shared.update(|state| state.last_switchover = Some(said));
    }
    outcome
}

async fn one(shared: &Arc<Shared>, patience: Duration) -> Outcome {
    let mut switch = Switch {
        shared,
        own: Link::own(shared),
        watchers: Watchers::new(shared),
        deadline: Instant::now() + patience,
    };
    let is_primary = match switch.server().await {
        Ok(server) => server.role == Some(Role::Primary) && !server.loading,
        Err(_) => false,
    };
    if !is_primary || shared.config.sentinels.is_empty() {
        return Outcome::NotPrimary;
    }
    let began = Instant::now();
    match switch.go().await {
        Ok(primary) => Outcome::Switched {
            primary,
            pause_milliseconds: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        },
        Err(error) => {
            warn!(%error, "the planned switch failed; writes are accepted again");
            if let Err(error) = switch.thaw().await {
                warn!(%error, "failed to accept writes again; the next look tries once more");
            }
            Outcome::Failed {
                reason: error.to_string(),
            }
        }
    }
}

impl Switch<'_> {
    async fn server(&mut self) -> Result<Server, SwitchError> {
        let info = self.own.ask(&command(&["INFO", "replication"])).await?;
        Ok(facts::read(&text(&info).unwrap_or_default()))
    }

    async fn go(&mut self) -> Result<String, SwitchError> {
        let candidates = self.candidates().await?;
        loop {
            self.freeze().await?;
            self.catch_up(&candidates).await?;
            let Err(refused) = self.fail_over().await else {
                break;
            };
            if Instant::now() + AGAIN > self.deadline {
                return Err(SwitchError::Refused(refused));
            }
            info!(
                refused,
                "sentinels do not begin a failover yet; writes are accepted meanwhile"
            );
            self.thaw().await?;
            sleep(AGAIN).await;
        }
        let named = self.named().await?;
        let port = self.shared.config.server_port;
        replica_of(&mut self.own, &named, port, true).await?;
        self.thaw().await?;
        Ok(named)
    }

    /// Replicas that are online and whose pods are not going away as well.
    async fn candidates(&mut self) -> Result<Vec<String>, SwitchError> {
        let server = self.server().await?;
        let mut staying = Vec::new();
        for replica in server.replicas.iter().filter(|replica| replica.online) {
            let state = peer::ask(self.shared, &replica.address).await;
            if state.is_some_and(|state| state.phase == Phase::Running) {
                staying.push(replica.address.clone());
            }
        }
        if staying.is_empty() {
            return Err(SwitchError::NoCandidate);
        }
        Ok(staying)
    }

    async fn freeze(&mut self) -> Result<(), SwitchError> {
        let (_, lag) = wanted_guard(&self.shared.live());
        self.own.ask(&set_guard(FROZEN, lag)).await?;
        self.shared.update(|state| {
            state.frozen = Some("a planned switch is under way".to_owned());
        });
        Ok(())
    }

    async fn thaw(&mut self) -> Result<(), SwitchError> {
        let (wanted, lag) = wanted_guard(&self.shared.live());
        self.own.ask(&set_guard(wanted, lag)).await?;
        self.shared.update(|state| state.frozen = None);
        Ok(())
    }

    /// Waits until every candidate has confirmed what was written before the freeze; if some do
    /// not, until Sentinels can know which have.
    async fn catch_up(&mut self, candidates: &[String]) -> Result<(), SwitchError> {
        let began = Instant::now();
        let goal = self.server().await?.offset;
        loop {
            let server = self.server().await?;
            let in_step = |replica: &&super::state::Follower| {
                replica.online && replica.offset >= goal && candidates.contains(&replica.address)
            };
            let count = server.replicas.iter().filter(in_step).count();
            if count == candidates.len() {
                return Ok(());
            }
            if server.replicas.is_empty() || Instant::now() > self.deadline {
                return Err(SwitchError::Behind);
            }
            if count > 0 && began.elapsed() > STRAGGLERS {
                sleep(SENTINEL_SEES).await;
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }

    /// The answer is why no Sentinel begins one; they know replicas that have just come a little
    /// later than the primary does.
    async fn fail_over(&mut self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            match self.watchers.fail_over().await {
                Err(_) if began.elapsed() < REFUSED => sleep(LOOK * 5).await,
                said => return said.map_err(|refused| refused.to_string()),
            }
        }
    }

    /// Whom Sentinels name instead of this server, as soon as one does.
    async fn named(&mut self) -> Result<String, SwitchError> {
        let me = &self.shared.identity.address;
        while Instant::now() < self.deadline {
            let named = summary(&self.watchers.ask_soon().await).primary;
            if let Some(named) = named.filter(|named| named != me) {
                return Ok(named);
            }
            sleep(LOOK).await;
        }
        Err(SwitchError::NotNamed)
    }
}
