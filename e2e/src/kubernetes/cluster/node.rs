//! One node: containerd, kubelet and kube-proxy in the node's network namespace, all files below the
//! folder of the run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Duration,
};

use nix::sys::{
    signal::{Signal, kill},
    statfs::{OVERLAYFS_SUPER_MAGIC, statfs},
};
use serde_json::json;

use super::{
    groups,
    network::{Network, enter, node_address, pod_range, registry},
};
use crate::{
    debian::run,
    environment::unusable,
    kubernetes::{Binaries, NodePrograms, run::Run, sweep},
    process::Process,
    wait,
};

/// A node of a cluster.
pub struct Node {
    number: usize,
    folder: PathBuf,
    network: Network,
    ctr: PathBuf,
    processes: Mutex<Vec<Process>>,
}

impl Node {
    pub(super) fn start(
        run: &Run,
        binaries: &Binaries,
        programs: &NodePrograms,
        network: &Network,
        number: usize,
    ) -> Self {
        let folder = run.subfolder(&format!("n{number}"));
        let mut node = Self {
            number,
            ctr: programs.containerd_folder().join("ctr"),
            network: network.clone(),
            folder,
            processes: Mutex::new(Vec::new()),
        };
        node.write_containerd(run, programs);
        let mut containerd = node.containerd(programs);
        let containerd = run.start(&format!("containerd{number}"), &mut containerd);
        // The kubelet ends at once when there is no socket.
        wait::within(
            Duration::from_mins(1),
            || format!("containerd of node{number} answers"),
            || {
                let version = node.ctr().arg("version").output().ok()?;
                version.status.success().then_some(())
            },
        );
        let mut kubelet = node.kubelet(run, binaries, programs);
        let kubelet = run.start(&format!("kubelet{number}"), &mut kubelet);
        let mut proxy = node.proxy(run, binaries, programs);
        let proxy = run.start(&format!("kube-proxy{number}"), &mut proxy);
        node.processes = Mutex::new(vec![kubelet, proxy, containerd]);
        node
    }

    /// Its name in the cluster.
    pub fn name(&self) -> String {
        format!("node{}", self.number)
    }

    /// Its address in the cluster.
    pub fn address(&self) -> String {
        node_address(self.number)
    }

    /// Fails the test when one of its processes has ended.
    pub(super) fn check(&self) {
        let mut processes = self.processes.lock().expect("nobody panics with it");
        for process in processes.iter_mut() {
            process.check();
        }
    }

    /// Takes it off the network: its pods go on, nobody reaches them.
    pub fn cut(&self) {
        self.network.set_link(self.number, false);
    }

    /// Joins it to the network again.
    pub fn join(&self) {
        self.network.set_link(self.number, true);
    }

    /// A command that runs in the network of the node.
    pub fn command(&self, program: &Path) -> Command {
        enter(self.network.node(self.number), program)
    }

    /// Makes an image known to the node.
    pub fn import_image(&self, image: &Path) {
        let mut import = self.ctr();
        import.args(["-n", "k8s.io", "images", "import"]).arg(image);
        run(&format!("import {}", image.display()), &mut import)
            .unwrap_or_else(|error| unusable(&error.to_string()));
    }

    /// Gives an image that the node knows another name as well.
    pub fn tag_image(&self, name: &str, other: &str) {
        let mut tag = self.ctr();
        tag.args(["-n", "k8s.io", "images", "tag", name, other]);
        run(&format!("tag {name}"), &mut tag).unwrap_or_else(|error| unusable(&error.to_string()));
    }

