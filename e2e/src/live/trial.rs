//! One thing that happens to a tier under load, and what must be true of it: two servers never accept
//! writes at a time (I2), only the pods that had to were replaced (I5), and what was measured.

use super::{App, Change, Record, Sampler, Tier, Writer};

/// A case under way.
pub struct Trial {
    name: String,
    tier: Tier,
    /// The load.
    pub writer: Writer,
    sampler: Sampler,
    before: Change,
}

/// How it went.
#[derive(Debug)]
pub struct Outcome {
    /// What happened.
    pub name: String,
    /// What the writer was told.
    pub record: Record,
    /// Pods that were replaced or restarted.
    pub changed: Vec<String>,
}

impl Trial {
    /// Begins to write and to sample.
    pub async fn begin(tier: &Tier, app: &App, name: &str) -> Self {
        let before = tier.snapshot().await;
        let sampler = Sampler::start(tier);
        Self {
            name: name.to_owned(),
            tier: tier.clone(),
            writer: Writer::start(app),
            sampler,
            before,
        }
    }

    /// Waits until the tier is as it should be and is written to again, then judges.
    pub async fn end(self) -> Outcome {
        self.writer.until_written(100);
        let converged = self.tier.until_ready().await;
        self.writer.until_written(100);
        let record = self.writer.stop();
        let samples = self.sampler.stop();
        let changed = self.tier.snapshot().await.since(&self.before);
        println!(
            "measured: {}: {}; {} probes, {} primaries; ready {converged:.1?} after writes resumed",
            self.name,
            record.summary(),
            samples.count(),
            samples.primaries().len(),
        );
        let overlaps = samples.overlaps();
        assert!(
            overlaps.is_empty(),
            "{}: two primaries: {overlaps:?}",
            self.name
        );
        assert!(
            samples.count() > 20,
            "{}: the servers were sampled",
            self.name
        );
        Outcome {
            name: self.name,
            record,
            changed,
        }
    }
}
