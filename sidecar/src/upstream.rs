//! Redis behind the sidecar: the connections of one event loop.
//!
//! Per logical database there is a set of links: one for each protocol version that carries
//! everything forwarded, a tracked one that carries cacheable reads, and pinned ones for clients
//! whose connection has a state. Links are opened when first needed.

pub mod announce;
pub mod backoff;
pub mod connect;
pub mod convoy;
pub mod health;
pub mod link;
pub mod names;
pub mod offline;
pub mod outbox;
pub mod servers;
pub mod stream;
pub mod tls;
pub mod topology;

use std::{
    cell::{OnceCell, RefCell},
    io,
    rc::Rc,
    time::Duration,
};

pub use self::{
    connect::{Endpoint, Handshake},
    link::{Link, Role, Status},
    servers::{Server, Servers},
};
use crate::{resp::Proto, worker::Worker};

/// Pinned connections that are kept for the next client, per protocol version and database.
const SPARE: usize = 4;

/// Why a command has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// There is no connection.
    #[error("{0}")]
    Unavailable(Rc<str>),
    /// The server is there and does not take this connection, whatever it does with others.
    #[error("{0}")]
    Refused(Rc<str>),
    /// The server does not have the database.
    #[error("{0}")]
    NoDatabase(Rc<str>),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(Rc<str>),
    /// Redis did not answer in time.
    #[error("no reply within {0:?}")]
    TimedOut(Duration),
    /// The server is no longer one that writes go to.
    #[error("the server is no longer a primary")]
    Replaced,
    /// Another server has become the primary.
    #[error("another server has become the primary")]
    Switched,
    /// The server refuses writes: it was demoted.
    #[error("the server has become a replica")]
    Demoted,
    /// The link was closed on purpose.
    #[error("the connection was closed")]
    Closed,
}

impl Lost {
    pub(crate) fn broken(error: &io::Error) -> Self {
        Self::Broken(error.to_string().into())
    }
}

/// The links to one server in one database.
pub struct LinkSet {
    /// The server.
    pub server: Rc<Server>,
    /// The database.
    pub db: u16,
    plain: [OnceCell<Rc<Link>>; 2],
    tracked: OnceCell<Rc<Link>>,
    spare: [RefCell<Vec<Rc<Link>>>; 2],
    pinned: RefCell<Vec<Rc<Link>>>,
}

fn index(proto: Proto) -> usize {
    match proto {
        Proto::Resp2 => 0,
        Proto::Resp3 => 1,
    }
}

impl LinkSet {
    /// An empty set; links are opened when first asked for.
    pub fn new(server: Rc<Server>, db: u16) -> Self {
        Self {
            server,
            db,
            plain: Default::default(),
            tracked: OnceCell::new(),
            spare: Default::default(),
            pinned: RefCell::default(),
        }
    }

    /// The shared link for forwarded commands in that protocol version.
    pub fn plain(&self, worker: &Rc<Worker>, proto: Proto) -> &Rc<Link> {
        self.plain[index(proto)].get_or_init(|| {
            let handshake = Handshake {
                readonly: self.server.replica,
                ..Handshake::plain(proto, self.db)
            };
            Link::open(worker, &self.server, Role::Plain, handshake)
        })
    }

    /// The link for cacheable reads.
    pub fn tracked(&self, worker: &Rc<Worker>) -> &Rc<Link> {
        self.tracked.get_or_init(|| {
            let tracking = worker.wants_tracking();
            let handshake = Handshake {
                tracking,
                ..Handshake::plain(Proto::Resp3, self.db)
            };
            Link::open(worker, &self.server, Role::Tracked, handshake)
        })
    }

    /// A connection for one client alone: a spare one, or a new one.
    pub fn pin(&self, worker: &Rc<Worker>, proto: Proto) -> Rc<Link> {
        let spare = loop {
            match self.spare[index(proto)].borrow_mut().pop() {
                Some(link) if link.is_up() => break Some(link),
                Some(_) => {}
                None => break None,
            }
        };
        let link = spare.unwrap_or_else(|| {
            let handshake = Handshake::plain(proto, self.db);
            Link::open(worker, &self.server, Role::Pinned, handshake)
        });
        self.pinned.borrow_mut().push(Rc::clone(&link));
        link
    }

    /// Takes a pinned connection back. It is used again only if it is in a clean state.
    pub fn unpin(&self, link: &Rc<Link>, clean: bool) {
        link.set_owner(None);
        link.patient.set(false);
        self.pinned
            .borrow_mut()
            .retain(|other| !Rc::ptr_eq(other, link));
        let mut spare = self.spare[index(link.proto())].borrow_mut();
        if clean && link.is_up() && spare.len() < SPARE {
            spare.push(Rc::clone(link));
        } else {
            link.close(Lost::Closed);
        }
    }

    /// All links that were opened.
    pub fn links(&self) -> Vec<Rc<Link>> {
        let shared = self
            .plain
            .iter()
            .chain([&self.tracked])
            .filter_map(OnceCell::get);
        let spare = self.spare.iter().flat_map(|spare| spare.borrow().clone());
        shared
            .cloned()
            .chain(self.pinned.borrow().iter().cloned())
            .chain(spare)
            .collect()
    }

    /// Whether nobody waits for anything here.
    pub fn is_idle(&self) -> bool {
        self.pinned.borrow().is_empty() && self.links().iter().all(|link| link.in_flight() == 0)
    }

    /// Whether no shared link is connected, and the last attempt of one failed.
    pub fn is_away(&self) -> bool {
        let down = |link: &Rc<Link>| matches!(link.status(), Status::Down(_));
        !self.has_plain_up() && self.links().iter().any(down)
    }

    /// Whether a shared link is connected.
    pub fn has_plain_up(&self) -> bool {
        let mut plain = self.plain.iter().filter_map(OnceCell::get);
        plain.any(|link| link.is_up())
    }

    /// The tracked link, if it was opened.
    pub fn tracked_link(&self) -> Option<&Rc<Link>> {
        self.tracked.get()
    }
}
