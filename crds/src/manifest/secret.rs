//! A Secret of a manifest. Neither messages nor `Debug` output show what it holds.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::ByteString;
use serde_json::Value;

use crate::structure::Finding;

/// A Secret: what `stringData` says wins over `data`, as in Kubernetes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its namespace, where given.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    entries: BTreeMap<String, String>,
}

impl Secret {
    /// A Secret as the API server has it; entries that are no text are left out.
    pub fn of(secret: &k8s_openapi::api::core::v1::Secret) -> Self {
        let entries = secret.data.iter().flatten().filter_map(|(key, value)| {
            let text = String::from_utf8(value.0.clone()).ok()?;
            Some((key.clone(), text))
        });
        Self {
            namespace: secret.metadata.namespace.clone(),
            name: secret.metadata.name.clone().unwrap_or_default(),
            entries: entries.collect(),
        }
    }

    /// The text under a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.get(key).map(String::as_str)
    }

    /// The names of its keys, for messages.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(super) fn read(manifest: &Value) -> Result<Self, Finding> {
        let metadata = &manifest["metadata"];
        let name = metadata["name"].as_str().ok_or_else(|| Finding {
            path: "metadata.name".to_owned(),
            message: "is missing; give the Secret a name".to_owned(),
        })?;
        let mut entries = BTreeMap::new();
        for (block, encoded) in [("data", true), ("stringData", false)] {
            for (key, value) in manifest[block].as_object().into_iter().flatten() {
                let text = decode(value, encoded).ok_or_else(|| Finding {
                    path: format!("{block}.{key}"),
                    message: if encoded {
                        "must be a text in base64; write it under stringData as it is".to_owned()
                    } else {
                        "must be a text; put it in quotes".to_owned()
                    },
                })?;
                entries.insert(key.clone(), text);
            }
        }
        Ok(Self {
            namespace: metadata["namespace"].as_str().map(ToOwned::to_owned),
            name: name.to_owned(),
            entries,
        })
    }
}

fn decode(value: &Value, encoded: bool) -> Option<String> {
    if !encoded {
        return value.as_str().map(ToOwned::to_owned);
    }
    let ByteString(bytes) = serde_json::from_value(value.clone()).ok()?;
    String::from_utf8(bytes).ok()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("keys", &self.entries.keys())
            .finish_non_exhaustive()
    }
}
