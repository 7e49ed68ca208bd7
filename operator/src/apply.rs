//! Brings one object to its wanted state: server-side apply, and only when something differs.
//!
//! It reads the object afresh each time: a cache that is behind can neither hide a change nor
//! make it write over a stranger's object. What others own in the object stays as it is.

pub mod compare;

use std::fmt::Debug;

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy},
};
use policy::names;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{api_error::ApiError, fingerprint};

/// Objects of one namespace that belong to one owner.
pub struct Applier<'a> {
    /// The client.
    pub client: &'a Client,
    /// Where the objects are.
    pub namespace: &'a str,
    /// By what an object is known to be ours.
    pub owner: Owner,
}

/// By what an object is known to be ours.
#[derive(Clone, Debug, PartialEq)]
pub enum Owner {
    /// By its owner reference: in the namespace of the tier.
    Reference(OwnerReference),
    /// By a label with the UID: in other namespaces, where no owner reference can point.
    Label(String),
}

/// What was done.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied<K> {
    /// It was as wanted.
    Unchanged(K),
    /// It is new.
    Created(K),
    /// It differed.
    Changed(K),
    /// One of the same name is on its way out; a new one follows when it is gone.
    Terminating,
}

/// Why an object could not be brought to its state.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A call failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// An object of that name belongs to a tier of the same name that was deleted.
    #[error(
        "{kind} {namespace}/{name} belongs to a former tier of this name; waiting until Kubernetes has removed it"
    )]
    Former {
        /// Its kind.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// An object of that name belongs to somebody else.
    #[error(
        "{kind} {namespace}/{name} exists and does not belong to this tier; delete or rename it, or give the tier another name"
    )]
    NotOurs {
        /// Its kind.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// What every kind of object that we write is.
pub trait Child:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Serialize
    + DeserializeOwned
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
}

impl<K> Child for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static
{
}

// === impl Applied ===

impl<K> Applied<K> {
    /// The object as it is now, unless it is on its way out.
    pub fn object(&self) -> Option<&K> {
        match self {
            Self::Unchanged(object) | Self::Created(object) | Self::Changed(object) => Some(object),
            Self::Terminating => None,
        }
    }

    /// Whether something was written.
    pub fn wrote(&self) -> bool {
        matches!(self, Self::Created(_) | Self::Changed(_))
    }
}

// === impl Owner ===

impl Owner {
    /// Whether an object belongs to this owner.
    pub fn owns<K: Resource>(&self, object: &K) -> bool {
        match self {
            Self::Reference(owner) => object
                .owner_references()
                .iter()
                .any(|reference| reference.uid == owner.uid),
            Self::Label(uid) => object.labels().get(names::OWNER_UID) == Some(uid),
        }
    }

    /// Whether an object belongs to an owner of the same kind and name that was there before: it is
    /// on its way out, and nothing of it is taken over.
    pub fn is_former_of<K: Resource>(&self, object: &K) -> bool {
        let Self::Reference(owner) = self else {
            return false;
        };
        object.owner_references().iter().any(|reference| {
            reference.api_version == owner.api_version
                && reference.kind == owner.kind
                && reference.name == owner.name
                && reference.uid != owner.uid
        })
    }

    /// What to say about an object that is not ours.
    pub fn stranger<K: Resource<DynamicType = ()>>(&self, object: &K) -> ApplyError {
        let kind = K::kind(&()).into_owned();
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        let name = object.meta().name.clone().unwrap_or_default();
        if self.is_former_of(object) {
            ApplyError::Former {
                kind,
                namespace,
                name,
            }
        } else {
            ApplyError::NotOurs {
                kind,
                namespace,
                name,
            }
        }
    }

    fn mark<K: Resource>(&self, object: &mut K) {
        match self {
            Self::Reference(owner) => *object.owner_references_mut() = vec![owner.clone()],
            Self::Label(uid) => {
                object
                    .labels_mut()
                    .insert(names::OWNER_UID.to_owned(), uid.clone());
            }
        }
    }
}

