//! One watch of one kind. It pauses by itself after a failure, so that one missing right does not
//! hold up the other watches; it tells when it may not watch, and when it had to begin anew: then
//! what went away meanwhile was missed, and everything is looked at again.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use kube::{Api, Resource, core::Status};
use kube_runtime::{
    WatchStreamExt as _,
    utils::Backoff,
    watcher::{self, Config, Error, Event, watcher},
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::{sync::watch, time::Instant};

use crate::retry;

/// First pause after a failed watch; doubled each time.
const FIRST: Duration = Duration::from_millis(250);
/// Longest pause after a failed watch.
const LONGEST: Duration = Duration::from_secs(8);
/// A watch that has not failed for so long works.
const CALM: Duration = Duration::from_secs(30);

/// How all watches of the process are.
pub struct Watches {
    /// By kind and namespace: the last refusal.
    refused: Mutex<BTreeMap<(String, Option<String>), Refused>>,
    /// Counts occasions to look at everything again.
    anew: watch::Sender<u64>,
}

struct Refused {
    why: String,
    at: Instant,
}

impl Default for Watches {
    fn default() -> Self {
        Self {
            refused: Mutex::default(),
            anew: watch::Sender::new(0),
        }
    }
}

// === impl Watches ===

impl Watches {
    /// Kinds whose changes are not told to the operator, each with the API server's sentence.
    /// `namespaces` are among them only where they matter.
    pub fn refused(&self, namespace: &str, with_namespaces: bool) -> Vec<String> {
        let refused = self.refused.lock();
        let here = refused.iter().filter(|((kind, place), refused)| {
            place.as_deref().is_none_or(|place| place == namespace)
                && refused.at.elapsed() < CALM
                && (with_namespaces || kind != "Namespace")
        });
        here.map(|((kind, _), refused)| format!("{kind}: {}", refused.why))
            .collect()
    }

    /// An item each time when everything is to be looked at again.
    pub fn anew(&self) -> impl Stream<Item = ()> + Send + use<> {
        stream::unfold(self.anew.subscribe(), |mut anew| async move {
            anew.changed().await.ok()?;
            Some(((), anew))
        })
    }

    fn look_again(&self) {
        self.anew.send_modify(|count| *count += 1);
    }

    fn failed(&self, kind: &str, namespace: Option<&str>, error: &Error) {
        if !matches!(status(error), Some(status) if [401, 403].contains(&status.code)) {
            tracing::info!(kind, namespace, %error, "a watch broke; it begins again");
            return;
        }
        let why = status(error).map(|status| status.message.clone());
        let why = why.unwrap_or_default();
        let refused = Refused {
            why: why.clone(),
            at: Instant::now(),
        };
        let key = (kind.to_owned(), namespace.map(ToOwned::to_owned));
        let before = self.refused.lock().insert(key, refused);
        if before.is_none_or(|before| before.why != why || before.at.elapsed() > CALM) {
            tracing::warn!(
                kind,
                namespace,
                why,
                "changes cannot be watched; looking instead"
            );
            self.look_again();
        }
    }

    fn works(&self, kind: &str, namespace: Option<&str>) {
        let key = (kind.to_owned(), namespace.map(ToOwned::to_owned));
        if self.refused.lock().remove(&key).is_some() {
            tracing::info!(kind, namespace, "changes are watched again");
            self.look_again();
        }
    }
}

/// The changes of a kind in a namespace, or in all; of `PartialObjectMeta`, metadata only.
pub fn events<K>(
    watches: &Arc<Watches>,
    api: Api<K>,
    place: Option<&str>,
    config: Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let (watches, place) = (Arc::clone(watches), place.map(ToOwned::to_owned));
    let mut complete = false;
    renewed(move || watcher(api.clone(), config.clone()))
        .backoff(Pauses::default())
        .inspect(move |event| {
            let (kind, place) = (K::kind(&()), place.as_deref());
            match event {
                Err(error) => watches.failed(&kind, place, error),
                Ok(Event::InitDone) => {
                    watches.works(&kind, place);
                    if std::mem::replace(&mut complete, true) {
                        watches.look_again();
                    }
                }
                Ok(Event::Apply(_) | Event::Delete(_)) => watches.works(&kind, place),
                Ok(Event::Init | Event::InitApply(_)) => {}
            }
        })
}

/// Begins with a list again when the API server no longer knows the version to go on from; the
/// library asks for the same version for ever when the refusal is an answer and not an event.
fn renewed<K, S>(
    make: impl Fn() -> S + Send + 'static,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Send + 'static,
    S: Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
{
    let first = Box::pin(make());
    stream::unfold((make, first), |(make, mut events)| async move {
        let event = events.next().await?;
        if let Err(error @ Error::WatchStartFailed(_)) = &event
            && status(error).is_some_and(|status| status.code == 410)
        {
            events = Box::pin(make());
        }
        Some((event, (make, events)))
    })
}

fn status(error: &Error) -> Option<&Status> {
    match error {
        Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status))
        | Error::WatchFailed(kube::Error::Api(status))
        | Error::WatchError(status) => Some(status),
        _ => None,
    }
}

/// Growing pauses with jitter, short again when nothing has failed for a while. An event alone does
/// not say that a watch works: each attempt begins with one.
#[derive(Default)]
struct Pauses {
    failures: u32,
    last: Option<Instant>,
    random: RandomState,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.last.is_some_and(|last| last.elapsed() > CALM) {
            self.failures = 0;
        }
        self.last = Some(Instant::now());
        self.failures = self.failures.saturating_add(1);
        let chance = self.random.hash_one(self.failures);
        Some(retry::pause(FIRST, LONGEST, self.failures, chance))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_limit_and_are_short_after_a_calm_time() {
        let mut pauses = Pauses::default();
        let mut next = || {
            pauses.reset();
            pauses.next().unwrap()
        };
        assert!(next() <= FIRST);
        for _ in 0..20 {
            assert!(next() <= LONGEST);
        }
        assert!(next() >= LONGEST / 2, "an event in between is no success");
        tokio::time::advance(CALM * 2).await;
        assert!(next() <= FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_told_where_it_matters_until_it_is_over() {
        let watches = Watches::default();
        let refusal = || {
            let status = Status::failure("pods is forbidden", "Forbidden").with_code(403);
            Error::WatchStartFailed(kube::Error::Api(status.boxed()))
        };
        let mut anew = std::pin::pin!(watches.anew());
        watches.failed("Pod", Some("a"), &refusal());
        watches.failed("Namespace", None, &refusal());
        assert_eq!(watches.refused("a", false), ["Pod: pods is forbidden"]);
        assert_eq!(watches.refused("a", true).len(), 2);
        assert_eq!(watches.refused("b", false), [""; 0]);
        assert_eq!(anew.next().await, Some(()), "conditions are to be written");
        watches.works("Pod", Some("a"));
        assert_eq!(watches.refused("a", false), [""; 0]);
        // Where the right came back and nothing has happened since.
        watches.failed("Pod", Some("a"), &refusal());
        tokio::time::advance(CALM * 2).await;
        assert_eq!(watches.refused("a", false), [""; 0]);
    }
}
