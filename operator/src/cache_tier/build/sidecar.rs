//! What sidecars read: the configuration, and a Secret with the files that it names.

use std::collections::BTreeMap;

use crds::Credentials;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use policy::{
    config::{self, SidecarConfig, Upstream, UpstreamMode},
    names::{self, secret_file},
};

use super::Shared;
use crate::cache_tier::{
    object_names::Component,
    passwords::{Passwords, User},
    validate::{Behind, Servers, ValidatedTier},
};

/// `ConfigMap` and Secret of the sidecars of a tier.
pub(super) fn build(tier: &ValidatedTier, passwords: Option<&Passwords>) -> Shared {
    let (upstream, files) = match &tier.behind {
        Behind::Memory => (None, BTreeMap::new()),
        Behind::External(external) => {
            let files = files(external.credentials.as_ref());
            (Some(with_files(external.upstream.clone(), &files)), files)
        }
        Behind::Servers(servers) => {
            let files = own_files(servers, passwords);
            (Some(with_files(own_upstream(tier, servers), &files)), files)
        }
    };
    let config = SidecarConfig {
        upstream,
        ..tier.config.clone()
    };
    let meta = || {
        tier.names
            .meta(tier.names.sidecar(), Component::SidecarConfig, None)
    };
    let yaml = serde_yaml::to_string(&config).expect("the configuration is YAML");
    Shared {
        config_map: ConfigMap {
            metadata: meta(),
            data: Some(BTreeMap::from([(names::SIDECAR_FILE.to_owned(), yaml)])),
            ..ConfigMap::default()
        },
        secret: (!files.is_empty()).then(|| Secret {
            metadata: meta(),
            type_: Some("Opaque".to_owned()),
            data: Some(
                files
                    .into_iter()
                    .map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())))
                    .collect(),
            ),
            ..Secret::default()
        }),
    }
}

type Files = BTreeMap<&'static str, String>;

/// The credentials of an external Redis as files.
fn files(credentials: Option<&Credentials>) -> Files {
    let Some(Credentials {
        username,
        password,
        sentinel_password,
        ca_certificate,
        client_certificate,
        client_key,
    }) = credentials
    else {
        return Files::new();
    };
    [
        (secret_file::USERNAME, username),
        (secret_file::PASSWORD, password),
        (secret_file::SENTINEL_PASSWORD, sentinel_password),
        (secret_file::CA, ca_certificate),
        (secret_file::CERTIFICATE, client_certificate),
        (secret_file::KEY, client_key),
    ]
    .into_iter()
    .filter_map(|(name, text)| Some((name, text.clone()?)))
    .collect()
}

fn own_files(servers: &Servers, passwords: Option<&Passwords>) -> Files {
    let Some(passwords) = passwords else {
        return Files::new();
    };
    let password = &passwords.of(User::Sidecar).current;
    let mut files = Files::from([
        (secret_file::USERNAME, User::Sidecar.name().to_owned()),
        (secret_file::PASSWORD, password.clone()),
    ]);
    if servers.sentinels > 0 {
        files.insert(
            secret_file::SENTINEL_USERNAME,
            User::Sidecar.name().to_owned(),
        );
        files.insert(secret_file::SENTINEL_PASSWORD, password.clone());
    }
    files
}

/// Where the servers of the tier are found.
fn own_upstream(tier: &ValidatedTier, servers: &Servers) -> Upstream {
    if servers.sentinels == 0 {
        return Upstream::at(tier.names.service_host(), names::REDIS_PORT);
    }
    let seeds = (1..servers.sentinels)
        .map(|ordinal| {
            let host = tier.names.sentinel_host(ordinal);
            format!("{host}:{}", names::SENTINEL_PORT)
        })
        .collect();
    Upstream {
        mode: UpstreamMode::Sentinel,
        seeds,
        sentinel: Some(config::Sentinel {
            master_name: tier.names.master().to_owned(),
            ..config::Sentinel::default()
        }),
        ..Upstream::at(tier.names.sentinel_host(0), names::SENTINEL_PORT)
    }
}

/// Names the files that the Secret has.
fn with_files(mut upstream: Upstream, files: &Files) -> Upstream {
    let path = |name: &str| {
        files
            .contains_key(name)
            .then(|| format!("{}/{name}", names::SIDECAR_SECRETS))
    };
    upstream.username_file = path(secret_file::USERNAME);
    upstream.password_file = path(secret_file::PASSWORD);
    if let Some(sentinel) = &mut upstream.sentinel {
        sentinel.username_file = path(secret_file::SENTINEL_USERNAME);
        sentinel.password_file = path(secret_file::SENTINEL_PASSWORD);
    }
    if let Some(tls) = &mut upstream.tls {
        tls.ca_file = path(secret_file::CA);
        tls.cert_file = path(secret_file::CERTIFICATE);
        tls.key_file = path(secret_file::KEY);
    }
    upstream
}
