//! Real client libraries of other languages: fetched once into the cache folder, run as processes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    debian::run,
    environment::{cache_folder, lock},
};

/// Why a client library could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The language is missing on this machine.
    #[error("{0} is not on this machine; install it to run the clients written in it")]
    NoLanguage(&'static str),
    /// A step failed.
    #[error(transparent)]
    Fetch(#[from] crate::debian::FetchError),
}

/// Folder with the scripts and, below, `node_modules` with ioredis, node-redis and Socket.IO.
pub fn node() -> Result<PathBuf, ClientError> {
    for program in ["node", "npm"] {
        if Command::new(program).arg("--version").output().is_err() {
            return Err(ClientError::NoLanguage(
                "node with npm (version 20 or later)",
            ));
        }
    }
    let source = scripts("node");
    let folder = cache_folder().join("clients").join("node");
    let _lock = lock("node");
    // Scripts change more often than the lock file: copied each time, installed only when needed.
    copy(&source, &folder);
    if !is_current(&folder, "package-lock.json", &source) {
        eprintln!("fetching ioredis, node-redis and Socket.IO with npm (10 to 60 seconds)");
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
            .current_dir(&folder);
        run("fetch the packages of e2e/clients/node", &mut npm)?;
        mark_current(&folder, "package-lock.json", &source);
    }
    Ok(folder)
}

/// The Python of a virtual environment that has redis-py, and the folder with the scripts.
pub fn python() -> Result<(PathBuf, PathBuf), ClientError> {
    if Command::new("python3").arg("--version").output().is_err() {
        return Err(ClientError::NoLanguage(
            "python3 with venv (version 3.10 or later)",
        ));
    }
    let source = scripts("python");
    let folder = cache_folder().join("clients").join("python");
    let _lock = lock("python");
    let python = folder.join("venv/bin/python");
    if !is_current(&folder, "requirements.txt", &source) {
        eprintln!("fetching redis-py with pip (10 to 60 seconds)");
        let _ = fs::remove_dir_all(folder.join("venv"));
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(folder.join("venv"));
        run("create a virtual environment", &mut venv)?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "-r"])
            .arg(source.join("requirements.txt"));
        run("fetch the packages of e2e/clients/python", &mut pip)?;
        mark_current(&folder, "requirements.txt", &source);
    }
    Ok((python, source))
}

fn scripts(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(language)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the cache folder is writable");
    for entry in fs::read_dir(from)
        .expect("the scripts are in the repository")
        .flatten()
    {
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))
                .expect("the cache folder is writable");
        }
    }
}

/// Whether what was fetched is what the list in the repository asks for now.
fn is_current(folder: &Path, list: &str, source: &Path) -> bool {
    let wanted = fs::read(source.join(list)).expect("the list is in the repository");
    fs::read(folder.join(format!("fetched-{list}"))).is_ok_and(|fetched| fetched == wanted)
}

fn mark_current(folder: &Path, list: &str, source: &Path) {
    fs::copy(source.join(list), folder.join(format!("fetched-{list}")))
        .expect("the cache folder is writable");
}
