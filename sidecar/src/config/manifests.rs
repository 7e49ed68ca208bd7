//! `--manifests`: the custom resources of a file or folder, for a run without a cluster.
//!
//! The crds crate reads, checks and compiles them; here they meet the environment.

use std::{fs, path::Path};

use crds::{CompileError, Compiled};

use super::{
    Read, Secret,
    error::{Problem, Problems},
    files::Files,
    redis::Given,
};

pub(super) fn read(
    path: &Path,
    given: Given,
    files: &mut Files,
    notes: &mut Vec<String>,
    problems: &mut Problems,
) -> Option<Read> {
    let mut fail = |message: String| {
        problems.push(Problem::Manifests {
            path: path.to_owned(),
            message,
        });
    };
    watch(path, files);
    let manifests = match crds::load_manifests(path) {
        Ok(manifests) => manifests,
        Err(error) => {
            fail(error.to_string());
            return None;
        }
    };
    let (first, fallback) = given.for_manifests();
    let compiled = match crds::compile(&manifests, first.as_deref()) {
        // Only a tier that asks for a URL and has none takes what may be the app's.
        Err(CompileError::NoSecret { or_url, .. }) if !or_url.is_empty() && fallback.is_some() => {
            crds::compile(&manifests, fallback.as_deref())
        }
        other => other,
    };
    let Compiled {
        config,
        credentials,
        notes: found,
    } = match compiled {
        Ok(compiled) => compiled,
        Err(error) => {
            fail(error.to_string());
            return None;
        }
    };
    notes.extend(found);
    let mut read = Read {
        config,
        ..Read::default()
    };
    if let Some(known) = credentials {
        let credentials = &mut read.credentials;
        credentials.username = known.username;
        credentials.password = known.password.map(Secret::new);
        credentials.sentinel_password = known.sentinel_password.map(Secret::new);
        credentials.ca_certificate = known.ca_certificate.map(Secret::new);
        credentials.client_certificate = known.client_certificate.map(Secret::new);
        credentials.client_key = known.client_key.map(Secret::new);
    }
    given.log_in(&mut read);
    Some(read)
}

/// The folder itself shows files that come and go, each file shows its changes.
fn watch(path: &Path, files: &mut Files) {
    files.add(path);
    let Ok(entries) = fs::read_dir(path) else {
        return;
    };
    for entry in entries.flatten() {
        let file = entry.path();
        if file
            .extension()
            .is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json")
        {
            files.add(&file);
        }
    }
}
