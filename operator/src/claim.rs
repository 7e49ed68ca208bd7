//! Two installations must not reconcile the same namespace: a Lease in each namespace names the
//! installation whose tiers live there. The second one says so and stops.
//!
//! The claim is not renewed: it names the installation, whose own Lease tells whether it lives.
//! So a claim costs one write in the life of a namespace, and needs rights in that namespace only.

use std::collections::HashSet;

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

/// Namespaces that are known to be ours.
#[derive(Default)]
pub struct Claims {
    ours: Mutex<HashSet<String>>,
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
        if self.ours.lock().contains(namespace) {
            return Ok(());
        }
        claim(client, settings, namespace).await?;
        self.ours.lock().insert(namespace.to_owned());
        Ok(())
    }

    /// Looks again next time: the namespace may have been made anew.
    pub fn forget(&self, namespace: &str) {
        self.ours.lock().remove(namespace);
    }
}

async fn claim(client: &Client, settings: &Settings, namespace: &str) -> Result<(), ClaimError> {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let failed = |verb| {
        move |source| ApiError {
            verb,
            kind: "Lease".to_owned(),
            namespace: namespace.to_owned(),
            name: CLAIM.to_owned(),
            source,
        }
    };
    let id = settings.installation_id();
    let spec = LeaseSpec {
        holder_identity: Some(id.clone()),
        ..LeaseSpec::default()
    };
    match api.get_opt(CLAIM).await.map_err(failed("get"))? {
        None => {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(CLAIM.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(spec),
            };
            let created = api.create(&PostParams::default(), &lease).await;
            created.map_err(failed("create"))?;
        }
        Some(mut lease) => {
            let holder = lease
                .spec
                .as_ref()
                .and_then(|spec| spec.holder_identity.clone())
                .unwrap_or_default();
            if holder == id {
                return Ok(());
            }
            if !abandoned(client, &holder).await {
                return Err(ClaimError::Taken {
                    namespace: namespace.to_owned(),
                    other: holder,
                });
            }
            tracing::warn!(
                namespace,
                holder,
                "taking over a namespace: its installation is gone"
            );
            lease.spec = Some(spec);
            let replaced = api.replace(CLAIM, &PostParams::default(), &lease).await;
            replaced.map_err(failed("update"))?;
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
