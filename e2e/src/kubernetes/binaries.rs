//! The programs of Kubernetes, built from their Go module into the cache folder, once per version:
//! nobody publishes them where a build may fetch them. `PANNIER_KUBERNETES` may name a folder
//! with the programs instead.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use super::go::Go;
use crate::{
    debian::{FetchError, output, run, step},
    environment::{cache_folder, lock},
};

/// Which Kubernetes is built.
pub const KUBERNETES: &str = "1.36.3";
/// Which `CoreDNS` is built.
pub const COREDNS: &str = "1.14.7";

/// In the order of their need: a run that only needs the API server may begin early.
const PROGRAMS: [&str; 6] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kubectl",
    "kubelet",
    "kube-proxy",
    "kube-scheduler",
];
const DNS: &str = "coredns";

/// A folder with all programs.
#[derive(Clone, Debug)]
pub struct Binaries(PathBuf);

impl Binaries {
    /// Those in the cache folder; built first if they are not there yet.
    pub fn get() -> Result<Self, FetchError> {
        if let Some(folder) = std::env::var_os("PANNIER_KUBERNETES") {
            return Ok(Self(folder.into()));
        }
        let folder = cache_folder().join(format!("kubernetes-{KUBERNETES}"));
        let all = Self(folder.join("bin"));
        if !all.missing().is_empty() {
            let _lock = lock("kubernetes");
            let missing = all.missing();
            if !missing.is_empty() {
                build(&folder, &missing)?;
            }
        }
        Ok(all)
    }

    /// The path of one program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn missing(&self) -> Vec<&'static str> {
        PROGRAMS
            .into_iter()
            .chain([DNS])
            .filter(|name| !self.program(name).is_file())
            .collect()
    }
}

fn build(folder: &Path, missing: &[&'static str]) -> Result<(), FetchError> {
    eprintln!(
        "building Kubernetes {KUBERNETES} and CoreDNS {COREDNS} into {} (the first time about 9 minutes on \
         two cores and 7 GB of disk for the time of the build, 0.6 GB afterwards; nothing is installed)",
        folder.display()
    );
    let begun = Instant::now();
    let work = folder.join("build");
    let bin = folder.join("bin");
    for needed in [&work, &bin] {
        step("create a folder", || fs::create_dir_all(needed))?;
    }
    let go = Go::get(&work)?;
    let module = Module::new(&go, &work)?;
    for (number, name) in missing.iter().enumerate() {
        let here = Instant::now();
        let partial = work.join("bin");
        if *name == DNS {
            go_install_dns(&go, &partial)?;
        } else {
            module.build(&go, name, &partial)?;
        }
        // Only a whole program appears under its name, so an interrupted build goes on here.
        step("move a program into place", || {
            fs::rename(partial.join(name), bin.join(name))
        })?;
        eprintln!(
            "  {name} is built ({} of {}, {:.0?})",
            number + 1,
            missing.len(),
            here.elapsed()
        );
    }
    // Sources and intermediate results are ten times as large as the programs.
    let _ = fs::remove_dir_all(&work);
    eprintln!("Kubernetes is there after {:.0?}", begun.elapsed());
    Ok(())
}

/// A module of our own that requires `k8s.io/kubernetes` and repeats its replacements: Go ignores
/// those of a dependency.
struct Module {
    folder: PathBuf,
    version_flags: String,
}

impl Module {
    fn new(go: &Go, work: &Path) -> Result<Self, FetchError> {
        let folder = work.join("module");
        let _ = fs::remove_dir_all(&folder);
        step("create a folder", || fs::create_dir_all(&folder))?;
        let in_module = |arguments: &[&str]| {
            let mut command = go.command();
            command.current_dir(&folder).args(arguments);
            output(&format!("go {}", arguments.join(" ")), &mut command)
        };
        in_module(&["mod", "init", "kubernetes-for-tests"])?;
        let required = format!("k8s.io/kubernetes@v{KUBERNETES}");
        let described = in_module(&["mod", "download", "-json", &required])?;
        let described: BTreeMap<String, serde_json::Value> = serde_json::from_str(&described)
            .map_err(|error| FetchError::Step {
                step: "read what go says of k8s.io/kubernetes".to_owned(),
                detail: error.to_string(),
            })?;
        let list = described
            .get("GoMod")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default();
        let list = step("read the go.mod of k8s.io/kubernetes", || {
            fs::read_to_string(list)
        })?;
        let mut edit = vec!["mod".to_owned(), "edit".to_owned()];
        edit.extend(
            staged_modules(&list)
                .map(|module| format!("-replace={module}={module}@v{}", staged_version())),
        );
        // Not `go get`: it asks the proxy for sub-paths that are no modules.
        edit.push(format!("-require={required}"));
        let edit: Vec<&str> = edit.iter().map(String::as_str).collect();
        in_module(&edit)?;
        Ok(Self {
            folder,
            version_flags: version_flags(),
        })
    }

    fn build(&self, go: &Go, name: &str, into: &Path) -> Result<(), FetchError> {
        let mut command = go.command();
        command
            .current_dir(&self.folder)
            .args(["build", "-mod=mod", "-trimpath", "-tags", "providerless"])
            .arg("-ldflags")
            .arg(format!("-s -w {}", self.version_flags))
            .arg("-o")
            .arg(into.join(name))
            .arg(format!("k8s.io/kubernetes/cmd/{name}"));
        run(&format!("build {name}"), &mut command)
    }
}

fn go_install_dns(go: &Go, into: &Path) -> Result<(), FetchError> {
    let mut command = go.command();
    command
        .env("GOBIN", into)
        .args(["install", "-trimpath", "-ldflags", "-s -w"])
        .arg(format!("github.com/coredns/coredns@v{COREDNS}"));
    run("build coredns", &mut command)
}

/// Modules that `k8s.io/kubernetes` takes from its own `staging` folder.
fn staged_modules(list: &str) -> impl Iterator<Item = &str> {
    list.lines()
        .filter(|line| line.contains("=> ./staging/"))
        .filter_map(|line| line.trim_start_matches("replace").split_whitespace().next())
}

/// They are published as 0.36.3 for Kubernetes 1.36.3.
fn staged_version() -> String {
    KUBERNETES.replacen("1.", "0.", 1)
}

fn version_flags() -> String {
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    ["component-base/version", "client-go/pkg/version"]
        .map(|package| {
            [
                ("gitVersion", format!("v{KUBERNETES}")),
                ("gitMajor", "1".to_owned()),
                ("gitMinor", minor.to_owned()),
                ("gitTreeState", "clean".to_owned()),
            ]
            .map(|(name, value)| format!("-X k8s.io/{package}.{name}={value}"))
            .join(" ")
        })
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::{staged_modules, staged_version, version_flags};

    #[test]
    fn replacements_by_the_staging_folder_are_found_and_others_are_not() {
        let list = "require (\n\tk8s.io/api v0.0.0\n)\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\
                    \tk8s.io/kms => ./staging/src/k8s.io/kms\n\texample.com/x => example.com/y v1.0.0\n)\n";
        let found: Vec<&str> = staged_modules(list).collect();
        assert_eq!(found, ["k8s.io/api", "k8s.io/kms"]);
    }

    #[test]
    fn programs_are_stamped_with_the_version_they_are_built_from() {
        assert_eq!(staged_version(), "0.36.3");
        assert!(version_flags().contains("-X k8s.io/component-base/version.gitMinor=36"));
    }
}
