//! The chart, judged without nodes: by Helm's lint, by the schemas of a real API server and by its
//! dry run, against golden renders; and installed there, in every order that users come up with.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic is the report; clippy.toml covers only functions marked #[test]"
)]

#[path = "chart/helm.rs"]
mod helm;
#[path = "chart/install.rs"]
mod install;
#[path = "chart/rights.rs"]
mod rights;
#[path = "chart/schemas.rs"]
mod schemas;

use std::{collections::BTreeSet, env, fs, path::Path, process::Command};

use e2e::{
    environment::available,
    kubernetes::{ControlPlane, product, tools},
};
use policy::names::MAX_TIER_NAME;
use serde_json::{Value, json};

use self::helm::{Helm, chart, documents, feed, repository, variants};

/// Kinds of the Prometheus operator: this API server does not know them.
fn is_foreign(document: &Value) -> bool {
    let version = document["apiVersion"].as_str().unwrap();
    version.starts_with("monitoring.coreos.com/")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn compare(file: &Path, content: &str) {
    if env::var_os("UPDATE").is_some() {
        fs::write(file, content).unwrap();
    }
    let found = fs::read_to_string(file).unwrap_or_default();
    assert!(
        found == content,
        "{} is not what the chart says; run `make generate` and look at the difference",
        file.display()
    );
}

#[test]
fn renders_are_as_reviewed() {
    let Some(helm) = available("renders_are_as_reviewed", Helm::offline()) else {
        return;
    };
    for values in variants() {
        let golden = values.display().to_string();
        let golden = golden.replace(".values.yaml", ".yaml");
        compare(Path::new(&golden), &helm.render(&values));
    }
}

#[test]
fn the_plain_manifests_are_those_of_the_chart() {
    let Some(helm) = available(
        "the_plain_manifests_are_those_of_the_chart",
        Helm::offline(),
    ) else {
        return;
    };
    let chart = chart().display().to_string();
    let rendered = helm.ok(&[
        "template",
        "pannier",
        &chart,
        "-n",
        "pannier-system",
        "--skip-tests",
    ]);
    // These say that Helm takes care of an object, and nobody would.
    let helms = ["app.kubernetes.io/managed-by:", "helm.sh/", "# Source:"];
    let lines = rendered
        .lines()
        .filter(|line| !helms.iter().any(|mark| line.trim_start().starts_with(mark)));
    let mut plain = String::new();
    for line in lines {
        plain += line.trim_end();
        plain.push('\n');
    }
    // The annotations of a definition are gone with its only one.
    let plain = plain.replace(
        "\nmetadata:\n  annotations:\n  name:",
        "\nmetadata:\n  name:",
    );
    let head = "# Generated from charts/pannier by `make generate`; do not edit.\n#   kubectl apply -f \
                deploy/pannier.yaml\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: pannier-system\n";
    compare(
        &repository().join("deploy/pannier.yaml"),
        &format!("{head}{plain}"),
    );
}

#[test]
fn the_chart_has_the_version_of_the_workspace() {
    let about = fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    let about: Value = serde_yaml::from_str(&about).unwrap();
    for field in ["version", "appVersion"] {
        assert_eq!(about[field], product::VERSION, "{field}");
    }
}

#[test]
fn containerfiles_make_the_images_that_make_images_makes() {
    for product in product::Product::ALL {
        let file = repository().join(product.name()).join("Containerfile");
        let text = fs::read_to_string(&file).unwrap();
        let text = text.replace("\\\n", " ");
        let said: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let inside = product.inside();
        let labels = product.labels("$COMMIT").map(|(name, value)| {
            let value = if name == "version" {
                "$VERSION".to_owned()
            } else {
                value
            };
            format!("org.opencontainers.image.{name}={value}")
        });
        for line in [
            format!("RUN cargo {}", product.cargo().join(" ")),
            "FROM scratch".to_owned(),
            format!("LABEL {}", labels.join(" ")),
            format!(
                "COPY --from=build /source/target/release/{} {inside}",
                product.program()
            ),
            "USER 65532:65532".to_owned(),
            format!("ENTRYPOINT [\"{inside}\"]"),
        ] {
            assert!(said.contains(&line), "{}: no line {line}", file.display());
        }
        let authorities = format!("COPY --from=build {0} {0}", product::AUTHORITIES);
        let sidecar = product == product::Product::Sidecar;
        assert_eq!(said.contains(&authorities), sidecar, "{}", file.display());
    }
}

#[test]
fn every_value_has_a_schema_and_a_comment() {
    let read = |name: &str| fs::read_to_string(chart().join(name)).unwrap();
    let values: Value = serde_yaml::from_str(&read("values.yaml")).unwrap();
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let names = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let mut declared = names(&schema["properties"]);
    // Helm's own.
    declared.remove("global");
    assert_eq!(declared, names(&values));
    // The comment stands above the value, or above the only thing in it.
    let lines: Vec<String> = read("values.yaml").lines().map(str::to_owned).collect();
    for (number, line) in lines.iter().enumerate() {
        let is_value = line.starts_with(|first: char| first.is_ascii_alphabetic());
        let near = [number.wrapping_sub(1), number + 1];
        let comment = near.iter().filter_map(|at| lines.get(*at));
        let told = comment
            .into_iter()
            .any(|near| near.trim_start().starts_with('#'));
        assert!(
            !is_value || told,
            "values.yaml:{}: {line} has no comment",
            number + 1
        );
    }
}

#[test]
fn values_that_make_no_sense_are_refused_by_their_path() {
    let test = "values_that_make_no_sense_are_refused_by_their_path";
    let Some(helm) = available(test, Helm::offline()) else {
        return;
    };
    let chart = chart().display().to_string();
    for (value, path) in [
        ("replicas=-1", "/replicas"),
        ("replica=1", "replica"),
        ("webhook.enabled=yes", "/webhook/enabled"),
        ("image.tag=a/b", "/image/tag"),
        ("image.digest=abc", "/image/digest"),
        ("watchNamespaces={A}", "/watchNamespaces/0"),
        ("webhook.timeoutSeconds=60", "/webhook/timeoutSeconds"),
        // Where the operator has its probes.
        ("webhook.port=8080", "/webhook/port"),
        (
            "networkPolicy.apiServerPorts={0}",
            "/networkPolicy/apiServerPorts/0",
        ),
        (
            "networkPolicy.externalRedisPorts={6379,70000}",
            "/networkPolicy/externalRedisPorts/1",
        ),
        (
            "monitoring.podMonitor.interval=often",
            "/monitoring/podMonitor/interval",
        ),
    ] {
        let said = helm.refused(&["template", &chart, "--set", value]);
        assert!(said.contains(path), "{value}: {said}");
    }
}

#[test]
fn sidecars_are_not_promised_where_the_webhook_looks_away() {
    let test = "sidecars_are_not_promised_where_the_webhook_looks_away";
    let Some(helm) = available(test, Helm::offline()) else {
        return;
    };
    let chart = chart().display().to_string();
    for (field, value) in [
        ("watchNamespaces", "watchNamespaces={blog,shop}"),
        ("shareNamespaces", "shareNamespaces={shop}"),
        ("test.namespace", "test.namespace=shop"),
    ] {
        let render = ["template", "p", &chart, "-n", "shop", "--set", value];
        let said = helm.refused(&render);
        let named = format!("{field} names \"shop\", the namespace of the release");
        assert!(said.contains(&named), "{said}");
        assert!(said.contains("webhook.enabled=false"), "{said}");
        helm.ok(&[&render[..], &["--set", "webhook.enabled=false"]].concat());
    }
    let notes = |namespace: &str, enabled: &str| {
        let said = helm.ok(&[
            "install",
            "p",
            &chart,
            "-n",
            namespace,
            "--dry-run=client",
            "--set",
            enabled,
        ]);
        said.split_once("NOTES:").unwrap().1.to_owned()
    };
    let enabled = "webhook.enabled=true";
    let own = notes("default", enabled);
    assert!(own.contains("pods there get no sidecar"), "{own}");
    assert!(own.contains("kubectl apply -n MY-NAMESPACE"), "{own}");
    assert!(own.contains("kubectl wait -n MY-NAMESPACE"), "{own}");
    for notes in [
        notes("pannier-system", enabled),
        notes("default", "webhook.enabled=false"),
    ] {
        assert!(notes.contains("kubectl apply -n default"), "{notes}");
        assert!(!notes.contains("MY-NAMESPACE"), "{notes}");
    }
}

#[test]
fn the_test_has_names_that_fit_whatever_the_release_is_called() {
    let test = "the_test_has_names_that_fit_whatever_the_release_is_called";
    let Some(helm) = available(test, Helm::offline()) else {
        return;
    };
    let chart = chart().display().to_string();
    let longest = "r".repeat(53);
    let values = format!("fullnameOverride={longest}");
    for values in ["replicas=2", &values] {
        let rendered = helm.ok(&[
            "template",
            &longest,
            &chart,
            "-s",
            "templates/tests/hit.yaml",
            "--set",
            values,
        ]);
        let all = documents(&rendered);
        let name = |kind: &str| {
            let found = all.iter().find(|one| one["kind"] == kind);
            found.unwrap()["metadata"]["name"].as_str().unwrap()
        };
        assert!(name("CacheTier").len() <= MAX_TIER_NAME, "{rendered}");
        // A label of a Job's pods.
        assert!(name("Job").len() <= 63, "{rendered}");
        assert!(name("Namespace").len() <= 63, "{rendered}");
        let asked = format!("pannier.dev/inject: {}\n", name("CacheTier"));
        assert!(rendered.contains(&asked), "{rendered}");
    }
}

#[test]
fn the_operator_may_visit_external_servers_at_the_ports_that_are_given() {
    let test = "the_operator_may_visit_external_servers_at_the_ports_that_are_given";
    let Some(helm) = available(test, Helm::offline()) else {
        return;
    };
    let chart = chart().display().to_string();
    let only = ["-s", "templates/networkpolicy.yaml"];
    for (value, expected) in [
        ("replicas=2", vec![json!([6379, 26379])]),
        (
            "networkPolicy.externalRedisPorts=[6380]",
            vec![json!([6380])],
        ),
        ("networkPolicy.externalRedisPorts=[]", Vec::new()),
    ] {
        let rendered = helm.ok(&[
            &["template", "p", &chart][..],
            &only,
            &["--set-json", value],
        ]
        .concat());
        let policy = documents(&rendered).remove(0);
        let rules = policy["spec"]["egress"].as_array().unwrap();
        // The first without a peer is that of DNS and the API server.
        let anywhere = rules.iter().filter(|rule| rule["to"].is_null()).skip(1);
        let ports = anywhere.map(|rule| {
            let ports = rule["ports"].as_array().unwrap().iter();
            ports.map(|one| one["port"].clone()).collect::<Value>()
        });
        assert_eq!(ports.collect::<Vec<_>>(), expected, "{value}");
    }
}

#[tokio::test]
async fn lint_schemas_and_the_api_server_accept_every_variant() {
    let test = "lint_schemas_and_the_api_server_accept_every_variant";
    let Some(plane) = available(test, ControlPlane::shared()) else {
        return;
    };
    let Some(helm) = available(test, Helm::offline()) else {
        return;
    };
    let Some(kubeconform) = available(test, tools::kubeconform()) else {
        return;
    };
    let client = plane.client().await;
    let folder = plane.folder().join("schemas");
    fs::create_dir_all(&folder).unwrap();
    schemas::write(&client, &folder).await;
    let location = format!(
        "{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
        folder.display()
    );
    let judge = |manifests: &str| {
        let mut judge = Command::new(&kubeconform);
        judge.args(["-strict", "-summary", "-schema-location", &location, "-"]);
        feed(&mut judge, manifests)
    };
    // It would accept anything if it found no schema.
    let typo = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndate: {}\n";
    assert!(
        text(&judge(typo).stdout).contains("date"),
        "{:?}",
        judge(typo)
    );
    for namespace in [
        "pannier-system",
        "shop",
        "shop-apps",
        "pannier-operator-test",
    ] {
        let made = plane
            .kubectl()
            .args(["create", "namespace", namespace])
            .output();
        let said = text(&made.unwrap().stderr);
        assert!(said.is_empty() || said.contains("AlreadyExists"), "{said}");
    }
    let plain = fs::read_to_string(repository().join("deploy/pannier.yaml")).unwrap();
    let judged = judge(&plain);
    assert!(judged.status.success(), "{}", text(&judged.stdout));
    for values in variants() {
        let name = values.display().to_string();
        helm.ok(&[
            "lint",
            "--strict",
            &chart().display().to_string(),
            "-f",
            &name,
        ]);
        let all = documents(&helm.render(&values));
        let known = all.iter().filter(|one| !is_foreign(one));
        let known: Vec<String> = known.map(|one| format!("---\n{one}\n")).collect();
        let known = known.concat();
        let judged = judge(&known);
        assert!(judged.status.success(), "{name}: {}", text(&judged.stdout));
        let mut dry = plane.kubectl();
        dry.args([
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
        ]);
        let dry = feed(&mut dry, &known);
        assert!(dry.status.success(), "{name}: {}", text(&dry.stderr));
    }
}
