//! Removes everything that a run has left on the machine: processes, containers, mounts, control
//! groups, network namespaces, files. Each is found by the name of the run, which nothing else
//! on the machine carries; what does not carry it is not touched.
//!
//! The order matters: what could start something anew ends first, and files are removed only when
//! nothing is mounted over them any more.

mod outside;

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::{Pid, getuid},
};

/// Environment variable that marks the processes of a run; its value is the run's folder.
pub const MARK: &str = "PANNIER_E2E_RUN";
/// File that the process of a run holds locked as long as it lives.
pub const LOCK: &str = "lock";
/// Folder of the control groups of all runs.
pub const CGROUP: &str = "pannier-e2e";
/// Where `ip netns` keeps names.
pub const NAMESPACES: &str = "/run/netns";

const PATIENCE: Duration = Duration::from_secs(20);

/// What could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Something refused to go away.
    #[error("failed to {step}: {detail}")]
    Step {
        /// What was tried.
        step: String,
        /// Why it failed.
        detail: String,
    },
}

/// The folder of all runs of this user; it is created when needed.
pub fn base() -> Result<PathBuf, SweepError> {
    let uid = getuid();
    let base = std::env::temp_dir().join(format!("pannier-kubernetes-{uid}"));
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&base)
        .and_then(|()| fs::symlink_metadata(&base));
    let found = made.map_err(|error| failed("create", &base, &error))?;
    // The temporary folder belongs to everybody: somebody else's folder is not used.
    if !found.is_dir() || found.uid() != uid.as_raw() {
        return Err(SweepError::Step {
            step: format!("use {}", base.display()),
            detail: "it belongs to another user; remove it or set TMPDIR".to_owned(),
        });
    }
    Ok(base)
}

/// Removes all runs whose process is gone.
pub fn dead_runs() -> Result<Vec<PathBuf>, SweepError> {
    let base = base()?;
    let mut swept = Vec::new();
    let runs = fs::read_dir(&base).map_err(|error| failed("list", &base, &error))?;
    for folder in runs.flatten().map(|entry| entry.path()) {
        // Its process may have just begun and not have locked it yet.
        if is_young(&folder) {
            continue;
        }
        let Ok(lock) = File::open(folder.join(LOCK)) else {
            remove(&folder)?;
            swept.push(folder);
            continue;
        };
        match lock.try_lock() {
            Ok(()) => {
                remove(&folder)?;
                swept.push(folder);
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(failed("lock", &folder, &error)),
        }
    }
    Ok(swept)
}

/// Removes one run; waits until its process has let go of it.
pub fn run(folder: &Path) -> Result<(), SweepError> {
    if let Ok(lock) = File::open(folder.join(LOCK)) {
        lock.lock()
            .map_err(|error| failed("lock", folder, &error))?;
    }
    if folder.exists() {
        remove(folder)?;
    }
    Ok(())
}

pub use self::outside::foreign_kubelet;

/// Everything of a run that is still on the machine.
pub fn left(folder: &Path) -> Vec<String> {
    let name = name(folder);
    let processes = marked(folder).into_iter().chain(contained(&name));
    let mut left: Vec<String> = processes.map(|id| format!("process {id}")).collect();
    let files = mounts(folder)
        .into_iter()
        .chain(groups(&name))
        .chain(namespaces(&name))
        .chain(outside::found(folder))
        .chain(folder.exists().then(|| folder.to_owned()));
    left.extend(files.map(|path| path.display().to_string()));
    left
}

fn is_young(folder: &Path) -> bool {
    fs::metadata(folder)
        .and_then(|found| found.modified())
        .is_ok_and(|changed| changed.elapsed().unwrap_or_default() < Duration::from_secs(2))
}

/// The name under which a run is found outside its folder.
pub fn name(folder: &Path) -> String {
    folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn remove(folder: &Path) -> Result<(), SweepError> {
    let name = name(folder);
    gone("processes", || kill_all(&marked(folder)))?;
    gone("containers", || kill_all(&contained(&name)))?;
    gone("mounts", || unmount(folder))?;
    gone("control groups", || remove_groups(&name))?;
    gone("network namespaces", || remove_namespaces(&name))?;
    outside::remove(folder);
    // A folder that something is mounted in must never be emptied: it may be somebody's data.
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", folder, &error))
        }
        _ => Ok(()),
    }
}

