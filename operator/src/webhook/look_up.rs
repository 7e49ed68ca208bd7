//! What the injector has to know beside the pod: the labels of its namespace, and the tier.
//!
//! Both are watched, so an admission costs no call. What a watch does not know, because it is new
//! or the right to watch is missing, is asked for.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Resource as _, ResourceExt as _, api::PartialObjectMeta};
use kube_runtime::{
    WatchStreamExt as _,
    reflector::{self, ObjectRef, Store, reflector},
    watcher,
};

use crate::{
    cache_tier::Guarded,
    context::Ctx,
    injector::{Found, TierName, wish::Labels},
    settings::Scope,
};

/// The whole admission has five seconds.
const PATIENCE: Duration = Duration::from_secs(2);
const LISTS: &str = "the list of tiers";

/// What is watched.
pub struct LookUp {
    client: Client,
    scope: Scope,
    tiers: Vec<Store<Guarded>>,
    namespaces: Store<PartialObjectMeta<Namespace>>,
}

// === impl LookUp ===

impl LookUp {
    /// Begins to watch; the second part is to be polled.
    pub fn start(ctx: &Arc<Ctx>) -> (Self, impl Future<Output = ()> + use<>) {
        ctx.readiness.needs(LISTS);
        let mut tiers = Vec::new();
        let mut watches: Vec<BoxFuture<'static, ()>> = Vec::new();
        let places: Vec<Api<Guarded>> = match &ctx.settings.scope {
            Scope::Cluster => vec![Api::all(ctx.client.clone())],
            Scope::Namespaces(names) => names
                .iter()
                .map(|name| Api::namespaced(ctx.client.clone(), name))
                .collect(),
        };
        for api in places {
            let (store, writer) = reflector::store();
            let events = watcher(api, watcher::Config::default().any_semantic());
            let events = events.default_backoff().modify(|tier| {
                tier.managed_fields_mut().clear();
            });
            let seen = reflector(writer, events).for_each(|_| std::future::ready(()));
            watches.push(seen.boxed());
            tiers.push(store);
        }
        let (namespaces, writer) = reflector::store();
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(ctx.client.clone());
        let events = watcher(api, watcher::Config::default().any_semantic());
        let events = events.default_backoff().modify(|namespace| {
            namespace.managed_fields_mut().clear();
        });
        let seen = reflector(writer, events).for_each(|_| std::future::ready(()));
        watches.push(seen.boxed());
        watches.push(ready(ctx.clone(), tiers.clone()).boxed());
        let look_up = Self {
            client: ctx.client.clone(),
            scope: ctx.settings.scope.clone(),
            tiers,
            namespaces,
        };
        let all = futures_util::future::join_all(watches).map(|_| ());
        (look_up, all)
    }

    /// Labels of a namespace.
    pub async fn namespace(&self, name: &str) -> Result<Labels, String> {
        let known = self.namespaces.get(&ObjectRef::new(name));
        if let Some(namespace) = known {
            return Ok(namespace.labels().clone());
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        match tokio::time::timeout(PATIENCE, api.get_metadata(name)).await {
            Ok(Ok(namespace)) => Ok(namespace.labels().clone()),
            Ok(Err(error)) => Err(format!("failed to get namespace {name}: {error}")),
            Err(_) => Err(format!("failed to get namespace {name}: no answer in time")),
        }
    }

    /// A tier.
    pub async fn tier(&self, wanted: &TierName) -> Found {
        if let Scope::Namespaces(names) = &self.scope
            && !names.contains(&wanted.namespace)
        {
            return Found::NotWatched;
        }
        let key = ObjectRef::new(&wanted.name).within(&wanted.namespace);
        if let Some(tier) = self.tiers.iter().find_map(|store| store.get(&key)) {
            return usable(wanted, (*tier).clone());
        }
        let api: Api<Guarded> = Api::namespaced(self.client.clone(), &wanted.namespace);
        match tokio::time::timeout(PATIENCE, api.get_opt(&wanted.name)).await {
            Ok(Ok(Some(tier))) => usable(wanted, tier),
            Ok(Ok(None)) => Found::Unknown(format!("there is no CacheTier {wanted}")),
            Ok(Err(error)) => Found::Unreadable(error.to_string()),
            Err(_) => Found::Unreadable("the API server did not answer in time".to_owned()),
        }
    }
}

/// Ready when the tiers have been listed once.
async fn ready(ctx: Arc<Ctx>, tiers: Vec<Store<Guarded>>) {
    for store in &tiers {
        if store.wait_until_ready().await.is_err() {
            return;
        }
    }
    ctx.readiness.has(LISTS);
}

fn usable(wanted: &TierName, tier: Guarded) -> Found {
    if tier.meta().deletion_timestamp.is_some() {
        return Found::Unknown(format!("CacheTier {wanted} is being deleted"));
    }
    match tier.0 {
        Ok(tier) => Found::Tier(Box::new(tier)),
        Err(invalid) => Found::Unknown(format!(
            "CacheTier {wanted} does not fit this version of the operator: {}",
            invalid.error
        )),
    }
}
