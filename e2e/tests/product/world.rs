//! The installed product, once for all tests of this program.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::Duration,
};

use e2e::{
    Engine,
    environment::{available, unusable},
    kubernetes::{Cluster, eventually_within, product::Product},
    process::Folder,
    trial::Show,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};
use serde_json::{Value as Json, json};

/// Namespace of the operator.
pub const SYSTEM: &str = "pannier-system";
/// Its Deployment.
pub const OPERATOR: &str = "deployment/pannier-operator";
/// Labels of its pods.
pub const OPERATORS: &str = "app.kubernetes.io/name=pannier,app.kubernetes.io/component=operator";
/// Its `MutatingWebhookConfiguration`.
pub const WEBHOOK: &str = "pannier-operator";
/// Longest time for anything that is not measured.
pub const SLOW: Duration = Duration::from_mins(3);

/// A cluster with the product in it.
pub struct World {
    pub cluster: &'static Cluster,
    pub show: Show,
    /// Image of `e2e-app`.
    pub app: String,
    _folder: Folder,
}

/// There is no operator as long as it lives.
pub struct WithoutOperator(&'static World);

impl Drop for WithoutOperator {
    fn drop(&mut self) {
        self.0.scale_operator(2);
    }
}

/// Installs it with the first test.
pub fn world(test: &str) -> Option<&'static World> {
    static WORLD: OnceLock<World> = OnceLock::new();
    let cluster = available(test, Cluster::shared())?;
    Some(WORLD.get_or_init(|| World::install(cluster)))
}

// === impl World ===

impl World {
    fn install(cluster: &'static Cluster) -> Self {
        for product in Product::ALL {
            cluster.load_released(product);
        }
        let valkey = cluster.load_engine(Engine::Valkey8);
        let app = "localhost/e2e-app:dev".to_owned();
        cluster.load_program(&app, Path::new(env!("CARGO_BIN_EXE_e2e-app")));
        let folder = Folder::new("product");
        let kubeconfig = cluster.plane().kubeconfig();
        let show = Show::on(kubeconfig, folder.path()).unwrap().valkey(&valkey);
        show.install().unwrap();
        Self {
            cluster,
            show,
            app,
            _folder: folder,
        }
    }

    /// `kubectl`, run to its end, whatever that is.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Output {
        let output = self.show.kubectl().args(arguments).output();
        output.unwrap_or_else(|error| unusable(&format!("kubectl: {error}")))
    }

    /// `kubectl`, which must succeed; gives what it says.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// `kubectl apply` of an object.
    pub fn apply(&self, object: &Json) {
        let mut kubectl: Command = self.show.kubectl();
        kubectl
            .args(["apply", "--server-side", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut kubectl = kubectl.spawn().unwrap();
        let mut input = kubectl.stdin.take().unwrap();
        input.write_all(object.to_string().as_bytes()).unwrap();
        drop(input);
        let output = kubectl.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl apply {object}: {error}");
    }

    /// Pods of the operator.
    pub async fn operators(&self, client: &Client) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM);
        let params = ListParams::default().labels(OPERATORS);
        pods.list(&params).await.unwrap().items
    }

    /// Takes the operator away, until the guard is dropped.
    pub async fn without_operator(&'static self, client: &Client) -> WithoutOperator {
        let guard = WithoutOperator(self);
        self.scale_operator(0);
        self.until_operators(client, 0).await;
        guard
    }

    fn scale_operator(&self, count: usize) {
        let replicas = format!("--replicas={count}");
        let done = self.try_kubectl(&["-n", SYSTEM, "scale", OPERATOR, &replicas]);
        // Also while a test fails.
        if !done.status.success() {
            eprintln!("kubectl scale {replicas}: {done:?}");
        }
    }

    /// Waits until there are so many pods of the operator, and all are ready.
    pub async fn until_operators(&self, client: &Client, count: usize) {
        eventually_within(SLOW, &format!("{count} pods of the operator"), || async {
            let pods = self.operators(client).await;
            let ready = pods.iter().filter(|pod| super::space::is_ready(pod));
            (pods.len() == count && ready.count() == count).then_some(())
        })
        .await;
    }

    /// Runs `nft` on each node with these rules.
    pub fn nft(&self, rules: &str) {
        let nft = e2e::kubernetes::NodePrograms::get().unwrap();
        let nft = nft.tools_folder().join("nft");
        for node in self.cluster.nodes() {
            let mut command = node.command(&nft);
            command
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped());
            let mut command = command.spawn().unwrap();
            let mut input = command.stdin.take().unwrap();
            input.write_all(rules.as_bytes()).unwrap();
            drop(input);
            let output = command.wait_with_output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "nft: {error}\n{rules}");
        }
    }

    /// What a container of the app looks like, fit for Pod Security `restricted`.
    pub fn container(&self, args: &[&str]) -> Json {
        json!({
            "name": "app",
            "image": self.app,
            "imagePullPolicy": "Never",
            "args": args,
            "resources": {"requests": {"cpu": "5m", "memory": "8Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
        })
    }

    /// The spec of a pod with one container of the app.
    pub fn spec(&self, args: &[&str]) -> Json {
        json!({
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 10,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [self.container(args)],
        })
    }
}
