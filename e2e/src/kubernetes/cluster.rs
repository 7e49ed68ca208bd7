//! A real cluster on this machine: a control plane and up to three nodes that run containers, with
//! DNS and Services. Needs root. Each node lives in a network namespace of its own and can be cut
//! off; volumes and images are the nodes' own files.

mod forward;
mod groups;
mod network;
mod node;
mod pod_network;
mod storage;

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
};

use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use nix::{sys::signal::Signal, unistd::geteuid};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use self::{forward::Forward, node::Node, pod_network::PodNetwork, storage::STORAGE_CLASS};
use self::{
    network::{HUB, Network, dial, enter, node_address},
    storage::create_class,
};
use super::{
    Access, Binaries, ControlPlane, ControlPlaneOptions, NodePrograms, Unavailable, apply_crds,
    blocking,
    client::eventually_within,
    control_plane::{PATIENCE, Site},
    image,
    product::{Product, REGISTRY},
    run::Run,
    sweep,
    target::must_be_ours,
};
use crate::{
    Engine, built::build_static, debian::FetchError, environment::unusable, process::Process,
};

/// How many nodes a cluster has at most.
pub const NODES: usize = 3;

/// A running cluster; everything ends and is removed when it is dropped.
pub struct Cluster {
    nodes: Vec<Node>,
    processes: Mutex<Vec<Process>>,
    plane: ControlPlane,
    inside: Access,
    #[expect(dead_code, reason = "it leads to the API server")]
    api: Forward,
    network: Network,
    loaded: Mutex<BTreeSet<String>>,
    faults: RwLock<()>,
    run: Arc<Run>,
    #[expect(dead_code, reason = "held until all is removed")]
    turn: File,
}

