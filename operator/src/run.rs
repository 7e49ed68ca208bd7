//! `pannier-operator run`: starts and joins every task. The only place outside tests that
//! spawns, apart from connections of the admin port.

use std::{future::Future, process::ExitCode, sync::Arc};

use crds::SessionPolicy;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, Secret, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt as _, api::PartialObjectMeta, core::DeserializeGuard,
};
use kube_runtime::{
    Config, Controller,
    reflector::{ObjectRef, Store},
    utils::Backoff,
    watcher,
};
use policy::names;
use tokio::{net::TcpListener, sync::mpsc};

use crate::{
    admin,
    args::Run,
    cache_tier::{self, Guarded},
    context::Ctx,
    leader::Leader,
    session_policy,
    settings::{Scope, Settings},
    webhook,
};

/// Reconciles of one kind at a time.
const CONCURRENCY: u16 = 16;

/// Why the operator ended or did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No way to the API server is known.
    #[error(
        "failed to find the API server: {0}; run in a pod with a service account, or set KUBECONFIG"
    )]
    Config(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The admin port is taken.
    #[error("failed to listen on {address}: {source}; give --listen another address")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The port of the webhook is taken.
    #[error("failed to listen on {address}: {source}; give --webhook-listen another address")]
    ListenWebhook {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Something made it stop.
    #[error("{0}")]
    Stopped(String),
}

/// Runs until a signal, the loss of the lease, or another installation ends it.
pub fn run(flags: Run) -> ExitCode {
    crate::telemetry::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "failed to start threads");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the operator ends");
            ExitCode::FAILURE
        }
    }
}

async fn serve(flags: Run) -> Result<(), RunError> {
    let address = flags.listen;
    let settings = Settings::new(flags);
    let client = connect().await?;
    let (stop, mut stopped) = mpsc::channel(1);
    let ctx = Ctx::new(client, settings, stop);
    ctx.readiness.needs("the lease or another leader");
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Listen { address, source })?;
    let admin = tokio::spawn(admin::serve(listener, ctx.clone()));
    let webhook = serve_webhook(&ctx).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), %address,
        installation = ctx.settings.installation_id(), scope = ?ctx.settings.scope,
        "the operator runs"
    );
    let mut leader = Leader::new(
        ctx.client.clone(),
        &ctx.settings.namespace,
        &ctx.settings.installation,
        &ctx.settings.identity,
    );
    let ended = {
        // Who waits for the lease is ready: it takes over as soon as it can.
        ctx.readiness.has("the lease or another leader");
        tokio::select! {
            () = signal() => Ok(()),
            result = lead(&ctx, &mut leader) => result,
            Some(reason) = stopped.recv() => Err(RunError::Stopped(reason)),
        }
    };
    ctx.metrics.leader.set(0);
    leader.release().await;
    if let Some(webhook) = webhook {
        ctx.readiness.needs("nothing: it ends");
        webhook.drain().await;
    }
    admin.abort();
    ended
}

async fn serve_webhook(ctx: &Arc<Ctx>) -> Result<Option<webhook::Running>, RunError> {
    let Some(settings) = &ctx.settings.webhook else {
        return Ok(None);
    };
    let running = webhook::start(ctx, settings, webhook::rotation::Timing::default()).await;
    let running = running.map_err(|source| RunError::ListenWebhook {
        address: settings.listen,
        source,
    })?;
    Ok(Some(running))
}

/// Waits for the lease, then reconciles for as long as it is held.
async fn lead(ctx: &Arc<Ctx>, leader: &mut Leader) -> Result<(), RunError> {
    leader.acquire().await;
    tracing::info!(identity = ctx.settings.identity, "this process leads");
    ctx.metrics.leader.set(1);
    tokio::select! {
        lost = leader.hold() => Err(RunError::Stopped(lost.to_string())),
        () = controllers(ctx) => Err(RunError::Stopped("a controller ended".to_owned())),
        () = webhook::lead(ctx) => Err(RunError::Stopped("a watch of pods ended".to_owned())),
    }
}

async fn connect() -> Result<Client, RunError> {
    let config = kube::Config::infer()
        .await
        .map_err(|error| RunError::Config(error.into()))?;
    Client::try_from(config).map_err(|error| RunError::Config(error.into()))
}

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => tracing::info!("SIGTERM"),
        _ = int.recv() => tracing::info!("SIGINT"),
    }
}

// === controllers ===

/// The pause after a watch failed. It holds up all watches of a controller, so it is short and does
/// not grow: one missing right must not make every change wait.
struct Steady;

impl Iterator for Steady {
    type Item = std::time::Duration;

    fn next(&mut self) -> Option<Self::Item> {
        Some(std::time::Duration::from_millis(500))
    }
}

impl Backoff for Steady {
    fn reset(&mut self) {}
}

