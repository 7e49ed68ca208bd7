//! Seventh step: does what `plan` decided, to running servers. Each step is safe to repeat and
//! safe to be cut off in: the next reconcile looks again.

use k8s_openapi::{
    api::{core::v1::Pod, policy::v1::Eviction},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    core::Status,
};
use policy::names;
use redis::{ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo};
use serde_json::json;

use super::{
    observe::{Observed, agent},
    passwords::{Passwords, User},
    plan::Step,
    validate::ValidatedTier,
};
use crate::{api_error::ApiError, context::Ctx};
use std::{collections::BTreeMap, time::Duration};

const PATIENCE: Duration = Duration::from_secs(5);

/// Does the steps; gives sentences about those that did not work out.
pub async fn act(
    ctx: &Ctx,
    tier: &ValidatedTier,
    passwords: &Passwords,
    settings: &BTreeMap<String, String>,
    steps: Vec<Step>,
) -> Result<Vec<String>, ApiError> {
    let mut problems = Vec::new();
    let password = &passwords.of(User::Operator).current;
    for step in steps {
        match step {
            Step::SwitchOver { pod, address } => {
                match agent::switch_over(&address, password).await {
                    Ok(answer) => tracing::info!(pod, answer, "the primary handed over"),
                    Err(why) => problems.push(format!("{pod} did not hand over: {why}")),
                }
            }
            Step::Replace { pod, uid } => match replace(ctx, tier, &pod, &uid).await {
                Ok(None) => tracing::info!(pod, "taken down, to be made anew"),
                Ok(Some(why)) => problems.push(format!("{pod} is not taken down yet: {why}")),
                Err(error) => return Err(error),
            },
            Step::Configure {
                pod,
                address,
                settings: wanted,
            } => {
                let pairs: Vec<(&str, &str)> = wanted
                    .iter()
                    .filter_map(|name| Some((name.as_str(), settings.get(name)?.as_str())))
                    .collect();
                let done = tokio::time::timeout(PATIENCE, configure(&address, password, &pairs));
                match done.await {
                    Ok(Ok(())) => tracing::info!(pod, settings = ?wanted, "configured"),
                    Ok(Err(error)) => problems.push(format!("{pod}: {error}")),
                    Err(_) => problems.push(format!("{pod} does not answer in time")),
                }
            }
        }
    }
    Ok(problems)
}

/// By eviction: disruption budgets hold for the operator too.
async fn replace(
    ctx: &Ctx,
    tier: &ValidatedTier,
    pod: &str,
    uid: &str,
) -> Result<Option<String>, ApiError> {
    match evict(&ctx.client, &tier.names.namespace, pod, uid).await {
        Ok(()) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 429 => Ok(Some(status.message.clone())),
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(None),
        Err(source) => Err(ApiError {
            verb: "evict",
            kind: "Pod".to_owned(),
            namespace: tier.names.namespace.clone(),
            name: pod.to_owned(),
            source,
        }),
    }
}

/// Evicts that very pod: one that has taken its name since is left alone. The client library's own
/// call sends the options under a name that the API server does not know.
pub async fn evict(client: &Client, namespace: &str, pod: &str, uid: &str) -> kube::Result<()> {
    let eviction = Eviction {
        metadata: ObjectMeta {
            name: Some(pod.to_owned()),
            ..ObjectMeta::default()
        },
        delete_options: Some(DeleteOptions {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteOptions::default()
        }),
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = PostParams::default();
    let done = api.create_subresource::<_, Status>("eviction", pod, &params, &eviction);
    done.await.map(drop)
}

async fn configure(
    address: &str,
    password: &str,
    settings: &[(&str, &str)],
) -> redis::RedisResult<()> {
    let login = RedisConnectionInfo::default()
        .set_username(User::Operator.name())
        .set_password(password);
    let info = ConnectionAddr::Tcp(address.to_owned(), names::REDIS_PORT)
        .into_connection_info()?
        .set_redis_settings(login);
    let client = redis::Client::open(info)?;
    let mut link = client.get_multiplexed_async_connection().await?;
    // All or none: the server takes them together.
    let mut command = redis::cmd("CONFIG");
    command.arg("SET");
    for (name, value) in settings {
        command.arg(*name).arg(*value);
    }
    command.query_async(&mut link).await
}

/// Tells pods that the files that they mount have changed: an annotation makes the kubelet look
/// at once instead of within a minute or so. By the pod's status, which takes metadata too: the
/// right to it cannot change what a pod runs.
pub async fn refresh(
    ctx: &Ctx,
    tier: &ValidatedTier,
    observed: &Observed,
    version: &str,
) -> Result<(), ApiError> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &tier.names.namespace);
    let pods = observed.servers.iter().chain(&observed.sentinels);
    for pod in pods.filter(|pod| !pod.going && pod.mounted.as_deref() != Some(version)) {
        let patch = json!({"metadata": {
            "uid": pod.uid,
            "annotations": {names::MOUNTED: version},
        }});
        match api
            .patch_status(&pod.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if [404, 409, 422].contains(&status.code) => {}
            Err(source) => {
                return Err(ApiError {
                    verb: "patch",
                    kind: "status of Pod".to_owned(),
                    namespace: tier.names.namespace.clone(),
                    name: pod.name.clone(),
                    source,
                });
            }
        }
    }
    Ok(())
}
