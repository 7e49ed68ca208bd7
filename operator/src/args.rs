//! Flags of `pannier-operator`, and nothing else. No secret is a flag (P10).

use std::path::PathBuf;

use clap::{Args as Flags, Parser, Subcommand};

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
    /// Run as process 1 of a Redis or Sentinel container: guard its start, its role, its end.
    Instance(Instance),
    /// Copy this binary to where another container finds it: what the init container runs.
    Install(Install),
    /// Tell the waiting boot guard of this pod that what silent servers hold may be lost.
    AcceptLoss(Instance),
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
