//! Start order and drain order of the process.
//!
//! Start: bind → event loops → control plane → ready. Nothing of it waits for Redis: readiness
//! says that commands are accepted, and what happens to them without Redis is declared (P7).
//! Drain: stop accepting → not ready → finish what is under way → deadline.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Release},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, UnixListener},
    runtime::{Builder, LocalOptions},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    admin,
    client::{Client, parting::Parting, together::Together},
    config::{self, Listen, Loaded},
    control, discovery, http,
    listener::{Accepted, BACKLOG, Dealer},
    presence,
    resp::Proto,
    state::{Active, Shared},
    upstream::{
        connect::{ConnectError, Handshake},
        convoy::Convoy,
        stream::Stream,
        tls::TlsError,
        topology::Topology,
    },
    worker::{Worker, endpoint},
};

/// Longest wait for commands under way when the process is told to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A port or path is taken, or not ours to take.
    #[error("failed to listen on {address} ({what}): {source}; choose another with {flag}")]
    Bind {
        /// What was to be served there.
        what: &'static str,
        /// Where.
        address: String,
        /// The flag that changes it.
        flag: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Certificates or keys that cannot be used.
    #[error(transparent)]
    Tls(TlsError),
    /// The operating system refused a thread, an event loop or a signal handler.
    #[error("failed to start {what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What was bound.
struct Bound {
    redis: Vec<TcpListener>,
    unix: Option<UnixListener>,
    http: TcpListener,
    admin: TcpListener,
}

/// Runs until a signal says otherwise. `announce` is called once commands are accepted.
pub fn run(loaded: Loaded, announce: impl FnOnce(&Active, &Listen)) -> Result<(), RunError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RunError::System {
            what: "the control thread's event loop",
            source,
        })?;
    runtime.block_on(control_thread(loaded, announce))
}

async fn control_thread(
    loaded: Loaded,
    announce: impl FnOnce(&Active, &Listen),
) -> Result<(), RunError> {
    let Loaded {
        active,
        mut listen,
        source,
        ..
    } = loaded;
    let mut signals = Signals::new()?;
    raise_open_files(active.config.sidecar.max_clients);
    // Before anything is bound: a certificate that cannot be read is a matter of configuration.
    endpoint(&active).map_err(RunError::Tls)?;
    let bound = bind(&mut listen).await?;
    let shared = Shared::new(active, usize::from(listen.threads));

    let mut loops = Vec::new();
    let mut senders = Vec::new();
    let end = watch::Sender::new(());
    for index in 0..usize::from(listen.threads) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        senders.push(sender);
        loops.push(start_loop(&shared, index, receiver, end.subscribe())?);
    }
    let dealer = Dealer::new(Arc::clone(&shared), senders);
    let accepting = accept(&dealer, bound.redis, bound.unix);
    let mut control = JoinSet::new();
    control.spawn(admin::serve(bound.admin, Arc::clone(&shared)));
    let opener = dealer.clone();
    control.spawn(http::serve(
        bound.http,
        move || opener.open_pair(),
        Arc::clone(&shared),
    ));
    control.spawn(config::watch(Arc::clone(&shared), source));
    let known = Arc::clone(&shared);
    let dial = move |active| dial(active, known.topology.current());
    control.spawn(control::run(Arc::clone(&shared), dial));
    control.spawn(discovery::run(Arc::clone(&shared)));
    control.spawn(presence::run(Arc::clone(&shared)));
    shared.ready.store(true, Release);
    announce(&shared.active(), &listen);

    signals.wait().await;
    tracing::info!("told to end: draining");
    drop(accepting);
    shared.drain();
    drain(&shared, &mut signals).await;
    control.shutdown().await;
    drop(end);
    for thread in loops {
        // A panic in it has been reported already.
        let _ = thread.join();
    }
    if let Some(path) = &listen.unix_socket {
        let _ = std::fs::remove_file(path);
    }
    tracing::info!("ended");
    Ok(())
}

// === bind ===

async fn bind(listen: &mut Listen) -> Result<Bound, RunError> {
    let redis = bind_redis(&mut listen.redis).await?;
    let http = bind_tcp("HTTP API", "--http", listen.http).await?;
    let admin = bind_tcp("probes and metrics", "--admin", listen.admin).await?;
    listen.http = http.local_addr().unwrap_or(listen.http);
    listen.admin = admin.local_addr().unwrap_or(listen.admin);
    let unix = listen.unix_socket.as_ref().map(bind_unix).transpose()?;
    Ok(Bound {
        redis,
        unix,
        http,
        admin,
    })
}

/// The first address must be had; others are `::1`, which not every machine has.
async fn bind_redis(addresses: &mut Vec<SocketAddr>) -> Result<Vec<TcpListener>, RunError> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    for address in addresses.iter_mut() {
        if address.port() == 0
            && let Some(first) = listeners.first().and_then(|first| first.local_addr().ok())
        {
            address.set_port(first.port());
        }
        match bind_tcp("Redis protocol", "--listen", *address).await {
            Ok(listener) => {
                *address = listener.local_addr().unwrap_or(*address);
                listeners.push(listener);
            }
            Err(RunError::Bind { source, .. })
                if !listeners.is_empty() && source.kind() != io::ErrorKind::AddrInUse =>
            {
                // With IPv6 switched off there may be no such address, or no such kind of socket.
                tracing::info!(%address, error = %source, "not served");
            }
            Err(error) => return Err(error),
        }
    }
    addresses.truncate(listeners.len());
    Ok(listeners)
}

