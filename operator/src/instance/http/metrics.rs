//! The state as Prometheus metrics; made anew for each scrape from what the agent knows.

use prometheus::{Encoder as _, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::instance::state::{Phase, Role, State};

/// The page.
pub fn text(state: &State) -> String {
    let mut page = Vec::new();
    let registry = Registry::new();
    let filled = fill(&registry, state);
    if let Err(error) =
        filled.and_then(|()| TextEncoder::new().encode(&registry.gather(), &mut page))
    {
        return format!("# {error}\n");
    }
    String::from_utf8(page).unwrap_or_default()
}

fn fill(registry: &Registry, state: &State) -> prometheus::Result<()> {
    let set = |name: &str, help: &str, value: i64| {
        let gauge = IntGauge::new(format!("pannier_instance_{name}"), help)?;
        gauge.set(value);
        registry.register(Box::new(gauge))
    };
    set(
        "ready",
        "Whether the instance is ready.",
        i64::from(state.ready),
    )?;
    set(
        "guarding",
        "Whether the boot guard holds the server back.",
        i64::from(state.phase == Phase::Guarding),
    )?;
    set(
        "frozen",
        "Whether the agent makes the primary refuse writes.",
        i64::from(state.frozen.is_some()),
    )?;
    set(
        "data_lost",
        "Whether data that was there is gone.",
        i64::from(state.data_lost.is_some()),
    )?;
    set(
        "sentinels_answering",
        "Sentinels that answered this agent.",
        i64::try_from(state.sentinels.answering).unwrap_or(i64::MAX),
    )?;
    set(
        "roles_followed",
        "Roles that it took because Sentinels said so.",
        i64::try_from(state.followed).unwrap_or(i64::MAX),
    )?;
    let Some(server) = &state.server else {
        return Ok(());
    };
    set(
        "primary",
        "Whether the server is a primary.",
        i64::from(server.role == Some(Role::Primary)),
    )?;
    set(
        "loading",
        "Whether the server loads its data.",
        i64::from(server.loading),
    )?;
    set(
        "replication_offset",
        "Place in the stream of writes.",
        server.offset,
    )?;
    set(
        "memory_used_bytes",
        "Memory that the server uses.",
        i64::try_from(server.used_memory).unwrap_or(i64::MAX),
    )?;
    set(
        "memory_max_bytes",
        "Its limit; 0 is none.",
        i64::try_from(server.max_memory).unwrap_or(i64::MAX),
    )?;
    if server.role == Some(Role::Replica) {
        set(
            "link_up",
            "Whether the link to the primary is up.",
            i64::from(server.link_up),
        )?;
    }
    let lag = IntGaugeVec::new(
        Opts::new(
            "pannier_instance_replica_lag_bytes",
            "How far a replica is behind this primary.",
        ),
        &["replica"],
    )?;
    for replica in &server.replicas {
        let behind = server.offset.saturating_sub(replica.offset).max(0);
        lag.with_label_values(&[&replica.address]).set(behind);
    }
    registry.register(Box::new(lag))
}
