//! What the control thread asks Redis: its commands, its name, its memory policy.
//!
//! One connection beside the data path, which never waits for it. A server that refuses a question
//! (an ACL, a managed service without `INFO`) costs what the answer would have brought and nothing
//! else; it is logged once. `command` reads the `COMMAND` reply.

mod command;
mod limited;
mod shards;
pub mod tracking;

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    future::Future,
    hash::{BuildHasher as _, DefaultHasher, Hasher, RandomState},
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, RedisConnectionInfo, RedisError, Value, aio::MultiplexedConnection,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep},
};
use tracing::{info, warn};

use policy::config::Coherence;

use self::{
    limited::{Allowance, Limited},
    shards::Shards,
    tracking::TrackingTable,
};
use crate::{
    command::CommandTable,
    state::{Active, Shared},
    upstream::backoff::Backoff,
};

/// How often the server is asked again: modules are loaded and policies changed while it runs.
const REFRESH: Duration = Duration::from_mins(1);
/// How often it is asked for its table of tracked keys: a deployment can fill it in seconds.
const TRACKING_REFRESH: Duration = Duration::from_secs(5);

/// Why there is no connection, in words.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Dial(String),
    #[error("the server did not accept the connection: {0}")]
    Greeting(RedisError),
    #[error("the connection broke")]
    Broken,
}

/// Asks for as long as the process lives. `dial` opens a connection that is logged in and speaks
/// RESP2, in the way of the data path: the same address, certificates and credentials.
pub async fn run<D, F, S, E>(shared: Arc<Shared>, dial: D)
where
    D: Fn(Arc<Active>) -> F,
    F: Future<Output = Result<S, E>>,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    E: fmt::Display,
{
    let active = shared.active();
    if active.config.upstream.is_none() {
        return;
    }
    let limits = active.config.resilience;
    drop(active);
    let mut backoff = Backoff::new(limits.backoff_base.0, limits.backoff_max.0);
    let mut inquiry = Inquiry {
        shared,
        commands: None,
        shards: Shards::default(),
        complained: BTreeMap::new(),
    };
    let random = RandomState::new();
    for attempt in 0_u64.. {
        let begun = Instant::now();
        let ended = session(&mut inquiry, &dial).await;
        // The data path says in plain words that Redis is away; once is enough.
        tracing::debug!(why = %ended, "the control connection ended");
        if begun.elapsed() > limits.backoff_max.0 {
            backoff.reset();
        }
        let [a, b, c, d, ..] = random.hash_one(attempt).to_le_bytes();
        sleep(backoff.next(u32::from_le_bytes([a, b, c, d]))).await;
        // While the circuit is open nothing is sent, not by us either.
        while inquiry.shared.healths.is_cut_off() {
            sleep(Duration::from_millis(200)).await;
        }
    }
}

/// One connection, until it breaks.
async fn session<D, F, S, E>(inquiry: &mut Inquiry, dial: &D) -> Ended
where
    D: Fn(Arc<Active>) -> F,
    F: Future<Output = Result<S, E>>,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    E: fmt::Display,
{
    let active = inquiry.shared.active();
    let timeout = active.config.resilience.command_timeout.0;
    let stream = match dial(active).await {
        Ok(stream) => Limited::new(stream),
        Err(error) => return Ended::Dial(error.to_string()),
    };
    let allowance = stream.allowance();
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(timeout));
    // Logged in already; a name for the library would be one more thing to be refused.
    let login = RedisConnectionInfo::default().set_skip_set_lib_name();
    let opened = MultiplexedConnection::new_with_config(&login, stream, config).await;
    let (connection, driver) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ended::Greeting(error),
    };
    let mut driver = pin!(driver);
    tokio::select! {
        () = &mut driver => {}
        () = inquiry.keep_asking(connection, &allowance) => {}
    }
    Ended::Broken
}

/// What was asked, and what came of it.
struct Inquiry {
    shared: Arc<Shared>,
    /// Hash of the last `COMMAND` reply that was merged.
    commands: Option<u64>,
    /// In front of a cluster: the way to every primary.
    shards: Shards,
    /// Refusals that were logged, by question.
    complained: BTreeMap<&'static str, String>,
}

// === impl Inquiry ===

impl Inquiry {
    async fn keep_asking(&mut self, mut connection: MultiplexedConnection, allowance: &Allowance) {
        loop {
            allowance.renew();
            let commands = self.ask(&mut connection, "COMMAND").await;
            let server = self.ask(&mut connection, "INFO server").await;
            let memory = self.ask(&mut connection, "INFO memory").await;
            if let Some(reply) = commands {
                self.take_commands(&reply);
            }
            self.take_info(&text(server), &text(memory));
            let next = Instant::now() + REFRESH;
            while Instant::now() < next {
                self.ask_about_tracking(&mut connection).await;
                sleep(TRACKING_REFRESH).await;
            }
        }
    }

