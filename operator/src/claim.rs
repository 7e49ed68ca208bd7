//! Two installations must not reconcile the same namespace: a Lease in each namespace names the
//! installation whose tiers live there. The second one says so and stops.
//!
//! The claim is not renewed: it names the installation, whose own Lease tells whether it lives.
//! So a claim costs one write in the life of a namespace, and needs rights in that namespace only.
//! Now and then it is looked at again: a namespace may go, and come again without it.
//!
//! Whoever may write Leases in one namespace can write any claim there. So an installation that has
//! held a namespace is never ended by a claim: it leaves that namespace alone and says so.

use std::{
    collections::HashMap,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{api_error::ApiError, settings::Settings};

/// Name of the Lease in each namespace with tiers.
pub const CLAIM: &str = "pannier-operator-claim";
/// An installation whose Lease was not renewed for so long is gone.
const ABANDONED: SignedDuration = SignedDuration::from_mins(5);
/// So much may the clocks of two installations differ. What is renewed later than that was not
/// renewed by one that lives.
const SKEW: SignedDuration = SignedDuration::from_mins(1);
/// A claim that was seen is not looked for again for so long, nor is one of others told again.
const TRUSTED: Duration = Duration::from_mins(10);
/// For so long after its first look a process may find that some other namespace is its own.
const GRACE: Duration = Duration::from_secs(5);

/// Namespaces that are known to be ours.
#[derive(Default)]
pub struct Claims {
    /// When each was seen to be.
    ours: Mutex<HashMap<String, Instant>>,
    /// Whether one ever was.
    began: AtomicBool,
    /// When one was first found to be another's.
    met: OnceLock<Instant>,
    /// What was told of resources in namespaces that are not ours, and when.
    told: Mutex<HashMap<String, Instant>>,
}

/// Why a namespace is not ours.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another installation has it.
    #[error(
        "namespace {namespace} is reconciled by the installation {other} already; stop one of the two, or give them different --watch-namespace; if {other} is gone: kubectl delete lease -n {namespace} {claim}",
        claim = CLAIM
    )]
    Taken {
        /// The namespace.
        namespace: String,
        /// The other installation.
        other: String,
    },
    /// A call failed.
    #[error(transparent)]
    Api(#[from] ApiError),
}

// === impl Claims ===

impl Claims {
    /// Makes sure that a namespace is ours.
    pub async fn hold(
        &self,
        client: &Client,
        settings: &Settings,
        namespace: &str,
    ) -> Result<(), ClaimError> {
        if self.is_known(namespace) {
            return Ok(());
        }
        claim(client, settings, namespace).await?;
        self.began.store(true, Ordering::Relaxed);
        let mut ours = self.ours.lock();
        ours.insert(namespace.to_owned(), Instant::now());
        Ok(())
    }

    /// Makes sure that a namespace is not another's. Nothing is claimed: in one that is on its way
    /// out no Lease can be made, and what only ends there must not wait for one.
    pub async fn check(
        &self,
        client: &Client,
        settings: &Settings,
        namespace: &str,
    ) -> Result<(), ClaimError> {
        if self.is_known(namespace) {
            return Ok(());
        }
        let id = settings.installation_id();
        other(client, namespace, &id).await.map(drop)
    }

    fn is_known(&self, namespace: &str) -> bool {
        let ours = self.ours.lock();
        let seen = ours.get(namespace);
        seen.is_some_and(|seen| seen.elapsed() < TRUSTED)
    }

    /// Whether this process is a second installation, which has nothing to do here: what it looked
    /// at is another's, and it has held nothing. Asked after each namespace that is another's.
    pub fn is_second(&self) -> bool {
        let met = self.met.get_or_init(Instant::now);
        !self.began.load(Ordering::Relaxed) && met.elapsed() >= GRACE
    }

    /// Whether a resource is to be told now that its namespace is not ours. Each sentence now and
    /// then only: should another installation live there, it writes the same status.
    pub fn tells(&self, resource: &str, error: &ClaimError) -> bool {
        // A second installation writes nothing, and this may be one.
        if matches!(error, ClaimError::Taken { .. }) && !self.began.load(Ordering::Relaxed) {
            return false;
        }
        let mut told = self.told.lock();
        told.retain(|_, at| at.elapsed() < TRUSTED);
        let sentence = format!("{resource}: {error}");
        let new = !told.contains_key(&sentence);
        if new {
            told.insert(sentence, Instant::now());
        }
        new
    }

    /// Looks again next time: the namespace may have been made anew.
    pub fn forget(&self, namespace: &str) {
        self.ours.lock().remove(namespace);
    }
}

/// Who has a namespace.
enum Holder {
    /// Nobody yet.
    Nobody,
    /// This installation.
    We,
    /// One that is gone or never was, by this Lease.
    Gone(Box<Lease>),
}

fn failed(verb: &'static str, namespace: &str, name: &str) -> impl FnOnce(kube::Error) -> ApiError {
    move |source| ApiError {
        verb,
        kind: "Lease".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source,
    }
}

