//! No secret where it does not belong (I7): the passwords of a tier are looked for in everything that
//! people without a right to Secrets may read.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _};

use super::{Live, TIER, Tier};
use crate::environment::unusable;

impl Live {
    /// Where a password of the tier stands in clear: objects, events, logs. Empty, if all is well.
    pub async fn leaks(&self, tier: &Tier) -> Vec<String> {
        let passwords = self.passwords().await;
        let mut found = Vec::new();
        let mut look = |place: String, text: &str| {
            if passwords.iter().any(|password| text.contains(password)) {
                found.push(place);
            }
        };
        for kind in [
            "cachetiers",
            "pods",
            "configmaps",
            "statefulsets",
            "services",
            "events",
        ] {
            let told = self.kubectl(&["get", kind, "-o", "json"]);
            if !told.status.success() {
                unusable(&format!("kubectl get {kind}: {told:?}"));
            }
            look(kind.to_owned(), &String::from_utf8_lossy(&told.stdout));
        }
        look("the operator's log".to_owned(), &self.operator_log());
        for (pods, container) in [
            (tier.servers().await, "redis"),
            (tier.sentinels().await, "sentinel"),
        ] {
            for pod in pods {
                let name = pod.name_any();
                let log = self.cluster.logs(&self.namespace, &name, container);
                look(format!("the log of {name}"), &log);
            }
        }
        found
    }

    async fn passwords(&self) -> Vec<String> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = secrets.get(&format!("{TIER}-auth")).await;
        let secret = secret.unwrap_or_else(|error| unusable(&format!("no passwords: {error}")));
        let values = secret.data.unwrap_or_default().into_values();
        let texts = values.filter_map(|bytes| String::from_utf8(bytes.0).ok());
        let passwords: Vec<String> = texts.filter(|text| text.len() >= 16).collect();
        if passwords.is_empty() {
            unusable("the tier has no passwords");
        }
        passwords
    }
}
