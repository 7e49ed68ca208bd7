//! Many tiers at once, reconciled by the operator as users run it: how long until all are settled,
//! how much memory it takes, that it then writes nothing, and how fast one change is seen.

use std::{
    collections::BTreeMap,
    process::Command,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use crate::{
    kubernetes::{ControlPlane, eventually_within, new_namespace},
    ports,
    process::{Folder, Process},
    server::loopback,
    shard,
};

/// How many of each topology.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Memory only.
    pub none: usize,
    /// With an external Redis.
    pub external: usize,
    /// With a server of their own.
    pub standalone: usize,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Until every tier is settled, from the start of the operator.
    pub settled: Duration,
    /// Most resident memory of the operator, in bytes.
    pub resident: u64,
    /// CPU time of the operator until then.
    pub cpu: Duration,
    /// From the API server's answer to a change until the object that follows from it, slowest.
    pub change: Duration,
}

/// Namespaces over which the tiers are spread.
const NAMESPACES: usize = 20;
/// Calls of this program at a time.
const ABREAST: usize = 16;
/// How long nothing may be written.
const QUIET: Duration = Duration::from_secs(30);
/// Changes that are timed.
const CHANGES: usize = 20;

/// Runs it all. Fails where something is not as it must be; figures are for the reader.
pub async fn measure(plane: &ControlPlane, amount: Amount, quiet: Option<Duration>) -> Figures {
    let client = plane.client().await;
    let mut namespaces = Vec::new();
    for _ in 0..NAMESPACES {
        let namespace = new_namespace(&client, "scale").await;
        let secret = json!({"stringData": {"url": "redis://u:p@127.0.0.1:9/0"}});
        apply(&client, &namespace, &SECRET, "redis", secret).await;
        namespaces.push(namespace);
    }
    let tiers = tiers(amount, &namespaces);
    stream::iter(&tiers)
        .for_each_concurrent(ABREAST, |(namespace, name, redis)| {
            apply(
                &client,
                namespace,
                &TIER,
                name,
                json!({"spec": {"redis": redis}}),
            )
        })
        .await;
    let started = Instant::now();
    let folder = Folder::new("scale");
    let operator = operator(plane, &folder);
    let what = format!("{} tiers are settled", tiers.len());
    eventually_within(Duration::from_mins(10), &what, || async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let seen = all(&client, &TIER, &namespaces).await;
        let sets = all(&client, &SET, &namespaces).await;
        let seen = seen.iter().filter(|tier| {
            let seen = tier.data["status"]["observedGeneration"].as_i64();
            seen.is_some() && seen == tier.metadata.generation
        });
        (seen.count() == tiers.len() && sets.len() == amount.standalone).then_some(())
    })
    .await;
    let settled = started.elapsed();
    let cpu = operator.cpu();
    still(&client, &namespaces, quiet.unwrap_or(QUIET)).await;
    let change = changes(&client, &tiers).await;
    Figures {
        settled,
        resident: operator.most_resident(),
        cpu,
        change,
    }
}

type Tier = (String, String, Value);

fn tiers(amount: Amount, namespaces: &[String]) -> Vec<Tier> {
    let kinds = [
        (amount.none, json!({"topology": "None"})),
        (
            amount.external,
            json!({"topology": "External", "external": {"urlSecretRef": {"name": "redis"}}}),
        ),
        (amount.standalone, json!({"topology": "Standalone"})),
    ];
    let all = kinds
        .iter()
        .flat_map(|(count, redis)| std::iter::repeat_n(redis, *count));
    all.enumerate()
        .map(|(number, redis)| {
            let namespace = namespaces[number % namespaces.len()].clone();
            (namespace, format!("t{number}"), redis.clone())
        })
        .collect()
}

/// `pannier-operator run` over the whole cluster.
fn operator(plane: &ControlPlane, folder: &Folder) -> Process {
    let listen = loopback(ports::free()).to_string();
    let mut command = Command::new(shard::program());
    command.env("KUBECONFIG", plane.kubeconfig()).args([
        "run",
        "--listen",
        &listen,
        "--identity",
        "scale",
    ]);
    let log = folder.path().join("operator.log");
    Process::start("pannier-operator", &mut command, &log)
}

