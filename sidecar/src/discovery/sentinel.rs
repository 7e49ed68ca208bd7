//! Asks Sentinels for the primary, and follows them when they switch to another one.
//!
//! What a Sentinel says is a hint: a server is published only after it has said itself that it is
//! a primary. Of several answers the one of the highest configuration epoch counts. A Sentinel
//! that leads a fail-over announces the replica it has chosen before it promotes it
//! (`+selected-slave`); that replica is asked until it is a primary, because `+switch-master`
//! comes only once the other replicas were told, seconds after writes are accepted.

mod answer;
mod listen;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use policy::config::Upstream;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout, timeout_at},
};

use self::{
    answer::{Answer, Role},
    listen::Event,
};
use super::{PATIENCE, Pace, ask::Conn};
use crate::{
    metrics::Flush,
    state::Shared,
    upstream::{
        Endpoint, names,
        topology::{Address, Topology},
    },
};

/// Sentinels that are asked and listened to; deployments have three or five.
const SENTINELS: usize = 9;
/// How long a replica that was chosen may take until it is a primary.
const PROMOTION: Duration = Duration::from_secs(5);
/// Time between two look-ups of the replicas' names, and how many there are at most.
const LOOK_UP: Duration = Duration::from_secs(20);
const REPLICAS: usize = 16;
/// How often it is asked meanwhile.
const PROMOTION_POLL: Duration = Duration::from_millis(20);

/// Looks for as long as the process lives.
pub(super) async fn run(shared: Arc<Shared>) {
    let (events, mut received) = mpsc::channel(64);
    let mut watch = Watch {
        shared,
        sentinels: Vec::new(),
        conns: BTreeMap::new(),
        server: None,
        listeners: BTreeMap::new(),
        listening: JoinSet::new(),
        events,
        known: None,
        looked_up: None,
        pace: Pace::new(),
    };
    let mut event = None;
    loop {
        watch.pace.look_begins();
        let look = watch.turn(event.take());
        let found = tokio::select! {
            found = look => found,
            // Whatever is asked now, a switch is more recent.
            next = received.recv() => {
                event = next;
                continue;
            }
        };
        let known = watch.known.is_some();
        tokio::select! {
            () = watch.pace.next(&watch.shared, found, known) => {}
            next = received.recv() => event = next,
        }
    }
}

struct Watch {
    shared: Arc<Shared>,
    /// Everybody who may be asked: those of the configuration, then those they told of.
    sentinels: Vec<Address>,
    conns: BTreeMap<Address, Conn>,
    /// The connection on which a server was asked for its role.
    server: Option<(Address, Conn)>,
    listeners: BTreeMap<Address, AbortHandle>,
    listening: JoinSet<()>,
    events: mpsc::Sender<Event>,
    known: Option<Known>,
    /// When the replicas' names were last looked up.
    looked_up: Option<Instant>,
    pace: Pace,
}

/// The primary in force.
#[derive(Clone, Debug)]
struct Known {
    primary: Address,
    epoch: u64,
}

/// What a Sentinel said, with the connection for the next question.
type Asked = (Address, Result<(Conn, Answer), String>);

impl Watch {
    /// One look, or the pursuit of a switch that was announced.
    async fn turn(&mut self, event: Option<Event>) -> bool {
        let Some(endpoint) = super::endpoint(&self.shared) else {
            return false;
        };
        if let Some(event) = event
            && self.follow(&endpoint, event).await
        {
            return true;
        }
        self.look(&endpoint).await
    }

    /// Waits for the announced server to be a primary.
    async fn follow(&mut self, endpoint: &Endpoint, event: Event) -> bool {
        let Event(address) = event;
        if self.is_known(&address) {
            return false;
        }
        let epoch = self.known.as_ref().map_or(0, |known| known.epoch + 1);
        let deadline = Instant::now() + PROMOTION;
        while Instant::now() < deadline {
            if let Ok(Role::Primary) = self.role_of(endpoint, &address).await {
                return self.adopt(address, epoch);
            }
            sleep(PROMOTION_POLL).await;
        }
        false
    }

