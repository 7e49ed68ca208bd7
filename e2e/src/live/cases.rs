//! What happens to tiers: each case does one thing under load, checks what must be true after it, and
//! prints what it measured. Short and long forms are composed of them.

pub mod change;
pub mod data;
pub mod nodes;
pub mod pods;

use std::time::Duration;

use super::{Outcome, Tier};

/// Longest pause of a planned switch.
pub const PLANNED: Duration = Duration::from_secs(2);
/// Longest time after which writes resume when nobody planned it.
pub const UNPLANNED: Duration = Duration::from_secs(10);

impl Outcome {
    /// Nothing was lost, and writes paused no longer than for a switch.
    pub fn was_planned(&self) -> &Self {
        assert_eq!(
            self.record.lost,
            [],
            "{}: a planned switch loses nothing",
            self.name
        );
        self.paused_at_most(PLANNED)
    }

    /// Writes resumed in time.
    pub fn paused_at_most(&self, longest: Duration) -> &Self {
        let pause = self.record.longest_pause();
        assert!(pause <= longest, "{}: no write for {pause:?}", self.name);
        self
    }

    /// No other pods were replaced or restarted than these (I5).
    pub fn changed_only(&self, pods: &[String]) -> &Self {
        assert_eq!(
            self.changed, pods,
            "{}: pods that were replaced or restarted",
            self.name
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
