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
    follow::{replica_of, role_of, set_guard},
    link::{Link, command},
    peer,
    render::{FROZEN, wanted_guard},
    shared::Shared,
    state::{Phase, Role, Server},
    watchers::{Watchers, summary},
};

/// Longest switch that the operator may ask for.
const PATIENCE: Duration = Duration::from_secs(15);
/// Steps of a failover that may take a Sentinel its `failover-timeout` each: the order to the replica, and
/// until it is seen to be the primary.
const CHOICE: u32 = 2;
/// What is left of the grace period for the server's own end.
const RESERVE: Duration = Duration::from_secs(10);
/// Between two looks at offsets or names.
const LOOK: Duration = Duration::from_millis(10);
/// Channel of the message that replicas confirm.
const CHANNEL: &str = "__pannier__:switch";
/// So long they are waited for before their offsets are looked at, milliseconds.
const CONFIRM: &str = "500";
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
    /// Sentinels have begun by then, or it has failed.
    deadline: Instant,
    /// Those that have begun have chosen by then.
    chosen_by: Instant,
}

/// Because the operator said so.
pub async fn on_command(shared: &Arc<Shared>) -> Outcome {
    // A client that hangs up must not leave a primary frozen half-way.
    let task = tokio::spawn(run(Arc::clone(shared)));
    task.await.unwrap_or(Outcome::Busy)
}

/// Because the pod is going away. Whatever comes of it, writes that were stopped stay so: the server
/// ends next.
pub async fn on_end(shared: &Arc<Shared>) {
    let grace = Duration::from_secs(shared.config.grace_period_seconds);
    let patience = grace.saturating_sub(RESERVE).min(PATIENCE);
    let deadline = Instant::now() + patience;
    // One that the operator asked for comes to its end first.
    while shared.switching.swap(true, SeqCst) {
        if Instant::now() > deadline {
            warn!("the pod is going away, and another switch is still under way");
            return;
        }
        sleep(LOOK).await;
    }
    let outcome = one(shared, deadline, deadline).await;
    info!(?outcome, "the pod is going away");
}

async fn run(shared: Arc<Shared>) -> Outcome {
    if shared.switching.swap(true, SeqCst) {
        return Outcome::Busy;
    }
    let deadline = Instant::now() + PATIENCE;
    let step = Duration::from_millis(shared.live().failover_timeout_milliseconds);
    let outcome = one(&shared, deadline, deadline + step * CHOICE).await;
    shared.switching.store(false, SeqCst);
    shared.look.notify_one();
    outcome
}

async fn one(shared: &Arc<Shared>, deadline: Instant, chosen_by: Instant) -> Outcome {
    let mut switch = Switch {
        shared,
        own: Link::own(shared),
        watchers: Watchers::new(shared),
        deadline,
        chosen_by,
    };
    let outcome = switch.run().await;
    if outcome != Outcome::NotPrimary {
        let said = format!("{outcome:?}");
        shared.update(|state| state.last_switchover = Some(said));
    }
    outcome
}

impl Switch<'_> {
    async fn run(&mut self) -> Outcome {
        let is_primary = match self.server().await {
            Ok(server) => server.role == Some(Role::Primary) && !server.loading,
            Err(_) => false,
        };
        if !is_primary || self.shared.config.sentinels.is_empty() {
            return Outcome::NotPrimary;
        }
        let began = Instant::now();
        match self.go().await {
            Ok(primary) => Outcome::Switched {
                primary,
                pause_milliseconds: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            },
            Err(error) => {
                // The next look decides whether writes are accepted: Sentinels may be away by now,
                // or name another.
                warn!(%error, "the planned switch failed");
                Outcome::Failed {
                    reason: error.to_string(),
                }
            }
        }
    }

    async fn server(&mut self) -> Result<Server, SwitchError> {
        Ok(role_of(&mut self.own).await?)
    }

    async fn go(&mut self) -> Result<String, SwitchError> {
        let mut candidates = self.candidates().await?;
        if candidates.len() + 1 < self.shared.live().servers.len() {
            // By then Sentinels have seen those that stay further than the one that is missing.
            sleep(SENTINEL_SEES).await;
            candidates = self.candidates().await?;
        }
        loop {
            self.freeze().await?;
            self.catch_up(&candidates).await?;
            let Err(refused) = self.fail_over().await else {
                break;
            };
            if Instant::now() + AGAIN > self.deadline {
                return Err(SwitchError::Refused(refused));
            }
            // Without them it may have been replaced.
            if self.watchers.hear_most().await {
                info!(
                    refused,
                    "sentinels do not begin a failover yet; writes are accepted meanwhile"
                );
                self.thaw().await?;
            }
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
        self.set_guard(FROZEN, lag).await?;
        self.shared.update(|state| {
            state.frozen = Some("a planned switch is under way".to_owned());
        });
        Ok(())
    }

    async fn set_guard(&mut self, replicas: u32, lag: u32) -> Result<(), SwitchError> {
        // Before: a command that is not answered may be carried out.
        self.shared.guards_set.fetch_add(1, SeqCst);
        self.own.ask(&set_guard(replicas, lag)).await?;
        Ok(())
    }

    async fn thaw(&mut self) -> Result<(), SwitchError> {
        let (wanted, lag) = wanted_guard(&self.shared.live());
        self.set_guard(wanted, lag).await?;
        self.shared.update(|state| state.frozen = None);
        Ok(())
    }

    /// Waits until every candidate has confirmed what was written before the freeze; if some do
    /// not, or others that are online, until Sentinels can know which have.
    async fn catch_up(&mut self, candidates: &[String]) -> Result<(), SwitchError> {
        let began = Instant::now();
        let goal = self.server().await?.offset;
        self.ask_to_confirm(candidates.len()).await?;
        loop {
            let server = self.server().await?;
            let in_step = |replica: &&super::state::Follower| {
                replica.online && replica.offset >= goal && candidates.contains(&replica.address)
            };
            let count = server.replicas.iter().filter(in_step).count();
            let behind = |replica: &super::state::Follower| replica.online && replica.offset < goal;
            let all = !server.replicas.iter().any(behind);
            if count == candidates.len() && (all || began.elapsed() > SENTINEL_SEES) {
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

    /// Replicas confirm once a second what they have; asked by `WAIT` they do at once. It asks for what its
    /// own connection has sent to them, and a message is sent while writes are refused.
    async fn ask_to_confirm(&mut self, replicas: usize) -> Result<(), SwitchError> {
        self.own.ask(&command(&["PUBLISH", CHANNEL, ""])).await?;
        let wait = ["WAIT", &replicas.to_string(), CONFIRM];
        self.own.ask(&command(&wait)).await?;
        Ok(())
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
        loop {
            let named = summary(&self.watchers.ask_soon().await).primary;
            if let Some(named) = named.filter(|named| *named != self.shared.identity.address) {
                return Ok(named);
            }
            // While one may choose, what is acknowledged here may be lost.
            let now = Instant::now();
            let is_late = now > self.deadline;
            if is_late && (now > self.chosen_by || !self.watchers.may_choose().await) {
                return Err(SwitchError::NotNamed);
            }
            sleep(LOOK).await;
        }
    }
}
