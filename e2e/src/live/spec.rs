//! The tiers that tests begin with.

use serde_json::{Value as Json, json};

use super::{App, Live, Tier, cases::app_node};

/// A primary with two replicas.
pub fn replicated() -> Json {
    json!({"topology": "Replicated", "replicasPerShard": 2, "memory": "64Mi"})
}

/// One server.
pub fn standalone() -> Json {
    json!({"topology": "Standalone", "memory": "64Mi"})
}

/// The same with volumes.
pub fn kept(mut redis: Json) -> Json {
    redis["persistence"] = json!({"mode": "Aof", "size": "64Mi"});
    redis
}

/// A Redis that somebody else runs; the Secret holds its URL.
pub fn external(secret: &str) -> Json {
    json!({"topology": "External", "external": {"urlSecretRef": {"name": secret}}})
}

impl Live {
    /// A tier, ready, and an app that writes to it; `redis` is its `spec.redis`.
    pub async fn serving(&self, redis: &Json) -> (Tier, App) {
        let tier = self.apply(redis.clone()).await;
        let took = tier.until_ready().await;
        println!(
            "measured: {}: Ready {took:.1?} after kubectl apply",
            self.namespace
        );
        let app = self.app("app", &app_node(&tier).await).await;
        (tier, app)
    }
}
