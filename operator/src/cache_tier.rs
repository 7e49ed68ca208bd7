//! The controller of `CacheTier`: dereference → validate → observe → plan → build → apply → act →
//! status.
//!
//! A client is needed at both ends only; what is in between is pure. A failure of any step
//! becomes a condition before it becomes a retry. Level-triggered: nothing is remembered from one
//! reconcile to the next that could not be read again.

pub mod act;
pub mod apply;
pub mod build;
pub mod cleanup;
pub mod dereference;
pub mod object_names;
pub mod observe;
pub mod passwords;
pub mod place;
pub mod plan;
pub mod sharing;
pub mod status;
pub mod validate;

use std::{sync::Arc, time::Duration};

use crds::{CacheTier, validate::Validator};
use kube::{Api, Resource as _, ResourceExt as _, core::DeserializeGuard};
use kube_runtime::controller::Action;
use policy::names;
use tokio::time::Instant;

use self::{
    apply::Written,
    dereference::Found as Referred,
    observe::{Observed, ObservedPod},
    passwords::{Decided, Passwords},
    plan::Step,
    sharing::Sharing,
    validate::{Refusals, Servers, ValidatedTier},
};
use crate::{
    api_error::{ApiError, Category},
    apply::ApplyError,
    claim::ClaimError,
    context::Ctx,
    random, unreadable,
    visits::Found,
};

/// A tier as it is watched: one that does not fit its schema is an object, not a broken watch.
pub type Guarded = DeserializeGuard<CacheTier>;

/// Everything is looked at again after this long, whatever the watches say.
const SAFETY: Duration = Duration::from_mins(10);
/// And after this long where servers are run: roles and settings change without a word to the API
/// server.
const LOOK: Duration = Duration::from_secs(30);
/// And after this long while something is under way.
const UNDER_WAY: Duration = Duration::from_secs(10);
/// And after this long while a primary refuses writes, which is mostly for a moment.
const FROZEN: Duration = Duration::from_secs(2);
/// And after this long while changes are not told, or nothing that is under way can be seen but by
/// the watches.
const UNTOLD: Duration = Duration::from_mins(1);

/// What a reconcile that came to its end has found and done.
#[derive(Debug)]
pub struct Progress {
    /// What is wanted.
    pub tier: ValidatedTier,
    /// What was written.
    pub written: Written,
    /// Servers that are wanted now.
    pub wanted_pods: usize,
    /// What runs.
    pub observed: Observed,
    /// What the next steps wait for, and what did not work out, in sentences.
    pub waits: Vec<String>,
    /// Settings that servers do not take, in sentences.
    pub refused: Vec<String>,
    /// The passwords that every server should have, where some are run.
    pub credentials: Option<Held>,
    /// Kinds whose changes are not told to the operator, and why.
    pub unwatched: Vec<String>,
    /// What the Redis behind it says.
    pub visited: Visited,
}

/// The passwords of a tier, without one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// All of them as one short word, as the agents say it of what their servers accept.
    pub generation: String,
    /// Whether old ones are still accepted beside them.
    pub overlap: bool,
    /// Whether others are wanted already, which wait until every server has these.
    pub postponed: bool,
}

/// What the Redis behind a tier says to a visitor.
#[derive(Clone, Debug, PartialEq)]
pub enum Visited {
    /// It is not visited: there is none, or no way to it.
    Never,
    /// Nobody has been there yet: what was said before holds.
    NotYet,
    /// This.
    Now(Found),
}

// === impl Progress ===

impl Progress {
    /// Servers that are ready.
    pub fn ready_pods(&self) -> usize {
        let servers = self.observed.servers.iter();
        servers.filter(|pod| pod.ready && !pod.going).count()
    }

    /// When everything is looked at again.
    fn pause(&self) -> Duration {
        // What agents say is not watched; where none speaks yet, pods tell when they change.
        let asked = self
            .observed
            .servers
            .iter()
            .any(|pod| pod.address.is_some());
        let frozen = |pod: &ObservedPod| pod.state().is_some_and(|state| state.frozen.is_some());
        match self.waits() {
            _ if self.observed.servers.iter().any(frozen) => FROZEN,
            Some(_) if asked || self.wanted_pods == 0 => UNDER_WAY,
            Some(_) => UNTOLD,
            None if !self.unwatched.is_empty() => UNTOLD,
            // A right that was given is not told either.
            None if !self.written.sharing.problems.is_empty() => UNTOLD,
            None if self.tier.servers().is_some() => LOOK,
            None => SAFETY,
        }
    }

    /// What the tier waits for, in a sentence.
    pub fn waits(&self) -> Option<String> {
        let mut sentences = Vec::new();
        if !self.written.waiting.is_empty() {
            let gone = self.written.waiting.join(", ");
            sentences.push(format!("waiting for the end of {gone}"));
        }
        let ready = self.ready_pods();
        if ready < self.wanted_pods {
            sentences.push(format!("{ready} of {} servers are ready", self.wanted_pods));
        }
        sentences.extend(self.waits.iter().cloned());
        (!sentences.is_empty()).then(|| sentences.join("; "))
    }
}

