//! Connections to servers and Sentinels as the user `operator`: bounded in time, logged in with
//! whichever password slot the other side accepts, and independent of a DNS that went away.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, Value, aio::MultiplexedConnection,
};
use tokio::{net::lookup_host, time::timeout};

use super::passwords::{Secret, User};
use super::shared::Shared;

/// Longest time for a name.
const RESOLVE: Duration = Duration::from_millis(1500);
/// The same for a name whose address is known: a DNS that is away must not hold everything up.
const RESOLVE_AGAIN: Duration = Duration::from_millis(300);
/// Longest time for a connection.
const CONNECT: Duration = Duration::from_millis(700);
/// Longest time for an answer.
pub const ANSWER: Duration = Duration::from_millis(700);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The name has no address and never had one.
    #[error("{0} has no address (DNS)")]
    Unresolved(String),
    /// There is no password to log in with.
    #[error("there is no password for the user operator in the tier's Secret")]
    NoPassword,
    /// No connection, or no answer.
    #[error("{0}: {1}")]
    Redis(String, RedisError),
}

/// Addresses that names had when they were last looked up. A name whose lookup fails keeps the
/// last one: the node that is gone may be the one with the DNS, and a wrong guess does no harm,
/// because whoever answers must accept our password.
#[derive(Debug, Default)]
pub struct Addresses(Mutex<HashMap<String, SocketAddr>>);

/// A server or Sentinel that is asked again and again over one connection.
pub struct Link {
    shared: Arc<Shared>,
    host: String,
    port: u16,
    connection: Option<MultiplexedConnection>,
}

impl Addresses {
    /// The address of a name.
    pub async fn of(&self, host: &str, port: u16) -> Option<SocketAddr> {
        let last = self.0.lock().get(host).copied();
        let patience = if last.is_some() {
            RESOLVE_AGAIN
        } else {
            RESOLVE
        };
        let asked = absolute(host);
        if let Ok(Ok(found)) = timeout(patience, lookup_host((asked.as_str(), port))).await {
            let found: Vec<SocketAddr> = found.collect();
            let first = found.iter().find(|one| one.is_ipv4()).or(found.first());
            if let Some(first) = first {
                self.0.lock().insert(host.to_owned(), *first);
                return Some(*first);
            }
        }
        last.map(|address| SocketAddr::new(address.ip(), port))
    }

    /// Lines of a file of names: the addresses of those `names` that have been looked up.
    pub fn lines(&self, names: &[String]) -> String {
        let known = self.0.lock();
        let line = |name: &String| Some(format!("{}\t{name}\n", known.get(name)?.ip()));
        names.iter().filter_map(line).collect()
    }

    /// Takes the addresses of `names` from a file of names.
    pub fn remember(&self, text: &str, names: &[String]) {
        let mut known = self.0.lock();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if let (Some(Ok(ip)), Some(name)) = (words.next().map(str::parse), words.next())
                && names.iter().any(|one| one == name)
            {
                known.insert(name.to_owned(), SocketAddr::new(ip, 0));
            }
        }
    }

    /// The name among `names` that has that address, as far as was looked up.
    pub fn name_of<'a>(&self, names: &'a [String], address: &str) -> Option<&'a String> {
        let known = self.0.lock();
        names.iter().find(|name| {
            let ip = known.get(*name).map(|found| found.ip().to_string());
            ip.as_deref() == Some(address)
        })
    }
}

/// A name with its final dot is not one of the file of names, which this agent itself writes: the DNS is
/// asked.
fn absolute(host: &str) -> String {
    if host.parse::<IpAddr>().is_ok() || !host.contains('.') {
        host.to_owned()
    } else {
        format!("{host}.")
    }
}

/// Whether the other side answered, but not to that password.
fn is_login(error: &RedisError) -> bool {
    let code = error.code().unwrap_or_default();
    error.kind() == ErrorKind::AuthenticationFailed || code == "WRONGPASS" || code == "NOAUTH"
}

