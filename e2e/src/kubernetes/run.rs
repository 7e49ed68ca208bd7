//! The folder of one run of Kubernetes and the processes that belong to it. A sweeper process waits
//! beside it and removes everything as soon as the run is dropped or its process is gone, killed
//! or not.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::sweep::{self, LOCK, MARK};
use crate::{
    built::{build, profile_folder},
    environment::unusable,
    process::Process,
};

/// A run; everything in it is removed when it is dropped.
pub struct Run {
    folder: PathBuf,
    lock: Option<File>,
    sweeper: Child,
    /// Closed at the end of this process at the latest.
    alive: Option<ChildStdin>,
}

impl Run {
    /// A new one, after what dead runs have left is removed.
    pub fn begin() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let own = sweep::dead_runs().and_then(|_| sweep::base());
        let base = own.unwrap_or_else(|error| unusable(&error.to_string()));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = base.join(format!("{}-{number}", std::process::id()));
        fs::create_dir_all(folder.join("log")).expect("the temporary folder is writable");
        let lock = File::create(folder.join(LOCK)).expect("the temporary folder is writable");
        lock.lock().expect("the lock is new");
        let mut sweeper = Command::new(sweeper())
            .arg("--after")
            .arg(&folder)
            .stdin(Stdio::piped())
            // Output of its own would keep a pipe of the test's output open.
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("log/sweep.log")).expect("the folder is ours"))
            // Survives a Ctrl-C that ends the test.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| unusable(&format!("failed to start e2e-sweep: {error}")));
        Self {
            folder,
            lock: Some(lock),
            alive: sweeper.stdin.take(),
            sweeper,
        }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A subfolder, created when needed.
    pub fn subfolder(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::create_dir_all(&path).expect("the folder is ours");
        path
    }

    /// Writes a file into it.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, content).expect("the folder is ours");
        path
    }

    /// Marks a command as belonging to the run.
    pub fn mark<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env(MARK, &self.folder)
    }

    /// Starts a process of the run; its log is `log/NAME.log`.
    pub fn start(&self, name: &str, command: &mut Command) -> Process {
        self.mark(command).process_group(0);
        let log = self.folder.join("log").join(format!("{name}.log"));
        Process::start(name, command, &log)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.lock = None;
        self.alive = None;
        let _ = self.sweeper.wait();
        // Its log went with the folder if all is well.
        if self.folder.exists()
            && let Err(error) = sweep::run(&self.folder)
        {
            eprintln!("{error}");
        }
    }
}

/// The program `e2e-sweep` beside the running test; built when only the library was.
fn sweeper() -> PathBuf {
    let built = profile_folder().join("e2e-sweep");
    if built.is_file() {
        built
    } else {
        build("pannier-e2e", "e2e-sweep", &[])
    }
}
