//! A port of this machine's 127.0.0.1 that leads into a network namespace: tests and their clients
//! stay where they are.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::network::dial;

/// Forwards connections until it is dropped; those that are open stay.
pub struct Forward {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Forward {
    /// From a free port to `to` as seen from `namespace`.
    pub fn start(namespace: &Path, to: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let ended = Arc::new(AtomicBool::new(false));
        let (flag, namespace) = (Arc::clone(&ended), namespace.to_owned());
        thread::spawn(move || accept(&listener, &flag, &namespace, to));
        Self { address, ended }
    }

    /// The port of this machine.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

fn accept(listener: &TcpListener, ended: &AtomicBool, namespace: &Path, to: SocketAddr) {
    while let Ok((near, _)) = listener.accept() {
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let namespace: PathBuf = namespace.to_owned();
        // A connection that cannot be made is closed: that is what the client sees of a cut node.
        thread::spawn(move || join(&near, &dial(&namespace, to)?));
    }
}

fn join(near: &TcpStream, far: &TcpStream) -> io::Result<()> {
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    thread::scope(|scope| {
        scope.spawn(|| pump(near, far));
        pump(far, near);
    });
    Ok(())
}

fn pump(mut from: &TcpStream, mut to: &TcpStream) {
    let end = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    if end.is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
}
