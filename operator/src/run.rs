//! `pannier-operator run`: starts and joins every task. The only place outside tests that
//! spawns, apart from connections of the admin port.

use std::{fmt::Debug, future::Future, process::ExitCode, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, Namespace, Pod, Secret, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Client, Resource, ResourceExt as _, api::PartialObjectMeta};
use kube_runtime::{
    Config, Controller, WatchStreamExt as _,
    reflector::{self, ObjectRef, Store, reflector},
    utils::Backoff,
    watcher,
};
use policy::names;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::{
    admin,
    args::Run,
    cache_tier::{self, Guarded},
    client,
    context::Ctx,
    leader::Leader,
    listen::listen,
    session_policy::{self, Guarded as Policy},
    settings::{Scope, Settings},
    watch, webhook,
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
    let listener = listen(address)
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
    let built = client::builder(config).map_err(|error| RunError::Config(error.into()))?;
    Ok(built.build())
}

/// Waits for SIGTERM or SIGINT.
pub async fn signal() {
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
    let visiting = ctx.clone();
    running.push(Box::pin(async move { visiting.visits.run().await }));
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

/// All watches pause by themselves.
struct NoPause;

impl Iterator for NoPause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

impl Backoff for NoPause {
    fn reset(&mut self) {}
}

/// An answer from the API server's cache is enough to notice a change; what is decided on is read
/// afresh.
fn any() -> watcher::Config {
    watcher::Config::default().any_semantic()
}

/// The resources of a kind, kept for looking up who is concerned by a change of something else;
/// `gone` is called for those that went.
fn reflected<K>(
    ctx: &Arc<Ctx>,
    scope: Option<&str>,
    gone: fn(&Ctx, &K),
) -> (
    Store<K>,
    impl Stream<Item = watcher::Result<K>> + Send + use<K>,
)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let events = watch::events(&ctx.watches, api::<K>(ctx, scope), scope, any());
    let ending = Arc::clone(ctx);
    // What is gone is not reconciled any more.
    let events = events.inspect(move |event| {
        if let Ok(watcher::Event::Delete(object)) = event {
            gone(&ending, object);
        }
    });
    let slim = events.modify(|object| object.managed_fields_mut().clear());
    (store, reflector(writer, slim).applied_objects())
}

/// The objects of tiers, as far as `selector` says, in metadata.
fn children<K>(
    ctx: &Ctx,
    scope: Option<&str>,
    selector: &str,
) -> impl Stream<Item = watcher::Result<PartialObjectMeta<K>>> + Send + use<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let config = any().labels(selector);
    let metadata = api::<PartialObjectMeta<K>>(ctx, scope);
    watch::events(&ctx.watches, metadata, scope, config).touched_objects()
}

/// The tiers here of whose Redis there is something new to tell.
fn visited(
    ctx: &Ctx,
    scope: Option<&str>,
) -> impl Stream<Item = ObjectRef<Guarded>> + Send + use<> {
    let here = scope.map(ToOwned::to_owned);
    ctx.visits.news().filter_map(move |(namespace, tier)| {
        let ours = here.as_ref().is_none_or(|here| *here == namespace);
        std::future::ready(ours.then(|| ObjectRef::new(&tier).within(&namespace)))
    })
}

/// A controller of what is in `store`; it looks at everything again when a watch may have missed
/// something.
fn controller<K>(
    ctx: &Ctx,
    objects: impl Stream<Item = watcher::Result<K>> + Send + 'static,
    store: Store<K>,
) -> Controller<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    Controller::for_stream(objects, store)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .trigger_backoff(NoPause)
        .reconcile_all_on(ctx.watches.anew())
}

