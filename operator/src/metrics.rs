//! The operator's own figures, without a label that could grow without bound.

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
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
        let leader = IntGauge::new(
            "pannier_operator_leader",
            "1 while this process leads, else 0.",
        )
        .expect("the name is valid");
        for collector in [
            Box::new(reconciles.clone()) as Box<dyn prometheus::core::Collector>,
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

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
