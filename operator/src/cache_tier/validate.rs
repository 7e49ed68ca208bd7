//! Second step, pure: what was asked for, with every value given, or sentences that say what
//! cannot be.
//!
//! The schema and its rules have refused most mistakes at admission; here is what needs to know
//! other objects, and what this version does not do yet. The later steps read nothing but the
//! `ValidatedTier`.

mod change;
pub mod settings;
mod values;

use std::collections::BTreeMap;

use crds::{
    CacheTier, External, Source,
    cache_tier::{AuthMode, Engine, Environment, Persistence, PersistenceMode, Pod, Topology},
    named,
    resolve::ResolvedRedis,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};
use policy::{ByteSize, Policy, config::SidecarConfig, names};

use super::{dereference::Found, object_names::ObjectNames};
use crate::{settings::Settings, socket};

/// Sentinels of a Replicated tier.
pub const SENTINELS: u32 = 3;

/// A tier that can be.
#[derive(Clone, Debug)]
pub struct ValidatedTier {
    /// Names of its objects.
    pub names: ObjectNames,
    /// Its UID.
    pub uid: String,
    /// Generation of the spec that was read.
    pub generation: Option<i64>,
    /// How its objects refer to it.
    pub owner: OwnerReference,
    /// Whether it had a primary before: then servers that know nothing have lost their data.
    pub formed: bool,
    /// Whose preset was used.
    pub environment: Environment,
    /// The servers' values.
    pub redis: ResolvedRedis,
    /// The sidecar's configuration, still without its upstream.
    pub config: SidecarConfig,
    /// What stands behind the sidecars.
    pub behind: Behind,
    /// Rules that are legal and probably not meant, in sentences.
    pub warnings: Vec<String>,
}

/// What stands behind the sidecars.
#[derive(Clone, Debug)]
pub enum Behind {
    /// Nothing: memory only.
    Memory,
    /// A Redis that exists already.
    External(Box<External>),
    /// Servers that are run here.
    Servers(Box<Servers>),
}

/// Servers that are run here.
#[derive(Clone, Debug)]
pub struct Servers {
    /// Standalone or Replicated.
    pub topology: Topology,
    /// Which server.
    pub engine: Engine,
    /// Its image.
    pub image: String,
    /// The image that the agent is copied from.
    pub agent_image: String,
    /// Number of shards.
    pub shards: u32,
    /// Pods of each shard: one primary and its replicas.
    pub pods_per_shard: u32,
    /// Number of Sentinels.
    pub sentinels: u32,
    /// Memory of each server's container.
    pub memory: ByteSize,
    /// What is written to disk, where something is.
    pub persistence: Option<Persistence>,
    /// Whether no password is asked for.
    pub open: bool,
    /// The password of apps without a sidecar, where the user gives it.
    pub given_password: Option<String>,
    /// Logical databases.
    pub databases: u32,
    /// Further settings.
    pub config: BTreeMap<String, String>,
    /// Where and how the pods run.
    pub pod: Pod,
}

/// What cannot be, in sentences.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .sentences.join("\n"))]
pub struct Refusals {
    /// One word for the condition.
    pub reason: &'static str,
    /// One sentence each, with field and remedy.
    pub sentences: Vec<String>,
}

impl Refusals {
    /// One sentence.
    pub fn one(reason: &'static str, sentence: impl Into<String>) -> Self {
        Self {
            reason,
            sentences: vec![sentence.into()],
        }
    }
}

// === impl ValidatedTier ===

impl ValidatedTier {
    /// The servers, where some are run.
    pub fn servers(&self) -> Option<&Servers> {
        match &self.behind {
            Behind::Servers(servers) => Some(servers),
            Behind::Memory | Behind::External(_) => None,
        }
    }
}

// === impl Servers ===

impl Servers {
    /// What the data may use: three quarters of the container; the rest is for buffers, copies
    /// on write and the process itself.
    pub fn maxmemory(&self) -> u64 {
        self.memory.0 / 4 * 3
    }

    /// Whether something survives a restart of all pods.
    pub fn persistent(&self) -> bool {
        self.persistence.is_some()
    }
}

/// Checks a tier and gives every value.
pub fn validate(
    tier: &CacheTier,
    found: &Found,
    settings: &Settings,
) -> Result<ValidatedTier, Refusals> {
    let name = check_name(tier)?;
    let resolved = named(tier);
    let policy = Policy::compile(&resolved.config)
        .map_err(|errors| Refusals::one("InvalidRules", format!("spec.rules: {errors}")))?;
    check_socket(&resolved.config)?;
    let mut config = resolved.config;
    let behind = match resolved.redis.topology {
        Topology::None => Behind::Memory,
        Topology::External => {
            let external = external(tier, found)?;
            config.keyspace.database = external.database;
            Behind::External(Box::new(external))
        }
        Topology::Cluster => {
            return Err(Refusals::one(
                "NotAvailableYet",
                "spec.redis.topology: Cluster is not available yet; use Replicated, which is one primary with replicas and fail-over, or External with a cluster that runs already",
            ));
        }
        Topology::Standalone | Topology::Replicated => {
            Behind::Servers(Box::new(servers(tier, resolved.redis, found, settings)?))
        }
    };
    let owner = tier.controller_owner_ref(&()).ok_or_else(|| {
        Refusals::one(
            "Incomplete",
            "the tier has no UID; it was not read from an API server",
        )
    })?;
    let warnings = policy
        .reports()
        .iter()
        .filter(|report| report.is_warning())
        .map(ToString::to_string)
        .collect();
    Ok(ValidatedTier {
        names: ObjectNames {
            tier: name,
            namespace: tier.namespace().unwrap_or_default(),
            domain: settings.cluster_domain.clone(),
        },
        uid: owner.uid.clone(),
        generation: tier.metadata.generation,
        formed: tier
            .status
            .as_ref()
            .is_some_and(|status| status.formed_at.is_some()),
        owner,
        environment: resolved.environment,
        redis: resolved.redis,
        config,
        behind,
        warnings,
    })
}

