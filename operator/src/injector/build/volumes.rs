//! Volumes: what the sidecar reads, the folder of its socket, and nothing where a token would be.
//!
//! Configuration and credentials are one volume, so that both change at the same moment. Its files
//! can be read by every user of the pod: there is no group that both the sidecar and the kubelet
//! know without `fsGroup`, which would concern the volumes of the app as well.

use k8s_openapi::{
    api::core::v1::{
        ConfigMapProjection, EmptyDirVolumeSource, KeyToPath, PodSpec, ProjectedVolumeSource,
        SecretProjection, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use policy::names::{self, secret_file};

use super::{Changes, clients};
use crate::{
    injector::decide::{Plan, There},
    mount::mount,
    socket::{TOKEN_FOLDER, folder},
};

const CONFIG: &str = "pannier-config";
const NO_TOKEN: &str = "pannier-no-token";
const SOCKET: &str = "pannier-socket";
/// Names of the volumes.
pub const NAMES: [&str; 3] = [CONFIG, NO_TOKEN, SOCKET];

/// Adds the volumes, and the socket's folder to the containers of the app.
pub(super) fn add(spec: &PodSpec, plan: &Plan, changes: &mut Changes) {
    let existing = spec.volumes.as_deref().unwrap_or_default();
    let mut wanted = vec![config(plan), empty(NO_TOKEN)];
    wanted.extend(plan.unix_socket.as_ref().map(|_| empty(SOCKET)));
    let mut missing = Vec::new();
    for volume in wanted {
        match existing.iter().position(|one| one.name == volume.name) {
            None => missing.push(volume),
            // That of another tier reads another configuration.
            Some(index) if plan.there == There::Other => {
                changes.replace(["spec", "volumes", &index.to_string()], &volume);
            }
            Some(_) => {}
        }
    }
    changes.append(&["spec", "volumes"], spec.volumes.is_some(), &missing);
    if let Some(path) = &plan.unix_socket {
        for (at, container) in clients(spec, plan) {
            let mounts = container.volume_mounts.as_deref().unwrap_or_default();
            // What the app has there itself is its own.
            if mounts.iter().all(|one| one.mount_path != folder(path)) {
                let list = at.iter().map(String::as_str).chain(["volumeMounts"]);
                let list: Vec<&str> = list.collect();
                let exists = container.volume_mounts.is_some();
                changes.append(&list, exists, &[mount(SOCKET, folder(path), false)]);
            }
        }
    }
}

/// The mounts of the sidecar.
pub(super) fn of_sidecar(plan: &Plan) -> Vec<VolumeMount> {
    let mut mounts = vec![
        mount(CONFIG, names::SIDECAR_FOLDER, true),
        // Else the API server mounts the token of the app's account there.
        mount(NO_TOKEN, TOKEN_FOLDER, true),
    ];
    if let Some(path) = &plan.unix_socket {
        mounts.push(mount(SOCKET, folder(path), false));
    }
    mounts
}

/// Without the `ConfigMap` the pod waits: an empty configuration would be one without Redis. The
/// Secret is there before the `ConfigMap` that names its files; a tier without login has none.
fn config(plan: &Plan) -> Volume {
    let name = names::sidecar_objects(&plan.tier.name);
    let folder = names::SIDECAR_SECRETS
        .rsplit('/')
        .next()
        .unwrap_or_default();
    let item = |key: &str, path: String| KeyToPath {
        key: key.to_owned(),
        path,
        mode: None,
    };
    let file = names::SIDECAR_FILE;
    let secrets = secret_file::ALL.map(|key| item(key, format!("{folder}/{key}")));
    Volume {
        name: CONFIG.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o444),
            sources: Some(vec![
                VolumeProjection {
                    config_map: Some(ConfigMapProjection {
                        name: name.clone(),
                        items: Some(vec![item(file, file.to_owned())]),
                        optional: None,
                    }),
                    ..VolumeProjection::default()
                },
                VolumeProjection {
                    secret: Some(SecretProjection {
                        name,
                        items: Some(secrets.to_vec()),
                        optional: Some(true),
                    }),
                    ..VolumeProjection::default()
                },
            ]),
        }),
        ..Volume::default()
    }
}

fn empty(name: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity("1Mi".to_owned())),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}