/// Why a reconcile did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call of the API server failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// An object could not be brought to its state.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The tier asks for what cannot be.
    #[error(transparent)]
    Refused(#[from] Refusals),
    /// Its namespace may belong to another installation.
    #[error(transparent)]
    Claim(#[from] ClaimError),
}

// === impl Error ===

impl Error {
    /// A fixed word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Api(error) | Self::Apply(ApplyError::Api(error)) => error.category().name(),
            Self::Apply(ApplyError::NotOurs { .. }) => "not-ours",
            Self::Apply(ApplyError::Former { .. }) => "former-tier",
            Self::Refused(_) => "refused-spec",
            Self::Claim(_) => "claim",
        }
    }

    /// The failed call, where one failed.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(error)
            | Self::Apply(ApplyError::Api(error))
            | Self::Claim(ClaimError::Api(error)) => Some(error),
            _ => None,
        }
    }
}

/// One reconcile, with its figures.
pub async fn reconcile(object: Arc<Guarded>, ctx: Arc<Ctx>) -> Result<Action, Error> {
    let started = Instant::now();
    let key = key(&object);
    let result = Box::pin(converge(&object, &ctx)).await;
    ctx.metrics
        .duration
        .observe(started.elapsed().as_secs_f64());
    let word = result.as_ref().map_or_else(Error::category, |_| "ok");
    ctx.metrics
        .reconciles
        .with_label_values(&["CacheTier", word])
        .inc();
    match &result {
        Ok(_) => ctx.retries.forget(&key),
        // Looked at again and again; its condition was told when it came.
        Err(Error::Refused(refusals)) => tracing::debug!(tier = key, %refusals, "refused"),
        Err(error) if error.api().map(ApiError::category) == Some(Category::Conflict) => {
            tracing::info!(tier = key, %error, "somebody else was faster; trying again");
        }
        Err(error) => tracing::warn!(tier = key, %error, "failed to reconcile"),
    }
    result
}

/// When a failed reconcile is tried again.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the controller calls it with values"
)]
pub fn on_error(object: Arc<Guarded>, error: &Error, ctx: Arc<Ctx>) -> Action {
    if let Error::Refused(_) = error {
        return Action::requeue(pause_of_refused(&object, &ctx));
    }
    let key = key(&object);
    let asked = error.api().and_then(ApiError::retry_after);
    Action::requeue(ctx.retries.failed(&key, asked))
}

/// What is in the way of a refused tier may end without a word: keys that are deleted, a Secret that
/// comes and may not be watched.
fn pause_of_refused(tier: &Guarded, ctx: &Ctx) -> Duration {
    let Ok(readable) = &tier.0 else { return SAFETY };
    let shares = !readable.spec.allowed_namespaces.is_empty();
    let namespace = tier.namespace().unwrap_or_default();
    if dereference::has_servers(readable) {
        LOOK
    } else if ctx.watches.refused(&namespace, shares).is_empty() {
        SAFETY
    } else {
        UNTOLD
    }
}

/// Nothing is kept for a tier that is gone.
pub fn gone(ctx: &Ctx, tier: &Guarded) {
    ctx.visits.forget(&tier.uid().unwrap_or_default());
    ctx.retries.forget(&key(tier));
    // It may have gone with its namespace, which may come again without the Lease.
    ctx.claims.forget(&tier.namespace().unwrap_or_default());
}

fn key(object: &Guarded) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("{namespace}/{}", object.name_any())
}

async fn converge(watched: &Guarded, ctx: &Ctx) -> Result<Action, Error> {
    let (namespace, name) = (watched.namespace().unwrap_or_default(), watched.name_any());
    // The watch may be behind: what is decided on is read now.
    let Some(object) = read(ctx, &namespace, &name).await? else {
        gone(ctx, watched);
        return Ok(Action::await_change());
    };
    if object.meta().deletion_timestamp.is_some() {
        ctx.not_anothers(&namespace).await?;
        ctx.visits.forget(&object.uid().unwrap_or_default());
        return Ok(cleanup::cleanup(ctx, object.meta()).await?);
    }
    if let Err(error) = ctx.hold(&namespace).await {
        let tells = ctx.claims.tells(&key(watched), &error);
        let error = Error::from(error);
        if tells && let Ok(tier) = &object.0 {
            // The first cause is the one that is returned.
            let _ = status::write_failure(ctx, tier, &error).await;
        }
        return Err(error);
    }
    let mut tier = match object.0 {
        Ok(tier) => tier,
        Err(invalid) => {
            unreadable::tell::<CacheTier>(&ctx.client, &invalid, Validator::cache_tier).await?;
            return Ok(Action::await_change());
        }
    };
    if tier.annotations().get(names::PAUSED).map(String::as_str) == Some("true") {
        status::write_paused(ctx, &tier).await?;
        return Ok(Action::requeue(SAFETY));
    }
    let result = Box::pin(bring_about(ctx, &mut tier)).await;
    // Failures become conditions too; the first cause is the one that is returned.
    let written = status::write(ctx, &tier, &result).await;
    let progress = result?;
    written?;
    if progress.written.sharing.places().is_empty() {
        cleanup::remove_finalizer(ctx, tier.meta()).await?;
    }
    Ok(Action::requeue(progress.pause()))
}

