//! Addresses of host names, with a memory: the node that is lost may be the one with the DNS. A name
//! whose lookup fails or takes long has the address that it had, for some minutes.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

/// A lookup of a name that is remembered takes no longer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Addresses are given to others after a while: older ones are forgotten.
const MEMORY: Duration = Duration::from_mins(5);
/// Most names that are remembered; a deployment has a handful, or the nodes of a cluster.
const MOST: usize = 1024;

static KNOWN: Mutex<BTreeMap<String, (Instant, Vec<SocketAddr>)>> = Mutex::new(BTreeMap::new());

/// Connects to a host by its name or address.
pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    TcpStream::connect(&addresses(host, port).await?[..]).await
}

/// The addresses of a host; looking them up in advance is what makes the memory useful.
pub(crate) async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let remembered = recall(host, port);
    let asked = lookup_host((host, port));
    let found = if remembered.is_none() {
        asked.await
    } else {
        let late = |_| Err(io::ErrorKind::TimedOut.into());
        timeout(PATIENCE, asked).await.unwrap_or_else(late)
    };
    match (found, remembered) {
        (Ok(found), _) => {
            let found: Vec<SocketAddr> = found.collect();
            remember(host, &found);
            Ok(found)
        }
        (Err(_), Some(remembered)) => Ok(remembered),
        (Err(error), None) => Err(error),
    }
}

fn recall(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let known = KNOWN.lock();
    let (when, addresses) = known.get(host)?;
    let with_port = |address: &SocketAddr| SocketAddr::new(address.ip(), port);
    (when.elapsed() < MEMORY).then(|| addresses.iter().map(with_port).collect())
}

fn remember(host: &str, addresses: &[SocketAddr]) {
    let mut known = KNOWN.lock();
    if known.len() >= MOST {
        known.retain(|_, (when, _)| when.elapsed() < MEMORY);
    }
    if known.len() < MOST && !addresses.is_empty() {
        known.insert(host.to_owned(), (Instant::now(), addresses.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_cannot_be_looked_up_has_the_address_that_it_had() {
        let name = "gone.invalid";
        assert!(addresses(name, 1).await.is_err());
        remember(name, &["10.0.0.7:9".parse().unwrap()]);
        let found = addresses(name, 6379).await.unwrap();
        assert_eq!(found, ["10.0.0.7:6379".parse().unwrap()]);
    }
}
