//! A tier on live pods: a real operator process, a `CacheTier` with real servers, an app with a real
//! sidecar, a writer that remembers every acknowledged write, a sampler that asks every server
//! all the time whether it accepts writes, and the checks after it.
//!
//! Each [`Live`] has a namespace and an operator of its own; the operator has the rights of
//! `operator/rbac` and nothing more. It runs beside the API server, in the cluster's network, so that
//! a cut node or a drain never takes it away; a test may kill it and start it again.

mod app;
pub mod cases;
mod record;
mod rest;
mod sampler;
mod secrets;
pub mod spec;
mod tell;
mod tier;
mod trial;
mod writer;

use std::{path::Path, process::Command};

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

pub use self::{
    app::App,
    record::Record,
    rest::until_at_rest,
    sampler::{Sampler, Samples},
    tell::tell,
    tier::{Change, SLOW, TIER, Tier, is_ready},
    trial::{Outcome, Trial},
    writer::Writer,
};
use crate::{
    Engine,
    environment::unusable,
    kubernetes::{Cluster, blocking, new_namespace, service_account_token},
    ports,
    process::{Folder, Process},
    shard, sidecar,
};

/// A namespace with an operator.
pub struct Live {
    /// Where it runs.
    pub cluster: &'static Cluster,
    /// The administrator.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
    folder: Folder,
    kubeconfig: std::path::PathBuf,
    images: Images,
    operator: Option<Process>,
    starts: u32,
}

/// Names of images that all nodes have.
#[derive(Clone, Debug)]
pub struct Images {
    /// Of the operator, from which the agent is copied.
    pub operator: String,
    /// Of the sidecar.
    pub sidecar: String,
    /// Of Valkey.
    pub valkey: String,
}

impl Live {
    /// A new namespace, with restricted pod security enforced, and an operator that watches it.
    pub async fn start(cluster: &'static Cluster, prefix: &str) -> Self {
        let images = Images {
            operator: cluster.load_own("pannier-operator", "pannier-operator"),
            sidecar: "localhost/pannier-sidecar:linked".to_owned(),
            valkey: cluster.load_engine(Engine::Valkey8),
        };
        cluster.load_program(&images.sidecar, sidecar::program());
        let client = cluster.client().await;
        let namespace = new_namespace(&client, prefix).await;
        restrict(&client, &namespace).await;
        let kubeconfig = account(cluster, &client, &namespace).await;
        let mut live = Self {
            cluster,
            client,
            folder: Folder::new(&namespace),
            namespace,
            kubeconfig,
            images,
            operator: None,
            starts: 0,
        };
        live.start_operator();
        live
    }

    /// Names of the images.
    pub const fn images(&self) -> &Images {
        &self.images
    }

    /// Starts the operator again after [`Self::kill_operator`].
    pub fn start_operator(&mut self) {
        self.starts += 1;
        let mut command = self.cluster.command(shard::program());
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .arg("run")
            .args(["--namespace", &self.namespace])
            .args(["--watch-namespace", &self.namespace])
            .args(["--identity", &format!("operator-{}", self.starts)])
            .args(["--agent-image", &self.images.operator])
            .args(["--valkey-image", &self.images.valkey])
            .args(["--listen", &format!("127.0.0.1:{}", ports::free())]);
        let log = self.folder.path().join(format!("{}.log", self.starts));
        self.operator = Some(Process::start("pannier-operator", &mut command, &log));
    }

    /// Kills the operator at once: its Lease is not given back.
    pub fn kill_operator(&mut self) {
        self.operator = None;
    }

    /// Ends the operator in good order: its Lease is given back.
    pub fn stop_operator(&mut self) {
        if let Some(mut operator) = self.operator.take() {
            operator.signal(nix::sys::signal::Signal::SIGTERM);
            operator.wait(SLOW);
        }
    }

    /// Everything that its operators have logged.
    pub fn operator_log(&self) -> String {
        let logs = (1..=self.starts).map(|number| {
            let path = self.folder.path().join(format!("{number}.log"));
            std::fs::read_to_string(path).expect("the log is there")
        });
        logs.collect()
    }

    /// `kubectl` in the namespace, run to its end.
    pub fn kubectl(&self, arguments: &[&str]) -> std::process::Output {
        let mut command: Command = self.cluster.plane().kubectl();
        command.args(["-n", &self.namespace]).args(arguments);
        command
            .output()
            .unwrap_or_else(|error| unusable(&format!("failed to start kubectl: {error}")))
    }
}

impl Drop for Live {
    /// What a person would look at first, of a test that failed or of each with `PANNIER_TELL`.
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("PANNIER_TELL").is_some() {
            eprintln!("--- {} ---", self.namespace);
            for kind in ["cachetiers", "pods"] {
                let told = self.kubectl(&["get", kind, "-o", "wide"]);
                eprint!("{}", String::from_utf8_lossy(&told.stdout));
            }
            eprintln!("--- log of the operator ---");
            eprintln!("{}", tell::tail(&self.operator_log()));
            blocking(tell::tell(self.cluster, &self.namespace));
        }
    }
}

async fn restrict(client: &Client, namespace: &str) {
    let label = json!({"metadata": {"labels": {
        "pod-security.kubernetes.io/enforce": "restricted",
    }}});
    Api::<Namespace>::all(client.clone())
        .patch(namespace, &PatchParams::default(), &Patch::Merge(label))
        .await
        .unwrap_or_else(|error| unusable(&format!("failed to label {namespace}: {error}")));
}

/// The operator's account with the rights of the manifests; gives its kubeconfig file, as seen from
/// the cluster's network.
async fn account(cluster: &Cluster, client: &Client, namespace: &str) -> std::path::PathBuf {
    let rbac = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/rbac");
    let kubectl = |arguments: &[&str]| {
        let done = cluster.plane().kubectl().args(arguments).output();
        let done = done.unwrap_or_else(|error| unusable(&format!("kubectl: {error}")));
        let text = String::from_utf8_lossy(&done.stderr);
        if !done.status.success() {
            unusable(&format!("kubectl {arguments:?}: {text}"));
        }
    };
    kubectl(&["apply", "-f", &rbac.to_string_lossy()]);
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let account = ServiceAccount {
        metadata: ObjectMeta {
            name: Some("operator".to_owned()),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    };
    accounts
        .create(&PostParams::default(), &account)
        .await
        .unwrap_or_else(|error| unusable(&format!("no service account: {error}")));
    let subject = format!("--serviceaccount={namespace}:operator");
    kubectl(&[
        "create",
        "rolebinding",
        "operator",
        "-n",
        namespace,
        "--clusterrole=pannier-operator",
        &subject,
    ]);
    let token = service_account_token(client, namespace, "operator").await;
    let access = cluster.inside().clone().with_token(token);
    cluster.plane().write_kubeconfig(namespace, &access)
}