/// Repeats a step until nothing is left for it to do.
fn gone(what: &str, mut step: impl FnMut() -> Vec<String>) -> Result<(), SweepError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = step();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(SweepError::Step {
                step: format!("remove {what} of a run within {PATIENCE:?}"),
                detail: left.join(", "),
            });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn kill_all(ids: &[i32]) -> Vec<String> {
    for id in ids {
        let _ = kill(Pid::from_raw(*id), Signal::SIGKILL);
    }
    ids.iter().map(ToString::to_string).collect()
}

/// Processes that were started with the mark of the run, and all they have started since.
fn marked(folder: &Path) -> Vec<i32> {
    let mark = format!("{MARK}={}", folder.display()).into_bytes();
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    all.flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|id| *id != own)
        .filter(|id| {
            // A process that has ended and was not waited for has an empty environment.
            fs::read(format!("/proc/{id}/environ"))
                .is_ok_and(|all| all.split(|byte| *byte == 0).any(|one| one == mark))
        })
        .collect()
}

/// Processes in the run's control groups: containers do not inherit the mark.
fn contained(name: &str) -> Vec<i32> {
    let mut ids: Vec<i32> = groups(name)
        .iter()
        .filter_map(|group| fs::read_to_string(group.join("cgroup.procs")).ok())
        .flat_map(|list| {
            let ids = list.lines().filter_map(|line| line.parse().ok());
            ids.collect::<Vec<i32>>()
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The run's control groups in every hierarchy, the deepest first.
fn groups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        let top = hierarchy.join(CGROUP).join(name);
        if top.is_dir() {
            walk(&top, &mut found);
        }
    }
    found
}

/// Roots of the control group hierarchies: one for version 2, one per controller for version 1.
pub fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let Ok(all) = fs::read_dir(root) else {
        return Vec::new();
    };
    // `cpu` may be a link to `cpu,cpuacct`.
    all.flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && !path.is_symlink())
        .collect()
}

fn walk(group: &Path, into: &mut Vec<PathBuf>) {
    if let Ok(children) = fs::read_dir(group) {
        for child in children.flatten().map(|entry| entry.path()) {
            if child.is_dir() {
                walk(&child, into);
            }
        }
    }
    into.push(group.to_owned());
}

fn remove_groups(name: &str) -> Vec<String> {
    for group in groups(name) {
        let _ = fs::remove_dir(group);
    }
    for hierarchy in hierarchies() {
        // Stays as long as another run has a group in it.
        let _ = fs::remove_dir(hierarchy.join(CGROUP));
    }
    let left = groups(name);
    left.iter()
        .map(|group| group.display().to_string())
        .collect()
}

/// Mounts below the folder, the innermost first.
fn mounts(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(|place| PathBuf::from(place.replace("\\040", " ")))
        .filter(|place| place.starts_with(folder))
        .collect();
    found.reverse();
    found
}

fn unmount(folder: &Path) -> Vec<String> {
    for place in mounts(folder) {
        let _ = umount2(&place, MntFlags::MNT_DETACH);
    }
    let left = mounts(folder);
    left.iter()
        .map(|place| place.display().to_string())
        .collect()
}

/// Named network namespaces of the run.
fn namespaces(name: &str) -> Vec<PathBuf> {
    let prefix = format!("pannier-{name}-");
    let Ok(all) = fs::read_dir(NAMESPACES) else {
        return Vec::new();
    };
    all.flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect()
}

/// What `ip netns del` does: the name is a mount over an empty file.
fn remove_namespaces(name: &str) -> Vec<String> {
    for place in namespaces(name) {
        let _ = umount2(&place, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&place);
    }
    let left = namespaces(name);
    left.iter()
        .map(|place| place.display().to_string())
        .collect()
}

fn failed(verb: &str, path: &Path, error: &io::Error) -> SweepError {
    SweepError::Step {
        step: format!("{verb} {}", path.display()),
        detail: error.to_string(),
    }
}
