//! Opens a connection to Redis and shakes hands: TCP, TLS, `HELLO` or `AUTH`, `SELECT`, tracking.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    announce::{self, Prefixes},
    names,
    stream::Stream,
    tls::TlsSettings,
    topology::Address,
};
use crate::{
    config::Credentials,
    planted::{self, Bug},
    resp::{
        Proto,
        reply::{ReplyError, Scanner, Value},
        write,
    },
};

/// Most bytes that a handshake may answer with.
const MAX_HANDSHAKE: usize = 64 * 1024;

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Encryption, if declared.
    pub tls: Option<TlsSettings>,
    /// User and password.
    pub credentials: Credentials,
    /// For TCP, TLS and handshake together.
    pub timeout: Duration,
    /// Shown by `CLIENT LIST` of the server.
    pub name: String,
    /// What is announced on tracked links, if not changes of keys that were read.
    pub broadcast: Option<Prefixes>,
    /// A server that says that it is a replica is not the one that was meant.
    pub refuses_replicas: bool,
}

/// What kind of connection is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Protocol version.
    pub proto: Proto,
    /// Logical database.
    pub db: u16,
    /// Ask for invalidations.
    pub tracking: bool,
    /// Ask a replica to answer reads itself instead of naming its primary.
    pub readonly: bool,
}

impl Handshake {
    /// A connection that only carries commands.
    pub fn plain(proto: Proto, db: u16) -> Self {
        Self {
            proto,
            db,
            tracking: false,
            readonly: false,
        }
    }
}

/// A connection that is ready for commands.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: Stream,
    /// Bytes that came after the handshake's replies.
    pub rest: Vec<u8>,
    /// Why invalidations will not come, where they were asked for.
    pub tracking_refused: Option<String>,
    /// What was asked for.
    pub broadcast: Option<Prefixes>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing listens there, or the name is unknown.
    #[error("failed to connect to {address}: {source}")]
    Tcp {
        /// `host:port`
        address: String,
        /// Why.
        source: io::Error,
    },
    /// No certificate that can be trusted, or no TLS at all.
    #[error("failed to encrypt the connection to {address}: {source}")]
    Tls {
        /// `host:port`
        address: String,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("{address} did not complete the handshake within {timeout:?}")]
    Timeout {
        /// `host:port`
        address: String,
        /// The limit.
        timeout: Duration,
    },
    /// The server closed the connection or it broke.
    #[error("the connection broke during the handshake: {0}")]
    Broken(io::Error),
    /// It follows another server, where a primary was expected.
    #[error("{address} is a replica and no longer the primary")]
    Replica {
        /// `host:port`
        address: String,
    },
    /// Not a Redis.
    #[error("{0}; is it a Redis server?")]
    NotRedis(ReplyError),
    /// The server said no.
    #[error("{command} was refused: {answer}")]
    Refused {
        /// `AUTH`, `SELECT` …
        command: &'static str,
        /// The server's error.
        answer: String,
    },
}

impl Connected {
    /// Whether the server answers a read of `key`, whatever it answers.
    pub async fn probe(&mut self, key: &[u8], limit: Duration) -> Result<(), String> {
        let mut request = Vec::new();
        write::command(&mut request, &[b"EXISTS", key]);
        let answer = async {
            let broken = ConnectError::Broken;
            self.stream.write_all(&request).await.map_err(broken)?;
            self.stream.flush().await.map_err(ConnectError::Broken)?;
            let len = read_reply(&mut self.stream, &mut self.rest, 0).await?;
            self.rest.drain(..len);
            Ok::<(), ConnectError>(())
        };
        match timeout(limit, answer).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no reply within {limit:?}")),
        }
    }
}

impl Endpoint {
    /// `host:port`
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The same for another server.
    #[must_use]
    pub fn at(&self, address: &Address) -> Self {
        Self {
            host: address.host.to_string(),
            port: address.port,
            tls: self.tls.as_ref().map(|tls| tls.at(&address.host)),
            ..self.clone()
        }
    }

