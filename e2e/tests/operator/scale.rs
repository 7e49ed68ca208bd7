//! Many tiers at once, in short: `operator-scale` measures the full number.

use std::time::Duration;

use e2e::{
    environment::available,
    kubernetes::{ControlPlane, apply_crds},
    scale::{Amount, measure},
};

#[tokio::test]
async fn many_tiers_settle_and_then_nothing_is_written() {
    let name = "many_tiers_settle_and_then_nothing_is_written";
    // One of its own: the operator reconciles the whole cluster.
    let Some(plane) = available(name, ControlPlane::start()) else {
        return;
    };
    apply_crds(&plane.client().await).await;
    let amount = Amount {
        none: 30,
        external: 20,
        standalone: 10,
    };
    let figures = measure(&plane, amount, Some(Duration::from_secs(12))).await;
    println!("{figures:?}");
}
