//! Two installations must not reconcile the same namespace: a Lease in each namespace names the
//! installation whose tiers live there. The second one says so and stops.
//!
//! The claim is not renewed: it names the installation, whose own Lease tells whether it lives.
//! So a claim costs one write in the life of a namespace, and needs rights in that namespace only.
//! Now and then it is looked at again: a namespace may go, and come again without it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
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

use crate::{api_error::ApiError, settings::Settings};

/// Name of the Lease in each namespace with tiers.
pub const CLAIM: &str = "pannier-operator-claim";
/// An installation whose Lease was not renewed for so long is gone.
const ABANDONED: SignedDuration = SignedDuration::from_mins(5);
/// A claim that was seen is not looked for again for so long.
const TRUSTED: Duration = Duration::from_mins(10);

/// Namespaces that are known to be ours.
#[derive(Default)]
pub struct Claims {
    /// When each was seen to be.
    ours: Mutex<HashMap<String, Instant>>,
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
    /// One that is gone, by this Lease.
    Gone(Box<Lease>),
}

fn failed(verb: &'static str, namespace: &str) -> impl FnOnce(kube::Error) -> ApiError {
    move |source| ApiError {
        verb,
        kind: "Lease".to_owned(),
        namespace: namespace.to_owned(),
        name: CLAIM.to_owned(),
        source,
    }
}

/// Who has the namespace, unless it is another installation that lives.
async fn other(client: &Client, namespace: &str, id: &str) -> Result<Holder, ClaimError> {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(CLAIM).await.map_err(failed("get", namespace))?;
    let Some(lease) = found else {
        return Ok(Holder::Nobody);
    };
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.clone());
    let holder = holder.unwrap_or_default();
    if holder == id {
        return Ok(Holder::We);
    }
    if !abandoned(client, &holder).await {
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
            created.map_err(failed("create", namespace))?;
        }
        Holder::Gone(mut lease) => {
            let before = lease.spec.replace(spec);
            let holder = before.and_then(|spec| spec.holder_identity);
            tracing::warn!(
                namespace,
                holder,
                "taking over a namespace: its installation is gone"
            );
            let replaced = api.replace(CLAIM, &PostParams::default(), &lease).await;
            replaced.map_err(failed("update", namespace))?;
        }
    }
    Ok(())
}

/// Whether an installation is known to be gone. What cannot be read is alive.
async fn abandoned(client: &Client, installation: &str) -> bool {
    let Some((namespace, name)) = installation.split_once('/') else {
        return installation.is_empty();
    };
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    match api.get_opt(name).await {
        Ok(None) => true,
        Ok(Some(lease)) => lease
            .spec
            .and_then(|spec| spec.renew_time)
            .is_some_and(|renewed| Timestamp::now().duration_since(renewed.0) > ABANDONED),
        Err(_) => false,
    }
}
