//! Ways to an API server: an address, whom to trust, and a token. A proxy in between only changes
//! the first two.

use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::environment::unusable;

/// How a client reaches an API server, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// For example `https://127.0.0.1:6443`.
    pub address: String,
    /// PEM file of the authority that signed the server's certificate.
    pub authority: PathBuf,
    /// Bearer token.
    pub token: String,
}

impl Access {
    /// The same server as somebody else.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// The same user by another address, for example that of a proxy, and its authority.
    #[must_use]
    pub fn by(mut self, address: impl Into<String>, authority: &Path) -> Self {
        self.address = address.into();
        self.authority = PathBuf::from(authority);
        self
    }

    /// The text of a kubeconfig file that names another file, the authority's.
    pub fn kubeconfig(&self) -> String {
        let mut cluster = json!({"server": self.address});
        if self.address.starts_with("https:") {
            cluster["certificate-authority"] = json!(self.authority);
        }
        self.text(&cluster)
    }

    /// The text of a kubeconfig file that needs no other.
    pub fn portable(&self) -> std::io::Result<String> {
        let authority = ByteString(std::fs::read(&self.authority)?);
        Ok(self.text(&json!({
            "server": self.address,
            "certificate-authority-data": authority,
        })))
    }

    /// JSON is YAML as well.
    fn text(&self, cluster: &Value) -> String {
        let file = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "pannier-e2e", "cluster": cluster}],
            "users": [{ "name": "user", "user": { "token": self.token } }],
            "contexts": [{
                "name": "pannier-e2e",
                "context": { "cluster": "pannier-e2e", "user": "user" },
            }],
            "current-context": "pannier-e2e",
        });
        format!("{file:#}\n")
    }

    /// A client. It belongs to the runtime it is made in: one per test, not one for all.
    pub async fn client(&self) -> kube::Client {
        let parsed: Kubeconfig =
            serde_yaml::from_str(&self.kubeconfig()).expect("it is written above");
        let config =
            kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await;
        config
            .map_err(|error| error.to_string())
            .and_then(|config| kube::Client::try_from(config).map_err(|error| error.to_string()))
            .unwrap_or_else(|error| unusable(&format!("no client for {}: {error}", self.address)))
    }
}
