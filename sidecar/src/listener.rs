//! Accepts apps: loopback TCP in both families, a UNIX socket, and in-process pairs.
//!
//! One loop accepts for all and hands sockets round-robin, so that a handful of connections
//! spreads over the loops.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::mpsc,
};

use crate::{
    client::{ClientHandle, Socket},
    state::Shared,
};

/// Pause after an accept that failed for want of resources.
const PAUSE: Duration = Duration::from_millis(50);
/// Accepted connections that wait for their event loop.
pub const BACKLOG: usize = 1024;

/// A socket on its way to its event loop; not yet known to that loop's poll.
pub enum Accepted {
    /// Loopback TCP.
    Tcp(std::net::TcpStream, Arc<ClientHandle>),
    /// UNIX socket.
    Unix(std::os::unix::net::UnixStream, Arc<ClientHandle>),
}

impl Accepted {
    /// Number of the connection.
    pub fn id(&self) -> u64 {
        match self {
            Self::Tcp(_, handle) | Self::Unix(_, handle) => handle.id,
        }
    }

    /// Registers the socket with the current event loop.
    pub fn into_socket(self) -> io::Result<(Socket, Arc<ClientHandle>)> {
        Ok(match self {
            Self::Tcp(stream, handle) => (
                Socket::Tcp(tokio::net::TcpStream::from_std(stream)?),
                handle,
            ),
            Self::Unix(stream, handle) => (
                Socket::Unix(tokio::net::UnixStream::from_std(stream)?),
                handle,
            ),
        })
    }
}

/// Hands sockets to the event loops in turn.
#[derive(Clone)]
pub struct Dealer {
    shared: Arc<Shared>,
    loops: Vec<mpsc::Sender<Accepted>>,
    next: Arc<std::sync::atomic::AtomicUsize>,
}

impl Dealer {
    /// A dealer for these loops.
    pub fn new(shared: Arc<Shared>, loops: Vec<mpsc::Sender<Accepted>>) -> Self {
        Self {
            shared,
            loops,
            next: Arc::default(),
        }
    }

    async fn deal(&self, accepted: Accepted) {
        let turn = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // A closed loop means that the process ends.
        let _ = self.loops[turn % self.loops.len()].send(accepted).await;
    }

    /// One end of a pair whose other end is served as an app; what the HTTP API speaks through.
    pub fn open_pair(&self) -> io::Result<tokio::net::UnixStream> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let handle = self.shared.clients.add(None, None, u32::MAX);
        let handle = handle.ok_or_else(|| io::Error::other("too many connections"))?;
        let turn = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let id = handle.id;
        let sent = self.loops[turn % self.loops.len()].try_send(Accepted::Unix(theirs, handle));
        if sent.is_err() {
            self.shared.clients.remove(id);
            return Err(io::Error::other("the event loop takes no connections"));
        }
        tokio::net::UnixStream::from_std(ours)
    }

    /// Accepts on a TCP listener until the task is aborted.
    pub async fn accept_tcp(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let local = stream.local_addr().ok();
                    let Some(handle) = self.admit(Some(peer), local) else {
                        refuse(&stream);
                        continue;
                    };
                    let _ = stream.set_nodelay(true);
                    match stream.into_std() {
                        Ok(stream) => self.deal(Accepted::Tcp(stream, handle)).await,
                        Err(_) => self.shared.clients.remove(handle.id),
                    }
                }
                Err(error) => pause(&error).await,
            }
        }
    }

    /// Accepts on a UNIX socket until the task is aborted.
    pub async fn accept_unix(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let Some(handle) = self.admit(None, None) else {
                        let _ = stream.try_write(TOO_MANY);
                        continue;
                    };
                    match stream.into_std() {
                        Ok(stream) => self.deal(Accepted::Unix(stream, handle)).await,
                        Err(_) => self.shared.clients.remove(handle.id),
                    }
                }
                Err(error) => pause(&error).await,
            }
        }
    }

    fn admit(
        &self,
        peer: Option<std::net::SocketAddr>,
        local: Option<std::net::SocketAddr>,
    ) -> Option<Arc<ClientHandle>> {
        let max = self.shared.active().config.sidecar.max_clients;
        let handle = self.shared.clients.add(peer, local, max);
        // The accepting thread is the only writer of this counter's loop slot.
        let counters = &self.shared.counters_of_listener;
        if handle.is_some() {
            counters.connections.inc();
        } else {
            counters.rejected.inc();
        }
        handle
    }
}

const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

fn refuse(stream: &tokio::net::TcpStream) {
    let _ = stream.try_write(TOO_MANY);
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "failed to accept a connection");
    tokio::time::sleep(PAUSE).await;
}
