//! What every reconcile is given.

use std::sync::Arc;

use kube::Client;
use kube_runtime::events::{Recorder, Reporter};
use tokio::sync::mpsc;

use crate::{
    claim::{ClaimError, Claims},
    metrics::Metrics,
    readiness::Readiness,
    retry::Retries,
    settings::Settings,
    visits::Visits,
    watch::Watches,
};

/// Shared by all reconciles of the process.
pub struct Ctx {
    /// The API server.
    pub client: Client,
    /// What this installation was told.
    pub settings: Settings,
    /// Namespaces that are ours to reconcile.
    pub claims: Claims,
    /// Publishes events.
    pub recorder: Recorder,
    /// Figures.
    pub metrics: Metrics,
    /// What is missing before the operator is ready.
    pub readiness: Readiness,
    /// Pauses after failures.
    pub retries: Retries,
    /// What the Redis behind each tier says.
    pub visits: Visits,
    /// How the watches are.
    pub watches: Arc<Watches>,
    /// Tells the process to end, and why.
    pub stop: mpsc::Sender<String>,
}

impl Ctx {
    /// Everything new.
    pub fn new(client: Client, settings: Settings, stop: mpsc::Sender<String>) -> Arc<Self> {
        let reporter = Reporter {
            controller: settings.installation.clone(),
            instance: Some(settings.identity.clone()),
        };
        Arc::new(Self {
            recorder: Recorder::new(client.clone(), reporter),
            claims: Claims::default(),
            client,
            settings,
            metrics: Metrics::new(),
            readiness: Readiness::default(),
            retries: Retries::default(),
            visits: Visits::default(),
            watches: Arc::default(),
            stop,
        })
    }

    /// Makes sure that a namespace is ours to reconcile. A process that finds another installation
    /// wherever it looks ends.
    pub async fn hold(&self, namespace: &str) -> Result<(), ClaimError> {
        let held = self.claims.hold(&self.client, &self.settings, namespace);
        held.await.inspect_err(|error| self.end_if_second(error))
    }

    /// As [`Self::hold`], for what only ends: nothing is claimed.
    pub async fn not_anothers(&self, namespace: &str) -> Result<(), ClaimError> {
        let ours = self.claims.check(&self.client, &self.settings, namespace);
        ours.await.inspect_err(|error| self.end_if_second(error))
    }

    fn end_if_second(&self, error: &ClaimError) {
        if matches!(error, ClaimError::Taken { .. }) && self.claims.is_second() {
            self.end(error.to_string());
        }
    }

    /// Ends the process in an orderly way; the first reason is the one that is told.
    pub fn end(&self, reason: String) {
        // A full channel means that an end is under way.
        let _ = self.stop.try_send(reason);
    }
}
