//! Sixth step: writes the objects, in an order in which none waits for a later one. Safe to stop
//! at any write: the next reconcile begins again and finds what is there.

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, ResourceExt as _,
    api::{ObjectMeta, PostParams},
};

use super::{
    build::{Absent, Resources, Shared},
    object_names::Component,
    passwords::{self, Write},
    sharing::{self, Sharing},
    validate::ValidatedTier,
};
use crate::{
    api_error::ApiError,
    apply::{Applier, ApplyError, Child, Owner},
    context::Ctx,
};

/// What is there after the writes.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Objects that are on their way out and come again: their names.
    pub waiting: Vec<String>,
    /// Objects that were written.
    pub writes: u32,
    /// The copies in other namespaces.
    pub sharing: Sharing,
    /// Version of the agents' files, where servers are run: it changes when one of them does.
    pub mounted: Vec<String>,
}

/// Writes the objects of a tier.
pub async fn apply(
    ctx: &Ctx,
    tier: &ValidatedTier,
    sharing: Sharing,
    resources: Resources,
) -> Result<Written, ApplyError> {
    let applier = Applier {
        client: &ctx.client,
        namespace: &tier.names.namespace,
        owner: Owner::Reference(tier.owner.clone()),
    };
    let mut written = Written::default();
    let Resources {
        service_accounts,
        shared,
        bindings,
        config_maps,
        network_policies,
        services,
        disruption_budgets,
        stateful_sets,
        absent,
    } = resources;
    written.all(&applier, service_accounts).await?;
    let Shared { config_map, secret } = shared.clone();
    // The Secret first: a configuration must not name files that are not there yet.
    written.all(&applier, secret.into_iter().collect()).await?;
    written.all(&applier, vec![config_map]).await?;
    written.all(&applier, bindings).await?;
    written.mounted = written.all(&applier, config_maps).await?;
    written.all(&applier, network_policies).await?;
    written.all(&applier, services).await?;
    written.all(&applier, disruption_budgets).await?;
    Box::pin(written.all(&applier, stateful_sets)).await?;
    written.remove(&applier, absent).await?;
    written.sharing = sharing::apply(ctx, tier, sharing, &shared).await;
    let label = ["object"];
    ctx.metrics
        .writes
        .with_label_values(&label)
        .inc_by(u64::from(written.writes));
    Ok(written)
}

// === impl Written ===

impl Written {
    /// Applies objects of one kind; gives their versions.
    async fn all<K: Child>(
        &mut self,
        applier: &Applier<'_>,
        objects: Vec<K>,
    ) -> Result<Vec<String>, ApplyError> {
        let mut versions = Vec::new();
        for object in objects {
            let name = object.name_any();
            let done = applier.apply(object).await?;
            self.writes += u32::from(done.wrote());
            match done.object() {
                Some(object) => versions.extend(object.resource_version()),
                None => self.waiting.push(format!("{} {name}", K::kind(&()))),
            }
        }
        Ok(versions)
    }

    async fn remove(&mut self, applier: &Applier<'_>, absent: Absent) -> Result<(), ApplyError> {
        use k8s_openapi::api::{core::v1::Service, policy::v1::PodDisruptionBudget};
        let Absent {
            secrets,
            services,
            disruption_budgets,
        } = absent;
        for name in secrets {
            self.writes += u32::from(applier.remove::<Secret>(&name).await?);
        }
        for name in services {
            self.writes += u32::from(applier.remove::<Service>(&name).await?);
        }
        for name in disruption_budgets {
            self.writes += u32::from(applier.remove::<PodDisruptionBudget>(&name).await?);
        }
        Ok(())
    }
}

/// Brings the Secret with the passwords to its state; gives its version. Not by server-side apply:
/// it is created only where it is known to be absent, and replaced only as it was read.
pub async fn write_passwords(
    ctx: &Ctx,
    tier: &ValidatedTier,
    found: Option<&Secret>,
    write: Write,
    rotated: Option<&str>,
) -> Result<Option<String>, ApplyError> {
    let names = &tier.names;
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &names.namespace);
    let failed = |verb| {
        move |source| ApiError {
            verb,
            kind: "Secret".to_owned(),
            namespace: names.namespace.clone(),
            name: names.auth(),
            source,
        }
    };
    let params = PostParams {
        field_manager: Some(policy::names::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let owner = Owner::Reference(tier.owner.clone());
    if let Some(stranger) = found.filter(|secret| !owner.owns(*secret)) {
        return Err(owner.stranger(stranger));
    }
    let content = |data| {
        let mut secret = Secret {
            metadata: found.map_or_else(
                || ObjectMeta {
                    owner_references: Some(vec![tier.owner.clone()]),
                    ..names.meta(names.auth(), Component::Redis, None)
                },
                |found| found.metadata.clone(),
            ),
            type_: Some("Opaque".to_owned()),
            data: Some::<std::collections::BTreeMap<String, ByteString>>(data),
            ..Secret::default()
        };
        secret.metadata.managed_fields = None;
        if let Some(rotated) = rotated {
            secret
                .annotations_mut()
                .insert(passwords::ROTATED.to_owned(), rotated.to_owned());
        }
        secret
    };
    let written = match write {
        Write::Nothing => return Ok(found.and_then(kube::ResourceExt::resource_version)),
        Write::Create(data) => api
            .create(&params, &content(data))
            .await
            .map_err(failed("create"))?,
        Write::Replace(data) => api
            .replace(&names.auth(), &params, &content(data))
            .await
            .map_err(failed("update"))?,
    };
    tracing::info!(
        namespace = names.namespace,
        name = names.auth(),
        "wrote the passwords"
    );
    Ok(written.resource_version())
}
