//! From manifests to the configuration of one sidecar, for a run without a cluster.
//!
//! It follows `manifest`, which checked each resource by itself; here is what only the local run
//! refuses. The sidecar compiles the rules (`policy::Policy`) afterwards. Secrets never enter the
//! configuration: they are handed over beside it. The operator uses the same parts: `named` for
//! the configuration, `external` for a Redis that exists already.

mod external;

use std::fmt;

use kube::ResourceExt as _;
use policy::config::SidecarConfig;

pub use self::external::{External, Source, secrets_named};
use crate::{
    CacheTier,
    cache_tier::Topology,
    manifest::{Located, Manifests, Secret},
    not_yet,
    redis_url::UrlError,
    resolve::{ResolvedTier, resolve},
    validate,
};

/// What one sidecar needs to run.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The configuration; no secret is in it.
    pub config: SidecarConfig,
    /// What is secret, where Redis asks for it.
    pub credentials: Option<Credentials>,
    /// What the user should know, in sentences for the log.
    pub notes: Vec<String>,
}

/// How to log in to Redis. `Debug` shows which parts are there and none of them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// ACL user; absent means the `default` user.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Password that Sentinels ask for.
    pub sentinel_password: Option<String>,
    /// Certificate authorities to trust, PEM; absent means those of the system.
    pub ca_certificate: Option<String>,
    /// Client certificate chain, PEM.
    pub client_certificate: Option<String>,
    /// Private key of the client certificate, PEM.
    pub client_key: Option<String>,
}

/// Why manifests cannot be run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// There is none.
    #[error(
        "the manifests hold no CacheTier; give a file with one, such as examples/analytics.yaml"
    )]
    NoTier,
    /// A sidecar serves one.
    #[error("the manifests hold {} CacheTiers and a sidecar serves one: {}; give one of the files", .0.len(), .0.join(", "))]
    SeveralTiers(Vec<String>),
    /// Needs a cluster; one sentence per line.
    #[error("{}", .0.join("\n"))]
    NeedsCluster(Vec<String>),
    /// A session policy for another tier.
    #[error(
        "{place}: spec.cacheTierRef.name: no CacheTier {wanted:?} is here; write {tier:?} or remove the SessionPolicy"
    )]
    OtherTier {
        /// Where the policy stands.
        place: String,
        /// The tier it names.
        wanted: String,
        /// The tier there is.
        tier: String,
    },
    /// The Secret with the URL is not there.
    #[error(
        "{place}: {field}: Secret {secret:?} {where_to_add} (kind: Secret with stringData.{key}){or_url}"
    )]
    NoSecret {
        /// Where the tier stands.
        place: String,
        /// The field that names the Secret.
        field: &'static str,
        /// The Secret.
        secret: String,
        /// The key that is wanted.
        key: String,
        /// That it is not there, and where it belongs.
        where_to_add: &'static str,
        /// Another way, where there is one.
        or_url: &'static str,
    },
    /// The Secret has no such key.
    #[error("{place}: {field}: Secret {secret:?} has no key {key:?}; it has: {keys}")]
    NoKey {
        /// Where the tier stands.
        place: String,
        /// The field that names the Secret.
        field: &'static str,
        /// The Secret.
        secret: String,
        /// The key that is wanted.
        key: String,
        /// The keys there are.
        keys: String,
    },
    /// The URL cannot be read.
    #[error("{origin}: {source}")]
    Url {
        /// Where the URL comes from.
        origin: String,
        /// What is wrong with it.
        source: UrlError,
    },
    /// Two databases.
    #[error(
        "keyspace.database is {tier} and the URL of Redis names database {url}; give one of the two"
    )]
    Database {
        /// What the tier says.
        tier: u32,
        /// What the URL says.
        url: u32,
    },
    /// `rediss://` and `tls.mode: Disabled`, or the reverse.
    #[error(
        "redis.tls.mode is Disabled and the URL of Redis begins with rediss://; remove redis.tls or write redis://"
    )]
    Tls,
}

