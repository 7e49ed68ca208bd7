//! The whole product as a user has it, on three real nodes: images, the chart installed with Helm, two
//! pods of the operator, apps with injected sidecars. Run by `make e2e`; `docs/shown.md`
//! says what was seen. One test at a time: they share the cluster, drain its nodes and measure.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic is the report; clippy.toml covers only functions marked #[test]"
)]

#[path = "product/away.rs"]
mod away;
#[path = "product/ends.rs"]
mod ends;
#[path = "product/figures.rs"]
mod figures;
#[path = "product/flows.rs"]
mod flows;
#[path = "product/loss.rs"]
mod loss;
#[path = "product/restarts.rs"]
mod restarts;
#[path = "product/rotation.rs"]
mod rotation;
#[path = "product/rules.rs"]
mod rules;
#[path = "product/space.rs"]
mod space;
#[path = "product/starts.rs"]
mod starts;
#[path = "product/topologies.rs"]
mod topologies;
#[path = "product/trial.rs"]
mod trial;
#[path = "product/upgrade.rs"]
mod upgrade;
#[path = "product/webhook.rs"]
mod webhook;
#[path = "product/wishes.rs"]
mod wishes;
#[path = "product/world.rs"]
mod world;
