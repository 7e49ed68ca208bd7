//! Who is there: every sidecar of a tier is known to the others, and an invalidation can be
//! acknowledged by all of them (P5, groundwork).
//!
//! One connection beside the data path. On it each sidecar announces itself every few seconds
//! (`record`, under the names in `names`), hears invalidations that others ask for, applies them
//! to the local tier, and says so. `waiting` counts who has applied what was asked for here;
//! `session` is one connection's life. The data path never waits for any of it; apps meet it only
//! in `PANNIER.SIDECARS` and `PANNIER.INVALIDATE`.

mod dial;
mod names;
pub mod record;
mod session;
mod waiting;

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Map, Value as Json};
use tokio::sync::{mpsc, oneshot};

use self::session::Ended;
pub use self::waiting::Applied;
use crate::{state::Shared, upstream::backoff::Backoff};

/// Requests of apps that wait for their turn; more are refused.
const REQUESTS: usize = 256;

/// Pause after Redis refused a command.
const REFUSED: Duration = Duration::from_secs(10);

/// What an app asked for.
pub enum Request {
    /// `PANNIER.SIDECARS`
    Sidecars(oneshot::Sender<Result<Vec<Map<String, Json>>, Refused>>),
    /// `PANNIER.INVALIDATE`; the keys were dropped here already.
    Invalidate {
        /// Without prefix.
        keys: Vec<Box<[u8]>>,
        /// Where the answer goes.
        done: oneshot::Sender<Result<Applied, Refused>>,
    },
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Others are not known.
    #[error("the other sidecars are not known: {0}")]
    Alone(String),
    /// The connection broke meanwhile.
    #[error("the connection to redis broke while the other sidecars were asked")]
    Broken,
    /// Too many requests at a time.
    #[error("too many of these commands are under way; try again later")]
    Busy,
}

/// The way to the task, and what it knows.
pub struct Presence {
    requests: mpsc::Sender<Request>,
    inbox: Mutex<Option<mpsc::Receiver<Request>>>,
    state: Mutex<State>,
    /// Refusals that were logged.
    said: Mutex<BTreeSet<String>>,
}

/// Whether this sidecar is announced, for `/state`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// There is no Redis, or `sidecar.heartbeat` is 0.
    #[default]
    Off,
    /// Announced; so many sidecars of the tier were live at the last beat.
    Announced(usize),
    /// Not announced, and why.
    Unknown(String),
}

impl Refused {
    fn alone(ended: &Ended) -> Self {
        Self::Alone(ended.to_string())
    }
}

// === impl Presence ===

impl Default for Presence {
    fn default() -> Self {
        let (requests, inbox) = mpsc::channel(REQUESTS);
        Self {
            requests,
            inbox: Mutex::new(Some(inbox)),
            state: Mutex::default(),
            said: Mutex::default(),
        }
    }
}

impl Presence {
    /// Passes a request on; the request itself tells when it cannot be.
    pub fn ask(&self, request: Request) {
        if let Err(error) = self.requests.try_send(request) {
            refuse(error.into_inner(), Refused::Busy);
        }
    }

    /// Whether this sidecar is announced.
    pub fn state(&self) -> State {
        self.state.lock().clone()
    }

    fn set(&self, state: State) {
        *self.state.lock() = state;
    }

    /// Redis refuses a command; said once.
    fn refused(&self, why: &str) {
        let mut said = self.said.lock();
        if said.len() < 16 && said.insert(why.to_owned()) {
            tracing::warn!(
                why,
                "this sidecar is not known to the others of its tier: redis refuses its announcement; apps are not concerned"
            );
        }
    }
}

/// Announces this sidecar for as long as the process lives.
pub async fn run(shared: Arc<Shared>) {
    let Some(mut inbox) = shared.presence.inbox.lock().take() else {
        return;
    };
    let active = shared.active();
    if active.config.upstream.is_none() {
        return decline(&mut inbox, "there is no redis").await;
    }
    if active.config.sidecar.heartbeat.0.is_zero() {
        return decline(&mut inbox, "sidecar.heartbeat is 0s").await;
    }
    let limits = active.config.resilience;
    drop(active);
    let mut backoff = Backoff::new(limits.backoff_base.0, limits.backoff_max.0);
    let random = RandomState::new();
    for attempt in 0_u64.. {
        let opened = tokio::select! {
            opened = session::open(&shared) => opened,
            () = decline(&mut inbox, "redis is not connected yet") => return,
        };
        let ended = match opened {
            Ok(mut session) => {
                backoff.reset();
                session.run(&mut inbox).await
            }
            Err(ended) => ended,
        };
        let why = ended.to_string();
        tracing::debug!(why, "the connection to the other sidecars ended");
        shared.presence.set(State::Unknown(why.clone()));
        let [a, b, c, d, ..] = random.hash_one(attempt).to_le_bytes();
        let mut pause = backoff.next(u32::from_le_bytes([a, b, c, d]));
        if matches!(ended, Ended::Moved(_)) {
            shared.topology.doubt();
        }
        if matches!(ended, Ended::Refused(_)) {
            shared.presence.refused(&why);
            pause = pause.max(REFUSED);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = decline(&mut inbox, &why) => return,
        }
    }
}

/// Answers everything with the reason why there is no answer.
async fn decline(inbox: &mut mpsc::Receiver<Request>, why: &str) {
    while let Some(request) = inbox.recv().await {
        refuse(request, Refused::Alone(why.to_owned()));
    }
}

fn refuse(request: Request, why: Refused) {
    // Who asked may have gone.
    match request {
        Request::Sidecars(done) => drop(done.send(Err(why))),
        Request::Invalidate { done, .. } => drop(done.send(Err(why))),
    }
}
