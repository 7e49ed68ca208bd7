//! Leader election: one process of an installation reconciles, by a Lease; losing it ends the
//! process, so that two can never work at a time for longer than clocks differ.
//!
//! The Lease is written with its resource version, so of two candidates one wins. A holder that
//! could not renew tries again at short intervals for `GIVE_UP`, and ends before others may take over
//! after `DURATION`, which they time by their own clock from the moment when they saw the Lease change.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::Instant;

const DURATION: Duration = Duration::from_secs(15);
const GIVE_UP: Duration = Duration::from_secs(10);
const RENEW: Duration = Duration::from_secs(3);
/// After a renewal that failed.
const AGAIN: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(4);

// The last renewal may have been written up to TIMEOUT before its answer came.
const _: () = assert!(GIVE_UP.as_secs() + TIMEOUT.as_secs() < DURATION.as_secs());

/// One candidate.
pub struct Leader {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// Holder and renewal as last seen, and when they changed.
    seen: Option<(Option<String>, Option<MicroTime>, Instant)>,
}

/// Why leadership ended.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Somebody else has the Lease.
    #[error("the lease {0} was taken by {1}")]
    Taken(String, String),
    /// It could not be renewed in time.
    #[error("the lease {0} could not be renewed for {1} s: {2}")]
    NotRenewed(String, u64, String),
}

enum Attempt {
    Held,
    Of(String),
}

// === impl Leader ===

impl Leader {
    /// A candidate for the Lease of that name.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            seen: None,
        }
    }

    /// Waits until this process holds the Lease.
    pub async fn acquire(&mut self) {
        loop {
            match self.attempt(TIMEOUT).await {
                Ok(Attempt::Held) => return,
                Ok(Attempt::Of(holder)) => {
                    tracing::debug!(holder, "another process leads");
                }
                Err(error) => {
                    tracing::warn!(
                        error,
                        lease = self.name,
                        "failed to get the lease; trying again"
                    );
                }
            }
            tokio::time::sleep(RENEW).await;
        }
    }

    /// Renews the Lease until it is lost.
    pub async fn hold(&mut self) -> Lost {
        let (mut renewed, mut pause) = (Instant::now(), RENEW);
        loop {
            tokio::time::sleep(pause).await;
            // No attempt lasts beyond the moment at which it would come too late.
            let left = GIVE_UP.saturating_sub(renewed.elapsed());
            let why = match self.attempt(left.min(TIMEOUT)).await {
                Ok(Attempt::Held) => {
                    (renewed, pause) = (Instant::now(), RENEW);
                    continue;
                }
                Ok(Attempt::Of(holder)) => return Lost::Taken(self.name.clone(), holder),
                Err(why) => why,
            };
            tracing::warn!(error = why, lease = self.name, "failed to renew the lease");
            let since = renewed.elapsed();
            if since + AGAIN >= GIVE_UP {
                return Lost::NotRenewed(self.name.clone(), since.as_secs(), why);
            }
            pause = AGAIN;
        }
    }

    /// Gives the Lease back, so that the next process need not wait.
    pub async fn release(&mut self) {
        let Ok(Ok(Some(mut lease))) =
            tokio::time::timeout(TIMEOUT, self.api.get_opt(&self.name)).await
        else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() == Some(&self.identity) {
            spec.holder_identity = None;
            let params = PostParams::default();
            let replace = self.api.replace(&self.name, &params, &lease);
            let _ = tokio::time::timeout(TIMEOUT, replace).await;
        }
    }

    async fn attempt(&mut self, patience: Duration) -> Result<Attempt, String> {
        match tokio::time::timeout(patience, self.try_once()).await {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(_) => Err("the API server did not answer in time".to_owned()),
        }
    }

    async fn try_once(&mut self) -> kube::Result<Attempt> {
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    acquire_time: Some(now.clone()),
                    lease_transitions: Some(0),
                    ..self.spec(now)
                }),
            };
            return Self::written(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.get_or_insert_default();
        let mine = spec.holder_identity.as_ref() == Some(&self.identity);
        let state = (spec.holder_identity.clone(), spec.renew_time.clone());
        let since = match &self.seen {
            Some((holder, renewed, since)) if (holder, renewed) == (&state.0, &state.1) => *since,
            _ => Instant::now(),
        };
        self.seen = Some((state.0, state.1, since));
        let held_for = Duration::from_secs(
            spec.lease_duration_seconds
                .and_then(|seconds| seconds.try_into().ok())
                .unwrap_or(DURATION.as_secs()),
        );
        if let Some(holder) = &spec.holder_identity
            && !mine
            && since.elapsed() < held_for
        {
            return Ok(Attempt::Of(holder.clone()));
        }
        let transitions = spec.lease_transitions.unwrap_or_default();
        *spec = LeaseSpec {
            acquire_time: if mine {
                spec.acquire_time.clone()
            } else {
                Some(now.clone())
            },
            lease_transitions: Some(transitions + i32::from(!mine)),
            ..self.spec(now)
        };
        let params = PostParams::default();
        let replaced = self.api.replace(&self.name, &params, &lease).await;
        Self::written(replaced)
    }

    fn spec(&self, now: MicroTime) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }

    /// A conflict means that somebody else wrote first: who, the next attempt sees.
    fn written(result: kube::Result<Lease>) -> kube::Result<Attempt> {
        match result {
            Ok(_) => Ok(Attempt::Held),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Ok(Attempt::Of("another process, just now".to_owned()))
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io, pin::pin, sync::Arc};

    use http::{Request, Response};
    use kube::client::Body;
    use parking_lot::Mutex;
    use tokio::time::timeout;

    use super::*;

    /// What the API server answers to every call.
    #[derive(Clone, Copy, Debug)]
    enum Answer {
        Lease,
        Broken,
        Nothing,
    }

    fn candidate(answer: &Arc<Mutex<Answer>>) -> Leader {
        let answer = Arc::clone(answer);
        let server = tower::service_fn(move |_: Request<Body>| {
            let answer = *answer.lock();
            async move {
                match answer {
                    Answer::Lease => {
                        let lease = serde_json::json!({
                            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                            "metadata": {"name": "l"}, "spec": {"holderIdentity": "me"},
                        });
                        Ok(Response::new(Body::from(lease.to_string().into_bytes())))
                    }
                    Answer::Broken => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                    Answer::Nothing => std::future::pending().await,
                }
            }
        });
        Leader::new(Client::new(server, "ns"), "ns", "l", "me")
    }

    #[tokio::test(start_paused = true)]
    async fn renewals_may_fail_for_a_moment_and_not_for_long() {
        for fault in [Answer::Broken, Answer::Nothing] {
            let answer = Arc::new(Mutex::new(Answer::Lease));
            let mut leader = candidate(&answer);
            leader.acquire().await;
            let mut hold = pin!(leader.hold());
            for _ in 0..3 {
                // Over before the attempt after the first that it meets.
                *answer.lock() = fault;
                let fails = TIMEOUT + AGAIN / 2;
                assert!(timeout(fails, &mut hold).await.is_err(), "{fault:?}");
                *answer.lock() = Answer::Lease;
                assert!(timeout(GIVE_UP, &mut hold).await.is_err(), "{fault:?}");
            }
            *answer.lock() = fault;
            let began = Instant::now();
            let lost = hold.await;
            let Lost::NotRenewed(_, seconds, _) = &lost else {
                panic!("{lost}")
            };
            assert!((9..=10).contains(seconds), "{lost}");
            assert!(began.elapsed() + TIMEOUT < DURATION, "{lost}");
        }
    }
}