impl Cluster {
    /// One for all tests of this process, with three nodes and our custom resources; each test uses
    /// a namespace of its own, holds [`Self::undisturbed`] or [`Self::alone`], and heals what it
    /// has cut.
    pub fn shared() -> Result<&'static Self, Unavailable> {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        static STARTING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = SHARED.get() {
            return Ok(shared);
        }
        let started = Self::start(NODES)?;
        Ok(SHARED.get_or_init(|| started))
    }

    /// One of its own for a test.
    pub fn start(nodes: usize) -> Result<Self, Unavailable> {
        Self::start_in(nodes, turn)
    }

    /// One that stays for long, beside those of tests: they do not wait for it.
    pub fn start_beside(nodes: usize) -> Result<Self, Unavailable> {
        Self::start_in(nodes, || open_turn("beside"))
    }

    fn start_in(
        nodes: usize,
        turn: impl FnOnce() -> Result<File, Unavailable>,
    ) -> Result<Self, Unavailable> {
        assert!((1..=NODES).contains(&nodes), "1 to 3 nodes: {nodes}");
        must_be_ours()?;
        if !geteuid().is_root() {
            return Err(Unavailable::NotPermitted(
                "run the tests as root".to_owned(),
            ));
        }
        if sweep::foreign_kubelet() {
            return Err(Unavailable::NotPermitted(
                "this machine is the node of a cluster already: a second kubelet would disturb it"
                    .to_owned(),
            ));
        }
        let binaries = Binaries::get()?;
        let programs = NodePrograms::get()?;
        let turn = turn()?;
        let run = Arc::new(Run::begin());
        let network = Network::build(&run, &programs, nodes)?;
        groups::create(&sweep::name(run.folder()), nodes)?;
        let pause = image::pause(&run.subfolder("images"));
        let api = Forward::start(network.hub(), SocketAddr::from(([127, 0, 0, 1], 6443)));
        let site = site(&network, &api);
        let plane = ControlPlane::start_at(
            site,
            ControlPlaneOptions::default(),
            binaries.clone(),
            &programs,
            Arc::clone(&run),
        );
        let inside = plane.access().clone();
        let inside = inside.by(
            format!("https://{HUB}:6443"),
            &plane.access().authority.clone(),
        );
        let processes = Mutex::new(vec![
            scheduler(&run, &binaries, &network),
            dns(&run, &binaries, &network),
        ]);
        let nodes = thread::scope(|scope| {
            let starting: Vec<_> = (1..=nodes)
                .map(|number| {
                    let (run, binaries, programs) = (&run, &binaries, &programs);
                    let (network, pause) = (&network, &pause);
                    scope.spawn(move || {
                        let node = Node::start(run, binaries, programs, network, number);
                        node.import_image(pause);
                        node
                    })
                })
                .collect();
            starting
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect()
        });
        let cluster = Self {
            nodes,
            processes,
            plane,
            inside,
            api,
            network,
            loaded: Mutex::default(),
            faults: RwLock::default(),
            run,
            turn,
        };
        blocking(cluster.settle());
        Ok(cluster)
    }

    async fn settle(&self) {
        let client = self.client().await;
        create_class(&client).await;
        apply_crds(&client).await;
        self.wait_until_ready(&client, self.nodes.len()).await;
    }

    /// Waits until that many nodes are ready.
    pub async fn wait_until_ready(&self, client: &Client, count: usize) {
        let nodes: Api<NodeObject> = Api::all(client.clone());
        eventually_within(PATIENCE, &format!("{count} nodes are ready"), || async {
            self.check();
            let all = nodes.list(&ListParams::default()).await.ok()?;
            let ready = all.iter().filter(|node| is_ready(node)).count();
            (ready == count).then_some(())
        })
        .await;
    }

    /// Fails the test when a component has ended.
    fn check(&self) {
        let mut processes = self.processes.lock().expect("nobody panics with it");
        processes.iter_mut().for_each(Process::check);
        drop(processes);
        self.nodes.iter().for_each(Node::check);
    }

    /// For a test that needs the network whole while others run beside it: no other test holds
    /// [`Self::alone`] as long as the guard lives.
    pub async fn undisturbed(&self) -> RwLockReadGuard<'_, ()> {
        self.faults.read().await
    }

    /// For a test that cuts nodes or stops components that others use.
    pub async fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.faults.write().await
    }

    /// Its control plane: clients, kubeconfig, `kubectl`, faults of the API server.
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// The administrator's client. It belongs to the runtime it is made in.
    pub async fn client(&self) -> Client {
        self.plane.client().await
    }

    /// Its nodes; the DNS runs on the first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Node `number`, counted from 1.
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    /// The way to the API server for what runs in the cluster's network.
    pub fn inside(&self) -> &Access {
        &self.inside
    }

    /// Where nodes look for a [`super::Registry`], which they trust without TLS.
    pub fn registry(&self) -> SocketAddr {
        network::registry()
    }

    /// The files and processes that end with it.
    pub(super) fn run(&self) -> &Run {
        &self.run
    }

    /// A command in the cluster's network, beside the API server: it reaches nodes, pods and, as
    /// long as the first node is up, Services. Marked, so that it ends with the cluster.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = enter(self.network.hub(), program);
        self.run.mark(&mut command);
        command
    }

    /// Connects to a pod or Service; the connection can be used in the test.
    pub fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        dial(self.network.hub(), to)
    }

    /// A port of 127.0.0.1 that leads to a pod or Service.
    pub fn forward(&self, to: SocketAddr) -> Forward {
        Forward::start(self.network.hub(), to)
    }

    /// Makes an image known to all nodes; pods use it with `imagePullPolicy: Never`.
    pub fn import_image(&self, image: &Path) {
        thread::scope(|scope| {
            for node in &self.nodes {
                scope.spawn(|| node.import_image(image));
            }
        });
    }

    /// Makes the image of a Redis or Valkey known to all nodes; returns its name.
    pub fn load_engine(&self, engine: Engine) -> String {
        let name = image::engine_name(engine);
        self.load(&name, |folder| image::engine(folder, engine));
        name
    }

    /// Builds a program of our own and makes its image known to all nodes; returns the image's name.
    /// The program is static: it may be copied into containers of any other image.
    pub fn load_own(&self, package: &str, program: &str) -> String {
        let name = format!("localhost/{program}:dev");
        let built = || build_static(package, program);
        self.load_product(Product::of(program), &name, built);
        name
    }

    /// The same under the name by which the chart asks for it.
    pub fn load_released(&self, product: Product) {
        let program = product.program();
        self.load_product(product, &product.image(REGISTRY), || {
            build_static(program, program)
        });
    }

    /// The same under another tag, as if it were another release.
    pub fn load_tagged(&self, product: Product, tag: &str) {
        let program = product.program();
        let name = format!("{REGISTRY}/{}:{tag}", product.name());
        self.load_product(product, &name, || build_static(program, program));
    }

    fn load_product(&self, product: Product, name: &str, built: impl FnOnce() -> PathBuf) {
        self.load(name, |folder| product.pack(folder, name, &built(), None));
    }

    /// Makes an image of one program of this machine known to all nodes, with its libraries; the
    /// program becomes `/usr/bin/NAME`, its entrypoint.
    pub fn load_program(&self, name: &str, program: &Path) {
        self.load(name, |folder| {
            let file = program.file_name().unwrap_or_default().to_string_lossy();
            let inside = format!("/usr/bin/{file}");
            image::Image::new(folder, name)?
                .program(program, &inside)?
                .entrypoint(&[&inside])
                .build()
        });
    }

    /// Builds and imports an image unless that was done before.
    fn load(&self, name: &str, build: impl FnOnce(&Path) -> Result<PathBuf, FetchError>) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.insert(name.to_owned()) {
            let image = build(&self.run.subfolder("images"))
                .unwrap_or_else(|error| unusable(&error.to_string()));
            self.import_image(&image);
        }
    }

    /// Runs a program in a container.
    pub fn exec(&self, namespace: &str, pod: &str, container: &str, command: &[&str]) -> Output {
        let mut kubectl = self.plane.kubectl();
        kubectl
            .args(["-n", namespace, "exec", pod, "-c", container, "--"])
            .args(command)
            .output()
            .unwrap_or_else(|error| unusable(&format!("failed to start kubectl: {error}")))
    }

    /// What a container has written, also the one before its last restart.
    pub fn logs(&self, namespace: &str, pod: &str, container: &str) -> String {
        let read = |more: &[&str]| {
            let mut kubectl = self.plane.kubectl();
            kubectl.args(["-n", namespace, "logs", pod, "-c", container]);
            let output = kubectl.args(more).output();
            output.map_or_else(|error| error.to_string(), |output| text(&output))
        };
        format!("{}\n--- before: {}", read(&[]), read(&["--previous"]))
    }

    /// Kills the first process of a container at once, which nothing inside the container can.
    pub fn kill_container(&self, pod: &Pod, container: &str) {
        self.signal_container(pod, container, Signal::SIGKILL);
    }

    /// Sends a signal to the first process of a container, for example `SIGSTOP`.
    pub fn signal_container(&self, pod: &Pod, container: &str, signal: Signal) {
        let node = self.node_of(pod);
        node.signal_container(&container_id(pod, container), signal);
    }

    /// Leaves a running container hardly more memory than it has now: when it asks for more, the kernel
    /// kills it for want of memory.
    pub fn squeeze_memory(&self, pod: &Pod, container: &str) {
        groups::squeeze(self.process_of(pod, container))
            .unwrap_or_else(|error| unusable(&format!("{container} keeps its memory: {error}")));
    }

    /// Resident memory of the first process of a container, in bytes.
    pub fn resident(&self, pod: &Pod, container: &str) -> u64 {
        let process = self.process_of(pod, container);
        crate::process::resident(u32::try_from(process).expect("process ids are positive"))
    }

    /// The first process of a container, which must run.
    fn process_of(&self, pod: &Pod, container: &str) -> i32 {
        let process = self
            .node_of(pod)
            .container_process(&container_id(pod, container));
        process.unwrap_or_else(|| unusable(&format!("{container} does not run")))
    }

    /// The network of a pod, by one of its running containers; none, if that does not run.
    pub fn network_of(&self, pod: &Pod, container: &str) -> Option<PodNetwork> {
        let id = running_container(pod, container)?;
        PodNetwork::of_process(self.node_of(pod).container_process(&id)?).ok()
    }

    /// The node that a pod runs on.
    pub fn node_of(&self, pod: &Pod) -> &Node {
        let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let found = self
            .nodes
            .iter()
            .find(|node| Some(node.name().as_str()) == name);
        found.unwrap_or_else(|| unusable(&format!("{} is on no node: {name:?}", pod.name_any())))
    }
}