    async fn ask_about_tracking(&mut self, connection: &mut MultiplexedConnection) {
        let was = self.shared.upstream.facts().tracking_table;
        let mut table = if self.shared.topology.load().is_cluster() {
            self.fullest_table(&was).await
        } else {
            let stats = self.ask(connection, "INFO stats").await;
            let clients = self.ask(connection, "INFO clients").await;
            let limit = self
                .ask(connection, "CONFIG GET tracking-table-max-keys")
                .await;
            let limit = limit.and_then(config_value);
            was.next(&text(stats), &text(clients), limit)
        };
        let tracks = self.shared.active().config.local.coherence == Coherence::Tracking;
        table.is_tight &= tracks;
        self.shared
            .upstream
            .update(|facts| facts.tracking_table = table.clone());
        match table.warning() {
            Some(why) if !was.is_tight => warn!("{why}"),
            None if was.is_tight => info!("redis has room for more tracked keys again"),
            _ => {}
        }
    }

    async fn fullest_table(&mut self, was: &TrackingTable) -> TrackingTable {
        let (table, refusals) = self.shards.fullest(&self.shared, was).await;
        for (question, why) in refusals {
            self.complain(question, why);
        }
        table
    }

    async fn ask(
        &mut self,
        connection: &mut MultiplexedConnection,
        question: &'static str,
    ) -> Option<Value> {
        let mut command = redis::Cmd::new();
        for word in question.split(' ') {
            command.arg(word);
        }
        let reply = connection.send_packed_command(&command).await;
        let why = match reply {
            Ok(Value::ServerError(error)) => error.to_string(),
            Ok(value) => {
                self.complained.remove(question);
                return Some(value);
            }
            Err(error) => error.to_string(),
        };
        self.complain(question, why);
        None
    }

    /// Says once that a question is refused, and what that costs.
    fn complain(&mut self, question: &'static str, why: String) {
        if self.complained.get(question) != Some(&why) {
            let cost = match question {
                "COMMAND" => "commands of modules and newer servers are treated as unknown",
                "INFO memory" => "hot local keys are not touched there, whatever its memory policy",
                "INFO stats" | "INFO clients" | "CONFIG GET tracking-table-max-keys" => {
                    "there is no warning before its table of tracked keys is full"
                }
                _ => "its name and version stay unknown",
            };
            warn!(why, "redis does not answer {question}: {cost}");
            self.complained.insert(question, why);
        }
    }

    /// A changed reply makes a new table; the same one again costs nothing on the data path.
    fn take_commands(&mut self, reply: &Value) {
        let hash = hash_of(reply);
        if self.commands == Some(hash) {
            return;
        }
        self.commands = Some(hash);
        let rows = command::rows(reply);
        let has_hexpire = rows
            .iter()
            .any(|row| row.name.eq_ignore_ascii_case("hexpire"));
        self.shared
            .upstream
            .expires_fields
            .store(has_hexpire, Relaxed);
        let mut table = CommandTable::builtin();
        let new = table.merge_server(rows);
        self.shared.commands.store(Arc::new(table));
        if new > 0 {
            info!("redis has {new} commands that are not built in; their keys are known now");
        }
    }

    fn take_info(&self, server: &str, memory: &str) {
        let name = server_name(server);
        let policy = field(memory, "maxmemory_policy").unwrap_or_default();
        let limited = field(memory, "maxmemory").is_none_or(|bytes| bytes != "0");
        let by_use = policy.ends_with("-lru") || policy.ends_with("-lfu");
        self.shared
            .upstream
            .evicts_by_use
            .store(limited && by_use, Relaxed);
        let mut changed = false;
        self.shared.upstream.update(|facts| {
            changed = facts.server != name || facts.maxmemory_policy != policy;
            facts.server.clone_from(&name);
            policy.clone_into(&mut facts.maxmemory_policy);
        });
        if changed && !name.is_empty() {
            info!(
                server = name,
                maxmemory_policy = policy,
                "redis has said what it is"
            );
        }
    }
}

/// The number that `CONFIG GET` gives for the one name it was asked for.
fn config_value(reply: Value) -> Option<u64> {
    match reply {
        Value::Array(pair) => text(pair.into_iter().nth(1)).parse().ok(),
        _ => None,
    }
}

fn text(reply: Option<Value>) -> String {
    match reply {
        Some(Value::BulkString(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Some(Value::VerbatimString { text, .. } | Value::SimpleString(text)) => text,
        _ => String::new(),
    }
}

/// `redis 7.0.15` or `valkey 8.1.1`. Valkey gives a Redis version too, for old clients.
fn server_name(info: &str) -> String {
    let (name, version) = match (field(info, "server_name"), field(info, "valkey_version")) {
        (Some(name), Some(version)) => (name, Some(version)),
        _ => ("redis", field(info, "redis_version")),
    };
    version.map_or_else(String::new, |version| {
        // Shown in logs and `/state`: a server may call itself what it likes, but briefly.
        format!("{name} {version}")
            .chars()
            .filter(|c| !c.is_control())
            .take(60)
            .collect()
    })
}

fn field<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn hash_of(value: &Value) -> u64 {
    struct Into(DefaultHasher);
    impl fmt::Write for Into {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut hasher = Into(DefaultHasher::new());
    let _ = write!(hasher, "{value:?}");
    hasher.0.finish()
}

#[cfg(test)]
mod tests;
