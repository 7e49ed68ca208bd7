//! One pod: an agent, and the server it starts.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{process::Process, wait};

/// One pod.
pub struct Pod {
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) data: PathBuf,
    pub(super) process: Option<Process>,
}

impl Pod {
    pub(super) fn is_sentinel(&self) -> bool {
        self.name.contains("sentinel")
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Ends the server and leaves its agent alive, as the kernel does to the largest process when
    /// memory is short.
    pub fn kill_server(&self) {
        let id = self.id();
        let child = wait::until("the agent has a child", || {
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
            children.split_whitespace().next()?.parse().ok()
        });
        let _ = nix::sys::signal::kill(Pid::from_raw(child), Signal::SIGKILL);
    }

    /// Its first process.
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("the pod runs").id()
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            let group = i32::try_from(process.id()).expect("process ids are small");
            let _ = killpg(Pid::from_raw(group), signal);
        }
    }

    pub(super) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }
}
