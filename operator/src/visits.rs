//! Visits to the Redis behind each tier, off the hot path: whether it answers, and which sidecars
//! are listed in it. A reconcile says where to look and reads what was told last; the task here
//! looks again and again, and has a tier reconciled when there is something new to tell.
//!
//! At most so many visits go on at a time, each ends soon, and figures are told once a minute at
//! most: that Redis answers, or no longer does, at once.

mod call;
pub mod sidecars;

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use crds::condition::SidecarsStatus;
use futures_util::{Stream, StreamExt as _, stream, stream::FuturesUnordered};
use parking_lot::Mutex;
use policy::config::Upstream;
use tokio::{
    sync::{Notify, broadcast},
    time::{Instant, sleep, timeout},
};

pub use self::call::visit;

/// Visits at a time.
const ABREAST: usize = 16;
/// Time for one.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two visits of a tier, about.
const EVERY: Duration = Duration::from_secs(20);
/// Figures are not told more often.
const FIGURES: Duration = Duration::from_mins(1);
/// Nobody has asked for so long: the tier is gone, and its end was not told. Tiers that are there are
/// reconciled more often.
const FORGOTTEN: Duration = Duration::from_mins(30);
/// Tiers that wait to be reconciled; more wait for their next visit.
const NEWS: usize = 1024;

/// Where to look, and how to log in.
#[derive(Clone, PartialEq)]
pub struct Place {
    /// Namespace of the tier.
    pub namespace: String,
    /// Its name.
    pub tier: String,
    /// The servers.
    pub upstream: Upstream,
    /// ACL user.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// Password of the Sentinels.
    pub sentinel_password: Option<String>,
    /// The database that sidecars are in.
    pub database: u32,
    /// Before every key.
    pub prefix: String,
    /// The generation that sidecars should run.
    pub generation: u64,
}

/// What a visit has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Who answered, or why nobody did.
    pub answer: Result<String, String>,
    /// The sidecars that are listed there, if they could be read.
    pub sidecars: Option<SidecarsStatus>,
}

/// What is known of all tiers.
pub struct Visits {
    tiers: Mutex<HashMap<String, Visited>>,
    wake: Notify,
    news: broadcast::Sender<(String, String)>,
    random: RandomState,
}

struct Visited {
    place: Arc<Place>,
    /// When somebody last asked for it.
    asked: Instant,
    /// When to look again; `None` while somebody looks.
    due: Option<Instant>,
    told: Option<(Found, Instant)>,
}

impl Default for Visits {
    fn default() -> Self {
        Self {
            tiers: Mutex::default(),
            wake: Notify::new(),
            news: broadcast::Sender::new(NEWS),
            random: RandomState::new(),
        }
    }
}

// === impl Visits ===

impl Visits {
    /// Has a tier's Redis visited from now on; gives what was told of it last.
    pub fn look(&self, uid: &str, place: Place) -> Option<Found> {
        let mut tiers = self.tiers.lock();
        if let Some(visited) = tiers.get_mut(uid)
            && *visited.place == place
        {
            visited.asked = Instant::now();
            return visited.told.clone().map(|(found, _)| found);
        }
        // What is known of another place, or by another login, says nothing of this one; but the
        // sidecars of a new generation are looked for at once, not unknown meanwhile.
        let same = |old: &Visited| {
            let before = Place {
                generation: place.generation,
                ..(*old.place).clone()
            };
            before == place
        };
        let told = tiers.remove(uid).filter(same).and_then(|old| old.told);
        let answer = told.clone().map(|(found, _)| found);
        let visited = Visited {
            place: Arc::new(place),
            asked: Instant::now(),
            due: Some(Instant::now()),
            told,
        };
        tiers.insert(uid.to_owned(), visited);
        drop(tiers);
        self.wake.notify_one();
        answer
    }

    /// Nobody asks for a tier any longer.
    pub fn forget(&self, uid: &str) {
        self.tiers.lock().remove(uid);
    }

    /// How many places are visited.
    pub fn count(&self) -> usize {
        self.tiers.lock().len()
    }

