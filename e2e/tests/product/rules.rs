//! What is judged after each scenario with traffic.

use std::time::Duration;

use e2e::app::{Report, Tally};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use policy::names::SIDECAR;

use super::space::{Space, status};

/// Goal for the time after which an app's writes go on.
pub const FAILOVER: Duration = Duration::from_secs(10);
/// Whoever waits longer has not recovered. Between the goal and this the machine may be to blame.
const LIMIT: Duration = Duration::from_mins(2);

/// What all apps of a scenario have seen, one after the other.
pub struct Seen(Vec<(String, Report)>);

impl Seen {
    /// Asks them.
    pub fn by(space: &Space, pods: &[Pod]) -> Self {
        let ask = |pod: &Pod| (pod.name_any(), space.report(pod));
        Self(pods.iter().map(ask).collect())
    }

    /// Asks them once every one is served again.
    pub async fn once_served(space: &Space, pods: &[Pod]) -> Self {
        space.until_all_served(pods).await;
        Self::by(space, pods)
    }

    fn sum(&self, of: impl Fn(&Report) -> u64) -> u64 {
        self.0.iter().map(|(_, report)| of(report)).sum()
    }

    /// The longest pause of writes that any of them saw.
    pub fn pause(&self) -> Duration {
        let gaps = self
            .0
            .iter()
            .map(|(_, report)| report.writes.longest_gap_ms);
        Duration::from_millis(gaps.max().unwrap_or_default())
    }

    /// One line about it.
    pub fn line(&self) -> String {
        let reads = self.0.iter().map(|(_, one)| one.reads.longest_gap_ms);
        format!(
            "{} apps, {} writes ({} failed, longest pause {:.1?}), {} cached reads ({} failed, longest pause {:.1?})",
            self.0.len(),
            self.sum(|one| one.writes.answered),
            self.sum(|one| one.writes.failed),
            self.pause(),
            self.sum(|one| one.reads.answered),
            self.sum(|one| one.reads.failed),
            Duration::from_millis(reads.max().unwrap_or_default()),
        )
    }

    /// No command failed.
    pub fn nothing_failed(&self, what: &str) -> &Self {
        self.no_read_failed(what);
        self.none(what, |report| &report.writes)
    }

    /// No cached read failed, and there were some.
    pub fn no_read_failed(&self, what: &str) -> &Self {
        self.none(what, |report| &report.reads)
    }

    fn none(&self, what: &str, of: impl Fn(&Report) -> &Tally) -> &Self {
        for (name, report) in &self.0 {
            let tally = of(report);
            assert_eq!(tally.failed, 0, "{what}: {name}: {report:#?}");
            assert!(tally.answered > 50, "{what}: {name}: {report:#?}");
        }
        self
    }

    /// Writes came to no harm for longer than that; says whether the goal was met.
    pub fn resumed_within(&self, what: &str, goal: Duration) -> &Self {
        let pause = self.pause();
        let word = if pause <= goal { "met" } else { "missed" };
        println!("measured: {what}: writes: goal {goal:?} {word}");
        assert!(pause < LIMIT, "{what}: {pause:?}");
        self
    }
}

/// Restarts of each container of the apps: whatever happens elsewhere, there are none.
pub async fn nothing_restarted(space: &Space, before: &[Pod]) {
    let now = space.traffic().await;
    let names = |pods: &[Pod]| {
        let all = pods.iter().map(|pod| pod.uid().unwrap_or_default());
        all.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(names(&now), names(before), "the apps' pods were replaced");
    for pod in &now {
        for container in ["app", SIDECAR] {
            let restarts = status(pod, container).restart_count;
            assert_eq!(restarts, 0, "{container} of {}", pod.name_any());
        }
    }
}
