//! Keeps the webhook's certificate: every replica serves what is stored and is ready only while
//! the API server believes it; the leader takes the steps of a rotation.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use json_patch::{
    AddOperation, Patch as JsonPatch, PatchOperation, TestOperation, jsonptr::PointerBuf,
};
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
};
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use policy::names;
use serde_json::json;
use tokio::time::Instant;

use super::{
    certificate::{self, CertificateError, Pair, Served, fingerprint},
    rotation::{Step, Stored, Timing},
};
use crate::{api_error::ApiError, context::Ctx, settings::Webhook};

const READY: &str = "a certificate that the API server believes";

/// See the head of the file.
pub struct Keeper {
    ctx: Arc<Ctx>,
    served: Arc<Served>,
    timing: Timing,
    configuration: String,
    names: Vec<String>,
    /// What is served now.
    serving: Option<Pair>,
    /// Since when the API server has had exactly our bundle.
    believed: Option<Instant>,
    /// The last thing that was wrong, so that it is told once.
    problem: Option<String>,
}

/// The objects, read just now.
struct Seen {
    secret: Option<Secret>,
    stored: Stored,
    configuration: MutatingWebhookConfiguration,
}

// === impl Keeper ===

impl Keeper {
    /// Serves nothing yet.
    pub fn new(ctx: Arc<Ctx>, webhook: &Webhook, served: Arc<Served>, timing: Timing) -> Self {
        ctx.readiness.needs(READY);
        Self {
            names: certificate::names(&webhook.service, &ctx.settings.namespace),
            configuration: webhook.configuration.clone(),
            ctx,
            served,
            timing,
            serving: None,
            believed: None,
            problem: None,
        }
    }

    /// For as long as the process lives.
    pub async fn keep(mut self) {
        loop {
            let problem = self.look().await.err();
            match &problem {
                Some(why) if self.problem.as_ref() != Some(why) => {
                    tracing::warn!(error = why, "the webhook's certificate");
                }
                None if self.problem.is_some() => {
                    tracing::info!("the webhook's certificate is well");
                }
                _ => {}
            }
            self.problem = problem;
            tokio::time::sleep(self.timing.look).await;
        }
    }

    /// One look, one step. What is wrong, in a sentence.
    async fn look(&mut self) -> Result<(), String> {
        let mut seen = self.see().await.map_err(|error| error.to_string())?;
        if self.ctx.metrics.leader.get() == 1 {
            self.lead(&mut seen).await?;
        } else {
            self.believed = None;
        }
        self.serve(&mut seen).await
    }

    async fn see(&self) -> Result<Seen, ApiError> {
        let name = self.secret_name();
        let found = self.secrets().get_opt(&name).await;
        let secret = found.map_err(self.failed("get", "Secret", &name))?;
        let stored = secret.as_ref().map(Stored::read).unwrap_or_default();
        let name = &self.configuration;
        let found = self.configurations().get(name).await;
        Ok(Seen {
            secret,
            stored,
            configuration: found.map_err(self.failed(
                "get",
                "MutatingWebhookConfiguration",
                name,
            ))?,
        })
    }

    // === the leader ===

    async fn lead(&mut self, seen: &mut Seen) -> Result<(), String> {
        let believed = self.believed.map(|since| since.elapsed());
        let names = self.names.join(" ");
        let step = seen.stored.step(&names, believed, now(), &self.timing);
        if step != Step::Nothing {
            self.take(step, &mut seen.stored)
                .map_err(|error| error.to_string())?;
            self.store(seen).await.map_err(|error| error.to_string())?;
            tracing::info!(?step, "the webhook's certificate: a step of its rotation");
        }
        let wanted = seen.stored.bundle();
        if bundles(&seen.configuration).all(|bundle| bundle == Some(wanted.as_bytes())) {
            self.believed.get_or_insert_with(Instant::now);
        } else {
            self.believed = None;
            let written = self.write_bundle(seen, &wanted).await;
            written.map_err(|error| error.to_string())?;
        }
        if step != Step::Nothing {
            self.believed = None;
        }
        Ok(())
    }

    fn take(&self, step: Step, stored: &mut Stored) -> Result<(), CertificateError> {
        let make = || certificate::make(&self.names, now(), self.timing.lifetime);
        match step {
            Step::Nothing => {}
            Step::Make => {
                *stored = Stored {
                    current: Some(make()?),
                    served: std::mem::take(&mut stored.served),
                    ..Stored::default()
                }
            }
            Step::Prepare => stored.next = Some(make()?),
            Step::Promote => {
                stored.old = stored.current.take().map(|pair| pair.authority);
                stored.current = stored.next.take();
            }
            Step::Drop => stored.old = None,
        }
        Ok(())
    }

