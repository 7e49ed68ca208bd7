//! What an installation of the operator is told once, at its start. No secret is in it.

use std::net::SocketAddr;

use crds::cache_tier::Engine;

use crate::args::Run;
pub use crate::args::UnknownTier;

/// The settings of one installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Namespace in which the operator itself runs.
    pub namespace: String,
    /// This process among those of its installation: the pod's name.
    pub identity: String,
    /// Name of the installation, the same in all of its pods.
    pub installation: String,
    /// Namespaces whose tiers are reconciled.
    pub scope: Scope,
    /// Further namespaces that these tiers are shared with; sorted, each once.
    pub shared: Vec<String>,
    /// Domain of the cluster's DNS.
    pub cluster_domain: String,
    /// Image with `pannier-operator`, copied into the server pods.
    pub agent_image: String,
    /// Image of a Valkey for tiers that name none.
    pub valkey_image: String,
    /// Image of a Redis for tiers that name none.
    pub redis_image: String,
    /// The webhook that injects sidecars, if one is served.
    pub webhook: Option<Webhook>,
}

/// The webhook that injects sidecars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its Service, in the operator's own namespace.
    pub service: String,
    /// The `MutatingWebhookConfiguration` that leads to it.
    pub configuration: String,
    /// Image of the sidecar for tiers that name none.
    pub sidecar_image: String,
    /// What becomes of a pod whose labels name a tier that does not exist.
    pub unknown_tier: UnknownTier,
}

/// Namespaces whose tiers are reconciled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    Cluster,
    /// These, sorted, each once; at least one.
    Namespaces(Vec<String>),
}

// === impl Settings ===

impl Settings {
    /// From the flags.
    pub fn new(flags: Run) -> Self {
        let namespaces = each_once(flags.watch_namespace);
        Self {
            namespace: flags.namespace,
            identity: flags.identity,
            installation: flags.installation,
            scope: if namespaces.is_empty() {
                Scope::Cluster
            } else {
                Scope::Namespaces(namespaces)
            },
            shared: each_once(flags.share_namespace),
            cluster_domain: flags.cluster_domain,
            agent_image: flags.agent_image,
            valkey_image: flags.valkey_image,
            redis_image: flags.redis_image,
            webhook: flags.webhook_listen.map(|listen| Webhook {
                listen,
                service: flags.webhook_service,
                configuration: flags.webhook_configuration,
                sidecar_image: flags.sidecar_image,
                unknown_tier: flags.unknown_tier,
            }),
        }
    }

    /// Where pods with sidecars of our tiers are: where the tiers are, and where they are shared with.
    pub fn places_of_pods(&self) -> Scope {
        match &self.scope {
            Scope::Cluster => Scope::Cluster,
            Scope::Namespaces(watched) => {
                Scope::Namespaces(each_once([&watched[..], &self.shared].concat()))
            }
        }
    }

    /// The image of an engine.
    pub fn image(&self, engine: Engine) -> &str {
        match engine {
            Engine::Valkey => &self.valkey_image,
            Engine::Redis => &self.redis_image,
        }
    }

    /// The installation among all of a cluster: what two of them must not share.
    pub fn installation_id(&self) -> String {
        format!("{}/{}", self.namespace, self.installation)
    }
}

fn each_once(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names
}

/// Settings for tests.
#[cfg(test)]
pub mod samples {
    use clap::Parser as _;

    use super::Settings;
    use crate::args::{Args, Command};

    /// Those of an installation that was started with these flags.
    pub fn of(flags: &[&str]) -> Settings {
        let mut words = vec!["pannier-operator", "run"];
        words.extend(flags);
        match Args::parse_from(words).command {
            Command::Run(flags) => Settings::new(*flags),
            other => panic!("{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_where_tiers_are_and_where_they_are_shared_with() {
        assert_eq!(samples::of(&[]).places_of_pods(), Scope::Cluster);
        let some = samples::of(&[
            "--watch-namespace=shop",
            "--watch-namespace=blog",
            "--share-namespace=shop",
            "--share-namespace=apps",
        ]);
        let names = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
        assert_eq!(some.scope, Scope::Namespaces(names(&["blog", "shop"])));
        let pods = Scope::Namespaces(names(&["apps", "blog", "shop"]));
        assert_eq!(some.places_of_pods(), pods);
    }
}
