//! Events about what became of a pod, on its owner, written after the answer: an admission never
//! waits for one, and a dry run has none.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference, Pod};
use kube::{Api, Client};
use kube_runtime::events::{Event, EventType};
use policy::names;
use tokio::sync::mpsc;

use crate::{
    context::Ctx,
    injector::{Request, TierName},
};

/// More wait for nobody: they are for convenience, and the count of lost ones is a metric.
const QUEUE: usize = 1024;
/// Events that are written at a time.
const AT_A_TIME: usize = 4;
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of a pod.
#[derive(Clone, Debug)]
pub enum Told {
    /// It has the sidecar of this tier.
    Injected(TierName),
    /// It has none: why.
    Skipped(String),
    /// A variable does not lead to the sidecar.
    NotReplaced(String),
}

/// Takes what is to be told.
#[derive(Clone)]
pub struct Teller {
    queue: mpsc::Sender<(ObjectReference, Told)>,
    ctx: Arc<Ctx>,
}

// === impl Teller ===

impl Teller {
    /// Queues an event, unless nothing may be done beside answering.
    pub fn tell(&self, request: &Request, told: Told) {
        if request.dry_run {
            return;
        }
        let about = owner(&request.pod, &request.namespace);
        if self.queue.try_send((about, told)).is_err() {
            self.ctx.metrics.events_lost.inc();
        }
    }
}

/// Begins; the second part is to be polled.
pub fn start(ctx: &Arc<Ctx>) -> (Teller, impl Future<Output = ()> + use<>) {
    let (queue, waiting) = mpsc::channel(QUEUE);
    let teller = Teller {
        queue,
        ctx: ctx.clone(),
    };
    let ctx = ctx.clone();
    let waiting = futures_util::stream::unfold(waiting, |mut waiting| async move {
        let next = waiting.recv().await?;
        Some((next, waiting))
    });
    let telling = waiting.for_each_concurrent(AT_A_TIME, move |(about, told)| {
        let ctx = ctx.clone();
        async move {
            let publish = publish(&ctx, &about, told);
            if tokio::time::timeout(PATIENCE, publish).await.is_err() {
                ctx.metrics.events_lost.inc();
            }
        }
    });
    (teller, telling)
}

/// Who made the pod: the pod itself has no UID yet.
fn owner(pod: &Pod, namespace: &str) -> ObjectReference {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let owner = owners.iter().find(|owner| owner.controller == Some(true));
    match owner {
        Some(owner) => ObjectReference {
            api_version: Some(owner.api_version.clone()),
            kind: Some(owner.kind.clone()),
            name: Some(owner.name.clone()),
            uid: Some(owner.uid.clone()),
            namespace: Some(namespace.to_owned()),
            ..ObjectReference::default()
        },
        None => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.metadata.name.clone().unwrap_or_else(|| {
                let prefix = pod.metadata.generate_name.clone();
                prefix.unwrap_or_default()
            })),
            namespace: Some(namespace.to_owned()),
            ..ObjectReference::default()
        },
    }
}

async fn publish(ctx: &Ctx, about: &ObjectReference, told: Told) {
    let namespace = about.namespace.as_deref().unwrap_or_default();
    let (type_, reason, note) = match told {
        Told::Injected(tier) => {
            let waits = missing(&ctx.client, namespace, &tier).await;
            let type_ = if waits.is_some() {
                EventType::Warning
            } else {
                EventType::Normal
            };
            let note = format!("its pods get the sidecar of CacheTier {tier}");
            (type_, "Injected", note + &waits.unwrap_or_default())
        }
        Told::Skipped(why) => (EventType::Warning, "InjectionSkipped", why),
        Told::NotReplaced(why) => (EventType::Warning, "RedisUrlNotReplaced", why),
    };
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note.chars().take(1000).collect()),
        action: "Inject".to_owned(),
        secondary: None,
    };
    if let Err(error) = ctx.recorder.publish(&event, about).await {
        tracing::debug!(%error, namespace, "failed to publish an event");
        ctx.metrics.events_lost.inc();
    }
}

/// A pod whose configuration is not there yet waits for its volume; the event says for what.
async fn missing(client: &Client, namespace: &str, tier: &TierName) -> Option<String> {
    let name = names::sidecar_objects(&tier.name);
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    // Without the right to look nothing is claimed.
    let found = api.get_metadata_opt(&name).await.ok()?;
    found.is_none().then(|| {
        format!(
            "; they wait for ConfigMap {name}, which is not there yet: kubectl describe cachetier -n {} {}",
            tier.namespace, tier.name
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_about_the_owner_or_else_about_the_pod() {
        let pod =
            |metadata| -> Pod { serde_json::from_value(json!({"metadata": metadata})).unwrap() };
        let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "u", "controller": true});
        let other = json!({"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "v"});
        let about = owner(&pod(json!({"ownerReferences": [other, set]})), "app");
        assert_eq!(about.kind.as_deref(), Some("ReplicaSet"));
        assert_eq!(about.uid.as_deref(), Some("u"));
        let about = owner(&pod(json!({"generateName": "web-"})), "app");
        assert_eq!(
            (about.kind.as_deref(), about.name.as_deref()),
            (Some("Pod"), Some("web-"))
        );
    }
}
