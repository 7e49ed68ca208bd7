//! Flags of `pannier-operator`, and nothing else. No secret is a flag (P10).

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args as Flags, Parser, Subcommand, ValueEnum};

/// Reconciles Pannier's custom resources, or runs as the agent of one Redis pod.
#[derive(Debug, Parser)]
#[command(name = "pannier-operator", version, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reconcile `CacheTier` and `SessionPolicy`.
    Run(Box<Run>),
    /// Run as process 1 of a Redis or Sentinel container: guard its start, its role, its end.
    Instance(Instance),
    /// Copy this binary to where another container finds it: what the init container runs.
    Install(Install),
    /// Tell the waiting boot guard of this pod that what silent servers hold may be lost.
    AcceptLoss(Instance),
    /// An app to try a sidecar with: reads and writes at `REDIS_URL`, and says how often it was a hit.
    Demo(Demo),
}

/// Flags of the operator itself.
#[derive(Clone, Debug, Flags)]
pub struct Run {
    /// Namespace to watch; may be given several times. Without it all namespaces are watched.
    #[arg(long, value_name = "NAMESPACE")]
    pub watch_namespace: Vec<String>,
    /// Further namespace that tiers of the watched ones are shared with: pods there are told of
    /// changes, and counted; may be given several times.
    #[arg(long, value_name = "NAMESPACE", requires = "watch_namespace")]
    pub share_namespace: Vec<String>,
    /// Namespace in which the operator itself runs.
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "PANNIER_NAMESPACE",
        default_value = "default"
    )]
    pub namespace: String,
    /// This process among those of its installation: the pod's name.
    #[arg(
        long,
        value_name = "NAME",
        env = "HOSTNAME",
        default_value = "pannier-operator"
    )]
    pub identity: String,
    /// Name of the installation, the same in all of its pods; its Lease is named so.
    #[arg(long, value_name = "NAME", default_value = "pannier-operator")]
    pub installation: String,
    /// Domain of the cluster's DNS.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Image with `pannier-operator`, copied into the server pods as their agent.
    #[arg(
        long,
        value_name = "IMAGE",
        default_value = "ghcr.io/pannier-dev/operator:0.1.0"
    )]
    pub agent_image: String,
    /// Image of Valkey for tiers that name none.
    #[arg(long, value_name = "IMAGE", default_value = "valkey/valkey:8.1")]
    pub valkey_image: String,
    /// Image of Redis for tiers that name none.
    #[arg(long, value_name = "IMAGE", default_value = "redis:8.0")]
    pub redis_image: String,
    /// Address of /live, /ready, /metrics and /state. `[::]` stands for IPv4 as well.
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8080")]
    pub listen: SocketAddr,
    /// Address of the webhook that injects sidecars, [::]:8443 behind a Service. Without it none
    /// is served.
    #[arg(long, value_name = "ADDRESS")]
    pub webhook_listen: Option<SocketAddr>,
    /// Service of the webhook, in the operator's own namespace: the certificate names it.
    #[arg(long, value_name = "NAME", default_value = "pannier-operator-webhook")]
    pub webhook_service: String,
    /// `MutatingWebhookConfiguration` whose CA bundle is kept in step with the certificate.
    #[arg(long, value_name = "NAME", default_value = "pannier-operator")]
    pub webhook_configuration: String,
    /// Image of the sidecar for tiers that name none.
    #[arg(
        long,
        value_name = "IMAGE",
        default_value = "ghcr.io/pannier-dev/sidecar:0.1.0"
    )]
    pub sidecar_image: String,
    /// What becomes of a pod whose labels name a tier that does not exist.
    #[arg(long, value_name = "POLICY", value_enum, default_value_t)]
    pub unknown_tier: UnknownTier,
}

/// What becomes of a pod whose labels name a tier that does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum UnknownTier {
    /// It is created without a sidecar, with an event that says so.
    #[default]
    Ignore,
    /// It is not created.
    Refuse,
}

/// Flags of the agent.
#[derive(Debug, Flags)]
pub struct Instance {
    /// What this instance is: the file that the operator renders.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/pannier/instance/server.yaml"
    )]
    pub config: PathBuf,
}

/// Flags of the app to try.
#[derive(Debug, Flags)]
pub struct Demo {
    /// Write a value, read it twice, and fail unless one read was answered from the sidecar's memory.
    #[arg(long)]
    pub once: bool,
}

/// Flags of the copy.
#[derive(Debug, Flags)]
pub struct Install {
    /// The file to write.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/pannier/bin/pannier-operator"
    )]
    pub to: PathBuf,
}