    /// Process id of a container's first process, by the container's id.
    pub fn container_process(&self, container: &str) -> Option<i32> {
        let tasks = "containerd/state/io.containerd.runtime.v2.task/k8s.io";
        let file = self.folder.join(tasks).join(container).join("init.pid");
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// Sends a signal to a container's first process from outside, where nothing holds it back.
    pub fn signal_container(&self, container: &str, signal: Signal) {
        let Some(id) = self.container_process(container) else {
            unusable(&format!(
                "container {container} does not run on {}",
                self.name()
            ));
        };
        kill(nix::unistd::Pid::from_raw(id), signal)
            .unwrap_or_else(|error| unusable(&format!("failed to signal {container}: {error}")));
    }

    /// A folder on the node for volumes.
    pub fn volume(&self, name: &str) -> PathBuf {
        let path = self.folder.join("volumes").join(name);
        fs::create_dir_all(&path).expect("the folder is ours");
        path
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new(&self.ctr);
        command.arg("-a").arg(self.socket());
        command
    }

    /// Where its containerd listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("containerd/containerd.sock")
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().expect("it is below the folder"))
            .and_then(|()| fs::write(&path, content))
            .expect("the folder is ours");
        path
    }

    fn write_containerd(&self, run: &Run, programs: &NodePrograms) {
        let folder = self.folder.join("containerd");
        let folder = folder.display();
        let plugins = programs.plugins();
        let snapshotter = snapshotter(&self.folder);
        // `netns_mounts_under_state_dir`: otherwise the namespaces of pods lie among those of
        // everybody else, and nobody could tell whose they are.
        let config = format!(
            r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile"]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:dev"
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{folder}/runc"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{node}/registries"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{node}/cni"
"#,
            plugins = plugins.display(),
            node = self.folder.display(),
        );
        self.write("containerd.toml", &config);
        let registry = registry();
        self.write(
            &format!("registries/{registry}/hosts.toml"),
            &format!("[host.\"http://{registry}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"),
        );
        let name = sweep::name(run.folder());
        let network = json!({
            "cniVersion": "1.0.0",
            "name": format!("pannier-{name}"),
            "plugins": [{
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": false,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": self.folder.join("addresses"),
                    "ranges": [[{"subnet": pod_range(self.number)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }],
        });
        self.write("cni/10-bridge.conflist", &network.to_string());
    }

    fn containerd(&self, programs: &NodePrograms) -> Command {
        let mut command = self.command(&programs.containerd_folder().join("containerd"));
        command
            .arg("-c")
            .arg(self.folder.join("containerd.toml"))
            .env("PATH", programs.search_path())
            .env("LD_LIBRARY_PATH", programs.runc_libraries());
        command
    }

    fn kubelet(&self, run: &Run, binaries: &Binaries, programs: &NodePrograms) -> Command {
        let socket = self.socket();
        let group = groups::of_node(&sweep::name(run.folder()), self.number);
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": false,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": group,
            "failSwapOn": false,
            "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
            "authorization": {"mode": "AlwaysAllow"},
            "clusterDNS": [node_address(1)],
            "clusterDomain": "cluster.local",
            "resolvConf": "/dev/null",
            "containerRuntimeEndpoint": format!("unix://{}", socket.display()),
            "podLogsDir": self.folder.join("pod-logs"),
            "volumePluginDir": self.folder.join("kubelet-plugins"),
            // Images are imported once and never fetched again.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
            },
            // A cut node is known as such after node-monitor-grace-period, 40 s after this.
            "nodeStatusUpdateFrequency": "4s",
            "registerWithTaints": [],
        });
        let config = self.write("kubelet.json", &config.to_string());
        let mut command = self.command(&binaries.program("kubelet"));
        let name = self.name();
        let kubeconfig = run.folder().join(format!("system:node:{name}.kubeconfig"));
        command
            .arg(format!("--config={}", config.display()))
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!(
                "--root-dir={}",
                self.folder.join("kubelet").display()
            ))
            .arg(format!(
                "--cert-dir={}",
                self.folder.join("kubelet-pki").display()
            ))
            .arg(format!("--hostname-override={name}"))
            .arg(format!("--node-ip={}", self.address()))
            .arg(format!(
                "--node-labels=topology.kubernetes.io/zone=z{0},topology.kubernetes.io/region=r",
                self.number
            ))
            .env("PATH", programs.search_path());
        command
    }

    fn proxy(&self, run: &Run, binaries: &Binaries, programs: &NodePrograms) -> Command {
        let kubeconfig = run.folder().join("system:kube-proxy.kubeconfig");
        let config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "hostnameOverride": self.name(),
            "clientConnection": {"kubeconfig": kubeconfig},
            "clusterCIDR": "10.88.0.0/16",
            // The kernel's limit belongs to the machine and cannot be written from here.
            "conntrack": {"maxPerCore": 0, "min": 0},
        });
        let config = self.write("kube-proxy.json", &config.to_string());
        let mut command = self.command(&binaries.program("kube-proxy"));
        command
            .arg(format!("--config={}", config.display()))
            .env("PATH", programs.search_path());
        command
    }
}

/// Layers cannot be laid over a file system that consists of layers, as in most containers.
fn snapshotter(folder: &Path) -> &'static str {
    match statfs(folder) {
        Ok(found) if found.filesystem_type() == OVERLAYFS_SUPER_MAGIC => "native",
        _ => "overlayfs",
    }
}
