//! Asks Sentinels and peers before the server starts, again and again, until the guard decides.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use k8s_openapi::jiff::Timestamp;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    guard::{self, Decision, Keeps, Peer, Situation},
    marker, peer,
    render::Start,
    shared::Shared,
    watchers::{Refused, Watchers, summary},
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Whoever is silent for less may just be starting: nobody is asked to give up data for that.
const ADVICE: Duration = Duration::from_secs(30);
/// Between two requests for a failover.
const FAILOVER: Duration = Duration::from_secs(1);

/// What the guard decided.
pub struct Passed {
    /// As what to start.
    pub start: Start,
    /// Whether the server begins with nothing.
    pub empty: bool,
}

/// Waits until the guard decides; none if the pod goes away before.
pub async fn wait(shared: &Arc<Shared>) -> std::io::Result<Option<Passed>> {
    let began = Instant::now();
    let mut watchers = Watchers::new(shared);
    let past = shared.state().past;
    let keeps = marker::keeps(&shared.config);
    marker::guard_waits(&shared.config)?;
    // Told once another runs on with less.
    let mut lost_by_failover = None;
    let mut asked: Option<Instant> = None;
    let mut refused: Option<Instant> = None;
    let mut said = String::new();
    loop {
        shared.is_well();
        let mut situation = look(shared, &mut watchers, began.elapsed(), keeps).await;
        situation.refused = refused.map_or(Duration::ZERO, |since| since.elapsed());
        let decision = guard::decide(&situation);
        let helps = situation.waited > ADVICE && guard::loss_would_help(&situation);
        shared.update(|state| {
            decision.reason().clone_into(&mut state.guard);
            state.loss_would_help = helps;
            state.sentinels = summary(&situation.sentinels);
        });
        if said != decision.reason() {
            decision.reason().clone_into(&mut said);
            info!(decision = said, "the boot guard looked");
        }
        // A person who accepts the loss lets Sentinels choose this one, empty as it is.
        let empty = !past.has_data && !situation.has_word();
        match decision {
            Decision::Primary { lost, .. } => {
                tell(shared, lost.or_else(|| guard::given_up(&situation)));
                marker::guard_has_passed(&shared.config)?;
                let start = Start::Primary;
                return Ok(Some(Passed { start, empty }));
            }
            Decision::Replica { of, .. } => {
                tell(
                    shared,
                    lost_by_failover.or_else(|| guard::given_up(&situation)),
                );
                marker::guard_has_passed(&shared.config)?;
                let start = Start::Replica(of);
                return Ok(Some(Passed { start, empty }));
            }
            Decision::Failover { anyway, lost, .. }
                if asked.is_none_or(|at| at.elapsed() > FAILOVER) =>
            {
                asked = Some(Instant::now());
                let answer = if anyway {
                    watchers.insist().await
                } else {
                    watchers.fail_over().await
                };
                match answer {
                    Ok(()) => {
                        lost_by_failover = lost.or_else(|| guard::given_up(&situation));
                        refused = None;
                    }
                    Err(Refused::NoReplica(_)) => {
                        refused.get_or_insert_with(Instant::now);
                    }
                    Err(Refused::Otherwise(_)) => refused = None,
                }
                if let Err(error) = answer {
                    warn!(%error, "Sentinels do not begin a failover yet");
                }
            }
            Decision::Failover { .. } | Decision::Wait { .. } => {}
        }
        if timeout(LOOK, shared.terminated()).await.is_ok() {
            return Ok(None);
        }
    }
}

/// Says what is lost, and since when: another loss is other news.
fn tell(shared: &Shared, lost: Option<String>) {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    let since = lost.map(|lost| format!("{lost} ({now})"));
    shared.update(|state| state.data_lost = since);
}

async fn look(
    shared: &Arc<Shared>,
    watchers: &mut Watchers,
    waited: Duration,
    keeps: Keeps,
) -> Situation {
    let config = &shared.config;
    let others = config.servers.iter().enumerate();
    let others = others.filter(|(ordinal, _)| *ordinal != shared.identity.ordinal);
    let peers = others.map(|(ordinal, host)| async move {
        let state = peer::ask(shared, host).await;
        Peer {
            address: host.clone(),
            ordinal,
            answers: state.is_some(),
            says: state.as_ref().and_then(peer::says),
        }
    });
    let (sentinels, peers) = tokio::join!(watchers.ask(), join_all(peers));
    Situation {
        me: shared.identity.address.clone(),
        ordinal: shared.identity.ordinal,
        past: shared.state().past,
        keeps,
        formed: config.formed,
        sentinels,
        peers,
        waited,
        accept_loss: marker::loss_is_accepted(config),
        refused: Duration::ZERO,
    }
}
