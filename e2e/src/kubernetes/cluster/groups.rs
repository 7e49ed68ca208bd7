//! Control groups of the nodes: a folder per run and node, below which the kubelet makes its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::super::{Unavailable, sweep};

/// The control group of a node, as the kubelet is told it.
pub fn of_node(run: &str, number: usize) -> String {
    format!("/{}/{run}/n{number}", sweep::CGROUP)
}

/// Creates the groups of all nodes in every hierarchy of this machine, version 1 or 2.
pub fn create(run: &str, nodes: usize) -> Result<(), Unavailable> {
    let hierarchies = sweep::hierarchies();
    if hierarchies.is_empty() {
        return Err(Unavailable::NotPermitted(
            "it needs control groups below /sys/fs/cgroup".to_owned(),
        ));
    }
    for hierarchy in hierarchies {
        // The version 2 half of a hybrid machine has no controllers: nobody looks there.
        if hierarchy.ends_with("unified") {
            continue;
        }
        for number in 1..=nodes {
            descend(&hierarchy, &of_node(run, number)).map_err(|error| {
                Unavailable::NotPermitted(format!(
                    "it must create control groups in {}: {error}",
                    hierarchy.display()
                ))
            })?;
        }
    }
    Ok(())
}

/// Creates a group step by step; each step passes on what its parent may use.
fn descend(hierarchy: &Path, group: &str) -> io::Result<()> {
    let mut parent = hierarchy.to_owned();
    for step in Path::new(group.trim_start_matches('/')) {
        let child = parent.join(step);
        delegate(&parent)?;
        match fs::create_dir(&child) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        inherit(&parent, &child)?;
        parent = child;
    }
    delegate(&parent)
}

/// Version 2: children may use every controller that the group has.
fn delegate(group: &Path) -> io::Result<()> {
    let Ok(controllers) = fs::read_to_string(group.join("cgroup.controllers")) else {
        return Ok(());
    };
    let enabled = fs::read_to_string(group.join("cgroup.subtree_control"))?;
    for controller in controllers.split_whitespace() {
        if !enabled.split_whitespace().any(|one| one == controller) {
            fs::write(
                group.join("cgroup.subtree_control"),
                format!("+{controller}"),
            )?;
        }
    }
    Ok(())
}

/// Version 1: a new group has no processors and no memory until it is told which.
fn inherit(parent: &Path, child: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own: PathBuf = child.join(file);
        if child.join("cgroup.controllers").exists() || !own.exists() {
            continue;
        }
        fs::write(own, fs::read(parent.join(file))?)?;
    }
    Ok(())
}

/// Leaves the group of a process hardly more memory than it has now: whoever asks for more there is
/// killed by the kernel, as at the limit of its container.
pub fn squeeze(process: i32) -> io::Result<()> {
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    // Such as `4:memory:/a/b` in version 1, `0::/a/b` in version 2.
    let found = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = path.trim_start_matches('/');
        let (root, own, limit) = match controllers {
            "memory" => ("/sys/fs/cgroup/memory", "rss", "memory.limit_in_bytes"),
            "" => ("/sys/fs/cgroup", "anon", "memory.max"),
            _ => return None,
        };
        let group = Path::new(root).join(path);
        group.join(limit).exists().then_some((group, own, limit))
    });
    let (group, own, limit) =
        found.ok_or_else(|| io::Error::other(format!("no memory group: {groups}")))?;
    let stat = fs::read_to_string(group.join("memory.stat"))?;
    let used = stat.lines().find_map(|line| {
        let (name, bytes) = line.split_once(' ')?;
        (name == own).then(|| bytes.parse::<u64>().ok())?
    });
    let used = used.ok_or_else(|| io::Error::other(format!("no {own} in memory.stat: {stat}")))?;
    // Pages of files must go first, and some of the kernel's never do.
    let mut last = Ok(());
    for mebibytes in 1..16 {
        let bytes = used + (mebibytes << 20);
        last = fs::write(group.join(limit), bytes.to_string());
        if last.is_ok() {
            break;
        }
    }
    last
}