/// Names of Services and pods are made from it, and end up in DNS.
fn check_name(tier: &CacheTier) -> Result<String, Refusals> {
    let name = tier.name_any();
    let refuse = |sentence: String| Err(Refusals::one("InvalidName", sentence));
    if name.len() > names::MAX_TIER_NAME {
        return refuse(format!(
            "metadata.name has {} characters, at most {} are possible, because names of pods are made from it; create the tier under a shorter name",
            name.len(),
            names::MAX_TIER_NAME
        ));
    }
    let letter = name.starts_with(|first: char| first.is_ascii_lowercase());
    if !letter || name.contains('.') {
        return refuse(format!(
            "metadata.name {name:?} must begin with a letter and have no dot, because a Service is named so; create the tier under another name"
        ));
    }
    Ok(name)
}

/// Of a sidecar in a pod; one that runs elsewhere may have it where it likes.
fn check_socket(config: &SidecarConfig) -> Result<(), Refusals> {
    let path = config.sidecar.unix_socket.as_deref();
    path.and_then(socket::refusal).map_or(Ok(()), |refusal| {
        let sentence = format!("spec.sidecar.unixSocket {refusal}");
        Err(Refusals::one("NotPossible", sentence))
    })
}

fn external(tier: &CacheTier, found: &Found) -> Result<External, Refusals> {
    let secret = |name: &str| found.secrets.get(name);
    let source = Source {
        tier,
        place: "CacheTier".to_owned(),
        where_to_add: "is not in the namespace of the tier; create it",
        or_url: "",
        secret: &secret,
    };
    source.external(None).map_err(|error| {
        let reason = match &error {
            crds::CompileError::NoSecret { .. } | crds::CompileError::NoKey { .. } => {
                "SecretNotFound"
            }
            _ => "InvalidUrl",
        };
        Refusals::one(reason, error.to_string())
    })
}

fn servers(
    tier: &CacheTier,
    resolved: ResolvedRedis,
    found: &Found,
    settings: &Settings,
) -> Result<Servers, Refusals> {
    let redis = &tier.spec.redis;
    let mut sentences = Vec::new();
    if redis.tls.is_some() {
        sentences.push(
            "spec.redis.tls is not available yet for servers that the operator runs; remove it"
                .to_owned(),
        );
    }
    let pod = redis.pod.clone().unwrap_or_default();
    let amounts = pod
        .resources
        .iter()
        .flat_map(|resources| resources.requests.iter().chain(resources.limits.iter()));
    if amounts.into_iter().any(|amounts| amounts.memory.is_some()) {
        sentences.push(
            "spec.redis.pod.resources gives memory, which is spec.redis.memory; remove it there"
                .to_owned(),
        );
    }
    let open = redis.auth.as_ref().map(|auth| auth.mode) == Some(AuthMode::Disabled);
    let given_password = given_password(tier, found)?;
    let servers = Servers {
        topology: resolved.topology,
        engine: resolved.engine,
        image: redis
            .image
            .clone()
            .unwrap_or_else(|| settings.image(resolved.engine).to_owned()),
        agent_image: settings.agent_image.clone(),
        shards: resolved.shards,
        pods_per_shard: 1 + resolved.replicas_per_shard,
        sentinels: if resolved.topology == Topology::Replicated {
            SENTINELS
        } else {
            0
        },
        memory: resolved.memory,
        persistence: redis
            .persistence
            .clone()
            .filter(|persistence| persistence.mode != PersistenceMode::None),
        open,
        given_password,
        databases: tier
            .spec
            .keyspace
            .as_ref()
            .and_then(|keyspace| keyspace.database)
            .map_or(16, |database| (database + 1).max(16)),
        config: redis.config.clone(),
        pod,
    };
    sentences.extend(values::refused(&servers));
    sentences.extend(change::refused(&tier.name_any(), &servers, &found.sets));
    if sentences.is_empty() {
        Ok(servers)
    } else {
        Err(Refusals {
            reason: "NotPossible",
            sentences,
        })
    }
}

fn given_password(tier: &CacheTier, found: &Found) -> Result<Option<String>, Refusals> {
    let reference = tier
        .spec
        .redis
        .auth
        .as_ref()
        .and_then(|auth| auth.password_secret_ref.as_ref());
    let Some(reference) = reference else {
        return Ok(None);
    };
    let key = reference.key.as_deref().unwrap_or("password");
    let missing = |what: String| {
        Refusals::one(
            "SecretNotFound",
            format!("spec.redis.auth.passwordSecretRef: {what}"),
        )
    };
    let secret = found.secrets.get(&reference.name).ok_or_else(|| {
        missing(format!(
            "Secret {:?} is not in the namespace of the tier; create it with the key {key:?}",
            reference.name
        ))
    })?;
    // The agents read files by line.
    match secret.get(key).map(str::trim_end) {
        None => Err(missing(format!(
            "Secret {:?} has no key {key:?}; add it",
            reference.name
        ))),
        Some(password) if password.is_empty() || password.contains(char::is_whitespace) => {
            Err(missing(format!(
                "the password under {key:?} in Secret {:?} is empty or has spaces; give another one, or auth.mode Disabled",
                reference.name
            )))
        }
        Some(password) => Ok(Some(password.to_owned())),
    }
}
