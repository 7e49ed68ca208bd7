//! How a container mounts a volume, in the pods of tiers and in those of apps.

use k8s_openapi::api::core::v1::VolumeMount;

/// The volume of that name at a path.
pub fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}