    fn is_known(&self, address: &Address) -> bool {
        self.known
            .as_ref()
            .is_some_and(|known| known.primary == *address)
    }

    /// Asks every Sentinel at once; acts on each answer as it comes.
    async fn look(&mut self, endpoint: &Endpoint) -> bool {
        let Some(name) = self.prepare() else {
            return false;
        };
        let mut asking = JoinSet::new();
        for address in self.sentinels.iter().take(SENTINELS).cloned() {
            let conn = self.conns.remove(&address);
            let to = to_sentinel(endpoint, &address);
            asking.spawn(ask(to, address, conn, name.clone()));
        }
        let mut failures = Vec::new();
        let mut changed = false;
        let mut confirmed = false;
        let deadline = Instant::now() + PATIENCE * 2;
        while let Ok(Some(joined)) = timeout_at(deadline, asking.join_next()).await {
            let Ok((sentinel, result)) = joined else {
                continue;
            };
            let (conn, answer) = match result {
                Ok(answered) => answered,
                Err(why) => {
                    failures.push(format!("{sentinel}: {why}"));
                    continue;
                }
            };
            self.conns.insert(sentinel.clone(), conn);
            self.learn(&answer.others);
            match self.weigh(endpoint, answer).await {
                Ok(news) => {
                    confirmed = true;
                    changed |= news;
                }
                Err(why) => failures.push(format!("{sentinel}: {why}")),
            }
        }
        self.listen(endpoint, &name);
        self.look_up_replicas(&name).await;
        super::note(&self.shared, self.verdict(confirmed, &name, &failures));
        changed
    }

    /// One of them will be the primary when this one is lost, perhaps together with the DNS: their
    /// addresses are looked up now and then, and [`names`] remembers them.
    async fn look_up_replicas(&mut self, name: &str) {
        if self.looked_up.is_some_and(|at| at.elapsed() < LOOK_UP) {
            return;
        }
        let Some(conn) = self.conns.values_mut().next() else {
            return;
        };
        // Who may not ask, or gets no answer, does without.
        let Ok(replicas) = answer::replicas(conn, name).await else {
            return;
        };
        self.looked_up = Some(Instant::now());
        for replica in replicas.into_iter().take(REPLICAS) {
            let lookup = async move { names::addresses(&replica.host, replica.port).await };
            self.listening.spawn(async move {
                let _ = timeout(PATIENCE, lookup).await;
            });
        }
    }

    fn verdict(&self, confirmed: bool, name: &str, failures: &[String]) -> Result<(), String> {
        if confirmed {
            return Ok(());
        }
        let said = match failures {
            [] => "no Sentinel answered".to_owned(),
            some => some.join("; "),
        };
        Err(match &self.known {
            None => format!("no primary of {name:?} is known: {said}"),
            Some(known) => {
                let primary = &known.primary;
                format!("nobody confirms that {primary} is the primary of {name:?}: {said}")
            }
        })
    }

    /// Believes an answer, or says why not. What is older than the known primary counts only
    /// once that is a primary no longer.
    async fn weigh(&mut self, endpoint: &Endpoint, answer: Answer) -> Result<bool, String> {
        let Answer {
            primary: Some(primary),
            epoch,
            others: _,
        } = answer
        else {
            return Err("it knows no primary of that name".to_owned());
        };
        let epoch = epoch.unwrap_or_else(|| self.known.as_ref().map_or(0, |known| known.epoch));
        if let Some(known) = self.known.clone()
            && known.primary != primary
            && epoch <= known.epoch
            && matches!(
                self.role_of(endpoint, &known.primary).await,
                Ok(Role::Primary)
            )
        {
            return Err(format!(
                "it names {primary}, which is older news than {}",
                known.primary
            ));
        }
        match self.role_of(endpoint, &primary).await {
            Ok(Role::Primary) => Ok(self.adopt(primary, epoch)),
            Ok(role) => {
                // Not where writes go: whoever is connected there should leave.
                Err(format!("it names {primary}, which is {role}"))
            }
            Err(why) => Err(format!("it names {primary}, which does not answer: {why}")),
        }
    }