/// All controllers; ends when one of them does.
pub async fn controllers(ctx: &Arc<Ctx>) {
    let scopes: Vec<Option<&str>> = match &ctx.settings.scope {
        Scope::Cluster => vec![None],
        Scope::Namespaces(namespaces) => {
            namespaces.iter().map(|name| Some(name.as_str())).collect()
        }
    };
    let mut running: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    for scope in scopes {
        running.push(Box::pin(cache_tiers(ctx, scope)));
        running.push(Box::pin(session_policies(ctx, scope)));
    }
    running.next().await;
}

fn api<K>(ctx: &Ctx, scope: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match scope {
        None => Api::all(ctx.client.clone()),
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
    }
}

fn cache_tiers(ctx: &Arc<Ctx>, scope: Option<&str>) -> impl Future<Output = ()> + use<> {
    // An answer from the API server's cache is enough to notice a change; what is decided on is
    // read afresh.
    let ours = || {
        watcher::Config::default()
            .any_semantic()
            .labels(names::TIER)
    };
    let any = || watcher::Config::default().any_semantic();
    let controller = Controller::new(api::<Guarded>(ctx, scope), any())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .trigger_backoff(Steady);
    let store = controller.store();
    let secrets = store.clone();
    controller
        .owns(api::<StatefulSet>(ctx, scope), ours())
        .owns(api::<Service>(ctx, scope), ours())
        .owns(api::<ConfigMap>(ctx, scope), ours())
        .owns(api::<ServiceAccount>(ctx, scope), ours())
        .owns(api::<NetworkPolicy>(ctx, scope), ours())
        .owns(api::<PodDisruptionBudget>(ctx, scope), ours())
        .owns(api::<Secret>(ctx, scope), ours())
        // Only names matter: contents of Secrets are read where they are used.
        .watches(
            api::<PartialObjectMeta<Secret>>(ctx, scope),
            any(),
            move |secret| users_of(&secrets, &secret),
        )
        .watches(
            api::<DeserializeGuard<SessionPolicy>>(ctx, scope),
            any(),
            tier_of,
        )
        .run(cache_tier::reconcile, cache_tier::on_error, ctx.clone())
        .for_each(|_| std::future::ready(()))
}

fn session_policies(ctx: &Arc<Ctx>, scope: Option<&str>) -> impl Future<Output = ()> + use<> {
    let any = || watcher::Config::default().any_semantic();
    let controller = Controller::new(api::<session_policy::Guarded>(ctx, scope), any())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .trigger_backoff(Steady);
    let policies = controller.store();
    let siblings = policies.clone();
    controller
        .watches(api::<Guarded>(ctx, scope), any(), move |tier| {
            policies_of(&policies, tier.namespace().as_deref(), &tier.name_any())
        })
        // One that comes or goes changes what its siblings have to say.
        .watches(
            api::<session_policy::Guarded>(ctx, scope),
            any(),
            move |policy| {
                let namespace = policy.namespace();
                let tier = policy.0.ok().map(|policy| policy.spec.cache_tier_ref.name);
                policies_of(&siblings, namespace.as_deref(), &tier.unwrap_or_default())
            },
        )
        .run(
            session_policy::reconcile,
            session_policy::on_error,
            ctx.clone(),
        )
        .for_each(|_| std::future::ready(()))
}

/// The policies that name a tier.
fn policies_of(
    store: &Store<session_policy::Guarded>,
    namespace: Option<&str>,
    tier: &str,
) -> Vec<ObjectRef<session_policy::Guarded>> {
    store
        .state()
        .iter()
        .filter(|policy| policy.namespace().as_deref() == namespace)
        .filter(|policy| {
            let spec = policy.0.as_ref().map(|policy| &policy.spec);
            spec.is_ok_and(|spec| spec.cache_tier_ref.name == tier)
        })
        .map(|policy| ObjectRef::from_obj(policy.as_ref()))
        .collect()
}

/// The tiers that name a Secret.
fn users_of(store: &Store<Guarded>, secret: &PartialObjectMeta<Secret>) -> Vec<ObjectRef<Guarded>> {
    let (namespace, name) = (secret.namespace(), secret.name_any());
    store
        .state()
        .iter()
        .filter(|tier| tier.namespace() == namespace)
        .filter(|tier| {
            let spec = tier.0.as_ref().map(|tier| &tier.spec);
            spec.is_ok_and(|spec| crds::secrets_named(spec).contains(name.as_str()))
        })
        .map(|tier| ObjectRef::from_obj(tier.as_ref()))
        .collect()
}

/// The tier that a session policy names.
fn tier_of(policy: DeserializeGuard<SessionPolicy>) -> Option<ObjectRef<Guarded>> {
    let namespace = policy.namespace()?;
    let tier = policy.0.ok()?.spec.cache_tier_ref.name;
    Some(ObjectRef::new(&tier).within(&namespace))
}
