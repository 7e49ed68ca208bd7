//! What happens to tiers: each case does one thing under load, checks what must be true after it, and
//! prints what it measured. Short and long forms are composed of them.

pub mod change;
pub mod data;
pub mod loss;
pub mod nodes;
pub mod pods;
pub mod removal;

use std::time::Duration;

use super::{Outcome, Tier};

/// Goal for the pause of a planned switch.
pub const PLANNED: Duration = Duration::from_secs(2);
/// Goal for the time after which writes resume when nobody planned it.
pub const UNPLANNED: Duration = Duration::from_secs(10);

impl Outcome {
    /// Nothing was lost.
    pub fn was_planned(&self) -> &Self {
        let name = &self.name;
        assert_eq!(
            self.record.lost,
            [],
            "{name}: what is planned loses nothing"
        );
        self.compare(PLANNED)
    }

    /// Prints the pause beside its goal. Whoever waits for writes fails after a minute; how long it
    /// took is not judged, for the machine may have other things to do.
    pub fn compare(&self, goal: Duration) -> &Self {
        let pause = self.record.longest_pause();
        let word = if pause <= goal { "met" } else { "missed" };
        println!("measured: {}: goal {goal:?} {word}", self.name);
        self
    }

    /// What was lost was acknowledged within this time: replication is asynchronous.
    pub fn lost_within(&self, window: Duration) -> &Self {
        let lost = self.record.window_of_loss();
        assert!(
            lost <= window,
            "{}: lost what was acknowledged within {lost:?}",
            self.name
        );
        self
    }

    /// No other pods were replaced or restarted than these (I5).
    pub fn changed_only(&self, pods: &[String]) -> &Self {
        let name = &self.name;
        assert_eq!(
            self.changed, pods,
            "{name}: pods that were replaced or restarted"
        );
        self
    }
}

/// Neither the node with the DNS nor the one with the primary: both get cut.
pub async fn app_node(tier: &Tier) -> String {
    let primary = tier.primary().await;
    let taken = tier.cluster.node_of(&primary).name();
    if taken == "node2" { "node3" } else { "node2" }.to_owned()
}
