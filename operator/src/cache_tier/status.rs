//! Last step: says what was found and done. A failure of any step is said here too.
//!
//! `compute` is pure; nothing is written when nothing changed. The resource's UID is part of the
//! write: a tier that was made anew under the same name does not get the old one's status.

mod judge;
mod topology;

use crds::{
    CacheTier,
    condition::{CacheTierStatus, Condition, ResolvedStatus},
};
use kube::{Resource as _, ResourceExt as _};
use policy::names;
use serde_json::Value;

use super::{
    Error, Progress, Visited,
    sharing::Sharing,
    validate::{Refusals, ValidatedTier},
};
use crate::{
    api_error::ApiError,
    apply::ApplyError,
    conditions::{self, Fact, now, type_},
    context::Ctx,
    failure, report,
    write_status::write_status,
};

/// What is said of what runs.
const SEEN: [&str; 6] = [
    type_::UPSTREAM_REACHABLE,
    type_::TOPOLOGY_HEALTHY,
    type_::CONFIG_APPLIED,
    type_::CREDENTIALS_ROTATED,
    type_::STORAGE_HEALTHY,
    type_::COHERENCE_DEGRADED,
];

/// Writes what came of a reconcile.
pub async fn write(
    ctx: &Ctx,
    tier: &CacheTier,
    result: &Result<Progress, Error>,
) -> Result<(), ApiError> {
    let progress = match result {
        Ok(progress) => progress,
        Err(error) => return write_failure(ctx, tier, error).await,
    };
    let before = tier.status.clone().unwrap_or_default();
    let status = of_progress(tier, &before, progress, &now());
    put(ctx, tier, &before, status).await
}

/// Writes what was in the way of a reconcile, also of one that could not begin.
pub async fn write_failure(ctx: &Ctx, tier: &CacheTier, error: &Error) -> Result<(), ApiError> {
    let before = tier.status.clone().unwrap_or_default();
    let status = of_failure(tier, &before, error, &now());
    put(ctx, tier, &before, status).await
}

/// Writes that the operator leaves everything as it is.
pub async fn write_paused(ctx: &Ctx, tier: &CacheTier) -> Result<(), ApiError> {
    let before = tier.status.clone().unwrap_or_default();
    let message = format!(
        "nothing of this tier is changed or repaired while it has the annotation {}; remove it to go on",
        names::PAUSED
    );
    let facts = vec![
        Fact::holds(type_::PAUSED, "Paused", message),
        Fact::fails(type_::RECONCILING, "Paused", ""),
    ];
    let status = CacheTierStatus {
        conditions: conditions::merge(
            &before.conditions,
            facts,
            &others(&before.conditions),
            tier.metadata.generation,
            &now(),
        ),
        ..before.clone()
    };
    put(ctx, tier, &before, status).await
}

/// Writes down where copies will be, before one is made.
pub async fn write_places(
    ctx: &Ctx,
    tier: &mut CacheTier,
    places: Vec<String>,
) -> Result<(), ApiError> {
    let before = tier.status.clone().unwrap_or_default();
    let known = places
        .iter()
        .all(|place| before.shared_with.contains(place));
    if known {
        return Ok(());
    }
    let status = CacheTierStatus {
        shared_with: places,
        ..before
    };
    let namespace = tier.namespace().unwrap_or_default();
    let uid = tier.uid();
    patch(ctx, &namespace, &tier.name_any(), uid.as_deref(), &status).await?;
    tier.status = Some(status);
    Ok(())
}

/// Writes what is left of the copies of a tier that is refused.
pub async fn write_swept(ctx: &Ctx, tier: &mut CacheTier, left: &Sharing) -> Result<(), ApiError> {
    let before = tier.status.clone().unwrap_or_default();
    let status = of_swept(tier, &before, left, &now());
    put(ctx, tier, &before, status.clone()).await?;
    tier.status = Some(status);
    Ok(())
}

/// What the status says of being stalled for that reason.
pub fn stalled_by<'a>(tier: &'a CacheTier, reason: &str) -> &'a str {
    let conditions = tier.status.iter().flat_map(|status| &status.conditions);
    let mut conditions = conditions.filter(|one| one.type_ == type_::STALLED);
    let stalled = conditions.find(|one| one.reason == reason);
    stalled.map_or("", |stalled| stalled.message.as_str())
}

// === what to say ===

fn of_progress(
    tier: &CacheTier,
    before: &CacheTierStatus,
    progress: &Progress,
    now: &str,
) -> CacheTierStatus {
    let wanted = &progress.tier;
    let facts = judge::facts(progress, &before.conditions);
    let kept: &[&str] = match progress.visited {
        Visited::NotYet => &[
            type_::DATA_LOST,
            type_::UPSTREAM_REACHABLE,
            type_::COHERENCE_DEGRADED,
        ],
        Visited::Never | Visited::Now(_) => &[type_::DATA_LOST],
    };
    CacheTierStatus {
        observed_generation: tier.metadata.generation,
        conditions: conditions::merge(
            &before.conditions,
            facts,
            kept,
            tier.metadata.generation,
            now,
        ),
        servers: judge::servers(progress),
        formed_at: before.formed_at.clone().or_else(|| {
            let primary = judge::primary(progress);
            primary.map(|_| now.to_owned())
        }),
        primary: judge::primary(progress),
        replicas: judge::replicas(progress, &before.replicas),
        sidecars: match &progress.visited {
            Visited::Never => None,
            Visited::NotYet => before.sidecars.clone(),
            Visited::Now(found) => found.sidecars.clone(),
        },
        shared_with: progress.written.sharing.places(),
        resolved: Some(resolved(wanted)),
    }
}

