//! The controller of `SessionPolicy`: dereference → judge → status. It makes no objects. A failure
//! becomes a condition before it becomes a retry.

pub mod judge;

use std::{sync::Arc, time::Duration};

use crds::{CacheTier, SessionPolicy, condition::Status, validate::Validator};
use kube::{Api, Resource as _, ResourceExt as _, api::ListParams, core::DeserializeGuard};
use kube_runtime::controller::Action;

use self::judge::Found;
use crate::{
    api_error::ApiError,
    claim::ClaimError,
    conditions::{self, Fact},
    context::Ctx,
    failure, report, unreadable,
    write_status::write_status,
};

/// A policy as it is watched: one that does not fit its schema is an object, not a broken watch.
pub type Guarded = DeserializeGuard<SessionPolicy>;

const SAFETY: Duration = Duration::from_mins(10);

/// Why a reconcile did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call of the API server failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Its namespace may belong to another installation.
    #[error(transparent)]
    Claim(#[from] ClaimError),
}

/// One reconcile, with its figures.
pub async fn reconcile(object: Arc<Guarded>, ctx: Arc<Ctx>) -> Result<Action, Error> {
    let result = Box::pin(converge(&object, &ctx)).await;
    let word = match &result {
        Ok(_) => "ok",
        Err(Error::Api(error) | Error::Claim(ClaimError::Api(error))) => error.category().name(),
        Err(Error::Claim(_)) => "claim",
    };
    ctx.metrics
        .reconciles
        .with_label_values(&["SessionPolicy", word])
        .inc();
    match &result {
        Ok(_) => ctx.retries.forget(&key(&object)),
        Err(error) => {
            tracing::warn!(policy = key(&object), %error, "failed to reconcile");
        }
    }
    result
}

/// When a failed reconcile is tried again.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the controller calls it with values"
)]
pub fn on_error(object: Arc<Guarded>, error: &Error, ctx: Arc<Ctx>) -> Action {
    let asked = match error {
        Error::Api(error) | Error::Claim(ClaimError::Api(error)) => error.retry_after(),
        Error::Claim(_) => None,
    };
    Action::requeue(ctx.retries.failed(&key(&object), asked))
}

/// Nothing is kept for a policy that is gone.
pub fn gone(ctx: &Ctx, policy: &Guarded) {
    ctx.retries.forget(&key(policy));
    ctx.claims.forget(&policy.namespace().unwrap_or_default());
}

fn key(object: &Guarded) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("SessionPolicy {namespace}/{}", object.name_any())
}

async fn converge(object: &Guarded, ctx: &Ctx) -> Result<Action, Error> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let key = key(object);
    let failed = |verb, kind: &str, name: &str| {
        let (kind, name, namespace) = (kind.to_owned(), name.to_owned(), namespace.clone());
        move |source| ApiError {
            verb,
            kind,
            namespace,
            name,
            source,
        }
    };
    let policies: Api<Guarded> = Api::namespaced(ctx.client.clone(), &namespace);
    let listed = policies.list(&ListParams::default()).await;
    let listed = match listed.map_err(failed("list", "SessionPolicy", "")) {
        Ok(listed) => listed,
        // Said of what was watched: nothing newer is known.
        Err(error) => return Err(told(ctx, &key, object, error.into()).await),
    };
    let there =
        |policy: &&Guarded| policy.name_any() == name && policy.meta().deletion_timestamp.is_none();
    let Some(found) = listed.items.iter().find(there) else {
        gone(ctx, object);
        return Ok(Action::await_change());
    };
    if let Err(error) = ctx.hold(&namespace).await {
        return Err(told(ctx, &key, found, error.into()).await);
    }
    let policy = match &found.0 {
        Ok(policy) => policy,
        Err(invalid) => {
            let validator = Validator::session_policy;
            unreadable::tell::<SessionPolicy>(&ctx.client, invalid, validator).await?;
            return Ok(Action::requeue(SAFETY));
        }
    };
    let tier_name = &policy.spec.cache_tier_ref.name;
    let tiers: Api<DeserializeGuard<CacheTier>> = Api::namespaced(ctx.client.clone(), &namespace);
    let tier = tiers.get_opt(tier_name).await;
    let tier = match tier.map_err(failed("get", "CacheTier", tier_name)) {
        Ok(tier) => tier,
        Err(error) => return Err(told(ctx, &key, found, error.into()).await),
    };
    let readable = listed.items.iter();
    let found = Found {
        tier: tier.map(|tier| tier.0.map_err(|invalid| invalid.error)),
        others: readable
            .filter_map(|other| other.0.as_ref().ok())
            .filter(|other| other.name_any() != name)
            .filter(|other| other.spec.cache_tier_ref.name == *tier_name)
            .collect(),
    };
    let facts = judge::facts(policy, &found);
    write(ctx, policy, facts, &[]).await?;
    Ok(Action::requeue(SAFETY))
}

/// Says what is in the way, and gives it back: the first cause is the one that is returned.
async fn told(ctx: &Ctx, key: &str, policy: &Guarded, error: Error) -> Error {
    let Ok(policy) = &policy.0 else { return error };
    let before = policy.status.clone().unwrap_or_default();
    let settled = before.observed_generation == policy.metadata.generation;
    let facts = match &error {
        Error::Claim(error) if !ctx.claims.tells(key, error) => None,
        Error::Claim(error) => Some(failure::of_claim(error, settled)),
        Error::Api(error) => Some(failure::of_call(error, settled)),
    };
    if let Some(facts) = facts {
        let others = before.conditions.iter().map(|one| one.type_.as_str());
        let others: Vec<&str> = others.collect();
        let _ = write(ctx, policy, facts, &others).await;
    }
    error
}

/// Writes what was found. `keep` names conditions that stand as they were.
async fn write(
    ctx: &Ctx,
    policy: &SessionPolicy,
    facts: Vec<Fact>,
    keep: &[&str],
) -> Result<(), ApiError> {
    let before = policy.status.clone().unwrap_or_default();
    let generation = policy.metadata.generation;
    let status = Status {
        observed_generation: generation,
        conditions: conditions::merge(
            &before.conditions,
            facts,
            keep,
            generation,
            &conditions::now(),
        ),
    };
    if status == before {
        return Ok(());
    }
    let namespace = policy.namespace().unwrap_or_default();
    let (name, uid) = (policy.name_any(), policy.uid());
    let uid = uid.as_deref();
    if !write_status::<SessionPolicy>(&ctx.client, &namespace, &name, uid, &status).await? {
        return Ok(());
    }
    report::changes(
        &ctx.recorder,
        &policy.object_ref(&()),
        &before.conditions,
        &status.conditions,
    )
    .await;
    Ok(())
}
