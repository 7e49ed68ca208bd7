//! From manifests to the configuration of one sidecar, for a run without a cluster.
//!
//! It follows `manifest`, which checked each resource by itself; here is what only the local run
//! refuses. The sidecar compiles the rules (`policy::Policy`) afterwards. Secrets never enter the
//! configuration: they are handed over beside it.

use std::fmt;

use kube::ResourceExt as _;
use policy::config::{self, SidecarConfig};

use crate::{
    CacheTier,
    cache_tier::{ExternalMode, ReplicaReads, SecretKey, TlsMode, Topology},
    manifest::{Located, Manifests, Secret},
    not_yet,
    redis_url::{Beside, RedisUrl, UrlError},
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
        "{place}: {field}: Secret {secret:?} is not among the manifests; add it to the folder (kind: Secret with stringData.{key}){or_url}"
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
    } = resolve(&tier.resource.spec);
    config.tier = format!("{}/{}", namespace(&tier.resource), tier.resource.name_any());
    config.generation = generation(&tier.resource);
    let mut credentials = None;
    if redis.topology == Topology::External {
        let source = Source { manifests, tier };
        let (url, origin) = source.url(redis_url)?;
        config.keyspace.database = database(&tier.resource, &url)?;
        config.upstream = Some(upstream(&tier.resource, &url, origin)?);
        credentials = source.credentials(url)?;
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

fn database(tier: &CacheTier, url: &RedisUrl) -> Result<u32, CompileError> {
    let declared = tier
        .spec
        .keyspace
        .as_ref()
        .and_then(|keyspace| keyspace.database);
    match (declared, url.database) {
        (Some(tier), Some(url)) if tier != url => Err(CompileError::Database { tier, url }),
        (declared, url) => Ok(declared.or(url).unwrap_or_default()),
    }
}

fn upstream(
    tier: &CacheTier,
    url: &RedisUrl,
    origin: String,
) -> Result<config::Upstream, CompileError> {
    let declared = tier.spec.redis.tls.as_ref();
    let mode = declared.map(|tls| tls.mode);
    if url.tls && mode == Some(TlsMode::Disabled) {
        return Err(CompileError::Tls);
    }
    let encrypted = url.tls || mode == Some(TlsMode::Enabled);
    let external = tier.spec.redis.external.as_ref();
    let beside = Beside {
        mode: external
            .and_then(|external| external.mode)
            .map(|mode| match mode {
                ExternalMode::Standalone => config::UpstreamMode::Standalone,
                ExternalMode::Sentinel => config::UpstreamMode::Sentinel,
                ExternalMode::Cluster => config::UpstreamMode::Cluster,
            }),
        master_name: external.and_then(|external| external.sentinel_master_name.as_deref()),
    };
    let found = url
        .upstream(beside)
        .map_err(|source| CompileError::Url { origin, source })?;
    Ok(config::Upstream {
        tls: encrypted.then(|| config::Tls {
            ca_file: None,
            cert_file: None,
            key_file: None,
            server_name: declared.and_then(|tls| tls.server_name.clone()),
        }),
        replica_reads: match external.and_then(|external| external.replica_reads) {
            Some(ReplicaReads::Preferred) => config::ReplicaReads::Preferred,
            Some(ReplicaReads::Never) | None => config::ReplicaReads::Never,
        },
        ..found
    })
}

/// Where URL, password and certificates of an external Redis come from.
struct Source<'a> {
    manifests: &'a Manifests,
    tier: &'a Located<CacheTier>,
}

impl Source<'_> {
    /// The URL, and where it comes from.
    fn url(&self, given: Option<&str>) -> Result<(RedisUrl, String), CompileError> {
        let (text, origin) = match (given, &self.tier.resource.spec.redis.external) {
            (Some(text), _) => (text, "REDIS_URL".to_owned()),
            (None, Some(external)) => {
                let field = "spec.redis.external.urlSecretRef";
                let or_url = ", or set REDIS_URL";
                let text = self.secret(&external.url_secret_ref, "url", field, or_url)?;
                (text, format!("Secret {}", external.url_secret_ref.name))
            }
            // The invariants refuse this; an empty text gives a sentence all the same.
            (None, None) => ("", "spec.redis.external".to_owned()),
        };
        match text.parse() {
            Ok(url) => Ok((url, origin)),
            Err(source) => Err(CompileError::Url { origin, source }),
        }
    }

    fn credentials(&self, url: RedisUrl) -> Result<Option<Credentials>, CompileError> {
        let mut credentials = Credentials {
            username: url.username,
            password: url.password,
            ..Credentials::default()
        };
        let redis = &self.tier.resource.spec.redis;
        let sentinel = redis
            .external
            .as_ref()
            .and_then(|external| external.sentinel_password_secret_ref.as_ref());
        if let Some(reference) = sentinel {
            let field = "spec.redis.external.sentinelPasswordSecretRef";
            let password = self.secret(reference, "password", field, "")?;
            credentials.sentinel_password = Some(password.to_owned());
        }
        if let Some(tls) = &redis.tls {
            if let Some(ca) = &tls.ca_secret_ref {
                let field = "spec.redis.tls.caSecretRef";
                credentials.ca_certificate = Some(self.secret(ca, "ca.crt", field, "")?.to_owned());
            }
            if let Some(name) = &tls.client_certificate_secret_name {
                let field = "spec.redis.tls.clientCertificateSecretName";
                let part = |key: &str| {
                    let reference = SecretKey {
                        name: name.clone(),
                        key: Some(key.to_owned()),
                    };
                    self.secret(&reference, key, field, "")
                        .map(ToOwned::to_owned)
                };
                credentials.client_certificate = Some(part("tls.crt")?);
                credentials.client_key = Some(part("tls.key")?);
            }
        }
        Ok((credentials != Credentials::default()).then_some(credentials))
    }

    fn secret(
        &self,
        reference: &SecretKey,
        usual_key: &str,
        field: &'static str,
        or_url: &'static str,
    ) -> Result<&str, CompileError> {
        let key = reference.key.as_deref().unwrap_or(usual_key);
        let place = || self.tier.place.to_string();
        let same = |secret: &&Located<Secret>| {
            let namespace_of = secret.resource.namespace.as_deref().unwrap_or("default");
            secret.resource.name == reference.name && namespace_of == namespace(&self.tier.resource)
        };
        let secret = &self
            .manifests
            .secrets
            .iter()
            .find(same)
            .ok_or_else(|| CompileError::NoSecret {
                place: place(),
                field,
                secret: reference.name.clone(),
                key: key.to_owned(),
                or_url,
            })?
            .resource;
        secret.get(key).ok_or_else(|| CompileError::NoKey {
            place: place(),
            field,
            secret: reference.name.clone(),
            key: key.to_owned(),
            keys: secret.keys().collect::<Vec<_>>().join(", "),
        })
    }
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