/// Whether the node says that it is ready.
pub fn is_ready(node: &NodeObject) -> bool {
    let conditions = node.status.iter().filter_map(|one| one.conditions.as_ref());
    conditions
        .flatten()
        .any(|one| one.type_ == "Ready" && one.status == "True")
}

fn container_id(pod: &Pod, container: &str) -> String {
    running_container(pod, container)
        .unwrap_or_else(|| unusable(&format!("{} has no {container}", pod.name_any())))
}

fn running_container(pod: &Pod, container: &str) -> Option<String> {
    let status = pod.status.iter();
    let mut all = status.flat_map(|status| {
        let main = status.container_statuses.iter().flatten();
        main.chain(status.init_container_statuses.iter().flatten())
    });
    let found = all.find(|one| one.name == container)?;
    let id = found.container_id.as_deref()?;
    Some(id.trim_start_matches("containerd://").to_owned())
}

fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|one| String::from_utf8_lossy(one));
    format!("{out}{err}")
}

/// One cluster at a time on a machine, or as many as `PANNIER_CLUSTERS` says: each takes 1.3 GiB.
fn turn() -> Result<File, Unavailable> {
    let most = std::env::var("PANNIER_CLUSTERS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_usize);
    for number in 0..most {
        let file = open_turn(&number.to_string())?;
        if file.try_lock().is_ok() {
            return Ok(file);
        }
    }
    eprintln!("waiting for another cluster on this machine (PANNIER_CLUSTERS=2 allows two)");
    let file = open_turn("0")?;
    file.lock()
        .map_err(|error| Unavailable::NotPermitted(error.to_string()))?;
    Ok(file)
}

fn open_turn(name: &str) -> Result<File, Unavailable> {
    let path = format!("/run/lock/pannier-cluster-{name}");
    File::create(&path)
        .map_err(|error| Unavailable::NotPermitted(format!("it must write {path}: {error}")))
}

fn site(network: &Network, api: &Forward) -> Site {
    let names = [
        "127.0.0.1",
        HUB,
        "10.96.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    Site {
        namespace: Some(network.hub().clone()),
        advertised: HUB.to_owned(),
        names: names.map(str::to_owned).to_vec(),
        api_port: 6443,
        etcd_port: 2379,
        peer_port: 2380,
        reached: api.address(),
    }
}

fn scheduler(run: &Run, binaries: &Binaries, network: &Network) -> Process {
    let kubeconfig = run.folder().join("system:kube-scheduler.kubeconfig");
    let mut command = enter(network.hub(), &binaries.program("kube-scheduler"));
    command
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .args(["--leader-elect=false", "--secure-port=0"]);
    run.start("kube-scheduler", &mut command)
}

/// `CoreDNS` as a process of the first node.
fn dns(run: &Run, binaries: &Binaries, network: &Network) -> Process {
    let config = format!(
        ".:53 {{\n  bind {}\n  errors\n  kubernetes cluster.local in-addr.arpa {{\n    \
         kubeconfig {}\n    pods insecure\n    ttl 5\n  }}\n  cache 5\n}}\n",
        node_address(1),
        run.folder().join("inside.kubeconfig").display()
    );
    let config = run.write("Corefile", &config);
    let mut command = enter(network.node(1), &binaries.program("coredns"));
    command.arg("-conf").arg(config);
    run.start("coredns", &mut command)
}