    /// Namespace and name of tiers of which there is something new to tell. Who reads too slowly
    /// misses some: they are told with the next reconcile.
    pub fn news(&self) -> impl Stream<Item = (String, String)> + Send + use<> {
        stream::unfold(self.news.subscribe(), |mut news| async move {
            loop {
                match news.recv().await {
                    Ok(tier) => return Some((tier, news)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
    }

    /// Visits for as long as it is polled.
    pub async fn run(&self) {
        let mut under_way = FuturesUnordered::new();
        loop {
            for (uid, place) in self.take_due(ABREAST - under_way.len()) {
                under_way.push(async move {
                    let found = timeout(PATIENCE, call::visit(&place)).await;
                    let found = found.unwrap_or_else(|_| Found {
                        answer: Err(format!("no answer within {} s", PATIENCE.as_secs())),
                        sidecars: None,
                    });
                    (uid, place, found)
                });
            }
            let full = under_way.len() == ABREAST;
            tokio::select! {
                Some((uid, place, found)) = under_way.next(), if !under_way.is_empty() => {
                    self.tell(&uid, &place, found);
                }
                () = self.wake.notified(), if !full => {}
                () = sleep(Duration::from_secs(1)), if !full => {}
            }
        }
    }

    fn take_due(&self, count: usize) -> Vec<(String, Arc<Place>)> {
        let now = Instant::now();
        let mut tiers = self.tiers.lock();
        tiers.retain(|_, visited| now.duration_since(visited.asked) < FORGOTTEN);
        let due = tiers
            .iter_mut()
            .filter(|(_, visited)| visited.due.is_some_and(|due| due <= now));
        due.take(count)
            .map(|(uid, visited)| {
                visited.due = None;
                (uid.clone(), Arc::clone(&visited.place))
            })
            .collect()
    }

    fn tell(&self, uid: &str, place: &Arc<Place>, found: Found) {
        let mut tiers = self.tiers.lock();
        let Some(visited) = tiers.get_mut(uid) else {
            return;
        };
        // Another place is asked for meanwhile: it is due by itself.
        if !Arc::ptr_eq(&visited.place, place) {
            return;
        }
        let share = u32::try_from(self.random.hash_one(Instant::now()) % 256).unwrap_or(0);
        visited.due = Some(Instant::now() + EVERY / 2 + EVERY * share / 256);
        if !is_news(visited.told.as_ref(), &found) {
            return;
        }
        visited.told = Some((found, Instant::now()));
        drop(tiers);
        // Nobody listens before the controllers run.
        let _ = self
            .news
            .send((place.namespace.clone(), place.tier.clone()));
    }
}

fn is_news(told: Option<&(Found, Instant)>, found: &Found) -> bool {
    match told {
        None => true,
        Some((told, _)) if told.answer.is_ok() != found.answer.is_ok() => true,
        Some((told, at)) => told != found && at.elapsed() >= FIGURES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(answers: bool, live: u32) -> Found {
        Found {
            answer: answers.then(String::new).ok_or_else(String::new),
            sidecars: Some(SidecarsStatus {
                live,
                ..SidecarsStatus::default()
            }),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_nobody_asks_for_any_longer_is_not_visited() {
        let visits = Visits::default();
        let place = |tier: &str| Place {
            namespace: "shop".to_owned(),
            tier: tier.to_owned(),
            upstream: Upstream::at("redis.example".to_owned(), 6379),
            username: None,
            password: None,
            sentinel_password: None,
            database: 0,
            prefix: String::new(),
            generation: 1,
        };
        visits.look("gone", place("gone"));
        visits.look("there", place("there"));
        tokio::time::advance(FORGOTTEN / 2).await;
        visits.look("there", place("there"));
        tokio::time::advance(FORGOTTEN / 2).await;
        let due = visits.take_due(10);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].0, "there");
        assert_eq!(visits.count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_news_at_once_and_figures_once_a_minute() {
        assert!(is_news(None, &found(true, 1)));
        let told = (found(true, 1), Instant::now());
        assert!(!is_news(Some(&told), &found(true, 1)));
        assert!(!is_news(Some(&told), &found(true, 2)));
        assert!(is_news(Some(&told), &found(false, 1)));
        tokio::time::advance(FIGURES).await;
        assert!(is_news(Some(&told), &found(true, 2)));
        assert!(!is_news(Some(&told), &found(true, 1)));
    }
}
