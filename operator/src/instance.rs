//! The agent: process 1 of every Redis and Sentinel container.
//!
//! It guards the start ([`guard`]: pure; [`survey`]: asks), renders what the server reads
//! ([`render`]), keeps its role ([`role`], [`follow`]) and its users ([`credentials`]) while it
//! runs, and hands a primary over before it ends ([`switchover`]). It never decides who the primary
//! is: Sentinels do.

mod announce;
pub mod config;
mod convert;
mod credentials;
mod facts;
mod follow;
pub mod guard;
mod http;
pub mod identity;
mod link;
pub mod marker;
pub mod names;
mod passwords;
mod peer;
mod probes;
mod process;
pub mod render;
mod role;
mod sentinel;
mod shared;
pub mod state;
mod survey;
pub mod switchover;
mod users;
pub(crate) mod verify;
mod watchers;

use std::{io, path::Path, path::PathBuf, sync::Arc, time::Duration};

use config::{InstanceConfig, Kind};
use identity::{Identity, POD_IP, POD_NAME};
use link::Link;
use nix::sys::signal::Signal;
use passwords::Passwords;
use process::Children;
use render::{Memory, Start};
use shared::Shared;
use state::{Phase, Role, Server};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tracing::{info, warn};

/// What the server's end is given within the grace period, after the switch.
const LAST: Duration = Duration::from_secs(3);

/// Why the agent ends.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] config::LoadError),
    /// It does not know which instance it is.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// The passwords cannot be read.
    #[error(transparent)]
    Passwords(#[from] passwords::PasswordError),
    /// The port is taken.
    #[error("failed to listen on port {port}: {source}")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The data folder cannot be used.
    #[error("failed to use the data folder {folder}: {source}; it must be a writable volume")]
    Data {
        /// The folder.
        folder: String,
        /// Why.
        source: io::Error,
    },
    /// What an agent before this one wrote down cannot be read.
    #[error("failed to read what this instance was: {0}")]
    Past(io::Error),
    /// There is no server to run.
    #[error(transparent)]
    Start(#[from] process::StartError),
    /// The kernel refuses something.
    #[error("failed to set up the process: {0}")]
    Process(io::Error),
}

/// Runs the agent; the answer is the exit code of the container.
pub async fn run(path: PathBuf) -> Result<u8, AgentError> {
    let config = InstanceConfig::load(&path)?;
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let identity = Identity::find(&config, env(POD_NAME), env(POD_IP))?;
    let passwords = Passwords::load(Path::new(&config.auth), config.open)?;
    let shared = Shared::new(config, path, identity, passwords);
    // Before anybody may ask: who says nothing of its data is taken for one that has none (P8).
    let memory = remember(&shared).map_err(AgentError::Past)?;
    let listener = http::listen(&shared)
        .await
        .map_err(|source| AgentError::Listen {
            port: shared.config.http_port,
            source,
        })?;
    tokio::spawn(http::serve(listener, Arc::clone(&shared)));
    let children = Children::new().map_err(AgentError::Process)?;
    pass_signals_on(&shared, &children).map_err(AgentError::Process)?;
    info!(
        pod = shared.identity.pod,
        address = shared.identity.address,
        "the agent runs"
    );
    if let Some(path) = env(names::NAMES).map(PathBuf::from) {
        names::begin(&shared, &path).await;
        tokio::spawn(names::keep(Arc::clone(&shared), path));
    }
    let started = match shared.config.kind {
        Kind::Server => begin_server(&shared, &children).await?,
        Kind::Sentinel => begin_sentinel(&shared, &children, memory).await?,
    };
    if !started {
        return Ok(0);
    }
    tokio::spawn(credentials::Credentials::new(&shared).run());
    tokio::spawn(verify::run(Arc::clone(&shared)));
    tokio::select! {
        code = children.ended() => {
            warn!(code, "the server ended by itself");
            Ok(code)
        }
        () = shared.terminated() => Ok(end(&shared, &children).await),
    }
}

/// Takes what the volume says into the state, and gives what a Sentinel remembers.
fn remember(shared: &Shared) -> io::Result<Option<Memory>> {
    if shared.config.kind == Kind::Server {
        let past = marker::read(&shared.config)?;
        shared.update(|state| state.past = past);
        return Ok(None);
    }
    let memory = sentinel::remembered(&shared.config)?;
    if let Some(memory) = &memory {
        shared.update(|state| {
            state.sentinels.primary = Some(memory.primary.clone());
            state.sentinels.epoch = memory.config_epoch;
        });
    }
    Ok(memory)
}

/// Starts a server as the guard decides; false if the pod went away before.
async fn begin_server(shared: &Arc<Shared>, children: &Children) -> Result<bool, AgentError> {
    let config = &shared.config;
    let data = |source| AgentError::Data {
        folder: config.data.clone(),
        source,
    };
    let Some(passed) = survey::wait(shared).await.map_err(data)? else {
        return Ok(false);
    };
    // One that has nothing yet is not chosen by Sentinels before it has been in step once.
    let electable = !passed.empty || passed.start == Start::Primary;
    let priority = if electable { 100 } else { 0 };
    let passwords = shared.passwords();
    let from = convert::needed(config).map_err(data)?;
    let conf = render::server_conf(
        &convert::at_start(config, from),
        &shared.identity,
        &passwords,
        &passed.start,
        priority,
    );
    let file = Path::new(&config.data).join("redis.conf");
    marker::forget_data(config).map_err(data)?;
    if !electable {
        shared.update(|state| state.past.unsynced = true);
        marker::keep(shared).map_err(data)?;
    }
    credentials::write_file(config, &passwords).map_err(data)?;
    credentials::private(&file, &conf).map_err(data)?;
    shared.update(|state| {
        state.phase = Phase::Starting;
        state.frozen = (passed.start == Start::Primary && !config.sentinels.is_empty())
            .then(|| "it has just begun".to_owned());
    });
    children.start(&[&file.to_string_lossy()])?;
    announce::listen(shared);
    tokio::spawn(follow::Follower::new(shared, electable).run());
    if let Some(from) = from {
        tokio::spawn(convert::run(Arc::clone(shared), from));
    }
    Ok(true)
}

/// Starts a Sentinel once it is known whom to watch; false if the pod went away before.
async fn begin_sentinel(
    shared: &Arc<Shared>,
    children: &Children,
    memory: Option<Memory>,
) -> Result<bool, AgentError> {
    let config = &shared.config;
    let data = |source| AgentError::Data {
        folder: config.data.clone(),
        source,
    };
    let Some(memory) = sentinel::guard(shared, memory).await else {
        return Ok(false);
    };
    let passwords = shared.passwords();
    let conf = render::sentinel_conf(config, &shared.identity, &passwords, &memory);
    let file = Path::new(&config.data).join(sentinel::FILE);
    credentials::write_file(config, &passwords).map_err(data)?;
    credentials::private(&file, &conf).map_err(data)?;
    shared.update(|state| state.phase = Phase::Starting);
    children.start(&[&file.to_string_lossy(), "--sentinel"])?;
    tokio::spawn(sentinel::watch(Arc::clone(shared)));
    Ok(true)
}

/// SIGTERM and SIGINT begin the end; what else a person may send goes to the server.
fn pass_signals_on(shared: &Arc<Shared>, children: &Children) -> io::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut received = signal(kind)?;
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            while received.recv().await.is_some() {
                shared.terminate();
            }
        });
    }
    let others = [
        (SignalKind::hangup(), Signal::SIGHUP),
        (SignalKind::quit(), Signal::SIGQUIT),
        (SignalKind::user_defined1(), Signal::SIGUSR1),
        (SignalKind::user_defined2(), Signal::SIGUSR2),
    ];
    for (kind, sent) in others {
        let mut received = signal(kind)?;
        let children = children.clone();
        tokio::spawn(async move {
            while received.recv().await.is_some() {
                children.signal(sent);
            }
        });
    }
    Ok(())
}

