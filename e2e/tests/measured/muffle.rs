//! A stretch of network that can lose invalidations and nothing else, which no real network does.

use std::{
    io::{Read, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

use e2e::wire;

/// Passes bytes on between a sidecar and a server.
pub struct Muffle {
    address: SocketAddr,
    loses: Arc<AtomicBool>,
}

impl Muffle {
    /// In front of `server`; it loses nothing yet.
    pub fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let loses = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&loses);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let far = TcpStream::connect(server).unwrap();
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let (to, from) = (far.try_clone().unwrap(), near.try_clone().unwrap());
                thread::spawn(move || copy(from, to));
                let flag = Arc::clone(&flag);
                thread::spawn(move || copy_frames(far, near, &flag));
            }
        });
        Self { address, loses }
    }

    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Loses invalidations from now on, or no longer.
    pub fn lose(&self, loses: bool) {
        self.loses.store(loses, SeqCst);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

fn copy_frames(mut from: TcpStream, mut to: TcpStream, loses: &AtomicBool) {
    let (mut buffer, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    while let Ok(len @ 1..) = from.read(&mut chunk) {
        buffer.extend_from_slice(&chunk[..len]);
        while let Ok(Some((_, len))) = wire::parse(&buffer) {
            let frame: Vec<u8> = buffer.drain(..len).collect();
            let lost = loses.load(SeqCst) && frame.starts_with(b">2\r\n$10\r\ninvalidate\r\n");
            if !lost && to.write_all(&frame).is_err() {
                return;
            }
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
