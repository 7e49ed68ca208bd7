//! The cluster that a test of the finished product runs against: ours, or the one that the user
//! names. Another's cluster is only ever used when `PANNIER_E2E_KUBECONFIG` says so: the `KUBECONFIG`
//! that many shells have set may lead to production.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::{Binaries, Cluster, Unavailable};
use crate::environment::unusable;

/// Names the kubeconfig file of a cluster to test against.
pub const VARIABLE: &str = "PANNIER_E2E_KUBECONFIG";

/// A cluster to test against.
pub enum Target {
    /// Started by the harness, with nodes that can be cut.
    Own(&'static Cluster),
    /// The user's, by its kubeconfig file; its nodes and its network are left alone.
    Borrowed(PathBuf),
}

/// The kubeconfig file that the user names.
pub fn named() -> Option<PathBuf> {
    let file = std::env::var_os(VARIABLE).filter(|file| !file.is_empty());
    file.map(PathBuf::from)
}

/// For what only a Kubernetes of our own can be used for: nobody means it when another is named.
pub(super) fn must_be_ours() -> Result<(), Unavailable> {
    named().map_or(Ok(()), |file| Err(Unavailable::NotOurs(file)))
}

impl Target {
    /// The cluster that the user names, else ours.
    pub fn get() -> Result<Self, Unavailable> {
        named().map_or_else(
            || Cluster::shared().map(Self::Own),
            |file| Ok(Self::Borrowed(file)),
        )
    }

    /// Our own cluster, for what would harm another's: cut nodes, killed containers, local volumes.
    pub fn own(&self) -> Result<&'static Cluster, Unavailable> {
        match self {
            Self::Own(cluster) => Ok(cluster),
            Self::Borrowed(file) => Err(Unavailable::NotOurs(file.clone())),
        }
    }

    /// The kubeconfig file.
    pub fn kubeconfig(&self) -> &Path {
        match self {
            Self::Own(cluster) => cluster.plane().kubeconfig(),
            Self::Borrowed(file) => file,
        }
    }

    /// A client of the user in the kubeconfig file. It belongs to the runtime it is made in.
    pub async fn client(&self) -> Client {
        let file = self.kubeconfig();
        let made = async {
            let parsed = Kubeconfig::read_from(file).map_err(|error| error.to_string())?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(parsed, &options);
            let config = config.await.map_err(|error| error.to_string())?;
            Client::try_from(config).map_err(|error| error.to_string())
        };
        made.await
            .unwrap_or_else(|error| unusable(&format!("no client by {}: {error}", file.display())))
    }

    /// `kubectl` for it, to be completed with arguments.
    pub fn kubectl(&self) -> Result<Command, Unavailable> {
        match self {
            Self::Own(cluster) => Ok(cluster.plane().kubectl()),
            Self::Borrowed(file) => {
                let mut command = Command::new(Binaries::get()?.program("kubectl"));
                command.env("KUBECONFIG", file);
                Ok(command)
            }
        }
    }
}
