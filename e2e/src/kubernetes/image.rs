//! Container images without a registry: one layer with just the files that a program needs, as a
//! tar file in the OCI layout that containerd imports.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::{
    Engine,
    debian::{FetchError, entries, output, run, step},
    environment::unusable,
};

/// An image in the making.
pub struct Image {
    name: String,
    work: PathBuf,
    entrypoint: Vec<String>,
    user: String,
    labels: BTreeMap<String, String>,
}

/// Where Debian's loader looks for libraries without being told.
fn libraries() -> String {
    format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)
}

impl Image {
    /// An empty one; `name` is what pods call it, with a tag, for example `localhost/x:dev`. It is
    /// built in a folder of its own below `folder`.
    pub fn new(folder: &Path, name: &str) -> Result<Self, FetchError> {
        let work = folder.join(name.replace(['/', ':'], "_"));
        let _ = fs::remove_dir_all(&work);
        step("create a folder for an image", || {
            // Libraries are looked for in both halves of a merged /usr.
            fs::create_dir_all(work.join("root").join(libraries()))?;
            fs::create_dir_all(work.join("root/tmp"))?;
            for half in ["lib", "lib64", "bin", "sbin"] {
                let whole = work.join("root/usr").join(half);
                fs::create_dir_all(whole)?;
                symlink(format!("usr/{half}"), work.join("root").join(half))?;
            }
            fs::set_permissions(work.join("root/tmp"), fs::Permissions::from_mode(0o1777))
        })?;
        Ok(Self {
            name: name.to_owned(),
            work,
            entrypoint: Vec::new(),
            user: "65532:65532".to_owned(),
            labels: BTreeMap::new(),
        })
    }

    /// Copies a file to an absolute path in the image.
    pub fn file(self, from: &Path, to: &str) -> Result<Self, FetchError> {
        let target = self.work.join("root").join(to.trim_start_matches('/'));
        step(&format!("copy {} into an image", from.display()), || {
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            // Another program of the image may have brought it.
            if !target.exists() {
                fs::copy(from, &target)?;
            }
            Ok(())
        })?;
        Ok(self)
    }

    /// Copies a program of this machine and every library it is linked to.
    pub fn program(self, from: &Path, to: &str) -> Result<Self, FetchError> {
        let list = Command::new("ldd").arg(from).output();
        let list = step("start ldd", || list)?;
        // A static program has none, and ldd calls that a failure.
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        self.file(from, to)?.linked(&list)
    }

    /// Copies programs of an unpacked server and their libraries.
    fn unpacked(mut self, root: &Path, programs: &[&str]) -> Result<Self, FetchError> {
        let found = [
            root.join(libraries()),
            root.join(libraries().replace("usr/", "")),
        ];
        let loader = found
            .iter()
            .filter_map(|folder| entries(folder).ok())
            .flatten()
            .find(|path| path.to_string_lossy().contains("/ld-linux"))
            .ok_or_else(|| FetchError::Step {
                step: format!("find the loader below {}", root.display()),
                detail: "no ld-linux in the unpacked libc6".to_owned(),
            })?;
        let path = found.map(|folder| folder.display().to_string()).join(":");
        for program in programs {
            let from = root.join("usr/bin").join(program);
            let mut list = Command::new(&loader);
            list.args(["--library-path", &path, "--list"]).arg(&from);
            let list = output(&format!("list the libraries of {program}"), &mut list)?;
            self = self.file(&from, &format!("/usr/bin/{program}"))?;
            self = self.linked(&list)?;
        }
        let name = loader.file_name().unwrap_or_default().to_string_lossy();
        self.file(&loader, &interpreter(&name))
    }

