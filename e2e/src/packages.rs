//! Redis and Valkey from Debian's packages, unpacked into the cache folder and run from there with
//! the libraries they were built against. Nothing is installed, no service is started.
//!
//! `PANNIER_REDIS_7`, `PANNIER_VALKEY_8`, `PANNIER_VALKEY_9` and `PANNIER_REDIS_8` may name a folder with
//! the programs instead.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::environment::{cache_folder, lock};

/// A server that tests run against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Redis 7.0, as in Debian 12.
    #[default]
    Redis7,
    /// Valkey 8, as in Debian 13.
    Valkey8,
    /// Valkey 9, as in Debian's testing; it moves slots at once (`CLUSTER MIGRATESLOTS`).
    Valkey9,
    /// Redis 8.0, as in Debian 13; only the command table is compared with it.
    Redis8,
}

/// Why a server could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A program is missing on this machine.
    #[error(
        "{0} is not on this machine (Debian's packages are unpacked with apt-get and dpkg); set {1} to a folder that holds the server's programs"
    )]
    NoProgram(&'static str, &'static str),
    /// A step failed.
    #[error("failed to {step}: {detail}")]
    Step {
        /// What was tried.
        step: String,
        /// What the program said.
        detail: String,
    },
}

struct Recipe {
    folder: &'static str,
    suite: &'static str,
    server: &'static str,
    cli: &'static str,
    variable: &'static str,
    packages: &'static [&'static str],
}

const REDIS_7: Recipe = Recipe {
    folder: "redis-7.0",
    suite: "bookworm",
    server: "redis-server",
    cli: "redis-cli",
    variable: "PANNIER_REDIS_7",
    packages: &[
        "redis-server",
        "redis-tools",
        "libatomic1",
        "libc6",
        "libcap2",
        "libgcc-s1",
        "libgcrypt20",
        "libgpg-error0",
        "libhiredis0.14",
        "libjemalloc2",
        "liblua5.1-0",
        "liblz4-1",
        "liblzf1",
        "liblzma5",
        "libssl3",
        "libstdc++6",
        "libsystemd0",
        "libzstd1",
        "lua-bitop",
        "lua-cjson",
        "zlib1g",
    ],
};

const VALKEY_8: Recipe = Recipe {
    folder: "valkey-8",
    suite: "trixie",
    server: "valkey-server",
    cli: "valkey-cli",
    variable: "PANNIER_VALKEY_8",
    packages: &[
        "valkey-server",
        "valkey-tools",
        "libatomic1",
        "libc6",
        "libcap2",
        "libgcc-s1",
        "libhiredis1.1.0",
        "libjemalloc2",
        "liblua5.1-0",
        "liblzf1",
        "libssl3t64",
        "libstdc++6",
        "libsystemd0",
        "libzstd1",
        "lua-bitop",
        "lua-cjson",
        "zlib1g",
    ],
};

const VALKEY_9: Recipe = Recipe {
    folder: "valkey-9",
    suite: "forky",
    server: "valkey-server",
    cli: "valkey-cli",
    variable: "PANNIER_VALKEY_9",
    packages: &[
        "valkey-server",
        "valkey-tools",
        "libatomic1",
        "libc6",
        "libcap2",
        "libgcc-s1",
        "libgcrypt20",
        "libgpg-error0",
        "libjemalloc2",
        "liblz4-1",
        "liblzf1",
        "liblzma5",
        "libssl3t64",
        "libstdc++6",
        "libsystemd0",
        "libzstd1",
        "zlib1g",
    ],
};

const REDIS_8: Recipe = Recipe {
    folder: "redis-8.0",
    suite: "trixie",
    server: "redis-server",
    cli: "redis-cli",
    variable: "PANNIER_REDIS_8",
    packages: &[
        "redis-server",
        "redis-tools",
        "libatomic1",
        "libc6",
        "libcap2",
        "libgcc-s1",
        "libhiredis1.1.0",
        "libjemalloc2",
        "liblua5.1-0",
        "liblzf1",
        "libssl3t64",
        "libstdc++6",
        "libsystemd0",
        "libzstd1",
        "lua-bitop",
        "lua-cjson",
        "zlib1g",
    ],
};

impl Engine {
    /// Those that whole tests run against.
    pub const ALL: [Self; 2] = [Self::Redis7, Self::Valkey8];
    /// Those that are fetched before tests run.
    pub const FETCHED: [Self; 4] = [Self::Redis7, Self::Valkey8, Self::Valkey9, Self::Redis8];

    /// What tests and folders call it.
    pub const fn name(self) -> &'static str {
        self.recipe().folder
    }

    /// The server's program; fetched first if it is not there yet.
    pub fn server(self) -> Result<PathBuf, FetchError> {
        Ok(self.programs()?.join(self.recipe().server))
    }

    /// The command line client's program.
    pub fn cli(self) -> Result<PathBuf, FetchError> {
        Ok(self.programs()?.join(self.recipe().cli))
    }

    /// The folder with its programs; fetched first if it is not there yet.
    pub fn programs(self) -> Result<PathBuf, FetchError> {
        let recipe = self.recipe();
        if let Some(folder) = std::env::var_os(recipe.variable) {
            return Ok(folder.into());
        }
        let folder = cache_folder().join("servers").join(recipe.folder);
        if !folder.join("bin").is_dir() {
            let _lock = lock(recipe.folder);
            if !folder.join("bin").is_dir() {
                recipe.fetch(&folder)?;
            }
        }
        Ok(folder.join("bin"))
    }

    const fn recipe(self) -> &'static Recipe {
        match self {
            Self::Redis7 => &REDIS_7,
            Self::Valkey8 => &VALKEY_8,
            Self::Valkey9 => &VALKEY_9,
            Self::Redis8 => &REDIS_8,
        }
    }
}