// === impl Applier ===

impl Applier<'_> {
    /// Brings the object to its wanted state.
    pub async fn apply<K: Child>(&self, mut wanted: K) -> Result<Applied<K>, ApplyError> {
        let name = wanted.name_any();
        self.owner.mark(&mut wanted);
        wanted.meta_mut().namespace = Some(self.namespace.to_owned());
        let mut wanted = to_json(&wanted);
        wanted["metadata"]["annotations"][names::APPLIED] = fingerprint::of(&wanted).into();
        let live = self.get::<K>(&name).await?;
        if let Some(live) = &live {
            if live.meta().deletion_timestamp.is_some() {
                return Ok(Applied::Terminating);
            }
            if !self.owner.owns(live) {
                return Err(self.owner.stranger(live));
            }
            if compare::covers(&to_json(live), &wanted) {
                return Ok(Applied::Unchanged(live.clone()));
            }
            // Should another object have taken its place meanwhile, the API server refuses.
            wanted["metadata"]["uid"] = live.uid().into();
        }
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        let patched = self
            .api::<K>()
            .patch(&name, &params, &Patch::Apply(&wanted))
            .await;
        let object = match (patched, &live) {
            (Ok(object), _) => object,
            // An edit may have left entries in a list that cannot stand beside ours, such as a
            // port of the same name: then the lists become ours alone.
            (Err(kube::Error::Api(status)), Some(live)) if status.code == 422 => {
                self.replace(live, &wanted).await?
            }
            (Err(source), _) => return Err(self.failed::<K>("patch", &name, source).into()),
        };
        tracing::info!(
            kind = %K::kind(&()), namespace = self.namespace, name,
            created = live.is_none(), "applied"
        );
        Ok(match live {
            None => Applied::Created(object),
            Some(_) => Applied::Changed(object),
        })
    }

    /// Writes the object as it was read, with what is wanted laid over it.
    async fn replace<K: Child>(&self, live: &K, wanted: &Value) -> Result<K, ApiError> {
        let name = live.name_any();
        let mut merged = to_json(live);
        compare::lay_over(&mut merged, wanted);
        let failed = |source| self.failed::<K>("update", &name, source);
        let merged: K = serde_json::from_value(merged)
            .map_err(|error| failed(kube::Error::SerdeError(error)))?;
        let params = PostParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let replaced = self.api::<K>().replace(&name, &params, &merged).await;
        replaced.map_err(failed)
    }

    /// Deletes the object of that name if it is ours. Never one that changed since it was read.
    pub async fn remove<K: Child>(&self, name: &str) -> Result<bool, ApplyError> {
        match self.get::<K>(name).await? {
            Some(live) if self.owner.owns(&live) && live.meta().deletion_timestamp.is_none() => {
                self.delete(&live).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Deletes exactly the object that was read.
    pub async fn delete<K: Child>(&self, live: &K) -> Result<(), ApplyError> {
        let name = live.name_any();
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: live.uid(),
                resource_version: live.resource_version(),
            }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        match self.api::<K>().delete(&name, &params).await {
            Ok(_) => {
                tracing::info!(
                    kind = %K::kind(&()), namespace = self.namespace, name, "deleted"
                );
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(self.failed::<K>("delete", &name, source).into()),
        }
    }

    /// The object of that name, or the certainty that there is none.
    pub async fn get<K: Child>(&self, name: &str) -> Result<Option<K>, ApiError> {
        self.api::<K>()
            .get_opt(name)
            .await
            .map_err(|source| self.failed::<K>("get", name, source))
    }

    fn api<K: Child>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    fn failed<K: Child>(&self, verb: &'static str, name: &str, source: kube::Error) -> ApiError {
        ApiError {
            verb,
            kind: K::kind(&()).into_owned(),
            namespace: self.namespace.to_owned(),
            name: name.to_owned(),
            source,
        }
    }
}

fn to_json<K: Serialize>(object: &K) -> Value {
    serde_json::to_value(object).expect("an object of the API is JSON")
}