    /// Connects and shakes hands.
    pub async fn connect(&self, wanted: Handshake) -> Result<Connected, ConnectError> {
        match timeout(self.timeout, self.attempt(wanted)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Timeout {
                address: self.address(),
                timeout: self.timeout,
            }),
        }
    }

    async fn attempt(&self, wanted: Handshake) -> Result<Connected, ConnectError> {
        let port = planted::port(wanted.tracking, self.port);
        let tcp = names::connect(&self.host, port)
            .await
            .map_err(|source| ConnectError::Tcp {
                address: self.address(),
                source,
            })?;
        tcp.set_nodelay(true).map_err(ConnectError::Broken)?;
        keep_alive(&tcp).map_err(ConnectError::Broken)?;
        let stream = match &self.tls {
            None => Stream::Tcp(tcp),
            Some(tls) => TlsConnector::from(tls.config.clone())
                .connect(tls.name.clone(), tcp)
                .await
                .map(|stream| Stream::Tls(Box::new(stream)))
                .map_err(|source| ConnectError::Tls {
                    address: self.address(),
                    source,
                })?,
        };
        self.shake_hands(stream, wanted).await
    }

    async fn shake_hands(
        &self,
        mut stream: Stream,
        wanted: Handshake,
    ) -> Result<Connected, ConnectError> {
        let steps = self.steps(wanted);
        let mut request = Vec::new();
        for step in &steps {
            let words: Vec<&[u8]> = step.words.iter().map(|word| word.as_bytes()).collect();
            write::command(&mut request, &words);
        }
        stream
            .write_all(&request)
            .await
            .map_err(ConnectError::Broken)?;
        stream.flush().await.map_err(ConnectError::Broken)?;

        let mut tracking_refused = None;
        let mut buffer = Vec::new();
        let mut at = 0;
        for step in &steps {
            let len = read_reply(&mut stream, &mut buffer, at).await?;
            let reply = Value::read(&buffer[at..at + len]).map_err(ConnectError::NotRedis)?;
            at += len;
            match (&reply, step.on_error) {
                // Without a password nothing before this asks for one.
                (Value::Error(text), OnError::Ignore) if text.starts_with(b"NOAUTH") => {
                    return Err(ConnectError::Refused {
                        command: "AUTH",
                        answer: self.without_secrets(text),
                    });
                }
                (Value::Error(text), _) if text.starts_with(b"ERR max number of clients") => {
                    return Err(ConnectError::Refused {
                        command: "the connection",
                        answer: self.without_secrets(text),
                    });
                }
                // RESP2 only: everything passes, but no invalidation can come.
                (Value::Error(text), OnError::Fail)
                    if step.command == "HELLO"
                        && wanted.tracking
                        && (text.starts_with(b"ERR unknown command")
                            || text.starts_with(b"NOPROTO")) =>
                {
                    tracking_refused = Some(format!("HELLO 3: {}", self.without_secrets(text)));
                }
                (Value::Error(_), OnError::Ignore) => {}
                // A refusal that passes: the next attempt may get what it asks for.
                (Value::Error(text), OnError::NoTracking) if passes(text) => {
                    return Err(ConnectError::Refused {
                        command: step.command,
                        answer: self.without_secrets(text),
                    });
                }
                (Value::Error(text), OnError::NoTracking) => {
                    tracking_refused =
                        Some(format!("{}: {}", step.command, self.without_secrets(text)));
                }
                (Value::Error(text), OnError::Fail) => {
                    let answer = self.without_secrets(text);
                    return Err(ConnectError::Refused {
                        command: step.command,
                        answer,
                    });
                }
                (reply, _)
                    if step.command == "HELLO"
                        && is_replica(reply)
                        && !planted::is(Bug::Replica) =>
                {
                    if self.refuses_replicas {
                        return Err(ConnectError::Replica {
                            address: self.address(),
                        });
                    }
                    tracking_refused = Some("the server is a replica".to_owned());
                }
                _ => {}
            }
        }
        buffer.drain(..at);
        Ok(Connected {
            stream,
            rest: buffer,
            tracking_refused,
            broadcast: self.broadcast.clone(),
        })
    }

    /// A server's error, which may repeat what was sent to it (P10).
    fn without_secrets(&self, error: &[u8]) -> String {
        let error = String::from_utf8_lossy(error);
        let text = error
            .split(", with args beginning with")
            .next()
            .unwrap_or_default();
        match &self.credentials.password {
            Some(password) if !password.expose().is_empty() => {
                text.replace(password.expose(), "***")
            }
            _ => text.to_owned(),
        }
    }

    fn steps(&self, wanted: Handshake) -> Vec<Step> {
        let mut steps = Vec::new();
        let user = self.credentials.username.as_deref();
        let password = self
            .credentials
            .password
            .as_ref()
            .map(|secret| secret.expose());
        match (wanted.proto, password) {
            (Proto::Resp3, None) => steps.push(Step::new("HELLO", &["HELLO", "3"])),
            (Proto::Resp3, Some(password)) => {
                let user = user.unwrap_or("default");
                steps.push(Step::new("HELLO", &["HELLO", "3", "AUTH", user, password]));
            }
            // `AUTH password` is what servers before ACLs understand.
            (Proto::Resp2, Some(password)) => match user {
                None => steps.push(Step::new("AUTH", &["AUTH", password])),
                Some(user) => steps.push(Step::new("AUTH", &["AUTH", user, password])),
            },
            (Proto::Resp2, None) => {}
        }
        if wanted.db != 0 {
            steps.push(Step::new("SELECT", &["SELECT", &wanted.db.to_string()]));
        }
        if self.refuses_replicas && wanted.proto == Proto::Resp2 {
            steps.push(Step {
                on_error: OnError::Ignore,
                ..Step::new("HELLO", &["HELLO", "2"])
            });
        }
        let name = Step::new("CLIENT SETNAME", &["CLIENT", "SETNAME", &self.name]);
        steps.push(Step {
            on_error: OnError::Ignore,
            ..name
        });
        if wanted.readonly {
            steps.push(Step::new("READONLY", &["READONLY"]));
        }
        if wanted.tracking {
            let words = announce::words(self.broadcast.as_ref());
            let on = Step::new("CLIENT TRACKING", &words);
            steps.push(Step {
                on_error: OnError::NoTracking,
                ..on
            });
        }
        steps
    }
}

