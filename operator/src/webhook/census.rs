//! Counts the pods that their labels ask a sidecar for and that have none: made while no webhook
//! answered, or left alone for a reason that an event told.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use policy::names;

use crate::{api_error::ApiError, context::Ctx, settings::Scope};

const PAUSE: Duration = Duration::from_mins(1);
/// So many pods are named in the log.
const NAMED: usize = 5;
/// Pods per answer of the API server.
const PAGE: u32 = 500;
/// Namespaces that the webhook leaves alone.
const SYSTEM: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// Counts once a minute, for as long as it is polled.
pub async fn count(ctx: &Arc<Ctx>) {
    let mut before = Vec::new();
    loop {
        let places = ctx.settings.places_of_pods();
        match uninjected(&ctx.client, &places, &ctx.settings.namespace).await {
            Ok(mut pods) => {
                pods.sort();
                let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
                ctx.metrics.uninjected.set(count);
                if pods != before && !pods.is_empty() {
                    let some = &pods[..pods.len().min(NAMED)];
                    tracing::warn!(
                        count,
                        some = some.join(", "),
                        "pods should have a sidecar and have none; delete them to have them made anew, or see the event InjectionSkipped of their owner"
                    );
                }
                before = pods;
            }
            Err(error) => tracing::warn!(%error, "pods without a sidecar are not counted"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// `namespace/name` of the pods.
pub async fn uninjected(
    client: &Client,
    places: &Scope,
    own: &str,
) -> Result<Vec<String>, ApiError> {
    let inject = names::INJECT;
    let asked = format!(
        "{inject},{inject}!={},!{}",
        names::DISABLED,
        names::INJECTED
    );
    let silent = format!("!{inject},!{}", names::INJECTED);
    let mut found = Vec::new();
    match places {
        Scope::Cluster => {
            pods(client, None, &asked, &mut found).await?;
            let selector = format!("{inject},{inject}!={}", names::DISABLED);
            let api: Api<Namespace> = Api::all(client.clone());
            let listed = api
                .list_metadata(&ListParams::default().labels(&selector))
                .await;
            for namespace in listed.map_err(failed("Namespace", None))? {
                pods(client, Some(&namespace.name_any()), &silent, &mut found).await?;
            }
        }
        Scope::Namespaces(names) => {
            for name in names {
                pods(client, Some(name), &asked, &mut found).await?;
                let api: Api<Namespace> = Api::all(client.clone());
                let namespace = api.get_metadata(name).await;
                let namespace = namespace.map_err(failed("Namespace", None))?;
                let value = namespace.labels().get(inject);
                if value.is_some_and(|value| value != names::DISABLED) {
                    pods(client, Some(name), &silent, &mut found).await?;
                }
            }
        }
    }
    found.retain(|(namespace, _)| namespace != own && !SYSTEM.contains(&namespace.as_str()));
    let names = found.into_iter();
    Ok(names
        .map(|(namespace, name)| format!("{namespace}/{name}"))
        .collect())
}

async fn pods(
    client: &Client,
    namespace: Option<&str>,
    selector: &str,
    found: &mut Vec<(String, String)>,
) -> Result<(), ApiError> {
    let api: Api<Pod> = match namespace {
        None => Api::all(client.clone()),
        Some(namespace) => Api::namespaced(client.clone(), namespace),
    };
    let running = "status.phase!=Succeeded,status.phase!=Failed,spec.hostNetwork=false";
    let mut params = ListParams::default()
        .labels(selector)
        .fields(running)
        .limit(PAGE);
    loop {
        let page = api
            .list_metadata(&params)
            .await
            .map_err(failed("Pod", namespace))?;
        let next = page.metadata.continue_.clone().unwrap_or_default();
        let missing = page.items.iter().filter(|pod| {
            // Servers of a tier have its label, mirrors of static pods this annotation.
            !pod.labels().contains_key(names::TIER)
                && !pod
                    .annotations()
                    .contains_key("kubernetes.io/config.mirror")
                && pod.metadata.deletion_timestamp.is_none()
        });
        found.extend(missing.map(|pod| (pod.namespace().unwrap_or_default(), pod.name_any())));
        if next.is_empty() {
            return Ok(());
        }
        params = params.continue_token(&next);
    }
}

fn failed(kind: &'static str, namespace: Option<&str>) -> impl Fn(kube::Error) -> ApiError {
    let namespace = namespace.unwrap_or_default().to_owned();
    move |source| ApiError {
        verb: "list",
        kind: kind.to_owned(),
        namespace: namespace.clone(),
        name: String::new(),
        source,
    }
}
