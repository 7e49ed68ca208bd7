//! One connection to the other sidecars, from subscribing to its end.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, ProtocolVersion, PushInfo, PushKind,
    RedisConnectionInfo, RedisError, ServerError, ServerErrorKind, Value,
    aio::MultiplexedConnection,
};
use serde_json::{Map, Value as Json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Refused, Request, State,
    dial::dial,
    names::Names,
    record,
    waiting::{Done, Waiting},
};
use crate::{
    resp::{reply, write},
    state::Shared,
};

/// A sidecar that was not seen for so many beats is gone.
const BEATS: u64 = 3;
/// Most sidecars that are listed and waited for.
const LISTED: u64 = 1000;
/// Messages that wait to be handled; more are lost, and so not acknowledged.
const MESSAGES: usize = 1024;

/// A connection that is subscribed and announced.
pub(super) struct Session {
    shared: Arc<Shared>,
    names: Names,
    connection: MultiplexedConnection,
    messages: mpsc::Receiver<Message>,
    /// Drives the connection.
    driver: JoinSet<()>,
    waiting: Waiting,
    beat: Duration,
    /// Tells when the primary may be another one.
    topology: watch::Receiver<u64>,
}

/// Why there is no connection any longer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Ended {
    /// There was none, or it broke.
    #[error("{0}")]
    Broken(String),
    /// It is not that server's to answer, or not now: discovery looks again.
    #[error("{0}")]
    Moved(String),
    /// Redis answered with an error.
    #[error("{0}")]
    Refused(String),
}

struct Message {
    channel: Vec<u8>,
    payload: Vec<u8>,
}

/// Opens a connection, subscribes, and announces this sidecar, in this order: who is listed hears.
pub(super) async fn open(shared: &Arc<Shared>) -> Result<Session, Ended> {
    let active = shared.active();
    let timeout = active.config.resilience.command_timeout.0;
    let names = Names::of(&active);
    let (stream, topology) = dial(shared, &active, &names).await?;
    let (sender, messages) = mpsc::channel(MESSAGES);
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(timeout))
        .set_push_sender(move |push: PushInfo| match message(&push) {
            Some(message) => sender.try_send(message).map_err(drop),
            None => Ok(()),
        });
    // Logged in already; RESP3 brings messages and replies over one connection.
    let login = RedisConnectionInfo::default()
        .set_skip_set_lib_name()
        .set_protocol(ProtocolVersion::RESP3);
    let (connection, driver) = MultiplexedConnection::new_with_config(&login, stream, config)
        .await
        .map_err(|error| Ended::of(&error))?;
    let mut tasks = JoinSet::new();
    tasks.spawn(driver);
    let mut session = Session {
        shared: Arc::clone(shared),
        connection,
        messages,
        driver: tasks,
        waiting: Waiting::default(),
        beat: active.config.sidecar.heartbeat.0,
        names,
        topology,
    };
    let channels = [
        session.names.invalidate(),
        session.names.applied(session.id()),
    ];
    session
        .connection
        .subscribe(&channels[..])
        .await
        .map_err(|error| Ended::of(&error))?;
    session.announce().await?;
    Ok(session)
}

fn message(push: &PushInfo) -> Option<Message> {
    let (PushKind::Message, [Value::BulkString(channel), Value::BulkString(payload)]) =
        (&push.kind, push.data.as_slice())
    else {
        return None;
    };
    Some(Message {
        channel: channel.clone(),
        payload: payload.clone(),
    })
}