/// Compiles the one `CacheTier` among the manifests. `redis_url` is what the process was given as
/// `REDIS_URL`; for topology External it takes the place of the Secret.
pub fn compile(manifests: &Manifests, redis_url: Option<&str>) -> Result<Compiled, CompileError> {
    let tier = the_tier(manifests)?;
    refuse_cluster_only(tier)?;
    let mut notes = manifests.notes.clone();
    announce_sessions(manifests, tier, &mut notes)?;

    let ResolvedTier {
        environment: _,
        redis,
        mut config,
    } = named(&tier.resource);
    let mut credentials = None;
    if redis.topology == Topology::External {
        let namespace = namespace(&tier.resource);
        let secret = |name: &str| {
            let there = |secret: &&Located<Secret>| {
                let in_namespace = secret.resource.namespace.as_deref().unwrap_or("default");
                secret.resource.name == name && in_namespace == namespace
            };
            manifests
                .secrets
                .iter()
                .find(there)
                .map(|found| &found.resource)
        };
        let source = Source {
            tier: &tier.resource,
            place: tier.place.to_string(),
            where_to_add: "is not among the manifests; add it to the folder",
            or_url: ", or set REDIS_URL",
            secret: &secret,
        };
        let external = source.external(redis_url)?;
        config.keyspace.database = external.database;
        config.upstream = Some(external.upstream);
        credentials = external.credentials;
    } else if redis_url.is_some() {
        notes.push(format!(
            "{}: REDIS_URL is set and not used: redis.topology is None, memory only",
            tier.place
        ));
    }
    Ok(Compiled {
        config,
        credentials,
        notes,
    })
}

/// A tier's resolved values, with its name and generation stamped on the configuration.
pub fn named(tier: &CacheTier) -> ResolvedTier {
    let mut resolved = resolve(&tier.spec);
    resolved.config.tier = format!("{}/{}", namespace(tier), tier.name_any());
    resolved.config.generation = generation(tier);
    resolved
}

fn the_tier(manifests: &Manifests) -> Result<&Located<CacheTier>, CompileError> {
    match manifests.tiers.as_slice() {
        [] => Err(CompileError::NoTier),
        [tier] => Ok(tier),
        several => Err(CompileError::SeveralTiers(
            several
                .iter()
                .map(|tier| format!("{} ({})", tier.resource.name_any(), tier.place))
                .collect(),
        )),
    }
}

fn refuse_cluster_only(tier: &Located<CacheTier>) -> Result<(), CompileError> {
    let spec = serde_json::to_value(&tier.resource.spec).unwrap_or_default();
    let findings = validate::refused(not_yet::LOCAL_RUN, &spec);
    if findings.is_empty() {
        return Ok(());
    }
    let place = &tier.place;
    Err(CompileError::NeedsCluster(
        findings
            .iter()
            .map(|finding| format!("{place}: {}: {}", finding.path, finding.message))
            .collect(),
    ))
}

/// Session commands do not exist yet: an app that sends one gets an error from Redis, and the
/// log says why from the start.
fn announce_sessions(
    manifests: &Manifests,
    tier: &Located<CacheTier>,
    notes: &mut Vec<String>,
) -> Result<(), CompileError> {
    for policy in &manifests.sessions {
        let wanted = &policy.resource.spec.cache_tier_ref.name;
        if *wanted != tier.resource.name_any() {
            return Err(CompileError::OtherTier {
                place: policy.place.to_string(),
                wanted: wanted.clone(),
                tier: tier.resource.name_any(),
            });
        }
        notes.push(format!(
            "{}: SessionPolicy {} is valid and not served yet: this version has no session commands",
            policy.place,
            policy.resource.name_any()
        ));
    }
    Ok(())
}

fn namespace(tier: &CacheTier) -> String {
    tier.namespace().unwrap_or_else(|| "default".to_owned())
}

fn generation(tier: &CacheTier) -> u64 {
    let generation = tier.metadata.generation.unwrap_or_default();
    u64::try_from(generation).unwrap_or_default()
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |part: &Option<String>| match part {
            Some(_) => "set",
            None => "none",
        };
        let Self {
            username,
            password,
            sentinel_password,
            ca_certificate,
            client_certificate,
            client_key,
        } = self;
        f.debug_struct("Credentials")
            .field("username", &shown(username))
            .field("password", &shown(password))
            .field("sentinel_password", &shown(sentinel_password))
            .field("ca_certificate", &shown(ca_certificate))
            .field("client_certificate", &shown(client_certificate))
            .field("client_key", &shown(client_key))
            .finish()
    }
}