/// Waits until the pods of the sets are made, then makes sure that nothing is written for a while:
/// every object is still of the version that it was of.
async fn still(client: &Client, namespaces: &[String], quiet: Duration) {
    let mut before = versions(client, namespaces).await;
    let mut since = Instant::now();
    let deadline = Instant::now() + Duration::from_mins(5) + quiet;
    while since.elapsed() < quiet {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = versions(client, namespaces).await;
        if now != before {
            let changed: Vec<&String> = now
                .iter()
                .filter(|(name, version)| before.get(*name) != Some(version))
                .map(|(name, _)| name)
                .collect();
            assert!(Instant::now() < deadline, "still written: {changed:?}");
            (before, since) = (now, Instant::now());
        }
    }
}

async fn versions(client: &Client, namespaces: &[String]) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    for kind in [TIER, SECRET, CONFIG, SET, POD] {
        for object in all(client, &kind, namespaces).await {
            let metadata = object.metadata;
            let name = format!(
                "{} {}/{}",
                kind.2,
                metadata.namespace.unwrap_or_default(),
                metadata.name.unwrap_or_default()
            );
            versions.insert(name, metadata.resource_version.unwrap_or_default());
        }
    }
    versions
}

/// Changes some tiers, each after the one before is done; the slowest.
async fn changes(client: &Client, tiers: &[Tier]) -> Duration {
    let mut slowest = Duration::ZERO;
    let step = (tiers.len() / CHANGES).max(1);
    for (namespace, name, redis) in tiers.iter().step_by(step) {
        let spec = json!({"redis": redis, "slowLogThreshold": "777ms"});
        apply(client, namespace, &TIER, name, json!({"spec": spec})).await;
        let began = Instant::now();
        let configs = api(client, namespace, &CONFIG);
        let what = format!("the change of {namespace}/{name} arrives");
        eventually_within(Duration::from_mins(1), &what, || async {
            let config = configs.get(&format!("{name}-sidecar")).await.ok()?;
            let text = config.data["data"]["sidecar.yaml"].as_str()?.to_owned();
            text.contains("777ms").then_some(())
        })
        .await;
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

// === objects ===

/// Group, version, kind, plural.
type Kind = (&'static str, &'static str, &'static str, &'static str);

const TIER: Kind = ("pannier.dev", "v1alpha1", "CacheTier", "cachetiers");
const SECRET: Kind = ("", "v1", "Secret", "secrets");
const CONFIG: Kind = ("", "v1", "ConfigMap", "configmaps");
const SET: Kind = ("apps", "v1", "StatefulSet", "statefulsets");
const POD: Kind = ("", "v1", "Pod", "pods");

fn resource((group, version, kind, plural): &Kind) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

fn api(client: &Client, namespace: &str, kind: &Kind) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource(kind))
}

async fn apply(client: &Client, namespace: &str, kind: &Kind, name: &str, rest: Value) {
    let mut object = rest;
    object["apiVersion"] = resource(kind).api_version.into();
    object["kind"] = kind.2.into();
    object["metadata"]["name"] = name.into();
    let params = PatchParams::apply("person").force();
    api(client, namespace, kind)
        .patch(name, &params, &Patch::Apply(&object))
        .await
        .unwrap_or_else(|error| crate::environment::unusable(&format!("{name}: {error}")));
}

/// All objects of a kind in these namespaces.
async fn all(client: &Client, kind: &Kind, namespaces: &[String]) -> Vec<DynamicObject> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource(kind));
    let listed = api.list(&ListParams::default()).await;
    let listed = listed
        .unwrap_or_else(|error| crate::environment::unusable(&format!("{}: {error}", kind.3)));
    let ours = listed.items.into_iter().filter(|object| {
        let namespace = object.metadata.namespace.as_ref();
        namespace.is_some_and(|namespace| namespaces.contains(namespace))
    });
    ours.collect()
}
