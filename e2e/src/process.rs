//! A child process with its own folder and log; it is killed when the value is dropped.

mod folder;

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{environment::unusable, wait};

pub use folder::Folder;

/// Lines of a log that a failed test shows.
const SHOWN: usize = 200;

/// A running child process.
pub struct Process {
    name: String,
    child: Child,
    // Open, so that it can still be read when its folder is gone.
    log: File,
}

impl Process {
    /// Starts `command`; both of its output streams go to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let file = File::options()
            .create(true)
            .read(true)
            .append(true)
            .open(log)
            .expect("the log file is writable");
        let copy = || file.try_clone().expect("a file handle can be cloned");
        let child = command
            .stdin(Stdio::null())
            .stdout(copy())
            .stderr(copy())
            .spawn()
            .unwrap_or_else(|error| {
                unusable(&format!("failed to start {name} ({command:?}): {error}"))
            });
        Self {
            name: name.to_owned(),
            child,
            log: file,
        }
    }

    /// Everything it has written.
    pub fn log(&self) -> String {
        let mut bytes = Vec::new();
        let read = (&self.log)
            .rewind()
            .and_then(|()| (&self.log).read_to_end(&mut bytes));
        read.expect("a log can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("process ids are small");
        kill(Pid::from_raw(id), signal).expect("the process is ours");
    }

    /// Kills it at once and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The exit status if it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be waited for")
    }

    /// Fails the test when it has ended by itself.
    pub fn check(&mut self) {
        if let Some(status) = self.ended() {
            unusable(&format!("{} ended: {status}\n{}", self.name, self.log()));
        }
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait::within(
            patience,
            || what,
            || self.child.try_wait().expect("the child can be waited for"),
        )
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        resident(self.id())
    }

    /// Most resident memory that it has had so far, in bytes.
    pub fn most_resident(&self) -> u64 {
        memory(self.id(), "VmHWM:")
    }

    /// CPU time that it has used so far.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id()))
            .expect("the process is running");
        // After the name, which may hold anything: fields 3 and on; 14 and 15 are ticks of 10 ms.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks = ticks.map(|ticks| ticks.parse::<u64>().expect("ticks are a number"));
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }
}

/// Resident memory of a process, in bytes.
pub fn resident(id: u32) -> u64 {
    memory(id, "VmRSS:")
}

fn memory(id: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("the process is running");
    let line = status.lines().find(|line| line.starts_with(field));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|number| number.parse::<u64>().ok());
    kib.expect("a live process has it as a number") * 1024
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(SHOWN)..];
            eprintln!("--- log of {} ---\n{}\n---", self.name, tail.join("\n"));
        }
    }
}
