//! Values that cannot be, for every field of both kinds: made from the schema, so that a new field has
//! its own without anybody thinking of it. Of the wrong form: the API server refuses them. Of the
//! right form and without sense (too large for any number, nothing at all, no name of an object):
//! refused, or `Stalled` with the field; what is taken instead stands in a table with the reason.

use std::{collections::BTreeSet, time::Duration};

use e2e::{
    environment::available,
    kubernetes::{ApiServer, definitions, eventually_within, new_namespace, send_strictly},
};
use futures_util::{StreamExt as _, stream};
use kube::Client;
use serde_json::{Value, json};

use crate::{
    ALL,
    fields::{merge, secrets},
    world::{Operator, api, resource, tier},
};

const MINUTE: Duration = Duration::from_mins(1);
/// Calls at a time.
const ABREAST: usize = 8;
/// Larger than any number that a field can have.
const BEYOND: &str = "99999999999999999999";
/// No name of an object, no label, no path.
const ODD: &str = "No Name: \u{fc}!";

// === the fields ===

/// One field or block: where it is, and its schema.
struct Field {
    kind: &'static str,
    /// `rules[].ttl`, `redis.config{}`.
    path: String,
    schema: Value,
    /// The schema of the whole spec.
    spec: Value,
}

impl Field {
    /// As the API server writes it.
    fn shown(&self) -> String {
        let path = self.path.replace("[]", "[0]").replace("{}", ".k");
        format!("spec.{path}")
    }

    /// Its last name.
    fn name(&self) -> &str {
        let name = self.path.rsplit('.').next().unwrap();
        name.trim_end_matches("[]").trim_end_matches("{}")
    }

    /// A spec in which it has this value, and everything that is needed around it.
    fn within(&self, value: &Value) -> Value {
        let mut spec = around(self.kind, &self.path);
        let steps: Vec<&str> = self.path.split('.').collect();
        let change = steps.iter().rev().fold(value.clone(), |inner, step| {
            if let Some(list) = step.strip_suffix("[]") {
                json!({list: [inner]})
            } else if let Some(map) = step.strip_suffix("{}") {
                json!({map: {"k": inner}})
            } else {
                json!({*step: inner})
            }
        });
        merge(&mut spec, &change);
        complete(&self.spec, &mut spec);
        spec
    }
}

/// All fields and blocks of both kinds.
fn all_fields() -> Vec<Field> {
    let mut fields = Vec::new();
    for (kind, definition) in ["CacheTier", "SessionPolicy"]
        .into_iter()
        .zip(definitions())
    {
        let definition = serde_json::to_value(definition).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let spec = schema["properties"]["spec"].clone();
        walk(kind, &spec, &spec, "", &mut fields);
    }
    fields
}

fn walk(kind: &'static str, spec: &Value, schema: &Value, path: &str, into: &mut Vec<Field>) {
    let mut one = |path: String, schema: &Value| {
        let nested = path.clone();
        into.push(Field {
            kind,
            path,
            schema: schema.clone(),
            spec: spec.clone(),
        });
        walk(kind, spec, schema, &nested, into);
    };
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let dot = if path.is_empty() { "" } else { "." };
        one(format!("{path}{dot}{name}"), schema);
    }
    if schema["items"].is_object() {
        one(format!("{path}[]"), &schema["items"]);
    }
    if schema["additionalProperties"].is_object() {
        one(format!("{path}{{}}"), &schema["additionalProperties"]);
    }
}

/// What has to stand beside a field so that it has a meaning.
fn around(kind: &str, path: &str) -> Value {
    if kind == "SessionPolicy" {
        return json!({"cacheTierRef": {"name": "t"}});
    }
    let external = |more: Value| {
        let mut external = json!({"urlSecretRef": {"name": "one"}});
        merge(&mut external, &more);
        json!({"redis": {"topology": "External", "external": external}})
    };
    let standalone = |more: Value| {
        let mut redis = json!({"topology": "Standalone"});
        merge(&mut redis, &more);
        json!({"redis": redis})
    };
    let begins = |with: &str| path.starts_with(with);
    if begins("redis.external.sentinel") {
        external(json!({"mode": "Sentinel", "sentinelMasterName": "m"}))
    } else if begins("redis.external") {
        external(json!({}))
    } else if begins("redis.tls") {
        let mut spec = external(json!({}));
        merge(&mut spec, &json!({"redis": {"tls": {"mode": "Enabled"}}}));
        spec
    } else if begins("redis.persistence") {
        standalone(json!({"persistence": {"mode": "Rdb", "size": "1Gi"}}))
    } else if begins("redis.auth.password") {
        standalone(
            json!({"auth": {"mode": "Secret", "passwordSecretRef": {"name": "one", "key": "p"}}}),
        )
    } else if begins("redis.") {
        standalone(json!({}))
    } else {
        json!({"redis": {"topology": "None"}})
    }
}

