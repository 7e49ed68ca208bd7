//! The images of Pannier itself: of tests, built as the test is, and those of a release, as `make
//! images` writes them. What the Containerfiles say is said here again, and compared by a test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::image::Image;
use crate::{
    built::nested_cargo,
    debian::{FetchError, output, run, step, unpack},
    environment::{cache_folder, lock, unusable},
};

/// Version of the workspace, of the chart and of the images.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where the chart and the manifests look for images.
pub const REGISTRY: &str = "ghcr.io/pannier-dev";

/// A program of ours with an image of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// `pannier-operator`.
    Operator,
    /// `pannier-sidecar`.
    Sidecar,
}

impl Product {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Operator, Self::Sidecar];

    /// The last part of the image's name, and the folder of its sources.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Sidecar => "sidecar",
        }
    }

    /// Its program, and the package that it is in.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Operator => "pannier-operator",
            Self::Sidecar => "pannier-sidecar",
        }
    }

    /// The one with that program.
    pub fn of(program: &str) -> Self {
        let found = Self::ALL.into_iter().find(|one| one.program() == program);
        found.unwrap_or_else(|| unusable(&format!("{program} has no image")))
    }

    /// Where the image is published, below a registry and its folder.
    pub fn image(self, registry: &str) -> String {
        format!("{registry}/{}:{VERSION}", self.name())
    }

    /// Where the program lies in the image.
    pub fn inside(self) -> String {
        format!("/usr/bin/{}", self.program())
    }

    /// What cargo is told for a release: optimised, static, without symbols.
    pub fn cargo(self) -> [&'static str; 12] {
        let program = self.program();
        [
            "rustc",
            "--locked",
            "--release",
            "-p",
            program,
            "--bin",
            program,
            "--",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "strip=symbols",
        ]
    }

    /// What the image says about itself, by `org.opencontainers.image.NAME`.
    pub fn labels(self, commit: &str) -> [(&'static str, String); 4] {
        [
            ("title", self.program().to_owned()),
            ("version", VERSION.to_owned()),
            ("revision", commit.to_owned()),
            ("licenses", "Apache-2.0".to_owned()),
        ]
    }

    /// Builds the program for release.
    pub fn build(self, target: &Path) -> Result<PathBuf, FetchError> {
        let program = self.program();
        let mut cargo = nested_cargo();
        cargo.args(self.cargo()).env("CARGO_TARGET_DIR", target);
        let status = step("start cargo", || cargo.status())?;
        if status.success() {
            return Ok(target.join("release").join(program));
        }
        Err(FetchError::Step {
            step: format!("build {program}"),
            detail: status.to_string(),
        })
    }

    /// The image of a built program, under `name`, as a tar file in a folder of its own below
    /// `folder`.
    pub fn pack(
        self,
        folder: &Path,
        name: &str,
        program: &Path,
        authorities: Option<&Path>,
    ) -> Result<PathBuf, FetchError> {
        let inside = self.inside();
        let mut image = Image::new(folder, name)?
            .file(program, &inside)?
            .entrypoint(&[&inside]);
        for (name, value) in self.labels(&commit()) {
            image = image.label(name, &value);
        }
        if let Some(file) = authorities {
            image = image.file(file, AUTHORITIES)?;
        }
        image.build()
    }
}

/// Where programs look for the certificates of public authorities.
pub const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The commit that is built; says so when files differ from it.
fn commit() -> String {
    let mut git = Command::new("git");
    git.args([
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ])
    .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    output("ask git for the commit", &mut git)
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Certificates of public authorities as Debian has them, for a sidecar before a Redis that one of them vouches
/// for. Not those of this machine: it may trust others.
pub fn authorities() -> Result<PathBuf, FetchError> {
    let folder = cache_folder().join("authorities-1");
    let bundle = folder.join("ca-certificates.crt");
    let _lock = lock("authorities");
    if bundle.is_file() {
        return Ok(bundle);
    }
    let root = unpack("bookworm", &["ca-certificates"], &folder, "PANNIER_CACHE")?;
    let mut list = Command::new("find");
    list.arg(root.join("usr/share/ca-certificates/mozilla"))
        .args(["-name", "*.crt"]);
    let list = output("list certificates", &mut list)?;
    let mut files: Vec<&str> = list.lines().collect();
    files.sort_unstable();
    let mut text = String::new();
    for file in files {
        text += &step("read a certificate", || fs::read_to_string(file))?;
    }
    let partial = folder.join("partial");
    step("write certificates", || {
        fs::write(&partial, text)?;
        fs::rename(&partial, &bundle)
    })?;
    Ok(bundle)
}

/// Sends an image to a registry with whatever is there to do it.
pub fn push(archive: &Path, name: &str) -> Result<(), FetchError> {
    let archive = archive.display();
    if is_here("skopeo") {
        let mut copy = Command::new("skopeo");
        copy.args(["copy", &format!("oci-archive:{archive}")])
            .arg(format!("docker://{name}"));
        return run(&format!("push {name} with skopeo"), &mut copy);
    }
    if is_here("podman") {
        let mut load = Command::new("podman");
        load.args(["load", "--input", &archive.to_string()]);
        run(&format!("load {archive} into podman"), &mut load)?;
        let mut push = Command::new("podman");
        return run(
            &format!("push {name} with podman"),
            push.args(["push", name]),
        );
    }
    Err(missing(
        &format!("push {name}"),
        &format!(
            "neither skopeo nor podman is on this machine; install one of them, or push the archive \
             from where one is: skopeo copy oci-archive:{archive} docker://{name}"
        ),
    ))
}

/// Brings an image to the nodes of kind, or to the containerd of this machine; to that one, where
/// `CONTAINERD_ADDRESS` names its socket.
pub fn load(archive: &Path) -> Result<(), FetchError> {
    let file = archive.display();
    if std::env::var_os("CONTAINERD_ADDRESS").is_none() && is_here("kind") {
        let cluster = std::env::var("KIND_CLUSTER").unwrap_or_else(|_| "kind".to_owned());
        let mut load = Command::new("kind");
        load.args(["load", "image-archive", "--name", &cluster])
            .arg(archive);
        return run(&format!("load {file} into kind ({cluster})"), &mut load);
    }
    if is_here("ctr") {
        let mut import = Command::new("ctr");
        import
            .args(["--namespace", "k8s.io", "images", "import"])
            .arg(archive);
        return run(&format!("import {file} into containerd"), &mut import);
    }
    Err(missing(
        &format!("load {file}"),
        "neither kind nor ctr is on this machine; copy the archive to each node and run there: \
         ctr --namespace k8s.io images import FILE",
    ))
}

fn missing(step: &str, detail: &str) -> FetchError {
    FetchError::Step {
        step: step.to_owned(),
        detail: detail.to_owned(),
    }
}

fn is_here(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}