async fn bring_about(ctx: &Ctx, tier: &mut CacheTier) -> Result<Progress, Error> {
    let found = dereference::dereference(ctx, tier).await?; // client
    let sharing = Sharing::decide(tier, &found); // pure
    let looked = look(ctx, tier, &found).await; // client
    if let Err(Error::Refused(_)) = &looked {
        // Consent that was taken back ends copies, whatever is wrong with the tier.
        cleanup::sweep(ctx, tier, &sharing).await?; // client
    }
    let (wanted, observed) = looked?;
    if !sharing.places().is_empty() {
        cleanup::add_finalizer(ctx, tier.meta()).await?; // client
        status::write_places(ctx, tier, sharing.places()).await?; // client
    }
    let mut plan = plan::plan(&wanted, &observed, &found.shards()); // pure
    let held = match wanted.servers() {
        Some(servers) => {
            let seen = (&found, &observed);
            Some(hold_passwords(ctx, tier, &wanted, servers, seen).await?) // client
        }
        None => None,
    };
    let passwords = held.as_ref().map(|(passwords, ..)| passwords);
    let resources = build::build(&wanted, &plan, passwords); // pure
    let written = Box::pin(apply::apply(ctx, &wanted, sharing, resources)).await?; // client
    let mut waits = std::mem::take(&mut plan.waits);
    let (mut credentials, mut refused) = (None, Vec::new());
    if let (Some(servers), Some((passwords, held, version))) = (wanted.servers(), &held) {
        credentials = Some(held.clone());
        let mounted = [&written.mounted[..], version.as_slice()]
            .concat()
            .join("-");
        act::refresh(ctx, &wanted, &observed, &mounted).await?; // client
        let workload = build::workload(&wanted, servers, &plan); // pure
        let wanted_pods = (servers.sentinels, &plan.shards[..]);
        let (steps, more) = plan::steps(wanted_pods, &workload, &observed); // pure
        // What comes of a setting is known once it was given.
        let sure = |step: &&Step| !matches!(step, Step::Configure { .. });
        waits.extend(steps.iter().filter(sure).map(ToString::to_string));
        waits.extend(more);
        let steps = [std::mem::take(&mut plan.steps), steps].concat();
        let settings = build::settings(&wanted, servers, &plan); // pure
        let give = act::Wanted {
            settings: &settings,
            told: status::stalled_by(tier, act::REFUSED),
        };
        let done = Box::pin(act::act(ctx, &wanted, passwords, give, steps)).await?; // client
        waits.extend(done.waits);
        refused = done.refused;
    }
    let visited = if let Some(place) = place::place(&wanted, &observed, passwords) {
        let told = ctx.visits.look(&wanted.uid, place);
        told.map_or(Visited::NotYet, Visited::Now)
    } else {
        ctx.visits.forget(&wanted.uid);
        Visited::Never
    };
    let namespace = tier.namespace().unwrap_or_default();
    Ok(Progress {
        visited,
        wanted_pods: plan.shards.iter().map(|shard| shard.pods as usize).sum(),
        tier: wanted,
        written,
        observed,
        waits,
        refused,
        credentials,
        unwatched: {
            let shares = !tier.spec.allowed_namespaces.is_empty();
            ctx.watches.refused(&namespace, shares)
        },
    })
}

/// What is wanted and what runs, or why that cannot be.
async fn look(
    ctx: &Ctx,
    tier: &CacheTier,
    found: &Referred,
) -> Result<(ValidatedTier, Observed), Error> {
    let wanted = validate::validate(tier, found, &ctx.settings)?; // pure
    let observed = observe::observe(ctx, &wanted, &found.sets).await?; // client
    plan::refuse(&wanted, &observed)?; // pure
    Ok((wanted, observed))
}

async fn hold_passwords(
    ctx: &Ctx,
    tier: &CacheTier,
    wanted: &ValidatedTier,
    servers: &Servers,
    (found, observed): (&Referred, &Observed),
) -> Result<(Passwords, Held, Vec<String>), ApplyError> {
    let wish = passwords::wish(tier);
    let Decided {
        passwords,
        write,
        postponed,
    } = passwords::decide(servers, (found, observed), wish, &random::password);
    let obeyed = wish.filter(|_| !postponed);
    let version = apply::write_passwords(ctx, wanted, found.auth.as_ref(), write, obeyed).await?;
    let held = Held {
        generation: passwords.generation(servers.open),
        overlap: passwords.overlap(),
        postponed,
    };
    Ok((passwords, held, version.into_iter().collect()))
}

async fn read(ctx: &Ctx, namespace: &str, name: &str) -> Result<Option<Guarded>, ApiError> {
    let api: Api<Guarded> = Api::namespaced(ctx.client.clone(), namespace);
    api.get_opt(name).await.map_err(|source| ApiError {
        verb: "get",
        kind: "CacheTier".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source,
    })
}
