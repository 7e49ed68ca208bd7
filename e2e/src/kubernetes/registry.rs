//! A registry of images in a cluster's network, and `skopeo`, which pushes to it: Debian's programs, unpacked
//! into the cache folder.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;

use super::cluster::{Cluster, Forward};
use crate::{
    debian::{FetchError, step, unpack, write_launchers},
    environment::{cache_folder, lock},
    process::Process,
    wait,
};

const VARIABLE: &str = "PANNIER_REGISTRY";
const PROGRAMS: [&str; 2] = ["docker-registry", "skopeo"];
const PACKAGES: [&str; 10] = [
    "docker-registry",
    "skopeo",
    "libassuan0",
    "libc6",
    "libdevmapper1.02.1",
    "libgpg-error0",
    "libgpgme11",
    "libpcre2-8-0",
    "libselinux1",
    "libudev1",
];

/// A running registry.
pub struct Registry {
    forward: Forward,
    tools: PathBuf,
    _process: Process,
}

impl Registry {
    /// An empty one that the nodes of `cluster` reach.
    pub fn start(cluster: &Cluster) -> Result<Self, FetchError> {
        let programs = programs()?;
        let folder = cluster.run().subfolder("registry");
        let config = json!({
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": folder.join("storage")}},
            "http": {"addr": cluster.registry().to_string()},
        });
        let file = folder.join("config.yml");
        step("write a file", || fs::write(&file, config.to_string()))?;
        let mut serve = cluster.command(&programs.join("docker-registry"));
        serve.arg("serve").arg(file);
        let process = cluster.run().start("registry", &mut serve);
        wait::within(
            Duration::from_mins(1),
            || format!("the registry listens: {}", process.log()),
            || cluster.dial(cluster.registry()).ok(),
        );
        let forward = cluster.forward(cluster.registry());
        let tools = write_skopeo(&folder, &programs, forward.address())?;
        Ok(Self {
            forward,
            tools,
            _process: process,
        })
    }

    /// Where it is reached from this machine.
    pub const fn address(&self) -> SocketAddr {
        self.forward.address()
    }

    /// A folder with a `skopeo` that pushes to it without TLS.
    pub fn tools(&self) -> &Path {
        &self.tools
    }
}

fn programs() -> Result<PathBuf, FetchError> {
    if let Some(folder) = std::env::var_os(VARIABLE) {
        return Ok(folder.into());
    }
    let folder = cache_folder().join("registry-1");
    let bin = folder.join("bin");
    if !bin.is_dir() {
        let _lock = lock("registry");
        if !bin.is_dir() {
            eprintln!(
                "fetching a registry and skopeo from Debian (about 15 MB, 10 to 60 seconds; nothing is installed)"
            );
            let root = unpack("bookworm", &PACKAGES, &folder, VARIABLE)?;
            let programs = PROGRAMS.map(|name| root.join("usr/bin").join(name));
            let partial = folder.join("bin.partial");
            write_launchers(&root, &programs, &partial)?;
            step("move the launchers into place", || {
                fs::rename(&partial, &bin)
            })?;
        }
    }
    Ok(bin)
}

/// What users have in `/etc/containers`.
fn write_skopeo(
    folder: &Path,
    programs: &Path,
    registry: SocketAddr,
) -> Result<PathBuf, FetchError> {
    let tools = folder.join("tools");
    let (policy, registries) = (folder.join("policy.json"), folder.join("registries.conf"));
    let script = format!(
        "#!/bin/sh\nexec '{}' --policy '{}' --registries-conf '{}' \"$@\"\n",
        programs.join("skopeo").display(),
        policy.display(),
        registries.display(),
    );
    step("write the tools of a registry", || {
        fs::create_dir_all(&tools)?;
        fs::write(
            &policy,
            r#"{"default": [{"type": "insecureAcceptAnything"}]}"#,
        )?;
        fs::write(
            &registries,
            format!("[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n"),
        )?;
        fs::write(tools.join("skopeo"), script)?;
        fs::set_permissions(tools.join("skopeo"), fs::Permissions::from_mode(0o755))
    })?;
    Ok(tools)
}
