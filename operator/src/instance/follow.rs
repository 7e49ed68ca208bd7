//! The agent's look at its running server, twice a second and whenever a Sentinel announces a new
//! primary: what it is, whether it may accept writes, whom it follows, what its marker says.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep, sleep_until},
};
use tracing::{info, warn};

use super::{
    facts,
    link::{Link, LinkError, command, text},
    marker, peer,
    render::{FROZEN, wanted_guard},
    role::{self, Seen, Step},
    shared::Shared,
    state::{Phase, Role, Server},
    watchers::{Watchers, summary},
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Between two marks of the offset alone.
const MARK: Duration = Duration::from_secs(2);
/// Sentinels lead the replicas to a new primary one by one; one that they forgot goes by itself.
const FORGOTTEN: Duration = Duration::from_secs(3);
/// And after this, where the primary accepts no write without it. A Sentinel leads nobody whom it takes
/// for down, and takes a pod with a new address for that for as much as 15 s.
const NEEDED: Duration = Duration::from_millis(700);
/// What Sentinels choose by; 0 is never chosen.
const ELECTABLE: u32 = 100;

/// Watches the server of one instance.
pub struct Follower {
    shared: Arc<Shared>,
    own: Link,
    watchers: Watchers,
    /// When a look began after which a replacement could not have gone unheard.
    contact: Option<Instant>,
    /// What `min-replicas-to-write` and `min-replicas-max-lag` were set to.
    applied: Option<(u32, u32)>,
    electable: bool,
    /// The most replicas that were online at a time.
    most_online: u32,
    /// Whether it was in step once, or a primary.
    synced: bool,
    astray: Option<Instant>,
    /// Since when Sentinels name another while this is a primary.
    disputed: Option<Instant>,
    marked: Option<Instant>,
    /// Whether the marker on the volume is behind.
    unmarked: bool,
    /// A marker that is being written.
    marking: Option<JoinHandle<()>>,
    /// Of [`Shared::guards_set`], how many had been when this set its own.
    guards_set: u64,
}

impl Follower {
    /// Of an instance whose server was just started, electable or not.
    pub fn new(shared: &Arc<Shared>, electable: bool) -> Self {
        Self {
            own: Link::own(shared),
            watchers: Watchers::new(shared),
            shared: Arc::clone(shared),
            contact: None,
            applied: None,
            electable,
            most_online: 0,
            synced: false,
            astray: None,
            disputed: None,
            marked: None,
            unmarked: false,
            marking: None,
            guards_set: 0,
        }
    }

    /// Looks until it is dropped.
    pub async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let isolation = role::patience(shared.config.down_after_milliseconds);
        loop {
            // A look that hangs on dead addresses must not hold up the freeze.
            let due = self.contact.filter(|_| self.applied.is_some_and(is_open));
            let due = due.map(|contact| contact + isolation);
            tokio::select! {
                () = self.look() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.guard_writes(Some(isolated(isolation))).await;
                }
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                () = shared.look.notified() => {}
            }
        }
    }

    async fn look(&mut self) {
        let began = Instant::now();
        let info = command(&["INFO", "server", "memory", "persistence", "replication"]);
        let (info, voices) = tokio::join!(self.own.ask(&info), self.watchers.ask_soon());
        let sentinels = summary(&voices);
        if sentinels.answering * 2 > sentinels.total {
            // Known even while a long command keeps the server from answering.
            self.contact = Some(began);
        }
        self.shared.update(|state| {
            state.past.epoch = state.past.epoch.max(match &state.server {
                Some(server) if server.role == Some(Role::Replica) => sentinels.epoch,
                // A primary's own failover: that of others is not its history.
                _ if sentinels.primary.as_ref() == Some(&state.address) => sentinels.epoch,
                _ => 0,
            });
            state.sentinels = sentinels;
        });
        let Some(server) = self.take(info) else {
            return;
        };
        if server.loading || self.shared.switching.load(SeqCst) {
            return;
        }
        self.become_electable(&server).await;
        self.keep_role(&server, began).await;
        self.mark(&server);
    }

    /// Takes what the server says about itself into the state.
    fn take(&mut self, info: Result<redis::Value, LinkError>) -> Option<Server> {
        let info = match info {
            Ok(value) => text(&value).unwrap_or_default(),
            // A script that runs for long is the app's affair.
            Err(LinkError::Redis(_, error)) if error.code() == Some("BUSY") => {
                self.shared.is_well();
                return None;
            }
            Err(_) => {
                self.shared.update(|state| state.server = None);
                return None;
            }
        };
        self.shared.is_well();
        let mut server = facts::read(&info);
        self.synced |= !server.loading && (server.role == Some(Role::Primary) || server.link_up);
        server.synced = self.synced;
        let online = server
            .replicas
            .iter()
            .filter(|replica| replica.online)
            .count();
        self.most_online = self
            .most_online
            .max(u32::try_from(online).unwrap_or(u32::MAX));
        self.shared.update(|state| {
            if state.phase == Phase::Starting {
                state.phase = Phase::Running;
            }
            state.server = Some(server.clone());
        });
        Some(server)
    }

    async fn become_electable(&mut self, server: &Server) {
        if self.electable || !server.synced || self.shared.config.sentinels.is_empty() {
            return;
        }
        let priority = ELECTABLE.to_string();
        let set = command(&["CONFIG", "SET", "replica-priority", &priority]);
        self.electable = self.own.ask(&set).await.is_ok();
    }

    async fn keep_role(&mut self, server: &Server, began: Instant) {
        let state = self.shared.state();
        if state.sentinels.total == 0 {
            return;
        }
        let seen = Seen {
            me: &state.address,
            server,
            sentinels: &state.sentinels,
            replicas: self.shared.live().servers.len().saturating_sub(1),
            epoch: state.past.epoch,
            disputed: self
                .disputed
                .map_or(Duration::ZERO, |since| since.elapsed()),
        };
        if role::is_disputed(&seen) {
            self.disputed.get_or_insert_with(Instant::now);
        } else {
            self.disputed = None;
        }
        let contact = role::contact(&seen).and_then(|age| began.checked_sub(age));
        self.contact = self.contact.max(contact);
        let isolation = role::patience(self.shared.config.down_after_milliseconds);
        let frozen = match (server.role, role::step(&seen)) {
            (Some(Role::Primary), Step::Yield(to)) => {
                self.guard_writes(Some(format!("Sentinels name {to} as the primary")))
                    .await;
                self.follow(&to, true).await;
                return;
            }
            (_, Step::Follow(to)) => {
                let since = *self.astray.get_or_insert_with(Instant::now);
                let waited = since.elapsed();
                if waited > FORGOTTEN || (waited > NEEDED && self.is_needed(&to).await) {
                    self.follow(&to, false).await;
                }
                None
            }
            (Some(Role::Primary), _) => match self.contact {
                None => Some("it has seen neither most Sentinels nor all replicas".to_owned()),
                Some(contact) if contact.elapsed() > isolation => Some(isolated(isolation)),
                Some(_) => None,
            },
            _ => None,
        };
        if !matches!(role::step(&seen), Step::Follow(_)) {
            self.astray = None;
        }
        self.guard_writes(frozen).await;
    }

    /// Makes the server refuse writes, or only those that too few replicas would get.
    async fn guard_writes(&mut self, frozen: Option<String>) {
        let live = self.shared.live();
        let (mut wanted, lag) = wanted_guard(&live);
        if live.servers.len() > self.shared.config.servers.len() {
            // Replicas that are being added must not stop the writes until they have come.
            wanted = wanted.min(self.most_online);
        }
        let wanted = if frozen.is_some() { FROZEN } else { wanted };
        let guards_set = self.shared.guards_set.load(SeqCst);
        if std::mem::replace(&mut self.guards_set, guards_set) != guards_set {
            self.applied = None;
        }
        if self.applied != Some((wanted, lag)) {
            if let Some(why) = &frozen {
                warn!(why, "writes are refused");
            } else if self.applied.is_some_and(|applied| !is_open(applied)) {
                info!("writes are accepted again");
            }
            let set = set_guard(wanted, lag);
            match self.own.ask(&set).await {
                Ok(_) => self.applied = Some((wanted, lag)),
                Err(error) => {
                    self.applied = None;
                    warn!(%error, "failed to set min-replicas-to-write");
                }
            }
        }
        self.shared.update(|state| state.frozen = frozen);
    }

    /// Whether the primary has fewer replicas than a write needs.
    async fn is_needed(&self, to: &str) -> bool {
        let (wanted, _) = wanted_guard(&self.shared.live());
        let there = peer::ask(&self.shared, to).await;
        let server = there.and_then(|state| state.server);
        server.is_some_and(|server| {
            let online = server.replicas.iter().filter(|replica| replica.online);
            online.count() < wanted as usize
        })
    }

    /// Follows `to`, which is seen to be the primary; a demoted server drops its clients, as
    /// Sentinel would, so that they ask for the primary.
    async fn follow(&mut self, to: &str, demoted: bool) {
        let there = peer::ask(&self.shared, to).await;
        if !there.is_some_and(|state| state.is_primary()) {
            return;
        }
        let port = self.shared.config.server_port;
        match replica_of(&mut self.own, to, port, demoted).await {
            Ok(()) => {
                info!(
                    primary = to,
                    "this server follows another now, as Sentinels say"
                );
                self.astray = None;
                self.shared.update(|state| state.followed += 1);
                self.shared.look.notify_one();
            }
            Err(error) => warn!(%error, "failed to follow {to}"),
        }
    }

    /// Writes the marker when the role or failover changed, and now and then for the offset.
    fn mark(&mut self, server: &Server) {
        let due = self.marked.is_none_or(|at| at.elapsed() > MARK);
        let persistent = self.shared.config.persistent;
        let changed = self.shared.update(|state| {
            let past = &mut state.past;
            let before = past.clone();
            past.initialised = true;
            past.clean = false;
            past.was_primary = server.role == Some(Role::Primary);
            // A replica that was just filled has not written all of it down yet.
            let is_kept = server.synced && !server.rewriting;
            past.unsynced &= !is_kept;
            // For peers: who looks at the volume looks itself.
            past.has_data |= persistent && is_kept;
            server.replication_id.clone_into(&mut past.replication_id);
            let turned = before.was_primary != past.was_primary
                || before.epoch != past.epoch
                || before.unsynced != past.unsynced
                || before.replication_id != past.replication_id
                || !before.initialised;
            past.offset = server.offset;
            turned || (due && before.offset != past.offset)
        });
        self.unmarked |= changed;
        let busy = self.marking.as_ref().is_some_and(|one| !one.is_finished());
        if !self.unmarked || busy {
            return;
        }
        (self.unmarked, self.marked) = (false, Some(Instant::now()));
        let shared = Arc::clone(&self.shared);
        // A disk that is busy must not hold up the looks.
        self.marking = Some(spawn_blocking(move || {
            if let Err(error) = marker::keep(&shared) {
                warn!(%error, "failed to write the marker to {}", shared.config.data);
            }
        }));
    }
}