/// Hands a primary over, then ends the server with the grace that is left.
async fn end(shared: &Arc<Shared>, children: &Children) -> u8 {
    let grace = Duration::from_secs(shared.config.grace_period_seconds);
    let began = tokio::time::Instant::now();
    shared.update(|state| state.phase = Phase::Terminating);
    if shared.config.kind == Kind::Server && !shared.config.sentinels.is_empty() {
        switchover::on_end(shared).await;
    }
    let mut last = None;
    if shared.config.kind == Kind::Server {
        let mut own = Link::own(shared);
        last = follow::role_of(&mut own).await.ok();
        convert::save_at_the_end(&shared.config, &mut own).await;
    }
    children.signal(Signal::SIGTERM);
    let left = grace.saturating_sub(began.elapsed()).saturating_sub(LAST);
    let Ok(code) = timeout(left.max(LAST), children.ended()).await else {
        warn!("the server did not end in time; it is killed");
        children.signal(Signal::SIGKILL);
        return children.ended().await;
    };
    if shared.config.kind == Kind::Server && code == 0 {
        mark_the_end(shared, last.as_ref());
    }
    info!(code, "the server has ended");
    code
}

/// Writes down that all is saved, and what the server was at last.
fn mark_the_end(shared: &Shared, last: Option<&Server>) {
    shared.update(|state| {
        let past = &mut state.past;
        past.clean = true;
        if let Some(last) = last.or(state.server.as_ref()) {
            past.was_primary = last.role == Some(Role::Primary);
            past.offset = last.offset;
        }
    });
    if let Err(error) = marker::keep(shared) {
        warn!(%error, "failed to write the marker");
    }
}