/// Gives what is required and missing beside the value in question.
fn complete(schema: &Value, value: &mut Value) {
    let Some(properties) = schema["properties"].as_object() else {
        if let (Some(items), true) = (value.as_array_mut(), schema["items"].is_object()) {
            for item in items {
                complete(&schema["items"], item);
            }
        }
        return;
    };
    let Some(fields) = value.as_object_mut() else {
        return;
    };
    for required in schema["required"].as_array().into_iter().flatten() {
        let required = required.as_str().unwrap();
        if !fields.contains_key(required) {
            fields.insert(required.to_owned(), sample(&properties[required], required));
        }
    }
    for (name, value) in fields {
        complete(&properties.get(name).cloned().unwrap_or_default(), value);
    }
}

fn sample(schema: &Value, name: &str) -> Value {
    if let Some(words) = schema["enum"].as_array() {
        return words[0].clone();
    }
    match (schema["type"].as_str(), name) {
        (Some("integer"), _) => schema["minimum"].clone(),
        (Some("object"), _) => {
            let mut block = json!({});
            complete(schema, &mut block);
            block
        }
        (Some("array"), _) => json!([sample(&schema["items"], name)]),
        (_, "match") => json!("k:{id}"),
        (_, "interval" | "window" | "readFor") => json!("1m"),
        (_, "destination") => json!("s3://bucket"),
        (_, "url") => json!("http://localhost/a"),
        _ => json!("a"),
    }
}

// === the wrong form ===

/// Values that a schema must refuse, and what is wrong with each.
fn of_wrong_form(field: &Field) -> Vec<(&'static str, Value)> {
    let schema = &field.schema;
    // The API's schemas have numbers with a fraction.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "limits are small whole numbers"
    )]
    let number = |name: &str| schema[name].as_f64().map(|number| number as i64);
    let most = |name: &str| {
        let most = number(name);
        let most = most.unwrap_or_else(|| panic!("{}: no {name}", field.shown()));
        usize::try_from(most).unwrap() + 1
    };
    match schema["type"].as_str().unwrap() {
        "string" if schema["enum"].is_array() => {
            vec![
                ("a word", json!("Surprise")),
                ("nothing", json!("")),
                ("a number", json!(7)),
            ]
        }
        "string" => {
            let mut values = vec![
                ("a number", json!(7)),
                ("a truth value", json!(true)),
                ("a block", json!({"a": 1})),
                ("too long", json!("1".repeat(most("maxLength")))),
            ];
            let pattern = schema["pattern"].is_string();
            if number("minLength").is_some() || pattern && !MAY_BE_EMPTY.contains(&&*field.path) {
                values.push(("nothing", json!("")));
            }
            if schema["pattern"].is_string() {
                values.push(("odd", json!("\u{1}\n")));
            }
            values
        }
        "integer" => vec![
            ("a text", json!("7")),
            ("a fraction", json!(1.5)),
            ("too small", json!(number("minimum").unwrap_or(0) - 1)),
            ("too large", json!(most("maximum"))),
            ("huge", json!(i64::MAX)),
        ],
        "array" => {
            let item = match schema["items"]["type"].as_str() {
                Some("object") => json!({}),
                _ => json!("x"),
            };
            vec![
                ("a text", json!("x")),
                ("a block", json!({})),
                ("too many", json!(vec![item; most("maxItems")])),
            ]
        }
        "object" if schema["additionalProperties"].is_object() => {
            let many = (0..most("maxProperties")).map(|n| (format!("k{n}"), json!("v")));
            vec![
                ("a text", json!("x")),
                ("a list", json!([])),
                ("too many", Value::Object(many.collect())),
            ]
        }
        "object" => {
            let mut values = vec![
                ("a text", json!("x")),
                ("a list", json!([])),
                ("an unknown field", json!({"surprise": 1})),
            ];
            if schema["required"].is_array() {
                values.push(("nothing in it", json!({})));
            }
            values
        }
        other => panic!("{}: values of type {other} are not made yet", field.shown()),
    }
}

