//! A TCP proxy that disturbs: it delays, cuts into pieces, holds back, loses and resets.
//!
//! It stands between one sidecar and one server, or before a server that tells clients the proxy's
//! port instead of its own; replicas and Sentinels follow that as well, and are left in peace. What it does is set while it runs, for all
//! connections or for some ([`Which`]), for one direction or both, so that connections overtake
//! each other. Bytes of one connection keep their order, as TCP would have it.
//!
//! It runs on a thread of its own and needs no runtime in the test.

mod pump;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
};

use crate::{ports, random::Random, server::loopback};

/// Which connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those that asked for invalidations.
    Tracked,
    /// The others.
    Plain,
    /// Every second one of those that asked for invalidations: event loops see each other's news
    /// in another order.
    SomeTracked,
}

/// Which way bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Commands.
    ToServer,
    /// Replies and invalidations.
    ToClient,
}

/// What happens to bytes on their way. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disturbance {
    /// They arrive later.
    pub delay: Duration,
    /// By up to that much more.
    pub jitter: Duration,
    /// They arrive in pieces of at most that size; 0: as they came.
    pub piece: usize,
    /// They wait until this is over.
    pub stall: bool,
    /// They are lost, and the connection is reset once this is over: a link that is half open.
    pub lose: bool,
}

/// A running proxy; its connections end with it.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Ends the thread when dropped.
    _stop: oneshot::Sender<()>,
}

type Setting = (Which, Direction, Disturbance);

struct Shared {
    target: Mutex<SocketAddr>,
    settings: watch::Sender<Vec<Setting>>,
    connections: Mutex<Vec<Arc<Connection>>>,
    seeds: Mutex<Random>,
    next: AtomicU64,
    refuses: AtomicBool,
}

/// One connection, as both of its directions see it.
struct Connection {
    number: u64,
    tracked: AtomicBool,
    /// Servers and Sentinels talk to each other over it: it is left in peace.
    spared: AtomicBool,
    /// Bytes of it were lost: it can only be reset.
    torn: AtomicBool,
    cut: watch::Sender<bool>,
}

impl Proxy {
    /// Stands before `target` on a port of its own.
    pub fn before(target: SocketAddr, seed: u64) -> Self {
        let address = loopback(ports::free());
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            settings: watch::Sender::new(Vec::new()),
            connections: Mutex::default(),
            seeds: Mutex::new(Random::new(seed)),
            next: AtomicU64::new(0),
            refuses: AtomicBool::new(false),
        });
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let inner = Arc::clone(&shared);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime needs only a few file handles");
            runtime.block_on(async move {
                let listener = TcpListener::bind(address).await.expect("the port is free");
                let _ = ready.send(());
                tokio::select! {
                    () = accept(&listener, &inner) => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv().expect("the proxy listens");
        Self {
            address,
            shared,
            _stop: stop,
        }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on new connections lead there.
    pub fn lead_to(&self, target: SocketAddr) {
        *lock(&self.shared.target) = target;
    }

    /// Disturbs these connections, now and later, until [`Proxy::heal`]. Of several settings that
    /// fit a connection the last one counts.
    pub fn disturb(&self, which: Which, direction: Direction, how: Disturbance) {
        self.shared
            .settings
            .send_modify(|settings| settings.push((which, direction, how)));
    }

    /// Ends all disturbances; connections that lost bytes are reset.
    pub fn heal(&self) {
        self.shared.refuses.store(false, Relaxed);
        self.shared.settings.send_modify(Vec::clear);
        self.shared.cut(|connection| connection.torn.load(Relaxed));
    }

    /// Resets connections; the answer is how many.
    pub fn cut(&self, which: Which) -> usize {
        self.shared.cut(|connection| connection.is(which))
    }

    /// Accepts no connections, until [`Proxy::heal`].
    pub fn refuse(&self) {
        self.shared.refuses.store(true, Relaxed);
    }

    /// Connections that are open.
    pub fn connections(&self, which: Which) -> usize {
        let connections = lock(&self.shared.connections);
        connections.iter().filter(|one| one.is(which)).count()
    }
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        if shared.refuses.load(Relaxed) {
            let _ = client.set_zero_linger();
            continue;
        }
        tokio::spawn(serve(client, Arc::clone(shared)));
    }
}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    let target = *lock(&shared.target);
    let Ok(server) = TcpStream::connect(target).await else {
        let _ = client.set_zero_linger();
        return;
    };
    for stream in [&client, &server] {
        if stream.set_nodelay(true).is_err() {
            return;
        }
    }
    let connection = Arc::new(Connection {
        number: shared.next.fetch_add(1, Relaxed),
        tracked: AtomicBool::new(false),
        spared: AtomicBool::new(false),
        torn: AtomicBool::new(false),
        cut: watch::Sender::new(false),
    });
    lock(&shared.connections).push(Arc::clone(&connection));
    pump::both_ways(client, server, &shared, &connection).await;
    lock(&shared.connections).retain(|one| one.number != connection.number);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Shared ===

impl Shared {
    fn cut(&self, which: impl Fn(&Connection) -> bool) -> usize {
        let connections = lock(&self.connections);
        let chosen: Vec<_> = connections.iter().filter(|one| which(one)).collect();
        for one in &chosen {
            one.cut.send_replace(true);
        }
        chosen.len()
    }
}

// === impl Connection ===

impl Connection {
    fn is(&self, which: Which) -> bool {
        if self.spared.load(Relaxed) {
            return false;
        }
        let tracked = self.tracked.load(Relaxed);
        match which {
            Which::All => true,
            Which::Tracked => tracked,
            Which::Plain => !tracked,
            Which::SomeTracked => tracked && self.number.is_multiple_of(2),
        }
    }

    /// What happens to its bytes in that direction.
    fn disturbance(&self, direction: Direction, settings: &[Setting]) -> Disturbance {
        settings
            .iter()
            .rev()
            .find(|(which, way, _)| *way == direction && self.is(*which))
            .map(|(_, _, how)| *how)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