async fn bind_tcp(
    what: &'static str,
    flag: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, RunError> {
    let bound = match TcpListener::bind(address).await {
        // Every address, of a machine without IPv6.
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(|source| RunError::Bind {
        what,
        address: address.to_string(),
        flag,
        source,
    })
}

/// A socket file that nobody serves any longer is replaced.
fn bind_unix(path: &PathBuf) -> Result<UnixListener, RunError> {
    use std::os::unix::{fs::PermissionsExt as _, net::UnixStream};
    let failed = |source| RunError::Bind {
        what: "Redis protocol",
        address: path.display().to_string(),
        flag: "--unix-socket",
        source,
    };
    if path.exists()
        && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // The app in the other container runs as another user; the volume is the pod's own.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(listener)
}

fn accept(dealer: &Dealer, tcp: Vec<TcpListener>, unix: Option<UnixListener>) -> JoinSet<()> {
    let mut accepting = JoinSet::new();
    for listener in tcp {
        accepting.spawn(dealer.clone().accept_tcp(listener));
    }
    if let Some(listener) = unix {
        accepting.spawn(dealer.clone().accept_unix(listener));
    }
    accepting
}

/// Each client is an open file; the usual soft limit is 1024.
fn raise_open_files(clients: u32) {
    let wanted = u64::from(clients) + 256;
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit < wanted => tracing::warn!(
            limit,
            max_clients = clients,
            "fewer clients can connect than sidecar.maxClients allows: raise the limit of open files"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "failed to raise the limit of open files"),
    }
}

// === event loops ===

fn start_loop(
    shared: &Arc<Shared>,
    index: usize,
    receiver: mpsc::Receiver<Accepted>,
    end: watch::Receiver<()>,
) -> Result<JoinHandle<()>, RunError> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name(format!("loop-{index}"))
        .spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            match (runtime, Worker::new(&shared, index)) {
                (Ok(runtime), Ok(worker)) => runtime.block_on(event_loop(worker, receiver, end)),
                (Err(error), _) => tracing::error!(%error, "failed to start an event loop"),
                (_, Err(error)) => tracing::error!(%error, "failed to start an event loop"),
            }
        })
        .map_err(|source| RunError::System {
            what: "an event loop's thread",
            source,
        })
}

async fn event_loop(
    worker: Rc<Worker>,
    mut accepted: mpsc::Receiver<Accepted>,
    mut end: watch::Receiver<()>,
) {
    if worker.has_upstream() {
        worker.open_links();
    }
    let mut topology = worker.shared.topology.changes();
    tokio::task::spawn_local(Together::run(Rc::clone(&worker)));
    tokio::task::spawn_local(Parting::run(Rc::clone(&worker)));
    tokio::task::spawn_local(Convoy::run(Rc::clone(&worker)));
    let mut ticks = interval(worker.housekeeping_interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            next = accepted.recv() => match next {
                None => return,
                Some(socket) => serve(&worker, socket),
            },
            _ = topology.changed() => worker.topology_changed(),
            // The sender is dropped.
            _ = end.changed() => return,
            _ = ticks.tick() => {
                worker.housekeep();
                worker.shared.beat(worker.index);
            }
        }
    }
}

fn serve(worker: &Rc<Worker>, accepted: Accepted) {
    let id = accepted.id();
    match accepted.into_socket() {
        Ok((socket, handle)) => {
            tokio::task::spawn_local(Client::new(worker, socket, handle).serve());
        }
        Err(error) => {
            worker.shared.clients.remove(id);
            tracing::warn!(%error, "failed to serve a connection");
        }
    }
}

/// A connection of the control plane, made the way the data path makes its own.
async fn dial(active: Arc<Active>, topology: Arc<Topology>) -> Result<Stream, DialError> {
    let configured = endpoint(&active)
        .map_err(DialError::Tls)?
        .ok_or(DialError::NoRedis)?;
    // Behind Sentinels there is no Redis at the address of the configuration.
    let node = topology.nodes.first().ok_or(DialError::NoPrimary)?;
    let endpoint = configured.at(&node.primary);
    let connected = endpoint
        .connect(Handshake::plain(Proto::Resp2, 0))
        .await
        .map_err(DialError::Connect)?;
    Ok(connected.stream)
}

#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("there is no redis")]
    NoRedis,
    #[error("no primary is known")]
    NoPrimary,
    #[error(transparent)]
    Tls(TlsError),
    #[error(transparent)]
    Connect(ConnectError),
}

// === end ===

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, RunError> {
        let failed = |source| RunError::System {
            what: "signal handlers",
            source,
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Idle clients are closed, busy ones when their commands are answered; a second signal or the
/// deadline ends the wait.
async fn drain(shared: &Shared, signals: &mut Signals) {
    let deadline = Instant::now() + DRAIN;
    while !shared.clients.is_empty() && Instant::now() < deadline {
        for client in shared.clients.all() {
            client.wake();
        }
        tokio::select! {
            () = sleep(Duration::from_millis(20)) => {}
            () = signals.wait() => break,
        }
    }
    let left = shared.clients.len();
    if left > 0 {
        tracing::warn!(
            clients = left,
            "the drain's deadline has passed: closing connections with commands under way"
        );
        for client in shared.clients.all() {
            client.kill();
        }
    }
}
