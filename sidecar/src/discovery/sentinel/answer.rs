//! What Sentinels and servers answer, read and checked.

use std::fmt;

use super::super::{
    PATIENCE,
    ask::{self, Conn, refusal},
};
use crate::{resp::reply::Value, upstream::topology::Address};

/// What a Sentinel knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The primary it names, if it knows one.
    pub(super) primary: Option<Address>,
    /// Its configuration epoch; grows with each fail-over.
    pub(super) epoch: Option<u64>,
    /// The other Sentinels.
    pub(super) others: Vec<Address>,
}

/// What a server says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It takes writes.
    Primary,
    /// It follows another server.
    Replica,
    /// Something else, such as a Sentinel.
    Other(String),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("a primary"),
            Self::Replica => f.write_str("a replica"),
            Self::Other(role) => write!(f, "a {role:?} and no primary"),
        }
    }
}

/// Asks a Sentinel for the primary called `name`.
pub(super) async fn ask(conn: &mut Conn, name: &str) -> Result<Answer, String> {
    let named = question(conn, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name]).await?;
    let about = question(conn, &["SENTINEL", "MASTER", name]).await?;
    let others = question(conn, &["SENTINEL", "SENTINELS", name]).await?;
    read(&named, &about, &others)
}

/// Where the replicas of the primary called `name` are.
pub(super) async fn replicas(conn: &mut Conn, name: &str) -> Result<Vec<Address>, String> {
    let frame = question(conn, &["SENTINEL", "REPLICAS", name]).await?;
    let value = Value::read(&frame).map_err(|error| error.to_string())?;
    let replicas = value.list().unwrap_or_default();
    Ok(replicas.iter().filter_map(listed).collect())
}

async fn question(conn: &mut Conn, words: &[&str]) -> Result<Vec<u8>, String> {
    let answer = conn.ask(words, PATIENCE).await;
    answer.map_err(|error| format!("{} {}: {error}", words[0], words[1]))
}

/// Reads the three answers of a Sentinel.
pub(super) fn read(named: &[u8], about: &[u8], others: &[u8]) -> Result<Answer, String> {
    let value = |frame| Value::read(frame).map_err(|error| error.to_string());
    let (named, about, others) = (value(named)?, value(about)?, value(others)?);
    if let Some(why) = refusal(&named) {
        return Err(why);
    }
    let primary = match &named {
        Value::Null => None,
        Value::List(parts) => match parts.as_slice() {
            [at, port] => Some(address(at, port).ok_or("it names what is no address")?),
            _ => return Err("it names what is no address".to_owned()),
        },
        _ => return Err("it names what is no address".to_owned()),
    };
    // Who may not read these still gets the address.
    let epoch = about.field(b"config-epoch").and_then(number);
    let is_promoting = epoch.is_some() && primary != listed(&about);
    let others = others.list().unwrap_or_default();
    Ok(Answer {
        primary,
        // The leader of a fail-over names the new primary before it writes down the new epoch.
        epoch: epoch.map(|epoch| epoch + u64::from(is_promoting)),
        others: others.iter().filter_map(listed).collect(),
    })
}

/// The address in a map about a server.
fn listed(map: &Value<'_>) -> Option<Address> {
    address(map.field(b"ip")?, map.field(b"port")?)
}

fn address(host: &Value<'_>, port: &Value<'_>) -> Option<Address> {
    Some(Address::new(ask::host(host.text()?)?, ask::port(port)?))
}

fn number(value: &Value<'_>) -> Option<u64> {
    match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

/// Asks a server what it is, in words that its ACL may allow: `HELLO`, `ROLE`, `INFO`.
pub(super) async fn role(conn: &mut Conn) -> Result<Role, String> {
    let mut refused = String::new();
    for words in [&["HELLO"][..], &["ROLE"], &["INFO", "replication"]] {
        let frame = conn.ask(words, PATIENCE).await;
        let frame = frame.map_err(|error| format!("{}: {error}", words[0]))?;
        let value = Value::read(&frame).map_err(|error| error.to_string())?;
        match role_in(&value) {
            Some(role) => return Ok(role),
            None => refused = refusal(&value).unwrap_or_else(|| "it does not say its role".into()),
        }
    }
    Err(refused)
}

fn role_in(value: &Value<'_>) -> Option<Role> {
    let role = match value {
        Value::Text(info) => info
            .split(|byte| *byte == b'\n')
            .find_map(|line| line.trim_ascii().strip_prefix(b"role:"))?,
        Value::List(items) if value.field(b"role").is_none() => items.first()?.text()?,
        _ => value.field(b"role")?.text()?,
    };
    Some(match role {
        b"master" | b"primary" => Role::Primary,
        b"slave" | b"replica" => Role::Replica,
        other => Role::Other(ask::shown(other)),
    })
}

#[cfg(test)]
mod tests;