impl Ended {
    fn of(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(kind) if is_no_primary(kind) => Self::Moved(error.to_string()),
            ErrorKind::Server(_) | ErrorKind::Extension => Self::Refused(error.to_string()),
            _ => Self::Broken(error.to_string()),
        }
    }

    fn by(error: &ServerError) -> Self {
        match error.kind() {
            Some(kind) if is_no_primary(kind) => Self::Moved(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

/// Whether another server, or the same in a moment, will answer.
fn is_no_primary(kind: ServerErrorKind) -> bool {
    matches!(
        kind,
        ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::BusyLoading
    )
}

// === impl Session ===

impl Session {
    /// Serves until the connection ends; the answer is why.
    pub(super) async fn run(&mut self, inbox: &mut mpsc::Receiver<Request>) -> Ended {
        let mut next_beat = self.next_beat();
        loop {
            let deadline = self.waiting.next_deadline();
            let far = Instant::now() + Duration::from_hours(1);
            tokio::select! {
                _ = self.driver.join_next() => {
                    return Ended::Broken("the connection broke".to_owned());
                }
                _ = self.topology.changed() => {
                    return Ended::Broken("the servers have changed".to_owned());
                }
                Some(message) = self.messages.recv() => self.message(&message).await,
                Some(request) = inbox.recv() => self.request(request).await,
                () = sleep_until(next_beat) => {
                    next_beat = self.next_beat();
                    if let Err(why) = self.announce().await {
                        return why;
                    }
                }
                () = sleep_until(deadline.unwrap_or(far)) => {
                    self.waiting.expire(Instant::now());
                }
            }
        }
    }

    /// With jitter, so that the sidecars of a thousand pods do not beat in step.
    fn next_beat(&self) -> Instant {
        use std::hash::{BuildHasher as _, RandomState};
        let share = RandomState::new().hash_one(0_u8) % 200;
        Instant::now()
            + self
                .beat
                .mul_f64(f64::from(800 + u16::try_from(share).unwrap_or(0)) / 1000.0)
    }

    fn id(&self) -> &str {
        &self.shared.measured.id
    }

    // === announcing ===

    /// Writes this sidecar's record and place in the index, and sweeps those that are gone.
    async fn announce(&mut self) -> Result<(), Ended> {
        let live = self.try_announce().await?;
        self.shared.presence.set(State::Announced(live));
        Ok(())
    }

    async fn try_announce(&mut self) -> Result<usize, Ended> {
        let now = self.time().await?;
        let life = self.life();
        let record = record::of(&self.shared).to_string();
        let (index, own) = (self.names.index(), self.names.record(self.id()));
        let mut pipe = redis::pipe();
        pipe.cmd("SET").arg(own).arg(record).arg("PX").arg(life);
        pipe.cmd("ZADD").arg(&index).arg(now).arg(self.id());
        let gone = now.saturating_sub(life);
        pipe.cmd("ZREMRANGEBYSCORE")
            .arg(&index)
            .arg("-inf")
            .arg(gone);
        pipe.cmd("PEXPIRE").arg(&index).arg(life);
        pipe.cmd("ZCARD").arg(&index);
        match self.ask_all(&pipe, 5).await?.last() {
            Some(Value::Int(count)) => Ok(usize::try_from(*count).unwrap_or(0)),
            _ => Err(Ended::Refused(
                "ZCARD is not answered with a number".to_owned(),
            )),
        }
    }

    /// Milliseconds by the clock of Redis, which all sidecars share.
    async fn time(&mut self) -> Result<u64, Ended> {
        let reply = self.ask(&redis::cmd("TIME")).await?;
        let (seconds, micros): (u64, u64) =
            redis::from_redis_value(reply).map_err(|error| Ended::Refused(error.to_string()))?;
        Ok(seconds * 1000 + micros / 1000)
    }

    fn life(&self) -> u64 {
        u64::try_from(self.beat.as_millis()).unwrap_or(u64::MAX / BEATS) * BEATS
    }

    /// The ids of those who are there.
    async fn live(&mut self) -> Result<Vec<String>, Ended> {
        let since = self.time().await?.saturating_sub(self.life());
        let mut command = redis::cmd("ZREVRANGEBYSCORE");
        command.arg(self.names.index()).arg("+inf").arg(since);
        command.arg("LIMIT").arg(0).arg(LISTED);
        let reply = self.ask(&command).await?;
        redis::from_redis_value(reply).map_err(|error| Ended::Refused(error.to_string()))
    }

    async fn records(&mut self) -> Result<Vec<Map<String, Json>>, Ended> {
        let ids = self.live().await?;
        let mut pipe = redis::pipe();
        for id in &ids {
            pipe.cmd("GET").arg(self.names.record(id));
        }
        let replies = self.ask_all(&pipe, ids.len()).await?;
        let read = |reply: &Value| match reply {
            Value::BulkString(bytes) => record::read(bytes),
            _ => None,
        };
        Ok(replies.iter().filter_map(read).collect())
    }

    // === requests of apps ===

    async fn request(&mut self, request: Request) {
        match request {
            Request::Sidecars(done) => {
                let records = self.records().await;
                let _ = done.send(records.map_err(|why| Refused::alone(&why)));
            }
            Request::Invalidate { keys, done } => {
                self.invalidate(&keys, done).await;
            }
        }
    }

    async fn invalidate(&mut self, keys: &[Box<[u8]>], done: Done) {
        let live: BTreeSet<String> = match self.live().await {
            Ok(live) => live.into_iter().collect(),
            Err(why) => {
                let _ = done.send(Err(Refused::alone(&why)));
                return;
            }
        };
        let staleness = self.shared.active().config.local.max_staleness.0;
        let own = self.id().to_owned();
        let later = Instant::now() + staleness + Duration::from_hours(1);
        let Some(number) = self.waiting.begin(&own, live, later, done) else {
            return;
        };
        let digits = number.to_string();
        let mut words: Vec<&[u8]> = vec![own.as_bytes(), digits.as_bytes()];
        words.extend(keys.iter().map(|key| &**key));
        let mut payload = Vec::new();
        write::command(&mut payload, &words);
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.names.invalidate()).arg(payload);
        match self.ask(&publish).await {
            Ok(_) => self.waiting.sent(number, Instant::now() + staleness),
            Err(why) => self.waiting.fail(number, Refused::alone(&why)),
        }
    }

    // === messages of other sidecars ===

    async fn message(&mut self, message: &Message) {
        let Ok(reply::Value::List(words)) = reply::Value::read(&message.payload) else {
            return;
        };
        let words: Option<Vec<&[u8]>> = words.iter().map(reply::Value::text).collect();
        let words = words.unwrap_or_default();
        let [who, number, keys @ ..] = words.as_slice() else {
            return;
        };
        let (Ok(who), Ok(number)) = (std::str::from_utf8(who), std::str::from_utf8(number)) else {
            return;
        };
        if message.channel == self.names.invalidate() {
            if who == self.id() {
                return;
            }
            for key in keys {
                self.shared.tier.invalidate(key);
            }
            let mut payload = Vec::new();
            write::command(&mut payload, &[self.id().as_bytes(), number.as_bytes()]);
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(self.names.applied(who)).arg(payload);
            // Refused or lost, it is not counted there, which is the safe side.
            if let Err(why) = self.ask(&publish).await {
                tracing::debug!(%why, "an applied invalidation was not acknowledged");
            }
        } else if let Ok(number) = number.parse() {
            self.waiting.applied(number, who);
        }
    }

    // === asking ===

    async fn ask(&mut self, command: &Cmd) -> Result<Value, Ended> {
        match self.connection.send_packed_command(command).await {
            Ok(Value::ServerError(error)) => Err(Ended::by(&error)),
            Ok(value) => Ok(value),
            Err(error) => Err(Ended::of(&error)),
        }
    }

    async fn ask_all(&mut self, pipe: &Pipeline, count: usize) -> Result<Vec<Value>, Ended> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let replies = self
            .connection
            .send_packed_commands(pipe, 0, count)
            .await
            .map_err(|error| Ended::of(&error))?;
        match replies.iter().find_map(|reply| match reply {
            Value::ServerError(error) => Some(Ended::by(error)),
            _ => None,
        }) {
            Some(why) => Err(why),
            None => Ok(replies),
        }
    }
}
