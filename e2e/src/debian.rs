//! Programs from Debian's packages, unpacked into a folder and run from there with the libraries
//! they were built against. Nothing is installed, no service is started, the system's list of
//! package sources stays as it is.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Why a program could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A program is missing on this machine.
    #[error(
        "{0} is not on this machine (Debian's packages are unpacked with apt-get and dpkg); set {1} to a folder that holds the programs"
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

/// Downloads `packages` of a suite and unpacks them below `work/root`, which it returns.
/// `variable` is named as the way out where there is no apt-get.
pub fn unpack(
    suite: &str,
    packages: &[&str],
    work: &Path,
    variable: &'static str,
) -> Result<PathBuf, FetchError> {
    for program in ["apt-get", "dpkg"] {
        if Command::new(program).arg("--version").output().is_err() {
            return Err(FetchError::NoProgram(program, variable));
        }
    }
    let debs = work.join("debs");
    download(suite, packages, work, &debs)?;
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
    Ok(root)
}

/// apt with lists and a cache of its own.
fn download(suite: &str, packages: &[&str], work: &Path, debs: &Path) -> Result<(), FetchError> {
    let apt = work.join("apt");
    for folder in [
        &apt.join("lists/partial"),
        &apt.join("cache/archives/partial"),
        debs,
    ] {
        step("create a folder", || fs::create_dir_all(folder))?;
    }
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
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
        apt_get().arg("download").args(packages),
    )
}

/// Writes a small script `bin/NAME` for each program that starts it with the loader and the
/// libraries unpacked below `root`.
pub fn write_launchers(root: &Path, programs: &[PathBuf], bin: &Path) -> Result<(), FetchError> {
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
    step("create a folder", || fs::create_dir_all(bin))?;
    for program in programs {
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
    Ok(())
}

/// What lies in a folder.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>, FetchError> {
    step(&format!("list {}", folder.display()), || {
        fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect()
    })
}

/// Does something with files; the error says what.
pub fn step<T>(what: &str, act: impl FnOnce() -> std::io::Result<T>) -> Result<T, FetchError> {
    act().map_err(|error| FetchError::Step {
        step: what.to_owned(),
        detail: error.to_string(),
    })
}

/// Runs a program to its end; its output becomes the error when it fails.
pub fn run(what: &str, command: &mut Command) -> Result<(), FetchError> {
    output(what, command).map(drop)
}

/// As [`run`]; gives what the program wrote.
pub fn output(what: &str, command: &mut Command) -> Result<String, FetchError> {
    let output = step(what, || command.output())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
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