    /// The Secret as it was read, with what is stored now; a conflict means that another replica
    /// was faster, and the next look sees it.
    async fn store(&self, seen: &mut Seen) -> Result<(), ApiError> {
        let name = self.secret_name();
        let params = PostParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let exists = seen.secret.is_some();
        let mut secret = seen.secret.clone().unwrap_or_else(|| Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        });
        secret.metadata.managed_fields = None;
        seen.stored.write(&mut secret);
        let written = if exists {
            let replaced = self.secrets().replace(&name, &params, &secret).await;
            replaced.map_err(self.failed("update", "Secret", &name))?
        } else {
            let created = self.secrets().create(&params, &secret).await;
            created.map_err(self.failed("create", "Secret", &name))?
        };
        seen.secret = Some(written);
        Ok(())
    }

    async fn write_bundle(&self, seen: &mut Seen, wanted: &str) -> Result<(), ApiError> {
        let bundle = json!(ByteString(wanted.as_bytes().to_vec()));
        let place = |parts: &[&str]| PointerBuf::from_tokens(parts.iter().copied());
        let mut operations = Vec::new();
        let webhooks = seen.configuration.webhooks.iter().flatten();
        for (index, webhook) in webhooks.enumerate() {
            let index = index.to_string();
            // The list may have changed since it was read.
            operations.push(PatchOperation::Test(TestOperation {
                path: place(&["webhooks", &index, "name"]),
                value: json!(webhook.name),
            }));
            operations.push(PatchOperation::Add(AddOperation {
                path: place(&["webhooks", &index, "clientConfig", "caBundle"]),
                value: bundle.clone(),
            }));
        }
        let patch: Patch<()> = Patch::Json(JsonPatch(operations));
        let name = &self.configuration;
        let params = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patched = self.configurations().patch(name, &params, &patch).await;
        seen.configuration =
            patched.map_err(self.failed("patch", "MutatingWebhookConfiguration", name))?;
        tracing::info!(configuration = name, "wrote the bundle of the webhook");
        Ok(())
    }

    // === every replica ===

    async fn serve(&mut self, seen: &mut Seen) -> Result<(), String> {
        let Some(current) = seen.stored.current.clone() else {
            return Err(format!(
                "Secret {} has no certificate yet; the leader makes it",
                self.secret_name()
            ));
        };
        if self.serving.as_ref() != Some(&current) {
            let certified = current.certified().map_err(|error| error.to_string())?;
            self.served.serve(certified);
            self.serving = Some(current.clone());
            let left = current.expires.saturating_sub(now());
            tracing::info!(
                days = left / 86_400,
                "the webhook serves another certificate"
            );
        }
        self.ctx
            .metrics
            .certificate_expiry
            .set(i64::try_from(current.expires).unwrap_or(i64::MAX));
        let verified = bundles(&seen.configuration)
            .map(|bundle| current.verify(bundle.unwrap_or_default(), &self.names[0], now()))
            .find_map(Result::err);
        if let Some(error) = verified {
            self.ctx.readiness.needs(READY);
            return Err(error.to_string());
        }
        self.ctx.readiness.has(READY);
        let mark = fingerprint(&current.certificate);
        let replica = &self.ctx.settings.identity;
        if seen.stored.note(replica, &mark, now(), &self.timing) {
            // A conflict with another replica: the next look tries again.
            self.store(seen).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    // === reading and writing ===

    fn secret_name(&self) -> String {
        format!("{}-webhook", self.ctx.settings.installation)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.ctx.client.clone(), &self.ctx.settings.namespace)
    }

    fn configurations(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.ctx.client.clone())
    }

    fn failed<'a>(
        &'a self,
        verb: &'static str,
        kind: &'static str,
        name: &'a str,
    ) -> impl Fn(kube::Error) -> ApiError + 'a {
        move |source| ApiError {
            verb,
            kind: kind.to_owned(),
            namespace: if kind == "Secret" {
                self.ctx.settings.namespace.clone()
            } else {
                String::new()
            },
            name: name.to_owned(),
            source,
        }
    }
}

/// The bundle of each webhook of a configuration.
fn bundles(
    configuration: &MutatingWebhookConfiguration,
) -> impl Iterator<Item = Option<&[u8]>> + '_ {
    let webhooks = configuration.webhooks.iter().flatten();
    webhooks.map(|webhook| {
        let bundle = webhook.client_config.ca_bundle.as_ref();
        bundle.map(|ByteString(bytes)| bytes.as_slice())
    })
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs()
}
