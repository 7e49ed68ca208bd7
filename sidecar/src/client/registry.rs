//! All app connections of the process, whatever their event loop: `CLIENT LIST`, `CLIENT KILL`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    task::Waker,
};

use parking_lot::Mutex;

use crate::{clock::Tick, resp::Proto};

/// What others may know and do of a connection.
#[derive(Debug)]
pub struct ClientHandle {
    /// Its number, unique in the process.
    pub id: u64,
    /// Address of the app's end.
    pub addr: String,
    /// Address of our end.
    pub laddr: String,
    since: Tick,
    killed: AtomicBool,
    /// 0: no; 1: `CLIENT UNBLOCK id`; 2: `CLIENT UNBLOCK id ERROR`.
    unblock: AtomicU64,
    waker: Mutex<Option<Waker>>,
    info: Mutex<Info>,
}

/// What a client says of itself, and what it does.
#[derive(Clone, Debug, Default)]
pub struct Info {
    /// `CLIENT SETNAME`
    pub name: String,
    /// `CLIENT SETINFO LIB-NAME`
    pub lib_name: String,
    /// `CLIENT SETINFO LIB-VER`
    pub lib_ver: String,
    /// Logical database.
    pub db: u16,
    /// Protocol version.
    pub proto: Proto,
    /// Last command that was not a cached read.
    pub command: String,
    /// Subscribed, in a transaction or blocked.
    pub flags: &'static str,
}

/// All connections.
#[derive(Debug, Default)]
pub struct Clients {
    next: AtomicU64,
    count: AtomicUsize,
    all: Mutex<BTreeMap<u64, Arc<ClientHandle>>>,
}

// === impl Clients ===

impl Clients {
    /// Registers a connection; `None` if there are `max` already.
    pub fn add(
        &self,
        peer: Option<SocketAddr>,
        local: Option<SocketAddr>,
        max: u32,
    ) -> Option<Arc<ClientHandle>> {
        if self.count.fetch_add(1, AcqRel) >= max as usize {
            self.count.fetch_sub(1, AcqRel);
            return None;
        }
        let text =
            |addr: Option<SocketAddr>| addr.map_or_else(|| "unix:0".to_owned(), |a| a.to_string());
        let handle = Arc::new(ClientHandle {
            id: self.next.fetch_add(1, Relaxed) + 1,
            addr: text(peer),
            laddr: text(local),
            since: Tick::now(),
            killed: AtomicBool::new(false),
            unblock: AtomicU64::new(0),
            waker: Mutex::new(None),
            info: Mutex::default(),
        });
        self.all.lock().insert(handle.id, Arc::clone(&handle));
        Some(handle)
    }

    /// Forgets a connection.
    pub fn remove(&self, id: u64) {
        if self.all.lock().remove(&id).is_some() {
            self.count.fetch_sub(1, AcqRel);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One connection.
    pub fn get(&self, id: u64) -> Option<Arc<ClientHandle>> {
        self.all.lock().get(&id).cloned()
    }

    /// All connections, oldest first.
    pub fn all(&self) -> Vec<Arc<ClientHandle>> {
        self.all.lock().values().cloned().collect()
    }
}

// === impl ClientHandle ===

impl ClientHandle {
    /// Ends the connection.
    pub fn kill(&self) {
        self.killed.store(true, Release);
        self.wake();
    }

    /// Whether it was ended by another one.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Acquire)
    }

    /// `CLIENT UNBLOCK`; `error`: the blocked command fails instead of timing out.
    pub fn unblock(&self, error: bool) {
        self.unblock.store(1 + u64::from(error), Release);
        self.wake();
    }

    /// Whether `CLIENT UNBLOCK` came, and with `ERROR`.
    pub fn take_unblock(&self) -> Option<bool> {
        if self.unblock.load(Relaxed) == 0 {
            return None;
        }
        match self.unblock.swap(0, AcqRel) {
            0 => None,
            how => Some(how == 2),
        }
    }

    /// Changes what is shown.
    pub fn update(&self, change: impl FnOnce(&mut Info)) {
        change(&mut self.info.lock());
    }

    /// What is shown.
    pub fn info(&self) -> Info {
        self.info.lock().clone()
    }

    pub(super) fn set_waker(&self, waker: Waker) {
        *self.waker.lock() = Some(waker);
    }

    /// Has the connection look at what came for it.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.lock() {
            waker.wake_by_ref();
        }
    }

    /// The line of `CLIENT LIST`, in Redis' own form.
    pub fn line(&self) -> String {
        let info = self.info();
        let age = Tick::now().since(self.since).as_secs();
        let resp = match info.proto {
            Proto::Resp2 => 2,
            Proto::Resp3 => 3,
        };
        let flags = if info.flags.is_empty() {
            "N"
        } else {
            info.flags
        };
        let mut line = String::new();
        let _ = write!(
            line,
            "id={} addr={} laddr={} fd=-1 name={} age={age} idle=0 flags={flags} db={} sub=0 psub=0 \
             ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 \
             tot-mem=0 events=r cmd={} user=default redir=-1 resp={resp} lib-name={} lib-ver={}",
            self.id,
            self.addr,
            self.laddr,
            info.name,
            info.db,
            if info.command.is_empty() {
                "NULL"
            } else {
                &info.command
            },
            info.lib_name,
            info.lib_ver,
        );
        line
    }
}
