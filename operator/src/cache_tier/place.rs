//! Where the Redis behind a tier is visited, and as whom. Pure.

use policy::{config::Upstream, names};

use super::{
    observe::Observed,
    passwords::{Passwords, User},
    validate::{Behind, ValidatedTier},
};
use crate::visits::Place;

/// The place; none where there is no Redis, no primary is known, or it wants TLS, which the
/// operator does not speak to a Redis.
pub fn place(
    tier: &ValidatedTier,
    observed: &Observed,
    passwords: Option<&Passwords>,
) -> Option<Place> {
    let place = Place {
        namespace: tier.names.namespace.clone(),
        tier: tier.names.tier.clone(),
        upstream: Upstream::at(String::new(), names::REDIS_PORT),
        username: None,
        password: None,
        sentinel_password: None,
        database: tier.config.keyspace.database,
        prefix: tier.config.keyspace.prefix.clone(),
        generation: tier.config.generation,
    };
    match &tier.behind {
        Behind::Memory => None,
        Behind::External(external) if external.upstream.tls.is_some() => None,
        Behind::External(external) => {
            let credentials = external.credentials.clone().unwrap_or_default();
            Some(Place {
                upstream: external.upstream.clone(),
                username: credentials.username,
                password: credentials.password,
                sentinel_password: credentials.sentinel_password,
                ..place
            })
        }
        Behind::Servers(_) => {
            let mut primaries = observed.servers.iter().filter(|pod| pod.is_primary());
            let address = primaries.next()?.address.clone()?;
            Some(Place {
                upstream: Upstream::at(address, names::REDIS_PORT),
                username: Some(User::Operator.name().to_owned()),
                password: Some(passwords?.of(User::Operator).current.clone()),
                ..place
            })
        }
    }
}
