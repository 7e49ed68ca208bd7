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