/// A subscriber or a blocked client may wait for ever on a connection whose other end is gone
/// without a word; the kernel finds out in half a minute.
fn keep_alive(tcp: &TcpStream) -> io::Result<()> {
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    SockRef::from(tcp).set_tcp_keepalive(&probes)
}

/// One command of the handshake. Its words may hold a password: no `Debug`.
struct Step {
    command: &'static str,
    words: Vec<String>,
    on_error: OnError,
}

#[derive(Clone, Copy)]
enum OnError {
    Fail,
    Ignore,
    NoTracking,
}

impl Step {
    fn new(command: &'static str, words: &[&str]) -> Self {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Self {
            command,
            words,
            on_error: OnError::Fail,
        }
    }
}

async fn read_reply(
    stream: &mut Stream,
    buffer: &mut Vec<u8>,
    at: usize,
) -> Result<usize, ConnectError> {
    let mut scanner = Scanner::default();
    loop {
        if let Some(len) = scanner
            .step(&buffer[at..])
            .map_err(ConnectError::NotRedis)?
        {
            return Ok(len);
        }
        if buffer.len() > MAX_HANDSHAKE {
            return Err(ConnectError::NotRedis(ReplyError::LineTooLong));
        }
        if stream
            .read_buf(buffer)
            .await
            .map_err(ConnectError::Broken)?
            == 0
        {
            let closed = io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server");
            return Err(ConnectError::Broken(closed));
        }
    }
}

/// Whether the error speaks of a state that servers leave by themselves.
fn passes(error: &[u8]) -> bool {
    const STATES: [&[u8]; 6] = [
        b"LOADING",
        b"MASTERDOWN",
        b"CLUSTERDOWN",
        b"TRYAGAIN",
        b"BUSY",
        b"NOAUTH",
    ];
    STATES.iter().any(|state| error.starts_with(state))
}

fn is_replica(hello: &Value<'_>) -> bool {
    matches!(
        hello.field(b"role").and_then(Value::text),
        Some(b"replica" | b"slave")
    )
}
