//! Files and documents, bounded before they are read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize as _;
use serde_json::Value;

use super::LoadError;

/// Kubernetes itself takes no larger object.
const MAX_FILE: u64 = 3 << 20;

/// The file itself, or the manifests of a folder in the order of their names.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |source: io::Error| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let name = file.file_name().and_then(|name| name.to_str());
        // A mounted ConfigMap has hidden folders with copies beside the files.
        let hidden = name.is_none_or(|name| name.starts_with('.'));
        let extension = file.extension().and_then(|extension| extension.to_str());
        let manifest = matches!(extension, Some("yaml" | "yml" | "json"));
        if !hidden && manifest && !file.is_dir() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(LoadError::Empty(path.to_owned()));
    }
    files.sort();
    Ok(files)
}

/// The text of a file.
pub fn text(path: &Path) -> Result<String, LoadError> {
    let failed = |source: io::Error| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
            size,
            max: MAX_FILE,
        });
    }
    fs::read_to_string(path).map_err(failed)
}

/// The documents of a text. Nothing can be read after one that is not YAML.
pub fn documents(text: &str) -> Vec<Result<Value, String>> {
    let mut documents = Vec::new();
    // The time to read nested brackets grows with the square of their depth.
    if let Some(line) = policy::read::too_deep(text) {
        return vec![Err(format!(
            "is nested too deeply in line {line}: close the `[` and `{{`"
        ))];
    }
    for document in serde_yaml::Deserializer::from_str(text) {
        // By way of a YAML value: it refuses a field that is there twice.
        let value = serde_yaml::Value::deserialize(document)
            .map_err(|error| format!("is not YAML: {error}"))
            .and_then(|value| {
                serde_json::to_value(value).map_err(|error| {
                    format!(
                        "holds YAML that is not JSON, such as a field name that is no text: {error}"
                    )
                })
            });
        let broken = value.is_err();
        documents.push(value);
        if broken {
            break;
        }
    }
    documents
}
