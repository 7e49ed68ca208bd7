//! What the agents read: one file for servers, one for Sentinels.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use policy::names;

use super::{
    pod_template::{SENTINEL_GRACE, SERVER_GRACE},
    redis_conf,
};
use crate::{
    cache_tier::{
        object_names::Component,
        plan::Plan,
        validate::{Servers, ValidatedTier},
    },
    instance::config::{InstanceConfig, Kind},
};

/// Key of the servers' file.
pub(super) const SERVER_FILE: &str = "server.yaml";
/// Key of the Sentinels' file.
pub(super) const SENTINEL_FILE: &str = "sentinel.yaml";
/// Where the files are mounted.
pub(super) const FOLDER: &str = "/etc/pannier/instance";
/// Where the passwords are mounted.
pub(super) const AUTH: &str = "/etc/pannier/auth";
/// Silence after which Sentinels think that a server is away.
const DOWN_AFTER: u64 = 5000;
/// Time that a fail-over may take.
const FAILOVER_TIMEOUT: u64 = 20_000;
/// Where data and written files are.
pub(super) const DATA: &str = "/data";

pub(super) fn build(tier: &ValidatedTier, servers: &Servers, plan: &Plan) -> ConfigMap {
    let config = |kind| {
        let text = serde_yaml::to_string(&config(tier, servers, plan, kind));
        text.expect("the configuration is YAML")
    };
    let mut data = BTreeMap::from([(SERVER_FILE.to_owned(), config(Kind::Server))]);
    if servers.sentinels > 0 {
        data.insert(SENTINEL_FILE.to_owned(), config(Kind::Sentinel));
    }
    ConfigMap {
        metadata: tier.names.meta(tier.names.redis(), Component::Redis, None),
        data: Some(data),
        ..ConfigMap::default()
    }
}

fn config(tier: &ValidatedTier, servers: &Servers, plan: &Plan, kind: Kind) -> InstanceConfig {
    let names = &tier.names;
    let pods = plan.shards.first().map_or(0, |shard| shard.pods);
    InstanceConfig {
        tier: format!("{}/{}", names.namespace, names.tier),
        uid: tier.uid.clone(),
        formed: tier.formed,
        kind,
        port: match kind {
            Kind::Server => names::REDIS_PORT,
            Kind::Sentinel => names::SENTINEL_PORT,
        },
        servers: (0..pods)
            .map(|ordinal| names.server_host(0, ordinal))
            .collect(),
        server_port: names::REDIS_PORT,
        sentinels: (0..servers.sentinels)
            .map(|ordinal| names.sentinel_host(ordinal))
            .collect(),
        sentinel_port: names::SENTINEL_PORT,
        master_name: names.master().to_owned(),
        quorum: servers.sentinels / 2 + 1,
        persistent: servers.persistent(),
        data: DATA.to_owned(),
        auth: AUTH.to_owned(),
        open: servers.open,
        config: match kind {
            Kind::Server => redis_conf::settings(tier, servers, plan),
            Kind::Sentinel => BTreeMap::new(),
        },
        http_port: names::AGENT_PORT,
        grace_period_seconds: match kind {
            Kind::Server => SERVER_GRACE,
            Kind::Sentinel => SENTINEL_GRACE,
        }
        .unsigned_abs(),
        down_after_milliseconds: DOWN_AFTER,
        failover_timeout_milliseconds: FAILOVER_TIMEOUT,
    }
}