    /// Puts a primary in force; what was kept from another one is in doubt (P4).
    fn adopt(&mut self, primary: Address, epoch: u64) -> bool {
        let known = self.known.as_ref();
        let epoch = known
            .filter(|known| known.primary == primary)
            .map_or(epoch, |known| known.epoch.max(epoch));
        self.known = Some(Known {
            primary: primary.clone(),
            epoch,
        });
        let changed = super::publish(&self.shared, Topology::single(primary));
        if changed {
            self.shared.tier.doubt();
            self.shared.counters_of_listener.flushes[Flush::Doubt as usize].inc();
        }
        changed
    }

    /// What a server says of itself.
    async fn role_of(&mut self, endpoint: &Endpoint, address: &Address) -> Result<Role, String> {
        if let Some((at, mut conn)) = self.server.take()
            && at == *address
            && let Ok(role) = answer::role(&mut conn).await
        {
            self.server = Some((at, conn));
            return Ok(role);
        }
        let mut conn = Conn::open(&endpoint.at(address))
            .await
            .map_err(|error| error.to_string())?;
        let role = answer::role(&mut conn).await?;
        self.server = Some((address.clone(), conn));
        Ok(role)
    }

    /// The name to ask for, with the configured Sentinels at the head of the list.
    fn prepare(&mut self) -> Option<String> {
        let active = self.shared.active();
        let upstream = active.config.upstream.as_ref()?;
        let configured = Upstream::addresses(upstream).map(|(host, port)| Address::new(host, port));
        for address in configured {
            if !self.sentinels.contains(&address) {
                self.sentinels.push(address);
            }
        }
        let sentinel = upstream.sentinel.as_ref()?;
        Some(sentinel.master_name.clone())
    }

    fn learn(&mut self, others: &[Address]) {
        for address in others {
            if self.sentinels.len() < SENTINELS && !self.sentinels.contains(address) {
                self.sentinels.push(address.clone());
            }
        }
    }

    /// Subscribes to every Sentinel that is not listened to yet.
    fn listen(&mut self, endpoint: &Endpoint, name: &str) {
        while self.listening.try_join_next().is_some() {}
        self.listeners.retain(|_, listener| !listener.is_finished());
        for address in self.sentinels.iter().take(SENTINELS) {
            if !self.listeners.contains_key(address) {
                let to = to_sentinel(endpoint, address);
                let listener = listen::run(to, name.to_owned(), self.events.clone());
                let handle = self.listening.spawn(listener);
                self.listeners.insert(address.clone(), handle);
            }
        }
    }
}

/// Sentinels have a login of their own, or none.
fn to_sentinel(endpoint: &Endpoint, address: &Address) -> Endpoint {
    let mut to = endpoint.at(address);
    let credentials = &mut to.credentials;
    credentials.username = credentials.sentinel_username.take();
    credentials.password = credentials.sentinel_password.take();
    to
}

async fn ask(to: Endpoint, sentinel: Address, conn: Option<Conn>, name: String) -> Asked {
    let result = match conn {
        Some(mut conn) => match answer::ask(&mut conn, &name).await {
            Ok(answer) => Ok((conn, answer)),
            // One that was kept may be dead without having said so.
            Err(_) => fresh(&to, &name).await,
        },
        None => fresh(&to, &name).await,
    };
    (sentinel, result)
}

async fn fresh(to: &Endpoint, name: &str) -> Result<(Conn, Answer), String> {
    let mut conn = Conn::open(to).await.map_err(|error| error.to_string())?;
    let answer = answer::ask(&mut conn, name).await?;
    Ok((conn, answer))
}