/// Connects to an address with a user and password.
pub async fn connect(
    address: SocketAddr,
    user: User,
    secret: &Secret,
    answer: Duration,
) -> Result<MultiplexedConnection, RedisError> {
    let login = RedisConnectionInfo::default()
        .set_username(user.name())
        .set_password(secret.expose())
        .set_skip_set_lib_name();
    let info = ConnectionAddr::Tcp(address.ip().to_string(), address.port())
        .into_connection_info()?
        .set_redis_settings(login);
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(answer));
    Client::open(info)?
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// Whether the server at `address` lets `user` in with `secret`; none if it cannot be asked.
pub async fn accepts(address: SocketAddr, user: User, secret: &Secret) -> Option<bool> {
    match connect(address, user, secret, ANSWER).await {
        Ok(_) => Some(true),
        Err(error) if is_login(&error) => Some(false),
        Err(_) => None,
    }
}

impl Link {
    /// To a server or Sentinel; nothing is connected yet.
    pub fn new(shared: &Arc<Shared>, host: &str, port: u16) -> Self {
        Self {
            shared: Arc::clone(shared),
            host: host.to_owned(),
            port,
            connection: None,
        }
    }

    /// To the instance's own server.
    pub fn own(shared: &Arc<Shared>) -> Self {
        let host = shared.identity.local().to_string();
        Self::new(shared, &host, shared.config.port)
    }

    /// Whom it leads to.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Asks; connects first if needed. After a failure the next question connects anew.
    pub async fn ask(&mut self, command: &Cmd) -> Result<Value, LinkError> {
        let known = self.connection.is_some();
        match self.try_ask(command).await {
            // The other side may have closed an idle connection: that is not its answer.
            Err(LinkError::Redis(_, error)) if known && error.is_connection_dropped() => {
                self.try_ask(command).await
            }
            other => other,
        }
    }

    async fn try_ask(&mut self, command: &Cmd) -> Result<Value, LinkError> {
        if self.connection.is_none() {
            self.connection = Some(self.login().await?);
        }
        let Some(connection) = &mut self.connection else {
            return Err(LinkError::NoPassword);
        };
        let answer = connection.send_packed_command(command).await;
        let answer = answer.and_then(|value| value.extract_error());
        answer.map_err(|error| {
            // What the server refuses is an answer; the connection is still good.
            if error.code().is_none() {
                self.connection = None;
            }
            LinkError::Redis(self.host.clone(), error)
        })
    }

    async fn login(&self) -> Result<MultiplexedConnection, LinkError> {
        let address = self.shared.addresses.of(&self.host, self.port).await;
        let address = address.ok_or_else(|| LinkError::Unresolved(self.host.clone()))?;
        let mut refused = LinkError::NoPassword;
        for secret in self.shared.logins() {
            match connect(address, User::Operator, &secret, ANSWER).await {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    let other_slot = is_login(&error);
                    refused = LinkError::Redis(self.host.clone(), error);
                    if !other_slot {
                        break;
                    }
                }
            }
        }
        Err(refused)
    }
}

/// A command of words.
pub fn command<T: AsRef<str>>(words: &[T]) -> Cmd {
    let mut command = Cmd::new();
    for word in words {
        command.arg(word.as_ref());
    }
    command
}

/// A reply that is a string.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Okay => Some("OK".to_owned()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A reply that is a flat list of names and values.
pub fn pairs(value: &Value) -> HashMap<String, String> {
    let Value::Array(items) = value else {
        return HashMap::new();
    };
    let pairs = items.chunks_exact(2);
    pairs
        .filter_map(|pair| Some((text(&pair[0])?, text(&pair[1])?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_carried_over_by_the_file_that_servers_read() {
        let names = ["a.x".to_owned(), "b.x".to_owned()];
        let text = "127.0.0.1\tlocalhost\n10.0.0.1\ta.x\n10.0.0.9\tsomebody.else\nbroken\n";
        let addresses = Addresses::default();
        addresses.remember(text, &names);
        assert_eq!(addresses.lines(&names), "10.0.0.1\ta.x\n");
        let known = names.to_vec();
        assert_eq!(addresses.name_of(&known, "10.0.0.1"), Some(&names[0]));
        assert_eq!(addresses.name_of(&known, "10.0.0.9"), None);
    }

    #[test]
    fn the_dns_is_asked_for_names_and_not_the_file() {
        assert_eq!(absolute("a.b.svc.cluster.local"), "a.b.svc.cluster.local.");
        assert_eq!(absolute("127.0.0.1"), "127.0.0.1");
        assert_eq!(absolute("localhost"), "localhost");
    }
}
