//! From the bytes of a review to those of its answer.

use std::{sync::Arc, time::Instant};

use hyper::StatusCode;
use kube::{ResourceExt as _, core::admission::AdmissionResponse};

use super::{
    look_up::LookUp,
    tell::{Teller, Told},
};
use crate::{
    context::Ctx,
    injector::{
        Decision, Found, Plan, Request, Wish, build,
        build::{NotReplaced, SetBy},
        decide,
        decide::Reason,
        decode::{Decoded, decode},
        wish,
    },
    settings::Webhook,
};

/// Decides about pods.
pub struct Handler {
    ctx: Arc<Ctx>,
    webhook: Webhook,
    look_up: LookUp,
    teller: Teller,
}

/// An HTTP answer.
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its type.
    pub kind: &'static str,
    /// Its body.
    pub body: Vec<u8>,
}

// === impl Handler ===

impl Handler {
    /// A new one.
    pub fn new(ctx: Arc<Ctx>, webhook: Webhook, look_up: LookUp, teller: Teller) -> Self {
        Self {
            ctx,
            webhook,
            look_up,
            teller,
        }
    }

    /// Answers one review.
    pub async fn answer(&self, body: &[u8]) -> Reply {
        let started = Instant::now();
        let (reply, result, reason) = match decode(body) {
            Err(error) => {
                tracing::debug!(%error, "not a review");
                (
                    text(StatusCode::BAD_REQUEST, format!("{error}\n")),
                    "failed",
                    "no-review",
                )
            }
            Ok(Decoded::Other(answer, why)) => {
                tracing::debug!(why, "a review of something else");
                (json(answer), "skipped", "no-pod")
            }
            Ok(Decoded::Pod { request, answer }) => {
                let decision = self.decide(&request).await;
                let (result, reason) = words(&decision);
                (self.carry_out(&request, decision, answer), result, reason)
            }
        };
        let metrics = &self.ctx.metrics;
        metrics
            .injections
            .with_label_values(&[result, reason])
            .inc();
        metrics.admission.observe(started.elapsed().as_secs_f64());
        reply
    }

    async fn decide(&self, request: &Request) -> Decision {
        let in_namespace = match self.look_up.namespace(&request.namespace).await {
            Ok(labels) => labels,
            Err(why) => return Decision::Skip(Reason::Unreadable(why)),
        };
        let pod = request.pod.labels();
        let Wish::Sidecar(wanted) = wish(pod, &in_namespace, &request.namespace) else {
            return Decision::Skip(Reason::NotAsked);
        };
        let found: Found = self.look_up.tier(&wanted).await;
        decide::decide(request, &in_namespace, &wanted, &found, &self.webhook)
    }

    fn carry_out(&self, request: &Request, decision: Decision, answer: AdmissionResponse) -> Reply {
        match decision {
            Decision::Inject(plan) => self.inject(request, &plan, answer),
            Decision::Skip(reason) => {
                let mut answer = answer;
                if !reason.is_silent() {
                    let sentence = format!("no Pannier sidecar: {reason}");
                    answer.warnings = Some(vec![warning(&sentence)]);
                    self.teller.tell(request, Told::Skipped(reason.to_string()));
                }
                json(answer)
            }
            Decision::Refuse(reason) => {
                self.teller.tell(request, Told::Skipped(reason.to_string()));
                json(answer.deny(reason))
            }
        }
    }

    fn inject(&self, request: &Request, plan: &Plan, mut answer: AdmissionResponse) -> Reply {
        let built = build::build(&request.pod, plan);
        let mut warnings = Vec::new();
        for kept in &built.not_replaced {
            let sentence = sentence(kept);
            warnings.push(warning(&sentence));
            self.teller.tell(request, Told::NotReplaced(sentence));
        }
        if !warnings.is_empty() {
            answer.warnings = Some(warnings);
        }
        if built.patch.is_empty() {
            return json(answer);
        }
        self.teller.tell(request, Told::Injected(plan.tier.clone()));
        match answer.clone().with_patch(built.patch) {
            Ok(answer) => json(answer),
            // A patch is made of JSON: this cannot fail, and must not keep a pod from starting.
            Err(error) => {
                tracing::error!(%error, "a patch cannot be written");
                json(answer)
            }
        }
    }
}

fn words(decision: &Decision) -> (&'static str, &'static str) {
    match decision {
        Decision::Inject(_) => ("injected", ""),
        Decision::Skip(reason) => ("skipped", reason.category()),
        Decision::Refuse(reason) => ("refused", reason.category()),
    }
}

fn sentence(kept: &NotReplaced) -> String {
    let container = &kept.container;
    let remedy = format!(
        "annotate the pod {}: \"true\" to have it lead to the sidecar",
        policy::names::OVERRIDE_ENV
    );
    match kept.by {
        SetBy::Entry => {
            format!("container {container} sets REDIS_URL itself and keeps it; {remedy}")
        }
        SetBy::EnvFrom => format!(
            "container {container} has envFrom, which may set REDIS_URL, so it is not added; {remedy}"
        ),
    }
}

/// The API server cuts long warnings off, and refuses line breaks.
fn warning(sentence: &str) -> String {
    let line: String = sentence.chars().filter(|one| !one.is_control()).collect();
    line.chars().take(250).collect()
}

fn json(answer: AdmissionResponse) -> Reply {
    match serde_json::to_vec(&answer.into_review()) {
        Ok(body) => Reply {
            status: StatusCode::OK,
            kind: "application/json",
            body,
        },
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn text(status: StatusCode, text: String) -> Reply {
    Reply {
        status,
        kind: "text/plain",
        body: text.into_bytes(),
    }
}
