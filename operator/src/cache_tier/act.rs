//! Seventh step: does what `plan` decided, to running servers. Each step is safe to repeat and
//! safe to be cut off in: the next reconcile looks again.

pub mod configure;

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

use self::configure::{Given, Setting, give};
use super::{
    observe::{Observed, agent},
    passwords::{Passwords, User},
    plan::Step,
    validate::ValidatedTier,
};
use crate::{api_error::ApiError, context::Ctx};
use std::{collections::BTreeMap, time::Duration};

const PATIENCE: Duration = Duration::from_secs(5);

/// Why a tier is stalled whose servers do not take a setting.
pub const REFUSED: &str = "SettingRefused";

/// What came of the steps, in sentences.
#[derive(Debug, Default)]
pub struct Done {
    /// What is under way, or did not work out and is tried again.
    pub waits: Vec<String>,
    /// Settings that servers do not take: nothing happens until somebody changes them.
    pub refused: Vec<String>,
}

/// What the servers are to be given.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// All settings.
    pub settings: &'a BTreeMap<String, String>,
    /// What was said before of those that servers do not take, a line each: they are not given again.
    pub told: &'a str,
}

/// Does the steps.
pub async fn act(
    ctx: &Ctx,
    tier: &ValidatedTier,
    passwords: &Passwords,
    wanted: Wanted<'_>,
    steps: Vec<Step>,
) -> Result<Done, ApiError> {
    let mut done = Done::default();
    let password = &passwords.of(User::Operator).current;
    for step in steps {
        match step {
            Step::SwitchOver { pod, address } => {
                match agent::switch_over(&address, password).await {
                    Ok(answer) => tracing::info!(pod, answer, "the primary handed over"),
                    Err(why) => done.waits.push(format!("{pod} did not hand over: {why}")),
                }
            }
            Step::Replace { pod, uid } => match replace(ctx, tier, &pod, &uid).await {
                Ok(None) => tracing::info!(pod, "taken down, to be made anew"),
                Ok(Some(why)) => done
                    .waits
                    .push(format!("{pod} is not taken down yet: {why}")),
                Err(error) => return Err(error),
            },
            Step::Configure {
                pod,
                address,
                settings,
            } => {
                let mut new = Vec::new();
                for name in &settings {
                    let Some(value) = wanted.settings.get(name) else {
                        continue;
                    };
                    let setting = (name.as_str(), value.as_str());
                    let said = refused(tier, &pod, setting);
                    match wanted.told.lines().find(|line| line.starts_with(&said)) {
                        Some(line) => done.refused.push(line.to_owned()),
                        None => new.push(setting),
                    }
                }
                if !new.is_empty() {
                    let given = configure(&address, password, &new).await;
                    done.add(tier, &pod, given);
                }
            }
        }
    }
    Ok(done)
}

// === impl Done ===

impl Done {
    fn add(&mut self, tier: &ValidatedTier, pod: &str, given: Result<Given<'_>, String>) {
        let Given {
            taken,
            refused: not,
        } = match given {
            Ok(given) => given,
            Err(why) => {
                self.waits.push(format!("{pod}: {why}"));
                return;
            }
        };
        if !taken.is_empty() {
            tracing::info!(pod, settings = ?taken, "configured");
            self.waits
                .push(format!("{pod} is given {}", taken.join(", ")));
        }
        self.refused.extend(not.into_iter().map(|(setting, why)| {
            let said = refused(tier, pod, setting);
            format!("{said}{why}; set it back, or write a value that the server takes")
        }));
    }
}

/// What is said first of a setting that a server does not take.
fn refused(tier: &ValidatedTier, pod: &str, (name, value): Setting<'_>) -> String {
    let servers = tier.servers();
    let field = if servers.is_some_and(|servers| servers.config.contains_key(name)) {
        "spec.redis.config."
    } else {
        ""
    };
    format!("{field}{name}: {pod} does not take {value:?}: ")
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

async fn configure<'a>(
    address: &str,
    password: &str,
    settings: &[Setting<'a>],
) -> Result<Given<'a>, String> {
    let given = async {
        let login = RedisConnectionInfo::default()
            .set_username(User::Operator.name())
            .set_password(password);
        let info = ConnectionAddr::Tcp(address.to_owned(), names::REDIS_PORT)
            .into_connection_info()?
            .set_redis_settings(login);
        let client = redis::Client::open(info)?;
        let mut link = client.get_multiplexed_async_connection().await?;
        give(&mut link, settings).await
    };
    match tokio::time::timeout(PATIENCE, given).await {
        Ok(given) => given.map_err(|error: redis::RedisError| error.to_string()),
        Err(_) => Err("it does not answer in time".to_owned()),
    }
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