fn cache_tiers(ctx: &Arc<Ctx>, scope: Option<&str>) -> impl Future<Output = ()> + use<> {
    let (store, tiers) = reflected(ctx, scope, cache_tier::gone);
    let (users, sharers) = (store.clone(), store.clone());
    let namespaces = Api::<PartialObjectMeta<Namespace>>::all(ctx.client.clone());
    let namespaces = watch::events(&ctx.watches, namespaces, None, any());
    // Apps' pods may carry the label of a tier too; they are not its servers.
    let servers = format!(
        "{},app.kubernetes.io/component in (redis,sentinel)",
        names::TIER
    );
    controller(ctx, tiers, store)
        .reconcile_on(visited(ctx, scope))
        .watches_stream(
            children::<StatefulSet>(ctx, scope, names::TIER),
            tier_behind,
        )
        .watches_stream(children::<Service>(ctx, scope, names::TIER), tier_behind)
        .watches_stream(
            children::<ServiceAccount>(ctx, scope, names::TIER),
            tier_behind,
        )
        .watches_stream(
            children::<NetworkPolicy>(ctx, scope, names::TIER),
            tier_behind,
        )
        .watches_stream(
            children::<PodDisruptionBudget>(ctx, scope, names::TIER),
            tier_behind,
        )
        .watches_stream(children::<ConfigMap>(ctx, scope, names::TIER), tier_behind)
        .watches_stream(children::<Pod>(ctx, scope, &servers), tier_behind)
        // All of them: a tier may name any.
        .watches_stream(children::<Secret>(ctx, scope, ""), move |secret| {
            let users = users_of(&users, &secret);
            users.into_iter().chain(tier_behind(secret))
        })
        .watches_stream(namespaces.touched_objects(), move |namespace| {
            sharing_with(&sharers, &namespace.name_any())
        })
        .run(cache_tier::reconcile, cache_tier::on_error, ctx.clone())
        .for_each(|_| std::future::ready(()))
}

fn session_policies(ctx: &Arc<Ctx>, scope: Option<&str>) -> impl Future<Output = ()> + use<> {
    let watches = &ctx.watches;
    let (policies, own) = reflected::<Policy>(ctx, scope, session_policy::gone);
    let (bound, siblings) = (policies.clone(), policies.clone());
    let tiers = watch::events(watches, api::<Guarded>(ctx, scope), scope, any());
    let others = watch::events(watches, api::<Policy>(ctx, scope), scope, any());
    controller(ctx, own, policies)
        .watches_stream(tiers.touched_objects(), move |tier| {
            policies_of(&bound, tier.namespace().as_deref(), &tier.name_any())
        })
        // One that comes or goes changes what its siblings have to say.
        .watches_stream(others.touched_objects(), move |policy| {
            let namespace = policy.namespace();
            let tier = policy.0.ok().map(|policy| policy.spec.cache_tier_ref.name);
            policies_of(&siblings, namespace.as_deref(), &tier.unwrap_or_default())
        })
        .run(
            session_policy::reconcile,
            session_policy::on_error,
            ctx.clone(),
        )
        .for_each(|_| std::future::ready(()))
}

/// The policies that name a tier.
fn policies_of(
    store: &Store<Policy>,
    namespace: Option<&str>,
    tier: &str,
) -> Vec<ObjectRef<Policy>> {
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

/// The tier that an object belongs to: its owner, or that of its labels, where none can be named:
/// at pods, whose owner is a set, and at copies in other namespaces.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the controller calls it with values"
)]
fn tier_behind<K: Resource>(object: K) -> Option<ObjectRef<Guarded>> {
    let namespace = object.namespace()?;
    let ours = |owner: &&OwnerReference| {
        owner.kind == Guarded::kind(&()) && owner.api_version == Guarded::api_version(&())
    };
    if let Some(owner) = object.owner_references().iter().find(ours) {
        return Some(ObjectRef::new(&owner.name).within(&namespace));
    }
    let labels = object.labels();
    let place = labels.get(names::OWNER_NAMESPACE).unwrap_or(&namespace);
    Some(ObjectRef::new(labels.get(names::TIER)?).within(place))
}

/// The tiers that want to be shared with a namespace.
fn sharing_with(store: &Store<Guarded>, namespace: &str) -> Vec<ObjectRef<Guarded>> {
    let tiers = store.state();
    let allowing = tiers.iter().filter(|tier| {
        let spec = tier.0.as_ref().map(|tier| &tier.spec);
        spec.is_ok_and(|spec| spec.allowed_namespaces.iter().any(|name| name == namespace))
    });
    allowing
        .map(|tier| ObjectRef::from_obj(tier.as_ref()))
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
