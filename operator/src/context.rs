//! What every reconcile is given.

use std::{collections::HashMap, sync::Arc};

use kube::Client;
use kube_runtime::events::{Recorder, Reporter};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    claim::Claims, metrics::Metrics, readiness::Readiness, retry::Retries, settings::Settings,
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
    /// When figures of sidecars were last written to the status of a tier, by its UID.
    pub figures_written: Mutex<HashMap<String, Instant>>,
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
            figures_written: Mutex::default(),
            stop,
        })
    }

    /// Ends the process in an orderly way; the first reason is the one that is told.
    pub fn end(&self, reason: String) {
        // A full channel means that an end is under way.
        let _ = self.stop.try_send(reason);
    }
}