impl Recipe {
    fn fetch(&self, folder: &Path) -> Result<(), FetchError> {
        eprintln!(
            "fetching {} from Debian {} into {} (about 15 MB, 10 to 60 seconds; nothing is installed)",
            self.folder,
            self.suite,
            folder.display()
        );
        let begun = Instant::now();
        for program in ["apt-get", "dpkg"] {
            if Command::new(program).arg("--version").output().is_err() {
                return Err(FetchError::NoProgram(program, self.variable));
            }
        }
        let work = folder.with_extension("partial");
        let _ = fs::remove_dir_all(&work);
        let debs = work.join("debs");
        self.download(&work, &debs)?;
        let root = work.join("root");
        for deb in entries(&debs)? {
            let mut unpack = Command::new("dpkg");
            unpack.arg("-x").arg(&deb).arg(&root);
            run(&format!("unpack {}", deb.display()), &mut unpack)?;
        }
        for leftover in ["debs", "apt", "sources.list"] {
            let path = work.join(leftover);
            let _ = fs::remove_dir_all(&path);
            let _ = fs::remove_file(&path);
        }
        let _ = fs::remove_dir_all(folder);
        step("move the folder into place", || fs::rename(&work, folder))?;
        self.write_launchers(folder)?;
        eprintln!("{} is there after {:.0?}", self.folder, begun.elapsed());
        Ok(())
    }

    /// apt with lists and a cache of its own: the system's sources stay as they are.
    fn download(&self, work: &Path, debs: &Path) -> Result<(), FetchError> {
        let apt = work.join("apt");
        for folder in [
            &apt.join("lists/partial"),
            &apt.join("cache/archives/partial"),
            debs,
        ] {
            step("create a folder", || fs::create_dir_all(folder))?;
        }
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let suite = self.suite;
        let sources = work.join("sources.list");
        let text = format!(
            "deb [signed-by={keyring}] http://deb.debian.org/debian {suite} main\n\
             deb [signed-by={keyring}] http://deb.debian.org/debian-security {suite}-security main\n"
        );
        step("write the sources list", || fs::write(&sources, text))?;
        let apt_get = || {
            let mut command = Command::new("apt-get");
            for option in [
                format!("Dir::Etc::sourcelist={}", sources.display()),
                "Dir::Etc::sourceparts=/dev/null".to_owned(),
                format!("Dir::State::lists={}", apt.join("lists").display()),
                format!("Dir::Cache={}", apt.join("cache").display()),
                "Acquire::Languages=none".to_owned(),
                "Acquire::Retries=3".to_owned(),
                "APT::Sandbox::User=root".to_owned(),
            ] {
                command.arg("-o").arg(option);
            }
            command.arg("-q").current_dir(debs);
            command
        };
        run("read Debian's package lists", apt_get().arg("update"))?;
        run(
            "download Debian's packages",
            apt_get().arg("download").args(self.packages),
        )
    }

    /// Small scripts that start a program with the loader and the libraries unpacked beside it.
    fn write_launchers(&self, folder: &Path) -> Result<(), FetchError> {
        let root = folder.join("root");
        let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
        let libraries = [
            root.join("usr/lib").join(&triple),
            root.join("lib").join(&triple),
        ];
        let loader = libraries
            .iter()
            .filter(|folder| folder.is_dir())
            .filter_map(|folder| entries(folder).ok())
            .flatten()
            .find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("ld-linux"))
            })
            .ok_or_else(|| FetchError::Step {
                step: format!("find the loader below {}", root.display()),
                detail: "no ld-linux in the unpacked libc6".to_owned(),
            })?;
        let [usr, lib] = libraries.map(|folder| folder.display().to_string());
        let bin = folder.join("bin.partial");
        step("create a folder", || fs::create_dir_all(&bin))?;
        for program in entries(&root.join("usr/bin"))? {
            let name = program.file_name().unwrap_or_default().to_owned();
            let script = format!(
                "#!/bin/sh\nexec '{}' --argv0 \"$0\" --library-path '{usr}:{lib}' '{}' \"$@\"\n",
                loader.display(),
                program.display(),
            );
            let path = bin.join(name);
            step("write a launcher", || {
                fs::write(&path, script)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            })?;
        }
        run(
            &format!("start {}", self.server),
            Command::new(bin.join(self.server)).arg("--version"),
        )?;
        step("move the launchers into place", || {
            fs::rename(&bin, folder.join("bin"))
        })
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, FetchError> {
    step(&format!("list {}", folder.display()), || {
        fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect()
    })
}

fn step<T>(what: &str, act: impl FnOnce() -> std::io::Result<T>) -> Result<T, FetchError> {
    act().map_err(|error| FetchError::Step {
        step: what.to_owned(),
        detail: error.to_string(),
    })
}

/// Runs a program to its end; its output becomes the error when it fails.
pub fn run(what: &str, command: &mut Command) -> Result<(), FetchError> {
    let output = step(what, || command.output())?;
    if output.status.success() {
        return Ok(());
    }
    Err(FetchError::Step {
        step: what.to_owned(),
        detail: format!(
            "{}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    })
}
