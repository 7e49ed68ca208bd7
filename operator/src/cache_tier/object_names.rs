//! Names and labels of the objects of a tier, in one place.

use std::collections::BTreeMap;

use kube::api::ObjectMeta;
use policy::names;

/// The names of one tier's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectNames {
    /// Name of the tier.
    pub tier: String,
    /// Its namespace.
    pub namespace: String,
    /// Domain of the cluster's DNS.
    pub domain: String,
}

/// What an object is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The servers.
    Redis,
    /// The Sentinels.
    Sentinel,
    /// What sidecars read.
    SidecarConfig,
}

impl Component {
    /// As a label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Sentinel => "sentinel",
            Self::SidecarConfig => "sidecar-config",
        }
    }
}

impl ObjectNames {
    /// `StatefulSet`, headless Service and disruption budget of a shard.
    pub fn shard(&self, shard: u32) -> String {
        format!("{}-shard-{shard}", self.tier)
    }

    /// A server's pod.
    pub fn pod(&self, shard: u32, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.shard(shard))
    }

    /// `StatefulSet`, headless Service, disruption budget and policy of the Sentinels.
    pub fn sentinel(&self) -> String {
        format!("{}-sentinel", self.tier)
    }

    /// `ConfigMap` of the agents, `ServiceAccount` and policy of the servers.
    pub fn redis(&self) -> String {
        format!("{}-redis", self.tier)
    }

    /// Secret with the passwords of the ACL users.
    pub fn auth(&self) -> String {
        format!("{}-auth", self.tier)
    }

    /// Secret for clients without a sidecar.
    pub fn binding(&self) -> String {
        format!("{}-binding", self.tier)
    }

    /// `ConfigMap` and Secret of the sidecars.
    pub fn sidecar(&self) -> String {
        names::sidecar_objects(&self.tier)
    }

    /// By what name Sentinels know the primary.
    pub fn master(&self) -> &str {
        &self.tier
    }

    /// DNS name of a server's pod.
    pub fn server_host(&self, shard: u32, ordinal: u32) -> String {
        self.host(&self.pod(shard, ordinal), &self.shard(shard))
    }

    /// DNS name of a Sentinel's pod.
    pub fn sentinel_host(&self, ordinal: u32) -> String {
        let set = self.sentinel();
        self.host(&format!("{set}-{ordinal}"), &set)
    }

    /// DNS name of the Service for clients of a Standalone.
    pub fn service_host(&self) -> String {
        let Self {
            tier,
            namespace,
            domain,
        } = self;
        format!("{tier}.{namespace}.svc.{domain}")
    }

    fn host(&self, pod: &str, service: &str) -> String {
        format!("{pod}.{service}.{}.svc.{}", self.namespace, self.domain)
    }

    /// Labels of an object.
    pub fn labels(&self, component: Component, shard: Option<u32>) -> BTreeMap<String, String> {
        let mut labels = self.selector(component, shard);
        labels.insert("app.kubernetes.io/name".to_owned(), "pannier".to_owned());
        labels.insert(
            "app.kubernetes.io/managed-by".to_owned(),
            names::FIELD_MANAGER.to_owned(),
        );
        labels
    }

    /// The labels by which the pods of a component are selected; they never change.
    pub fn selector(&self, component: Component, shard: Option<u32>) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            ("app.kubernetes.io/instance".to_owned(), self.tier.clone()),
            (names::TIER.to_owned(), self.tier.clone()),
            (
                "app.kubernetes.io/component".to_owned(),
                component.label().to_owned(),
            ),
        ]);
        if let Some(shard) = shard {
            labels.insert(names::SHARD.to_owned(), shard.to_string());
        }
        labels
    }

    /// Metadata of an object; its namespace and owner are added where it is applied.
    pub fn meta(&self, name: String, component: Component, shard: Option<u32>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            labels: Some(self.labels(component, shard)),
            ..ObjectMeta::default()
        }
    }
}
