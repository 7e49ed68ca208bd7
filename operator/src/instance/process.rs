//! The server's process, and the duties of process 1: orphans are reaped, signals passed on, the
//! server's output is the container's.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use parking_lot::Mutex;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::interval,
};

/// What the engines call their server.
const PROGRAMS: [&str; 2] = ["valkey-server", "redis-server"];
/// A missed SIGCHLD costs no more than that.
const REAP: Duration = Duration::from_secs(1);

/// Why the server was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is none.
    #[error("neither valkey-server nor redis-server is in PATH; is this an image of the engine?")]
    NoProgram,
    /// It cannot be run.
    #[error("failed to start {program}: {source}")]
    Spawn {
        /// What.
        program: String,
        /// Why.
        source: io::Error,
    },
}

/// Children of this process; one of them is the server.
#[derive(Clone)]
pub struct Children {
    server: Arc<Mutex<Option<Pid>>>,
    exit: watch::Sender<Option<u8>>,
}

impl Children {
    /// Adopts orphans and begins to reap.
    pub fn new() -> io::Result<Self> {
        // Process 1 adopts them anyway; in a test the agent is not process 1.
        let _ = prctl::set_child_subreaper(true);
        let children = Self {
            server: Arc::default(),
            exit: watch::Sender::new(None),
        };
        let mut died = signal(SignalKind::child())?;
        let reaper = children.clone();
        tokio::spawn(async move {
            let mut tick = interval(REAP);
            loop {
                tokio::select! {
                    _ = died.recv() => {}
                    _ = tick.tick() => {}
                }
                reaper.reap();
            }
        });
        Ok(children)
    }

    fn reap(&self) {
        // Held while the server is spawned: its end is never taken for an orphan's.
        let server = self.server.lock();
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if Some(pid) == *server => {
                    self.exit
                        .send_replace(Some(u8::try_from(code & 0xff).unwrap_or(1)));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if Some(pid) == *server => {
                    let code = 128 + signal as i32;
                    self.exit
                        .send_replace(Some(u8::try_from(code).unwrap_or(1)));
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Starts the server with the given arguments.
    pub fn start(&self, arguments: &[&str]) -> Result<(), StartError> {
        let program = program().ok_or(StartError::NoProgram)?;
        let mut server = self.server.lock();
        let child = Command::new(&program)
            .args(arguments)
            .spawn()
            .map_err(|source| StartError::Spawn {
                program: program.display().to_string(),
                source,
            })?;
        let id = i32::try_from(child.id()).unwrap_or_default();
        *server = Some(Pid::from_raw(id));
        Ok(())
    }

    /// Sends the server a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        if self.exit.borrow().is_none()
            && let Some(server) = *self.server.lock()
        {
            let _ = kill(server, signal);
        }
    }

    /// Waits for the server's end; the answer is what the container should end with.
    pub async fn ended(&self) -> u8 {
        let mut exit = self.exit.subscribe();
        match exit.wait_for(Option::is_some).await {
            Ok(code) => code.unwrap_or(1),
            Err(_) => 1,
        }
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&path);
    folders
        .flat_map(|folder| PROGRAMS.map(|name| folder.join(name)))
        .find(|program| is_file(program))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file())
}
