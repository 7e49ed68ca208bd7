//! `make images REGISTRY=…`, `make load`, and `make up` and `make down` on a cluster that is the user's: run as
//! the Makefile runs them, on a cluster that knows neither our images nor our definitions.

use std::process::Command;

use e2e::{
    Engine,
    debian::output,
    environment::available,
    kubernetes::{Cluster, NodePrograms, Registry, product},
};

/// What the chart asks for.
const VALKEY: &str = "docker.io/valkey/valkey:8.1";

/// The cluster, and what `make` would see of it.
struct User {
    cluster: Cluster,
    registry: Registry,
}

impl User {
    fn program(&self, program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let containerd = NodePrograms::get().unwrap().containerd_folder();
        let tools = self.registry.tools().display();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("KUBECONFIG", self.cluster.plane().kubeconfig())
            .env("PATH", format!("{tools}:{}:{path}", containerd.display()))
            .env_remove("CONFIRM")
            .env_remove("REGISTRY")
            .envs(variables.iter().copied());
        command
    }

    /// Runs it; it must succeed. Gives what it says.
    fn run(&self, program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> String {
        output(program, &mut self.program(program, arguments, variables)).unwrap()
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        output("kubectl", self.cluster.plane().kubectl().args(arguments)).unwrap()
    }

    /// Images of the pods of a namespace.
    fn images(&self, namespace: &str) -> Vec<String> {
        let path = "jsonpath={.items[*].spec['initContainers','containers'][*].image}";
        let all = self.kubectl(&["-n", namespace, "get", "pods", "-o", path]);
        all.split_whitespace().map(str::to_owned).collect()
    }

    fn namespaces(&self) -> String {
        self.kubectl(&["get", "namespaces", "-o", "name"])
    }

    /// `make up` and `make down`, with the images from there.
    fn up_and_down(&self, registry: &str, variables: &[(&str, &str)]) {
        let confirmed = [variables, &[("CONFIRM", "yes")]].concat();
        let said = self.run(env!("CARGO_BIN_EXE_try"), &["up"], &confirmed);
        println!("{said}");
        assert!(said.contains("hit ratio"), "{said}");
        let (operator, sidecar) = (
            format!("{registry}/operator:"),
            format!("{registry}/sidecar:"),
        );
        let demo = self.images("pannier-demo");
        let is = |images: &[String], name: &str| images.iter().any(|image| image.starts_with(name));
        assert!(is(&demo, &operator) && is(&demo, &sidecar), "{demo:?}");
        let system = self.images("pannier-system");
        assert!(is(&system, &operator), "{system:?}");

        let said = self.run(env!("CARGO_BIN_EXE_try"), &["down"], &confirmed);
        assert!(said.contains("definitions stay"), "{said}");
        assert!(
            !self.namespaces().contains("pannier"),
            "{}",
            self.namespaces()
        );
        let definitions = self.kubectl(&["get", "crd", "-o", "name"]);
        assert!(
            definitions.contains("cachetiers.pannier.dev"),
            "{definitions}"
        );
    }
}

#[test]
fn a_cluster_of_the_users_own_gets_images_by_make_load_or_by_a_registry() {
    let test = "a_cluster_of_the_users_own_gets_images_by_make_load_or_by_a_registry";
    let Some(cluster) = available(test, Cluster::start_beside(3)) else {
        return;
    };
    let registry = Registry::start(&cluster).unwrap();
    let user = User { cluster, registry };
    user.kubectl(&[
        "delete",
        "crd",
        "cachetiers.pannier.dev",
        "sessionpolicies.pannier.dev",
    ]);
    // Debian's Valkey, under the name that the chart asks for.
    let valkey = user.cluster.load_engine(Engine::Valkey8);
    for node in user.cluster.nodes() {
        node.tag_image(&valkey, VALKEY);
    }

    let mut up = user.program(env!("CARGO_BIN_EXE_try"), &["up"], &[]);
    let refused = up.output().unwrap();
    assert!(!refused.status.success());
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(
        why.contains("Nothing was done") && why.contains("CONFIRM=yes"),
        "{why}"
    );
    assert!(!user.namespaces().contains("pannier"));

    // In this order: an image that a kubelet has pulled is pulled again under another name, although it is there.
    for node in user.cluster.nodes() {
        let socket = node.socket().display().to_string();
        let address = [("CONTAINERD_ADDRESS", socket.as_str())];
        let said = user.run(env!("CARGO_BIN_EXE_images"), &["--load"], &address);
        assert!(said.contains("loaded"), "{said}");
    }
    user.up_and_down(product::REGISTRY, &[]);

    let there = format!("{}/team", user.registry.address());
    let said = user.run(env!("CARGO_BIN_EXE_images"), &["--push", &there], &[]);
    println!("{said}");
    assert!(said.contains(&format!("pushed {there}/sidecar:")), "{said}");
    let registry = format!("{}/team", user.cluster.registry());
    user.up_and_down(&registry, &[("REGISTRY", &registry)]);
}
