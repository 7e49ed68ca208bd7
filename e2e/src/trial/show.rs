//! Installs the chart and the app of `examples/kubernetes/demo.yaml`, waits until the app finds its products
//! in the sidecar's memory, and says how often.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{TrialError, repository};
use crate::{
    debian::{FetchError, output, step},
    kubernetes::{Binaries, product::REGISTRY, tools},
};

const RELEASE: &str = "pannier";
const SYSTEM: &str = "pannier-system";
const DEMO: &str = "pannier-demo";
/// Time for each step; images may have to be pulled.
const PATIENCE: Duration = Duration::from_mins(3);

/// A cluster to show Pannier on.
pub struct Show {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    helm_folder: PathBuf,
    /// Another place of the images than the chart's.
    registry: Option<String>,
    /// Image of the server, where the usual one cannot be pulled.
    valkey: Option<String>,
}

impl Show {
    /// On the cluster of a kubeconfig file. `folder` is for files of Helm.
    pub fn on(kubeconfig: &Path, folder: &Path) -> Result<Self, TrialError> {
        step("create a folder", || fs::create_dir_all(folder))?;
        Ok(Self {
            kubectl: Binaries::get()?.program("kubectl"),
            kubeconfig: kubeconfig.to_owned(),
            helm_folder: folder.join("helm"),
            registry: None,
            valkey: None,
        })
    }

    /// With images from another registry.
    #[must_use]
    pub fn registry(mut self, registry: Option<String>) -> Self {
        self.registry = registry.map(|name| name.trim_end_matches('/').to_owned());
        self
    }

    /// With another image of Valkey.
    #[must_use]
    pub fn valkey(mut self, image: &str) -> Self {
        self.valkey = Some(image.to_owned());
        self
    }

    /// `kubectl` for this cluster.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .env("KUBECACHEDIR", self.helm_folder.join("kubectl"));
        command
    }

    fn helm(&self) -> Result<Command, FetchError> {
        let mut command = tools::helm_command(&self.helm_folder)?;
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        Ok(command)
    }

    /// The context that the kubeconfig chooses, and its server: for people to look at.
    pub fn context(&self) -> Result<String, TrialError> {
        let mut view = self.kubectl();
        view.args(["config", "view", "--minify", "-o"])
            .arg("jsonpath={.current-context} ({.clusters[0].cluster.server})");
        Ok(output("read the kubeconfig", &mut view)?)
    }

    /// Installs or upgrades the chart.
    pub fn install(&self) -> Result<(), TrialError> {
        self.upgrade(&[])
    }

    /// The same with further values.
    pub fn upgrade(&self, values: &[&str]) -> Result<(), TrialError> {
        let mut helm = self.helm()?;
        helm.args(["upgrade", "--install", RELEASE])
            .arg(repository().join("charts/pannier"))
            .args(["--namespace", SYSTEM, "--create-namespace", "--wait"])
            .args(["--timeout", "3m"]);
        if let Some(image) = &self.valkey {
            helm.args(["--set", &format!("serverImages.valkey={image}")]);
        }
        if let Some(registry) = &self.registry {
            helm.args(["--set", &format!("image.repository={registry}/operator")])
                .args([
                    "--set",
                    &format!("sidecar.image.repository={registry}/sidecar"),
                ]);
        }
        for value in values {
            helm.args(["--set", value]);
        }
        output("install the chart", &mut helm)?;
        Ok(())
    }

    /// Runs the chart's own test: SET, GET and a hit through an injected pod.
    pub fn test(&self) -> Result<String, TrialError> {
        let mut helm = self.helm()?;
        helm.args(["test", RELEASE, "--namespace", SYSTEM, "--timeout", "3m"]);
        Ok(output("helm test", &mut helm)?)
    }

    /// Applies the tier and the app.
    pub fn apply_demo(&self) -> Result<(), TrialError> {
        let file = repository().join("examples/kubernetes/demo.yaml");
        let text = step("read examples/kubernetes/demo.yaml", || {
            fs::read_to_string(&file)
        })?;
        let text = match &self.registry {
            Some(registry) => text.replace(REGISTRY, registry),
            None => text,
        };
        let ours = self.helm_folder.with_file_name("demo.yaml");
        step("write the manifests of the demo", || fs::write(&ours, text))?;
        let mut apply = self.kubectl();
        apply.args(["apply", "--server-side", "-f"]).arg(&ours);
        output("apply examples/kubernetes/demo.yaml", &mut apply)?;
        Ok(())
    }

    /// Waits until the tier is ready.
    pub fn wait_for_tier(&self) -> Result<(), TrialError> {
        let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        self.until(
            "the CacheTier shop is",
            &["get", "cachetier", "shop", "-o", ready],
            |text| text == "True",
        )?;
        Ok(())
    }

    /// Waits until the app has said how often it was answered from the sidecar's memory; gives its line.
    pub fn wait_for_hits(&self) -> Result<String, TrialError> {
        let logs = ["logs", "deployment/demo", "-c", "app", "--tail=1"];
        let line = self.until("the app demo is", &logs, |text| {
            text.contains("hit ratio") && !text.contains("(0 of")
        })?;
        let from = line.find("hit ratio").unwrap_or_default();
        Ok(line[from..].to_owned())
    }

    /// Asks until the answer is right, with growing pauses.
    fn until(
        &self,
        what: &'static str,
        question: &[&str],
        right: impl Fn(&str) -> bool,
    ) -> Result<String, TrialError> {
        let begun = Instant::now();
        loop {
            let mut ask = self.kubectl();
            let answer = ask.args(["-n", DEMO]).args(question).output();
            let answer = step("start kubectl", || answer)?;
            let text = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
            if answer.status.success() && right(&text) {
                return Ok(text);
            }
            if begun.elapsed() > PATIENCE {
                return Err(TrialError::Late {
                    what,
                    seconds: PATIENCE.as_secs(),
                    look: format!(
                        "  export KUBECONFIG={}\n  kubectl -n {DEMO} describe cachetier,pod\n  kubectl -n {SYSTEM} logs \
                         deployment/pannier-operator",
                        self.kubeconfig.display()
                    ),
                });
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Uninstalls the chart; what is not the operator's stays.
    pub fn uninstall(&self) -> Result<(), TrialError> {
        let mut helm = self.helm()?;
        helm.args(["uninstall", RELEASE, "--namespace", SYSTEM])
            .args(["--ignore-not-found", "--wait"]);
        output("uninstall the chart", &mut helm)?;
        Ok(())
    }

    /// Removes the app, the tier and the chart. The definitions stay, as the chart says.
    pub fn remove(&self) -> Result<(), TrialError> {
        let mut delete = self.kubectl();
        delete.args([
            "delete",
            "namespace",
            DEMO,
            "--ignore-not-found",
            "--wait",
            "--timeout=2m",
        ]);
        output("delete the demo", &mut delete)?;
        self.uninstall()?;
        let mut delete = self.kubectl();
        delete.args([
            "delete",
            "namespace",
            SYSTEM,
            "--ignore-not-found",
            "--wait",
            "--timeout=2m",
        ]);
        output("delete the namespace of the operator", &mut delete)?;
        Ok(())
    }
}
