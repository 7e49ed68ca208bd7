//! Child processes: started so that they die with the bench, and measured through `/proc`.
//!
//! CPU time is the sum over the process's threads of the first field of `schedstat`, in
//! nanoseconds. What the kernel does for a process inside its system calls, the loopback delivery
//! included, is part of it.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};

/// Which core a process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// Whatever the kernel picks.
    Any,
    /// The core of the process under test.
    Target,
    /// The core of the load generator and of the Redis behind a proxy.
    Load,
}

/// A program with its arguments, before it is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Path of the program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// `LD_LIBRARY_PATH` for unpacked packages.
    pub libraries: Option<PathBuf>,
    /// Where it runs.
    pub core: Core,
}

impl Launch {
    /// A program that may run anywhere.
    pub fn new(program: impl Into<PathBuf>, args: &[&str]) -> Self {
        Self {
            program: program.into(),
            args: args.iter().map(ToString::to_string).collect(),
            libraries: None,
            core: Core::Any,
        }
    }

    /// The command line. `setpriv` makes the kernel kill the child when the bench ends in whatever
    /// way (Ctrl-C and `kill -9` too), which a destructor cannot promise. Both wrappers `exec`, so
    /// the process id is the program's own.
    pub fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        match self.core {
            Core::Any => {}
            Core::Target => drop(command.args(["taskset", "-c", "0"])),
            Core::Load => drop(command.args(["taskset", "-c", "1"])),
        }
        command.arg(&self.program).args(&self.args);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.stdin(Stdio::null());
        command
    }
}

/// A running child; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it prints goes to `folder/name.log`.
    pub fn start(name: &str, launch: &Launch, folder: &Path) -> Outcome<Self> {
        Self::spawn(name, launch.command(), folder)
    }

    /// Starts a command that was prepared by the caller.
    pub fn spawn(name: &str, mut command: Command, folder: &Path) -> Outcome<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).map_err(Failure::io(format!("create {}", log.display())))?;
        let copy = file
            .try_clone()
            .map_err(Failure::io("duplicate the log's descriptor"))?;
        let child = command
            .stdout(file)
            .stderr(copy)
            .spawn()
            .map_err(Failure::io(format!(
                "start {name} (setpriv and taskset are in util-linux)"
            )))?;
        Ok(Self {
            child,
            name: name.to_owned(),
            log,
        })
    }

    /// Waits until it accepts connections on a port; an early exit or ten silent seconds are a
    /// failure that carries the end of its log.
    pub fn wait_for_port(&mut self, port: u16) -> Outcome<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            self.check_alive()?;
            if Instant::now() > deadline {
                return Err(self.failed("it does not listen after 10 s"));
            }
            sleep(Duration::from_millis(5));
        }
        self.check_alive()
    }

    /// A failure with the end of the log if the process has ended.
    pub fn check_alive(&mut self) -> Outcome<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(&format!("it ended with {status}"))),
            Err(source) => Err(Failure::Io {
                action: format!("wait for {}", self.name),
                source,
            }),
        }
    }

    fn failed(&self, what: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(3)..].join(" / ");
        Failure::Program {
            program: self.name.clone(),
            detail: format!("{what}; {end}"),
        }
    }

    /// Asks it to end and waits until it has; the answer is everything it printed.
    pub fn finish(&mut self) -> Outcome<String> {
        let failed = |what: &str| Failure::io(format!("{what} {}", self.name));
        Command::new("sh")
            .args(["-c", "kill -TERM \"$0\"", &self.child.id().to_string()])
            .status()
            .map_err(failed("ask to end:"))?;
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.child.try_wait().map_err(failed("wait for"))?.is_none() {
            if Instant::now() > deadline {
                return Err(self.failed("it does not end when asked to"));
            }
            sleep(Duration::from_millis(5));
        }
        fs::read_to_string(&self.log).map_err(failed("read the log of"))
    }

    /// CPU time used so far by all of its threads.
    pub fn cpu(&self) -> Outcome<Duration> {
        let folder = format!("/proc/{}/task", self.child.id());
        let tasks = fs::read_dir(&folder).map_err(Failure::io(format!("list {folder}")))?;
        let mut nanos = 0;
        for task in tasks.flatten() {
            let path = task.path().join("schedstat");
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            nanos += text
                .split(' ')
                .next()
                .and_then(|field| field.parse::<u64>().ok())
                .ok_or_else(|| Failure::Answer {
                    request: path.display().to_string(),
                    answer: text.clone(),
                })?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Resident bytes (`VmRSS`).
    pub fn resident(&self) -> Outcome<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(&path).map_err(Failure::io(format!("read {path}")))?;
        text.lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .and_then(|kib| kib.trim().parse::<u64>().ok())
            .map(|kib| kib * 1024)
            .ok_or(Failure::Answer {
                request: path,
                answer: "no VmRSS".to_owned(),
            })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> Outcome<u16> {
    let [port] = free_ports()?;
    Ok(port)
}

/// Several, each another: all are taken before the first is given back.
pub fn free_ports<const COUNT: usize>() -> Outcome<[u16; COUNT]> {
    let failed = |error| Failure::io("find a free port")(error);
    let mut listeners = Vec::new();
    let mut ports = [0; COUNT];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
        *port = listener.local_addr().map_err(failed)?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

/// A folder for logs and generated files, removed when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Creates it under the system's temporary folder, and removes those of benches that were
    /// killed before they could.
    pub fn create() -> Outcome<Self> {
        const NAME: &str = "pannier-bench-";
        let parent = std::env::temp_dir();
        for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let dead =
                |pid: &str| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists();
            if name.strip_prefix(NAME).is_some_and(dead) {
                // Somebody else's, if it cannot be removed.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let path = parent.join(format!("{NAME}{}", std::process::id()));
        fs::create_dir_all(&path).map_err(Failure::io(format!("create {}", path.display())))?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file in it and returns the file's path.
    pub fn write(&self, name: &str, text: &str) -> Outcome<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, text).map_err(Failure::io(format!("write {}", path.display())))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Raises the soft limit of open files to the hard one, for this process and its children; fails if
/// that is not enough for `files`.
pub fn raise_file_limit(files: u64) -> Outcome<()> {
    let limits = fs::read_to_string("/proc/self/limits");
    let limits = limits.map_err(Failure::io("read /proc/self/limits"))?;
    let hard = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap_or("unknown");
    if hard.parse().is_ok_and(|hard: u64| hard < files) {
        let reason = format!(
            "at most {hard} open files are allowed, {files} are needed; raise `ulimit -Hn`"
        );
        return Err(Failure::Missing(reason));
    }
    let pid = std::process::id().to_string();
    let limit = format!("--nofile={hard}:");
    let output = Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .output();
    let output = output.map_err(Failure::io("run prlimit (it is in util-linux)"))?;
    if output.status.success() {
        return Ok(());
    }
    let detail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::Program {
        program: "prlimit".to_owned(),
        detail,
    })
}
