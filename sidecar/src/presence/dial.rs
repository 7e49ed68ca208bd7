//! Opens the connection to the primary that holds the tier's names.

use tokio::sync::watch;

use super::{names::Names, session::Ended};
use crate::{
    resp::Proto,
    state::{Active, Shared},
    upstream::{connect::Handshake, stream::Stream, topology::key_slot},
    worker,
};

/// A connection that speaks RESP3, and what tells when another server is to be asked.
pub(super) async fn dial(
    shared: &Shared,
    active: &Active,
    names: &Names,
) -> Result<(Stream, watch::Receiver<u64>), Ended> {
    let broken = |why: &dyn std::fmt::Display| Ended::Broken(why.to_string());
    let endpoint = worker::endpoint(active)
        .map_err(|error| broken(&error))?
        .ok_or_else(|| broken(&"there is no redis"))?;
    let changes = shared.topology.changes();
    let topology = shared.topology.current();
    let node = topology
        .node_of(key_slot(&names.index()))
        .and_then(|index| topology.nodes.get(index))
        .ok_or_else(|| broken(&"the primary is not known yet"))?;
    let db = u16::try_from(active.config.keyspace.database).unwrap_or(0);
    let connected = endpoint
        .at(&node.primary)
        .connect(Handshake::plain(Proto::Resp3, db))
        .await
        .map_err(|error| broken(&error))?;
    Ok((connected.stream, changes))
}