/// Creates a resource; the message of the refusal, if it is refused.
async fn create(
    client: &Client,
    namespace: &str,
    (kind, name): (&str, &str),
    spec: &Value,
    dry: bool,
) -> Option<String> {
    let resource = resource(kind);
    let object = json!({
        "apiVersion": resource.api_version, "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    let path = format!(
        "/apis/{}/namespaces/{namespace}/{}",
        resource.api_version, resource.plural
    );
    send_strictly(client, "POST", &path, dry, &object).await
}

#[tokio::test]
async fn every_field_refuses_every_value_of_the_wrong_form() {
    let name = "every_field_refuses_every_value_of_the_wrong_form";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "form").await;
    let fields = all_fields();
    let values = fields.iter().flat_map(|field| {
        let values = of_wrong_form(field).into_iter();
        values.map(move |(what, value)| (field, what, value))
    });
    let values: Vec<_> = values.collect();
    let count = values.len();
    assert!(
        fields.len() > 130 && count > 500,
        "{} {count}",
        fields.len()
    );
    let judged = stream::iter(values).map(|(field, what, value)| {
        let (client, namespace) = (&client, &namespace);
        async move {
            // Not completed: what is missing is what is to be complained about.
            let spec = match what {
                "nothing in it" => bare(field, &value),
                _ => field.within(&value),
            };
            let refused = create(client, namespace, (field.kind, "v"), &spec, true).await;
            let shown = field.shown();
            match refused {
                None => Some(format!("{} {shown}: {what} is taken: {spec}", field.kind)),
                Some(message) if message.contains(&shown) => None,
                Some(message) => Some(format!(
                    "{} {shown}: {what} is refused for another reason: {message}",
                    field.kind
                )),
            }
        }
    });
    let wrong: Vec<String> = judged
        .buffered(ABREAST)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The value at its place and nothing beside it.
fn bare(field: &Field, value: &Value) -> Value {
    let steps: Vec<&str> = field.path.split('.').collect();
    steps
        .iter()
        .rev()
        .fold(value.clone(), |inner, step| match step.strip_suffix("[]") {
            Some(list) => json!({list: [inner]}),
            None => json!({*step: inner}),
        })
}

// === the right form, without sense ===

/// What is taken although it looks odd, and why that is right.
const TAKEN: &[(&str, &str, &str)] = &[
    (
        "redis.pod.annotations{}",
        "odd",
        "any text is an annotation",
    ),
    ("rules[].match", "odd", "keys of Redis are any bytes"),
    (
        "rules[].maxValueSize",
        "huge",
        "larger than any value: there is no limit",
    ),
    (
        "sidecar.resources.requests.memory",
        "zero",
        "nothing is reserved, as Kubernetes has it",
    ),
    ("slowLogThreshold", "zero", "every command is logged"),
    (
        "members.disconnectGrace",
        "zero",
        "a member is gone at once",
    ),
    ("rotation.grace", "zero", "the old identifier ends at once"),
];
/// Kubernetes has them empty.
const MAY_BE_EMPTY: [&str; 3] = [
    "redis.pod.labels{}",
    "redis.pod.nodeSelector{}",
    "redis.pod.tolerations[].value",
];

/// Values of the right form that make no sense, as far as the schema can tell.
fn without_sense(field: &Field) -> Vec<(&'static str, Value)> {
    let schema = &field.schema;
    let pattern = schema["pattern"].as_str().unwrap_or_default();
    match schema["type"].as_str().unwrap() {
        "string" if schema["enum"].is_array() => Vec::new(),
        "string" if pattern.contains("ms|s|m") => vec![
            ("beyond", json!(format!("{BEYOND}d"))),
            ("zero", json!("0s")),
        ],
        "string" if pattern.contains("Ki|Mi") => vec![
            ("beyond", json!(BEYOND)),
            ("huge", json!("16777215Ti")),
            ("zero", json!("0")),
        ],
        "string" => vec![("odd", json!(ODD))],
        "object" if schema["additionalProperties"].is_object() => {
            vec![("odd key", json!({ODD: "v"}))]
        }
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_or_told_with_its_field() {
    let name = "what_makes_no_sense_is_refused_or_told_with_its_field";
    let Some(plane) = available(name, ApiServer::shared()) else {
        return;
    };
    let client = plane.client().await;
    let namespace = new_namespace(&client, "sense").await;
    secrets(&client, &namespace).await;
    let _operator = Operator::start(plane.access(), &namespace, ALL).await;
    let fields = all_fields();
    let values = fields.iter().flat_map(|field| {
        let values = without_sense(field).into_iter();
        values.map(move |(what, value)| (field, what, value))
    });
    let values: Vec<_> = values.collect();
    let judged = stream::iter(values.iter().enumerate()).map(|(number, (field, what, value))| {
        let (client, namespace) = (&client, &namespace);
        async move {
            let name = format!("v{number}");
            let mut spec = field.within(value);
            if field.kind == "SessionPolicy" && field.path != "cacheTierRef.name" {
                // A tier has one policy.
                tier(client, namespace, &name, json!({"topology": "None"})).await;
                spec["cacheTierRef"]["name"] = name.clone().into();
            }
            let verdict = judge(client, namespace, (field.kind, &name), &spec).await;
            println!("{} {} {what}: {verdict:?}", field.kind, field.path);
            (*field, *what, verdict)
        }
    });
    let judged: Vec<_> = judged.buffered(ABREAST).collect().await;
    let mut wrong = Vec::new();
    let mut taken = BTreeSet::new();
    for (field, what, verdict) in judged {
        let Field { kind, path, .. } = field;
        let known = TAKEN
            .iter()
            .find(|row| (row.0, row.1) == (path.as_str(), what));
        match (verdict, known) {
            (Verdict::Taken, Some(_)) => {
                taken.insert((path.as_str(), what));
            }
            (Verdict::Taken, None) => wrong.push(format!("{kind} {path}: {what} is taken")),
            (Verdict::Refused(message) | Verdict::Told(message), _)
                if !message.contains(field.name()) && !message.contains("is not available yet") =>
            {
                wrong.push(format!(
                    "{kind} {path}: {what}: the field is not named: {message}"
                ));
            }
            _ => {}
        }
    }
    for (path, what, _) in TAKEN {
        if !taken.contains(&(*path, *what)) {
            wrong.push(format!("{path}: {what} is not taken, as the table says"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        values.len(),
        wrong.join("\n")
    );
}

#[derive(Debug)]
enum Verdict {
    /// By the API server.
    Refused(String),
    /// By the operator.
    Told(String),
    Taken,
}

async fn judge(
    client: &Client,
    namespace: &str,
    (kind, name): (&str, &str),
    spec: &Value,
) -> Verdict {
    if let Some(message) = create(client, namespace, (kind, name), spec, false).await {
        return Verdict::Refused(message);
    }
    let what = format!("{kind} {name} is judged: {spec}");
    let all = api(client, kind, namespace);
    eventually_within(2 * MINUTE, &what, || async {
        let object = all.get(name).await.unwrap();
        let seen = object.data["status"]["observedGeneration"].as_i64();
        if seen.is_none() || seen != object.metadata.generation {
            return None;
        }
        let conditions = object.data["status"]["conditions"].as_array()?;
        let find = |type_: &str| conditions.iter().find(|one| one["type"] == type_);
        let stalled = find("Stalled")?;
        let text = |one: &Value| one["message"].as_str().unwrap_or_default().to_owned();
        if stalled["status"] == "True" {
            return Some(Verdict::Told(text(stalled)));
        }
        // A failed call is tried again; a tier that is well has ended its reconcile.
        (stalled["reason"] == "NotStalled").then_some(Verdict::Taken)
    })
    .await
}