const fn is_open((wanted, _): (u32, u32)) -> bool {
    wanted < FROZEN
}

fn isolated(after: Duration) -> String {
    format!(
        "for {} ms it has seen neither most Sentinels nor all replicas",
        after.as_millis()
    )
}

/// What a server says about its role.
pub async fn role_of(own: &mut Link) -> Result<Server, LinkError> {
    let info = own.ask(&command(&["INFO", "replication"])).await?;
    Ok(facts::read(&text(&info).unwrap_or_default()))
}

/// The command that sets how many replicas a write needs.
pub fn set_guard(replicas: u32, lag: u32) -> redis::Cmd {
    let (replicas, lag) = (replicas.to_string(), lag.to_string());
    command(&[
        "CONFIG",
        "SET",
        "min-replicas-max-lag",
        &lag,
        "min-replicas-to-write",
        &replicas,
    ])
}

/// Makes a server a replica; `demoted`: its clients are dropped.
pub async fn replica_of(
    own: &mut Link,
    to: &str,
    port: u16,
    demoted: bool,
) -> Result<(), LinkError> {
    own.ask(&command(&["REPLICAOF", to, &port.to_string()]))
        .await?;
    if demoted {
        for kind in ["normal", "pubsub"] {
            // Who is not dropped is told READONLY.
            let _ = own
                .ask(&command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]))
                .await;
        }
    }
    Ok(())
}
