//! The operator's own figures, without a label that could grow without bound.

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

/// The figures.
pub struct Metrics {
    registry: Registry,
    /// Reconciles by kind and result: `ok`, or the category of the failure.
    pub reconciles: IntCounterVec,
    /// How long a reconcile takes.
    pub duration: Histogram,
    /// Objects written, by verb.
    pub writes: IntCounterVec,
    /// 1 while this process leads.
    pub leader: IntGauge,
    /// Pods that came to the injector, by result and reason.
    pub injections: IntCounterVec,
    /// How long an answer of the injector takes.
    pub admission: Histogram,
    /// Events that could not be written.
    pub events_lost: IntCounter,
    /// Pods that should have a sidecar and have none; only the leader counts.
    pub uninjected: IntGauge,
    /// When the webhook's certificate ends, in seconds since 1970.
    pub certificate_expiry: IntGauge,
}

impl Metrics {
    /// All of them, at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let reconciles = IntCounterVec::new(
            Opts::new(
                "pannier_operator_reconciles_total",
                "Reconciles by kind and result.",
            ),
            &["kind", "result"],
        )
        .expect("the name is valid");
        let duration = Histogram::with_opts(
            HistogramOpts::new(
                "pannier_operator_reconcile_seconds",
                "How long a reconcile takes.",
            )
            .buckets(vec![
                0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
            ]),
        )
        .expect("the name is valid");
        let writes = IntCounterVec::new(
            Opts::new(
                "pannier_operator_writes_total",
                "Objects written, by what was written.",
            ),
            &["what"],
        )
        .expect("the name is valid");
        let leader = gauge(
            "pannier_operator_leader",
            "1 while this process leads, else 0.",
        );
        let injections = IntCounterVec::new(
            Opts::new(
                "pannier_operator_injections_total",
                "Reviews of the injector by result and reason.",
            ),
            &["result", "reason"],
        )
        .expect("the name is valid");
        let admission = Histogram::with_opts(
            HistogramOpts::new(
                "pannier_operator_admission_seconds",
                "How long an answer of the injector takes.",
            )
            .buckets(vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0,
            ]),
        )
        .expect("the name is valid");
        let events_lost = IntCounter::new(
            "pannier_operator_events_lost_total",
            "Events of the injector that could not be written.",
        )
        .expect("the name is valid");
        let uninjected = gauge(
            "pannier_uninjected_pods",
            "Pods that should have a sidecar and have none, as the leader counts them.",
        );
        let certificate_expiry = gauge(
            "pannier_webhook_certificate_expiry_seconds",
            "When the webhook's certificate ends, in seconds since 1970; 0 without a webhook.",
        );
        for collector in [
            Box::new(injections.clone()) as Box<dyn prometheus::core::Collector>,
            Box::new(admission.clone()),
            Box::new(events_lost.clone()),
            Box::new(uninjected.clone()),
            Box::new(certificate_expiry.clone()),
            Box::new(reconciles.clone()),
            Box::new(duration.clone()),
            Box::new(writes.clone()),
            Box::new(leader.clone()),
        ] {
            registry
                .register(collector)
                .expect("each name is registered once");
        }
        Self {
            registry,
            reconciles,
            duration,
            writes,
            leader,
            injections,
            admission,
            events_lost,
            uninjected,
            certificate_expiry,
        }
    }

    /// As Prometheus reads them.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "failed to encode metrics");
        }
        text
    }
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("the name is valid")
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
