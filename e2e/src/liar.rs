//! A server that lies: it stands between the sidecar and a real server, passes everything on, and
//! on request answers commands itself, garbles invalidations, or says things nobody asked for.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    RedisServer,
    server::loopback,
    wire::{Value, encode, parse},
};

/// What it says instead of the truth.
#[derive(Clone, Debug)]
pub enum Lie {
    /// These bytes.
    Say(Vec<u8>),
    /// These bytes, then it closes.
    SayAndClose(Vec<u8>),
    /// These bytes, then zeros until nobody takes them any longer.
    SayForEver(Vec<u8>),
}

/// A server that lies when it is told to.
pub struct Liar {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// By the first words of a command, in upper case; the empty string is every command.
    lies: Mutex<Vec<(String, Lie)>>,
    /// In place of the next invalidations.
    garbled: Mutex<Option<Vec<u8>>>,
    connections: Mutex<BTreeMap<usize, Arc<Connection>>>,
    next: AtomicUsize,
    garblings: AtomicUsize,
    told: AtomicUsize,
    ended: AtomicBool,
}

/// One connection of the sidecar.
struct Connection {
    to_client: Mutex<TcpStream>,
    tracked: AtomicBool,
    /// Commands that the real server has not answered.
    waiting: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Liar {
    /// In front of `server`.
    pub fn before(server: &RedisServer) -> Self {
        let listener = TcpListener::bind(loopback(0)).expect("a port of the loopback is free");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State::default());
        let (shared, upstream) = (Arc::clone(&state), server.address());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.ended.load(SeqCst) {
                    return;
                }
                // The real server may be gone; then so is this connection.
                if let Ok(server) = TcpStream::connect(upstream) {
                    serve(&shared, client, server);
                }
            }
        });
        Self { address, state }
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on commands that begin with these words get this answer; no words: every command.
    pub fn answer(&self, command: &str, lie: Lie) {
        lock(&self.state.lies).push((command.to_uppercase(), lie));
    }

    /// The truth again, on every connection.
    pub fn repent(&self) {
        lock(&self.state.lies).clear();
        *lock(&self.state.garbled) = None;
    }

    /// Sends these bytes in place of every invalidation.
    pub fn garble(&self, bytes: &[u8]) {
        *lock(&self.state.garbled) = Some(bytes.to_vec());
    }

    /// Invalidations that were garbled so far.
    pub fn garblings(&self) -> usize {
        self.state.garblings.load(SeqCst)
    }

    /// Commands that were answered with a lie so far.
    pub fn lies_told(&self) -> usize {
        self.state.told.load(SeqCst)
    }

    /// Says something on every connection with tracking, or on every other one; how many heard it.
    pub fn say(&self, tracked: bool, bytes: &[u8]) -> usize {
        let connections: Vec<_> = lock(&self.state.connections).values().cloned().collect();
        connections
            .iter()
            .filter(|connection| connection.tracked.load(SeqCst) == tracked)
            .filter(|connection| lock(&connection.to_client).write_all(bytes).is_ok())
            .count()
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        lock(&self.state.connections).len()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.state.ended.store(true, SeqCst);
        for connection in lock(&self.state.connections).values() {
            let _ = lock(&connection.to_client).shutdown(Shutdown::Both);
        }
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(state: &Arc<State>, client: TcpStream, server: TcpStream) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a socket can be cloned");
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    // What nobody reads must not hold a thread for ever.
    let _ = client.set_write_timeout(Some(Duration::from_secs(5)));
    let connection = Arc::new(Connection {
        to_client: Mutex::new(clone(&client)),
        tracked: AtomicBool::new(false),
        waiting: AtomicUsize::new(0),
    });
    let number = state.next.fetch_add(1, SeqCst);
    lock(&state.connections).insert(number, Arc::clone(&connection));
    let (shared, other, from_server) = (Arc::clone(state), Arc::clone(&connection), clone(&server));
    thread::spawn(move || {
        let _ = pass_replies(&shared, &other, from_server);
        let _ = lock(&other.to_client).shutdown(Shutdown::Both);
    });
    let shared = Arc::clone(state);
    thread::spawn(move || {
        let _ = pass_commands(&shared, &connection, client, &server);
        let _ = server.shutdown(Shutdown::Both);
        let _ = lock(&connection.to_client).shutdown(Shutdown::Both);
        lock(&shared.connections).remove(&number);
    });
}

/// From the real server to the sidecar, frame by frame.
fn pass_replies(state: &State, connection: &Connection, server: TcpStream) -> io::Result<()> {
    frames(server, |value, bytes| {
        let mut out = lock(&connection.to_client);
        let Value::Push(parts) = value else {
            connection.waiting.fetch_sub(1, SeqCst);
            return out.write_all(bytes);
        };
        let garbled = lock(&state.garbled).clone();
        match garbled {
            Some(garbled) if parts.first().is_some_and(|kind| *kind == "invalidate") => {
                state.garblings.fetch_add(1, SeqCst);
                out.write_all(&garbled)
            }
            _ => out.write_all(bytes),
        }
    })
}

/// From the sidecar to the real server, or a lie in the place of the answer.
fn pass_commands(
    state: &State,
    connection: &Connection,
    client: TcpStream,
    mut server: &TcpStream,
) -> io::Result<()> {
    frames(client, |value, _| {
        let words: Vec<Vec<u8>> = value
            .items()
            .iter()
            .map(|word| word.bytes().to_vec())
            .collect();
        let upper: Vec<_> = words
            .iter()
            .map(|word| String::from_utf8_lossy(word).to_uppercase())
            .collect();
        let command = upper.join(" ");
        let lie = lock(&state.lies)
            .iter()
            .rev()
            .find(|(beginning, _)| command.starts_with(beginning.as_str()))
            .map(|(_, lie)| lie.clone());
        let Some(lie) = lie else {
            if command.starts_with("CLIENT TRACKING ON") {
                connection.tracked.store(true, SeqCst);
            }
            connection.waiting.fetch_add(1, SeqCst);
            return server.write_all(&encode(&words));
        };
        // In the order of the commands: what was asked before is answered before.
        let patience = Instant::now() + Duration::from_secs(5);
        while connection.waiting.load(SeqCst) > 0 && Instant::now() < patience {
            thread::sleep(Duration::from_micros(100));
        }
        state.told.fetch_add(1, SeqCst);
        let mut out = lock(&connection.to_client);
        match lie {
            Lie::Say(bytes) => out.write_all(&bytes),
            Lie::SayAndClose(bytes) => {
                out.write_all(&bytes)?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Lie::SayForEver(bytes) => {
                out.write_all(&bytes)?;
                let zeros = vec![b'0'; 64 * 1024];
                loop {
                    out.write_all(&zeros)?;
                }
            }
        }
    })
}

/// Calls `each` with every complete value and its bytes.
fn frames(
    mut stream: TcpStream,
    mut each: impl FnMut(&Value, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        while let Some((value, used)) = parse(&buffer)? {
            each(&value, &buffer[..used])?;
            buffer.drain(..used);
        }
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&chunk[..read]);
    }
}
