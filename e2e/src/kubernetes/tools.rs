//! Helm, and the judge of manifests: built from their Go modules into the cache folder, once per
//! version, like Kubernetes itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use super::go::Go;
use crate::{
    debian::{FetchError, run, step},
    environment::{cache_folder, lock},
};

/// A program that is a Go module of its own.
struct Tool {
    name: &'static str,
    version: &'static str,
    package: &'static str,
    /// Variable of the program that is told its version.
    stamp: Option<&'static str>,
    minutes: &'static str,
}

const HELM: Tool = Tool {
    name: "helm",
    version: "4.2.4",
    package: "helm.sh/helm/v4/cmd/helm",
    stamp: Some("helm.sh/helm/v4/internal/version.version"),
    minutes: "2 minutes",
};

const KUBECONFORM: Tool = Tool {
    name: "kubeconform",
    version: "0.7.0",
    package: "github.com/yannh/kubeconform/cmd/kubeconform",
    stamp: None,
    minutes: "10 seconds",
};

/// The program of Helm 4.
pub fn helm() -> Result<PathBuf, FetchError> {
    HELM.get()
}

/// The program that compares manifests with schemas.
pub fn kubeconform() -> Result<PathBuf, FetchError> {
    KUBECONFORM.get()
}

impl Tool {
    fn get(&self) -> Result<PathBuf, FetchError> {
        let folder = cache_folder().join(format!("{}-{}", self.name, self.version));
        let program = folder.join(self.name);
        if !program.is_file() {
            let _lock = lock(self.name);
            if !program.is_file() {
                self.build(&folder, &program)?;
            }
        }
        Ok(program)
    }

    fn build(&self, folder: &Path, program: &Path) -> Result<(), FetchError> {
        let Self { name, version, .. } = self;
        eprintln!(
            "building {name} {version} into {} (about {} on two cores; nothing is installed)",
            folder.display(),
            self.minutes
        );
        let begun = Instant::now();
        let work = folder.join("build");
        step("create a folder", || fs::create_dir_all(&work))?;
        let go = Go::get(&work)?;
        let flags = self.stamp.map_or("-s -w".to_owned(), |stamp| {
            format!("-s -w -X {stamp}=v{version}")
        });
        let mut command = go.command();
        command
            .env("GOBIN", &work)
            .args(["install", "-trimpath", "-ldflags", &flags])
            .arg(format!("{}@v{version}", self.package));
        run(&format!("build {name}"), &mut command)?;
        step("move a program into place", || {
            fs::rename(work.join(name), program)
        })?;
        // Sources and intermediate results are a hundred times as large as the program.
        let _ = fs::remove_dir_all(&work);
        eprintln!("{name} is there after {:.0?}", begun.elapsed());
        Ok(())
    }
}

/// A `helm` that keeps nothing in the home folder of the user.
pub fn helm_command(folder: &Path) -> Result<Command, FetchError> {
    let mut command = Command::new(helm()?);
    for (variable, name) in [
        ("HELM_CACHE_HOME", "cache"),
        ("HELM_CONFIG_HOME", "config"),
        ("HELM_DATA_HOME", "data"),
    ] {
        command.env(variable, folder.join("helm").join(name));
    }
    Ok(command)
}
