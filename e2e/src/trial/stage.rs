//! A cluster of our own that outlives the command that has started it: a process in the background
//! holds it, and whatever ends that process removes the cluster.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{TrialError, folder, target};
use crate::{
    Engine,
    debian::{FetchError, step},
    environment::unusable,
    kubernetes::{Cluster, product::Product, sweep},
};

/// Time to come up; the first time programs are fetched and built meanwhile.
const UP: Duration = Duration::from_mins(20);
/// Time to go.
const DOWN: Duration = Duration::from_mins(1);
/// Lines of the log that are shown.
const TAIL: usize = 15;

/// The cluster in the background, as its files describe it.
pub struct Stage {
    folder: PathBuf,
}

impl Stage {
    /// That of this checkout, whether it runs or not.
    pub fn of_this_checkout() -> Self {
        Self { folder: folder() }
    }

    /// The administrator's kubeconfig; it works from every shell of this machine.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The process that holds it. A process id may belong to somebody else by now.
    fn holder(&self) -> Option<Pid> {
        let id: i32 = fs::read_to_string(self.folder.join("pid"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let ours = format!("hold {}", self.folder.display());
        line.contains(&ours).then(|| Pid::from_raw(id))
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.holder().is_some() && self.kubeconfig().is_file()
    }

    /// Starts it and waits until it has its nodes and images.
    pub fn start(&self) -> Result<(), TrialError> {
        let _ = fs::remove_dir_all(&self.folder);
        step("create a folder", || fs::create_dir_all(&self.folder))?;
        let log = step("create a log", || File::create(self.log()))?;
        let copy = step("create a log", || log.try_clone())?;
        let program = step("find this program", std::env::current_exe)?;
        let mut holder = Command::new(program);
        holder
            .arg("hold")
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            // Ctrl-C ends the command, not the cluster.
            .process_group(0);
        let mut holder = step("start a process in the background", || holder.spawn())?;
        step("write a file", || {
            fs::write(self.folder.join("pid"), holder.id().to_string())
        })?;
        let begun = Instant::now();
        while !self.kubeconfig().is_file() {
            let ended = step("look at a process", || holder.try_wait())?.is_some();
            if ended || begun.elapsed() > UP {
                self.stop()?;
                return Err(TrialError::Ended {
                    log: self.log(),
                    tail: self.tail(),
                });
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn tail(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Ends it; says whether there was one. Nothing of it is left.
    pub fn stop(&self) -> Result<bool, TrialError> {
        let holder = self.holder();
        let run = fs::read_to_string(self.folder.join("run")).ok();
        if let Some(holder) = holder {
            let _ = kill(holder, Signal::SIGTERM);
            let begun = Instant::now();
            while self.holder().is_some() {
                if begun.elapsed() > DOWN {
                    // Its sweeper does the rest.
                    let _ = kill(holder, Signal::SIGKILL);
                }
                thread::sleep(Duration::from_millis(50));
            }
        }
        if let Some(run) = run {
            let left = sweep::run(Path::new(&run)).map(|()| sweep::left(Path::new(&run)));
            let left = left.map_err(|error| FetchError::Step {
                step: "remove the cluster".to_owned(),
                detail: error.to_string(),
            })?;
            if !left.is_empty() {
                return Err(TrialError::Step(FetchError::Step {
                    step: "remove the cluster".to_owned(),
                    detail: format!("still there: {}", left.join(", ")),
                }));
            }
        }
        if holder.is_some() {
            let _ = fs::remove_dir_all(&self.folder);
        }
        Ok(holder.is_some())
    }
}

/// What the process in the background does until SIGTERM: holds a cluster that has the images.
pub fn hold(folder: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.unwrap_or_else(|error| unusable(&error.to_string()));
    // Heard from the beginning: the cluster must be removed in order.
    let mut term = {
        use tokio::signal::unix::{SignalKind, signal};
        let _inside = runtime.enter();
        signal(SignalKind::terminate()).unwrap_or_else(|error| unusable(&error.to_string()))
    };
    let cluster = Cluster::start_beside(3).unwrap_or_else(|error| unusable(&error.to_string()));
    write(
        folder,
        "run",
        &cluster.plane().folder().display().to_string(),
    );
    cluster.load_engine(Engine::Valkey8);
    for product in Product::ALL {
        let archive = target().join(format!("images/{}.tar", product.name()));
        cluster.import_image(&archive);
    }
    let access = cluster.plane().access();
    let kubeconfig = access
        .portable()
        .unwrap_or_else(|error| unusable(&error.to_string()));
    write(folder, "kubeconfig", &kubeconfig);
    runtime.block_on(term.recv());
}

/// Readable for the user alone; seen by others only when it is whole.
fn write(folder: &Path, name: &str, content: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let partial = folder.join(format!("{name}.partial"));
    let written = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&partial)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .and_then(|()| fs::rename(&partial, folder.join(name)));
    written.unwrap_or_else(|error| unusable(&format!("failed to write {name}: {error}")));
}
