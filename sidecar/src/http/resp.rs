//! The way into the sidecar itself: one RESP connection that all requests share.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, ProtocolVersion, RedisConnectionInfo, Value,
    aio::MultiplexedConnection,
};
use serde_json::{Map, Number};
use tokio::{net::UnixStream, sync::Mutex};

use crate::state::Shared;

/// Deeper answers of `PANNIER.STATS` would be a mistake.
const MAX_DEPTH: usize = 8;

/// Why the sidecar could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No connection to an event loop.
    #[error("failed to open a connection to an event loop: {0}")]
    Io(io::Error),
    /// The loop did not answer the greeting.
    #[error("failed to log in to an event loop: {0}")]
    Greeting(redis::RedisError),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RespError {
    #[error(transparent)]
    Open(OpenError),
    /// An error reply.
    #[error("{code} {message}")]
    Server { code: String, message: String },
    /// The connection broke, or the answer has another form.
    #[error("{0}")]
    Unexpected(String),
}

/// What `PANNIER.READ` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) value: Option<Bytes>,
    /// `local`, `redis`, `memory` or `none`.
    pub(super) tier: String,
    /// `hit` or `miss`.
    pub(super) result: String,
    pub(super) rule: Option<String>,
    /// As `PTTL` says it: -1 without TTL, -2 without key. `None`: nobody asked.
    pub(super) ttl_ms: Option<i64>,
}

/// Opened when first needed, and again after it broke.
pub(super) struct Client {
    open: Box<dyn Fn() -> io::Result<UnixStream> + Send + Sync>,
    shared: Arc<Shared>,
    connection: Mutex<Option<MultiplexedConnection>>,
}

// === impl Client ===

impl Client {
    pub(super) fn new(
        open: impl Fn() -> io::Result<UnixStream> + Send + Sync + 'static,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            open: Box::new(open),
            shared,
            connection: Mutex::new(None),
        }
    }

    pub(super) async fn read(&self, key: &[u8]) -> Result<Read, RespError> {
        let reply = self.ask(redis::cmd("PANNIER.READ").arg(key)).await?;
        let Value::Array(parts) = reply else {
            return Err(unexpected("PANNIER.READ", &reply));
        };
        match <[Value; 5]>::try_from(parts) {
            Ok(
                [
                    value,
                    tier,
                    result,
                    rule,
                    ttl @ (Value::Int(_) | Value::Nil),
                ],
            ) => Ok(Read {
                value: match value {
                    Value::BulkString(bytes) => Some(bytes.into()),
                    _ => None,
                },
                tier: text(tier).unwrap_or_default(),
                result: text(result).unwrap_or_default(),
                rule: text(rule),
                ttl_ms: match ttl {
                    Value::Int(ttl) => Some(ttl),
                    _ => None,
                },
            }),
            Ok(parts) => Err(unexpected("PANNIER.READ", &Value::Array(parts.into()))),
            Err(parts) => Err(unexpected("PANNIER.READ", &Value::Array(parts))),
        }
    }

    pub(super) async fn set(
        &self,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), RespError> {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value);
        if let Some(ttl) = ttl {
            command
                .arg("PX")
                .arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        }
        match self.ask(&command).await? {
            Value::Okay => Ok(()),
            other => Err(unexpected("SET", &other)),
        }
    }

    /// Whether there was one.
    pub(super) async fn delete(&self, key: &[u8]) -> Result<bool, RespError> {
        match self.ask(redis::cmd("DEL").arg(key)).await? {
            Value::Int(count) => Ok(count > 0),
            other => Err(unexpected("DEL", &other)),
        }
    }

    /// The figures, with names as JSON has them.
    pub(super) async fn stats(&self) -> Result<serde_json::Value, RespError> {
        let reply = self.ask(&redis::cmd("PANNIER.STATS")).await?;
        Ok(to_json(reply, 0))
    }

    /// The sidecars of the tier, as they describe themselves.
    pub(super) async fn sidecars(&self) -> Result<serde_json::Value, RespError> {
        let reply = self.ask(&redis::cmd("PANNIER.SIDECARS")).await?;
        Ok(to_json(reply, 0))
    }

    async fn ask(&self, command: &Cmd) -> Result<Value, RespError> {
        let mut connection = self.connection().await?;
        match connection.send_packed_command(command).await {
            Ok(Value::ServerError(error)) => Err(server_error(error.code(), error.details())),
            Ok(value) => Ok(value),
            Err(error) => {
                if let (ErrorKind::Server(_) | ErrorKind::Extension, Some(code)) =
                    (error.kind(), error.code())
                {
                    return Err(server_error(code, error.detail()));
                }
                // The next request opens another one; this one may have been executed.
                *self.connection.lock().await = None;
                Err(RespError::Unexpected(format!(
                    "the connection to an event loop broke: {error}"
                )))
            }
        }
    }

    async fn connection(&self) -> Result<MultiplexedConnection, RespError> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = &*held {
            return Ok(connection.clone());
        }
        let stream = (self.open)().map_err(|error| RespError::Open(OpenError::Io(error)))?;
        // RESP3, so that maps arrive as maps.
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("pannier-http", env!("CARGO_PKG_VERSION"));
        if let Some(password) = &self.shared.active().credentials.local_password {
            login = login.set_password(password.expose());
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (connection, driver) = MultiplexedConnection::new_with_config(&login, stream, config)
            .await
            .map_err(|error| RespError::Open(OpenError::Greeting(error)))?;
        tokio::spawn(driver);
        *held = Some(connection.clone());
        Ok(connection)
    }
}

fn server_error(code: &str, detail: Option<&str>) -> RespError {
    RespError::Server {
        code: code.to_owned(),
        message: detail.unwrap_or_default().to_owned(),
    }
}

/// Shows the form of an answer, never its content.
fn unexpected(command: &str, reply: &Value) -> RespError {
    let form = match reply {
        Value::Nil => "null",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) | Value::VerbatimString { .. } => "a string",
        Value::Array(_) => "an array of another form",
        Value::Map(_) => "a map",
        _ => "something else",
    };
    RespError::Unexpected(format!("{command} answered {form}"))
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        Value::Okay => Some("OK".to_owned()),
        _ => None,
    }
}

fn to_json(value: Value, depth: usize) -> serde_json::Value {
    use serde_json::Value as Json;
    if depth > MAX_DEPTH {
        return Json::Null;
    }
    match value {
        Value::Int(number) => Json::Number(number.into()),
        Value::Double(number) => Number::from_f64(number).map_or(Json::Null, Json::Number),
        Value::Boolean(truth) => Json::Bool(truth),
        Value::Array(items) | Value::Set(items) => Json::Array(
            items
                .into_iter()
                .map(|item| to_json(item, depth + 1))
                .collect(),
        ),
        Value::Map(pairs) => {
            let mut map = Map::new();
            for (name, value) in pairs {
                map.insert(
                    camel_case(&text(name).unwrap_or_default()),
                    to_json(value, depth + 1),
                );
            }
            Json::Object(map)
        }
        other => text(other).map_or(Json::Null, Json::String),
    }
}

/// `hit_rate` in Redis' style is `hitRate` in JSON's. Names of rules have no underscore.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}
