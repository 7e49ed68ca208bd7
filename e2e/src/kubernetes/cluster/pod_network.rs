//! The network of one pod, entered from its node: what an app in the pod reaches at 127.0.0.1 is
//! reached, and a cut node does not get in the way.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    path::PathBuf,
    sync::Arc,
};

use super::network::dial;

/// The network of a pod; it stays the same when containers of the pod are restarted.
#[derive(Clone, Debug)]
pub struct PodNetwork(Arc<File>);

impl PodNetwork {
    /// That of a process.
    pub(super) fn of_process(id: i32) -> io::Result<Self> {
        File::open(format!("/proc/{id}/ns/net")).map(|file| Self(Arc::new(file)))
    }

    /// Connects to a port of 127.0.0.1 in the pod.
    pub fn dial(&self, port: u16) -> io::Result<TcpStream> {
        self.reach(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// Connects from the pod to somewhere else.
    pub fn reach(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        let stream = dial(&path, to)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
