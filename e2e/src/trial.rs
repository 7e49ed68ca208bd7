//! `make up` and `make down`: Pannier to look at, on three nodes of this machine or on the cluster that
//! `KUBECONFIG` names. `stage` keeps a cluster of our own alive in the background; `show` installs
//! the chart and a small app wherever it is told to, and reads the hit ratio.

mod show;
mod stage;

use std::path::{Path, PathBuf};

pub use self::{
    show::Show,
    stage::{Stage, hold},
};
use crate::debian::FetchError;

/// Why it could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// A program could not be had, or a command failed.
    #[error(transparent)]
    Step(#[from] FetchError),
    /// Something was not ready in time.
    #[error("{what} not ready within {seconds} s; look with:\n{look}")]
    Late {
        what: &'static str,
        seconds: u64,
        look: String,
    },
    /// The background process ended.
    #[error("the cluster did not come up; the end of {}:\n{tail}", log.display())]
    Ended { log: PathBuf, tail: String },
    /// Nobody has agreed to it.
    #[error("{0}")]
    Unconfirmed(String),
}

/// The folder with the kubeconfig, the log and the process id of our own cluster.
pub fn folder() -> PathBuf {
    target().join("try")
}

/// The target folder of this checkout.
pub fn target() -> PathBuf {
    let repository = repository();
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository.join("target"), PathBuf::from)
}

/// This checkout.
pub fn repository() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    folder.canonicalize().unwrap_or(folder)
}