fn of_failure(
    tier: &CacheTier,
    before: &CacheTierStatus,
    error: &Error,
    now: &str,
) -> CacheTierStatus {
    let message = error.to_string();
    let settled = before.observed_generation == tier.metadata.generation;
    let facts = match error {
        Error::Refused(Refusals { reason, .. }) => {
            let mut facts = failure::stalled(reason, message);
            facts.extend(unseen(&before.conditions));
            facts
        }
        Error::Apply(ApplyError::NotOurs { .. }) => failure::stalled("NameTaken", message),
        Error::Apply(ApplyError::Former { .. }) => vec![
            Fact::fails(type_::READY, "FormerTier", message.clone()),
            Fact::holds(type_::RECONCILING, "FormerTier", message),
            Fact::fails(type_::STALLED, "Retrying", ""),
        ],
        Error::Claim(error) => failure::of_claim(error, settled),
        Error::Api(error) | Error::Apply(ApplyError::Api(error)) => {
            failure::of_call(error, settled)
        }
    };
    let mut status = CacheTierStatus {
        observed_generation: tier.metadata.generation,
        conditions: conditions::merge(
            &before.conditions,
            facts,
            &others(&before.conditions),
            tier.metadata.generation,
            now,
        ),
        ..before.clone()
    };
    if let Error::Refused(_) = error {
        status.servers = None;
        status.primary = None;
        status.replicas = Vec::new();
        status.sidecars = None;
    }
    status
}

/// What was seen of what runs, and is not looked at while the tier is refused: it may be another way
/// by now.
fn unseen(before: &[Condition]) -> impl Iterator<Item = Fact> {
    let seen = SEEN.into_iter();
    let told = seen.filter(move |type_| before.iter().any(|old| old.type_ == **type_));
    told.map(|type_| {
        Fact::unknown(
            type_,
            "NotLookedAt",
            "not looked at while the tier is refused",
        )
    })
}

fn of_swept(
    tier: &CacheTier,
    before: &CacheTierStatus,
    left: &Sharing,
    now: &str,
) -> CacheTierStatus {
    let mut keep = others(&before.conditions);
    keep.retain(|type_| *type_ != type_::SHARED);
    let facts = left.fact().into_iter().collect();
    let generation = tier.metadata.generation;
    let mut conditions = conditions::merge(&before.conditions, facts, &keep, generation, now);
    // As they stood: another order would be another status with each look.
    let stood = |one: &Condition| {
        before
            .conditions
            .iter()
            .position(|old| old.type_ == one.type_)
    };
    conditions.sort_by_key(stood);
    let places = left.places();
    let mut shared_with = before.shared_with.clone();
    shared_with.retain(|place| places.contains(place));
    CacheTierStatus {
        conditions,
        shared_with,
        ..before.clone()
    }
}

/// What nothing is said about stays, except that a pause is over.
fn others(before: &[Condition]) -> Vec<&str> {
    before
        .iter()
        .map(|condition| condition.type_.as_str())
        .filter(|type_| *type_ != type_::PAUSED)
        .collect()
}

fn resolved(tier: &ValidatedTier) -> ResolvedStatus {
    let config = &tier.config;
    let servers = tier.servers();
    let word = |value: Value| value.as_str().map(ToOwned::to_owned);
    ResolvedStatus {
        environment: format!("{:?}", tier.environment),
        default_ttl: config.ttl.default.map(|ttl| ttl.to_string()),
        local_memory: config.local.memory.to_string(),
        when_unavailable: format!("{:?}", config.resilience.when_unavailable),
        image: servers.map(|servers| servers.image.clone()),
        memory: servers.map(|servers| servers.memory.to_string()),
        maxmemory: servers.map(|servers| policy::ByteSize(servers.maxmemory()).to_string()),
        maxmemory_policy: servers
            .and_then(|_| serde_json::to_value(tier.redis.maxmemory_policy).ok())
            .and_then(word),
        replicas_per_shard: servers.map(|servers| servers.pods_per_shard - 1),
    }
}

// === writing ===

async fn put(
    ctx: &Ctx,
    tier: &CacheTier,
    before: &CacheTierStatus,
    status: CacheTierStatus,
) -> Result<(), ApiError> {
    if status == *before {
        return Ok(());
    }
    let namespace = tier.namespace().unwrap_or_default();
    let name = tier.name_any();
    patch(ctx, &namespace, &name, tier.uid().as_deref(), &status).await?;
    report::changes(
        &ctx.recorder,
        &tier.object_ref(&()),
        &before.conditions,
        &status.conditions,
    )
    .await;
    Ok(())
}

async fn patch(
    ctx: &Ctx,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
    status: &CacheTierStatus,
) -> Result<(), ApiError> {
    ctx.metrics.writes.with_label_values(&["status"]).inc();
    // Deleted meanwhile: there is nobody to tell.
    write_status::<CacheTier>(&ctx.client, namespace, name, uid, status).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
