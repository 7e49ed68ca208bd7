//! The table of accepted and refused resources (`crds/tests/cases`), judged by a real API server.
//! The crate `crds` judges the same table with an interpreter of its own: both must agree.

use e2e::{
    environment::available,
    kubernetes::{ApiServer, new_namespace, send_strictly},
};
use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    spec: Value,
    #[serde(default)]
    old: Option<Value>,
    #[serde(default)]
    refused: Option<String>,
    #[serde(default)]
    by: String,
    #[serde(default)]
    at: String,
}

struct Judged {
    kind: &'static str,
    plural: &'static str,
    cases: &'static str,
}

const KINDS: [Judged; 2] = [
    Judged {
        kind: "CacheTier",
        plural: "cachetiers",
        cases: include_str!("../../../crds/tests/cases/cache_tier.yaml"),
    },
    Judged {
        kind: "SessionPolicy",
        plural: "sessionpolicies",
        cases: include_str!("../../../crds/tests/cases/session_policy.yaml"),
    },
];

#[tokio::test]
async fn the_api_server_judges_every_case_as_the_local_check_does() {
    let test = "the_api_server_judges_every_case_as_the_local_check_does";
    let Some(plane) = available(test, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "admission").await;
    let mut wrong = Vec::new();
    let mut judged = 0;
    for Judged {
        kind,
        plural,
        cases,
    } in KINDS
    {
        let cases: Vec<Case> = serde_yaml::from_str(cases).unwrap();
        let all = format!("/apis/pannier.dev/v1alpha1/namespaces/{namespace}/{plural}");
        for (number, case) in cases.iter().enumerate() {
            let name = format!("case-{number}");
            let object = |spec: &Value| {
                json!({
                    "apiVersion": "pannier.dev/v1alpha1",
                    "kind": kind,
                    "metadata": {"name": name},
                    "spec": spec,
                })
            };
            let verdict = if let Some(old) = &case.old {
                let refused = send_strictly(&client, "POST", &all, false, &object(old)).await;
                assert_eq!(refused, None, "{kind}, {}: the old one", case.name);
                let one = format!("{all}/{name}");
                let mut changed = object(&case.spec);
                // An update has to say which version it changes.
                changed["metadata"]["resourceVersion"] = version(&client, &one).await;
                send_strictly(&client, "PUT", &one, true, &changed).await
            } else {
                send_strictly(&client, "POST", &all, true, &object(&case.spec)).await
            };
            judged += 1;
            if let Some(complaint) = complaint(case, verdict.as_deref()) {
                wrong.push(format!("{kind}, {}: {complaint}", case.name));
            }
        }
    }
    assert!(judged > 100, "{judged}");
    assert!(
        wrong.is_empty(),
        "{} of {judged}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

async fn version(client: &Client, one: &str) -> Value {
    let request = http::Request::get(one).body(Vec::new()).unwrap();
    let found: Value = client.request(request).await.unwrap();
    found["metadata"]["resourceVersion"].clone()
}

/// The API server drops a field without value before it looks at the schema, so a line left empty
/// counts as one left out; the local check tells the author about it.
/// See <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#defaulting-and-nullable>.
fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(fields) => fields.values().any(has_null),
        _ => false,
    }
}

/// What is wrong with a verdict.
fn complaint(case: &Case, verdict: Option<&str>) -> Option<String> {
    let refused = case.refused.as_ref().filter(|_| !has_null(&case.spec));
    match (refused, verdict) {
        (None, None) => None,
        (None, Some(message)) => Some(format!("must be accepted, but: {message}")),
        (Some(_), None) => Some("must be refused, but is accepted".to_owned()),
        (Some(part), Some(message)) => {
            // A rule has the words of the local check; the schema's are the API server's own.
            let expected = match case.by.as_str() {
                "rule" => part.as_str(),
                _ => case
                    .at
                    .rsplit('.')
                    .next()
                    .unwrap()
                    .split('[')
                    .next()
                    .unwrap(),
            };
            let missing = !message.contains(expected);
            missing.then(|| format!("`{expected}` is not in: {message}"))
        }
    }
}
