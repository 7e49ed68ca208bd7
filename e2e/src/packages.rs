//! Redis and Valkey from Debian's packages, unpacked into the cache folder and run from there with
//! the libraries they were built against. Nothing is installed, no service is started.
//!
//! `PANNIER_REDIS_7`, `PANNIER_VALKEY_8`, `PANNIER_VALKEY_9` and `PANNIER_REDIS_8` may name a folder with
//! the programs instead.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

pub use crate::debian::FetchError;
use crate::{
    debian::{entries, run, step, unpack, write_launchers},
    environment::{cache_folder, lock},
};

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
        let work = folder.with_extension("partial");
        let _ = fs::remove_dir_all(&work);
        unpack(self.suite, self.packages, &work, self.variable)?;
        let _ = fs::remove_dir_all(folder);
        step("move the folder into place", || fs::rename(&work, folder))?;
        let root = folder.join("root");
        let bin = folder.join("bin.partial");
        write_launchers(&root, &entries(&root.join("usr/bin"))?, &bin)?;
        run(
            &format!("start {}", self.server),
            Command::new(bin.join(self.server)).arg("--version"),
        )?;
        step("move the launchers into place", || {
            fs::rename(&bin, folder.join("bin"))
        })?;
        eprintln!("{} is there after {:.0?}", self.folder, begun.elapsed());
        Ok(())
    }
}
