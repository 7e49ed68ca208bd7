//! A Redis that exists already: where it is, from its URL, and how to log in, from Secrets.

use std::collections::BTreeSet;

use policy::config;

use super::{CompileError, Credentials};
use crate::{
    CacheTier,
    cache_tier::{CacheTierSpec, ExternalMode, ReplicaReads, SecretKey, TlsMode},
    manifest::Secret,
    redis_url::{Beside, RedisUrl},
};

/// A Redis that exists already.
#[derive(Clone, Debug)]
pub struct External {
    /// Where it is.
    pub upstream: config::Upstream,
    /// The database to be in.
    pub database: u32,
    /// How to log in, where it asks for it.
    pub credentials: Option<Credentials>,
}

/// Where URL, password and certificates of an external Redis come from.
pub struct Source<'a> {
    /// The tier.
    pub tier: &'a CacheTier,
    /// Where it stands, for messages.
    pub place: String,
    /// What to do about a missing Secret.
    pub where_to_add: &'static str,
    /// Another way to give the URL, where there is one.
    pub or_url: &'static str,
    /// A Secret of the tier's namespace by its name.
    pub secret: &'a dyn Fn(&str) -> Option<&'a Secret>,
}

/// The Secrets that a tier names, each once.
pub fn secrets_named(spec: &CacheTierSpec) -> BTreeSet<&str> {
    let redis = &spec.redis;
    let external = redis.external.iter().flat_map(|external| {
        let sentinel = external.sentinel_password_secret_ref.as_ref();
        std::iter::once(&external.url_secret_ref).chain(sentinel)
    });
    let authorities = redis
        .tls
        .iter()
        .filter_map(|tls| tls.ca_secret_ref.as_ref());
    let certificate = redis
        .tls
        .iter()
        .filter_map(|tls| tls.client_certificate_secret_name.as_deref());
    let password = redis
        .auth
        .iter()
        .filter_map(|auth| auth.password_secret_ref.as_ref());
    external
        .chain(authorities)
        .chain(password)
        .map(|key| key.name.as_str())
        .chain(certificate)
        .collect()
}

impl Source<'_> {
    /// Finds the Redis; `given` takes the place of the Secret with the URL.
    pub fn external(&self, given: Option<&str>) -> Result<External, CompileError> {
        let (url, origin) = self.url(given)?;
        Ok(External {
            database: database(self.tier, &url)?,
            upstream: upstream(self.tier, &url, origin)?,
            credentials: self.credentials(url)?,
        })
    }

    /// The URL, and where it comes from.
    fn url(&self, given: Option<&str>) -> Result<(RedisUrl, String), CompileError> {
        let (text, origin) = match (given, &self.tier.spec.redis.external) {
            (Some(text), _) => (text, "REDIS_URL".to_owned()),
            (None, Some(external)) => {
                let field = "spec.redis.external.urlSecretRef";
                let text = self.secret(&external.url_secret_ref, "url", field, self.or_url)?;
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
        let redis = &self.tier.spec.redis;
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
        let place = || self.place.clone();
        let secret = (self.secret)(&reference.name).ok_or_else(|| CompileError::NoSecret {
            place: place(),
            field,
            secret: reference.name.clone(),
            key: key.to_owned(),
            where_to_add: self.where_to_add,
            or_url,
        })?;
        secret.get(key).ok_or_else(|| CompileError::NoKey {
            place: place(),
            field,
            secret: reference.name.clone(),
            key: key.to_owned(),
            keys: secret.keys().collect::<Vec<_>>().join(", "),
        })
    }
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