    /// Copies the libraries that a loader lists.
    fn linked(mut self, list: &str) -> Result<Self, FetchError> {
        for path in linked_files(list) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let to = if name.starts_with("ld-linux") {
                interpreter(&name)
            } else {
                format!("/{}/{name}", libraries())
            };
            self = self.file(&path, &to)?;
        }
        Ok(self)
    }

    /// What it runs when a pod says nothing else.
    #[must_use]
    pub fn entrypoint(mut self, command: &[&str]) -> Self {
        self.entrypoint = command.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Whom it runs as when a pod says nothing else, as `user:group`.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    /// What it says about itself, by `org.opencontainers.image.NAME`.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        let name = format!("org.opencontainers.image.{name}");
        self.labels.insert(name, value.to_owned());
        self
    }

    /// Writes the tar file and returns its path.
    pub fn build(self) -> Result<PathBuf, FetchError> {
        let layout = self.work.join("layout");
        let blobs = layout.join("blobs/sha256");
        step("create a folder for an image", || {
            fs::create_dir_all(&blobs)
        })?;
        let layer = self.work.join("layer.tar");
        tar(&self.work.join("root"), &layer)?;
        let layer = step("read a layer", || fs::read(&layer))?;
        let rootfs = json!({"type": "layers", "diff_ids": [sha256(&layer)]});
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "User": self.user,
                "Env": ["PATH=/usr/bin:/bin"],
                "Labels": self.labels,
            },
            "rootfs": rootfs,
            "history": [{"created_by": "make images"}],
        });
        let blob = |kind: &str, content: &[u8]| -> Result<Value, FetchError> {
            let name = sha256(content);
            let path = blobs.join(name.trim_start_matches("sha256:"));
            step("write an image", || fs::write(path, content))?;
            let media = format!("application/vnd.oci.image.{kind}");
            Ok(json!({"mediaType": media, "digest": name, "size": content.len()}))
        };
        let config = blob("config.v1+json", config.to_string().as_bytes())?;
        let layer = blob("layer.v1.tar", &layer)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": [layer],
        });
        let mut manifest = blob("manifest.v1+json", manifest.to_string().as_bytes())?;
        let tag = self.name.rsplit(':').next().unwrap_or_default();
        manifest["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        step("write an image", || {
            fs::write(layout.join("index.json"), index.to_string())?;
            fs::write(
                layout.join("oci-layout"),
                json!({"imageLayoutVersion": "1.0.0"}).to_string(),
            )
        })?;
        let image = self.work.join("image.tar");
        tar(&layout, &image)?;
        Ok(image)
    }
}

/// The image that holds a pod's namespaces: a process that waits for ever.
pub(super) fn pause(folder: &Path) -> PathBuf {
    let built = || {
        let source = folder.join("pause.rs");
        // As process 1 it ignores what would end it; containerd kills it.
        step("write a program", || {
            fs::write(&source, "fn main() { loop { std::thread::park(); } }\n")
        })?;
        let program = folder.join("pause");
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc
            .args([
                "--edition",
                "2024",
                "-C",
                "opt-level=s",
                "-C",
                "panic=abort",
            ])
            .args([
                "-C",
                "target-feature=+crt-static",
                "-C",
                "strip=symbols",
                "-o",
            ])
            .arg(&program)
            .arg(&source);
        run("build the program that holds a pod", &mut rustc)?;
        Image::new(folder, "localhost/pause:dev")?
            .file(&program, "/pause")?
            .entrypoint(&["/pause"])
            .build()
    };
    built().unwrap_or_else(|error: FetchError| unusable(&error.to_string()))
}

/// An image with a Redis or Valkey and its command line client in the PATH; the user is 999.
pub fn engine(folder: &Path, engine: Engine) -> Result<PathBuf, FetchError> {
    let programs = engine.programs()?;
    let root = programs.with_file_name("root");
    let names = [engine.server()?, engine.cli()?].map(|path| {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    });
    let [server, cli] = &names;
    Image::new(folder, &engine_name(engine))?
        .unpacked(&root, &[server, cli])?
        .entrypoint(&[&format!("/usr/bin/{server}")])
        .user("999:999")
        .build()
}

/// What pods call the image of an engine.
pub fn engine_name(engine: Engine) -> String {
    format!("localhost/{}:dev", engine.name())
}

/// The path under which programs ask for their loader.
fn interpreter(name: &str) -> String {
    let folder = if name.contains("x86-64") {
        "lib64"
    } else {
        "lib"
    };
    format!("/usr/{folder}/{name}")
}

/// Paths in lines such as `libm.so.6 => /lib/libm.so.6 (0x7f)` and `/lib64/ld.so (0x7f)`.
fn linked_files(list: &str) -> Vec<PathBuf> {
    list.lines()
        .filter_map(|line| {
            let path = line.split("=>").last()?.split_whitespace().next()?;
            path.starts_with('/').then(|| PathBuf::from(path))
        })
        .collect()
}

fn sha256(content: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = digest(&SHA256, content);
    digest
        .as_ref()
        .iter()
        .fold("sha256:".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The same files give the same bytes.
fn tar(folder: &Path, into: &Path) -> Result<(), FetchError> {
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0"])
        .args(["--numeric-owner", "-cf"])
        .arg(into)
        .arg("-C")
        .arg(folder)
        .arg(".");
    run(&format!("pack {}", folder.display()), &mut tar)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{linked_files, sha256};

    #[test]
    fn libraries_are_read_from_what_the_loader_lists() {
        let list = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibm.so.6 => /lib/x/libm.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tlibz.so => not found\n";
        let expected = ["/lib/x/libm.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(linked_files(list), expected);
        assert!(linked_files("\tstatically linked\n").is_empty());
    }

    #[test]
    fn content_is_named_by_its_digest() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
    }
}
