//! The chart and the plain manifests on an API server, in every order that users come up with.

use std::fs;

use e2e::{environment::available, kubernetes::ControlPlane};
use k8s_openapi::{
    api::admissionregistration::v1::MutatingWebhookConfiguration,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    helm::{Helm, chart, feed, repository},
    text,
};

/// Applies the definitions of this checkout as `kubectl apply -f crds/` does.
fn kubectl_crds(plane: &ControlPlane) {
    let mut apply = plane.kubectl();
    apply.args(["apply", "-f"]).arg(repository().join("crds"));
    let output = apply.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// A tier that is to stay.
fn apply_tier(plane: &ControlPlane) {
    let tier = json!({
        "apiVersion": "pannier.dev/v1alpha1", "kind": "CacheTier", "metadata": {"name": "kept"},
        "spec": {"redis": {"topology": "None"}},
    });
    let applied = feed(
        plane.kubectl().args(["apply", "-f", "-"]),
        &tier.to_string(),
    );
    assert!(applied.status.success(), "{}", text(&applied.stderr));
}

fn definitions(client: &Client) -> Api<CustomResourceDefinition> {
    Api::all(client.clone())
}

const NAMES: [&str; 2] = ["cachetiers.pannier.dev", "sessionpolicies.pannier.dev"];

/// The release that Helm thinks each definition belongs to.
async fn owners(client: &Client) -> Vec<Option<String>> {
    let mut found = Vec::new();
    for name in NAMES {
        let definition = definitions(client).get(name).await.unwrap();
        let annotations = definition.annotations();
        found.push(annotations.get("meta.helm.sh/release-name").cloned());
    }
    found
}

fn of(release: &str) -> Vec<Option<String>> {
    vec![Some(release.to_owned()); 2]
}

/// What there is of an installation, apart from the definitions and its namespace.
fn ours(plane: &ControlPlane) -> Vec<String> {
    let list = |arguments: &[&str]| {
        let mut kubectl = plane.kubectl();
        kubectl.args(["get", "-o", "name"]).args(arguments);
        text(&kubectl.output().unwrap().stdout)
    };
    let inside = "deploy,svc,sa,role,rolebinding,pdb,networkpolicy,secret,configmap,lease";
    let inside = list(&["-n", "pannier-system", inside]);
    // What Kubernetes makes in every namespace.
    let inside = inside
        .lines()
        .filter(|name| !name.ends_with("/default") && !name.contains("kube-root-ca"));
    let outside = list(&["clusterrole,clusterrolebinding,mutatingwebhookconfiguration"]);
    let outside = outside.lines().filter(|name| name.contains("pannier"));
    inside.chain(outside).map(ToOwned::to_owned).collect()
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one story: each order begins where the last one ended"
)]
async fn definitions_come_and_stay_in_every_order() {
    let test = "definitions_come_and_stay_in_every_order";
    let Some(plane) = available(test, ControlPlane::start()) else {
        return;
    };
    let Some(helm) = available(test, Helm::on(&plane)) else {
        return;
    };
    let client = plane.client().await;
    let chart = chart().display().to_string();
    let install = |release: &str| {
        helm.ok(&[
            "install",
            release,
            &chart,
            "-n",
            "pannier-system",
            "--create-namespace",
        ]);
    };
    let uninstall = |release: &str| {
        helm.ok(&["uninstall", release, "-n", "pannier-system", "--wait"]);
    };
    // By the chart; they stay, and another release finds them.
    install("first");
    assert_eq!(owners(&client).await, of("first"));
    apply_tier(&plane);
    uninstall("first");
    install("second");
    assert_eq!(
        owners(&client).await,
        of("first"),
        "left alone: they say the same"
    );
    let kept = plane
        .kubectl()
        .args(["get", "cachetier", "kept"])
        .output()
        .unwrap();
    assert!(kept.status.success(), "{}", text(&kept.stderr));
    // Those that say something else are not overlooked, and taken over when Helm is told so.
    let older = json!({"spec": {"versions": [{
        "name": "v1alpha1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
    }]}});
    for name in NAMES {
        let patch = Patch::Merge(&older);
        definitions(&client)
            .patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }
    let upgrade = ["upgrade", "second", &chart, "-n", "pannier-system"];
    let said = helm.refused(&upgrade);
    assert!(
        said.contains("cachetiers.pannier.dev") && said.contains("ownership"),
        "{said}"
    );
    helm.ok(&[&upgrade[..], &["--take-ownership", "--force-conflicts"]].concat());
    assert_eq!(owners(&client).await, of("second"));
    let definition = definitions(&client).get(NAMES[0]).await.unwrap();
    let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
    assert!(
        schema["openAPIV3Schema"]["properties"]["spec"].is_object(),
        "the new one is there"
    );
    uninstall("second");
    // By kubectl, before and between.
    for name in NAMES {
        definitions(&client)
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
        e2e::kubernetes::until_gone(e2e::wait::PATIENCE, &definitions(&client), name).await;
    }
    kubectl_crds(&plane);
    install("third");
    assert_eq!(owners(&client).await, [None, None]);
    helm.ok(&[
        "upgrade",
        "third",
        &chart,
        "-n",
        "pannier-system",
        "--set",
        "replicas=1",
    ]);
    kubectl_crds(&plane);
    uninstall("third");
    for name in NAMES {
        assert!(
            definitions(&client).get_opt(name).await.unwrap().is_some(),
            "{name} is kept"
        );
    }
    assert_eq!(ours(&plane), [""; 0]);
}

