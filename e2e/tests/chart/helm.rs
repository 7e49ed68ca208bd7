//! Helm on this checkout's chart.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use e2e::{
    debian::FetchError,
    kubernetes::{ControlPlane, Unavailable, tools},
};
use serde::Deserialize as _;
use serde_json::Value;

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub fn chart() -> PathBuf {
    repository().join("charts/pannier")
}

/// Helm with folders of its own.
pub struct Helm {
    folder: PathBuf,
    kubeconfig: Option<PathBuf>,
}

impl Helm {
    /// Without a cluster.
    pub fn offline() -> Result<Self, FetchError> {
        tools::helm()?;
        Ok(Self {
            folder: std::env::temp_dir().join(format!("pannier-helm-{}", std::process::id())),
            kubeconfig: None,
        })
    }

    /// As the administrator of a control plane.
    pub fn on(plane: &ControlPlane) -> Result<Self, Unavailable> {
        tools::helm()?;
        Ok(Self {
            kubeconfig: Some(plane.kubeconfig().clone()),
            folder: plane.folder().join("helm"),
        })
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut helm = tools::helm_command(&self.folder).unwrap();
        helm.env_remove("KUBECONFIG").args(arguments);
        if let Some(file) = &self.kubeconfig {
            helm.arg("--kubeconfig").arg(file);
        }
        helm.output().unwrap()
    }

    /// Its output; fails the test when it fails.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "helm {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says when it fails; fails the test when it does not.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "helm {arguments:?} went well");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The manifests of a variant of the values.
    pub fn render(&self, values: &Path) -> String {
        let chart = chart().display().to_string();
        let values = values.display().to_string();
        self.ok(&[
            "template",
            "pannier",
            &chart,
            "-n",
            "pannier-system",
            "-f",
            &values,
        ])
    }
}

/// The files in `golden/` that say with which values the chart is rendered.
pub fn variants() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(chart().join("golden"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".values.yaml"))
        .collect();
    found.sort();
    assert!(found.len() >= 4);
    found
}

pub fn documents(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|document| !document.is_null())
        .collect()
}

/// Sends text to a program.
pub fn feed(command: &mut Command, text: &str) -> Output {
    use std::{io::Write as _, process::Stdio};
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    child.wait_with_output().unwrap()
}
