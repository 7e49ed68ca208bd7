//! Who this instance is: its place among the servers or Sentinels that the configuration lists.
//!
//! The pod's name and address come from the environment (downward API); nothing is guessed from
//! the host's name.

use std::net::{IpAddr, Ipv4Addr};

use super::config::{InstanceConfig, Kind};

/// Environment variable with the pod's name.
pub const POD_NAME: &str = "PANNIER_POD_NAME";
/// Environment variable with the pod's address.
pub const POD_IP: &str = "PANNIER_POD_IP";

/// This instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the pod.
    pub pod: String,
    /// The name or address by which all others know it.
    pub address: String,
    /// Its place in the list.
    pub ordinal: usize,
    /// The one address to listen on; none: on all.
    pub only: Option<IpAddr>,
}

/// Why the instance does not know itself.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdentityError {
    /// A variable is missing.
    #[error("{0} is not set; the pod takes it from the downward API")]
    Unset(&'static str),
    /// The address is none.
    #[error("{POD_IP} is {0:?}, which is not an IP address")]
    NotAnAddress(String),
    /// The list does not name this pod.
    #[error("{field} does not name the pod {pod}: {list:?}; the ConfigMap is older than the pod")]
    NotListed {
        /// Where it was looked for.
        field: &'static str,
        /// The pod.
        pod: String,
        /// What is there.
        list: Vec<String>,
    },
}

impl Identity {
    /// Finds the pod in the configuration; by its name, else by its address.
    pub fn find(
        config: &InstanceConfig,
        pod: Option<String>,
        ip: Option<String>,
    ) -> Result<Self, IdentityError> {
        let pod = pod.ok_or(IdentityError::Unset(POD_NAME))?;
        let ip = ip.ok_or(IdentityError::Unset(POD_IP))?;
        let parsed: IpAddr = ip
            .parse()
            .map_err(|_| IdentityError::NotAnAddress(ip.clone()))?;
        let (field, list) = match config.kind {
            Kind::Server => ("servers", &config.servers),
            Kind::Sentinel => ("sentinels", &config.sentinels),
        };
        let named = |entry: &&String| entry.split('.').next() == Some(&pod) || **entry == ip;
        let ordinal = list.iter().position(|entry| named(&entry));
        let ordinal = ordinal.ok_or_else(|| IdentityError::NotListed {
            field,
            pod: pod.clone(),
            list: list.clone(),
        })?;
        Ok(Self {
            pod,
            address: list[ordinal].clone(),
            ordinal,
            // On one machine several instances share a port, each with a loopback address.
            only: parsed.is_loopback().then_some(parsed),
        })
    }

    /// Where its own server is reached from within the container.
    pub fn local(&self) -> IpAddr {
        self.only.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::config::tests::server;

    fn find(pod: &str, ip: &str) -> Result<Identity, IdentityError> {
        let mut config = server();
        config.servers = [
            "t-shard-0-0.t-shard-0.ns.svc",
            "t-shard-0-10.t-shard-0.ns.svc",
        ]
        .map(str::to_owned)
        .to_vec();
        Identity::find(&config, Some(pod.to_owned()), Some(ip.to_owned()))
    }

    #[test]
    fn a_pod_finds_itself_by_its_whole_name() {
        let found = find("t-shard-0-10", "10.0.0.7").unwrap();
        assert_eq!(found.ordinal, 1);
        assert_eq!(found.address, "t-shard-0-10.t-shard-0.ns.svc");
        assert_eq!(found.only, None);
        assert_eq!(found.local().to_string(), "127.0.0.1");
        assert!(find("t-shard-0-1", "10.0.0.7").is_err());
    }

    #[test]
    fn on_loopback_it_is_found_by_address_and_listens_there_only() {
        let mut config = server();
        config.servers = vec!["127.0.0.2".to_owned(), "127.0.0.3".to_owned()];
        let ip = "127.0.0.3".to_owned();
        let only = ip.parse().ok();
        let found = Identity::find(&config, Some("any".to_owned()), Some(ip)).unwrap();
        assert_eq!((found.ordinal, found.only), (1, only));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Identity::find(&server(), None, None).unwrap_err();
        assert!(error.to_string().contains("PANNIER_POD_NAME"), "{error}");
        let error = find("other", "10.0.0.7").unwrap_err().to_string();
        assert!(
            error.contains("servers does not name the pod other"),
            "{error}"
        );
    }
}