#[tokio::test]
async fn an_upgrade_keeps_the_bundle_that_the_operator_has_written() {
    let test = "an_upgrade_keeps_the_bundle_that_the_operator_has_written";
    let Some(plane) = available(test, ControlPlane::start()) else {
        return;
    };
    let Some(helm) = available(test, Helm::on(&plane)) else {
        return;
    };
    let client = plane.client().await;
    let chart = chart().display().to_string();
    let on = ["--set", "webhook.enabled=true", "-n", "pannier-system"];
    let release = ["pannier", &chart, "--create-namespace"];
    helm.ok(&[&["install"], &release[..], &on].concat());
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client);
    let bundles = async || -> Vec<Value> {
        let found = webhooks.get("pannier-operator").await.unwrap();
        let found = serde_json::to_value(found.webhooks.unwrap()).unwrap();
        let found = found.as_array().unwrap().iter();
        found
            .map(|one| one["clientConfig"]["caBundle"].clone())
            .collect()
    };
    let authority = fs::read_to_string(&plane.access().authority).unwrap();
    let bundle = json!(k8s_openapi::ByteString(authority.into_bytes()));
    let entry = |name: &str| {
        let name = format!("{name}.inject.pannier.dev");
        json!({"name": name, "clientConfig": {"caBundle": bundle.clone()}})
    };
    let patch = json!({"webhooks": [entry("namespaces"), entry("pods")]});
    let patch = Patch::Strategic(&patch);
    webhooks
        .patch("pannier-operator", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(bundles().await, [bundle.clone(), bundle.clone()]);
    for change in ["webhook.timeoutSeconds=7", "replicas=3"] {
        helm.ok(&[&["upgrade"], &release[..], &on, &["--set", change]].concat());
        assert_eq!(
            bundles().await,
            [bundle.clone(), bundle.clone()],
            "{change}"
        );
    }
    helm.ok(&["rollback", "pannier", "1", "-n", "pannier-system"]);
    assert_eq!(bundles().await, [bundle.clone(), bundle.clone()]);
}

#[test]
fn the_plain_manifests_go_without_the_definitions_by_the_command_of_the_docs() {
    let test = "the_plain_manifests_go_without_the_definitions_by_the_command_of_the_docs";
    let Some(plane) = available(test, ControlPlane::start()) else {
        return;
    };
    let kubectl = |line: &str| {
        let mut kubectl = plane.kubectl();
        kubectl
            .current_dir(repository())
            .args(line.split_whitespace());
        let output = kubectl.output().unwrap();
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    };
    let docs = fs::read_to_string(repository().join("docs/install.md")).unwrap();
    let command = |begin: &str| {
        let found = docs.lines().find_map(|line| {
            let command = line.strip_prefix("$ kubectl ")?;
            command.starts_with(begin).then_some(command)
        });
        found.unwrap()
    };
    kubectl(command("apply -f deploy/pannier.yaml"));
    kubectl(&format!(
        "wait --for=condition=Established crd {}",
        NAMES.join(" ")
    ));
    apply_tier(&plane);
    kubectl(command("delete -f deploy/pannier.yaml"));
    kubectl("get cachetier kept");
    assert_eq!(ours(&plane), [""; 0]);
}
