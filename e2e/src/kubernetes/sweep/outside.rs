//! Small files that containerd and the kubelet keep at fixed places, whatever they are told: sockets
//! of containerd's shims, results of the network plugins, links to the logs of containers. Those
//! of a run are known by its folder or name.

use std::{
    fs,
    io::ErrorKind,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

const RESULTS: &str = "/var/lib/cni/results";
const LOG_LINKS: &str = "/var/log/containers";
const DEVICES: &str = "/var/lib/kubelet/device-plugins/kubelet.sock";
const SHIM_SOCKETS: &str = "/run/containerd/s/";

/// Removes them; what cannot be removed is harmless.
pub fn remove(folder: &Path) {
    for file in found(folder) {
        let _ = fs::remove_file(file);
    }
    // The place of this one is compiled into the kubelet, and nodes take it from each other.
    if UnixStream::connect(DEVICES).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    {
        let _ = fs::remove_file(DEVICES);
    }
}

/// All such files of a run.
pub fn found(folder: &Path) -> Vec<PathBuf> {
    let mut files = shim_sockets(folder);
    let sandboxes: Vec<String> = tasks(folder)
        .filter_map(|task| Some(task.file_name()?.to_str()?.to_owned()))
        .collect();
    let prefix = format!("pannier-{}-", super::name(folder));
    files.extend(list(Path::new(RESULTS)).filter(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let of_loopback = |id: &String| name == format!("cni-loopback-{id}-lo");
        name.starts_with(&prefix) || sandboxes.iter().any(of_loopback)
    }));
    files.extend(
        list(Path::new(LOG_LINKS))
            .filter(|link| fs::read_link(link).is_ok_and(|target| target.starts_with(folder))),
    );
    files
}

/// Whether a kubelet runs here that no test has started: ours would take its place from it.
pub fn foreign_kubelet() -> bool {
    let mark = format!("{}=", super::MARK).into_bytes();
    list(Path::new("/proc")).any(|process| {
        let is_kubelet = fs::read(process.join("comm")).is_ok_and(|name| name == b"kubelet\n");
        is_kubelet
            && fs::read(process.join("environ")).is_ok_and(|all| {
                !all.split(|byte| *byte == 0)
                    .any(|one| one.starts_with(&mark))
            })
    })
}

/// Folders of the containers that were not removed in order.
fn tasks(folder: &Path) -> impl Iterator<Item = PathBuf> {
    list(folder)
        .map(|node| node.join("containerd/state/io.containerd.runtime.v2.task/k8s.io"))
        .flat_map(|tasks| list(&tasks).collect::<Vec<_>>())
}

/// Each shim notes its socket in its folder.
fn shim_sockets(folder: &Path) -> Vec<PathBuf> {
    tasks(folder)
        .filter_map(|task| fs::read_to_string(task.join("address")).ok())
        .filter_map(|address| Some(address.trim().strip_prefix("unix://")?.to_owned()))
        .filter(|socket| socket.starts_with(SHIM_SOCKETS))
        .map(PathBuf::from)
        .collect()
}

fn list(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}
