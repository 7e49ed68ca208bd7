//! Where the UNIX socket of a sidecar may be. In a pod its folder is a small empty volume, mounted in
//! every container: what an image or Kubernetes has in that folder would be gone. Asked before a tier
//! is served and before a pod gets its sidecar.

use std::path::{Component, Path};

use policy::names;

/// Where the API server mounts the token of a service account into every container that has
/// nothing there.
pub const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Folders of the sidecar, of Kubernetes and of the kernel, with all that is below. In most images
/// `/var/run` is `/run`.
const CLOSED: [&str; 6] = [
    names::SIDECAR_FOLDER,
    "/var/run/secrets",
    "/run/secrets",
    "/proc",
    "/sys",
    "/dev",
];

/// Folders in which everybody has something; a folder below is one's own.
const SHARED: [&str; 34] = [
    "/",
    "/bin",
    "/boot",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/run",
    "/run/lock",
    "/sbin",
    "/srv",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/sbin",
    "/usr/sbin",
    "/usr/share",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/lock",
    "/var/log",
    "/var/run",
    "/var/spool",
    "/var/tmp",
];

/// The folder of a file.
pub fn folder(path: &str) -> &str {
    let (folder, _) = path.rsplit_once('/').unwrap_or(("", path));
    if folder.is_empty() { "/" } else { folder }
}

/// What follows the name of the field where the socket cannot be at this path: why, and the remedy.
pub fn refusal(path: &str) -> Option<String> {
    let folder = folder(path);
    // Step by step: `/tmp/.` is `/tmp`.
    let steps = Path::new(folder);
    let back = steps.components().any(|step| step == Component::ParentDir);
    let closed = CLOSED.iter().any(|one| steps.starts_with(one));
    let shared = SHARED.iter().any(|one| steps == Path::new(one));
    (back || closed || shared).then(|| {
        format!(
            "is {path:?}: an empty volume would be mounted over {folder} in every container of a pod; give it a folder of its own, such as /run/pannier/redis.sock"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_a_folder_that_nobody_else_needs() {
        for path in [
            "/run/pannier/redis.sock",
            "/var/run/pannier/redis.sock",
            "/tmp/pannier/redis.sock",
            "/etc/pannier-cache/redis.sock",
            "/devices/redis.sock",
            "/cache/redis.sock",
        ] {
            assert_eq!(refusal(path), None, "{path}");
        }
        for path in [
            "/tmp/redis.sock",
            "/tmp/./redis.sock",
            "/run/pannier/../redis.sock",
            "/redis.sock",
            "/var/run/redis.sock",
            "/usr/local/redis.sock",
            "/etc/pannier/redis.sock",
            "/etc/pannier/credentials/redis.sock",
            "/var/run/secrets/kubernetes.io/serviceaccount/redis.sock",
            "/run/secrets/redis.sock",
            "/proc/1/redis.sock",
            "/dev/shm/redis.sock",
        ] {
            let said = refusal(path).unwrap();
            assert!(said.starts_with(&format!("is {path:?}: ")), "{said}");
        }
    }
}