/// Who has the namespace, unless it is another installation that lives.
async fn other(client: &Client, namespace: &str, id: &str) -> Result<Holder, ClaimError> {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(CLAIM).await;
    let found = found.map_err(failed("get", namespace, CLAIM))?;
    let Some(lease) = found else {
        return Ok(Holder::Nobody);
    };
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.clone());
    let holder = holder.unwrap_or_default();
    if holder == id {
        return Ok(Holder::We);
    }
    if lives(client, &holder).await? {
        return Err(ClaimError::Taken {
            namespace: namespace.to_owned(),
            other: holder,
        });
    }
    Ok(Holder::Gone(Box::new(lease)))
}

async fn claim(client: &Client, settings: &Settings, namespace: &str) -> Result<(), ClaimError> {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let id = settings.installation_id();
    let spec = LeaseSpec {
        holder_identity: Some(id.clone()),
        ..LeaseSpec::default()
    };
    match other(client, namespace, &id).await? {
        Holder::We => {}
        Holder::Nobody => {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(CLAIM.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(spec),
            };
            let created = api.create(&PostParams::default(), &lease).await;
            created.map_err(failed("create", namespace, CLAIM))?;
        }
        Holder::Gone(mut lease) => {
            let before = lease.spec.replace(spec);
            let holder = before.and_then(|spec| spec.holder_identity);
            tracing::warn!(
                namespace,
                holder,
                "taking over a namespace: no installation of that name lives"
            );
            let replaced = api.replace(CLAIM, &PostParams::default(), &lease).await;
            replaced.map_err(failed("update", namespace, CLAIM))?;
        }
    }
    Ok(())
}

/// Whether an installation lives, by its own Lease. Who may not look there cannot know that it is
/// gone; a call that fails in another way says nothing.
async fn lives(client: &Client, installation: &str) -> Result<bool, ApiError> {
    let Some((namespace, name)) = parsed(installation) else {
        return Ok(false);
    };
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    match api.get_opt(name).await {
        Ok(lease) => Ok(lease.is_some_and(|lease| is_renewed(&lease, Timestamp::now()))),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(true),
        Err(source) => Err(failed("get", namespace, name)(source)),
    }
}

/// Namespace and name of an installation. Anything else was written by hand, and as a path it might
/// lead anywhere.
fn parsed(installation: &str) -> Option<(&str, &str)> {
    let is_name = |text: &str| {
        let mut bytes = text.bytes();
        bytes.all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
    };
    let (namespace, name) = installation.split_once('/')?;
    (is_name(namespace) && is_name(name)).then_some((namespace, name))
}

/// Between two of its processes an installation has no holder: the time of the renewal decides.
fn is_renewed(lease: &Lease, now: Timestamp) -> bool {
    let spec = lease.spec.as_ref();
    let renewed = spec.and_then(|spec| spec.renew_time.as_ref());
    renewed.is_some_and(|renewed| {
        let age = now.duration_since(renewed.0);
        (-SKEW..=ABANDONED).contains(&age)
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    fn taken() -> ClaimError {
        ClaimError::Taken {
            namespace: "shop".to_owned(),
            other: "a/b".to_owned(),
        }
    }

    #[test]
    fn an_installation_lives_while_its_lease_is_renewed_now() {
        let now = Timestamp::now();
        let renewed = |time| {
            let spec = LeaseSpec {
                renew_time: time,
                ..LeaseSpec::default()
            };
            let lease = Lease {
                spec: Some(spec),
                ..Lease::default()
            };
            is_renewed(&lease, now)
        };
        assert!(renewed(Some(MicroTime(now))));
        assert!(renewed(Some(MicroTime(now + SKEW))), "clocks differ");
        assert!(!renewed(Some(MicroTime(now + SKEW * 2))));
        assert!(!renewed(Some(MicroTime(now - ABANDONED * 2))));
        assert!(!renewed(None));
        assert_eq!(parsed("ops/pannier"), Some(("ops", "pannier")));
        for no in ["", "x", "/x", "x/", "a/b/c", "a/..", "../a", "a/B", "a/b?c"] {
            assert_eq!(parsed(no), None, "{no}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_has_held_a_namespace_is_no_second_installation() {
        let claims = Claims::default();
        assert!(!claims.is_second(), "others may be its own");
        assert!(!claims.tells("CacheTier shop/t", &taken()));
        tokio::time::advance(GRACE).await;
        assert!(claims.is_second());
        claims.began.store(true, Ordering::Relaxed);
        assert!(!claims.is_second());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_anothers_is_told_of_each_resource_now_and_then_only() {
        let claims = Claims::default();
        claims.began.store(true, Ordering::Relaxed);
        for round in 0..2 {
            for resource in ["CacheTier shop/t", "CacheTier shop/u"] {
                assert!(claims.tells(resource, &taken()), "{round} {resource}");
                assert!(!claims.tells(resource, &taken()), "{round} {resource}");
            }
            tokio::time::advance(TRUSTED).await;
        }
    }
}
